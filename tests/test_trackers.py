"""Trackers get figures and the public page, once for the same results; one that fails costs nothing."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import ROOT
from report_page import bare, shingles
from sample_results import LOCAL_PATH, bare_dict, leak_row, sample_dict, write_run

from kdaudit.config.audit import ReportConfig
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, UsageError
from kdaudit.exporting.trackers import log_to, refuse_missing
from kdaudit.exporting.trackers.figures import tracked_of
from kdaudit.pipelines.report import render_reports
from kdaudit.pipelines.stages.tracking import write_to_trackers
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.render import read_results
from kdaudit.runs.store import RunStore


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_run(run)
    render_reports(run, ReportConfig())
    return run


def log(tracker: str, folder: Path) -> None:
    log_to(tracker, without_private_parts(read_results(folder)), folder / "report.public.html")


def expected(data: dict[str, Any]) -> dict[str, float]:
    """By hand, from results.json, whose intervals by document are all null."""
    found = {"leaks": len(data["leaks"])}
    for verdict in ("pass", "fail", "inconclusive"):
        found[f"gate/{verdict}"] = sum(check["verdict"] == verdict for check in data["gate"]["checks"])
    for name, one in data["models"].items():
        found |= {f"{name}/memorized": one["memorized"], f"{name}/rate": one["rate"]}
        found |= {f"{name}/rate_low": one["ci95"][0], f"{name}/rate_high": one["ci95"][1]}
        found[f"{name}/perplexity"] = one["perplexity"]
    for name, one in data["comparison"].items():
        found |= {f"{name}/inherited": one["inherited"]}
        for key, ends in (("inheritance_rate", "inheritance_ci95"), ("ratio_to_baseline", "ratio_ci95")):
            low, high = one[ends] or (None, None)
            found |= {f"{name}/{key}": one[key], f"{name}/{key}_low": low, f"{name}/{key}_high": high}
    return {name: value for name, value in found.items() if value is not None}


@pytest.mark.parametrize("data", [sample_dict(), bare_dict()], ids=["usual", "bare"])
def test_figures_are_those_of_the_results(data: dict[str, Any], tmp_path: Path) -> None:
    tracked = tracked_of(without_private_parts(write_run(tmp_path, data)))
    assert tracked.figures == expected(data)
    assert tracked.name == data["name"]
    assert tracked.settings["verdict"] == data["gate"]["verdict"]
    assert tracked.settings["corpus"] == "train.parquet"


def test_other_attacks_have_figures_too(tmp_path: Path) -> None:
    near = {
        "max_edit_distance": 0.1, "examples": 10, "exposed": 3, "rate": 0.3, "ci95": [0.1, 0.6],
        "ci95_by_document": [0.05, 0.7], "distances": [1, 2],
    }  # fmt: skip
    point = {"queries": 100, "p": 0.5, "rate": 0.2, "ci95": [0.1, 0.3]}
    sampled = {"temperature": 1.0, "top_k": 40, "examples": 10, "scored": 10, "curve": [point]}
    data = sample_dict(attacks={"soft": {"near_verbatim": near, "sampled": sampled}})
    found = tracked_of(without_private_parts(write_run(tmp_path, data))).figures
    assert found.items() - expected(data).items() == {
        ("soft/near_verbatim_rate", 0.3),
        ("soft/near_verbatim_rate_low", 0.05),
        ("soft/near_verbatim_rate_high", 0.7),
        ("soft/sampled_rate_p0.5_n100", 0.2),
        ("soft/sampled_rate_p0.5_n100_low", 0.1),
        ("soft/sampled_rate_p0.5_n100_high", 0.3),
    }


def test_membership_and_canaries_have_figures_too(tmp_path: Path) -> None:
    scores = {
        "loss": {"auc": 0.6, "ci95": [0.5, 0.7], "tpr_at_fpr": {"0.01": [0.9, 0.8, 1.0], "0.001": None}},
        "zlib": {"auc": 0.7, "ci95": [0.6, 0.8], "tpr_at_fpr": {"0.01": [0.04, 0.02, 0.09], "0.001": None}},
    }
    best = {
        "score": "zlib", "auc": 0.7, "ci95": [0.55, 0.85], "minus_blind": None, "minus_blind_ci95": None
    }  # fmt: skip
    membership = {
        "members": 10, "nonmembers": 9, "member_documents": 5, "nonmember_documents": 4, "blind_auc": None,
        "blind_ci95": None, "score": scores, "best": best, "explained_by_text": None, "against_teacher": None,
    }  # fmt: skip
    bits = {"median": 3.17, "low": 1.2, "high": None}
    four = {"canaries": 8, "extracted": 6, "extracted_ci95": [0.35, 0.97], "exposure": bits}
    canaries = {
        "controls": 60, "controls_extracted": 1, "highest_exposure": 4.95,
        "repetitions": {"1": four | {"extracted": 0, "exposure": None}, "4": four},
    }  # fmt: skip
    data = sample_dict(attacks={"soft": {"membership": membership, "canaries": canaries}})
    found = tracked_of(without_private_parts(write_run(tmp_path, data))).figures
    assert found.items() - expected(data).items() == {
        ("soft/membership_auc", 0.7),
        ("soft/membership_auc_low", 0.55),
        ("soft/membership_auc_high", 0.85),
        ("soft/membership_tpr_fpr0.01", 0.04),
        ("soft/membership_tpr_fpr0.01_low", 0.02),
        ("soft/membership_tpr_fpr0.01_high", 0.09),
        ("soft/canaries_controls_extracted", 1),
        ("soft/canaries_extracted_x1", 0.0),
        ("soft/canaries_extracted_x1_low", 0.35),
        ("soft/canaries_extracted_x1_high", 0.97),
        ("soft/canaries_extracted_x4", 0.75),
        ("soft/canaries_extracted_x4_low", 0.35),
        ("soft/canaries_extracted_x4_high", 0.97),
        ("soft/canaries_exposure_x4", 3.17),
        ("soft/canaries_exposure_x4_low", 1.2),
    }


def leaked_by(data: dict[str, Any]) -> set[str]:
    found: set[str] = set()
    for leak in data["leaks"]:
        found |= shingles(leak_row(leak, [])["text"])
    return found


def refuse_private(place: Path, data: dict[str, Any]) -> None:
    """No file below a folder holds text of a leak, a document id or the corpus's path."""
    files = [path for path in place.rglob("*") if path.is_file()]
    assert files
    leaked = leaked_by(data)
    for path in files:
        text = bare(path.read_bytes().decode(errors="replace"))
        assert not shingles(text) & leaked, path
        assert "crawl-" not in text, path
        assert LOCAL_PATH not in text, path


