"""Figures of several runs over trainings: against plain formulas and draws, and which may stand together."""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from report_page import Page
from sample_results import LOCAL_PATH, SENTENCES, sample_dict, write_run
from scipy import stats

from kdaudit.analysis.spread import spread
from kdaudit.cli import main
from kdaudit.runs import layout
from kdaudit.schemas.trainings import TrainingsResults

VALUES = [0.031, 0.076, 0.026]


def test_mean_and_interval_are_those_of_the_t_test() -> None:
    found = spread(VALUES)
    assert found.mean == pytest.approx(sum(VALUES) / 3)
    assert found.deviation == pytest.approx(statistics.stdev(VALUES))
    assert found.ci95 == pytest.approx(tuple(stats.ttest_1samp(VALUES, 0).confidence_interval(0.95)))
    assert found.variance is not None
    assert found.variance.within is None
    assert found.ci95_both_sources is None


def test_within_is_the_mean_variance_that_the_intervals_stand_for() -> None:
    errors = [0.01, 0.02, 0.03]
    ends = [
        (value - 1.959964 * error, value + 1.959964 * error)
        for value, error in zip(VALUES, errors, strict=True)
    ]
    found = spread(VALUES, ends)
    assert found.variance is not None
    assert found.variance.within == pytest.approx((0.0001 + 0.0004 + 0.0009) / 3, rel=1e-5)
    assert found.ci95_both_sources is not None
    assert found.ci95 is not None
    assert found.ci95_both_sources[0] < found.ci95[0] < found.ci95[1] < found.ci95_both_sources[1]


@pytest.mark.parametrize("ends", [None, (None, 0.2), (0.1, None)])
def test_an_open_or_missing_interval_leaves_the_second_source_unknown(ends: Any) -> None:
    found = spread(VALUES, [(0.0, 0.1), ends, (0.0, 0.1)])
    assert found.ci95_both_sources is None
    assert found.ci95 is not None


def test_one_training_has_no_spread_and_equal_ones_none_either() -> None:
    assert spread([0.5], [(0.4, 0.6)])._asdict() == {
        "mean": 0.5, "deviation": None, "ci95": None, "ci95_both_sources": None, "variance": None,
    }  # fmt: skip
    equal = spread([0.5, 0.5], [(0.4, 0.6), (0.4, 0.6)])
    assert equal.ci95 == (0.5, 0.5)
    assert equal.ci95_both_sources == pytest.approx((0.4, 0.6))


@pytest.mark.parametrize(("between", "within"), [(0.02, 0.02), (0.04, 0.01), (0.005, 0.03)])
def test_each_interval_covers_what_it_is_for(between: float, within: float) -> None:
    """Trainings on one text: the text moves all of them together, each training moves one."""
    draws, count, truth = 1500, 3, 0.3
    random = np.random.default_rng(1)
    of_text = truth + within * random.standard_normal(draws)
    values = of_text[:, None] + between * random.standard_normal((draws, count))
    half = 1.959964 * within
    narrow, both = 0, 0
    for middle, row in zip(of_text, values, strict=True):
        found = spread(row.tolist(), [(value - half, value + half) for value in row])
        assert found.ci95 is not None
        assert found.ci95_both_sources is not None
        narrow += found.ci95[0] <= middle <= found.ci95[1]
        both += found.ci95_both_sources[0] <= truth <= found.ci95_both_sources[1]
    assert narrow / draws == pytest.approx(0.95, abs=0.02)
    assert 0.93 <= both / draws <= 0.99


