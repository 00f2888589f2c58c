"""Whether an engine runs the model that the reference runs: the comparison, over arrays alone.

The reference wrote greedy continuations; under an engine that runs the same model each of them counts as
memorized, just as in the audit itself. A near tie between two tokens may fall otherwise in another kernel or
batch, so a continuation may be left where the reference's two best logits lie within a tolerance. Some
continuations are asked for again with one token replaced by the model's least likely one: a match must end
there, or the engine counts what the model does not say.

Margins and tolerances are shares of the distance between the best logit and the median of all: they do not
depend on the scale of a model's logits. What rounding does is measured on the model at hand, by the
reference run in the audit's own dtype: a tie is near within `_SAFETY` times the widest that this could turn.
Measured on six families of random models in bfloat16, three times each, both engines leave no tie wider than
1.4 times that, nor leave them more than 1.5 times as often. Trained models have longer tails: SmolLM2-135M
in bfloat16 left one tie of 17 that was 3.04 times the widest turned. So one window of `_ODD` may be left at a
tie up to twice as wide as a near one; five faults planted in that model showed in six windows of 24 or more.
An engine that leaves ties more than twice as often as rounding turns them is refused too: small errors
everywhere show in this way alone.

What cannot be seen: an error that both sides make, as in a file that both read; one that changes no argmax,
such as a wrong scale of all logits; one that shows only in texts longer than prefix and suffix.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kdaudit.inference.examples import Lengths, Ragged, Tokens

WINDOWS = 24
"""Continuations to compare; fewer where the corpus has fewer, or a large model stands on a CPU."""
PROBED = 8
"""Of these, how many measure the rounding."""
_CONTROLS = 8
"""Of these, how many are asked for again with a wrong token."""
_SAFETY = 3.0
_ODD = 8
"""Windows of which one may be left at a tie up to twice as wide as a near one."""
EXACT = 1e-4
"""Margin of a tie in float32."""
_FLOOR = {"float32": EXACT, "float16": 1e-3, "bfloat16": 5e-3}
"""Least tolerance by dtype: kernels add in other orders than the reference, which sees no change then."""
_RARE = 1e-4
"""Probability of a false alarm by too many near ties."""


class Continuations(NamedTuple):
    """What a model says after some prompts, all (windows, tokens) of the longest; see `ends`."""

    tokens: Tokens
    """int32, greedy."""
    margins: NDArray[np.float32]
    """Best logit less the second, as a share of the best less the median."""
    unlikely: Tokens
    """int32, the least likely token at each position."""
    lengths: Lengths | None = None
    """Tokens of each window, int64 (windows,), behind which nothing counts; None: all have all."""

    @property
    def ends(self) -> Lengths:
        """Tokens of each window: int64 (windows,)."""
        windows, width = self.tokens.shape
        return np.full(windows, width, np.int64) if self.lengths is None else self.lengths

    def counted(self, windows: int) -> NDArray[np.bool_]:
        """Which positions of the first windows count: bool (windows, tokens)."""
        counted: NDArray[np.bool_] = np.arange(self.tokens.shape[1]) < self.ends[:windows, None]
        return counted


class Probe(NamedTuple):
    """What the audit's dtype changes in the first windows, both (windows, tokens)."""

    change: NDArray[np.float32]
    """Absolute change of the margin, in the same measure."""
    flipped: NDArray[np.bool_]
    """Whether the argmax is another."""


class Rounding(NamedTuple):
    """What rounding explains."""

    tolerance: float
    """Largest margin of a near tie."""
    rate: float
    """Share of positions whose argmax rounding may change, counted generously."""


class Asked(NamedTuple):
    """What an engine is asked to match."""

    windows: NDArray[np.int64]
    """Row of the continuations: int64 (rows,)."""
    targets: Ragged
    """A continuation for each row, as it is or with a wrong token."""
    ends: NDArray[np.int64]
    """Tokens that an engine must match: all, or those before a wrong one; int64 (rows,)."""


class Departure(NamedTuple):
    """Where an engine leaves a continuation and no near tie explains it."""

    window: int
    """Row of the continuations."""
    position: int
    """Of the token, from 0."""