def test_mlflow_holds_figures_and_page(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'store'}")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    log("mlflow", folder)
    log("mlflow", folder)
    from mlflow import MlflowClient

    data = json.loads((folder / "results.json").read_text())
    client = MlflowClient()
    experiment = client.get_experiment_by_name("kdaudit")
    one, other = client.search_runs([experiment.experiment_id])
    assert one.data.metrics == other.data.metrics == expected(data)
    assert one.data.params["verdict"] == "fail"
    assert one.data.params["gate/max_rate"] == "0.001"
    assert one.data.tags == {"mlflow.runName": "acme-1.4b-release"}
    assert one.info.status == "FINISHED"
    [page] = (tmp_path / "store").glob(f"*/{one.info.run_id}/artifacts/*")
    assert page.name == "report.public.html"
    assert page.read_bytes() == (folder / "report.public.html").read_bytes()
    refuse_private(tmp_path / "store", data)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_others_hold_the_page_and_nothing_private(
    tracker: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # before it is imported
    pytest.importorskip(tracker)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_ARTIFACT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "of wandb"))
    log(tracker, folder)
    data = json.loads((folder / "results.json").read_text())
    refuse_private(tmp_path, data)
    [record] = tmp_path.glob(
        {"wandb": "wandb/offline-run-*/*.wandb", "trackio": "trackio/kdaudit.db"}[tracker]
    )
    held = record.read_bytes()
    assert b"soft/rate_high" in held
    assert b"report.public.html" in held
    assert capsys.readouterr().out == ""


