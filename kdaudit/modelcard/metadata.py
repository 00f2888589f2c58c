"""The audit as evaluation results of a model card, in the form of huggingface_hub.

One result of the card's model-index: the task is text-generation, the dataset the audited corpus, the
source is named kdaudit, by which the result is found again. The metrics' types are part of the contract:

    memorization_rate   share (0 to 1) of the distinct training examples reproduced word for word
    inheritance_rate    share (0 to 1) of the teacher-specific examples that the student memorizes
    excess_inheritance  the student's share of what the teacher memorizes and one baseline misses, minus the
                        share that the other baselines hold of it
    ratio_to_baseline   the student's memorization rate over the baselines' mean rate

A figure that is not available is left out. `args` of a metric gives the ends of its 95% interval (an open end
is left out), the number of examples that it is measured on, and the lengths that define memorization, in
tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from huggingface_hub import EvalResult

from kdaudit.reporting.formatting import wider
from kdaudit.reporting.shown_text import visible
from kdaudit.schemas.result import Interval
from kdaudit.schemas.results import PublicResults

SOURCE_NAME = "kdaudit"
SOURCE_URL = "https://arxiv.org/abs/2601.15394"
"""huggingface_hub wants an address beside a name; kdaudit follows the definitions of this paper."""

_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_./-]+")
"""A dataset's type is written like a hub id, also if the corpus is a local file."""


class _Metric(NamedTuple):
    type: str
    name: str
    value: float | None
    ci95: Interval | None
    examples: int | None


def evaluation(results: PublicResults, student: str) -> list[EvalResult]:
    """The student's metrics; they form one result, since task, dataset and source are the same.

    Args:
        results: of the audit.
        student: its name.
    """
    corpus = visible(" ".join(results.corpus.path.split()))
    lengths = {
        "prefix_tokens": results.extraction.prefix_tokens,
        "suffix_tokens": results.extraction.suffix_tokens,
    }
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Verbatim memorization of training text",
            dataset_type=_NOT_IN_IDS.sub("-", corpus).strip("-") or "local-data",
            dataset_name=corpus,
            metric_type=metric.type,
            metric_name=metric.name,
            metric_value=metric.value,
            metric_args=_args(metric) | lengths,
            source_name=SOURCE_NAME,
            source_url=SOURCE_URL,
        )
        for metric in _metrics(results, student)
        if metric.value is not None
    ]


def _metrics(results: PublicResults, student: str) -> Iterator[_Metric]:
    model, figures = results.models[student], results.comparison[student]
    yield _Metric(
        "memorization_rate",
        "Training text reproduced word for word",
        model.rate,
        wider(model.ci95, model.ci95_by_document),
        model.examples,
    )
    yield _Metric(
        "inheritance_rate",
        "Share inherited of what only the teacher memorizes",
        figures.inheritance_rate,
        wider(figures.inheritance_ci95, figures.inheritance_ci95_by_document),
        figures.teacher_specific,
    )
    yield _Metric(
        "excess_inheritance",
        "Share inherited beyond what other baselines hold by chance",
        figures.excess_inheritance,
        figures.excess_ci95,
        None,
    )
    yield _Metric(
        "ratio_to_baseline",
        "Memorization relative to a baseline trained without the teacher",
        figures.ratio_to_baseline,
        wider(figures.ratio_ci95, figures.ratio_ci95_by_document),
        model.examples,
    )


def _args(metric: _Metric) -> dict[str, Any]:
    low, high = metric.ci95 or (None, None)
    args = {"ci95_low": low, "ci95_high": high, "examples": metric.examples}
    return {key: value for key, value in args.items() if value is not None}
