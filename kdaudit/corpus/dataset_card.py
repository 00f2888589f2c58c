"""The configurations that a Hub repository's README.md declares: which files belong to which split.

    ---
    configs:
    - config_name: default
      data_files:
      - {split: train, path: data/train-*}
    ---

They are honoured as `datasets` does, with its file patterns (`datasets.data_files`); what would change how
files are read is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from kdaudit.config.yaml.bounded import MAX_CARD_NODES
from kdaudit.config.yaml.document import parse_document
from kdaudit.corpus.rows import Place
from kdaudit.corpus.splits import check_split, shown
from kdaudit.errors import ConfigError, CorpusError
from kdaudit.runs.files import read_bounded

CARD = "README.md"
_CARD_BYTES = 8 << 20
_FRONT = re.compile(r"\s*---[ \t]*\r?\n(.*?\n)---[ \t]*(?:\r?\n|$)", re.DOTALL)
_CONFIGS = re.compile(r"^configs[ \t]*:.*\n(?:(?:[ \t#-].*)?\r?\n)*", re.MULTILINE)
"""The key `configs` with all that belongs to it, so that nothing else of the card is parsed."""
_HARMLESS = {
    "config_name", "data_files", "data_dir", "default", "description", "version", "features", "drop_labels",
    "drop_metadata",
}  # fmt: skip
"""Keys of a configuration that do not change the text that is read."""


class Declared(NamedTuple):
    """One configuration of a repository."""

    name: str
    default: bool
    splits: dict[str, list[str]]
    """Patterns of each split's files; empty where names are to tell."""
    folder: str
    """What patterns and names are taken from, below the repository; empty for the repository itself."""


def declared(folder: Path, name: str | None, key: str) -> Declared | None:
    """The configuration that the card in `folder` declares; None if there is no card, or it declares none.

    Args:
        folder: the repository.
        name: the configuration; None takes the default or only one.
        key: where the corpus stands in the configuration, for messages.

    Raises:
        CorpusError: the card cannot be read, or there is no such configuration.
    """
    place = Place(f"{key}.path", folder / CARD)
    found = [_declared(entry, place) for entry in _entries(folder / CARD, place)]
    if not found:
        return None
    defaults = [one for one in found if one.name == "default" or one.default]
    chosen = defaults if name is None else [one for one in found if one.name == name]
    if len(chosen) == 1:
        return chosen[0]
    if len(found) == 1 and name is None:
        return found[0]
    says = f"there is no configuration {name!r}" if name is not None else "it has several configurations"
    raise CorpusError(
        f"{folder}: {says} in {CARD}",
        fix=f"choose from {', '.join(repr(one.name) for one in found)}",
        key=f"{key}.name",
    )


def declared_files(card: Declared, files: Sequence[str], split: str, where: str, key: str) -> list[str]:
    """Those of `files` that a configuration gives to a split.

    Raises:
        CorpusError: it names no such split, or files that are not there.
    """
    patterns = card.splits[check_split(key, f"{where}: {CARD}", split, card.splits)]
    found: dict[str, None] = {}
    for pattern in patterns:
        wanted = (PurePosixPath(card.folder) / pattern).parts
        matching = [file for file in files if _matches(PurePosixPath(file).parts, wanted)]
        if not matching:
            raise CorpusError(
                f"{where}: {CARD} names {pattern}, which no data file here matches",
                fix="fetch the repository whole, or name the files' folder",
                key=f"{key}.path",
            )
        found.update(dict.fromkeys(matching))
    return list(found)


def _entries(card: Path, place: Place) -> list[Any]:
    try:
        text = read_bounded(card, _CARD_BYTES).decode("utf-8-sig", "replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise place.error(f"cannot be read ({error.strerror})", fix="check or remove it") from error
    front = _FRONT.match(text)
    block = _CONFIGS.search(front[1]) if front else None
    if front is None or block is None:
        return []
    try:
        above = "\n" * text.count("\n", 0, front.start(1) + block.start())  # so that lines are the card's
        entries = parse_document(above + block[0], str(card), MAX_CARD_NODES).data["configs"]
    except ConfigError as error:
        where = ": ".join(part for part in (error.where, error.key) if part)
        raise place.error(
            f"its configs cannot be read ({where}: {error.what})", fix=f"{error.fix}, or remove them"
        ) from error
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise _no_config(place, "configs is not a list")
    return entries


def _declared(entry: Any, place: Place) -> Declared:  # noqa: ANN401 - as YAML gave it
    if not isinstance(entry, dict) or not isinstance(entry.get("config_name"), str):
        raise _no_config(place, "an entry of configs has no config_name")
    name = entry["config_name"]
    odd = [str(one) for one in entry if one not in _HARMLESS]
    if odd:
        raise place.error(
            f"its configuration {name!r} sets {shown(odd)}, by which files would be read "
            "in another way than they are",
            fix="save the text as json lines, or name the data files themselves as the path",
        )
    folder = entry.get("data_dir") or ""
    if not isinstance(folder, str) or _lies_elsewhere(folder):
        raise _no_config(place, f"data_dir of {name!r} is not a folder of the repository")
    splits = _splits(entry.get("data_files"), name, place)
    return Declared(name, entry.get("default") is True, splits, "/".join(PurePosixPath(folder).parts))


def _splits(data_files: Any, name: str, place: Place) -> dict[str, list[str]]:  # noqa: ANN401 - as YAML gave it
    """The patterns of each split, in any of the forms that `datasets` takes."""
    if data_files is None:
        return {}
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(data_files, dict):
        pairs = data_files.items()
    elif isinstance(data_files, list) and all(isinstance(one, dict) for one in data_files):
        pairs = [(one.get("split"), one.get("path")) for one in data_files]
    else:
        pairs = [("train", data_files)]
    splits: dict[str, list[str]] = {}
    for split, paths in pairs:
        patterns = [paths] if isinstance(paths, str) else paths
        if (
            not isinstance(split, str)
            or not isinstance(patterns, list)
            or not all(isinstance(one, str) for one in patterns)
            or split in splits
        ):
            raise _no_config(place, f"data_files of {name!r} does not give each split its paths")
        outside = next(filter(_lies_elsewhere, patterns), None)
        if outside is not None:
            raise _no_config(place, f"data_files of {name!r} names {outside}, which lies elsewhere")
        splits[split] = patterns
    return splits


def _lies_elsewhere(path: str) -> bool:
    return "://" in path or path.startswith("/") or ".." in PurePosixPath(path).parts


def _no_config(place: Place, why: str) -> CorpusError:
    return place.error(why, fix="correct the card, or name the data files themselves as the path")


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path, in parts, matches a pattern: `**` stands for any folders, `*` for part of one name."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[skipped:], pattern[1:]) for skipped in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
