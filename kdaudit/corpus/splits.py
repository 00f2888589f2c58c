"""Which split a file belongs to, by the Hub's naming rules, and the files of one split.

The rules are those of `datasets.data_files`.
A file states its split by a word in its name or in that of a folder above it, set off by one of `-._ ` or a
digit: `train.jsonl`, `my_test-3.csv`, `dev/a.txt`. Shards `SPLIT-00000-of-00004`, with or without a hash
behind, may have splits of any name. Four things are stricter here, so that no text of another split is
audited in silence: upper case counts too, so does a word with `set`, `data`, `split` or `file` behind it, as
in `testset.jsonl`, a holdout is a split, and where some files state a split, all must.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from kdaudit.errors import CorpusError

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
    "holdout": ("holdout", "heldout"),
}
_MEANING = {word: split for split, words in _SPLITS.items() for word in words}
_WORD = re.compile(
    rf"(?:^|[-._ 0-9])({'|'.join(_MEANING)})(?:sets?|data|split|file)?(?=[-._ 0-9]|$)", re.IGNORECASE
)
_SHARD = re.compile(r"(\w+(?:\.\w+)*)-\d{5,}-of-\d{5,}")
_NUMBERED = re.compile(r"(.+?)-(\d{5,})-of-(\d{5,})(?=[-._])")
_UPLOADED = re.compile(r"(.+?-\d{5,}-of-\d{5,})(?:-[0-9a-f]{16})?(\.[^/]+)")
"""A shard, with or without the fingerprint that `push_to_hub` of old put behind its number."""
_SHOWN = 3
"""Names that a message gives as examples."""


def shown(names: Iterable[object]) -> str:
    """The first few names, and how many more there are."""
    every = [str(name) for name in names]
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more


def refuse_slices(split: str, key: str) -> None:
    """Raise a CorpusError for `train[:50%]` or `train+test`, which `datasets` would cut or join."""
    if "[" in split:
        whole = split.split("[")[0] or "train"
        raise CorpusError(
            f"{split!r} is a slice, and splits are read whole",
            fix=f"set {key}.split to {whole} and {key}.limit to how many examples to sample from it",
            key=f"{key}.split",
        )
    if "+" in split:
        raise CorpusError(
            f"{split!r} joins splits, and one split is read", fix="name one of them", key=f"{key}.split"
        )


def check_split(key: str, where: object, split: str, splits: Iterable[str]) -> str:
    """The one of `splits` that `split` names: of that name, or if there is none the only one of its kind.

    Raises:
        CorpusError: there is none, or several: lists them.
    """
    names = list(dict.fromkeys(splits))
    alike = [name for name in names if name == split] or [
        name for name in names if _kind(name) == _kind(split) is not None
    ]
    if len(alike) == 1:
        return alike[0]
    choice = f"choose from {', '.join(map(repr, names))}"
    if alike:
        raise CorpusError(
            f"{where} has several splits that {split!r} could mean", fix=choice, key=f"{key}.split"
        )
    raise CorpusError(f"{where} has no split {split!r}", fix=choice, key=f"{key}.split")


def of_split(files: Sequence[str], split: str, where: str, key: str) -> list[str]:
    """Those of `files` that belong to a split; all where none states one.

    Args:
        files: paths below the folder, with `/`.
        split: the one that is asked for.
        where: the folder, for messages; where no file states a split, its own name may.
        key: where the corpus stands in the configuration.

    Raises:
        CorpusError: no such split, files that state several, or files that state none beside others that do.
    """
    stated = {file: _stated(file) for file in files}
    several = [file for file, splits in stated.items() if len(splits) > 1]
    if several:
        raise CorpusError(
            f"{where}: {shown(several)}: a name that states several splits",
            fix="rename it, or name one file as the path",
            key=f"{key}.path",
        )
    _name_other_shards(stated)
    without = [file for file, splits in stated.items() if not splits]
    if len(without) == len(files):
        check_split(key, where, split, ["train", *_words(PurePosixPath(where).name)])
        return list(files)
    if without:
        named = [file for file, splits in stated.items() if splits]
        raise CorpusError(
            f"{where}: its files are a mixture: {shown(named)} named after a split, "
            f"{shown(without)} after none",
            fix="put those to read into a folder of their own, or name one file",
            key=f"{key}.path",
        )
    chosen = check_split(key, where, split, (name for splits in stated.values() for name in splits))
    return [file for file, splits in stated.items() if chosen in splits]


def refuse_two_uploads(files: Sequence[str], where: str, key: str) -> None:
    """Refuse shards of which an older upload is there too: their text would be read twice.

    `NAME-00000-of-00001` beside `NAME-00000-of-00004`, or beside itself with another fingerprint.

    Raises:
        CorpusError: there are such.
    """
    totals: dict[str, set[int]] = {}
    for file in files:
        shard = _NUMBERED.match(file)
        if shard is not None:
            totals.setdefault(shard[1], set()).add(int(shard[3]))
    for name, uploads in totals.items():
        if len(uploads) > 1:
            raise CorpusError(
                f"{where}: holds shards of {name} from several uploads (of "
                f"{' and of '.join(map(str, sorted(uploads)))})",
                fix="remove the old ones",
                key=f"{key}.path",
            )
    shards: dict[tuple[str, ...], str] = {}
    for file in files:
        uploaded = _UPLOADED.fullmatch(file)
        if uploaded is not None and (other := shards.setdefault(uploaded.groups(), file)) != file:
            first, second = sorted((other, file), key=len)
            raise CorpusError(
                f"{where}: holds {first} and {second}, one shard of two uploads",
                fix="remove the old one",
                key=f"{key}.path",
            )


def missing_shards(files: Iterable[str]) -> str | None:
    """Which shards are not among the files by whose names they should be; None where all are.

    Args:
        files: paths with `/`; those named `NAME-00000-of-00004` tell how many there are of NAME.

    """
    found: dict[tuple[str, str], set[int]] = {}
    for file in files:
        shard = _NUMBERED.match(file)
        if shard is not None:
            found.setdefault((shard[1], shard[3]), set()).add(int(shard[2]))
    said = []
    for (name, total), numbers in found.items():
        if (lacking := int(total) - len(numbers)) > 0:
            first = int(int(total) in numbers)  # some count from 1
            missing = next(number for number in itertools.count(first) if number not in numbers)
            own = PurePosixPath(name).name  # folders above it are nobody else's business
            example = f"{own}-{missing:0{len(total)}}-of-{total}"
            said.append(f"{lacking:,} of {int(total):,} shards of {own} (such as {example})")
    return shown(said) or None


def of_file(name: str) -> set[str]:
    """The splits that the name of a single file states."""
    return _words(name)


def _stated(file: str) -> set[str]:
    """The splits that a file's path states; a folder and the name below it may differ, and then state two."""
    *folders, name = PurePosixPath(file).parts
    of_folders = {split for folder in folders for split in _words(folder)}
    shard = _SHARD.match(name)
    if shard is None or not _words(shard[1]):
        return of_folders | _words(name)
    if shard[1].lower() in _MEANING:
        return of_folders | _words(shard[1])
    return of_folders or {shard[1]}


def _name_other_shards(stated: dict[str, set[str]]) -> None:
    """Shards of other splits, such as `unsupervised-00000-of-00001`.

    They are taken for such beside shards of `train` or `test`, and in a folder data/, where the Hub does so.
    """
    beside = any(splits for splits in stated.values())
    for file, splits in stated.items():
        shard = _SHARD.match(PurePosixPath(file).name)
        in_data = PurePosixPath(file).parts[:-1] == ("data",)
        if not splits and shard is not None and shard[1] != "data" and (beside or in_data):
            splits.add(shard[1])


def _words(name: str) -> set[str]:
    return {_MEANING[word.lower()] for word in _WORD.findall(name)}


def _kind(split: str) -> str | None:
    """The usual split that a split's name stands for: `validation` for `dev`; None for one of its own."""
    words = _words(split)
    return words.pop() if len(words) == 1 else None
