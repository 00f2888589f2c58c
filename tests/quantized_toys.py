"""Tiny quantized models, rounded to the nearest value: compressed-tensors, GPTQ, AWQ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import toys
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationConfig,
    apply_quantization_config,
    preset_name_to_scheme,
)
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM


def quantize(base: Path, folder: Path, preset: str, group: int | None = None) -> None:
    """Save a model with its linear layers, all but the output layer, in a preset of compressed-tensors."""
    scheme = preset_name_to_scheme(preset, ["Linear"])
    if group is not None:
        scheme.weights.group_size = group
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    apply_quantization_config(
        model, QuantizationConfig(config_groups={"group_0": scheme}, ignore=["lm_head"])
    )
    for module in model.modules():
        if getattr(module, "quantization_scheme", None) is not None:
            _set_scales(module, scheme.weights)
    compressor = ModelCompressor.from_pretrained_model(model)
    compressor.compress_model(model)
    model.save_pretrained(folder)
    compressor.update_config(str(folder))
    toys.tokenizer().save_pretrained(folder)


def _set_scales(module: Any, arguments: Any) -> None:
    """Scales and zero points that just hold the smallest and largest weight of each channel or group."""
    weight = module.weight.detach()
    groups = weight if arguments.group_size in (None, -1) else weight.unflatten(1, (-1, arguments.group_size))
    if arguments.strategy == "tensor":
        low, high = weight.min().reshape(1), weight.max().reshape(1)
    else:
        low, high = groups.amin(-1), groups.amax(-1)
    scale, zero = calculate_qparams(low, high, arguments)
    module.weight_scale.data = scale.reshape(module.weight_scale.shape).to(module.weight_scale.dtype)
    if hasattr(module, "weight_zero_point"):
        module.weight_zero_point.data = zero.reshape(module.weight_zero_point.shape).to(
            module.weight_zero_point.dtype
        )


def gptq(base: Path, folder: Path, group: int = 32) -> None:
    """Save a model with 4-bit linear layers as GPTQModel does: qweight, qzeros, scales, g_idx."""
    described = {
        **{"quant_method": "gptq", "bits": 4, "group_size": group, "desc_act": False, "sym": True},
        **{"checkpoint_format": "gptq", "lm_head": False},
    }
    _save_packed(base, folder, described, lambda part: _gptq(part, group))


def awq(base: Path, folder: Path, group: int = 32) -> None:
    """Save a model with 4-bit linear layers as AutoAWQ does: output columns are packed, in its own order."""
    described = {
        **{"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm"},
        "modules_to_not_convert": ["lm_head"],
    }
    _save_packed(base, folder, described, lambda part: _awq(part, group))


_Tensors = dict[str, torch.Tensor]


def _save_packed(
    base: Path, folder: Path, described: dict[str, Any], pack: Callable[[torch.Tensor], _Tensors]
) -> None:
    shutil.copytree(base, folder)
    tensors: _Tensors = {}
    for name, tensor in load_file(base / "model.safetensors").items():
        if name.endswith("proj.weight"):
            stem = name.removesuffix("weight")
            tensors |= {f"{stem}{part}": value for part, value in pack(tensor).items()}
        else:
            tensors[name] = tensor.half()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    path = folder / "config.json"
    own = json.loads(path.read_text())
    path.write_text(json.dumps({**own, "dtype": "float16", "quantization_config": described}))


def rounded(weight: torch.Tensor, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers 0 to 15 around a zero point of 8: (in, out), and scales: float16 (groups, out)."""
    rows = weight.t().float().unflatten(0, (-1, group))
    scales = (rows.abs().amax(1) / 7).half()
    numbers = (rows / scales.float()[:, None]).round().clamp(-8, 7) + 8
    return numbers.flatten(0, 1).int(), scales


def _packed(numbers: torch.Tensor, order: Sequence[int] = range(8)) -> torch.Tensor:
    """Eight numbers of four bits in each int32, along the last axis."""
    parts = numbers.unflatten(-1, (-1, 8)).long()
    found = torch.zeros(parts.shape[:-1], dtype=torch.long)
    for place, source in enumerate(order):
        found |= parts[..., source] << 4 * place
    return torch.where(found >= 2**31, found - 2**32, found).int().contiguous()


def _gptq(weight: torch.Tensor, group: int) -> _Tensors:
    numbers, scales = rounded(weight, group)
    zeros = torch.full_like(scales, 7).int()  # one less than the zero point, as this format has it
    return {
        "qweight": _packed(numbers.t()).t().contiguous(),
        "qzeros": _packed(zeros),
        "scales": scales,
        "g_idx": (torch.arange(len(numbers)) // group).int(),
    }


def _awq(weight: torch.Tensor, group: int) -> _Tensors:
    numbers, scales = rounded(weight, group)
    order = (0, 2, 4, 6, 1, 3, 5, 7)
    zeros = torch.full_like(scales, 8).int()
    return {"qweight": _packed(numbers, order), "qzeros": _packed(zeros, order), "scales": scales}
