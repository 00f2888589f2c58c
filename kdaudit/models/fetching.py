"""Where a model lies: a local folder, or what is fetched from the hub."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from kdaudit.config.models import ModelConfig
from kdaudit.config.paths import nearest_name
from kdaudit.errors import KdauditError, ModelError, reason
from kdaudit.models.checkpoint.adapter import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from kdaudit.models.checkpoint.weights import INDEX, WHOLE, read_index
from kdaudit.models.hub import LOOKUP_SECONDS, bytes_fetched, within

_TOKENIZER_FILES = ["*.json", "chat_template.jinja", "merges.txt", "vocab.txt", "*.model", "*.tiktoken"]
"""What is fetched from the hub besides the weights: never a pickle, and code only if asked for."""
_HUB_LEFT_OUT = ["*/*", "consolidated*"]
"""Copies in other forms: folders such as onnx/ and original/, and Mistral's own format."""


def find_folder(config: ModelConfig, key: str) -> Path:
    """A model's folder, which is fetched from the hub if it is not local.

    Raises:
        ModelError: it does not exist, or cannot be fetched.

    """
    return local_folder(config, key) if Path(config.path).is_absolute() else _fetch(config, key)


def fetch_tokenizer(path: str, key: str) -> Path:
    """A tokenizer's folder, which is fetched from the hub, without weights, if it is not local.

    Args:
        path: absolute, or a hub id.
        key: the setting that names it, for messages.

    Raises:
        ModelError: it does not exist, or cannot be fetched.

    """
    config = ModelConfig.model_construct(path=path)  # whether it is local was decided when it was loaded
    if not Path(path).is_absolute():
        return _download(config, key, None, _TOKENIZER_FILES)
    try:
        return local_folder(config, key)
    except ModelError as error:
        error.key = key
        raise


def commit_of(snapshot: Path) -> str | None:
    """The commit of a folder of the hub's cache, which is named by it: `snapshots/COMMIT`."""
    return snapshot.name if re.fullmatch(r"[0-9a-f]{40}", snapshot.name) else None


def local_folder(config: ModelConfig, key: str) -> Path:
    """A model's folder on this machine.

    Raises:
        ModelError: it does not exist, is a file, or a revision is named.

    """
    folder = Path(config.path)
    if config.revision is not None:
        raise ModelError(
            f"{folder} is a local folder, which has no revisions",
            fix="remove the revision",
            key=f"{key}.revision",
        )
    if folder.is_dir():
        return folder
    if folder.exists():
        raise ModelError(
            f"{folder} is a file", fix="name the folder that holds config.json", key=f"{key}.path"
        )
    near = nearest_name(folder)
    hint = f"did you mean {near}?" if near else "name a model's folder or a hub id"
    raise ModelError(f"{folder} does not exist", fix=hint, key=f"{key}.path")


def _fetch(config: ModelConfig, key: str) -> Path:
    """Fetch a model with exactly the weight files that engines load, all of one commit."""
    place = f"{key}.path"
    first = _download(config, place, config.revision, [INDEX, ADAPTER_CONFIG])
    commit = commit_of(first) or config.revision
    weights = [WHOLE, "model-*-of-*.safetensors"]
    if (first / INDEX).exists():
        weights = [glob.escape(name) for name in sorted({*read_index(first / INDEX, key).values()})]
    if (first / ADAPTER_CONFIG).exists():
        weights.append(ADAPTER_WEIGHTS)
    code = ["*.py"] if config.trust_remote_code else []
    return _download(config, place, commit, [*_TOKENIZER_FILES, *code, *weights])


def _download(config: ModelConfig, place: str, revision: str | None, patterns: list[str]) -> Path:
    """Fetch files of a repository; `place` is the setting that names it."""
    from huggingface_hub import snapshot_download

    try:
        found = within(
            LOOKUP_SECONDS,
            lambda: snapshot_download(
                config.path,
                revision=revision,
                allow_patterns=patterns,
                ignore_patterns=_HUB_LEFT_OUT,
            ),
            f"{place}: {config.path}",
            progress=lambda: bytes_fetched(config.path),
        )
    except KdauditError:
        raise
    except Exception as error:  # the hub's client raises errors of four unrelated families
        raise _hub_error(error, config, place) from error
    return Path(str(found))


def _hub_error(error: Exception, config: ModelConfig, place: str) -> ModelError:
    """The hub client's error as ours; the more special classes come first."""
    from huggingface_hub import errors

    revision = config.revision or "main"
    login = "log in with `hf auth login`"
    failed = f"cannot be fetched from the hub ({reason(error)})"
    known: list[tuple[type[Exception], str, str]] = [
        (errors.HFValidationError, "is neither a folder nor a hub id", "write it as ./folder or org/name"),
        (errors.GatedRepoError, "is gated on the hub", f"ask for access on its page, then {login}"),
        (
            errors.RepositoryNotFoundError,
            "is neither a folder here nor a model on the hub",
            f"correct it, or if it is private {login}",
        ),
        (
            errors.RevisionNotFoundError,
            f"has no revision {revision} on the hub",
            f"correct {place.removesuffix('.path')}.revision",
        ),
        (
            errors.LocalEntryNotFoundError,
            "is not a folder here, is not in the local cache, and the hub cannot be reached (or "
            "HF_HUB_OFFLINE is set)",
            "go online or name a folder",
        ),
        (errors.HfHubHTTPError, failed, "try again later"),
        (Exception, failed, "check network and disk, or name a folder"),
    ]
    what, fix = next((what, fix) for kind, what, fix in known if isinstance(error, kind))
    return ModelError(f"{config.path} {what}", fix=fix, key=place)
