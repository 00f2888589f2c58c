"""The audit's summary for a model card, in Markdown.

It is public: it is made from results whose private parts were taken out, and links to the public
report alone. Text that others chose (names, notes) is escaped, since hubs render Markdown and HTML.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from kdaudit.report.figures import key_figures, role_words
from kdaudit.report.formatting import count, percent, percent_interval
from kdaudit.report.redaction import visible
from kdaudit.report.verdict import verdict_of
from kdaudit.results import AuditResults, ModelResult

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#&~!])")


class CardRow(NamedTuple):
    """A model in the card's table."""

    name: str
    part: str
    memorized: str
    rate: str
    interval: str


def card_text(results: AuditResults) -> str:
    """The summary as Markdown.

    Args:
        results: without private parts (`kdaudit.report.view.without_private_parts`).
    """
    # Markdown is not HTML: autoescape would garble it, so finalize escapes for Markdown instead.
    environment = Environment(
        loader=PackageLoader("kdaudit.templates", ""),
        autoescape=False,  # noqa: S701
        undefined=StrictUndefined,
        finalize=_markdown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("card.md.j2").render(
        verdict=verdict_of(results),
        examples=count(results.corpus.examples),
        corpus=results.corpus.path,
        given=results.extraction.prefix_tokens,
        need=results.extraction.suffix_tokens,
        rows=[_row(name, model) for name, model in results.models.items()],
        figures=key_figures(results),
        version=results.kdaudit_version,
        created=results.created[:10],
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _row(name: str, model: ModelResult) -> CardRow:
    memorized = f"{count(model.memorized)} of {count(model.examples)}"
    return CardRow(name, role_words(model), memorized, percent(model.rate), percent_interval(model.ci95))


def _markdown(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _SPECIAL.sub(r"\\\1", visible(" ".join(value.split())))
