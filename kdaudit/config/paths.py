"""Paths in a configuration: which are local, and whether they are there.

A configuration's path may name a local file or folder, or something on the Hugging Face hub. It is local
if it exists beside the configuration file, if it begins with `./`, `../`, `/` or `~`, or if it ends
like a data file; else it is a hub id. A local path is absolute after loading and a hub id never is, so
later stages need not guess again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo

from kdaudit.errors import ConfigError

DATA_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".txt")
COMPRESSED_SUFFIXES = (".gz", ".xz", ".zst")


def resolve_path(value: str, folder: Path) -> str:
    """The absolute path that `value` means beside `folder`, or `value` itself if it is a hub id."""
    if "://" in value:
        return value
    joined = os.path.join(folder.absolute(), os.path.expanduser(value))  # noqa: PTH111, PTH118 - Path expands less
    if not (_looks_local(value) or os.path.lexists(joined)):
        return value
    return _without_dots(joined)


def _looks_local(value: str) -> bool:
    if value in (".", "..", "~") or value.startswith(("./", "../", "/", "~")):
        return True
    stem = value.lower()
    for suffix in COMPRESSED_SUFFIXES:
        stem = stem.removesuffix(suffix)
    return stem.endswith(DATA_SUFFIXES)


def _without_dots(path: str) -> str:
    """Fold `a/../b` into `b`, unless a link makes that another place; links themselves are kept."""
    folded = os.path.normpath(path)
    return folded if os.path.realpath(folded) == os.path.realpath(path) else path


def _resolved(value: str, info: ValidationInfo) -> str:
    """Resolve against the folder of the file being loaded; in code that builds a model, do nothing."""
    folder = (info.context or {}).get("folder")
    return value if folder is None else resolve_path(value, folder)


_RESOLVED = AfterValidator(_resolved)
PathOrId = Annotated[str, Field(min_length=1), _RESOLVED]
"""A local path or a hub id; local ones become absolute while a file is loaded."""


class Reference(NamedTuple):
    """A path or hub id and the dotted key that holds it."""

    key: str
    value: str


def references(config: BaseModel, prefix: str = "") -> Iterator[Reference]:
    """All paths and hub ids of a configuration, in the order of its keys."""
    for name, field in type(config).model_fields.items():
        marked = _RESOLVED in field.metadata or _is_marked(field.annotation)
        yield from _references_in(getattr(config, name), f"{prefix}{name}", marked)


def _references_in(value: object, key: str, marked: bool) -> Iterator[Reference]:
    if isinstance(value, BaseModel):
        yield from references(value, f"{key}.")
    elif isinstance(value, tuple):
        for row, item in enumerate(value):
            yield from _references_in(item, f"{key}.{row}", marked)
    elif marked and isinstance(value, str):
        yield Reference(key, value)


def _is_marked(annotation: Any) -> bool:  # noqa: ANN401 - any typing construct
    return annotation is _RESOLVED or any(_is_marked(part) for part in get_args(annotation))


def check_paths(config: BaseModel) -> None:
    """Check that every local path of a loaded configuration exists.

    Raises:
        ConfigError: one sentence a line for each path that does not, with the nearest name there is.
    """
    local = [each for each in references(config) if os.path.isabs(each.value)]  # noqa: PTH117
    told = [f"{key}: {value} {problem}" for key, value in local if (problem := _problem(Path(value)))]
    if told:
        raise ConfigError("\n".join(told))


def _problem(path: Path) -> str | None:
    """What stands between the user and this path; None if nothing does."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return f"does not exist; {_remedy(path)}"
    except PermissionError as error:
        return f"cannot be reached ({error.strerror}); mend the permissions of its folders"
    except OSError as error:  # a name too long, a loop of links
        return f"cannot be reached ({error.strerror}); correct the path"
    return None


def _remedy(path: Path) -> str:
    if path.is_symlink():
        return f"it is a link to {path.readlink()}, which is gone"
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either; correct the path"
    near = nearest_name(path)
    return f"did you mean {near}?" if near else f"{path.parent} holds no such name; correct the path"


def nearest_name(path: Path) -> Path | None:
    """The entry beside `path` whose name is most like its own, if any is."""
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return None
    near = get_close_matches(path.name, names, n=1, cutoff=0.6)
    return path.with_name(near[0]) if near else None
