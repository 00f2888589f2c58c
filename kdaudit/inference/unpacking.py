"""Weights that GPTQ and AWQ packed, as whole numbers again: what transformers reads without their libraries.

A weight is (q - z) * s: q the packed integer, z and s the zero point and the scale of its group of inputs.
The numbers are those that kernels of these formats compute with; only sums are rounded otherwise.

Sources: the layouts of AutoGPTQ 0.7 (`qlinear_cuda_old.py`) and AutoAWQ 0.2 (`packing_utils.py`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdaudit.inference.making import make_in_worker, saved
from kdaudit.inference.sizing import own_dtype
from kdaudit.models.checkpoint.files import CONFIG, config_of
from kdaudit.models.checkpoint.quantized import Quantization
from kdaudit.models.checkpoint.weights import INDEX, WHOLE, find_weights

if TYPE_CHECKING:
    import torch

    _Read = Callable[[str], torch.Tensor]

_PACKED = ".qweight"
_PARTS = (".qzeros", ".scales", ".g_idx")
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in an int32 AutoAWQ puts the numbers of eight columns."""


def unpacks(found: Quantization | None) -> bool:
    """Whether transformers is to read a model unpacked: GPTQ of 4 or 8 bits, AWQ of 4."""
    if found is None:
        return False
    bits = found.settings.get("bits")
    if found.method == "awq":
        return bits == 4 and str(found.settings.get("version", "gemm")).lower() == "gemm"
    return found.method == "gptq" and bits in (4, 8)


def unpack(source: Path, dtype: str, folder: Path) -> None:
    """Save a model with its packed weights whole, in an empty folder.

    Args:
        source: the packed model's folder.
        dtype: auto (its own), float32, bfloat16 or float16: of what is saved.
        folder: where to write.

    Raises:
        EngineError: its weights cannot be read.
        StorageError: it could not be written.

    """
    options = {"source": str(source), "dtype": dtype, "folder": str(folder)}
    make_in_worker("kdaudit.inference.unpacking:UnpackService", options, str(source))


class UnpackService:
    """Runs in the worker: it unpacks when it is built, file by file."""

    def __init__(self, options: dict[str, Any]) -> None:
        source, folder = Path(options["source"]), Path(options["folder"])
        self._trouble = saved(lambda: _unpack(source, options["dtype"], folder))

    def describe(self) -> str:
        """Why the model could not be written; empty if it was."""
        return self._trouble


def _unpack(source: Path, dtype: str, folder: Path) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    described = config_of(source)
    settings = described.pop("quantization_config")
    name = own_dtype(described) if dtype == "auto" else dtype
    weights = find_weights(source, "")
    layout = Layout.of(settings)

    def read(wanted: str) -> torch.Tensor:
        with safe_open(weights.tensors[wanted].file, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(wanted)
        return tensor

    index: dict[str, str] = {}
    for number, file in enumerate(weights.files):
        own = [one for one, tensor in weights.tensors.items() if tensor.file == file]
        made = _whole(own, weights.tensors, read, layout)
        place = WHOLE if len(weights.files) == 1 else f"model-{number}.safetensors"
        whole = {one: tensor.to(getattr(torch, name)).contiguous() for one, tensor in made.items()}
        save_file(whole, folder / place, metadata={"format": "pt"})
        index |= dict.fromkeys(whole, place)
    if len(weights.files) > 1:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    text = json.dumps({**described, "dtype": name, "torch_dtype": name})
    (folder / CONFIG).write_text(text, encoding="utf-8")


class Layout(NamedTuple):
    """How numbers lie in the integers."""

    bits: int
    awq: bool
    """Packed along the outputs, in AutoAWQ's order; else along the inputs."""
    less: int
    """What is taken from zero points before they are packed."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Layout:
        """As the quantization_config of config.json says."""
        awq = settings["quant_method"] == "awq"
        second = awq or settings.get("checkpoint_format") == "gptq_v2"
        return cls(int(settings["bits"]), awq, 0 if second else 1)


def _whole(
    names: list[str], there: Mapping[str, Any], read: _Read, layout: Layout
) -> dict[str, torch.Tensor]:
    """Tensors of one file, with whole weights in place of packed ones."""
    found = {}
    for name in names:
        stem = name.removesuffix(_PACKED)
        if stem != name:
            parts = {part: read(f"{stem}{part}") for part in _PARTS if f"{stem}{part}" in there}
            found[f"{stem}.weight"] = unpacked(read(name), parts, layout)
        elif not (name.endswith(_PARTS) and f"{name.rpartition('.')[0]}{_PACKED}" in there):
            found[name] = read(name)
    return found


def unpacked(packed: torch.Tensor, parts: Mapping[str, torch.Tensor], layout: Layout) -> torch.Tensor:
    """A whole weight: float32 (outputs, inputs).

    Args:
        packed: int32, (inputs over numbers per integer, outputs), for AWQ (inputs, outputs over the same).
        parts: zero points, packed along the outputs, and scales, each (groups, outputs); for GPTQ the group
            of each input.
        layout: how numbers lie in them.

    """
    import torch

    numbers = _numbers(packed, layout) if layout.awq else _numbers(packed.t(), layout).t()
    zeros = _numbers(parts[".qzeros"], layout) + layout.less
    scales = parts[".scales"].float()
    size = len(numbers) // len(scales)
    groups = parts[".g_idx"].long() if ".g_idx" in parts else torch.arange(len(numbers)) // size
    weight: torch.Tensor = (numbers - zeros[groups]).float() * scales[groups]
    return weight.t()


def _numbers(packed: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Unsigned integers that are packed along the last axis, in their order: int64."""
    import torch

    count = 32 // layout.bits
    order = _AWQ_ORDER if layout.awq else range(count)
    shifts = torch.tensor([layout.bits * place for place in order])
    numbers: torch.Tensor = (packed.long()[..., None] >> shifts) & (2**layout.bits - 1)
    return numbers.flatten(-2)
