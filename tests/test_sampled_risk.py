"""A predictor fitted on a weighted sample against one fitted on all, and against what is known to be true."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
from numpy.typing import NDArray
from ruamel.yaml import YAML
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

import kdaudit
from kdaudit.attacks import GREEDY
from kdaudit.inference import EngineInfo
from kdaudit.pipelines.stages import feature_sample
from kdaudit.pipelines.stages.attacked import attack_folder
from kdaudit.pipelines.stages.feature_sample import WantedFeatures, _due_ids, write_feature_sample
from kdaudit.pipelines.stages.risks import estimate_flagged
from kdaudit.pipelines.stages.scores import draw
from kdaudit.pipelines.stages.shard_notes import shard_notes
from kdaudit.risk import FEATURES, PredictorSettings, Table, fit_predictor
from kdaudit.risk.curves import draw_curves
from kdaudit.risk.logistic import fit_logistic
from kdaudit.risk.splits import draw_trial, find_groups
from kdaudit.runs import layout
from kdaudit.runs.store import RunStore
from kdaudit.schemas.predictor import Origin

ORIGIN = Origin(teacher="t", family="llama", corpus="c", labels="teacher", prefix_tokens=50, suffix_tokens=50)
SETTINGS = PredictorSettings(trials=12, recall=0.9, confidence=0.95, seed=1)
SHIFT = np.array([-1.5, -0.8, -0.6, 0.5])
"""Between the means of both classes, in standard deviations."""
POSITIVES, OTHERS, CERTAIN = 400, 30_000, 100


class Corpus:
    """Two normal classes with unit spread: log odds and AUC are known. Others too may be certain."""

    def __init__(self, seed: int = 0) -> None:
        dice = np.random.default_rng(seed)
        self.positive = dice.permutation(POSITIVES + OTHERS) < POSITIVES
        self.terms = dice.normal(size=(len(self.positive), 4)) + np.where(self.positive[:, None], SHIFT, 0)
        # Others that another model memorizes are like positives, so that they are not a random sample.
        near = np.argsort(np.where(self.positive, -np.inf, self.terms @ SHIFT))[-4 * CERTAIN :]
        self.certain = np.union1d(np.flatnonzero(self.positive), dice.choice(near, CERTAIN, replace=False))
        self.features = np.concatenate(
            [self.terms[:, :1], np.exp(self.terms[:, 1:3]), self.terms[:, 3:]], axis=1
        )

    @property
    def log_odds(self) -> NDArray[np.float64]:
        odds: NDArray[np.float64] = math.log(POSITIVES / OTHERS) + (self.terms - SHIFT / 2) @ SHIFT
        return odds

    def sample(self, seed: int, size: int = 20 * POSITIVES) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        drawn = draw(len(self.positive), self.certain, size, seed)
        return drawn["example_id"].to_numpy(), drawn["weight"].to_numpy()

    def table(self, ids: NDArray[np.int64], weights: NDArray[np.float64] | None) -> Table:
        return Table(self.features[ids], self.positive[ids], ids, "texts", weights)


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return Corpus()


@pytest.fixture(scope="module")
def both(corpus: Corpus) -> tuple[Any, Any]:
    """Fitted on all, and on a sample."""
    every = np.arange(len(corpus.positive))
    tables = corpus.table(every, None), corpus.table(*corpus.sample(5))
    whole, sampled = (fit_predictor(table, SETTINGS, ORIGIN, FEATURES) for table in tables)
    return whole, sampled


def test_risks_of_samples_are_those_of_all_within_their_noise(corpus: Corpus) -> None:
    whole = fit_logistic(corpus.terms, corpus.positive).logit(corpus.terms)
    samples = [corpus.sample(seed) for seed in range(24)]
    fits = [
        fit_logistic(corpus.terms[ids], corpus.positive[ids], weights).logit(corpus.terms)
        for ids, weights in samples
    ]
    apart = np.stack(fits) - whole
    shown = corpus.positive | (whole > np.quantile(whole, 0.99))
    bias, noise = apart.mean(0)[shown], apart.std(0)[shown]
    assert noise.max() < 0.3
    assert np.abs(bias).max() < 5 * noise.max() / math.sqrt(len(fits))
    unweighted = [
        fit_logistic(corpus.terms[ids], corpus.positive[ids]).logit(corpus.terms) for ids, _ in samples[:1]
    ]
    assert (unweighted[0] - whole)[shown].min() > 0.5  # what the weights put right


def test_auc_and_calibration_of_a_sample_are_those_of_all(corpus: Corpus, both: Any) -> None:
    whole, sampled = both
    known = float(roc_auc_score(corpus.positive, corpus.log_odds))
    assert known == pytest.approx(norm.cdf(np.linalg.norm(SHIFT) / math.sqrt(2)), abs=0.02)
    for fitted in both:
        assert fitted.figures.auc.mean == pytest.approx(known, abs=0.01)
    for figure in ("auc", "average_precision", "recall", "precision"):
        of_all, of_sample = (getattr(one.figures, figure) for one in both)
        assert of_sample.mean == pytest.approx(of_all.mean, abs=0.01 if figure == "auc" else 0.05)
    risks = [one.predictor.risk(corpus.features) for one in both]
    for risk in risks:  # over the corpus, expected and found positives are equal
        assert risk.mean() == pytest.approx(POSITIVES / len(risk), rel=0.1)
        assert np.abs(risk - expit(corpus.log_odds)).mean() < 0.01
    for point in sampled.curves.calibration:
        assert point.y == pytest.approx(point.x, abs=max(0.01, 0.35 * point.x))
    assert sampled.predictor.intercept == pytest.approx(whole.predictor.intercept, abs=0.15)
    assert (sampled.positives, sampled.predictor.positives) == (POSITIVES, POSITIVES)
    assert sampled.predictor.examples == len(corpus.positive)
    assert sampled.predictor.promise == whole.predictor.promise


def test_weights_of_one_change_nothing(corpus: Corpus) -> None:
    ids = np.flatnonzero(corpus.positive | (np.arange(len(corpus.positive)) % 10 == 0))
    settings = SETTINGS._replace(trials=3)
    plain, weighted = (
        fit_predictor(corpus.table(ids, weights), settings, ORIGIN, FEATURES)
        for weights in (None, np.ones(len(ids)))
    )
    assert weighted.figures.auc.mean == pytest.approx(plain.figures.auc.mean, abs=1e-9)
    assert weighted.predictor.coefficients == pytest.approx(plain.predictor.coefficients, rel=1e-5)
    assert weighted.curves.roc == plain.curves.roc
    assert weighted.predictor.examples == plain.predictor.examples


def test_a_weighted_row_counts_as_often_as_its_weight() -> None:
    dice = np.random.default_rng(2)
    risk, positive = dice.random(300), dice.random(300) < 0.4
    weight = np.where(positive, 1, dice.integers(1, 5, 300))
    often = np.repeat(np.arange(300), weight)
    weighted = draw_curves(risk, positive, weight.astype(float))
    repeated = draw_curves(risk[often], positive[often])
    for name in ("roc", "precision_recall", "calibration"):
        of_weights, of_copies = (
            np.array([(point.x, point.y) for point in getattr(one, name)]) for one in (weighted, repeated)
        )
        np.testing.assert_allclose(of_weights, of_copies, atol=1e-9)


def test_a_draw_of_a_sample_keeps_its_total_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdaudit.risk.splits.TRIAL_OTHERS", 500)
    positive, weight = np.arange(3000) < 50, np.where(np.arange(3000) < 50, 1.0, 4.0)
    totals = []
    for seed in range(40):
        trial = draw_trial(find_groups(np.arange(3000), positive, weight), np.random.default_rng(seed))
        assert trial.train_weight is not None
        totals.append(trial.train_weight.sum() + trial.weight.sum())
    assert np.mean(totals) == pytest.approx(weight.sum(), rel=1e-9)


def test_the_estimate_of_flagged_examples_is_right_on_average_and_its_interval_covers() -> None:
    dice = np.random.default_rng(4)
    flags = dice.random(5000) < np.where(np.arange(5000) < 40, 0.8, 0.05)
    known, estimates, covered = int(flags.sum()), [], 0
    for seed in range(400):
        drawn = draw(5000, np.arange(40), 500, seed)
        found = estimate_flagged(flags[drawn["example_id"].to_numpy()], drawn["weight"].to_numpy())
        low, high = found.sample.flagged_ci95
        covered += low <= known <= high
        estimates.append(found.flagged)
    assert (found.sample.certain, found.sample.drawn, found.sample.others) == (40, 500, 4960)
    assert np.mean(estimates) == pytest.approx(known, abs=4 * np.std(estimates) / 20 + 0.5)
    assert covered >= 380


@pytest.mark.parametrize("features", ["all", "paper"])
@pytest.mark.parametrize("few", [False, True])
def test_what_is_read_stands_for_the_corpus_and_whole_where_that_is_wanted(
    features: str, few: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 50 examples three are memorized; with too few for a predictor, what is shown alone is added."""
    monkeypatch.setattr(feature_sample, "_ENTROPIES", 5)
    memorized = np.arange(50) < 3
    teacher: Any = SimpleNamespace(name="teacher")
    rows = GREEDY.rows(np.arange(50), np.where(memorized, 4, 0), np.full(50, 4))
    with RunStore(tmp_path / "run", "run", {}) as run:
        folder = attack_folder(GREEDY, teacher)
        with run.stage(folder):
            notes = shard_notes(EngineInfo("x", "1", "cpu", "float32"), 0.0)
            run.write_table(layout.shard(folder, 0), rows.replace_schema_metadata(notes))
        run.write_table(layout.SCORE_SAMPLE, draw(50, np.arange(3), 20, 1))
        work: Any = SimpleNamespace(
            run=run,
            models=SimpleNamespace(teacher=teacher, baselines=[], all=[teacher]),
            attacks=[GREEDY],
            predictor=SimpleNamespace(features=features),
            sample=20,
            seed=1,
            total_examples=lambda: 50,
            fingerprints=lambda *_: {},
        )
        write_feature_sample(work, memorized, underpowered=lambda: few)
        ids, weights, whole = (column.to_numpy() for column in run.read_table(layout.FEATURE_SAMPLE).columns)
    shown = feature_sample.entropy_sample(1, 50)
    assert len(ids) == (len({0, 1, 2, *shown.tolist()}) if few else 3 + 20)
    assert weights[:3].tolist() == [1.0] * 3
    assert weights.sum() == pytest.approx(50)
    assert whole.tolist() == (np.isin(ids, shown) | (features == "paper")).tolist()


