"""The data files below a folder: what is data, what only describes it, and what stands in the way.

Hidden files and folders, and folders such as __pycache__, are left out, as the Hub does. Nothing else that
looks like data is left out in silence: what cannot be read is refused by name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from kdaudit.config.paths import COMPRESSED_SUFFIXES, TABLE_SUFFIXES, TEXT_SUFFIXES
from kdaudit.corpus.splits import shown
from kdaudit.errors import CorpusError
from kdaudit.runs.files import read_bounded

Format = Literal["parquet", "arrow", "jsonl", "json", "csv", "txt"]

FORMATS: dict[str, Format] = {
    f"{suffix}{packed}": suffix[1:]  # type: ignore[misc]
    for suffixes, packings in ((TABLE_SUFFIXES, ("",)), (TEXT_SUFFIXES, ("", *COMPRESSED_SUFFIXES)))
    for suffix in suffixes
    for packed in packings
}
"""Recognised file endings and the format that each stands for."""
SUPPORTED = ".parquet, .jsonl, .json, .csv and .txt (the last four also with .gz, .xz or .zst), .arrow"

_DESCRIPTIONS = re.compile(
    r"(dataset_infos?|dataset_dict|state|config|metadata|dataset-metadata|datapackage|croissant|package)\.json"
    r"|(readme|license|licence|copying|notice|authors|citation|changelog|requirements|checksums?|md5sums?"
    r"|sha256sums?)\.txt"
    r"|dummy_data\.zip"
    r"|cache-[0-9a-f]+(_\d+_of_\d+)?\.arrow",  # what `Dataset.map` leaves beside a dataset
    re.IGNORECASE,
)
"""Files with a data file's ending that describe data and are none."""
_OTHER_DATA = re.compile(
    r".*(\.(ndjson|jsonlines|jl|tsv|feather|orc|avro|lance|zip|tar|tgz|7z)(\.(gz|xz|zst|bz2))?"
    r"|\.(parquet|arrow|jsonl|json|csv|txt)\.(gz|xz|zst|bz2|lz4|lzma|br|z))",
    re.IGNORECASE,
)
"""Files that may hold rows of text and are not read."""
_TABLE_LOGS = {"_delta_log": "Delta Lake", ".hoodie": "Hudi", "_temporary": "unfinished Spark"}
"""Folders by which a table is told whose data files hold more than its rows."""
_STATE = "state.json"
_STATE_BYTES = 16 << 20


def ending_of(name: str) -> str | None:
    """The recognised ending of a file's name, in lower case."""
    return next((ending for ending in FORMATS if name.lower().endswith(ending)), None)


def data_files(folder: Path, key: str) -> list[str]:
    """The data files in a folder and the folders below it, as paths below it with `/`, in order of name.

    Those of unsupported kinds too, which `refuse_unreadable` tells.

    Raises:
        CorpusError: a folder cannot be listed or is met twice, or is one of a table that is more than its
            files; a saved dataset is damaged.
    """
    return sorted(_below(folder, folder, key, set()))


def refuse_unreadable(folder: Path, files: Sequence[str], key: str) -> None:
    """Raise a CorpusError if one of the files cannot be read, or holds the text of another.

    It is of an unsupported kind, not a regular file, or there packed and unpacked.
    """
    packed: dict[str, str] = {}
    for name in files:
        file = folder / name
        if ending_of(name) is None:
            raise CorpusError(
                f"{file}: is data of an unsupported kind",
                fix=f"save it as one of {SUPPORTED}, or move it away",
                key=f"{key}.path",
            )
        if not os.path.isfile(file):  # noqa: PTH113
            there = os.path.exists(file)  # noqa: PTH110
            kind = "is not a regular file" if there else "is a link to something that is gone"
            raise CorpusError(f"{file}: {kind}", fix="remove it, or put the file there", key=f"{key}.path")
        twin = packed.setdefault(_without_packing(name), name)
        if twin != name:
            raise CorpusError(
                f"{folder}: holds {twin} and {name}, by their names the same text twice",
                fix="remove one of them",
                key=f"{key}.path",
            )


def saved_files(folder: Path, key: str) -> list[str] | None:
    """The files of the dataset that `Dataset.save_to_disk` wrote into a folder; None if it did not.

    Raises:
        CorpusError: its description is damaged, or files that it names are missing.
    """
    file = folder / _STATE
    if file not in _entries(folder, key):
        return None
    state = _json(file, key)
    if not isinstance(state, dict) or not isinstance(state.get("_data_files"), list):
        if any(folder.glob("*.arrow")):
            raise _no_description(file, "it lists no data files", key)
        return None  # another program's
    if state.get("_indices_data_files"):
        raise CorpusError(
            f"{folder}: was saved by an old version of `datasets` with a selection of its rows, "
            "which is not read",
            fix="load it with `datasets` and save it again",
            key=f"{key}.path",
        )
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in state["_data_files"]]
    for name in names:
        if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
            raise _no_description(file, f"{name!r} is not a file's name", key)
        if not os.path.isfile(folder / name):  # noqa: PTH113
            raise CorpusError(
                f"{folder / name}: is missing from the saved dataset", fix="save it again", key=f"{key}.path"
            )
    return [str(name) for name in names]


