"""Whether an adapter belongs to its base model: PEFT itself says which tensors it would load.

Both are built without memory (on the meta device), as in `fit`; only the headers of the weights are read.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.adapter import ADAPTER_CONFIG, Adapter
from kdaudit.models.checkpoint.config import load_config
from kdaudit.models.checkpoint.fit import quiet
from kdaudit.models.checkpoint.weights import Tensor

_PREFIX = "base_model.model."


def require_peft(key: str) -> None:
    """Refuse adapters where PEFT is not installed.

    Raises:
        ModelError: it is not.

    """
    if find_spec("peft") is None:
        raise ModelError(
            "it is an adapter, and peft, which merges it into its base model, is not installed",
            fix="run pip install 'kdaudit[lora]', or name the merged model",
            key=f"{key}.path",
        )


def check_adapter_fit(adapter: Adapter, base: Path, key: str) -> int | None:
    """Check that an adapter has just the tensors that its settings ask for on its base model.

    Args:
        adapter: the adapter.
        base: its base model's folder, which was checked.
        key: where the adapter stands in the configuration.

    Returns:
        Rows of the embeddings where the adapter brings its own and they are more or fewer; else None.

    Raises:
        ModelError: tensors are missing, of other shapes, or have no place.

    """
    wanted, rows = _wanted(adapter, base, key)
    there = {name: tensor.shape for name, tensor in adapter.weights.tensors.items()}
    missing = sorted(wanted.keys() - there)
    other = sorted(name for name in wanted.keys() & there if wanted[name] != there[name])
    spare = sorted(there.keys() - wanted)
    what = None
    if missing:
        what = f"it lacks {len(missing):,} tensor(s) that {ADAPTER_CONFIG} asks for, such as {missing[0]}"
    elif other:
        what = f"{other[0]} has the shape {there[other[0]]}, and {wanted[other[0]]} is what fits"
    elif spare:
        what = f"{len(spare):,} of its tensors have no place there, such as {spare[0]}"
    if what is not None:
        raise ModelError(
            f"{adapter.folder} does not fit its base model {base}: {what}",
            fix="name the model that it was trained on as its base",
            key=f"{key}.base",
        )
    return rows


def _wanted(adapter: Adapter, base: Path, key: str) -> tuple[dict[str, tuple[int, ...]], int | None]:
    """Names and shapes of the tensors that PEFT would load, and the rows of embeddings that were resized."""
    import torch
    from peft import get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), quiet(), warnings.catch_warnings(action="ignore"):
            model = AutoModelForCausalLM.from_config(load_config(base), dtype=torch.float32)
            own = _own_embeddings(model, adapter.weights.tensors)
            rows = next((shape[0] for shape in own.values()), None)
            if rows == model.get_input_embeddings().num_embeddings:
                rows = None
            if rows is not None:
                model.resize_token_embeddings(rows, mean_resizing=False)
            made = get_peft_model(model, peft_settings(adapter.folder))
            # It may ask the hub for the base's configuration unless it is told about embeddings.
            state = get_peft_model_state_dict(made, save_embedding_layers=False)
            unfit = _without_bias(made)
    except Exception as error:  # whatever the values provoke in PEFT
        raise ModelError(
            f"{adapter.folder / ADAPTER_CONFIG}: PEFT makes no adapter of it on {base} ({reason(error)})",
            fix="correct it, or name the model that it was trained on as its base",
            key=f"{key}.base",
        ) from error
    if unfit is not None:
        raise ModelError(
            f"{adapter.folder} adds biases of its own (lora_bias in its {ADAPTER_CONFIG}) to layers that "
            f"have none, such as {unfit}, and cannot be merged",
            fix="name a whole model, or an adapter without them",
            key=f"{key}.path",
        )
    return {name: tuple(tensor.shape) for name, tensor in state.items()} | own, rows


def _without_bias(made: Any) -> str | None:  # noqa: ANN401
    """The first layer without a bias that an adapter would add one to, by its name; None if there is none."""
    for name, module in made.named_modules():
        adds = getattr(module, "lora_bias", None)
        if isinstance(adds, dict) and any(adds.values()) and module.get_base_layer().bias is None:
            return str(name).removeprefix(_PREFIX)
    return None


def _own_embeddings(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:  # noqa: ANN401
    """Embeddings and output layer that lie in the adapter whole, as PEFT saves them after a resizing."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {
        name
        for name, module in model.named_modules(remove_duplicate=False)
        if any(module is one for one in modules)
    }
    keys = [f"{_PREFIX}{name}.{part}" for name in names for part in ("weight", "base_layer.weight")]
    return {key: tensors[key].shape for key in keys if key in tensors}


def peft_settings(folder: Path) -> Any:  # noqa: ANN401 - PEFT's configuration
    """An adapter's settings in PEFT, for inference: its weights begin as whatever, and are loaded."""
    from peft import LoraConfig

    settings = LoraConfig.from_pretrained(str(folder))
    settings.init_lora_weights = True
    settings.inference_mode = True
    return settings
