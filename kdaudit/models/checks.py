"""What a model says of itself in config.json and its like, checked before any engine sees it.

What passes here, some engine can load: a mistake that came out only then would have cost the extraction of
the models before it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.config.models import ModelConfig
from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.adapter_traces import refuse_adapter, refuse_adapter_tensors
from kdaudit.models.checkpoint.config import (
    architectures,
    load_config,
    refuse_counts,
    refuse_other_class,
    refuse_steering,
)
from kdaudit.models.checkpoint.files import CONFIG, check_files, read_json
from kdaudit.models.checkpoint.fit import check_fit, quiet
from kdaudit.models.checkpoint.packed import check_settings
from kdaudit.models.checkpoint.quantized import Quantization, check_quantization, find_quantization
from kdaudit.models.checkpoint.weights import Weights, find_weights

_GENERATION = "generation_config.json"
_CONTINUES = ("CausalLM", "LMHead", "ConditionalGeneration", "GenerationDecoder")
"""One of these is in the class name of every checkpoint that has a head which predicts the next token."""


class Checked(NamedTuple):
    """A model that engines can load."""

    weights: Weights
    """What its weights are; none of them has been read."""
    warning: str | None
    """What the user should know of them."""
    quantization: Quantization | None
    """How they are quantized; None for whole weights."""


def check_model(folder: Path, config: ModelConfig, key: str) -> Checked:
    """Check that a model's folder holds a whole causal language model that both engines load alike.

    Args:
        folder: the model's folder.
        config: the model's section.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: a file cannot be opened, it is not a whole causal language model, or only
            code of its own could load it and is not trusted.
    """
    check_files(folder, key)
    refuse_adapter(folder, key)
    path = folder / CONFIG
    described = read_json(path, key)
    refuse_steering(described, path, config.trust_remote_code, key)
    _check_kind(described, config, key)
    quantization = find_quantization(described, config.path, key)
    _check_code(described, config, key)
    refuse_other_class(described, path, key)
    weights = find_weights(folder, key)
    check_quantization(quantization, folder, weights.tensors, config.path, key)
    if quantization is not None:
        with quiet():
            check_settings(quantization, config.path, key)
    refuse_adapter_tensors(folder, weights.tensors, key)
    refuse_counts(described, path, len(weights.tensors), key)
    loaded = _load_config(folder, config, key)
    warning = check_fit(folder, loaded, weights.tensors, key, quantization=quantization)
    _check_generation(folder, key)
    return Checked(weights, warning, quantization)


def _check_kind(described: dict[str, Any], config: ModelConfig, key: str) -> None:
    """Refuse models that no engine can continue a prefix with, whatever their weights are."""
    if described.get("is_encoder_decoder"):
        raise ModelError(
            f"{config.path} is an encoder-decoder, which does not continue a prefix",
            fix="name a causal language model",
            key=f"{key}.path",
        )
    if not isinstance(described.get("architectures") or [], list):
        raise ModelError(
            f"{config.path}: architectures in its {CONFIG} is not a list of names, and vLLM takes no other",
            fix="write it as one",
            key=f"{key}.path",
        )
    classes = architectures(described)
    if classes and not any(word in name for name in classes for word in _CONTINUES):
        # Engines would load such a checkpoint and give it a head of random weights.
        raise ModelError(
            f"{config.path} is a {classes[0]} (architectures in its config.json), which does not "
            "continue a prefix",
            fix="name a causal language model",
            key=f"{key}.path",
        )


def _check_code(described: dict[str, Any], config: ModelConfig, key: str) -> None:
    """Refuse a type of model that nothing here has the code of."""
    if config.trust_remote_code:
        return
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = described.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING_NAMES:
        return
    if "auto_map" in described:
        raise ModelError(
            f"{config.path} needs code of its own to load",
            fix=f"read that code, then set {key}.trust_remote_code to true",
            key=f"{key}.path",
        )
    if kind is None:
        raise ModelError(
            f"{config.path}: its config.json has no model_type", fix="save the model again", key=f"{key}.path"
        )
    raise ModelError(
        f"{config.path} is of model_type {kind!r} (in its config.json), which transformers "
        f"{transformers.__version__} does not know",
        fix="correct it, or update transformers",
        key=f"{key}.path",
    )


def _load_config(folder: Path, config: ModelConfig, key: str) -> Any:  # noqa: ANN401 - transformers is untyped
    """The configuration; refuse one that transformers does not take, such as text where a number belongs."""
    try:
        return load_config(folder, trust_remote_code=config.trust_remote_code)
    except Exception as error:  # whatever the values provoke, or the model's own code
        raise ModelError(
            f"{folder / CONFIG} cannot be used ({reason(error)})",
            fix="correct it or save the model again",
            key=f"{key}.path",
        ) from error


def _check_generation(folder: Path, key: str) -> None:
    """Refuse generation settings that vLLM could not read; nothing of them is used."""
    path = folder / _GENERATION
    if not path.exists():
        return
    read_json(path, key)
    from transformers import GenerationConfig

    try:
        GenerationConfig.from_pretrained(folder)
    except Exception as error:  # whatever the values provoke
        raise ModelError(
            f"{path} cannot be used ({reason(error)})",
            fix="correct it, or remove it: an audit uses nothing of it",
            key=f"{key}.path",
        ) from error