def test_a_tracker_is_imported_only_when_it_is_asked_for() -> None:
    wanted = re.compile(r"^ *(?:import|from) (mlflow|wandb|trackio)\b", re.MULTILINE)
    package = ROOT / "kdaudit"
    importers = {
        path.relative_to(package) for path in package.rglob("*.py") if wanted.search(path.read_text())
    }
    assert importers == {
        Path("exporting", "trackers", f"{name}.py") for name in ("mlflow", "wandb", "trackio")
    }


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Any]:
    """A run whose results and pages are written, as the stage finds it."""
    made = tmp_path / "made"
    write_run(made)
    render_reports(made, ReportConfig())
    with RunStore(tmp_path / "run", "run", {}) as run:
        for name in ("results.json", "report.public.html"):
            run.write_text(name, (made / name).read_text())
        warnings: list[str] = []
        yield SimpleNamespace(run=run, warn=warnings.append, warnings=warnings, progress=lambda *_: None)


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: Any = ModuleType("kdaudit.exporting.trackers.mlflow")
    module.given = []
    module.log = lambda tracked, page: module.given.append((tracked, page))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


ASKED = ReportConfig(trackers=("mlflow",))


def test_the_same_results_are_logged_once(work: Any, tracker: Any) -> None:
    write_to_trackers(work, ASKED)
    write_to_trackers(work, ASKED)
    assert [page.name for _, page in tracker.given] == ["report.public.html"]
    with work.run.stage("results", "again"):
        text = (work.run.folder / "results.json").read_text().replace("acme-1.4b-release", "acme-2")
        work.run.write_text("results.json", text)
    write_to_trackers(work, ASKED)
    assert [tracked.name for tracked, _ in tracker.given] == ["acme-1.4b-release", "acme-2"]
    assert {tracked.settings["corpus"] for tracked, _ in tracker.given} == {"train.parquet"}, (
        "without folders"
    )
    assert work.warnings == []


@pytest.mark.parametrize("error", [ConnectionError("no route"), SystemExit(3), ImportError("half installed")])
def test_a_tracker_that_fails_is_a_warning_and_is_tried_again(
    error: BaseException, work: Any, tracker: Any
) -> None:
    def fail(*_: Any) -> None:
        print("not for standard output")
        raise error

    tracker.log, good = fail, tracker.log
    write_to_trackers(work, ASKED)
    assert len(work.warnings) == 1
    assert work.warnings[0].startswith("mlflow did not take the audit")
    tracker.log = good
    write_to_trackers(work, ASKED)
    assert len(tracker.given) == 1


def test_an_interruption_is_not_taken_for_a_trackers_failure(work: Any, tracker: Any) -> None:
    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    tracker.log = fail
    with pytest.raises(KeyboardInterrupt):
        write_to_trackers(work, ASKED)


def test_a_page_that_names_documents_is_not_logged(work: Any, tracker: Any) -> None:
    write_to_trackers(work, ReportConfig(trackers=("mlflow",), document_ids=True))
    assert [page for _, page in tracker.given] == [None]
    assert "document_ids" in work.warnings[0]


@pytest.mark.parametrize(
    ("value", "told"),
    [("[neptune]", "report.trackers.0"), ("mlflow", "report.trackers"), ("[wandb, wandb]", "twice")],
)
def test_wrong_trackers_are_refused(value: str, told: str, tmp_path: Path) -> None:
    audit = tmp_path / "audit.yaml"
    models = "{teacher: ./teacher, baseline: ./baseline, students: [{name: soft, path: ./soft, kd: soft}]}"
    audit.write_text(f"name: a\ncorpus: ./c.txt\nmodels: {models}\nreport: {{trackers: {value}}}\n")
    with pytest.raises(ConfigError) as error:
        load_audit(audit)
    assert told in str(error.value)


def test_a_tracker_that_is_not_installed_is_refused_before_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else object())
    refuse_missing(["mlflow"])
    with pytest.raises(UsageError) as error:
        refuse_missing(["mlflow", "wandb"])
    assert error.value.key == "report.trackers.1"
    assert "kdaudit[wandb]" in error.value.fix
    with contextlib.suppress(UsageError):
        refuse_missing([])


def test_a_public_page_that_changed_is_logged_again(work: Any, tracker: Any) -> None:
    write_to_trackers(work, ASKED)
    with work.run.stage("pages", "again"):
        work.run.write_text("report.public.html", "another title")
    write_to_trackers(work, ASKED)
    assert len(tracker.given) == 2


def test_a_name_that_is_a_path_is_not_given_to_a_tracker(tmp_path: Path) -> None:
    tracked = tracked_of(without_private_parts(write_run(tmp_path, sample_dict(name=LOCAL_PATH))))
    assert tracked.name == "Privacy audit"
