"""What a corpus section names: files of one format, or a dataset on the hub.

`kdaudit.config.paths` has decided whether `path` is local: then it is absolute. Nothing is read here but
folder listings, the small json files that describe a saved dataset, and the card of a Hub repository.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.dataset_card import declared, declared_files
from kdaudit.corpus.folders import (
    FORMATS,
    SUPPORTED,
    Format,
    data_files,
    ending_of,
    refuse_unreadable,
    saved_files,
    saved_split,
    saved_splits,
)
from kdaudit.corpus.splits import check_split, of_file, of_split, refuse_slices, refuse_two_uploads, shown
from kdaudit.errors import CorpusError


class LocalFiles(NamedTuple):
    """Files of one format, in the order in which they are read."""

    files: tuple[Path, ...]
    format: Format


class HubDataset(NamedTuple):
    """A dataset on the Hugging Face hub."""

    repository: str
    name: str | None
    revision: str | None
    split: str


Source = LocalFiles | HubDataset


def find_source(config: CorpusConfig, key: str = "corpus") -> Source:
    """Decide what `config.path` names.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: no such file, no split of that name, unsupported or mixed kinds of files, an empty
            folder, a setting that local files do not have.
    """
    refuse_slices(config.split, key)
    if not os.path.isabs(config.path):  # noqa: PTH117
        return HubDataset(config.path, config.name, config.revision, config.split)
    path = Path(config.path)
    if config.revision is not None:
        raise CorpusError(
            f"{path} is local and has no revisions",
            fix="remove the revision, or name a hub id",
            key=f"{key}.revision",
        )
    try:
        path.stat()
    except FileNotFoundError as error:
        raise CorpusError(
            f"{path}: no such file or folder", fix="correct the path", key=f"{key}.path"
        ) from error
    except OSError as error:
        raise CorpusError(
            f"{path}: cannot be reached ({error.strerror})",
            fix="correct the path or its permissions",
            key=f"{key}.path",
        ) from error
    if path.is_dir():
        return _folder(path, config, key)
    if config.name is not None:
        raise _no_name(path, config.name, key)
    check_split(key, config.path, config.split, ["train", *of_file(path.name)])
    return LocalFiles((path,), _format_of([path.name], path, key))


def _folder(folder: Path, config: CorpusConfig, key: str) -> LocalFiles:
    splits = saved_splits(folder, key)
    if splits is not None:
        folder = folder / check_split(key, folder, config.split, splits)
        if saved_files(folder, key) is None:
            raise CorpusError(
                f"{folder}: is not a saved dataset", fix=f"save {folder.parent} again", key=f"{key}.path"
            )
    elif saved_files(folder, key) is not None:
        # A single saved dataset records at most the split that it was taken from; `train`, the
        # default, stands for it.
        recorded = saved_split(folder, key)
        check_split(key, folder, config.split, ["train", *([recorded] if recorded else [])])
    else:
        files = _of_repository(folder, config, key)
        return LocalFiles(tuple(folder / file for file in files), _format_of(files, folder, key))
    if config.name is not None:
        raise _no_name(folder, config.name, key)
    return LocalFiles(tuple(folder / file for file in data_files(folder, key)), "arrow")


def _of_repository(folder: Path, config: CorpusConfig, key: str) -> list[str]:
    """The files of the configured split below a folder, as its card or their names tell."""
    files = data_files(folder, key)
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        raise CorpusError(
            f"{folder}: holds a model, not texts",
            fix="name the folder or file of the texts",
            key=f"{key}.path",
        )
    card = declared(folder, config.name, key)
    if card is None and config.name is not None:
        raise _no_name(folder, config.name, key)
    if card is not None and card.splits:
        files = declared_files(card, files, config.split, str(folder), key)
        refuse_unreadable(folder, files, key)
        return files
    within = f"{card.folder}/" if card is not None and card.folder else ""
    files = [file for file in files if file.startswith(within)]
    refuse_unreadable(folder, files, key)
    if not files:
        raise CorpusError(
            f"{folder}: the folder holds no data files",
            fix=f"it needs files that end in {SUPPORTED}",
            key=f"{key}.path",
        )
    names = [file.removeprefix(within) for file in files]
    chosen = of_split(names, config.split, str(folder), key)
    refuse_two_uploads(chosen, str(folder), key)
    return [f"{within}{name}" for name in chosen]


def _no_name(path: Path, name: str, key: str) -> CorpusError:
    return CorpusError(
        f"{path} has no configuration {name!r}, as it has none at all",
        fix=f"remove {key}.name, or name the files' folder",
        key=f"{key}.name",
    )


def _format_of(names: Sequence[str], where: Path, key: str) -> Format:
    """The one format of all files; how they are compressed may differ."""
    formats = {FORMATS[ending]: name for name in sorted(names) if (ending := ending_of(name)) is not None}
    if not formats:
        raise CorpusError(
            f"{where}: unsupported kind of file", fix=f"supported are {SUPPORTED}", key=f"{key}.path"
        )
    if len(formats) > 1:
        endings = ", ".join(sorted(f".{form}" for form in formats))
        raise CorpusError(
            f"{where}: the folder mixes {endings} ({shown(sorted(formats.values()))})",
            fix="keep the shards of one ending, or name one file",
            key=f"{key}.path",
        )
    return next(iter(formats))
