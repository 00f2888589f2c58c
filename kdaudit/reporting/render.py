"""From a run directory to report.html and report.public.html.

The pages are static and self-contained: no script, nothing loaded, one style sheet whose hash is the only
thing that the Content-Security-Policy allows. Whatever a template prints goes through `visible` and then
through autoescape, so text from a corpus can neither run nor hide.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from pydantic import ValidationError

from kdaudit.analysis.leaks import read_leak_texts
from kdaudit.analysis.severity import worst_first
from kdaudit.config.audit import ReportConfig
from kdaudit.errors import RunStateError
from kdaudit.reporting import formatting
from kdaudit.reporting.asked import given_words, needed_words
from kdaudit.reporting.charts import bar_width
from kdaudit.reporting.figures import role_words
from kdaudit.reporting.leak_cards import LeakCard, full_cards, public_cards
from kdaudit.reporting.membership import score_words
from kdaudit.reporting.personal_data_counts import Tagged, count_tags
from kdaudit.reporting.public import public_title, without_private_parts
from kdaudit.reporting.shown_text import visible
from kdaudit.reporting.view import Page, page
from kdaudit.runs import layout
from kdaudit.runs.files import read_bounded, write_file
from kdaudit.schemas.result import Result
from kdaudit.schemas.results import AuditResults

_R = TypeVar("_R", bound=Result)
MOST_BYTES = 256 << 20
"""Of results.json, a record or a page: half a million leaks."""
_LONGEST = 2000
_POINTS = re.compile(r"[Mh\d., -]*")


def render_pages(run_dir: Path, config: ReportConfig) -> None:
    """Write the full report and the public one, from results.json and leaks.parquet.

    Raises:
        RunStateError: results.json or leaks.parquet is missing, damaged, or does not fit the other.
        StorageError: a file could not be written.
    """
    results = read_results(run_dir)
    shown = worst_first(results.leaks)[: config.max_examples]
    tagged = count_tags(results)
    texts = read_leak_texts(run_dir, [leak.example_id for leak in shown])
    title = config.title or results.name
    full = page(results, title, full_cards(shown, texts), tagged)
    write_file(run_dir, layout.REPORT, render("report.html.j2", page=full))

    public = _public_page(results, title, public_cards(shown, document_ids=config.document_ids), tagged)
    write_file(run_dir, layout.PUBLIC_REPORT, render("report.html.j2", page=public))


def render_annex(run_dir: Path, config: ReportConfig) -> None:
    """Write the annex for reviewers, from results.json alone; it is public.

    Raises:
        RunStateError: results.json is missing or damaged.
        StorageError: the file could not be written.
    """
    results = read_results(run_dir)
    made = _public_page(results, config.title or results.name, [], count_tags(results))
    write_file(run_dir, layout.ANNEX, render("annex.html.j2", page=made))


def _public_page(results: AuditResults, title: str, cards: list[LeakCard], tagged: Tagged) -> Page:
    """A page that is made from what is public alone."""
    shown = public_title(title, results.name, results.corpus.path)
    return page(without_private_parts(results), shown, cards, tagged)


def read_results(run_dir: Path) -> AuditResults:
    """The run's results.json.

    Raises:
        RunStateError: it is missing or does not follow the schema.
    """
    if not os.path.lexists(run_dir / layout.RESULTS):
        if os.path.lexists(run_dir / layout.SCREEN):
            raise RunStateError(
                f"{run_dir}: holds a screening, not an audit",
                fix="`kdaudit screen` renders its reports, and it has no model card",
            )
        if not any(os.path.lexists(run_dir / name) for name in (layout.MANIFEST, layout.LEAKS)):
            raise RunStateError(
                f"{run_dir}: holds no {layout.RESULTS}",
                fix="name the directory of an audit, which `kdaudit run` writes",
            )
    return read_outcome(run_dir / layout.RESULTS, AuditResults, "audit", "kdaudit run")


def read_outcome(path: Path, schema: type[_R], what: str, command: str) -> _R:
    """What a finished run says of itself.

    Args:
        path: results.json or screen.json.
        schema: what it must follow.
        what: the run, for messages.
        command: what makes it.

    Raises:
        RunStateError: it is missing or does not follow the schema.
    """
    try:
        return schema.model_validate_json(read_bounded(path, MOST_BYTES))
    except OSError as error:
        raise RunStateError(
            f"{path}: cannot be read ({error.strerror})",
            fix=f"finish the {what} with `{command}`, then try again",
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise RunStateError(
            f"{path}: {where} does not follow the schema ({first['msg']})",
            fix=f"repeat the {what} with `{command}`",
        ) from error


def render(template: str, **context: Any) -> bytes:  # noqa: ANN401 - each template has its own context
    """Render a template that extends base.html.j2, with the style sheet and its hash."""
    environment = _environment()
    style = _style(environment)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    text = environment.get_template(template).render(style=Markup(style), style_hash=digest, **context)  # noqa: S704
    return text.encode()


def _style(environment: Environment) -> str:
    assert environment.loader is not None  # noqa: S101 - set in _environment
    return environment.loader.get_source(environment, "report.css")[0]


@cache  # templates are compiled once
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("kdaudit.templates", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    forms = (
        "count",
        "percent",
        "points",
        "times",
        "score",
        "score_difference",
        "p_value",
        "risk",
        "significant",
    )
    ends = ("percent_interval", "points_interval", "times_interval", "score_interval", "difference_interval")
    for name in (*forms, *ends, "listed", "plural", "quoted"):
        environment.filters[name] = getattr(formatting, name)
    environment.filters["role_words"] = role_words
    environment.filters["score_words"] = score_words
    environment.filters["drawn"] = _drawn
    environment.globals.update(bar_width=bar_width, ABSENT=formatting.ABSENT)
    environment.globals.update(given_words=given_words, needed_words=needed_words)
    return environment


def _drawn(points: str) -> Markup:
    """The numbers of a line or path, which need no escaping."""
    if not _POINTS.fullmatch(points):
        raise ValueError("points of a chart hold other than numbers")
    return Markup(points)  # noqa: S704


def _finalize(value: object) -> object:
    if value is None:
        return formatting.ABSENT
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    # No text of kdaudit is as long; a name of megabytes must not break the page.
    shown = value if len(value) <= _LONGEST else value[:_LONGEST] + "\N{HORIZONTAL ELLIPSIS}"
    return visible(shown)
