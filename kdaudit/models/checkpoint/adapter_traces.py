"""Adapters in folders that are not adapters of PEFT: beside whole weights, in other forms, not merged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kdaudit.errors import ModelError
from kdaudit.models.checkpoint.weights import INDEX, WHOLE, Tensor

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
    """An adapter unlike those that PEFT saves, or one that lies beside whole weights."""
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
