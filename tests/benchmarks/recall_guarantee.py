"""Whether the recall guarantee is kept as often as it says, in simulated corpora whose true recall is known.

    python tests/benchmarks/recall_guarantee.py --corpora 400

Two tables. In the first each window is a document, and the positives are of five kinds. Beside the guarantee
of the cross-fit stands that of a split, which fits on 20 positives, or on half of them, and calibrates on the
others. In the second, documents hold 1, 8 or 30 windows whose features share a random effect, and groups are
either distinct texts or documents. A guarantee is kept in a corpus if its threshold flags at least the
promised share of the population: of texts, or of documents all of whose positives are to be flagged. Exit
code 1 if the cross-fit's, in the second table by documents, is kept in fewer corpora than its confidence
says, by more than three standard errors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk import PredictorSettings, Table, fit_predictor
from kdaudit.risk.guarantee import positives_needed, strongest_bound
from kdaudit.risk.logistic import fit_logistic
from kdaudit.risk.terms import KNOWN_FEATURES, LOGARITHMS
from kdaudit.schemas.predictor import Origin

Floats = NDArray[np.float64]

_ORIGIN = Origin(
    teacher="t", family="synthetic", corpus="c", labels="easy_core", prefix_tokens=50, suffix_tokens=50
)
_FEATURES = 4
_POPULATION = 40_000
"""Windows of positives that the true recall is counted over."""


class Kind(NamedTuple):
    """Positives: a mixture of normals with spread 1 in each term, as the others have around 0."""

    shifts: tuple[float, ...]
    shares: tuple[float, ...]
    noisy: int = 0
    """Features beside the four: mixtures of them, with noise."""


_KINDS = {
    "plain": Kind((-1.5,), (1.0,)),
    "a tenth look like others": Kind((-2.5, -0.2), (0.9, 0.1)),
    "half look like others": Kind((-1.5, 0.0), (0.5, 0.5)),
    "hardly apart": Kind((-0.4,), (1.0,)),
    "17 features": Kind((-1.5,), (1.0,), noisy=13),
}


class Asked(NamedTuple):
    """A corpus and the guarantee asked for."""

    positives: int
    recall: float
    confidence: float


class Outcome(NamedTuple):
    """One corpus."""

    promised: float
    recall: float
    """True, of the unit that the guarantee names."""
    of_windows: float
    """True, of windows."""
    flagged: float
    """Share of the others that is flagged."""


def main() -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpora", type=int, default=400)
    corpora = parser.parse_args().corpora
    broken = 0
    print("positives: kind, number, asked | guaranteed, kept in, mean recall, others flagged")
    for name, kind in _KINDS.items():
        for asked in (
            Asked(30, 0.8, 0.95),
            Asked(30, 0.99, 0.95),
            Asked(100, 0.99, 0.95),
            Asked(300, 0.99, 0.95),
            Asked(300, 0.9, 0.9),
        ):
            for how, run in (("cross-fit", _cross_fitted), ("split", _split)):
                outcomes = [run(kind, asked, np.random.default_rng(seed)) for seed in range(corpora)]
                kept = _line(f"{name:25} {asked.positives:4} {asked.recall:.2f} {how:10}", outcomes)
                broken += how == "cross-fit" and _is_below(kept, asked.confidence, corpora)
    print("windows a document, groups | guaranteed, kept in, mean recall of the unit, of windows")
    for windows in (1, 8, 30):
        for unit in ("texts", "documents"):
            outcomes = [_clustered(windows, unit, np.random.default_rng(seed)) for seed in range(corpora)]
            kept = _line(f"{windows:3} {unit:10}", outcomes)
            broken += unit == "documents" and _is_below(kept, 0.95, corpora)
    return int(broken > 0)


def _line(label: str, outcomes: list[Outcome]) -> float:
    table = np.array(outcomes)
    kept = float(np.mean(table[:, 1] >= table[:, 0]))
    promised, recall, windows, flagged = table.mean(axis=0)
    print(f"{label} | {promised:.3f}, {kept:.3f}, {recall:.4f}, {windows:.4f}, {flagged:.3f}", flush=True)
    return kept


def _is_below(kept: float, confidence: float, corpora: int) -> bool:
    return kept < confidence - 3 * (confidence * (1 - confidence) / corpora) ** 0.5


def _draw(kind: Kind, positives: int, rng: np.random.Generator) -> Floats:
    component = rng.choice(len(kind.shifts), positives, p=kind.shares)
    return _widened(kind, rng.normal(np.array(kind.shifts)[component, None], 1, (positives, _FEATURES)), rng)


def _draw_others(kind: Kind, others: int, rng: np.random.Generator) -> Floats:
    return _widened(kind, rng.normal(size=(others, _FEATURES)), rng)


def _widened(kind: Kind, terms: Floats, rng: np.random.Generator) -> Floats:
    mixtures = np.random.default_rng(7).normal(size=(_FEATURES, kind.noisy)) / 2
    return np.hstack([terms, terms @ mixtures + rng.normal(0, 0.5, (len(terms), kind.noisy))])


def _table(kind: Kind, positives: int, rng: np.random.Generator) -> tuple[Floats, NDArray[np.bool_]]:
    others = 10 * positives
    terms = np.vstack([_draw(kind, positives, rng), _draw_others(kind, others, rng)])
    return terms, np.arange(len(terms)) < positives


def _features(terms: Floats) -> Floats:
    features = terms.copy()
    for column, name in enumerate(KNOWN_FEATURES[: terms.shape[1]]):
        if name in LOGARITHMS:
            features[:, column] = np.exp(terms[:, column])
    return features


def _cross_fitted(kind: Kind, asked: Asked, rng: np.random.Generator) -> Outcome:
    terms, positive = _table(kind, asked.positives, rng)
    fitted = fit_predictor(
        Table(_features(terms), positive, np.arange(len(terms))),
        PredictorSettings(1, asked.recall, asked.confidence, int(rng.integers(1 << 30))),
        _ORIGIN,
        KNOWN_FEATURES[: terms.shape[1]],
    )
    predictor = fitted.predictor
    assert predictor is not None
    assert predictor.promise is not None
    return _judge(
        kind, predictor.promise.recall, lambda rows: predictor.flagged(predictor.risk(_features(rows))), rng
    )


def _split(kind: Kind, asked: Asked, rng: np.random.Generator) -> Outcome:
    terms, positive = _table(kind, asked.positives, rng)
    needed = positives_needed(asked.recall, asked.confidence)
    count = min(asked.positives // 2, max(20, asked.positives - needed))
    seen = (np.arange(len(terms)) < count) | (np.arange(len(terms)) >= len(terms) // 2)
    model = fit_logistic(terms[seen], positive[seen])
    held_out = np.sort(model.logit(terms[positive & ~seen]))
    bound = strongest_bound(len(held_out), asked.recall, asked.confidence)
    return _judge(kind, bound.recall or 0.0, lambda rows: model.logit(rows) >= held_out[bound.rank - 1], rng)


def _judge(
    kind: Kind, promised: float, flags: Callable[[Floats], NDArray[np.bool_]], rng: np.random.Generator
) -> Outcome:
    recall = float(flags(_draw(kind, _POPULATION, rng)).mean())
    others = float(flags(_draw_others(kind, _POPULATION, rng)).mean())
    return Outcome(promised, recall, recall, others)


def _documents(count: int, windows: int, shift: float, rng: np.random.Generator) -> Floats:
    """Terms of (count, windows) windows: half of their variance is their document's."""
    own = rng.normal(size=(count, windows, _FEATURES))
    return shift + (own + rng.normal(size=(count, 1, _FEATURES))) / 2**0.5


