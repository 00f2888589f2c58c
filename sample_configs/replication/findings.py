"""The paper's findings beside what the audits of several seeds measured: the table, and findings.json.

A figure is measured on each seed's audit alone; mean and interval are over seeds, so they hold what the
seeds change: the order of the text, and with it the teacher, the baseline and all students.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.analysis.spread import spread
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import AuditResults

BASELINE, SOFT, HARD = "baseline", "soft", "hard"
BY_TEMPERATURE = {1: "soft-t1", 2: SOFT, 4: "soft-t4"}
"""The soft students, all alike but for the temperature."""

Form = Literal["percent", "number", "count"]
Outcome = Literal["yes", "on average", "no", "not measured", ""]


class Audit(NamedTuple):
    """What one seed's run directory holds; row i of every array is example i."""

    results: AuditResults
    memorized: Mapping[str, NDArray[np.bool_]]
    """For each model bool (examples,)."""
    zlib_entropy: NDArray[np.float64] | None
    """Bits a byte, float64 (examples,); None where the audit took no features."""
    likelihoods: Mapping[str, NDArray[np.float64]] | None
    """For each model float64 (sampled examples, 2): mean token entropy and mean log-probability in nats, the
    same examples in the same order; None where the audit took none."""


class Measure(NamedTuple):
    """One row of the table: a figure, and what it would have to be for the finding to have come out."""

    finding: int
    what: str
    paper: str
    of: Callable[[Audit], float | None]
    """The figure of one seed; None if it is undefined, such as a ratio to 0."""
    form: Form = "number"
    least: float | None = None
    most: float | None = None


class Row(NamedTuple):
    """A measure over all seeds."""

    measure: Measure
    seeds: list[float | None]
    mean: float | None
    """None unless every seed has a figure."""
    interval: Interval | None
    """95% t interval of the mean over seeds; None with fewer than two seeds, or where one has no figure."""
    outcome: Outcome
    """yes: the whole interval is within the limits; on average: the mean is, the interval is not."""


def read_audit(run: Path) -> Audit:
    """Read a finished run directory of `kdaudit run`.

    Raises:
        OSError: a file of the run is missing.
        ValueError: a file is not as this version writes it.
    """
    results = AuditResults.model_validate_json((run / "results.json").read_bytes())
    memorized = {name: _memorized(run / "extraction" / name) for name in results.models}
    return Audit(results, memorized, _zlib_entropy(run), _likelihoods(run, list(results.models)))


def measure_seeds(audits: Sequence[Audit], measures: Sequence[Measure]) -> list[Row]:
    """Every measure on every audit, with its mean, interval and outcome."""
    return [_row(measure, [measure.of(audit) for audit in audits]) for measure in measures]


def table(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """The rows as a Markdown table."""
    heads = [
        "#",
        "figure",
        "paper",
        *(f"seed {seed}" for seed in seeds),
        "mean",
        "95% over seeds",
        "came out",
    ]
    lines = [_line(heads), _line(["---"] * len(heads))]
    return "\n".join(lines + [_line(_cells(row)) for row in rows]) + "\n"


def as_json(rows: Sequence[Row], seeds: Sequence[int]) -> str:
    """The rows as one JSON document; an undefined figure is null."""
    found = [
        {
            "finding": row.measure.finding,
            "figure": row.measure.what,
            "paper": row.measure.paper,
            "least": row.measure.least,
            "most": row.measure.most,
            "seeds": dict(zip(map(str, seeds), row.seeds, strict=True)),
            "mean": row.mean,
            "ci95": row.interval,
            "outcome": row.outcome or None,
        }
        for row in rows
    ]
    return json.dumps(found, indent=1) + "\n"


def _memorized(folder: Path) -> NDArray[np.bool_]:
    found = pq.read_table(folder, columns=["example_id", "memorized"]).sort_by("example_id")
    return np.asarray(found["memorized"].to_numpy(), dtype=bool)


def _zlib_entropy(run: Path) -> NDArray[np.float64] | None:
    if not (run / "features").is_dir():
        return None
    found = pq.read_table(run / "features", columns=["example_id", "zlib_entropy"]).sort_by("example_id")
    return np.asarray(found["zlib_entropy"].to_numpy(), dtype=np.float64)


def _likelihoods(run: Path, models: Sequence[str]) -> dict[str, NDArray[np.float64]] | None:
    path = run / "entropy_logprob.parquet"
    if not path.exists():
        return None
    found = pq.read_table(path).sort_by("example_id").to_pandas()
    columns = ["mean_token_entropy", "mean_log_probability"]
    return {name: found.loc[found["model"] == name, columns].to_numpy() for name in models}


def _row(measure: Measure, seeds: list[float | None]) -> Row:
    values = [value for value in seeds if value is not None]
    if len(values) < len(seeds):
        return Row(measure, seeds, None, None, "not measured")
    over = spread(values)
    return Row(measure, seeds, over.mean, over.ci95, _outcome(measure, over.mean, over.ci95))


def _outcome(measure: Measure, mean: float | None, interval: Interval | None) -> Outcome:
    if measure.least is None and measure.most is None:
        return ""
    if not _within(measure, mean):
        return "no"
    return "yes" if interval and all(_within(measure, end) for end in interval) else "on average"


def _within(measure: Measure, value: float | None) -> bool:
    low = -np.inf if measure.least is None else measure.least
    high = np.inf if measure.most is None else measure.most
    return value is not None and bool(low <= value <= high)


def _cells(row: Row) -> list[str]:
    form = row.measure.form
    interval = "-" if row.interval is None else " to ".join(_text(end, form) for end in row.interval)
    return [
        str(row.measure.finding),
        row.measure.what,
        row.measure.paper,
        *(_text(value, form) for value in row.seeds),
        _text(row.mean, form),
        interval,
        row.outcome,
    ]


def _text(value: float | None, form: Form) -> str:
    if value is None:
        return "-"
    match form:
        case "percent":
            return f"{100 * value:.2f}%"
        case "count":
            return f"{value:.0f}"
        case "number":
            return f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
