"""Quantized models, told by what lies in their folders, whatever config.json says of them.

A library that does not see the quantization may load such numbers as if they were weights. So config.json and
tensors must agree, and say how: then engines load the model as it was released, quantized.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError
from kdaudit.models.checkpoint.weights import Tensor

_KEY = "quantization_config"
"""Key of config.json, as transformers and vLLM read it."""
_OTHER_KEYS = ("compression_config", "quantization")
"""compressed-tensors' older one, MLX's."""
_FILES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
    "quant_strategy.json": "AutoRound or HQQ",
    "measurement.json": "EXL2",
    "qmodel.pt": "HQQ",
}
_RESTORED = {"quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files of old quantizers, whose content belongs into config.json today."""
METHODS = ("compressed-tensors", "gptq", "awq", "bitsandbytes", "fp8")
"""Values of quant_method that are measured."""
_LOW_PRECISION = re.compile(r"F[4-8](_|$)")
"""Floating-point dtypes that are of no use without scales: F8_E4M3, F8_E5M2, F6_E2M3, F4 ..."""
_INTEGERS = re.compile(r"[IU]\d+$")
_ENDINGS = re.compile(
    r"(^|[._])("
    r"qweight|qzeros|g_idx|q_?scales?|q_groups|q_invperm"  # GPTQ, AWQ, EXL2
    r"|weight_packed|weight_scale(_inv|_2)?|weight_scales|weight_zero_point|weight_shape|input_scale(_inv)?"
    r"|absmax|quant_map|nested_absmax|nested_quant_map|quant_state\S*|SCB|weight_format"  # bitsandbytes
    r"|W_q|codebooks|weight_qdata|weight\._(data|scale|shift|qdata)"  # HQQ, AQLM, torchao, quanto
    r")$"
)
_PARTS = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|weight_(packed|scale|scale_inv|zero_point|shape|g_idx)"
    r"|input_(scale|zero_point)|SCB|weight_format"
    r"|weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.\S+))$"
)
"""Tensors that are one quantized weight together, in the formats that are measured."""


class Quantization(NamedTuple):
    """How a model's weights are quantized."""

    method: str
    """One of `METHODS`."""
    settings: Mapping[str, Any]
    """The quantization_config of its config.json."""

    @property
    def name(self) -> str:
        """The format for reports: `compressed-tensors, INT8 W8A8`, `GPTQ, 4 bits`, `bitsandbytes, NF4`."""
        settings = self.settings
        if self.method == "compressed-tensors":
            schemes = sorted({_scheme(group) for group in self.groups})
            return f"compressed-tensors, {' and '.join(schemes) or 'of no group'}"
        if self.method == "bitsandbytes":
            four = str(settings.get("bnb_4bit_quant_type", "fp4")).upper()
            return f"bitsandbytes, {four if settings.get('load_in_4bit') else 'INT8'}"
        if self.method == "fp8":
            return "FP8"
        return f"{self.method.upper()}, {settings.get('bits')} bits"

    @property
    def groups(self) -> list[Mapping[str, Any]]:
        """The config_groups of compressed-tensors; else none."""
        groups = self.settings.get("config_groups")
        found = groups.values() if isinstance(groups, dict) else ()
        return [group for group in found if isinstance(group, dict)]

    @property
    def rounds_activations(self) -> bool:
        """Whether what passes through the layers is quantized, too, which engines may do each in its way."""
        if self.method == "compressed-tensors":
            return any(group.get("input_activations") for group in self.groups)
        return self.method == "fp8" or (self.method == "bitsandbytes" and "INT8" in self.name)


def _scheme(group: Mapping[str, Any]) -> str:
    """As compressed-tensors names its presets: weights' and activations' bits."""
    weights, inputs = (group.get(part) or {} for part in ("weights", "input_activations"))
    kind = "FP" if weights.get("type") == "float" else "INT"
    return f"{kind}{weights.get('num_bits')} W{weights.get('num_bits')}A{inputs.get('num_bits', 16)}"