def _clustered(windows: int, unit: str, rng: np.random.Generator) -> Outcome:
    """Some 320 positives: in memorized documents half of the windows are, in the others none."""
    count = 640 // windows if windows > 1 else 320
    share = 0.5 if windows > 1 else 1.0
    terms = np.concatenate([_documents(count, windows, -1.5, rng), _documents(5 * count, windows, 0.0, rng)])
    of_document = np.repeat(np.arange(len(terms)), windows)
    positive = (of_document < count) & (rng.random(len(of_document)) < share)
    groups = of_document if unit == "documents" else np.arange(len(of_document))
    fitted = fit_predictor(
        Table(_features(terms.reshape(-1, _FEATURES)), positive, groups),
        PredictorSettings(1, 0.99, 0.95, int(rng.integers(1 << 30))),
        _ORIGIN,
    )
    assert fitted.predictor is not None
    assert fitted.predictor.promise is not None
    fresh = _documents(max(2_000, _POPULATION // windows), windows, -1.5, rng)
    risk = fitted.predictor.risk(_features(fresh.reshape(-1, _FEATURES)))
    flagged = fitted.predictor.flagged(risk).reshape(fresh.shape[:2])
    memorized = rng.random(flagged.shape) < share
    whole = np.all(flagged | ~memorized, axis=1)[memorized.any(axis=1)].mean()
    of_windows = flagged[memorized].mean()
    return Outcome(
        fitted.predictor.promise.recall,
        float(whole if unit == "documents" else of_windows),
        float(of_windows),
        np.nan,
    )


if __name__ == "__main__":
    sys.exit(main())
