"""Which features tell memorized examples from others: cross-validation over documents, on a finished audit.

    python tests/benchmarks/feature_sets.py RUN_DIR...

For each kind of labels, with the standardized, class-balanced logistic regression of the predictor, five
folds of documents drawn five times: the AUC; the share of the examples at or above the risk of the lowest 1%
of the positives, or themselves positive; and, for labels of teacher and baseline, how much of what each
student memorizes is among them. Folds share no document, since windows of one document are alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from kdaudit.risk.feature_sets import features_for
from kdaudit.risk.logistic import fit_logistic
from kdaudit.risk.terms import FEATURES, to_terms

Flags = NDArray[np.bool_]
Columns = Mapping[str, NDArray[np.float64]]

FOLDS, DRAWS, RECALL = 5, 5, 0.99
ALL, STUDENT = features_for("all", "easy_core"), features_for("all", "student")
WORST = ("teacher_suffix_worst", "baseline_suffix_worst")
MATCHED = ("teacher_matched", "baseline_matched")
SUFFIX = tuple(name for name in ALL if "suffix" in name and name != "suffix_copies")
SETS = {
    "paper": FEATURES,
    "paper, suffix_copies": (*FEATURES, "suffix_copies"),
    "paper, suffix": (*FEATURES, *SUFFIX),
    "suffix": SUFFIX,
    "all": ALL,
    "all, without Min-K%": tuple(name for name in ALL if "min_k" not in name),
    "all, without zlib": ALL[1:],
    "all, paper": (*ALL, *FEATURES[1:]),
    "all, copies, tokens": (*ALL, "copies", "tokens"),
    "all, worst": (*ALL, *WORST),
    "all, margins": STUDENT,
    "all, matched": (*ALL, *MATCHED),
}


def read(run: Path, folder: str) -> Columns:
    """Columns of a folder's shards, by example id."""
    table = pq.read_table(sorted((run / folder).glob("part-*.parquet"))).sort_by("example_id")
    return {name: table[name].to_numpy() for name in table.column_names if name != "token_ids"}


def labels_of(run: Path) -> dict[str, Flags]:
    """Each kind of labels, the students' last."""
    roles = {
        name: one["role"] for name, one in json.loads((run / "results.json").read_text())["models"].items()
    }
    flags = {name: read(run, f"extraction/{name}")["memorized"].astype(np.bool_) for name in roles}
    baselines = [flags[name] for name, role in roles.items() if role == "baseline"]
    easy = flags["teacher"] & np.logical_or.reduce(baselines)
    students = {name: flags[name] for name, role in roles.items() if role == "student"}
    return {"easy_core": easy, "teacher": flags["teacher"], **students}


def risks(
    table: Columns, names: tuple[str, ...], positive: Flags, documents: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Each example's log odds by a model that saw no window of its document, once for each draw of folds."""
    terms = to_terms(np.stack([table[name].astype(np.float64) for name in names], axis=1), names)
    draws = []
    for seed in range(DRAWS):
        folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        logits = np.zeros(len(positive))
        for train, test in folds.split(terms, positive, documents):
            logits[test] = fit_logistic(terms[train], positive[train]).logit(terms[test])
        draws.append(logits)
    return draws


def report(run: Path) -> None:
    table, labels = read(run, "features"), labels_of(run)
    documents = np.unique(read(run, "examples")["document_id"].astype(str), return_inverse=True)[1]
    print(f"{run}: {len(documents)} examples of {documents.max() + 1} documents")
    for kind, positive in labels.items():
        if positive.sum() < 10:
            print(f"{kind}: {positive.sum()} positives are too few")
            continue
        others = {} if kind in [*labels][2:] else dict([*labels.items()][2:])
        print(f"{kind}, {positive.sum()} positives: AUC, share flagged, share flagged of", *others)
        for name, features in SETS.items():
            draws = risks(table, features, positive, documents)
            auc = np.mean([roc_auc_score(positive, one) for one in draws])
            flagged = [
                positive | (one >= np.quantile(one[positive], 1 - RECALL, method="lower")) for one in draws
            ]
            shares = [np.mean([one[other].mean() for one in flagged]) for other in others.values()]
            print(f"  {name:22}{auc:8.4f}{np.mean(flagged):7.3f}  ", *(f"{share:.3f}" for share in shares))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args().runs:
        report(run)


if __name__ == "__main__":
    main()
