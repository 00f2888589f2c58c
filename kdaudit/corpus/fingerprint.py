"""What a corpus was, as one string: a run that resumes can tell whether its text has changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.sources import HubDataset, find_source
from kdaudit.corpus.splits import missing_shards
from kdaudit.errors import CorpusError, KdauditError, reason
from kdaudit.models.hub import LOOKUP_SECONDS, within
from kdaudit.runs.files import sha256_file
from kdaudit.schemas.notes import Note


class PinnedSource(NamedTuple):
    """A corpus as it stands now."""

    config: CorpusConfig
    """As configured, but for a hub dataset's revision, which is its commit."""
    fingerprint: str
    """See `source_fingerprint`."""
    contents: tuple[str, ...] = ()
    """SHA-256 of each local file, whatever its name, in ascending order."""
    note: Note | None = None
    """What readers of the results should know of it."""


def pin_source(config: CorpusConfig, key: str = "corpus") -> PinnedSource:
    """Fix what `config` names, so that a later push to the hub cannot slip in between.

    Raises:
        CorpusError: as `source_fingerprint`.

    """
    source = find_source(config, key)
    if isinstance(source, HubDataset):
        config = config.model_copy(update={"revision": _commit(source, key)})
        return PinnedSource(config, source_fingerprint(config, key))
    hashes = _hashes(source.files, key)
    note = _shards_note(Path(config.path), source.files, key)
    return PinnedSource(config, f"sha256:{_digest(hashes)}", tuple(sorted(hashes.values())), note)


def _shards_note(path: Path, files: Sequence[Path], key: str) -> Note | None:
    """What a folder lacks, by the numbers of its shards: it may be all that was fetched of a large text."""
    missing = None if files == (path,) else missing_shards(one.relative_to(path).as_posix() for one in files)
    if missing is None:
        return None
    text = f"The {key} lacks {missing}: their text was not read."
    return Note(code="shards_missing", subject=key, text=text)


_OTHER_TEXTS = {
    "holdout": "name text that no model was trained on",
    "generated": "name the text that the teacher wrote",
}
"""Texts that must not be the corpus, and what to name instead, by configuration key."""


def refuse_equal_sources(sources: Mapping[str, PinnedSource]) -> None:
    """Refuse a text that has the corpus's content: under another name, behind a link, as a copy.

    Raises:
        CorpusError: it has.

    """
    corpus = sources["corpus"]
    for key, fix in _OTHER_TEXTS.items():
        other = sources.get(key)
        if other is None or other.config.columns != corpus.config.columns:
            continue  # two columns of a file are other texts
        same_files = other.contents == corpus.contents != ()
        if same_files or other.fingerprint == corpus.fingerprint:
            raise CorpusError(
                f"{other.config.path}: holds the same data as the corpus ({corpus.config.path})",
                fix=fix,
                key=f"{key}.path",
            )


def check_unchanged(source: PinnedSource, key: str = "corpus") -> None:
    """Check that a corpus still is what it was when it was pinned, once it has been read.

    Local files are listed and hashed again, which takes a small part of the time that tokenizing them took. A
    hub dataset is read at its commit and cannot change.

    Raises:
        CorpusError: it changed, so that what was read is neither the old corpus nor the new one.

    """
    if (
        source.fingerprint.startswith("sha256:")
        and source_fingerprint(source.config, key) != source.fingerprint
    ):
        raise CorpusError(
            f"{source.config.path}: changed while it was read; nothing that was read is used",
            fix="run again once nothing writes to it any more",
            key=f"{key}.path",
        )


def source_fingerprint(config: CorpusConfig, key: str = "corpus") -> str:
    """Fingerprint of the data that `config` names; how text is cut and sampled is not part of it.

    Returns:
        `sha256:HEX` over names and contents of local files, or
        `hub:REPOSITORY@COMMIT?name=NAME&split=SPLIT` for a hub dataset.

    Raises:
        CorpusError: the source cannot be found or read.
    """
    source = find_source(config, key)
    if isinstance(source, HubDataset):
        name = source.name or "default"
        return f"hub:{source.repository}@{_commit(source, key)}?name={name}&split={source.split}"
    return f"sha256:{_digest(_hashes(source.files, key))}"


def _hashes(files: tuple[Path, ...], key: str) -> dict[str, str]:
    """SHA-256 of each file by its path below the folder of them all, in order of path."""
    folder = os.path.commonpath([file.parent for file in files]) if files else ""
    hashes = {}
    for file in sorted(files):
        try:
            hashes[file.relative_to(folder).as_posix()] = sha256_file(file)
        except OSError as error:
            raise CorpusError(
                f"{file}: cannot be read ({error.strerror})",
                fix="check it or its permissions",
                key=f"{key}.path",
            ) from error
    return hashes


def _digest(hashes: Mapping[str, str]) -> str:
    """SHA-256 over `NAME NUL SHA256 LF` of each file."""
    lines = (f"{name}\0{content}\n" for name, content in hashes.items())
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def _commit(source: HubDataset, key: str) -> str:
    import huggingface_hub

    try:
        api = huggingface_hub.HfApi()
        found = within(
            LOOKUP_SECONDS,
            lambda: api.dataset_info(source.repository, revision=source.revision),
            f"{key}.path: {source.repository}",
        ).sha
    except KdauditError:
        raise
    except Exception as error:  # the client also raises errors of its HTTP library, which varies
        raise CorpusError(
            f"{source.repository}: is not a local file, and its commit cannot be looked up on the "
            f"Hugging Face hub ({reason(error)})",
            fix="correct the path, check the network, or log in with `hf auth login`",
            key=f"{key}.path",
        ) from error
    if found is None:
        raise CorpusError(
            f"{source.repository}: the hub names no commit", fix=f"set {key}.revision", key=f"{key}.path"
        )
    return found
