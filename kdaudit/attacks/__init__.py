"""Ways to get training text out of a model; each decides what is exposed under it.

    base.py      the protocol
    examples.py  rows of a run as an attack is given them
    greedy.py    exact greedy extraction

An attack is one file, its schema in it, and one line of `ATTACKS`.
"""

from __future__ import annotations

from kdaudit.attacks.base import Attack, Flags
from kdaudit.attacks.greedy import GREEDY, GREEDY_TEXT, Greedy, GreedyText, in_tokens

__all__ = ["ATTACKS", "GREEDY", "GREEDY_TEXT", "Attack", "Flags", "Greedy", "GreedyText", "in_tokens"]

ATTACKS: list[Attack] = [GREEDY]
"""What every audit runs, in this order. The first is the one that results, gate and leaks are about."""
