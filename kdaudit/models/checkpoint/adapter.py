"""LoRA adapters as PEFT saves them: adapter_config.json and adapter_model.safetensors, without whole weights.

What is taken is what merging into the base model keeps exactly: low-rank matrices of any rank, also of
embeddings, biases, DoRA's magnitudes, rank-stabilized scaling, rows of single tokens, and whole modules that
were trained beside them (`modules_to_save`). Anything else that adapter_config.json asks for is refused by
its name: a key that is not known here may change what the model says.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError
from kdaudit.models.checkpoint.files import check_files, read_json
from kdaudit.models.checkpoint.weights import INDEX, WHOLE, Weights, read_header

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"
_MERGED = frozenset(
    {
        *("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
        *("target_modules", "exclude_modules", "target_parameters", "layers_to_transform", "layers_pattern"),
        *("use_dora", "bias", "lora_bias", "modules_to_save", "trainable_token_indices"),
        "ensure_weight_tying",
    }
)
"""Keys whose effect is in the merged weights."""
_NO_EFFECT = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "task_type", "peft_version"),
        *("inference_mode", "lora_dropout", "runtime_config", "eva_config", "megatron_core"),
        *("loftq_config", "corda_config", "lora_ga_config", "qalora_group_size", "init_lora_weights"),
    }
)
"""Keys that say nothing of the trained model; of a start that changes the base the next table knows."""
_CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of init_lora_weights that train beside changed base weights, unless PEFT converted the result."""
_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT")
"""Kinds of adapters that add to the input or to the cache of keys and values."""


class Adapter(NamedTuple):
    """An adapter whose files were checked."""

    folder: Path
    settings: Mapping[str, Any]
    """The content of adapter_config.json."""
    weights: Weights

    @property
    def files(self) -> tuple[Path, ...]:
        """What its effect depends on."""
        return self.folder / ADAPTER_CONFIG, *self.weights.files

    @property
    def base(self) -> str | None:
        """The model that it says it was trained on: a path or a hub id."""
        named = self.settings.get("base_model_name_or_path")
        return named if isinstance(named, str) and named else None

    @property
    def base_revision(self) -> str | None:
        """Branch, tag or commit of that model."""
        named = self.settings.get("revision")
        return named if isinstance(named, str) and named else None

    @property
    def summary(self) -> str:
        """What it is, in a few words: `LoRA, rank 8`, `DoRA, rank 16, with lm_head`."""
        kind = "DoRA" if self.settings.get("use_dora") else "LoRA"
        scaled = ", rank-stabilized" if self.settings.get("use_rslora") else ""
        saved = self.settings.get("modules_to_save") or []
        beside = f", with {', '.join(map(str, saved))}" if saved else ""
        return f"{kind}, rank {self.settings.get('r')}{scaled}{beside}"


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter of PEFT and no whole weights; some tools add a config.json."""
    try:
        whole = any((folder / name).exists() for name in (WHOLE, INDEX))
        return (folder / ADAPTER_CONFIG).exists() and not whole
    except PermissionError:
        return False  # what reads the folder next says so


def read_adapter(folder: Path, key: str) -> Adapter:
    """Read an adapter's settings and the header of its weights.

    Args:
        folder: the adapter's; `is_adapter` says so.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: a file is missing, damaged or unsafe, or the adapter is of a kind that is not supported.

    """
    check_files(folder, key)
    settings = read_json(folder / ADAPTER_CONFIG, key)
    _check_kind(folder, settings, key)
    _check_settings(folder, settings, key)
    path = folder / ADAPTER_WEIGHTS
    if not path.exists():
        raise _no_weights(folder, key)
    tensors = read_header(path, key)
    if not tensors:
        raise ModelError(f"{path} holds no tensors", fix="save the adapter again", key=f"{key}.path")
    return Adapter(folder, settings, Weights((path,), tensors))


def check_finite(adapter: Adapter, key: str) -> None:
    """Refuse weights that are NaN or infinite: merged, they would spoil the whole model. All are read.

    Args:
        adapter: the adapter.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: a tensor holds such a number.

    """
    from safetensors import safe_open

    (path,) = adapter.weights.files
    names = sorted(adapter.weights.tensors)
    with safe_open(path, framework="pt") as tensors:
        broken = [name for name in names if not tensors.get_tensor(name).float().isfinite().all()]
    if broken:
        raise ModelError(
            f"{path}: {len(broken):,} of its {len(names):,} tensors hold NaN or infinite numbers, such as "
            f"{broken[0]}",
            fix="copy or train the adapter again",
            key=f"{key}.path",
        )


def _check_kind(folder: Path, settings: Mapping[str, Any], key: str) -> None:
    kind, task = settings.get("peft_type"), settings.get("task_type")
    if kind != "LORA":
        prompts = kind in _PROMPTS
        raise ModelError(
            f"{folder} is an adapter of the kind {kind!r} (peft_type in its {ADAPTER_CONFIG}), and only LORA "
            "is supported",
            fix="such an adapter cannot be merged into weights: name a LoRA adapter or a whole model"
            if prompts
            else "merge it into its base model (merge_and_unload), and save the whole model in a folder of "
            "its own",
            key=f"{key}.path",
        )
    if task not in (None, "CAUSAL_LM"):
        raise ModelError(
            f"{folder} is an adapter for {task!r} (task_type in its {ADAPTER_CONFIG}), which does not "
            "continue a prefix",
            fix="name an adapter of a causal language model",
            key=f"{key}.path",
        )


def _check_settings(folder: Path, settings: Mapping[str, Any], key: str) -> None:
    """Refuse a setting that merging would lose, or that is not known here."""
    other = sorted(name for name, value in settings.items() if value and name not in _MERGED | _NO_EFFECT)
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGE_BASE):
        raise ModelError(
            f"{folder} was trained beside changed base weights (init_lora_weights: {start} in its "
            f"{ADAPTER_CONFIG})",
            fix="convert it with save_pretrained(..., path_initial_model_for_weight_conversion=...), or "
            "merge it and save the whole model",
            key=f"{key}.path",
        )
    if other:
        raise ModelError(
            f"{folder}: {other[0]} in its {ADAPTER_CONFIG} is not supported: what it does is not in the "
            "merged weights, or not known",
            fix="merge the adapter into its base model with the PEFT that trained it, and save the "
            "whole model",
            key=f"{key}.path",
        )


def _no_weights(folder: Path, key: str) -> ModelError:
    if (folder / _PICKLED).exists():
        return ModelError(
            f"{folder} holds a pickled adapter ({_PICKLED}), which can run code when loaded",
            fix="where you trust it, load it with PEFT and save it with model.save_pretrained(FOLDER), which "
            "writes safetensors",
            key=f"{key}.path",
        )
    return ModelError(
        f"{folder} holds {ADAPTER_CONFIG} and no {ADAPTER_WEIGHTS}",
        fix="copy or save the adapter again",
        key=f"{key}.path",
    )
