"""Risks are probabilities: small simulations with known truth, those of tests/benchmarks/calibration.py."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable

import numpy as np
import pytest
from conftest import ROOT

from kdaudit.reporting.predictor_charts import Panel, panels
from kdaudit.schemas.results import Curves, Point

sys.path.append(str(ROOT / "tests" / "benchmarks"))
from calibration import KINDS, all_rows, measure, split_balanced

CORPORA, ROWS = 10, 10_000


def means(fit: Callable, rate: float, kind: str) -> np.ndarray:
    found = [measure(fit, ROWS, rate, seed, KINDS[kind]) for seed in range(CORPORA)]
    return np.array(found).mean(axis=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [0.003, 0.03])
def test_risks_sum_to_the_truth_and_are_spread_as_it_is(rate: float, kind: str) -> None:
    in_corpus, in_population, slope = means(all_rows, rate, kind)
    assert in_corpus == pytest.approx(1, abs=1e-3)
    assert in_population == pytest.approx(1, abs=0.1)
    assert slope == pytest.approx(1, abs=0.1)


def test_the_simulation_finds_the_fault_of_a_balanced_fit_of_few_positives() -> None:
    in_corpus, in_population, slope = means(split_balanced, 0.003, "of one kind")
    assert min(in_corpus, in_population) > 1.3
    assert slope < 0.9


# The chart


def chart(*points: tuple[float, float]) -> Panel:
    (panel,) = panels(Curves(calibration=[Point(x=x, y=y) for x, y in points]))
    return panel


def drawn(panel: Panel) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)h0", panel.dots)]


def test_rare_risks_are_drawn_on_logarithmic_axes() -> None:
    panel = chart((2e-5, 5e-5), (3e-3, 0.0), (0.2, 0.4))
    decades = 5  # 0.001% to 100% on both axes, 266 units wide and 210 high

    def at(share: float) -> float:
        return (math.log10(share) + decades) / decades

    expected = [(at(2e-5), at(5e-5)), (at(3e-3), 0.0), (at(0.2), at(0.4))]
    for found, (x, y) in zip(drawn(panel), expected, strict=True):
        assert found == pytest.approx((60 + 266 * x, 240 - 210 * y), abs=0.1)
    assert [tick.label for tick in panel.x_ticks] == ["100%", "10%", "1%", "0.1%", "0.01%", "0.001%"]
    assert panel.x_label == "risk predicted (log)"
    assert "Both axes are logarithmic, and 0 stands at the lower end." in panel.description


def test_risks_that_are_not_rare_are_drawn_on_linear_axes() -> None:
    panel = chart((0.05, 0.1), (0.5, 0.6))
    assert drawn(panel) == pytest.approx([(60 + 266 * 0.05, 240 - 21), (60 + 133, 240 - 126)], abs=0.1)
    assert (panel.x_label, panel.y_label) == ("risk predicted", "memorized")
    assert "logarithmic" not in panel.description
