"""What `corpus.path` means: local files, a saved dataset, or a dataset on the hub.

A path that exists is local. One that looks like a path (starts with `.`, `/` or `~`, or ends like a data
file) and does not exist is an error; anything else is a hub id. Nothing is read here but folder
listings and the small json files that describe a saved dataset.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kdaudit.config.audit import CorpusConfig
from kdaudit.errors import CorpusError

Format = Literal["parquet", "jsonl", "json", "csv", "txt"]

TEXT_FORMATS: tuple[Format, ...] = ("jsonl", "json", "csv", "txt")
COMPRESSIONS = ("", ".gz", ".xz", ".zst")
FORMATS: dict[str, Format] = {
    ".parquet": "parquet",
    **{f".{name}{packed}": name for name in TEXT_FORMATS for packed in COMPRESSIONS},
}
"""Recognised file endings and the format that each stands for."""
SUPPORTED = ".parquet, .jsonl, .json, .csv and .txt (the last four also with .gz, .xz or .zst)"

_SPLIT_NAME = re.compile(r"(train|validation|valid|val|dev|test)-\d+-of-\d+\.")
"""Shards named as `datasets` and the hub name them: train-00000-of-00004.parquet."""


class LocalFiles(NamedTuple):
    """Files of one format, in the order in which they are read."""

    files: tuple[Path, ...]
    format: Format


class SavedDataset(NamedTuple):
    """A folder that `Dataset.save_to_disk` wrote: of a DatasetDict, the folder of one split."""

    folder: Path
    files: tuple[Path, ...]


class HubDataset(NamedTuple):
    """A dataset on the Hugging Face hub."""

    repository: str
    name: str | None
    revision: str | None
    split: str


Source = LocalFiles | SavedDataset | HubDataset


def find_source(config: CorpusConfig, key: str = "corpus") -> Source:
    """Decide what `config.path` names.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: no such file, no split of that name, unsupported or mixed file endings, an empty folder.
    """
    path = Path(config.path).expanduser()
    if path.is_dir():
        return _folder(path, config, key)
    if path.exists():
        _only_train(config, key, config.path)
        return LocalFiles((path,), _format_of(path, key))
    if config.path.startswith((".", "/", "~")) or _ending(config.path) is not None:
        raise CorpusError(f"{key}.path: {path}: no such file or folder; correct the path")
    return HubDataset(config.path, config.name, config.revision, config.split)


def check_split(key: str, where: object, split: str, splits: Iterable[str]) -> None:
    """Raise a CorpusError that lists the splits unless `split` is one of them."""
    names = list(splits)
    if split not in names:
        raise CorpusError(
            f"{key}.split: {where} has no split {split!r}; choose from {', '.join(map(repr, names))}"
        )


def _folder(folder: Path, config: CorpusConfig, key: str) -> Source:
    files = _files(folder, key)
    names = {file.name for file in files}
    if "dataset_dict.json" in names:
        check_split(key, folder, config.split, _read_json(folder / "dataset_dict.json", "splits", key))
        return _saved(folder / config.split, key)
    if "state.json" in names:
        # A single saved dataset records at most the split that it was taken from; `train`, the
        # default, stands for it.
        recorded = _read_json(folder / "state.json", "_split", key)
        check_split(key, folder, config.split, dict.fromkeys(["train", *([recorded] if recorded else [])]))
        return _saved(folder, key)
    return _shards(folder, files, config, key)


def _files(folder: Path, key: str) -> list[Path]:
    """The files in a folder but for hidden ones, by name."""
    try:
        return sorted(f for f in folder.iterdir() if f.is_file() and not f.name.startswith("."))
    except OSError as error:
        raise CorpusError(
            f"{key}.path: {folder}: cannot be listed ({error.strerror}); mend its permissions"
        ) from error


def _saved(folder: Path, key: str) -> SavedDataset:
    listed = _read_json(folder / "state.json", "_data_files", key)
    files = tuple(folder / entry["filename"] for entry in listed)
    for file in files:
        if not file.is_file():
            raise CorpusError(f"{key}.path: {file}: is missing from the saved dataset; save it again")
    return SavedDataset(folder, files)


def _read_json(file: Path, field: str, key: str) -> Any:  # noqa: ANN401 - as `datasets` wrote it
    try:
        return json.loads(file.read_text(encoding="utf-8"))[field]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CorpusError(
            f"{key}.path: {file}: does not describe a saved dataset ({error}); save the dataset again"
        ) from error


def _shards(folder: Path, files: list[Path], config: CorpusConfig, key: str) -> LocalFiles:
    data = [file for file in files if _ending(file.name) is not None]
    if not data:
        raise CorpusError(
            f"{key}.path: {folder}: the folder holds no data files; it needs files that end in {SUPPORTED}"
        )
    endings = sorted({str(_ending(file.name)) for file in data})
    if len(endings) > 1:
        raise CorpusError(
            f"{key}.path: {folder}: the folder mixes {', '.join(endings)}; keep the shards of one ending, "
            "or name one file"
        )
    return LocalFiles(tuple(_of_split(data, folder, config, key)), FORMATS[endings[0]])


def _of_split(files: list[Path], folder: Path, config: CorpusConfig, key: str) -> list[Path]:
    """Keep the shards of the configured split where all names state one; else all are one split."""
    matches = [_SPLIT_NAME.match(file.name) for file in files]
    splits = [match.group(1) for match in matches if match]
    if len(splits) < len(files):
        _only_train(config, key, folder)
        return files
    check_split(key, folder, config.split, dict.fromkeys(splits))
    return [file for file, split in zip(files, splits, strict=True) if split == config.split]


def _only_train(config: CorpusConfig, key: str, where: object) -> None:
    check_split(key, where, config.split, ["train"])


def _format_of(file: Path, key: str) -> Format:
    ending = _ending(file.name)
    if ending is None:
        raise CorpusError(f"{key}.path: {file}: unsupported kind of file; supported are {SUPPORTED}")
    return FORMATS[ending]


def _ending(name: str) -> str | None:
    return next((ending for ending in FORMATS if name.lower().endswith(ending)), None)