class Runs:
    """Finished audits of one corpus; `seed` makes the weights of the students and the baseline their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, seed: int, change: Any = lambda data: None) -> Path:
        data = sample_dict(name=f"family-seed-{seed}")
        for name in ("baseline", "soft", "hard"):
            model = data["models"][name]
            model["fingerprint"] = hashlib.sha256(f"{name} {seed}".encode()).hexdigest()
            model["rate"] += seed * 1e-5
        change(data)
        run = self.folder / f"run-{seed}"
        run.mkdir()
        write_run(run, data)
        return run


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def report(*words: Path | str) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, words)])


def written(out: Path) -> TrainingsResults:
    return TrainingsResults.model_validate_json((out / "trainings.json").read_bytes())


def test_where_a_model_answers_cannot_be_guessed_from_the_file(runs: Runs, tmp_path: Path) -> None:
    """The fingerprint of a model behind an endpoint is over its address."""
    dirs = []
    for seed in (0, 1):
        behind = f"endpoint:{seed:064}"
        dirs.append(runs.add(seed, lambda data, one=behind: data["models"]["hard"].update(fingerprint=one)))
    out = tmp_path / "out"
    done = report(*dirs, "--out", out)
    assert done.exit_code == 0, done.output
    assert "0" * 63 not in (out / "trainings.json").read_text()
    assert [one.models["hard"] for one in written(out).runs] == ["endpoint", "endpoint"]


def test_each_figure_stands_as_in_its_run_with_mean_and_spread(runs: Runs, tmp_path: Path) -> None:
    dirs = [runs.add(seed) for seed in (0, 1, 2)]
    out = tmp_path / "out"
    done = report(*dirs, "--out", out)
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [str(out / "trainings.json"), str(out / "trainings.html")]
    found = {(one.about, one.key): one for one in written(out).figures}
    read = [json.loads((run / "results.json").read_text()) for run in dirs]
    rate = found["soft", "rate"]
    assert rate.values == [one["models"]["soft"]["rate"] for one in read]
    assert rate.intervals == [tuple(one["models"]["soft"]["ci95"]) for one in read]
    assert rate.mean == pytest.approx(0.000701 + 1e-5)
    assert rate.deviation == pytest.approx(1e-5)
    inherited = found["hard", "inheritance_rate"]
    assert inherited.values == [49 / 1955] * 3
    assert inherited.intervals == [(0.0186, 0.033)] * 3
    assert found["soft_vs_hard", "ratio"].values == [49 / 18] * 3
    assert found["predictor", "auc.mean"].values == [0.9997] * 3
    page = Page((out / "trainings.html").read_text())
    rows = page.table("Each run, and over all of them")
    over = ["Mean", "95% over trainings", "95%, both sources", "Variance between"]
    assert rows[0] == ["Figure", *over, "Run 1", "Run 2", "Run 3"]
    assert [row[0] for row in rows[1:]] == ["Memorization rate", "Perplexity of the holdout"]
    assert "3 trainings on one corpus" in page.text
    assert "Inherited, hard over soft" in page.text


def test_an_interval_by_document_is_taken_where_there_is_one(runs: Runs, tmp_path: Path) -> None:
    from kdaudit.analysis.trainings import _interval

    assert _interval({"ci95": (0.1, 0.2), "ci95_by_document": (0.0, 0.3)}, "ci95") == (0.0, 0.3)
    assert _interval({"ci95": (0.1, 0.2), "ci95_by_document": None}, "ci95") == (0.1, 0.2)
    assert _interval({"ci95": None}, "ci95") is None


def test_a_teacher_of_all_runs_has_no_spread_and_a_note_says_so(runs: Runs, tmp_path: Path) -> None:
    assert report(runs.add(0), runs.add(1), "--out", tmp_path / "out").exit_code == 0
    found = written(tmp_path / "out")
    rates = {one.about: one for one in found.figures if one.key == "rate"}
    assert rates["teacher"].values == [0.003317, 0.003317]
    assert (rates["teacher"].mean, rates["teacher"].ci95) == (None, None)
    assert rates["baseline"].ci95 is not None
    assert [(note.code, note.subject) for note in found.notes] == [("trained_once", "teacher")]


def test_baselines_that_runs_share_give_their_figures_no_spread(runs: Runs, tmp_path: Path) -> None:
    """Each audit names both seeds' baselines, its own first: the set of controls is one."""

    def both(data: dict[str, Any]) -> None:
        seed = int(data["name"][-1])
        own = data["models"].pop("baseline")
        for place, of in enumerate((seed, 1 - seed), 1):
            data["models"][f"baseline-{place}"] = {**own, "fingerprint": f"baseline of {of}"}

    assert report(runs.add(0, both), runs.add(1, both), "--out", tmp_path / "out").exit_code == 0
    found = {(one.about, one.key): one for one in written(tmp_path / "out").figures}
    assert found["soft", "teacher_specific"].values == [1955, 1955]
    assert found["soft", "teacher_specific"].ci95 is None
    assert found["soft", "inherited"].ci95 is not None
    assert found["baseline-1", "rate"].ci95 is not None, "two trainings, though each stands in both runs"


def test_a_figure_or_model_that_one_run_lacks_has_no_mean(runs: Runs, tmp_path: Path) -> None:
    def without(data: dict[str, Any]) -> None:
        data["comparison"]["soft"] |= {"ratio_to_baseline": None, "ratio_ci95": None}
        data["models"]["base"] = {**data["models"]["teacher"], "role": "base"}

    assert report(runs.add(0), runs.add(1, without), "--out", tmp_path / "out").exit_code == 0
    found = written(tmp_path / "out")
    (ratio,) = [one for one in found.figures if (one.about, one.key) == ("soft", "ratio_to_baseline")]
    assert ratio.values == [0.41187, None]
    assert (ratio.mean, ratio.deviation, ratio.ci95, ratio.variance) == (None, None, None, None)
    assert "base" not in {one.about for one in found.figures}
    assert ("not_in_every_run", "base") in [(note.code, note.subject) for note in found.notes]
    assert "not available" in (tmp_path / "out" / "trainings.html").read_text()


