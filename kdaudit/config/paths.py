"""Paths in a configuration: which are local, and whether they are there.

A configuration's path may name a local file or folder, or something on the Hugging Face hub. Which one is
decided here alone, by how it is written: it is local if it begins with `./`, `../`, `/` or `~`, ends with `/`
or like a data file, or cannot be a hub id; else it is a hub id. What is written as a hub id while something
of that name lies beside the configuration could be meant as either, and is refused; `hf://ID` is always the
hub. A local path is absolute after loading and a hub id never is, so later stages need not guess again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo

from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.errors import ConfigError

TEXT_SUFFIXES = (".jsonl", ".json", ".csv", ".txt")
TABLE_SUFFIXES = (".parquet", ".arrow")
COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst")
"""Of text files; tables are compressed inside."""

_HUB = "hf://"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)
"""`name` or `owner/name`; what else the hub demands of an id it says itself."""


def resolve_path(value: str, folder: Path | None = None) -> str:
    """The absolute path that `value` means beside `folder`, or the hub id that it is.

    Args:
        value: as a user wrote it.
        folder: what relative paths are taken from; None stands for the working directory.

    Raises:
        MisfitError: it could be a local path and a hub id, or is a URL of another place.
    """
    if value.startswith(_HUB):
        return _hub_id(value)
    if "://" in value:
        place = value.split("://")[0]
        raise MisfitError(
            f"{value} lies on {place}://, and only local files and the Hugging Face hub can be read",
            fix="download it and name its path",
        )
    if _looks_local(value) or not _HUB_ID.fullmatch(value):
        return _without_dots(_joined(value, folder))
    joined = _joined(value, folder)
    if os.path.lexists(joined):
        raise MisfitError(
            f"{value} could be the local {joined} or a repository of the Hugging Face hub",
            fix=f"write ./{value} for the first, {_HUB}{value} for the second",
        )
    return value


def _hub_id(value: str) -> str:
    """What stands behind `hf://`, also where it is written as `hf://datasets/owner/name`."""
    found = re.sub("^(datasets|models)/", "", value.removeprefix(_HUB))
    if not _HUB_ID.fullmatch(found):
        raise MisfitError(
            f"{value} is not a hub id", fix=f"write {_HUB}OWNER/NAME, without a file or revision"
        )
    return found


def _joined(value: str, folder: Path | None) -> str:
    value = os.path.expanduser(value)  # noqa: PTH111 - Path expands less
    try:
        return os.path.join(folder.absolute() if folder else os.getcwd(), value)  # noqa: PTH109, PTH118
    except FileNotFoundError:
        raise MisfitError(
            f"the working directory is gone, and {value} is relative to it", fix="give an absolute path"
        ) from None


def _looks_local(value: str) -> bool:
    if value in (".", "..", "~") or value.startswith(("./", "../", "/", "~")) or value.endswith("/"):
        return True
    stem = value.lower()
    for suffix in COMPRESSED_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.endswith(TEXT_SUFFIXES + TABLE_SUFFIXES)


def _without_dots(path: str) -> str:
    """Fold `a/../b` into `b`, unless a link makes that another place; links themselves are kept."""
    folded = os.path.normpath(path)
    return folded if os.path.realpath(folded) == os.path.realpath(path) else path


def _resolved(value: str, info: ValidationInfo) -> str:
    """Resolve against the folder of the file being loaded; in Python code against the working directory."""
    return resolve_path(value, (info.context or {}).get("folder"))


class _Marker:
    """Says of a field that it holds a path."""


RESOLVED = _Marker()
PathOrId = Annotated[str, Field(min_length=1), AfterValidator(_resolved), RESOLVED]
"""A local path, which becomes absolute, or a hub id."""


def _local(value: str) -> str:
    return value if _looks_local(value) or "://" in value else f"./{value}"


LocalFile = Annotated[str, Field(min_length=1), AfterValidator(_local), AfterValidator(_resolved), RESOLVED]
"""The path of a local file, which becomes absolute, however it is written."""


class Reference(NamedTuple):
    """A path or hub id and the dotted key that holds it."""

    key: str
    value: str


def references(config: BaseModel, prefix: str = "") -> Iterator[Reference]:
    """All paths and hub ids of a configuration, in the order of its keys."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        marked = RESOLVED in field.metadata or _is_marked(field.annotation)
        yield from _references_in(value, f"{prefix}{name}", marked and value not in _words(field.annotation))


def _references_in(value: object, key: str, marked: bool) -> Iterator[Reference]:
    if isinstance(value, BaseModel):
        yield from references(value, f"{key}.")
    elif isinstance(value, tuple):
        for row, item in enumerate(value):
            yield from _references_in(item, f"{key}.{row}", marked)
    elif marked and isinstance(value, str):
        yield Reference(key, value)


def _is_marked(annotation: Any) -> bool:  # noqa: ANN401 - any typing construct
    return annotation is RESOLVED or any(_is_marked(part) for part in get_args(annotation))


def _words(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """What may stand in place of a path: the values of a Literal beside it."""
    parts = get_args(annotation)
    return tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))


def check_paths(config: BaseModel) -> None:
    """Check that every local path of a loaded configuration exists.

    Raises:
        ConfigError: a path does not, with the nearest name there is; it holds all such paths.
    """
    local = [each for each in references(config) if os.path.isabs(each.value)]  # noqa: PTH117
    wrong = [
        ConfigError(f"{value} {problem[0]}", fix=problem[1], key=key)
        for key, value in local
        if (problem := _problem(Path(value)))
    ]
    if wrong:
        first, *more = wrong
        first.more = tuple(more)
        raise first


def _problem(path: Path) -> tuple[str, str] | None:
    """What stands between the user and this path, and what to do; None if nothing does."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return _missing(path)
    except PermissionError as error:
        return f"cannot be reached ({error.strerror})", "fix the permissions of its folders"
    except OSError as error:  # a name too long, a loop of links
        return f"cannot be reached ({error.strerror})", "correct the path"
    return None


def _missing(path: Path) -> tuple[str, str]:
    if path.is_symlink():
        return f"does not exist; it is a link to {path.readlink()}, which is gone", "correct the path"
    if not path.parent.is_dir():
        return f"does not exist; its folder {path.parent} does not exist either", "correct the path"
    near = nearest_name(path)
    if near:
        return "does not exist", f"did you mean {near}?"
    return f"does not exist; {path.parent} holds no such name", "correct the path"


def nearest_name(path: Path) -> Path | None:
    """The entry beside `path` whose name is most like its own, if any is."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return None
    near = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return path.with_name(near[0]) if near else None
