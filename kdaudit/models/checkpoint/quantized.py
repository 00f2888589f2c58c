"""Quantized models and adapters, told by what lies in their folders, whatever config.json says of them.

A library that does not see the quantization may load such numbers as if they were weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kdaudit.errors import ModelError
from kdaudit.models.checkpoint.weights import INDEX, WHOLE, Tensor

_KEYS = ("quantization_config", "compression_config", "quantization")
"""Keys of config.json: transformers', compressed-tensors' older one, MLX's."""
_FILES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
    "quant_strategy.json": "AutoRound or HQQ",
    "measurement.json": "EXL2",
    "qmodel.pt": "HQQ",
}
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
_ADAPTER_FILES = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "adapters.safetensors",
    "adapters.npz",
    "pytorch_lora_weights.safetensors",
)
_ADAPTER_TENSORS = re.compile(
    r"(^|\.)(lora_(A|B|embedding_A|embedding_B|magnitude_vector)|lora_[ab]|ia3_l|prompt_embeddings|base_layer"
    r"|hada_w[12]_[ab]|lokr_w[12]\S*|oft_R|vera_lambda_[bd])(\.|$)|^base_model\.model\."
)


def refuse_adapter(folder: Path, key: str) -> None:
    """Refuse an adapter beside whole weights, where engines differ in what they load, or of another form.

    Raises:
        ModelError: the folder, or a folder in it where it holds no config.json, has an adapter's files.

    """
    for name in _ADAPTER_FILES:
        if (folder / name).exists():
            whole = any((folder / weights).exists() for weights in (WHOLE, INDEX))
            raise _is_adapter(folder, name, key, beside=whole)
    if not (folder / "config.json").exists():
        for place in sorted(path for path in folder.glob("*") if path.is_dir()):
            if found := next((name for name in _ADAPTER_FILES if (place / name).exists()), None):
                raise ModelError(
                    f"{folder} holds an adapter in a folder of its own ({place.name}/{found})",
                    fix=f"name that folder: {place}",
                    key=f"{key}.path",
                )


def refuse_adapter_tensors(folder: Path, tensors: Mapping[str, Tensor], key: str) -> None:
    """Refuse weights that hold an adapter that was not merged.

    Raises:
        ModelError: a tensor is an adapter's.

    """
    name = next((name for name in tensors if _ADAPTER_TENSORS.search(name)), None)
    if name is not None:
        raise _is_adapter(folder, f"the tensor {name}", key)


def _is_adapter(folder: Path, evidence: str, key: str, *, beside: bool = False) -> ModelError:
    """An adapter that is none as PEFT saves it, or that lies beside whole weights."""
    if beside:
        return ModelError(
            f"{folder} holds an adapter ({evidence}) beside whole weights, and engines differ in which they "
            "load",
            fix="keep each in a folder of its own, and name the one that is meant",
            key=f"{key}.path",
        )
    return ModelError(
        f"{folder} holds an adapter ({evidence})",
        fix="save it with PEFT, which writes adapter_config.json and adapter_model.safetensors, or merge it "
        "into its base model (merge_and_unload) and save the whole model in a folder of its own",
        key=f"{key}.path",
    )


def refuse_quantized_description(described: Mapping[str, Any], path: str, key: str) -> None:
    """Refuse a config.json that says, at any depth, that the weights are quantized.

    Args:
        described: the content of config.json.
        path: the model, as configured.
        key: where it stands in the configuration.

    Raises:
        ModelError: it does.

    """
    for name, value in _entries(described):
        if name in _KEYS and value:
            method = value.get("quant_method") if isinstance(value, dict) else None
            raise _is_quantized(f"{method or name} in its config.json", path, key)


def refuse_quantized_files(folder: Path, path: str, key: str) -> None:
    """Refuse a folder with the file that a quantizer leaves beside the weights.

    Raises:
        ModelError: there is one.

    """
    for name, method in _FILES.items():
        if (folder / name).exists():
            raise _is_quantized(
                f"{name}, of {method}", path, key, f"; if its weights are whole, remove {name}"
            )


def refuse_quantized_tensors(tensors: Mapping[str, Tensor], path: str, key: str) -> None:
    """Refuse tensors that are quantized weights, or the scales of such.

    Raises:
        ModelError: there is one.

    """
    for name, tensor in tensors.items():
        if _is_quantized_tensor(name, tensor, tensors):
            raise _is_quantized(f"the tensor {name}, {tensor.dtype}, in {tensor.file.name}", path, key)


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
        fix=f"name the model as it was before that, or save it after model.dequantize(){more}",
        key=f"{key}.path",
    )


def _entries(described: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All keys with their values, of nested objects too."""
    for name, value in described.items():
        yield name, value
        if isinstance(value, dict):
            yield from _entries(value)
