"""What attacks found of each student, in sentences for reviewers, and which students they did not reach."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from kdaudit.reporting.formatting import (
    bits,
    count,
    interval,
    listed,
    percent,
    percent_interval,
    plural,
    quoted,
    score,
    score_interval,
)
from kdaudit.reporting.membership import score_words
from kdaudit.schemas.attacks import AttackResults, CanariesResult, MembershipResult, SampledResult
from kdaudit.schemas.results import AuditResults, ModelResult

_ATTACKS = {
    "near_verbatim": "near-verbatim extraction",
    "sampled": "sampled extraction",
    "membership": "membership inference",
    "canaries": "canaries",
}


class Reach(NamedTuple):
    """The students that an attack ran on, and the others."""

    tried: list[str]
    untried: list[str]


def students(results: AuditResults) -> Iterator[tuple[str, ModelResult]]:
    """The students by name."""
    return ((name, model) for name, model in results.models.items() if model.role == "student")


def reach(results: AuditResults, attack: str) -> Reach:
    """Which students an attack other than exact greedy extraction ran on; `attack` is a key of `attacks`."""
    found = Reach([], [])
    for name, _ in students(results):
        ran = getattr(results.attacks.get(name, AttackResults()), attack) is not None
        (found.tried if ran else found.untried).append(name)
    return found


def attacks_run(results: AuditResults) -> list[str]:
    """The attacks that ran on students, each with the students that it left out."""
    found = ["exact greedy extraction"]
    for attack, words in _ATTACKS.items():
        tried, untried = reach(results, attack)
        if tried:
            found.append(f"{words} (not on {names(untried)})" if untried else words)
    return found


def names(some: Sequence[str]) -> str:
    """Students in quotation marks."""
    return listed([quoted(name) for name in some])


def extracted(results: AuditResults, name: str, model: ModelResult) -> Iterator[str]:
    """What greedy decoding and sampling give of the corpus."""
    yield f"Student {quoted(name)} reproduces {rate_words(model)} word for word under greedy decoding."
    found = results.attacks.get(name, AttackResults())
    if (near := found.near_verbatim) is not None:
        ends = percent_interval(near.ci95, near.ci95_by_document)
        limit = percent(near.max_edit_distance)
        words = "tokens changed, left out or put in"
        yield f"With at most {limit} of the {words}: {percent(near.rate)} (95% interval {ends})."
    if found.sampled is not None:
        yield from _drawn(found.sampled)


def rate_words(model: ModelResult) -> str:
    """A model's rate with its counts and its interval."""
    counts = f"{count(model.memorized)} of {count(model.examples)}"
    ends = percent_interval(model.ci95, model.ci95_by_document)
    return f"{percent(model.rate)} of the examples ({counts}; 95% interval {ends})"


def _drawn(found: SampledResult) -> Iterator[str]:
    """With the most samples that the audit looked at."""
    most = max((one.queries for one in found.curve), default=0)
    parts = [
        f"{percent(point.rate)} come out with a probability of at least {percent(point.p)} (95% interval "
        f"{percent_interval(point.ci95, point.ci95_by_document)})"
        for point in found.curve
        if point.queries == most
    ]
    if parts:
        yield f"With {plural(most, 'sample')} each, {listed(parts)}."


def recognized(name: str, found: MembershipResult) -> str:
    """What membership scores tell of a student."""
    best = found.best
    sentence = (
        f"Student {quoted(name)}: the best score ({score_words(best.score)}) has an AUC of {score(best.auc)} "
        f"(95% interval {score_interval(best.ci95)}; 0.5 is chance) on {count(found.members)} training "
        f"examples and {count(found.nonmembers)} of the holdout."
    )
    at_one_percent = found.score[best.score].tpr_at_fpr.get("0.01")
    if at_one_percent is not None:
        share, *ends = at_one_percent
        sentence += (
            f" It recognizes {percent(share)} of the training examples (95% interval "
            f"{percent_interval((ends[0], ends[1]))}) at a false positive rate of 1%."
        )
    if found.explained_by_text:
        sentence += (
            " Words alone, without a model, tell the two apart as well: it says nothing of membership."
        )
    return sentence


def planted(name: str, found: CanariesResult) -> Iterator[str]:
    """How many canaries a student reproduces, and how far they stand out, by how often they were planted."""
    if not found.repetitions:
        return
    parts = [
        f"{count(one.extracted)} of {count(one.canaries)} planted {_how_often(times)} "
        f"(95% interval {percent_interval(one.extracted_ci95)})"
        for times, one in found.repetitions.items()
    ]
    yield (
        f"Of texts that nobody could guess, planted in its training data, student {quoted(name)} "
        f"reproduces {listed(parts)}, and {count(found.controls_extracted)} of "
        f"{plural(found.controls, 'text')} drawn alike that stayed out."
    )


def exposed(name: str, found: CanariesResult) -> Iterator[str]:
    """The median exposure of canaries; nothing where it is not known."""
    parts = [
        f"{bits(one.exposure.median)} for those planted {_how_often(times)} (95% interval "
        f"{interval((one.exposure.low, one.exposure.high), bits)})"
        for times, one in found.repetitions.items()
        if one.exposure is not None
    ]
    if parts and found.highest_exposure is not None:
        yield (
            f"How much likelier student {quoted(name)} finds planted texts than texts drawn alike that "
            f"stayed out, as median exposure in bits (1 is chance, {bits(found.highest_exposure)} the most "
            f"that could be seen): {listed(parts)}."
        )


def _how_often(times: str) -> str:
    return "once" if int(times) == 1 else f"{int(times):,} times"
