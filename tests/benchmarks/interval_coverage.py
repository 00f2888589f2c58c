"""Bias and coverage of the figures that a reader acts on, by simulation with known truth.

    python tests/benchmarks/interval_coverage.py [--runs 400] [--part excess|own_rate|documents]

Excess of inheritance: each example has a probability of its own with which a training of the student's size
memorizes it; baselines draw from it, and a student too, but for a known share of what the teacher memorizes
and it did not draw. Windows of one document share a part of their probability. The truth is the mean over
references of what the student was given; where it is 0, the interval should hold 0.

At its own rate: a student that no teacher helped and that memorizes less. A training memorizes an example
whose nearness to it, log odds and chance together, is above 0; baselines are cut at the student's count by
their own nearness. The truth is 0.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.excess import Baseline, excess_at_own_rate, excess_over_chance
from kdaudit.analysis.intervals import (
    PairedTable,
    bonett_price_ratio,
    clopper_pearson,
    newcombe_paired_difference,
)

Floats = NDArray[np.float64]


class World(NamedTuple):
    """A corpus and what trainings make of it."""

    documents: int
    windows: int
    """Of each document."""
    rate: float
    """Of a baseline."""
    spread: float
    """Of the examples' log odds: how much it hangs on the example, and not on the training."""
    shared: float
    """Share of that variance that windows of one document have in common."""


PAPER = World(40_000, 5, 0.0017, 6.0, 0.3)
DEMO = World(120, 3, 0.5, 2.0, 0.3)


def _log_odds(world: World, rng: np.random.Generator) -> Floats:
    of_document = np.repeat(rng.normal(size=world.documents), world.windows)
    own = rng.normal(size=world.documents * world.windows)
    mixed = np.sqrt(world.shared) * of_document + np.sqrt(1 - world.shared) * own
    return world.spread * mixed


def _centre(world: World) -> float:
    """The log odds at which a training memorizes `rate` of such examples."""
    grid = norm.ppf((np.arange(4000) + 0.5) / 4000) * world.spread
    low, high = -60.0, 60.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if expit(grid + middle).mean() < world.rate else (low, middle)
    return low


def excess(name: str, world: World, runs: int) -> None:
    """Bias and coverage of the excess at 2, 3 and 5 baselines, without and with true inheritance."""
    rng, centre = np.random.default_rng(1), _centre(world)
    codes = np.repeat(np.arange(world.documents), world.windows)
    for given in (0.0, 0.02, 0.2):
        for baselines in (2, 3, 5):
            found = []
            for _ in range(runs):
                chance = expit(_log_odds(world, rng) + centre)
                flags = [rng.random(len(chance)) < chance for _ in range(baselines)]
                teacher = rng.random(len(chance)) < expit(np.log(chance / (1 - chance)) + 2)
                student = rng.random(len(chance)) < chance
                student |= teacher & (rng.random(len(chance)) < given)
                # Of what chance leaves, `given` is added: the truth is given times 1 minus the chance there.
                truth = np.mean([given * (1 - chance[teacher & ~one]).mean() for one in flags])
                one = excess_over_chance(student, teacher, flags, Documents(codes))
                low, high = one.difference_ci95 or (None, None)
                covered = low is not None and high is not None and low <= truth <= high
                found.append((one.rate, one.floor, one.difference - truth, covered, (high or 0) - (low or 0)))
            rate, floor, bias, covered, width = np.array(found, dtype=float).T
            print(
                f"{name}, {baselines} baselines, given {given:4.0%}: rate {rate.mean():.4f}, floor "
                f"{floor.mean():.4f}, bias of the excess {bias.mean():+.5f} "
                f"(+-{1.96 * bias.std() / runs**0.5:.5f}), coverage {covered.mean():.3f}, "
                f"width {width.mean():.4f}",
                flush=True,
            )


