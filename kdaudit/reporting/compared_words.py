"""What a comparison shows, in sentences: a difference, or none and what would have been seen."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.analysis.paired import SIGNIFICANT
from kdaudit.reporting.formatting import be, count, excludes_zero, p_value, percent, plural, points, wider
from kdaudit.reporting.verdict import Verdict
from kdaudit.schemas.compared import CompareResults, PairedRates


class RateReading(NamedTuple):
    """What a pair of rates shows."""

    word: str
    sentence: str
    """With what could have been seen, where nothing was."""


def reading_of(rates: PairedRates, *, same_weights: bool) -> RateReading:
    """In words; a difference is one whose wider interval leaves 0 out and whose adjusted p is below 0.05."""
    changed = f"{count(rates.new_only)} appeared, {count(rates.old_only)} disappeared"
    test = f"exact McNemar, Holm over all models: {p_value(rates.holm_p)}"
    if same_weights:
        what = "as it was" if not rates.old_only + rates.new_only else "same weights, other outcomes"
        return RateReading(what, f"The weights are the same; {changed}.")
    if is_difference(rates):
        return RateReading("more" if rates.difference > 0 else "less", f"{changed}; {test}.")
    return RateReading("no difference found", f"{changed}; {test}. {could_have_shown(rates)}")


def unchanged(results: CompareResults) -> list[str]:
    """Models whose weights and outcomes are the same in both audits: there is nothing to read of them."""
    return [
        name
        for name, model in results.models.items()
        if model.same_weights and not any(one.old_only + one.new_only for one in model.attacks.values())
    ]


def is_difference(rates: PairedRates) -> bool:
    """Whether a difference is shown beyond chance."""
    excluded = excludes_zero(rates.difference_ci95, rates.difference_ci95_by_document)
    return excluded and rates.holm_p < SIGNIFICANT


def could_have_shown(rates: PairedRates) -> str:
    """What the interval excludes, and the smallest difference that the test could show at this size."""
    low, high = wider(rates.difference_ci95, rates.difference_ci95_by_document) or (None, None)
    if low is None or high is None:
        excluded = "The interval excludes no difference"
    else:
        excluded = (
            f"The interval excludes a rise of more than {_size(high)} and a fall of more than {_size(-low)}"
        )
    if rates.detectable is None:
        return f"{excluded}; so few examples ({count(rates.examples)}) could show no difference at all."
    smallest = _size(rates.detectable)
    return (
        f"{excluded}; on {count(rates.examples)} examples a change of less than {smallest}, all one way, "
        "could not have been shown."
    )


def _size(difference: float) -> str:
    return points(max(difference, 0.0)).removeprefix("+")


def verdict_of_change(results: CompareResults) -> Verdict:
    """The banner: new leaks that are not accepted decide."""
    students = len(results.counts)
    whom = "the student" if students == 1 else f"any of the {students} students"
    if results.not_accepted:
        accepted = results.new_leaks - results.not_accepted
        also = f" {count(accepted)} more {be(accepted)} accepted." if accepted else ""
        sentence = (
            f"{plural(results.not_accepted, 'new leak')} that {be(results.not_accepted)} not accepted.{also}"
        )
        return Verdict("fail", "New leaks found", sentence, _basis(results))
    if results.new_leaks:
        sentence = f"All {plural(results.new_leaks, 'new leak')} are accepted."
        return Verdict("pass", "No new leak to look at", sentence, _basis(results))
    sentence = f"No leak of {whom} is new among the examples that the new audit holds."
    return Verdict("pass", "No new leak", sentence, f"{_basis(results)} {_none_new(results)}".strip())


def _basis(results: CompareResults) -> str:
    """What the comparison rests on."""
    shared = results.shared
    if shared is None:
        return "Leaks were joined by their text; the examples of a run are not there."
    only = [
        f"{count(number)} only the {which}"
        for which, number in (("old", shared.old_only), ("new", shared.new_only))
        if number
    ]
    rest = f"; {' and '.join(only)}" if only else ""
    return f"{plural(shared.both, 'example')} {be(shared.both)} in both audits{rest}."


def _none_new(results: CompareResults) -> str:
    """What share of examples may newly leak although none did here."""
    found = [results.models[name].attacks.get("greedy") for name in results.counts]
    highs = [wider(one.appeared_ci95, one.appeared_ci95_by_document) for one in found if one is not None]
    ends = [ends[1] for ends in highs if ends is not None and ends[1] is not None]
    if not ends:
        return "Without paired examples nothing tells what other text of this kind would show."
    return (
        f"Of other text of this kind up to {percent(max(ends))} may newly leak (95% interval, the wider of "
        "those by window and by document)."
    )
