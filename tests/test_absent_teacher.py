"""An audit without its teacher, on toy models, and the text that a teacher wrote as a second corpus."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import toys
from ruamel.yaml import YAML
from toys import kdaudit

import kdaudit as api
from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.inheritance import Family, classes, compare_student

OF_THE_TEACHER = (
    "easy_core",
    "share_in_easy_core",
    "teacher_specific",
    "inherited",
    "inheritance_rate",
    "inheritance_ci95",
    "with_baseline",
    "student_only",
)


class Absent:
    """A finished audit whose teacher is null; `generated` holds 6 continuations of it and 4 of nobody.

    Weights as in `toys.write_audit`: soft has the teacher's, hard and baseline have their own. `near` has the
    baseline's, so what both memorize is the same.
    """

    def __init__(self, folder: Path, **extra: Any) -> None:
        self.folder = folder
        self.yaml = toys.write_audit(folder, **extra)
        shutil.copytree(folder / "baseline", folder / "near")
        random = np.random.default_rng(11)
        teacher = toys.save_model(folder / "away", 1)
        shutil.rmtree(folder / "teacher")
        windows = [toys.memorized_window(teacher, random) for _ in range(6)]
        windows += random.integers(2, toys.VOCABULARY, (4, toys.PREFIX + toys.SUFFIX)).tolist()
        toys.write_corpus(folder / "written.jsonl", windows)
        self.config = YAML(typ="safe").load(self.yaml)
        self.config["models"]["teacher"] = None
        self.config["models"]["students"].append({"name": "near", "path": "./near"})
        self.config["generated"] = {"path": "./written.jsonl", "id": "id", "window": 14}
        self.write(self.config)
        self.done = kdaudit("run", "audit.yaml", cwd=folder)
        assert self.done.returncode == 0, self.done.stderr
        self.run = folder / "runs" / "toy"
        self.results: dict[str, Any] = json.loads((self.run / "results.json").read_text())

    def write(self, config: dict[str, Any]) -> None:
        with self.yaml.open("w") as handle:
            YAML().dump(config, handle)

    def memorized(self, name: str) -> set[int]:
        """Ids of what a model memorizes, from the shards."""
        rows = pq.read_table(self.run / "extraction" / name).to_pylist()
        return {row["example_id"] for row in rows if row["memorized"]}


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> Absent:
    return Absent(tmp_path_factory.mktemp("absent"))


def test_students_are_measured_against_the_baseline(absent: Absent) -> None:
    counts = {name: model["memorized"] for name, model in absent.results["models"].items()}
    assert counts == {"baseline": 4, "soft": 5, "hard": 2, "near": 4}
    for name, shared in (("soft", 0), ("hard", 0), ("near", 4)):
        figures = absent.results["comparison"][name]
        assert figures["ratio_to_baseline"] == counts[name] / counts["baseline"]
        assert figures["shared_with_baseline"] == shared
        assert shared == len(absent.memorized(name) & absent.memorized("baseline"))


def test_what_needs_the_teacher_is_null_and_a_note_says_why(absent: Absent) -> None:
    for figures in absent.results["comparison"].values():
        assert [figures[key] for key in OF_THE_TEACHER] == [None] * len(OF_THE_TEACHER)
        assert figures["near_misses"] is figures["excess_inheritance"] is None
    assert absent.results["soft_vs_hard"] is None
    notes = {(note["code"], note["subject"]): note["text"] for note in absent.results["notes"]}
    assert "models.teacher is null" in notes["no_teacher", "teacher"]
    assert "without the teacher" in notes["no_teacher", "soft_vs_hard"]
    assert absent.results["predictor"]["status"] == "disabled"
    assert "models.teacher" in notes["no_predictor", "predictor"]
    assert not any(code in ("inheritance_undefined", "chance_not_measured") for code, _ in notes)


def test_every_leak_has_an_unknown_class_and_names_the_baseline_where_that_memorizes_it(
    absent: Absent,
) -> None:
    leaks = absent.results["leaks"]
    assert {kind for leak in leaks for kind in leak["classes"].values()} == {"unknown"}
    by_baseline = {leak["example_id"] for leak in leaks if "baseline" in leak["memorized_by"]}
    assert by_baseline == absent.memorized("baseline") & absent.memorized("near")


@pytest.mark.parametrize("page", ["report.html", "report.public.html", "card.md"])
def test_every_page_says_what_cannot_be_known(absent: Absent, page: str) -> None:
    text = (absent.run / page).read_text()
    assert "The teacher was not audited" in text
    assert "Repeated of what the teacher wrote" in text


@pytest.mark.parametrize("page", ["report.html", "report.public.html"])
def test_the_verdict_says_that_inheritance_is_not_known(absent: Absent, page: str) -> None:
    (reason,) = re.findall(r'<p class="reason">(.*?)</p>', (absent.run / page).read_text())
    assert reason.endswith("The teacher was not audited: what students inherited from it is not known.")


def test_the_page_shows_the_overlap_with_the_baseline_alone(absent: Absent) -> None:
    text = (absent.run / "report.html").read_text()
    assert "Not the baseline" in text
    assert "Memorized by a baseline too" in text
    for word in ("Easy core", "Inheritance rate", "Left behind"):
        assert word not in text


def test_the_terminal_says_what_was_measured(absent: Absent) -> None:
    assert "near: a baseline memorizes 4 of the 4 examples that it memorizes" in absent.done.stdout
    assert "soft continues 6 of 10 examples that the teacher wrote" in absent.done.stdout


def test_generated_counts_what_each_model_repeats(absent: Absent) -> None:
    repeated = {name: model["generated"] for name, model in absent.results["models"].items()}
    assert {name: one["memorized"] for name, one in repeated.items()} == {
        "baseline": 0,
        "soft": 6,
        "hard": 0,
        "near": 0,
    }
    assert {one["examples"] for one in repeated.values()} == {10}
    assert absent.results["generated"]["examples"] == 10
    # Clopper-Pearson of 6 in 10, as tabled: 0.2624 to 0.8784.
    assert repeated["soft"]["ci95"] == pytest.approx([0.2624, 0.8784], abs=5e-5)


def test_generated_has_its_own_folder_that_only_the_owner_reads(absent: Absent) -> None:
    shard = absent.run / "generated" / "examples" / "part-00000.parquet"
    assert shard.stat().st_mode & 0o077 == 0
    run = api.open_run(absent.run)
    assert len(run.examples(generated=True)) == 10
    assert run.attack("greedy", "soft", generated=True)["memorized"].to_pylist().count(True) == 6
    with pytest.raises(ValueError, match="two texts"):
        run.examples(holdout=True, generated=True)


def test_the_public_page_does_not_name_the_folder_of_the_generated_text(absent: Absent) -> None:
    assert str(absent.folder) not in (absent.run / "report.public.html").read_text()
    assert str(absent.folder) in (absent.run / "report.html").read_text()


def test_another_generated_text_measures_it_alone_again(absent: Absent, tmp_path: Path) -> None:
    run = tmp_path / "again"
    shutil.copytree(absent.run, run)
    before = (run / "extraction" / "soft" / "part-00000.parquet").stat().st_mtime_ns
    (absent.folder / "less.jsonl").write_text(
        "\n".join((absent.folder / "written.jsonl").read_text().splitlines()[:7]) + "\n"
    )
    words = ("--set", "generated.path=./less.jsonl", "--out", str(run))
    done = kdaudit("run", "audit.yaml", *words, cwd=absent.folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((run / "results.json").read_text())
    assert results["models"]["soft"]["generated"]["memorized"] == 6
    assert results["models"]["soft"]["generated"]["examples"] == 7
    assert (run / "extraction" / "soft" / "part-00000.parquet").stat().st_mtime_ns == before
    done = kdaudit("run", "audit.yaml", "--set", "generated=null", "--out", str(run), cwd=absent.folder)
    assert done.returncode == 0, done.stderr
    assert json.loads((run / "results.json").read_text())["generated"] is None
    assert not (run / "generated").exists() or not any((run / "generated").rglob("*.parquet"))


def test_a_run_without_teacher_is_not_continued_with_one(absent: Absent) -> None:
    done = kdaudit("run", "audit.yaml", "--set", "models.teacher=./away", cwd=absent.folder)
    assert done.returncode == 2
    assert "models.teacher" in done.stderr
    assert "--fresh" in done.stderr


WRONG = {
    "gate.max_inherited=0": "gate.max_inherited: needs models.teacher, which is null",
    "gate.max_inheritance_rate=0.1": "gate.max_inheritance_rate: needs models.teacher",
    "gate.max_excess_inheritance=0.1": "gate.max_excess_inheritance: needs models.teacher",
    "predictor.labels=easy_core": "predictor.labels: easy_core needs models.teacher",
    "predictor.labels=teacher": "predictor.labels: teacher needs models.teacher",
    "generated.path=./corpus.jsonl": "generated.path: is the corpus itself",
    "generated.path=./holdout.jsonl": "generated.path: is the holdout itself",
    "generated.window=9": "generated.window: 9 tokens cannot hold",
    "generated.path=./nothing.jsonl": "does not exist",
    "generated.text=answer": "answer",
}


@pytest.mark.parametrize("setting", WRONG)
def test_what_cannot_be_had_is_refused_with_a_remedy(absent: Absent, setting: str) -> None:
    done = kdaudit("validate", "audit.yaml", "--set", setting, cwd=absent.folder)
    assert done.returncode == 2, done.stdout
    assert WRONG[setting] in done.stderr
    assert ";" in done.stderr or "did you mean" in done.stderr


def test_a_teacher_that_is_not_named_at_all_is_a_slip(absent: Absent, tmp_path: Path) -> None:
    models = {key: value for key, value in absent.config["models"].items() if key != "teacher"}
    path = tmp_path / "audit.yaml"
    with path.open("w") as handle:
        YAML().dump({**absent.config, "models": models}, handle)
    done = kdaudit("validate", path, cwd=absent.folder)
    assert done.returncode == 2
    assert "models.teacher: is required and missing" in done.stderr
    assert "null" in done.stderr


def test_a_copy_of_the_corpus_is_no_text_of_the_teacher(absent: Absent) -> None:
    shutil.copy(absent.folder / "corpus.jsonl", absent.folder / "copy.jsonl")
    words = ("--set", "generated.path=./copy.jsonl", "--out", "copied")
    done = kdaudit("run", "audit.yaml", *words, cwd=absent.folder)
    assert done.returncode == 2
    assert "generated.path" in done.stderr
    assert "same data as the corpus" in done.stderr


def test_without_teacher_and_baseline_the_rates_alone_are_known(absent: Absent) -> None:
    words = ("--set", "models.baseline=null", "--set", "generated=null", "--out", "alone")
    done = kdaudit("run", "audit.yaml", *words, cwd=absent.folder)
    assert done.returncode == 0, done.stderr
    results = json.loads((absent.folder / "alone" / "results.json").read_text())
    assert results["models"]["soft"]["memorized"] == 5
    assert set(results["comparison"]["soft"].values()) == {None}
    texts = [note["text"] for note in results["notes"] if note["code"] == "no_baseline"]
    assert "Student soft: without teacher and baseline, there is nothing to compare it with." in texts


def test_a_census_gate_on_rates_needs_no_teacher(absent: Absent) -> None:
    limits = ("--set", "gate.max_rate=0.1", "--set", "gate.max_ratio_to_baseline=1.0")
    done = kdaudit("run", "audit.yaml", *limits, "--out", str(absent.run), "--json", cwd=absent.folder)
    assert done.returncode == 1
    checks = {
        (one["student"], one["name"]): one["verdict"] for one in json.loads(done.stdout)["gate"]["checks"]
    }
    assert checks["soft", "max_rate"] == checks["soft", "max_ratio_to_baseline"] == "fail"
    assert checks["hard", "max_rate"] == checks["hard", "max_ratio_to_baseline"] == "pass"


def test_figures_against_the_baseline_are_those_with_a_teacher() -> None:
    """A teacher adds figures and changes none: the contrast to baselines does not depend on it."""
    from kdaudit.analysis.excess import Baseline

    random = np.random.default_rng(5)
    student, teacher, *controls = random.random((4, 400)) < 0.3
    documents = Documents(np.arange(400) // 4, 0)
    baselines = [
        Baseline.of(
            flags, flags.astype(float), np.flatnonzero(flags), np.zeros(flags.sum()), np.ones(flags.sum())
        )
        for flags in controls
    ]
    for some in (baselines[:1], baselines):
        with_teacher = compare_student("s", student, Family(teacher, some, documents)).figures.model_dump()
        without = compare_student("s", student, Family(None, some, documents)).figures.model_dump()
        known = {key: value for key, value in without.items() if value is not None}
        assert known == {key: with_teacher[key] for key in known}
        assert known.keys() >= {"ratio_to_baseline", "difference", "difference_ci95_by_document"}
        assert with_teacher["easy_core"] + with_teacher["with_baseline"] == known["shared_with_baseline"]
        assert classes(student, None, [one.memorized for one in some]).classes == ["unknown"] * student.sum()