def find_quantization(described: Mapping[str, Any], path: str, key: str) -> Quantization | None:
    """What config.json says of the weights; None where it says that they are whole.

    Args:
        described: the content of config.json.
        path: the model, as configured.
        key: where it stands in the configuration.

    Raises:
        ModelError: they are quantized by a method that is not measured, or it is said elsewhere.

    """
    for name, value in _entries(described):
        if name in _OTHER_KEYS and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise _is_quantized(f"{method or name} in its config.json", path, key)
    value = described.get(_KEY)
    deeper = next((entry for name, entry in _entries(described) if name == _KEY and entry), None)
    if not value and not deeper:
        return None
    method = deeper.get("quant_method") if isinstance(deeper, dict) else None
    if isinstance(value, dict) and method in METHODS:
        return Quantization(str(method), value)
    raise _is_quantized(f"{method or _KEY} in its config.json", path, key)


def check_quantization(
    found: Quantization | None, folder: Path, tensors: Mapping[str, Tensor], path: str, key: str
) -> None:
    """Check that config.json, the files beside it and the tensors say the same.

    Args:
        found: what config.json says.
        folder: the model's.
        tensors: of its weights.
        path: the model, as configured.
        key: where it stands in the configuration.

    Raises:
        ModelError: weights are quantized, and config.json does not say so; or it says so, and none is.

    """
    name = next((name for name, one in tensors.items() if _is_quantized_tensor(name, one, tensors)), None)
    if found is None:
        _refuse_quantized_files(folder, path, key)
        if name is not None:
            one = tensors[name]
            raise _is_quantized(f"the tensor {name}, {one.dtype}, in {one.file.name}", path, key)
    elif name is None:
        raise ModelError(
            f"{path}: its config.json says that it is quantized ({found.name}), and none of its tensors is",
            fix=f"remove {_KEY} if the weights are whole, else save the model again",
            key=f"{key}.path",
        )


def _refuse_quantized_files(folder: Path, path: str, key: str) -> None:
    """Refuse a folder with the file that a quantizer leaves beside the weights."""
    for name, method in _FILES.items():
        if (folder / name).exists():
            more = f"; if its weights are whole, remove {name}"
            if name in _RESTORED:
                raise ModelError(
                    f"{path} is quantized ({name}, of {method}), and its config.json does not say how",
                    fix=f"put the content of {name}, with quant_method: {_RESTORED[name]}, into config.json "
                    f"as {_KEY}{more}",
                    key=f"{key}.path",
                )
            raise _is_quantized(f"{name}, of {method}", path, key, more)


def weight_of(name: str) -> str:
    """The weight that a tensor of a quantized model is, or is a part of."""
    return _PARTS.sub(".weight", name)


def packed_numbers(name: str, tensor: Tensor, found: Quantization) -> int:
    """Weights that a tensor holds: several in each integer where they are packed."""
    if not name.endswith((".weight", ".qweight", ".weight_packed")):
        return 0
    count = math.prod(tensor.shape)
    if tensor.dtype in ("I32", "U32"):
        bits = found.settings.get("bits") or next(
            (group.get("weights", {}).get("num_bits") for group in found.groups), None
        )
        return count * 32 // (bits if isinstance(bits, int) and bits > 0 else 4)
    return 2 * count if tensor.dtype == "U8" else count  # of bitsandbytes, two in a byte


def _is_quantized_tensor(name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    if _LOW_PRECISION.match(tensor.dtype) or _ENDINGS.search(name):
        return True
    if name.endswith(".scales"):  # GPTQ, AWQ and MLX, beside qweight or an integer weight
        stem = name.removesuffix("scales")
        return any(stem + other in tensors for other in ("weight", "qweight", "biases"))
    # Other integers are buffers: causal masks, position ids.
    return _INTEGERS.match(tensor.dtype) is not None and name.endswith(("weight", "_blocks"))


def _is_quantized(evidence: str, path: str, key: str, more: str = "") -> ModelError:
    return ModelError(
        f"{path} is quantized ({evidence}), which is not supported",
        fix=f"name the model before quantization, or save it after model.dequantize(){more}",
        key=f"{key}.path",
    )


def _entries(described: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, of nested objects too, but for a quantization's own."""
    for name, value in described.items():
        yield name, value
        if isinstance(value, dict) and name != _KEY:
            yield from _entries(value)
