"""Students that are LoRA adapters: PEFT trains low-rank matrices beside the base's weights, which stay.

What is saved is a folder as PEFT writes it, which names the base, with the family's tokenizer.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdaudit.config.learners import LoraSection
from kdaudit.distillation.bases import Base
from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.config import load_config

_KEY = "student.lora"


def check_lora(wanted: LoraSection | None, base: Base) -> None:
    """Before any training, refuse an adapter that PEFT cannot make on the base.

    Args:
        wanted: what distill.yaml asks for; nothing is checked where it asks for none.
        base: the students' start.

    Raises:
        ModelError: PEFT is not installed, or finds no layer to adapt.

    """
    if wanted is None or base.model is None:
        return
    if find_spec("peft") is None:
        raise ModelError("peft is not installed", fix="run pip install 'kdaudit[lora]'", key=_KEY)
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(load_config(base.model.folder))
    try:
        _adapted(model, wanted)
    except ValueError as error:
        raise ModelError(
            f"PEFT makes no adapter on {base.model.name} ({reason(error)})",
            fix="name layers of this architecture, as in [q_proj, v_proj], or write [all-linear]",
            key=f"{_KEY}.target_modules",
        ) from error


def with_lora(model: Any, wanted: LoraSection, base: Base, seed: int) -> Any:  # noqa: ANN401 - untyped
    """The model with an adapter that is trained in its place; equal seeds begin with equal matrices.

    Args:
        model: of the base, in float32.
        wanted: rank and the like.
        base: where it came from.
        seed: of the random matrices; the global generator is not changed.

    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        adapted = _adapted(model, wanted)
    settings = adapted.peft_config["default"]
    settings.base_model_name_or_path = None if base.model is None else str(base.model.folder)
    return adapted


def _adapted(model: Any, wanted: LoraSection) -> Any:  # noqa: ANN401
    from peft import LoraConfig, get_peft_model

    targets = None if wanted.target_modules is None else list(wanted.target_modules)
    settings = LoraConfig(
        r=wanted.r,
        lora_alpha=wanted.alpha,
        lora_dropout=wanted.dropout,
        target_modules="all-linear" if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM",
    )
    with warnings.catch_warnings(action="ignore"):
        return get_peft_model(model, settings)


def is_adapted(model: Any) -> bool:  # noqa: ANN401
    """Whether a trained model is an adapter on its base."""
    return hasattr(model, "peft_config")


def save_adapter(model: Any, base: Base, folder: Path, weights: dict[str, Tensor] | None) -> None:  # noqa: ANN401
    """Write the adapter alone, which names its base: by path, or by hub id and commit.

    Args:
        model: of `with_lora`, trained.
        base: what it was trained on.
        folder: where to write.
        weights: the model's, if the model itself does not hold all of them.

    """
    settings = model.peft_config["default"]
    if base.model is not None:
        settings.base_model_name_or_path = base.model.name
        settings.revision = base.model.commit
    # PEFT asks the hub for the base's configuration unless it is told about embeddings.
    model.save_pretrained(folder, save_embedding_layers=False, state_dict=weights)
