"""Writing what is flagged, and why: risk.parquet for all examples, flagged.parquet for those flagged.

An example is flagged when its risk reaches the predictor's threshold, or when the models were found to
memorize it. Text is read back for the flagged alone, a shard at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, Floats
from kdaudit.reporting.formatting import listed
from kdaudit.risk import Predictor, reasons, risk_histogram
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import FLAGGED_SCHEMA
from kdaudit.runs.store import RunStore
from kdaudit.schemas.screening import FeatureSpread, Quantiles

SHOWN_FEATURES = FLAGGED_SCHEMA.names[FLAGGED_SCHEMA.names.index("zlib_entropy") :]
"""Features that flagged.parquet holds beside `copies`: columns of features/part-*.parquet."""


class Flagged(NamedTuple):
    """What a screening found of every example; arrays are (examples,), by example id."""

    flags: Flags
    risk: Floats | None
    """None where there is no predictor."""
    memorized: Mapping[str, Flags]
    """Which examples each model memorizes, by its name."""

    @property
    def histogram(self) -> dict[str, list[float]] | None:
        """Flagged and kept examples by risk, as `risk_histogram` gives them; None without a predictor."""
        groups = {"flagged": self.flags, "kept": ~self.flags}
        return None if self.risk is None else risk_histogram(self.risk, groups)


def write_flagged(run: RunStore, found: Flagged, predictor: Predictor | None) -> None:
    """Write flagged.parquet: a row for each flagged example, by example id.

    Args:
        run: the run, its examples and features written.
        found: what is flagged.
        predictor: gives the reasons of those that it flags; None where there is none.

    Raises:
        StorageError: the file could not be written, or a shard not be read.

    """
    with (
        run.writing(layout.FLAGGED) as partial,
        pq.ParquetWriter(partial, FLAGGED_SCHEMA, compression="zstd") as writer,
    ):
        for table in _tables(run, found, predictor):
            writer.write_table(table)


def _tables(run: RunStore, found: Flagged, predictor: Predictor | None) -> Iterator[pa.Table]:
    for shard in run.shards(layout.EXAMPLES):
        ids = run.read_table(shard, ["example_id"])["example_id"].to_numpy()
        places = np.flatnonzero(found.flags[ids])
        if len(places):
            features = run.read_table(layout.beside(shard, layout.FEATURES)).take(places)
            yield _table(run.read_table(shard).take(places), features, found, predictor)


def _table(examples: pa.Table, features: pa.Table, found: Flagged, predictor: Predictor | None) -> pa.Table:
    ids = examples["example_id"].to_numpy()
    memorized_by = [[name for name, flags in found.memorized.items() if flags[one]] for one in ids]
    columns: dict[str, Any] = {
        **{name: examples[name] for name in ("example_id", "document_id", "offset", "text", "copies")},
        "risk": pa.nulls(len(ids), pa.float64()) if found.risk is None else found.risk[ids],
        "memorized_by": memorized_by,
        "reason": _reasons(memorized_by, _driven(ids, features, found, predictor)),
        **{name: features[name] for name in SHOWN_FEATURES},
    }
    return pa.table(columns, schema=FLAGGED_SCHEMA)


def _driven(
    ids: NDArray[np.int64], features: pa.Table, found: Flagged, predictor: Predictor | None
) -> list[str]:
    """For each example the features that drive its risk, '' where its risk is below the threshold."""
    if predictor is None or found.risk is None:
        return [""] * len(ids)
    values = np.stack([features[name].to_numpy() for name in predictor.features], axis=1).astype(np.float64)
    risky = predictor.flagged(found.risk[ids])
    return [words if flag else "" for words, flag in zip(reasons(predictor, values), risky, strict=True)]


def _reasons(memorized_by: list[list[str]], driven: list[str]) -> list[str]:
    """Why each example is flagged: who memorizes it already, then what drives its risk."""
    return [
        "; ".join(part for part in (f"memorized by {listed(names)}" if names else "", words) if part)
        for names, words in zip(memorized_by, driven, strict=True)
    ]


def feature_spreads(run: RunStore, flags: Flags) -> dict[str, FeatureSpread]:
    """How each feature is spread among flagged examples and among the others.

    Args:
        run: the run, its features written.
        flags: which examples are flagged, bool (examples,).

    """
    found = {}
    for name in ("copies", *SHOWN_FEATURES):
        shards = [run.read_table(shard, [name])[name].to_numpy() for shard in run.shards(layout.FEATURES)]
        values = np.concatenate(shards).astype(np.float64)
        found[name] = FeatureSpread(flagged=_quantiles(values[flags]), kept=_quantiles(values[~flags]))
    return found


def _quantiles(values: Floats) -> Quantiles | None:
    if not len(values):
        return None
    p5, p25, p50, p75, p95 = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95]).tolist()
    return Quantiles(p5=p5, p25=p25, p50=p50, p75=p75, p95=p95)
