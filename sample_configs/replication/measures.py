"""What is measured for each finding: a figure of one audit, and the limits that were set beforehand.

The paper's figures are those of arXiv 2601.15394. Where it says "about" or "little" a limit stands for the
word: a factor of 1.5 either way, 5%.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from findings import BASELINE, BY_TEMPERATURE, HARD, SOFT, Audit, Measure
from numpy.typing import NDArray

TEACHER = "teacher"


def memorized(audit: Audit, model: str) -> float:
    """Examples that the model memorizes."""
    return float(audit.memorized[model].sum())


def rate(audit: Audit, model: str) -> float:
    """Share of examples that the model memorizes."""
    return float(audit.memorized[model].mean())


def perplexity(audit: Audit, model: str) -> float | None:
    """Of the holdout."""
    return audit.results.models[model].perplexity


def rate_ratio(audit: Audit, model: str, to: str) -> float | None:
    """One model's memorized examples over another's."""
    return _ratio(memorized(audit, model), memorized(audit, to))


def perplexity_ratio(audit: Audit) -> float | None:
    """The soft student's over the baseline's."""
    return _ratio(perplexity(audit, SOFT), perplexity(audit, BASELINE))


def core_share(audit: Audit) -> float | None:
    """Of what the soft student memorizes, the share that teacher and baseline memorize too."""
    return audit.results.comparison[SOFT].share_in_easy_core


def covered(audit: Audit, model: str, by: str) -> float | None:
    """Of what a model memorizes, the share that another memorizes too."""
    both = audit.memorized[model] & audit.memorized[by]
    return _ratio(float(both.sum()), memorized(audit, model))


def core_zlib(audit: Audit) -> float | None:
    """Mean zlib entropy of what teacher and baseline memorize, over that of all other examples."""
    if audit.zlib_entropy is None:
        return None
    core = audit.memorized[TEACHER] & audit.memorized[BASELINE]
    return _ratio(_mean(audit.zlib_entropy[core]), _mean(audit.zlib_entropy[~core]))


def inheritance(audit: Audit, student: str) -> float | None:
    """Of the teacher-specific examples, the share that the student memorizes."""
    return audit.results.comparison[student].inheritance_rate


def inherited_ratio(audit: Audit) -> float | None:
    """Examples inherited by hard over those inherited by soft."""
    pair = [audit.results.comparison[name].inherited for name in (HARD, SOFT)]
    return _ratio(*pair)


def inherited_difference(audit: Audit) -> float | None:
    """Hard's inheritance rate minus soft's."""
    hard, soft = inheritance(audit, HARD), inheritance(audit, SOFT)
    return None if hard is None or soft is None else hard - soft


def forcing(audit: Audit, quarter: int) -> float | None:
    """How much more log-probability a token gets from the baseline than from the soft student, in nats.

    Over a quarter of the examples by the teacher's mean token entropy (0 the lowest, 3 the highest): the
    teacher judges which are hard to predict, since either of the two compared would judge in its own favour.
    """
    if audit.likelihoods is None:
        return None
    order = np.argsort(audit.likelihoods[TEACHER][:, 0], kind="stable")
    rows = np.array_split(order, 4)[quarter]
    gap = audit.likelihoods[BASELINE][:, 1] - audit.likelihoods[SOFT][:, 1]
    return _mean(gap[rows])


def forcing_excess(audit: Audit) -> float | None:
    """`forcing` in the quarter of highest entropy minus that in the lowest."""
    high, low = forcing(audit, 3), forcing(audit, 0)
    return None if high is None or low is None else high - low


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


_COUNTS = [
    Measure(1, "memorized by the teacher", "", lambda audit: memorized(audit, TEACHER), "count"),
    Measure(1, "memorized by the baseline", "", lambda audit: memorized(audit, BASELINE), "count", least=100),
    Measure(1, "memorized by the soft student", "", lambda audit: memorized(audit, SOFT), "count"),
]

_LESS_MEMORIZED = [
    Measure(1, "rate of the baseline", "0.17%", lambda audit: rate(audit, BASELINE), "percent"),
    Measure(1, "rate of the soft student", "0.07%", lambda audit: rate(audit, SOFT), "percent"),
    Measure(1, "soft / baseline", "0.41", lambda audit: rate_ratio(audit, SOFT, BASELINE), most=0.5),
    Measure(1, "perplexity, baseline", "17.69", lambda audit: perplexity(audit, BASELINE)),
    Measure(1, "perplexity, soft", "17.31", lambda audit: perplexity(audit, SOFT)),
    Measure(1, "perplexity, soft / baseline", "0.98", perplexity_ratio, most=1.0),
]

_EASY_CORE = [
    Measure(2, "of soft's, in the easy core", "95.7%", core_share, "percent", least=0.8),
    Measure(
        2,
        "of the baseline's, also the teacher's",
        "80%",
        lambda audit: covered(audit, BASELINE, TEACHER),
        "percent",
    ),
    Measure(2, "zlib entropy of the core / of the rest", "lower", core_zlib, most=1.0),
]

_INHERITED = [
    Measure(
        3,
        "teacher-specific examples",
        "1,955",
        lambda audit: audit.results.comparison[SOFT].teacher_specific,
        "count",
    ),
    Measure(3, "inherited by soft", "0.9%", lambda audit: inheritance(audit, SOFT), "percent", most=0.05),
]

_SOFT_AND_HARD = [
    Measure(
        6,
        "hard / soft, all memorized",
        "about 1",
        lambda audit: rate_ratio(audit, HARD, SOFT),
        least=2 / 3,
        most=1.5,
    ),
    Measure(6, "inherited by hard", "", lambda audit: inheritance(audit, HARD), "percent"),
    Measure(6, "inherited, hard / soft", "2.7", inherited_ratio, least=1.0),
    Measure(6, "inherited, hard - soft", "above 0", inherited_difference, "percent", least=0.0),
    Measure(
        6,
        "of hard's, also soft's",
        "over 70%",
        lambda audit: covered(audit, HARD, SOFT),
        "percent",
        least=0.7,
    ),
]

_TEMPERATURE = [
    *(
        Measure(7, f"rate of soft, T = {degrees}", "", partial(rate, model=name), "percent")
        for degrees, name in BY_TEMPERATURE.items()
    ),
    Measure(
        7,
        "T = 2 / T = 1",
        "below 1",
        lambda audit: rate_ratio(audit, BY_TEMPERATURE[2], BY_TEMPERATURE[1]),
        most=1.0,
    ),
    Measure(
        7,
        "T = 4 / T = 2",
        "below 1",
        lambda audit: rate_ratio(audit, BY_TEMPERATURE[4], BY_TEMPERATURE[2]),
        most=1.0,
    ),
    Measure(7, "T = 4 / baseline", "", lambda audit: rate_ratio(audit, BY_TEMPERATURE[4], BASELINE)),
]

_FORCED = [
    Measure(
        8,
        "baseline - soft, log-probability, highest entropy",
        "above 0",
        lambda audit: forcing(audit, 3),
        least=0.0,
    ),
    Measure(8, "the same, lowest entropy", "", lambda audit: forcing(audit, 0)),
    Measure(8, "highest - lowest", "above 0", forcing_excess, least=0.0),
]

MEASURES = [*_COUNTS, *_LESS_MEMORIZED, *_EASY_CORE, *_INHERITED, *_SOFT_AND_HARD, *_TEMPERATURE, *_FORCED]
"""All rows of the table."""