def own_rate(name: str, world: World, runs: int) -> None:
    """The floor at a weaker student's own rate, without a teacher's help."""
    rng, centre = np.random.default_rng(3), _centre(world)
    codes = np.repeat(np.arange(world.documents), world.windows)
    for weaker in (0.5, 2.0):
        for baselines in (2, 3, 5):
            found = []
            for _ in range(runs):
                odds = _log_odds(world, rng) + centre
                near = [odds + rng.logistic(size=len(odds)) for _ in range(baselines)]
                told = [Baseline(one > 0, one, one > -1, np.ones(len(one))) for one in near]
                flags = [one.memorized for one in told]
                teacher, student = (odds + rng.logistic(size=len(odds)) > -shift for shift in (2, -weaker))
                plain = excess_over_chance(student, teacher, flags, Documents(codes))
                own = excess_at_own_rate(student, teacher, told, Documents(codes))
                low, high = own.difference_ci95 or (None, None)
                covered = low is not None and high is not None and low <= 0 <= high
                share = student.sum() / np.mean([one.sum() for one in flags])
                found.append((share, own.rate, plain.floor, own.floor, own.difference, covered))
            share, rate, plain_floor, floor, excess_found, covered = np.array(found, dtype=float).T
            print(
                f"{name}, {baselines} baselines, a student with {share.mean():.2f} of their count: "
                f"rate {rate.mean():.4f}, floor {plain_floor.mean():.4f}, at its own rate "
                f"{floor.mean():.4f}, excess there {excess_found.mean():+.4f}, coverage of 0 "
                f"{covered.mean():.3f}",
                flush=True,
            )


def documents(runs: int) -> None:
    """Coverage of intervals by window and by document at 1, 8 and 30 windows a document."""
    for rate in (0.002, 0.02, 0.2):
        for windows in (1, 8, 30):
            world = World(6000 // windows, windows, rate, 3.0, 0.6)
            _cover(world, runs)


def _cover(world: World, runs: int) -> None:
    rng, centre = np.random.default_rng(2), _centre(world)
    codes = np.repeat(np.arange(world.documents), world.windows)
    docs = Documents(codes)
    held = {key: np.zeros(2) for key in ("rate", "difference", "ratio", "difference to 3", "ratio to 3")}
    for _ in range(runs):
        odds = _log_odds(world, rng) + centre
        first, *others = (rng.random(len(odds)) < expit(odds) for _ in range(4))
        table = PairedTable.of(first, others[0])
        intervals = {
            "rate": (clopper_pearson(table.first, table.total), docs.rate(first), world.rate),
            "difference": (newcombe_paired_difference(table), docs.difference(first, others[:1]), 0.0),
            "ratio": (bonett_price_ratio(table), docs.ratio(first, others[:1]), 1.0),
            "difference to 3": (None, docs.difference(first, others), 0.0),
            "ratio to 3": (None, docs.ratio(first, others), 1.0),
        }
        for key, (*both, truth) in intervals.items():
            for place, ends in enumerate(both):
                low, high = ends or (np.nan, np.nan)  # a mean of several outcomes has no interval by window
                held[key][place] += (low is None or low <= truth) and (high is None or truth <= high)
    told = ", ".join(
        f"{key} {'-' if ' to ' in key else f'{plain / runs:.3f}'} | {by / runs:.3f}"
        for key, (plain, by) in held.items()
    )
    where = f"rate {world.rate}, {world.windows} windows a document"
    print(f"{where}, by window | by document: {told}", flush=True)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--part", choices=("excess", "own_rate", "documents"))
    asked = parser.parse_args()
    if asked.part in (None, "excess"):
        excess("demo", DEMO, asked.runs)
        excess("paper", PAPER, asked.runs)
    if asked.part in (None, "own_rate"):
        own_rate("demo", DEMO, asked.runs)
        own_rate("paper", PAPER, asked.runs)
    if asked.part in (None, "documents"):
        documents(asked.runs)


if __name__ == "__main__":
    main()
