"""Whether the parts of quantized weights are all there, in the shapes that their settings ask for.

An engine finds out only when it loads the model, after others were measured; or it does not, and takes what
was never loaded for scales. Formats whose parts are not known here are left to the engines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.files import CONFIG
from kdaudit.models.checkpoint.quantized import Quantization
from kdaudit.models.checkpoint.weights import Tensor

Shape = tuple[int, ...]
_PACKED = "qweight"
_WHOLE_WORDS = (2, 4, 8)
"""Bits of which an integer of 32 holds a whole number."""
_LOW = ("I8", "F8_E4M3", "F8_E5M2")
"""Dtypes of quantized numbers that each have a place of their own, as in a whole weight."""
_SCALED = ("compressed-tensors", "fp8")


def check_settings(found: Quantization, path: str, key: str) -> None:
    """Refuse a quantization_config that transformers cannot use, as with bits that are no number.

    Args:
        found: how the weights are quantized.
        path: the model, as configured.
        key: where it stands in the configuration.

    Raises:
        ModelError: it cannot; or it does not say which weights are quantized.

    """
    from transformers.quantizers.auto import AutoQuantizationConfig

    what = None
    if found.method == "compressed-tensors" and not found.settings.get("config_groups"):
        what = "it has no config_groups"
    try:
        AutoQuantizationConfig.from_dict(dict(found.settings))
    except ImportError:  # what the machine lacks is another matter
        pass
    except Exception as error:  # whatever the values provoke
        what = reason(error)
    if what is not None:
        raise ModelError(
            f"{path}: the quantization_config of its {CONFIG} cannot be used ({what})",
            fix="correct it, or save the model again",
            key=f"{key}.path",
        )


class _Stored(NamedTuple):
    """One tensor of a quantized layer."""

    part: str
    """Its name in the layer: weight, qweight, weight_packed ..."""
    tensor: Tensor
    found: Quantization
    whole: Shape | None
    """Shape of the layer's weight once it is whole, where that is known."""


def check_packed(
    found: Quantization, folder: Path, tensors: Mapping[str, Tensor], whole: Mapping[str, Shape], key: str
) -> None:
    """Check the parts of each quantized weight.

    Args:
        found: how the weights are quantized.
        folder: the model's.
        tensors: what its files hold.
        whole: shapes of the model's weights once they are whole, by their names.
        key: where the model stands in the configuration.

    Raises:
        ModelError: a part is missing, or has another shape.

    """
    for name, tensor in tensors.items():
        layer, _, part = name.rpartition(".")
        stored = _Stored(part, tensor, found, whole.get(f"{layer}.weight"))
        for wanted, shape in _parts(stored):
            there = tensors.get(f"{layer}.{wanted}")
            if there is None:
                raise ModelError(
                    f"{folder}: its weights lack {layer}.{wanted}, without which {name} says nothing",
                    fix="copy or save the model again",
                    key=f"{key}.path",
                )
            if shape is not None and there.shape != shape:
                raise ModelError(
                    f"{folder}: {layer}.{wanted} has the shape {there.shape} in its weights and {shape} by "
                    f"its {CONFIG}",
                    fix="correct the one that is wrong, or save the model again",
                    key=f"{key}.path",
                )


_Parts = Iterator[tuple[str, Shape | None]]
"""Parts of the layer that a tensor needs, itself among them, with their shapes; None for any."""


def _parts(stored: _Stored) -> _Parts:
    if stored.part == _PACKED and stored.found.method in ("gptq", "awq"):
        yield from _integers(stored)
    elif stored.part == "weight" and stored.tensor.dtype in _LOW and stored.found.method in _SCALED:
        yield "weight", stored.whole
        if stored.found.method == "compressed-tensors":
            yield "weight_scale", None
    elif stored.part == "weight_packed" and stored.found.method == "compressed-tensors":
        yield "weight_scale", None


def _integers(stored: _Stored) -> _Parts:
    """Of GPTQ, packed along the inputs, and AWQ, packed along the outputs."""
    settings, shape = stored.found.settings, stored.tensor.shape
    bits, size = settings.get("bits"), settings.get("group_size")
    yield from (("scales", None), ("qzeros", None))
    if bits not in _WHOLE_WORDS or not isinstance(size, int) or stored.whole is None or len(shape) != 2:
        return
    word, awq = 32 // bits, stored.found.method == "awq"
    inputs, outputs = (shape[0], shape[1] * word) if awq else (shape[0] * word, shape[1])
    if (inputs, outputs) != stored.whole:  # as some families keep their weights; others the other way round
        outputs, inputs = stored.whole
    yield _PACKED, (inputs, outputs // word) if awq else (inputs // word, outputs)
    groups = 1 if size <= 0 else -(-inputs // size)
    yield "scales", (groups, outputs)
    yield "qzeros", None if outputs % word else (groups, outputs // word)
