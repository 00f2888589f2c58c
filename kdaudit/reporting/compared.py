"""compare.html and compare.public.html: what changed between two audits.

Of the runs, only leaks.parquet is read, for the full page alone. The public page is made from a type that
holds no text, no document id, no tag and no path.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from kdaudit.analysis.leaks import LeakText, read_leak_texts
from kdaudit.analysis.severity import change_severity
from kdaudit.reporting.compared_words import RateReading, reading_of, unchanged, verdict_of_change
from kdaudit.reporting.formatting import percent, plural, points, wider_interval
from kdaudit.reporting.leak_cards import CLASS_WORDS, TEXT_LIMIT
from kdaudit.reporting.personal_data_counts import tag_words
from kdaudit.reporting.public import notes_without_paths, public_title
from kdaudit.reporting.render import render
from kdaudit.reporting.shown_text import Cut, show_head, show_tail
from kdaudit.reporting.verdict import Verdict
from kdaudit.schemas.compared import (
    Change,
    CompareResults,
    LeakChange,
    PairedRates,
    PublicCompareResults,
)

_SHOWN = 200
"""Leaks of each kind that a page lists."""
_PUBLIC_KEY = re.compile(
    r"kdaudit|seed|python|platform|cpu|gpu|cuda|memory_gib|torch|transformers|vllm(-cpu)?|datasets|tokenizers"
    r"|scikit-learn|numpy|extraction\..*|corpus\.(fingerprint|documents|examples|window|stride|limit)"
    r"|models\.[^.]+(\.(quantization|dtype|tensor_parallel))?|gate\.(max_.*|students)|attacks\..*|predictor\..*"
)
"""Differences whose values the public page may show: numbers, versions and fingerprints."""


class RateRow(NamedTuple):
    """One model under one attack."""

    name: str
    attack: str
    old: str
    new: str
    difference: str
    interval: str
    reading: RateReading


class ChangeCard(NamedTuple):
    """A leak that is new or gone."""

    number: str
    students: list[str]
    kind: str
    where: str
    document: Cut | None
    copies: int
    risk: float | None
    tags: list[str]
    suffix_hmac: str
    accepted: bool
    prefix: Cut | None
    """None on the public page, as the next."""
    suffix: Cut | None


class ChangeList(NamedTuple):
    """Leaks of one kind, as many as are shown."""

    total: int
    cards: list[ChangeCard]


class ComparePage(NamedTuple):
    """All that the template needs."""

    public: bool
    results: CompareResults
    old_name: str
    new_name: str
    verdict: Verdict
    rates: list[RateRow]
    unchanged: list[str]
    """Models whose weights and outcomes are the same in both."""
    new: ChangeList
    gone: ChangeList
    hidden_differences: int
    """Differences that the public page leaves out."""


class Texts(NamedTuple):
    """The text of the leaks that are shown, by id in their run."""

    old: Mapping[int, LeakText]
    new: Mapping[int, LeakText]


def render_compared(results: CompareResults, old_dir: Path, new_dir: Path) -> tuple[bytes, bytes]:
    """The full page and the public one.

    Raises:
        RunStateError: the leaks' text cannot be read.

    """
    shown = {change: _of(results, change)[:_SHOWN] for change in ("new", "gone")}
    texts = Texts(
        read_leak_texts(old_dir, _there(one.old_example_id for one in shown["gone"])),
        read_leak_texts(new_dir, _there(one.example_id for one in shown["new"])),
    )
    full = _page(results, (results.old.name, results.new.name), texts, 0)
    public = public_compared(results)
    names = tuple(public_title(one.name, one.name, "") for one in (results.old, results.new))
    hidden = len(results.differences) - len(public.differences)
    cleared = _page(public, (names[0], names[1]), None, hidden)
    return render("compare.html.j2", page=full), render("compare.html.j2", page=cleared)


def _there(ids: Iterable[int | None]) -> list[int]:
    return [one for one in ids if one is not None]


def public_compared(results: CompareResults) -> PublicCompareResults:
    """The results without document ids, tags, paths, and values that could name either."""
    kept = dict(results) | {
        "leaks": [dict(one) | {"document_id": "", "tags": []} for one in results.leaks],
        "differences": [dict(one) for one in results.differences if _is_public(one.key, one.old + one.new)],
        "notes": notes_without_paths(results.notes, ""),
    }
    return PublicCompareResults.model_validate(kept)


def _is_public(key: str, values: str) -> bool:
    return _PUBLIC_KEY.fullmatch(key) is not None and not re.search(r"[/\\]|endpoint:", values)


def _of(results: CompareResults, change: Change) -> list[LeakChange]:
    """Leaks of one kind: those to look at first come first."""
    found = [one for one in results.leaks if one.change == change]
    return sorted(found, key=change_severity)


def _page(results: CompareResults, names: tuple[str, str], texts: Texts | None, hidden: int) -> ComparePage:
    return ComparePage(
        public=isinstance(results, PublicCompareResults),
        results=results,
        old_name=names[0],
        new_name=names[1],
        verdict=verdict_of_change(results),
        rates=rate_rows(results),
        unchanged=unchanged(results),
        new=_list(results, "new", None if texts is None else texts.new),
        gone=_list(results, "gone", None if texts is None else texts.old),
        hidden_differences=hidden,
    )


def rate_rows(results: CompareResults) -> list[RateRow]:
    """Each model under each attack, in words; students first."""
    rows = []
    for name, model in sorted(results.models.items(), key=lambda item: item[1].role != "student"):
        for attack, one in model.attacks.items():
            rows.append(
                RateRow(
                    name,
                    ATTACK_WORDS.get(attack, attack),
                    f"{percent(one.old_rate)} ({one.old:,})",
                    f"{percent(one.new_rate)} ({one.new:,})",
                    points(one.difference),
                    "the same weights" if model.same_weights else _ends(one),
                    reading_of(one, same_weights=model.same_weights is True),
                )
            )
    return rows


def _ends(rates: PairedRates) -> str:
    return wider_interval(rates.difference_ci95, rates.difference_ci95_by_document, points)


ATTACK_WORDS = {"greedy": "word for word", "near_verbatim": "word for word or nearly so"}


def _list(results: CompareResults, change: Change, texts: Mapping[int, LeakText] | None) -> ChangeList:
    leaks = _of(results, change)
    total = len(leaks) if results.leak_totals is None else results.leak_totals[change]
    return ChangeList(total, [_card(one, texts) for one in leaks[:_SHOWN]])


def _card(leak: LeakChange, texts: Mapping[int, LeakText] | None) -> ChangeCard:
    example = leak.old_example_id if leak.change == "gone" else leak.example_id
    text = None if texts is None or example is None else texts[example]
    return ChangeCard(
        number=str(example),
        students=leak.students,
        kind=CLASS_WORDS[leak.kind],
        where=_where(leak),
        document=None if texts is None else show_head(leak.document_id, 200),
        copies=leak.copies,
        risk=leak.risk,
        tags=[tag_words(tag) for tag in leak.tags],
        suffix_hmac=leak.suffix_hmac,
        accepted=leak.accepted,
        prefix=None if text is None else show_tail(text.prefix, TEXT_LIMIT),
        suffix=None if text is None else show_head(text.suffix, TEXT_LIMIT),
    )


def _where(leak: LeakChange) -> str:
    """Whether the other run audited it."""
    other = "new" if leak.change == "gone" else "old"
    if leak.added is None:
        return f"not known whether the {other} run audited it"
    return f"not in the {other} run" if leak.added else "audited by both"


def counts_line(results: CompareResults, student: str) -> str:
    """How one student's leaks changed, for the terminal."""
    one = results.counts[student]
    added = f", {one.added:,} in text that the old run did not audit" if one.added else ""
    dropped = f" (and {one.dropped:,} in text that the new run did not audit)" if one.dropped else ""
    return (
        f"{student}: {plural(one.new, 'new leak')}{added}; {one.gone:,} gone{dropped}; "
        f"{one.remaining:,} remain; not accepted: {one.not_accepted:,}"
    )
