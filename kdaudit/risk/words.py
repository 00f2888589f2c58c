"""What is said of a predictor: its guarantee, why an example is risky, and where it does not belong."""

from __future__ import annotations

from math import floor
from typing import NamedTuple

from kdaudit.risk.guarantee import positives_needed
from kdaudit.risk.model import Predictor
from kdaudit.risk.splits import FIT_POSITIVES
from kdaudit.risk.terms import Floats, to_terms
from kdaudit.schemas.results import Origin, RecallGuarantee

_MOST_REASONS = 2


class _Sides(NamedTuple):
    """What to say where a low or a high value makes an example risky."""

    low: str
    high: str


_WORDS = {
    "zlib_entropy": _Sides(
        "easy to compress (zlib entropy {} bits per byte)", "hard to compress (zlib entropy {} bits per byte)"
    ),
    "teacher_perplexity": _Sides("low teacher perplexity ({})", "high teacher perplexity ({})"),
    "baseline_perplexity": _Sides("low baseline perplexity ({})", "high baseline perplexity ({})"),
    "kl_divergence": _Sides(
        "teacher and baseline agree (KL divergence {} nats)",
        "teacher and baseline differ (KL divergence {} nats)",
    ),
    "copies": _Sides("few copies in the corpus ({})", "many copies in the corpus ({})"),
    "suffix_copies": _Sides(
        "its suffix is rare in the corpus ({})", "its suffix is frequent in the corpus ({})"
    ),
    "tokens": _Sides("short ({} tokens)", "long ({} tokens)"),
    "teacher_entropy": _Sides(
        "the teacher is sure of each token (entropy {} nats)", "the teacher is unsure (entropy {} nats)"
    ),
}
_NO_REASON = "no feature stands out from the average example"


def reasons(predictor: Predictor, features: Floats) -> list[str]:
    """Which features drive each example's risk, in words: at most two, the strongest first.

    A feature counts by how much it adds to the log odds of an average example:
    coefficient * (term - mean) / scale.

    Args:
        predictor: gives the formula.
        features: float64 (n, k), columns as in `predictor.features`.

    Raises:
        UsageError: as `Predictor.risk`.

    """
    logistic = predictor.logistic
    offsets = (to_terms(features, predictor.features) - logistic.means) / logistic.scales
    parts = logistic.coefficients * offsets
    order = (-parts).argsort(axis=1, kind="stable")[:, :_MOST_REASONS]
    return [
        ", ".join(
            _worded(predictor.features[column], offsets[row, column], features[row, column])
            for column in columns
            if parts[row, column] > 0
        )
        or _NO_REASON
        for row, columns in enumerate(order)
    ]


def _worded(feature: str, offset: float, value: float) -> str:
    sides = _WORDS[feature]
    return (sides.high if offset > 0 else sides.low).format(_figure(value))


def _figure(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 10 else f"{value:.3g}"


def guarantee_words(promise: RecallGuarantee, origin: Origin) -> str:
    """The recall guarantee as a sentence that names the kind of examples that it covers, and its limits."""
    kind, limits = _kind(origin)
    return (
        f"The risk predictor flags, with {_percent(promise.confidence)} confidence, at least "
        f"{_percent(promise.recall)} of such examples as {kind}; this rests on "
        f"{promise.calibration_positives:,} distinct texts of that kind that its fit did not see. {limits}"
    )


def _kind(origin: Origin) -> tuple[str, str]:
    """The positives, and the limits of what is said of them."""
    if origin.labels == "easy_core":
        return (
            "teacher and baseline both memorize (the easy core)",
            "Of what a student may inherit from the teacher alone it guarantees nothing.",
        )
    if origin.labels == "teacher":
        return (
            "the teacher memorizes",
            "That includes what a student may inherit, but not what only a student or a baseline memorizes.",
        )
    return (
        f"the student {origin.student} memorizes" if origin.student else "the student memorizes",
        "Another student may memorize others.",
    )


def weak_guarantee_words(
    held_out: int, recall: float, confidence: float, reached: RecallGuarantee | None
) -> str:
    """Why the recall guarantee is weaker than the one asked for, or none, and what that one would take."""
    needed = positives_needed(recall, confidence)
    whole = needed + min(needed - 1, FIT_POSITIVES)
    found = (
        "no recall guarantee" if reached is None else f"a guarantee of {_percent(reached.recall)}, not more"
    )
    return (
        f"The risk predictor: {held_out:,} memorized texts could be held out from its fit, which allow "
        f"{found}; to guarantee {_percent(recall)} with {_percent(confidence)} confidence takes {needed:,} "
        f"held out besides those fitted on, so {whole:,} in all."
    )


def family_warnings(predictor: Predictor, now: Origin) -> list[str]:
    """How what a predictor is used on differs from what it was fitted on; empty if it does not.

    Args:
        predictor: from an earlier audit.
        now: what it is used on; its labels are not looked at.

    """
    origin, warnings = predictor.origin, []
    if origin.family != now.family:
        warnings.append(
            f"The risk predictor was fitted on models of the family {origin.family} and is used on "
            f"{now.family}: its recall guarantee does not hold here, and its risks may be far off."
        )
    elif (origin.teacher, origin.baselines) != (now.teacher, now.baselines):
        warnings.append(
            f"The risk predictor was fitted on another teacher or baseline of the family {origin.family}: "
            "its recall guarantee holds here only as far as these models memorize alike."
        )
    if origin.corpus != now.corpus:
        warnings.append(
            "The risk predictor was fitted on another corpus: its recall guarantee holds here only as far as "
            "this one is of the same kind, and its risks assume that memorized examples are as rare."
        )
    cuts = [(one.prefix_tokens, one.suffix_tokens) for one in (origin, now)]
    if cuts[0] != cuts[1]:
        warnings.append(
            "The risk predictor was fitted for a prefix of {} and a suffix of {} tokens and is used with {} "
            "and {}: what it calls memorized is not what is measured here.".format(*cuts[0], *cuts[1])
        )
    return warnings


def _percent(share: float) -> str:
    """A share in percent, rounded down, so that rounding strengthens no guarantee."""
    digits = 1 if share < 0.99 else 3
    down = floor(share * 10 ** (digits + 2) + 1e-6) / 10**digits
    return f"{down:g}%"