def test_nothing_private_is_taken_over(runs: Runs, tmp_path: Path) -> None:
    dirs = [runs.add(0), runs.add(1)]
    assert report(*dirs, "--out", tmp_path / "out").exit_code == 0
    leak = json.loads((dirs[0] / "results.json").read_text())["leaks"][0]
    for name in ("trainings.json", "trainings.html"):
        text = (tmp_path / "out" / name).read_text()
        for private in (LOCAL_PATH, "private stuff", leak["document_id"], leak["suffix_hmac"], *SENTENCES):
            assert private not in text
        assert str(tmp_path) not in text


ANSWERS = {
    "template": "file",
    "bos": False,
    "left_out": {},
    "min_suffix_tokens": 50,
    "without_prompt": 0,
    "prompts_cut": 0,
    "answers_cut": 0,
    "suffixes": 9,
    "recurring": 0,
}
UNLIKE = {
    "corpus": lambda data: data["corpus"].update(fingerprint=data["corpus"]["fingerprint"] + "f"),
    "kind of each student": lambda data: data["models"]["soft"].update(kd=None),
    "number of examples": lambda data: data["corpus"].update(examples=999_999),
    "prefix": lambda data: data["extraction"].update(prefix_tokens=40),
    "suffix": lambda data: data["extraction"].update(suffix_tokens=40),
    "chat template": lambda data: data["corpus"].update(answers=ANSWERS),
}


@pytest.mark.parametrize("key", UNLIKE)
def test_runs_that_cannot_be_compared_are_refused_by_name(runs: Runs, tmp_path: Path, key: str) -> None:
    one, two = runs.add(0), runs.add(1, UNLIKE[key])
    done = report(one, two, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert f"{two}: was measured with another {key} than {one}" in done.output
    assert "(hard: hard, soft: null; there hard: hard, soft: soft)" in done.output or not key.startswith(
        "kind"
    )
    assert not (tmp_path / "out").exists()


def test_samples_of_other_seeds_are_refused_and_censuses_are_not(runs: Runs, tmp_path: Path) -> None:
    sampled = [
        runs.add(seed, lambda data, seed=seed: (data["corpus"].update(sampled=True), data.update(seed=seed)))
        for seed in (0, 1)
    ]
    done = report(*sampled, "--out", tmp_path / "out")
    assert "another seed of the sample" in done.output
    census = [runs.add(seed, lambda data, seed=seed: data.update(seed=seed)) for seed in (2, 3)]
    assert report(*census, "--out", tmp_path / "out").exit_code == 0


def test_one_training_is_not_counted_twice(runs: Runs, tmp_path: Path) -> None:
    run = runs.add(0)
    done = report(run, run, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert f"{run}: its student soft is that of {run}, weight for weight" in done.output


def test_a_training_whose_results_were_changed_is_refused(runs: Runs, tmp_path: Path) -> None:
    one, two = runs.add(0), runs.add(1)
    manifest = {"name": "x", "created": "", "environment": {}, "batch_plan": {"shard_rows": 4}, "inputs": {}}
    (two / layout.MANIFEST).write_text(json.dumps({**manifest, "files": {layout.RESULTS: "of another"}}))
    done = report(one, two, "--out", tmp_path / "page")
    assert done.exit_code == 2
    assert f"{two / layout.RESULTS}: was changed since the run wrote it" in done.stderr


def test_the_page_goes_into_a_folder_of_its_own(runs: Runs, tmp_path: Path) -> None:
    one, two = runs.add(0), runs.add(1)
    before = (one / "results.json").read_bytes()
    done = report(one, two, "--out", one)
    assert done.exit_code == 2
    assert f"{one}: holds a run" in done.output
    assert (one / "results.json").read_bytes() == before
    done = report(one, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert "--out is for several runs" in done.output


def test_runs_trainings_is_where_it_goes_by_default(
    runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = runs.add(0), runs.add(1)
    monkeypatch.chdir(tmp_path)
    assert report(one, two).exit_code == 0
    assert {path.name for path in (tmp_path / "runs" / "trainings").iterdir()} == {
        "trainings.json",
        "trainings.html",
    }
    assert math.isclose(written(tmp_path / "runs" / "trainings").figures[0].values[0] or 0, 0.003317)
