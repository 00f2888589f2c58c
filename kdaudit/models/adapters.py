"""LoRA adapters, resolved: which base model they stand on, and whether they fit it.

The base is the one that the configuration names, else the one of adapter_config.json. A path there is one of
the machine that trained the adapter: it counts if it is there, and a relative one is taken from the adapter's
folder.
"""

from __future__ import annotations

import os
from pathlib import Path

from kdaudit.config.models import ModelConfig
from kdaudit.config.paths import resolve_path
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.errors import ModelError
from kdaudit.models.checkpoint.adapter import (
    ADAPTER_CONFIG,
    Adapter,
    check_finite,
    is_adapter,
    read_adapter,
)
from kdaudit.models.checkpoint.adapter_fit import check_adapter_fit, require_peft
from kdaudit.models.checkpoint.weights import Weights
from kdaudit.models.fetching import commit_of, find_folder
from kdaudit.models.fingerprint import fingerprint_of, stamp_of
from kdaudit.models.resolving import (
    Adapted,
    ResolvedModel,
    hashed_files,
    resolve_whole,
    template_beside,
    tokenizer_of,
    tokenizer_place,
)
from kdaudit.models.tokenizer import reading_fingerprint


def resolve_adapter(folder: Path, config: ModelConfig, key: str, *, hashed: bool) -> ResolvedModel:
    """Find an adapter's base model, and check that the adapter is of a kind to audit and fits it.

    Args:
        folder: the adapter's.
        config: the model's section.
        key: where it stands in the configuration.
        hashed: whether to take the fingerprint, for which all weights are read: the adapter's are looked at.

    Raises:
        ModelError: either is missing, damaged or unsafe, or the two do not belong together.

    """
    adapter = read_adapter(folder, key)
    require_peft(key)
    named = base_of(adapter, config, key)
    place = f"{key}.base" if config.base is not None else key
    there = find_folder(named, place)
    if is_adapter(there):
        raise ModelError(
            f"{there}, the base model of {config.path}, is an adapter itself",
            fix="merge it into its own base model (merge_and_unload), and name the whole model",
            key=f"{key}.base",
        )
    base = resolve_whole(there, named, place, hashed=False)
    if base.quantization is not None:
        raise ModelError(
            f"{there}, the base model of {config.path}, is quantized ({base.quantization.name}), and an "
            "adapter is measured merged into whole weights",
            fix=f"set {key}.base to the model before quantization",
            key=f"{key}.base",
        )
    commit = base.commit
    rows = check_adapter_fit(adapter, there, key)
    files = [*hashed_files(there, base.weights, named), *adapter.files]
    stamps = {file: stamp_of(file) for file in files}
    own = adapter.weights
    if hashed:
        check_finite(adapter, key)
    return base._replace(
        fingerprint=fingerprint_of(files, key) if hashed else "",
        tokenizer_fingerprint=reading_fingerprint(tokenizer_of(tokenizer_place(folder, there), config, key)),
        name=config.path,
        commit=None if Path(config.path).is_absolute() else commit_of(folder),
        weights=Weights((*base.weights.files, *own.files), {**base.weights.tensors, **own.tensors}),
        stamps=stamps,
        adapted=Adapted(
            adapter,
            named if commit is None else _pinned(named, commit),
            rows,
            template_beside(folder, key),
        ),
    )


def _pinned(config: ModelConfig, commit: str) -> ModelConfig:
    return config.model_copy(update={"revision": commit})


def base_of(adapter: Adapter, config: ModelConfig, key: str) -> ModelConfig:
    """Where an adapter's base model is.

    Raises:
        ModelError: nothing names it, or what adapter_config.json names is not there; or the base runs code of
            its own.

    """
    if config.trust_remote_code:
        raise ModelError(
            "an adapter on a model with code of its own is not supported",
            fix="merge it into its base model (merge_and_unload), and name the whole model",
            key=f"{key}.trust_remote_code",
        )
    given = config.base
    if given is not None:
        return ModelConfig.model_construct(path=given.path, revision=given.revision)
    return ModelConfig.model_construct(path=_named(adapter, key), revision=_revision(adapter, key))


def remote_part(config: ModelConfig, key: str) -> str | None:
    """What of a model lies on the hub: its id, or its base model's; None where all of it is local.

    Raises:
        ModelError: it is an adapter that is of no kind to audit, or whose base model nothing names.

    """
    folder = Path(config.path)
    if not folder.is_absolute():
        return config.path
    if not (folder.is_dir() and is_adapter(folder)):
        return None
    base = base_of(read_adapter(folder, key), config, key).path
    return None if Path(base).is_absolute() else base


def _named(adapter: Adapter, key: str) -> str:
    """The absolute path, or the hub id, of the base model that an adapter names."""
    if adapter.base is None:
        raise ModelError(
            f"{adapter.folder / ADAPTER_CONFIG} names no base model (base_model_name_or_path)",
            fix=f"name it: set {key}.base to a folder or hub id",
            key=f"{key}.path",
        )
    try:
        path = resolve_path(adapter.base, adapter.folder)
    except MisfitError as error:
        raise ModelError(
            f"{adapter.folder / ADAPTER_CONFIG}: base_model_name_or_path: {error.what}",
            fix=f"set {key}.base to the one that is meant",
            key=f"{key}.path",
        ) from error
    if os.path.isabs(path) and not Path(path).is_dir():  # noqa: PTH117 - a hub id is no path
        raise ModelError(
            f"{adapter.folder / ADAPTER_CONFIG} names {adapter.base} as its base model, which is not here",
            fix=f"set {key}.base to the folder or hub id of that model",
            key=f"{key}.path",
        )
    return path


def _revision(adapter: Adapter, key: str) -> str | None:
    """The base's revision; a local folder has none, whatever an adapter says of it."""
    return None if Path(_named(adapter, key)).is_absolute() else adapter.base_revision
