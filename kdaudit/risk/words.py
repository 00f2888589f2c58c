"""A predictor in words: its recall guarantee, why an example is risky, and warnings of other models."""

from __future__ import annotations

from math import floor
from typing import NamedTuple

from kdaudit.risk.guarantee import positives_needed
from kdaudit.risk.model import Predictor
from kdaudit.risk.terms import Floats, to_terms
from kdaudit.schemas.predictor import Origin, RecallGuarantee, Unit

_MOST_REASONS = 2


class _Sides(NamedTuple):
    """The reason in words, if a low or if a high value makes an example risky."""

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
    "suffix_kl_divergence": _Sides(
        "teacher and baseline agree on the suffix (KL divergence {} nats)",
        "teacher and baseline differ on the suffix (KL divergence {} nats)",
    ),
    **{
        f"{model}_suffix_{measure}": _Sides(f"the {model} {low}", f"the {model} {high}")
        for model in ("teacher", "baseline")
        for measure, low, high in (
            (
                "nll",
                "predicts the suffix (loss {} nats a token)",
                "fails on the suffix (loss {} nats a token)",
            ),
            (
                "entropy",
                "is sure of the suffix (entropy {} nats)",
                "is unsure of the suffix (entropy {} nats)",
            ),
            (
                "min_k",
                "fails on the hardest tokens (Min-K% {})",
                "predicts even the hardest tokens (Min-K% {})",
            ),
            ("margin", "prefers another token (margin {})", "prefers each token of the suffix (margin {})"),
        )
    },
}
_UNITS = {
    "texts": ("memorized text", "memorized texts", ""),
    "documents": ("document", "documents", " with memorized examples"),
}
"""One, several, and what follows."""
_NO_REASON = "no feature stands out from the average example"
_MEMORIZED_BY = {
    "easy_core": "teacher and baseline both memorize",
    "teacher": "the teacher memorizes",
    "student": "the student memorizes",
}
"""By labels."""
_LIMITS = {
    "student": "Another student may memorize other examples.",
    "easy_core": "It does not cover what a student inherits from the teacher alone.",
    "teacher": "It covers what a student may inherit, but not what only a student or a baseline memorizes.",
}
"""What the guarantee does not cover, by labels."""


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


def memorized_by(labels: str | None, student: str | None) -> str:
    """Who memorizes the positives, as in `what ...` or `examples that ...`.

    Args:
        labels: the prediction target; None in results that do not name it.
        student: the student whose memorized examples the positives are, if that is known.

    """
    if labels == "student" and student is not None:
        return f"\N{LEFT DOUBLE QUOTATION MARK}{student}\N{RIGHT DOUBLE QUOTATION MARK} memorizes"
    return _MEMORIZED_BY.get(labels or "", "the models memorize")


def guarantee_clause(guarantee: RecallGuarantee, labels: str | None, student: str | None) -> str:
    """The recall guarantee without its grounds and limits, as a part of a sentence."""
    recall, examples = percent_down(guarantee.recall), f"examples that {memorized_by(labels, student)}"
    if guarantee.unit == "documents":
        flagged = f"all {examples} are flagged in at least {recall} of the documents that hold any"
    else:
        flagged = f"at least {recall} of the {examples} are flagged"
    return f"with {percent_down(guarantee.confidence)} confidence, {flagged}"


def guarantee_words(
    guarantee: RecallGuarantee, labels: str | None, student: str | None, *, lead: str | None = None
) -> str:
    """The recall guarantee in sentences: what is flagged, what that rests on, and what it does not cover.

    Args:
        guarantee: the numbers.
        labels: the prediction target.
        student: whose memorized examples the positives are, for `labels: student`.
        lead: what the first sentence begins with, before a colon.

    """
    clause = guarantee_clause(guarantee, labels, student)
    return (
        f"{f'{lead}: {clause}' if lead else clause[0].upper() + clause[1:]}. The guarantee rests on "
        f"{_memorized(guarantee.calibration_positives, guarantee.unit)}, each scored by a model fitted "
        f"without it, and holds for text of the same kind. {_LIMITS.get(labels or '', '')}".rstrip()
    )


def weak_guarantee_words(asked: RecallGuarantee, reached: float | None) -> str:
    """Why the recall guarantee is weaker than the one asked for, or none, and what that one would need.

    Args:
        asked: what was asked for, and of how many positives.
        reached: the recall that they allow; None for none.

    """
    allowed = "no recall guarantee" if reached is None else f"a guarantee of at most {percent_down(reached)}"
    needed = positives_needed(asked.recall, asked.confidence)
    return (
        f"The risk predictor: {_memorized(asked.calibration_positives, asked.unit)} allow {allowed}. "
        f"To guarantee {percent_down(asked.recall)} with {percent_down(asked.confidence)} confidence, "
        f"{needed:,} are needed."
    )


def family_warnings(predictor: Predictor, now: Origin) -> list[str]:
    """A warning for each difference between what a predictor was fitted on and what it is used on.

    Args:
        predictor: from an earlier audit.
        now: what it is used on; its labels are ignored.

    """
    origin, warnings = predictor.origin, []
    if origin.family != now.family:
        warnings.append(
            f"The risk predictor was fitted on models of the family {origin.family} and is used on "
            f"{now.family}: its recall guarantee does not hold here, and its risks may be wrong."
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
            "and {}: its definition of memorized is not the one measured here.".format(*cuts[0], *cuts[1])
        )
    return warnings


def _memorized(count: int, unit: Unit) -> str:
    one, many, more = _UNITS[unit]
    return f"{count:,} {one if count == 1 else many}{more}"


def percent_down(share: float) -> str:
    """A share in percent, rounded down, so that rounding strengthens no guarantee."""
    digits = 1 if share < 0.99 else 3
    down = floor(share * 10 ** (digits + 2) + 1e-6) / 10**digits
    return f"{down:g}%"
