"""`kdaudit canaries`: what the command line asks for, drawn and written."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kdaudit.config.paths import resolve_path
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.corpus.canaries import ENDING, Numbers, made_canaries, write_canaries
from kdaudit.corpus.canary_texts import drawing
from kdaudit.errors import UsageError
from kdaudit.models.fetching import fetch_tokenizer
from kdaudit.models.tokenizer import ModelTokenizer, load_tokenizer
from kdaudit.schemas.canaries import MOST_REPETITIONS, Canary


class Order(NamedTuple):
    """The options of the command line, in its order."""

    each: int
    repetitions: str
    controls: int
    tokens: int
    tokenizer: str | None
    seed: int | None


def run_canaries(out: Path, order: Order) -> str:
    """Write canaries; give lines for a terminal.

    Raises:
        UsageError: an option is wrong, or something stands at `out`.
        StorageError: the file could not be written.

    """
    if out.suffix != ENDING:
        raise UsageError(f"{out}: does not end in {ENDING}", fix=f"write --out NAME{ENDING}")
    numbers = Numbers(order.each, _repetitions(order.repetitions), order.controls)
    seed = secrets.randbelow(2**32) if order.seed is None else order.seed
    found = [*made_canaries(drawing(seed, order.tokens, _tokenizer(order.tokenizer)), numbers)]
    write_canaries(out, found)
    return render(out, found, seed)


def render(out: Path, canaries: Sequence[Canary], seed: int) -> str:
    """What was written, and what to do with it, as lines."""
    families = dict.fromkeys(one.family for one in canaries)
    lines = [f"{out}: {len(canaries):,} texts, seed {seed}", ""]
    for family in families:
        own = [one.repetitions for one in canaries if one.family == family]
        planted = sum(repetitions > 0 for repetitions in own)
        lines.append(
            f"  {family:18} {planted:6,} canaries ({sum(own):,} rows of training data), "
            f"{len(own) - planted:,} controls"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Mix each text into the training data as often as its `repetitions` says, as a document of its",
            "own; `canaries` in distill.yaml does so. Keep controls (repetitions 0) out of it.",
            f"Then audit with attacks: {{canaries: {out}}}",
        ]
    )


def _repetitions(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if not found or not all(1 <= one <= MOST_REPETITIONS for one in found):
        raise UsageError(
            f"{text!r} is not a list of numbers from 1 to {MOST_REPETITIONS:,}",
            fix="write them as in 1,4,16,64; --controls sets how many stay out",
            key="--repetitions",
        )
    if len({*found}) < len(found):
        raise UsageError(f"{text!r} holds a number twice", fix="keep it once", key="--repetitions")
    return sorted(found)


def _tokenizer(named: str | None) -> ModelTokenizer | None:
    if named is None:
        return None
    try:
        path = resolve_path(named)
    except MisfitError as error:
        raise UsageError(error.what, fix=error.fix, key="--tokenizer") from None
    return load_tokenizer(fetch_tokenizer(path, "--tokenizer"))
