"""canaries.jsonl: written by `kdaudit canaries`, read by training and by audits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from kdaudit.corpus.canary_texts import Drawing
from kdaudit.errors import CorpusError, RunStateError, UsageError
from kdaudit.runs.files import read_bounded, write_bytes
from kdaudit.schemas.canaries import Canary

ENDING = ".jsonl"
_MOST_BYTES = 256 << 20
LEAST_CONTROLS = 20
"""Of each family, below which an exposure says next to nothing: at most 4.4 bits."""


class Numbers(NamedTuple):
    """How many canaries there are of each family."""

    each: int
    """For each number of repetitions."""
    repetitions: Sequence[int]
    """Ascending, each at least 1."""
    controls: int


def made_canaries(drawing: Drawing, numbers: Numbers) -> Iterator[Canary]:
    """Canaries and controls, family by family, by rising repetitions.

    A text that is drawn twice is drawn again.
    """
    wanted = {0: numbers.controls, **dict.fromkeys(numbers.repetitions, numbers.each)}
    for family in drawing.pools:
        drawn, seen = 0, set[str]()
        for repetitions, count in wanted.items():
            for number in range(count):
                while (text := drawing.text(family, drawn)) in seen:
                    drawn += 1
                seen.add(text)
                kind = f"x{repetitions}" if repetitions else "control"
                name = f"{family}-{kind}-{number:04d}"
                yield Canary(id=name, family=family, repetitions=repetitions, text=text)


def write_canaries(path: Path, canaries: Sequence[Canary]) -> None:
    """Write a new file, for its owner alone: who knows the controls could train on them.

    Raises:
        RunStateError: something stands at `path`.
        StorageError: it could not be written.

    """
    if os.path.lexists(path):
        raise RunStateError(
            f"{path}: exists already, and models may be trained on what it holds",
            fix="choose another --out, or move it away",
        )
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent}: is not a directory", fix="make it, or correct --out")
    write_bytes(path, lines_of(canaries), private=True)


def lines_of(canaries: Iterable[Canary]) -> bytes:
    """What a file of them holds."""
    return "".join(f"{one.model_dump_json()}\n" for one in canaries).encode()


def read_canaries(path: Path, key: str) -> list[Canary]:
    """The rows of a file.

    Args:
        path: the file.
        key: of the configuration's section that names it, for messages.

    Raises:
        CorpusError: it cannot be read, a row is wrong, or it holds too few.

    """
    place = f"{key}.path"
    if path.suffix != ENDING:
        raise CorpusError(
            f"{path}: does not end in {ENDING}", fix="name a file that `kdaudit canaries` wrote", key=place
        )
    try:
        lines = read_bounded(path, _MOST_BYTES).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(
            f"{path}: cannot be read ({error})", fix="name a file that `kdaudit canaries` wrote", key=place
        ) from error
    found = [_row(line, f"{path}:{number}", place) for number, line in enumerate(lines, 1) if line.strip()]
    _refuse_unfit(path, found, place)
    return found


def _row(line: str, where: str, key: str) -> Canary:
    try:
        return Canary.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        column = ".".join(map(str, first["loc"])) or "the line"
        raise CorpusError(
            f"{where}: {column}: {first['msg']}",
            fix="name a file of `kdaudit canaries`: each line has id, family, repetitions and text",
            key=key,
        ) from None


def _refuse_unfit(path: Path, canaries: Sequence[Canary], key: str) -> None:
    """Refuse equal rows, and families that cannot be measured."""
    for what in ("id", "text"):
        again = next(
            (one for one, n in Counter(getattr(row, what) for row in canaries).items() if n > 1), None
        )
        if again is not None:
            raise CorpusError(
                f"{path}: two rows have the same {what}, {again[:60]!r}", fix="keep one of them", key=key
            )
    planted = {one.family for one in canaries if one.repetitions}
    controls = Counter(one.family for one in canaries if not one.repetitions)
    if not planted:
        raise CorpusError(
            f"{path}: holds no row with repetitions above 0",
            fix="make another with `kdaudit canaries`",
            key=key,
        )
    for family in sorted(planted):
        if controls[family] < LEAST_CONTROLS:
            raise CorpusError(
                f"{path}: has {controls[family]} controls (repetitions 0) of the family {family}, and "
                f"exposure takes {LEAST_CONTROLS}",
                fix="make another with `kdaudit canaries`",
                key=key,
            )
