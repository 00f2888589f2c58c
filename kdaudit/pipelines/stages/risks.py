"""risk.parquet: the risk of what was scored, and what an audit writes beside it.

Where an audit scores a sample, an estimate of how many examples of the corpus are flagged is made from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, Floats, clopper_pearson
from kdaudit.pipelines.stages.feature_sample import ScoredExamples, scored_examples
from kdaudit.pipelines.stages.features import features_table
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import RISK_SCHEMA, SCORED_RISK_SCHEMA
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore
from kdaudit.schemas.predictor import ScoredSample


def write_risks(
    run: RunStore, risk: Floats | None, flagged: Flags, ids: NDArray[np.int64] | None = None
) -> None:
    """Write risk.parquet.

    Args:
        run: the run.
        risk: (examples,); None, which is written as null, without a predictor.
        flagged: (examples,).
        ids: which examples; None for all of the corpus.

    """
    risks = pa.nulls(len(flagged), pa.float64()) if risk is None else risk
    named = np.arange(len(flagged)) if ids is None else ids
    columns = {"example_id": named, "risk": risks, "flagged": flagged}
    run.write_table(layout.RISK, pa.table(columns, schema=RISK_SCHEMA))


def add_features(work: Work) -> None:
    """Put weights, documents and features beside the risks of what an audit scored."""
    if not work.run.has(layout.PREDICTOR):
        return
    scored, risks = scored_examples(work), work.run.read_table(layout.RISK)
    features = features_table(work, scored.ids)
    columns = {
        **{name: risks[name] for name in RISK_SCHEMA.names},
        "weight": _weights(scored),
        "document_id": _documents(work, scored.ids),
        **{name: features[name] for name in SCORED_RISK_SCHEMA.names if name in features.column_names},
    }
    work.run.write_table(layout.RISK, pa.table(columns, schema=SCORED_RISK_SCHEMA))


def _documents(work: Work, ids: NDArray[np.int64]) -> pa.ChunkedArray:
    tables = read_examples(work.run, layout.EXAMPLES, ids)
    return pa.chunked_array([table["document_id"].combine_chunks() for table in tables], pa.string())


def _weights(scored: ScoredExamples) -> Floats:
    return np.ones(len(scored.ids)) if scored.weights is None else scored.weights


def read_risk(work: Work) -> Floats | None:
    """Each example's risk, float64 (examples,), NaN where it was not scored; None without a predictor."""
    if not work.run.has(layout.PREDICTOR):
        return None
    table = work.run.read_table(layout.RISK, ["example_id", "risk"])
    risk = np.full(work.total_examples(), np.nan)
    risk[table["example_id"].to_numpy()] = table["risk"].to_numpy()
    return risk


class FlaggedEstimate(NamedTuple):
    """Examples of the corpus whose risk reaches the threshold, from a sample."""

    flagged: int
    sample: ScoredSample


def estimate_flagged(flagged: Flags, weights: Floats) -> FlaggedEstimate:
    """How many examples of the corpus are flagged.

    Those that a model memorizes are all scored and counted. Of the others a simple random sample is: the
    share of it that is flagged, with its Clopper-Pearson interval, stands for all of them.

    Args:
        flagged: of what was scored: bool (scored,).
        weights: examples that each stands for: float64 (scored,), 1 of those that are certain to be scored.

    """
    drawn = weights > 1
    certain, found, others = int(flagged[~drawn].sum()), int(flagged[drawn].sum()), int(drawn.sum())
    total = round(weights[drawn].sum())
    low, high = clopper_pearson(found, others)
    sample = ScoredSample(
        certain=len(flagged) - others,
        drawn=others,
        others=total,
        flagged_ci95=(certain + low * total, certain + high * total),
    )
    return FlaggedEstimate(certain + round(found / others * total), sample)


def sample_words(estimate: FlaggedEstimate) -> str:
    """What was scored, and what follows for the predictor's figures."""
    one, (low, high) = estimate.sample, estimate.sample.flagged_ci95
    return (
        f"The risk predictor was fitted on a sample: all {one.certain:,} examples that any model memorizes, "
        f"and {one.drawn:,} of the {one.others:,} others, drawn at random (attacks.sample) and weighted back "
        "to all of them. Its figures are estimates for the whole corpus. Flagged examples are estimated too: "
        f"{estimate.flagged:,}, 95% confidence interval {low:,.0f} to {high:,.0f}. risk.parquet holds the "
        "examples that were scored."
    )
