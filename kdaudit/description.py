"""What a model says of itself in config.json, checked before any engine sees it.

What passes here, some engine can load: a mistake that came out only then would have cost the extraction of
the models before it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kdaudit.config.audit import ModelConfig
from kdaudit.errors import ModelError
from kdaudit.reasons import reason

_ADAPTER = "adapter_config.json"
_CONTINUES = ("CausalLM", "LMHead", "ConditionalGeneration", "GenerationDecoder")
"""One of these is in the class name of every checkpoint that has a head which foretells the next token."""


def check_description(folder: Path, config: ModelConfig, key: str) -> None:
    """Check that a model's folder describes a whole causal language model that can be loaded as it is.

    Args:
        folder: the model's folder.
        config: the model's section.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: it cannot continue a prefix, or only code of its own could load it and is not trusted.
    """
    try:
        adapter = (folder / _ADAPTER).exists()
    except PermissionError as error:
        raise unreadable(folder, key) from error
    if adapter:
        raise ModelError(
            f"{key}.path: {folder} holds an adapter ({_ADAPTER}); merge it into its base model "
            "(merge_and_unload) and save the whole model in a folder of its own"
        )
    described = read_json(folder / "config.json", key)
    _check_kind(described, config, key)
    _check_code(described, config, key)
    _check_values(folder, config, key)


def read_json(path: Path, key: str) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ModelError: there is no such file, or it cannot be read.
    """
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(
            f"{key}.path: {path.parent} holds no {path.name}; name a folder written by save_pretrained"
        ) from None
    except PermissionError as error:
        raise unreadable(path, key) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{key}.path: {path} cannot be read ({reason(error)}); save it anew") from None
    if not isinstance(found, dict):
        raise ModelError(f"{key}.path: {path} is not a JSON object; save the model anew")
    return found


def unreadable(path: Path, key: str) -> ModelError:
    """The error for a file or folder that this user may not read."""
    return ModelError(f"{key}.path: {path} may not be read; mend its permissions")


def _check_kind(described: dict[str, Any], config: ModelConfig, key: str) -> None:
    """Refuse models that no engine can continue a prefix with, whatever their weights are."""
    if described.get("is_encoder_decoder"):
        raise ModelError(
            f"{key}.path: {config.path} is an encoder-decoder, which does not continue a prefix; "
            "name a causal language model"
        )
    named = described.get("architectures") or []
    classes = named if isinstance(named, list) else [named]
    if classes and not any(word in str(name) for name in classes for word in _CONTINUES):
        # Engines would load such a checkpoint and give it a head of random weights.
        raise ModelError(
            f"{key}.path: {config.path} is a {classes[0]} (architectures in its config.json), which does "
            "not continue a prefix; name a causal language model"
        )
    quantization = described.get("quantization_config")
    if quantization:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise ModelError(
            f"{key}.path: {config.path} is quantized ({method or 'quantization_config'} in its config.json), "
            "which is not supported; name the model as it was before that, or save it after "
            "model.dequantize()"
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
            f"{key}.path: {config.path} needs code of its own to load; read that code, then set "
            f"{key}.trust_remote_code to true"
        )
    if kind is None:
        raise ModelError(f"{key}.path: {config.path}: its config.json has no model_type; save the model anew")
    raise ModelError(
        f"{key}.path: {config.path} is of model_type {kind!r} (in its config.json), which transformers "
        f"{transformers.__version__} does not know; correct it, or update transformers"
    )


def _check_values(folder: Path, config: ModelConfig, key: str) -> None:
    """Refuse a config.json that transformers will not take, such as a text where a number belongs."""
    from transformers import AutoConfig

    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=config.trust_remote_code)
    except Exception as error:  # whatever the values provoke, or the model's own code
        raise ModelError(
            f"{key}.path: {folder / 'config.json'} cannot be used ({reason(error)}); correct it or save the "
            "model anew"
        ) from error
