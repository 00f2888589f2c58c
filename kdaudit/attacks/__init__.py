"""Ways to get training text out of a model; each decides what is exposed under it.

    base.py      the protocol
    examples.py  rows of a run as an attack is given them
    greedy.py    exact greedy extraction
    near_verbatim.py  greedy continuations that differ in a few tokens
    scored.py    what the scoring pass keeps of each example, which the following attacks take
    sampled.py   sampling instead of greedy decoding
    membership.py  scores that tell what was trained on

An attack is one file, its schema in it, and one line of `ATTACKS`, or of `attacks_of` where it has settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.attacks.base import Attack, Flags
from kdaudit.attacks.greedy import GREEDY, GREEDY_TEXT, Greedy, GreedyText, in_tokens
from kdaudit.attacks.near_verbatim import GreedyAndNear, NearVerbatim
from kdaudit.config.attacks import AttacksConfig
from kdaudit.inference import Task

__all__ = [
    "ATTACKS",
    "GREEDY",
    "GREEDY_TEXT",
    "Attack",
    "Decoding",
    "Flags",
    "Greedy",
    "GreedyText",
    "NearVerbatim",
    "attacks_of",
    "decodings",
    "in_tokens",
]

ATTACKS: list[Attack] = [GREEDY]
"""What every run does. The first is the one that results, gate and leaks are about."""


def attacks_of(asked: AttacksConfig) -> list[Attack]:
    """What an audit runs, in this order."""
    near = asked.near_verbatim
    return [*ATTACKS, *([] if near is None else [NearVerbatim(near.max_edit_distance)])]


class Decoding(NamedTuple):
    """What a model decodes once for several attacks."""

    task: Task
    """Gives the columns of all of them."""
    attacks: tuple[Attack, ...]


def decodings(attacks: Sequence[Attack]) -> list[Decoding]:
    """How attacks are run, so that each decoding serves all that it can."""
    near = next((one for one in attacks if isinstance(one, NearVerbatim)), None)
    if near is None or GREEDY not in attacks:
        return [Decoding(one, (one,)) for one in attacks]
    others = [one for one in attacks if one not in (GREEDY, near)]
    together = Decoding(GreedyAndNear(near.max_edit_distance), (GREEDY, near))
    return [together, *(Decoding(one, (one,)) for one in others)]
