"""The audit's summary in Markdown: card.md of a run, and the section of a student's model card.

It is public: it is made from results whose private parts were removed, and links only to the public
report. Text that others chose (names, notes) is escaped, since hubs render Markdown and HTML.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.asked import given_words, needed_words
from kdaudit.reporting.figures import KeyFigure, key_figures, role_words, student_figures
from kdaudit.reporting.formatting import count, percent, percent_interval, plural
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.render import read_results
from kdaudit.reporting.shown_text import visible
from kdaudit.reporting.verdict import verdict_of
from kdaudit.runs import layout
from kdaudit.runs.files import write_file
from kdaudit.schemas.results import ModelResult, PublicResults

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#&~!$])")


class CardRow(NamedTuple):
    """A model in the card's table."""

    name: str
    part: str
    memorized: str
    rate: str
    interval: str


def card_text(results: PublicResults) -> str:
    """The summary of a whole audit as Markdown.

    Args:
        results: of the audit.
    """
    return _render(results, None, key_figures(results))


def write_run_card(run_dir: Path) -> None:
    """Write a run's card.md, from its results.json alone.

    Raises:
        RunStateError: results.json is missing or damaged.
        StorageError: the file could not be written.
    """
    text = card_text(without_private_parts(read_results(run_dir)))
    write_file(run_dir, layout.CARD, text.encode())


def section_text(results: PublicResults, student: str) -> str:
    """The summary for the model card of one student.

    Args:
        results: what concerns the student (`kdaudit.modelcard.student.about`), without private parts.
        student: its name.
    """
    return _render(results, student, student_figures(results))


def escaped(text: str) -> str:
    """Text as one line of Markdown that shows it and does nothing else."""
    return _SPECIAL.sub(r"\\\1", visible(" ".join(text.split())))


def _render(results: PublicResults, student: str | None, figures: list[KeyFigure]) -> str:
    texts = results.leak_suffixes
    left_out = results.corpus.left_out
    text = _template().render(
        audit=results.name,
        student=student,
        verdict=verdict_of(results),
        examples=count(results.corpus.examples),
        sampled=results.corpus.sampled,
        windows=count(results.corpus.windows),
        left_out=count(left_out) if left_out else None,
        kinds="Rows and answers" if results.corpus.answers else "Documents and ends of documents",
        for_other_reasons=results.corpus.for_other_reasons,
        corpus=results.corpus.path,
        given=given_words(results.extraction, results.corpus.answers),
        need=needed_words(results.extraction, results.corpus.answers),
        rows=[_row(name, model) for name, model in results.models.items()],
        leaks=plural(leak_counts_of(results).leaks, "example"),
        suffixes=plural(texts.leaks, "distinct text") if texts is not None and texts.leaks else None,
        figures=figures,
        version=results.kdaudit_version,
        created=results.created[:10],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


@cache  # compiled once
def _template() -> Template:
    # Markdown is not HTML: autoescape would garble it, so finalize escapes for Markdown instead.
    environment = Environment(
        loader=PackageLoader("kdaudit.templates", ""),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        finalize=lambda value: escaped(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("card.md.j2")


def _row(name: str, model: ModelResult) -> CardRow:
    memorized = f"{count(model.memorized)} of {count(model.examples)}"
    ends = percent_interval(model.ci95, model.ci95_by_document)
    return CardRow(name, role_words(model), memorized, percent(model.rate), ends)
