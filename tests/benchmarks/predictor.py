"""What the predictor costs on a large corpus: trials, threshold, risk of every example, reasons, files.

    python tests/benchmarks/predictor.py --rows 1000000 --share 0.001

The features are synthetic: normal in the formula's terms, the memorized ones shifted. Exit code 1 above
180 seconds or 2 GB of memory.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.risk import (
    Fitted,
    PredictorSettings,
    Table,
    fit_predictor,
    load_predictor,
    reasons,
    risk_histogram,
)
from kdaudit.schemas.predictor import Origin

_SECONDS, _BYTES = 180, 2e9
_ORIGIN = Origin(
    teacher="0" * 64,
    baselines=("1" * 64,),
    family="synthetic",
    corpus="2" * 64,
    labels="easy_core",
    prefix_tokens=50,
    suffix_tokens=50,
)


def main() -> int:
    """Draw a table, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--share", type=float, default=0.001, help="share of the rows that are memorized")
    parser.add_argument("--trials", type=int, default=100)
    asked = parser.parse_args()
    table = _draw(asked.rows, round(asked.rows * asked.share))
    began = time.monotonic()
    with _timed(f"fit, threshold, curves and {asked.trials} trials"):
        settings = PredictorSettings(asked.trials, recall=0.99, confidence=0.95, seed=0)
        fitted = fit_predictor(table, settings, _ORIGIN)
    with tempfile.TemporaryDirectory() as folder:
        _score(table, fitted, Path(folder))
    return _report(fitted, time.monotonic() - began)


def _draw(rows: int, positives: int) -> Table:
    """Memorized rows lie 1.5 to 2.5 standard deviations lower; every tenth row shares another's group."""
    rng = np.random.default_rng(0)
    features = rng.normal([4.0, 2.5, 2.8, 0.4], [0.5, 0.6, 0.6, 0.15], (rows, 4))
    positive = np.zeros(rows, dtype=bool)
    positive[rng.choice(rows, positives, replace=False)] = True
    features[positive] -= [1.25, 1.2, 0.9, 0.25]
    features[:, 1:3] = np.exp(features[:, 1:3])
    groups = np.arange(rows, dtype=np.int64)
    groups[::10] = groups[rng.integers(0, rows, len(groups[::10]))]
    return Table(features, positive, groups)


def _score(table: Table, fitted: Fitted, folder: Path) -> None:
    assert fitted.predictor is not None
    with _timed("predictor.json, written and read"):
        (folder / "predictor.json").write_text(fitted.predictor.model_dump_json(indent=1))
        predictor = load_predictor(folder / "predictor.json")
    with _timed("risk of every row, histogram, risk.parquet"):
        risk = predictor.risk(table.features)
        flagged = predictor.flagged(risk)
        risk_histogram(risk, {"memorized": table.positive, "other": ~table.positive})
        columns = {"example_id": np.arange(len(risk)), "risk": risk, "flagged": flagged}
        pq.write_table(pa.table(columns), folder / "risk.parquet")
    with _timed(f"reasons of {flagged.sum():,} flagged rows, flagged.parquet"):
        chosen = {"reason": reasons(predictor, table.features[flagged])}
        pq.write_table(pa.table(chosen), folder / "flagged.parquet")
    print(f"of the memorized rows {flagged[table.positive].mean():.2%} are flagged")


def _report(fitted: Fitted, seconds: float) -> int:
    for note in fitted.notes:
        print(note.text)
    assert fitted.figures is not None
    for name, figure in fitted.figures._asdict().items():
        print(f"{name:18} {figure.mean:.4f} ({figure.low:.4f} to {figure.high:.4f})")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"{seconds:.1f} s (bound {_SECONDS}), peak memory with the table {peak / 1e9:.2f} GB "
        f"(bound {_BYTES / 1e9:g})"
    )
    return int(seconds > _SECONDS or peak > _BYTES)


@contextmanager
def _timed(what: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    print(f"{time.monotonic() - began:7.1f} s  {what}")


if __name__ == "__main__":
    sys.exit(main())