def test_windows_are_read_again_where_more_of_them_is_wanted(tmp_path: Path) -> None:
    so_far = {"example_id": pa.array([1, 2, 3]), "teacher_entropy": pa.array([None, 0.5, None], pa.float64())}
    wanted = WantedFeatures(np.arange(1, 5), np.array([True, True, False, False]), is_corpus=False)
    with RunStore(tmp_path / "run", "run", {}) as run:
        run.write_table(layout.shard(layout.FEATURES, 0), pa.table(so_far))
        assert _due_ids(run, wanted).tolist() == [1, 4]


# A run

EXTRA = 6
"""Tokens of a window behind its suffix."""
SHOWN = 30
"""Examples whose entropy is taken."""


class Family:
    """Toy models, and a corpus of which 40 windows are the teacher's and 20 the baseline's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toys.write_audit(folder)
        own = {name: toys.save_model(folder / name, seed) for name, seed in (("teacher", 1), ("baseline", 2))}
        dice = np.random.default_rng(3)
        windows = [toys.memorized_window(own["teacher"], dice) for _ in range(40)]
        windows += [toys.memorized_window(own["baseline"], dice) for _ in range(20)]
        windows += dice.integers(2, toys.VOCABULARY, (240, toys.PREFIX + toys.SUFFIX)).tolist()
        windows = [[*window, *dice.integers(2, toys.VOCABULARY, EXTRA).tolist()] for window in windows]
        toys.write_corpus(folder / "corpus.jsonl", [windows[row] for row in dice.permutation(len(windows))])
        self.config: dict[str, Any] = YAML(typ="safe").load(folder / "audit.yaml")
        self.config["corpus"]["window"] = toys.PREFIX + toys.SUFFIX + EXTRA
        self.config |= {"holdout": None, "predictor": {"trials": 8, "labels": "teacher", "recall": 0.9}}
        del self.config["models"]["students"][1]

    def run(self, name: str, **attacks: Any) -> kdaudit.Run:
        path = self.folder / "changed.yaml"
        with path.open("w") as handle:
            YAML().dump({**self.config, "attacks": {"sampled": None, **attacks}}, handle)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(feature_sample, "_ENTROPIES", SHOWN)
            return kdaudit.audit(path, out=self.folder / name)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("sampled"))


@pytest.fixture(scope="module")
def whole(family: Family) -> kdaudit.Run:
    return family.run("whole", sample=None)


@pytest.fixture(scope="module")
def sampled(family: Family) -> kdaudit.Run:
    return family.run("sampled", sample=120)


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        own = {"created", "seconds", "tokens_per_second", "suffix_hmac"}  # each run has its own key
        return {key: without_times(one) for key, one in value.items() if key not in own}
    return [without_times(one) for one in value] if isinstance(value, list) else value


def results_of(run: kdaudit.Run) -> dict[str, Any]:
    found: dict[str, Any] = without_times(json.loads((run.path / "results.json").read_text()))
    return found


def test_a_sample_that_has_room_for_all_changes_no_result(family: Family, whole: kdaudit.Run) -> None:
    assert results_of(family.run("roomy", sample=240)) == results_of(whole)
    assert whole.results.predictor.sample is None


def test_risk_parquet_holds_what_was_scored(sampled: kdaudit.Run, whole: kdaudit.Run) -> None:
    found, of_all = sampled.risk().to_pandas(), whole.risk().to_pandas().set_index("example_id")
    examples = sampled.examples().to_pandas().set_index("example_id")
    assert (len(found), len(of_all)) == (60 + 120, 300)
    assert found["weight"].sum() == pytest.approx(300)
    assert found["document_id"].tolist() == examples.loc[found["example_id"], "document_id"].tolist()
    memorized = sampled.attack("greedy", "teacher")["memorized"].to_numpy()
    assert set(np.flatnonzero(memorized)) <= set(found["example_id"])
    for name in ("teacher_suffix_nll", "baseline_suffix_min_k", "suffix_kl_divergence", "zlib_entropy"):
        expected = of_all.loc[found["example_id"], name].to_numpy()
        np.testing.assert_allclose(found[name].to_numpy(), expected, rtol=1e-4, atol=1e-5)
    known = found["teacher_perplexity"].notna()
    assert known.sum() == SHOWN  # the examples whose entropy is shown are among those that are drawn
    assert oct((sampled.path / "risk.parquet").stat().st_mode)[-3:] == "600"


def test_figures_of_a_sampled_run_are_those_of_all(sampled: kdaudit.Run, whole: kdaudit.Run) -> None:
    of_all, found = whole.results.predictor, sampled.results.predictor
    assert found.status == "ok"
    assert found.auc is not None
    assert of_all.auc is not None
    assert found.auc.mean == pytest.approx(of_all.auc.mean, abs=0.01)
    assert found.positives == of_all.positives
    rows = sampled.risk().to_pandas()
    estimate = (rows["weight"] * (rows["risk"] >= found.threshold)).sum()
    assert found.flagged == pytest.approx(estimate, abs=0.5)
    assert found.sample is not None
    assert (found.sample.certain, found.sample.drawn, found.sample.others) == (60, 120, 240)
    low, high = found.sample.flagged_ci95
    assert low <= of_all.flagged <= high
    histogram = sampled.results.curves.risk_histogram
    assert histogram is not None
    assert sum(histogram["memorized"]) == of_all.positives
    assert sum(histogram["other"]) == pytest.approx(300 - of_all.positives)


def test_the_report_says_that_a_sample_was_scored(sampled: kdaudit.Run, whole: kdaudit.Run) -> None:
    said = "drawn at random (attacks.sample)"
    for page in (sampled.report, sampled.public_report):
        assert said in page.read_text()
        assert "estimated" in page.read_text()
    assert said not in whole.report.read_text()


def test_teacher_and_baseline_are_measured_once(sampled: kdaudit.Run) -> None:
    features = pq.read_table(sampled.path / "features").to_pandas().set_index("example_id")
    for name in ("teacher", "baseline"):
        points = pq.read_table(sampled.path / f"entropy/{name}.parquet").to_pandas()
        assert len(points) == SHOWN
        expected = features.loc[points["example_id"], f"{name}_entropy"]
        assert points["mean_token_entropy"].tolist() == expected.tolist()


def test_entropies_of_another_sample_are_not_mixed_in(
    family: Family, sampled: kdaudit.Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = pq.read_table(sampled.path / "entropy_logprob.parquet")
    own = feature_sample.seeded_order
    monkeypatch.setattr(feature_sample, "seeded_order", lambda total, seed: own(total, seed)[::-1])
    family.run("other", sample=120)
    monkeypatch.undo()
    after = pq.read_table(family.run("other", sample=120).path / "entropy_logprob.parquet")
    assert after["example_id"].to_pylist() == before["example_id"].to_pylist()
    assert after["mean_token_entropy"].to_pylist() == pytest.approx(before["mean_token_entropy"].to_pylist())


def test_without_a_predictor_only_what_is_shown_and_memorized_is_read(family: Family) -> None:
    family.config["predictor"]["labels"] = "easy_core"  # none
    try:
        run = family.run("few", sample=120)
    finally:
        family.config["predictor"]["labels"] = "teacher"
    assert run.results.predictor.status == "underpowered"
    memorized = [run.attack("greedy", name)["memorized"].to_numpy() for name in ("teacher", "baseline")]
    certain = set(np.flatnonzero(np.logical_or.reduce(memorized)))
    features = pq.read_table(run.path / "features").to_pandas()
    rest = features[~features["example_id"].isin(certain)]
    assert certain <= set(features["example_id"])
    assert len(rest) <= SHOWN
    assert rest["teacher_entropy"].notna().all()
    assert run.risk()["risk"].null_count == 300
    assert run.results.models["teacher"].below_rounding is not None


@pytest.mark.parametrize(("least", "each", "others"), [(10, 2, 80), (100, 2, 100), (20, 0, 20)])
def test_no_more_others_are_read_than_the_positives_need(
    family: Family,
    sampled: kdaudit.Run,
    monkeypatch: pytest.MonkeyPatch,
    least: int,
    each: int,
    others: int,
) -> None:
    monkeypatch.setattr(feature_sample, "_LEAST_OTHERS", least)
    monkeypatch.setattr(feature_sample, "_OTHERS_A_POSITIVE", each)
    run = family.run(f"lean-{others}", sample=120)
    found = run.risk()
    assert len(found) == 60 + others, "not those whose entropy alone is shown"
    assert set(found["example_id"].to_pylist()) <= set(sampled.risk()["example_id"].to_pylist())
    assert sum(found["weight"].to_pylist()) == pytest.approx(300)


def test_a_larger_sample_reads_only_what_is_new(family: Family, sampled: kdaudit.Run) -> None:
    before = pq.read_table(sampled.path / "features")["example_id"].to_pylist()
    run = family.run("sampled", sample=150)
    after = pq.read_table(run.path / "features")["example_id"].to_pylist()
    assert after[: len(before)] == before
    assert len(after) == len({*after})
    assert len(run.risk()) == 60 + 150
