"""Exposure of canaries: against sorting in pure Python, at chance, its coverage, and known truth."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdaudit.analysis.exposure import exposures, highest, median


def by_sorting(canary: float, controls: list[float]) -> float:
    """Carlini et al.: its place in the list of all, ties before it."""
    ranked = sorted([*controls, canary], reverse=True)
    rank = max(place for place, value in enumerate(ranked, 1) if value == canary)
    return math.log2(len(ranked)) - math.log2(rank)


@pytest.mark.parametrize("controls", [1, 20, 257])
def test_exposure_is_the_rank_among_the_controls(controls: int) -> None:
    draw = np.random.default_rng(controls)
    others = draw.normal(0, 2, controls).round(1)  # ties are among them
    canaries = np.append(draw.normal(1, 2, 40).round(1), [-99.0, 99.0, others[0]])
    found = exposures(canaries, others)
    expected = [by_sorting(one, others.tolist()) for one in canaries.tolist()]
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert max(expected) == highest(controls) == math.log2(controls + 1)
    assert min(expected) == 0
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()


def test_the_interval_of_one_canary_is_that_of_the_share_of_controls() -> None:
    """Exact binomial tails, summed: the ends are where 2.5% lie beyond."""
    found = exposures(np.array([0.5]), np.array([0.0] * 17 + [1.0] * 3))
    share_high, share_low = 2 ** -found.low[0], 2 ** -found.high[0]
    terms = [math.comb(20, k) for k in range(21)]

    def tail(share: float, ks: range) -> float:
        return sum(terms[k] * share**k * (1 - share) ** (20 - k) for k in ks)

    assert tail(share_high, range(4)) == pytest.approx(0.025)
    assert tail(share_low, range(3, 21)) == pytest.approx(0.025)
    edges = exposures(np.array([-1.0, 2.0]), np.array([0.0, 1.0] * 10))
    assert (edges.low[0], edges.high[1]) == (0.0, math.inf)


def test_what_no_model_read_is_at_chance() -> None:
    draw = np.random.default_rng(5)
    found = np.concatenate([exposures(draw.normal(size=100), draw.normal(size=500)).value for _ in range(60)])
    mean, ends = found.mean(), 2.58 * found.std() / math.sqrt(60 * 20)  # canaries share their controls
    assert abs(mean - 1 / math.log(2)) < ends < 0.15
    assert np.median(found) == pytest.approx(1.0, abs=0.1)


def test_median_takes_the_middle_and_ends_from_order_statistics() -> None:
    controls = np.arange(100.0)
    parts = [
        exposures(np.array([49.5, 98.5, 74.5]), controls),
        exposures(np.array([99.5, 0.5, 86.5]), controls),
    ]
    found = median(parts)
    middle = [by_sorting(one, controls.tolist()) for one in (74.5, 86.5)]
    assert found.median == pytest.approx(sum(middle) / 2)
    lows = sorted(value for part in parts for value in part.low.tolist())
    assert (found.low, found.high) == (lows[0], None), "of six, all can lie on one side in 3% of samples"
    few = median([exposures(np.array([99.5]), controls)])
    assert (few.low, few.high) == (0.0, None)


@pytest.mark.parametrize("distance", [0.0, 1.0, 2.0])
@pytest.mark.parametrize(("canaries", "controls"), [(7, 50), (30, 200)])
def test_intervals_cover_the_median_in_95_of_100(canaries: int, controls: int, distance: float) -> None:
    """Canaries stand `distance` deviations above what controls are drawn from."""
    draw = np.random.default_rng(int(distance))
    truth, covered, rounds = -math.log2(math.erfc(distance / math.sqrt(2)) / 2), 0, 300
    for _ in range(rounds):
        drawn = draw.normal(distance, 1, canaries), draw.normal(0, 1, controls)
        found = median([exposures(*drawn)])
        covered += found.low <= truth <= (math.inf if found.high is None else found.high)
    assert covered / rounds >= 0.95


REPETITIONS = (1, 4, 16, 64)


def _likelihoods(model: Any, rows: np.ndarray, prefix: int) -> np.ndarray:
    """Ln p of what follows the prefix, by log_softmax."""
    import torch

    with torch.inference_mode():
        logits = model(torch.from_numpy(rows)).logits[:, :-1].double().log_softmax(-1)
    own = logits.gather(-1, torch.from_numpy(rows[:, 1:, None]))[..., 0]
    return own[:, prefix - 1 :].sum(-1).numpy()


def test_exposure_rises_with_repetitions_in_a_trained_model(tmp_path: Path) -> None:
    from test_distill import VOCABULARY, llama, training

    from kdaudit.distillation.families import random_model
    from kdaudit.distillation.training import Recipe, WindowTrainer

    draw, each = np.random.default_rng(0), 8
    drawn = draw.integers(1, VOCABULARY, (each * 4 + 1000, 24))
    canaries, unseen, controls, corpus = np.split(drawn, [each * 4, each * 4 + 200, each * 4 + 400])
    planted = [
        row
        for count, some in zip(REPETITIONS, np.split(canaries, 4), strict=True)
        for row in np.repeat(some, count, axis=0)
    ]
    windows = [row.astype(np.int32) for row in (*planted, *corpus)]
    fresh = random_model(llama(64), 1)
    untrained = exposures(_likelihoods(fresh, canaries, 8), _likelihoods(fresh, controls, 8)).value.mean()
    recipe = Recipe(epochs=1, learning_rate=1e-3, batch_size=16, seed=0)
    trainer = WindowTrainer(training(tmp_path, windows, model=fresh, recipe=recipe))
    trainer.train()
    model = trainer.model.eval()
    base = _likelihoods(model, controls, 8)
    found = exposures(_likelihoods(model, canaries, 8), base).value.reshape(4, each)
    medians = np.median(found, axis=1)
    assert medians[0] < 2 < medians[1] < medians[2] <= medians[3], medians
    assert (found[3] == highest(200)).all(), "every control is less likely"
    chance = exposures(_likelihoods(model, unseen, 8), base).value.mean()
    assert 1.15 < chance < 1.75, "1.44 in theory"
    assert 0.9 < untrained < 2.0, "of 32 canaries that it never read"