def saved_split(folder: Path, key: str) -> str | None:
    """The split that a saved dataset was taken from, where its description records one."""
    state = _json(folder / _STATE, key)
    if not isinstance(state, dict) or not isinstance(state.get("_split"), str | None):
        raise _no_description(folder / _STATE, "it names no split", key)
    return state.get("_split")


def saved_splits(folder: Path, key: str) -> list[str] | None:
    """The splits that `DatasetDict.save_to_disk` wrote into a folder; None if it did not.

    Raises:
        CorpusError: its description is damaged.
    """
    file = folder / "dataset_dict.json"
    if file not in _entries(folder, key):
        return None
    described = _json(file, key)
    splits = described.get("splits") if isinstance(described, dict) else None
    if not isinstance(splits, list) or not all(isinstance(one, str) and "/" not in one for one in splits):
        raise _no_description(file, "it lists no splits", key)
    return splits


def _json(file: Path, key: str) -> Any:  # noqa: ANN401 - any json value
    try:
        return json.loads(read_bounded(file, _STATE_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise _no_description(file, str(getattr(error, "strerror", None) or error), key) from error


def _no_description(file: Path, why: str, key: str) -> CorpusError:
    return CorpusError(
        f"{file}: does not describe a saved dataset ({why})", fix="save the dataset again", key=f"{key}.path"
    )


def _below(folder: Path, root: Path, key: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    entries = sorted(_entries(folder, key))
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        raise CorpusError(
            f"{folder}: is reached twice below {root}, through a link",
            fix="remove the link",
            key=f"{key}.path",
        )
    seen.add((status.st_dev, status.st_ino))
    _refuse_table_log(folder, entries, key)
    entries = [entry for entry in entries if not entry.name.startswith(".")]
    saved = saved_files(folder, key)
    if saved is not None:
        others = [entry.name for entry in entries if _is_data(entry) and entry.name not in saved]
        if others:
            raise CorpusError(
                f"{folder}: holds a saved dataset and beside it {shown(others)}",
                fix="move these away",
                key=f"{key}.path",
            )
        yield from ((folder / name).relative_to(root).as_posix() for name in saved)
        return
    for entry in entries:
        if os.path.isdir(entry):  # noqa: PTH112 - Path raises for a link to what may not be reached
            if not entry.name.startswith("__"):
                yield from _below(entry, root, key, seen)
        elif _is_data(entry):
            if entry.is_symlink():
                _refuse_second_name(entry, root, key)
            yield entry.relative_to(root).as_posix()


def _refuse_second_name(link: Path, root: Path, key: str) -> None:
    """Refuse a link to another data file of the corpus, whose text would be read twice."""
    target, below = Path(os.path.realpath(link)), Path(os.path.realpath(root))  # loops, too, have one
    if not target.is_file() or not target.is_relative_to(below) or not _is_data(target):
        return
    if not any(part.startswith((".", "__")) for part in target.relative_to(below).parts):
        raise CorpusError(
            f"{link}: is a link to {target}, which is read too", fix="remove the link", key=f"{key}.path"
        )


def _entries(folder: Path, key: str) -> set[Path]:
    """What a folder holds; a CorpusError if that cannot be told."""
    try:
        entries = set(folder.iterdir())
        os.stat(f"{folder}/.")  # noqa: PTH116 - a folder that may be listed but not entered tells nothing of its files
    except OSError as error:
        raise CorpusError(
            f"{folder}: cannot be listed ({error.strerror})", fix="fix its permissions", key=f"{key}.path"
        ) from error
    return entries


def _refuse_table_log(folder: Path, entries: Sequence[Path], key: str) -> None:
    for entry in entries:
        if entry.name in _TABLE_LOGS:
            raise CorpusError(
                f"{folder}: is a {_TABLE_LOGS[entry.name]} table (it holds {entry.name}), whose files "
                "also hold rows that are not part of it",
                fix="export the table as parquet",
                key=f"{key}.path",
            )


def _is_data(entry: Path) -> bool:
    """Whether an entry of a folder is data by its name, be it readable or not."""
    if ending_of(entry.name) is None and not _OTHER_DATA.fullmatch(entry.name):
        return False
    return not _DESCRIPTIONS.fullmatch(entry.name) and not os.path.isdir(entry)  # noqa: PTH112


def _without_packing(name: str) -> str:
    packed = next((suffix for suffix in COMPRESSED_SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(packed)]
