"""A model's folder as files: whatever libraries open there by name is a regular file of a bounded size.

transformers, tokenizers and vLLM open what they find. A FIFO would block them for ever, a link to /dev/zero
would fill the memory: so every file that they may open is looked at first, without opening it.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdaudit.errors import ModelError, reason
from kdaudit.runs.files import read_bounded

CONFIG = "config.json"
_MIB = 1 << 20
_MOST_BYTES = 32 * _MIB
"""Largest file of settings; real ones hold some kilobytes, those of many added tokens some megabytes."""
_MOST_VOCABULARY_BYTES = 128 * _MIB
"""Largest vocabulary or index; the largest known hold about 35 MB."""
_OPENED = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py", ".safetensors")
"""Endings of the files that a library may open."""
_SETTINGS = (
    CONFIG,
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.json",
    "chat_template.jinja",
    "processor_config.json",
    "preprocessor_config.json",
    "hf_quant_config.json",
    "modules.json",
)
_VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "*.tiktoken",
    "*.safetensors.index.json",
)
_TEMPLATES = "additional_chat_templates"
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def check_files(folder: Path, key: str) -> None:
    """Check all files of a model that a library may open, without opening one.

    Args:
        folder: the model's folder.
        key: where it stands in the configuration, for messages.

    Raises:
        ModelError: one is not a regular file, a link to nothing, or too large for what it is.

    """
    try:
        paths = [*_entries(folder), *_entries(folder / _TEMPLATES)]
    except OSError as error:
        raise _unusable(folder, error, key) from error
    for path in paths:
        if path.suffix in _OPENED:
            _check_file(path, key)


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(folder.iterdir())


def _check_file(path: Path, key: str) -> None:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ModelError(
            f"{path} is a link to {path.readlink()}, which does not exist",
            fix="copy or fetch the file again",
            key=f"{key}.path",
        ) from None
    except OSError as error:
        raise _unusable(path, error, key) from error
    if stat.S_ISDIR(found.st_mode):
        return
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise ModelError(
            f"{path} is not a regular file but {kind}, and is not opened",
            fix="put the file itself in its place, or remove it",
            key=f"{key}.path",
        )
    most = _most_bytes(path)
    if most is not None and found.st_size > most:
        raise ModelError(
            f"{path} holds {found.st_size:,} bytes, and such a file at most {most:,}; "
            "it is damaged or not what its name says",
            fix="copy or save it again",
            key=f"{key}.path",
        )


def _most_bytes(path: Path) -> int | None:
    """Bytes that a file of this name may hold; None where only its kind matters."""
    if path.name in _SETTINGS or path.parent.name == _TEMPLATES:
        return _MOST_BYTES
    return _MOST_VOCABULARY_BYTES if any(path.match(name) for name in _VOCABULARIES) else None


def read_json(path: Path, key: str) -> dict[str, Any]:
    """The JSON object in a file of a model.

    Raises:
        ModelError: there is no such file, or it cannot be read.
    """
    try:
        found = json.loads(read_bounded(path, _MOST_VOCABULARY_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.parent} holds no {path.name}",
            fix="name a folder written by save_pretrained",
            key=f"{key}.path",
        ) from None
    except PermissionError as error:
        raise unreadable(path, key) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{path} cannot be read ({reason(error)})", fix="save it again", key=f"{key}.path"
        ) from None
    if not isinstance(found, dict):
        raise ModelError(f"{path} is not a JSON object", fix="save the model again", key=f"{key}.path")
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """The content of a model's config.json, once `check_files` has passed it."""
    described: dict[str, Any] = json.loads(read_bounded(folder / CONFIG, _MOST_BYTES).decode("utf-8"))
    return described


def unreadable(path: Path, key: str) -> ModelError:
    """The error for a file or folder that this user may not read."""
    return ModelError(
        f"{path} cannot be read: permission denied", fix="fix its permissions", key=f"{key}.path"
    )


def _unusable(path: Path, error: OSError, key: str) -> ModelError:
    if isinstance(error, PermissionError):
        return unreadable(path, key)
    return ModelError(
        f"{path} cannot be opened ({error.strerror})", fix="copy or fetch it again", key=f"{key}.path"
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The model's config.json, of its text part where it has several."""
    config = config_of(folder)
    text = config.get("text_config")
    return {**config, **{name: value for name, value in (text or {}).items() if value is not None}}