class Agreement(NamedTuple):
    """How an engine fares."""

    windows: int
    positions: int
    """Tokens compared; a window ends at its first difference."""
    near_ties: int
    """Windows left at a near tie."""
    departures: list[Departure]
    """Windows left where there is none, or matched beyond a wrong token."""
    too_many: bool
    """Whether there are more near ties than rounding explains."""

    @property
    def holds(self) -> bool:
        """Whether the engine runs the reference's model."""
        return not (self.departures or self.too_many)


def within_rounding(
    margins: NDArray[np.float64], spreads: NDArray[np.float64], tolerance: float
) -> NDArray[np.bool_]:
    """Where rounding may decide which of two tokens comes first: bool, of the same shape.

    Args:
        margins: logit of a token less the largest other one; negative where that one is ahead.
        spreads: best logit less the median of all, there.
        tolerance: of the model's `Rounding`.

    """
    near: NDArray[np.bool_] = np.abs(margins) <= tolerance * spreads
    return near


def rounding_of(expected: Continuations, probe: Probe, dtype: str) -> Rounding:
    """What rounding explains, from what it did to the first windows.

    Args:
        expected: the reference's continuations.
        probe: what the dtype changes in the first of them.
        dtype: float32, bfloat16 or float16.

    """
    counted = expected.counted(len(probe.change))
    margins, change = expected.margins[: len(counted)][counted], probe.change[counted]
    flipped = probe.flipped[counted]
    turned = margins[flipped | (change >= margins)].max(initial=0.0)
    usual = float(np.quantile(change, 0.95))  # speaks alone where no margin is small enough
    tolerance = max(_FLOOR[dtype], _SAFETY * max(float(turned), usual))
    # Three more than seen: with 95% confidence the share is not larger where none was.
    return Rounding(tolerance, (int(flipped.sum()) + 3) / flipped.size)


def share_of_ties(expected: Continuations, rounding: Rounding) -> float:
    """Share of the positions that are near ties: where another model's token would pass as rounding."""
    margins = expected.margins[expected.counted(len(expected.tokens))]
    return float((margins <= rounding.tolerance).mean())


def ask(expected: Continuations, seed: int) -> Asked:
    """The continuations, and some of them with a wrong token at a seeded position."""
    windows, ends = len(expected.tokens), expected.ends
    controls = min(_CONTROLS, windows)
    places = np.random.default_rng(seed).integers(0, ends[:controls])
    wrong = expected.tokens[:controls].copy()
    rows = np.arange(controls)
    wrong[rows, places] = expected.unlikely[rows, places]
    # Where all logits are equal, the least likely token is the likeliest too, and nothing is wrong.
    planted = wrong[rows, places] != expected.tokens[rows, places]
    return Asked(
        np.concatenate([np.arange(windows), np.arange(controls)]),
        Ragged.of([*expected.tokens, *wrong]).head(np.concatenate([ends, ends[:controls]])),
        np.concatenate([ends, np.where(planted, places, ends[:controls])]),
    )


def compare_outputs(
    expected: Continuations, asked: Asked, matched: NDArray[np.int16], rounding: Rounding
) -> Agreement:
    """Judge what an engine matched.

    Args:
        expected: the reference's continuations.
        asked: what the engine was asked for, of `ask`.
        matched: tokens that it matched: int16 (rows,).
        rounding: of `rounding_of`.

    """
    windows, ends = len(expected.tokens), expected.ends
    left = np.flatnonzero(matched[:windows] < ends)
    margins = expected.margins[left, matched[left]]
    near = margins <= rounding.tolerance
    odd = ~near & (margins <= 2 * rounding.tolerance)
    if odd.sum() <= max(1, windows // _ODD):
        near |= odd
    beyond = np.flatnonzero(matched > asked.ends)
    departures = [Departure(int(row), int(matched[row])) for row in left[~near]]
    departures += [Departure(int(asked.windows[row]), int(asked.ends[row])) for row in beyond]
    positions = int(np.minimum(matched[:windows].astype(np.int64) + 1, ends).sum())
    chance = stats.binom.sf(int(near.sum()) - 1, positions, min(1.0, 2 * rounding.rate))
    return Agreement(windows, positions, int(near.sum()), departures, bool(chance < _RARE))
