"""The public API: what `import kdaudit` promises, and that it costs nothing until it is used."""

from __future__ import annotations

import hmac
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import toys

import kdaudit
from kdaudit import AuditConfig, RunError, UsageError, audit, open_run
from kdaudit.analysis.leaks import read_leaks
from kdaudit.analysis.severity import worst_first
from kdaudit.config.yaml.loading import load_audit
from kdaudit.schemas.distillation import DistillRecord, render

PROMISED = {
    "AuditConfig",
    "DistillConfig",
    "Distillation",
    "KdauditError",
    "Run",
    "RunError",
    "ScreenConfig",
    "Screening",
    "UsageError",
    "__version__",
    "audit",
    "compare",
    "distill",
    "open_run",
    "screen",
}


class Environment:
    """Runs in a worker: what it finds in its environment."""

    def __init__(self, options: dict[str, list[str]]) -> None:
        self._names = options["names"]

    def describe(self) -> list[str | None]:
        return [os.environ.get(name) for name in self._names]


def test_all_that_is_promised_is_there_and_documented() -> None:
    assert set(kdaudit.__all__) == PROMISED
    for name in PROMISED:
        assert name == "__version__" or getattr(kdaudit, name).__doc__, name
    assert set(dir(kdaudit)) == PROMISED
    with pytest.raises(AttributeError, match="has no attribute 'utils'"):
        _ = kdaudit.utils


def test_to_import_it_loads_no_library_and_changes_nothing() -> None:
    script = (
        "import os, sys, json; before = dict(os.environ); modules = set(sys.modules); import kdaudit; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - modules}; "
        "third = sorted(name for name in new if name not in sys.stdlib_module_names); "
        "print(json.dumps([third, dict(os.environ) == before]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [["kdaudit"], True]


def test_the_command_line_and_workers_switch_usage_reports_off() -> None:
    names = ("HF_HUB_DISABLE_TELEMETRY", "HF_UPDATE_DOWNLOAD_COUNTS", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    command = (
        "import os, kdaudit.cli as cli, click\n"
        f"@cli.main.command()\ndef show(): click.echo([os.environ.get(name) for name in {names}])\n"
        "cli.main(['show'])"
    )
    worker = (
        "from kdaudit.inference.workers import Worker\n"
        f"with Worker('test_api:Environment', {{'names': {list(names)}}}) as it: print(it.ready)"
    )
    path = {"PYTHONPATH": str(Path(__file__).parent)}
    for script in (command, worker):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, env=clean | path, check=False
        )
        assert done.stdout.strip() == "['1', '0', '1', '1']", done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("api")
    toys.write_audit(made)
    return made


@pytest.fixture(scope="module")
def run(folder: Path) -> kdaudit.Run:
    return audit(folder / "audit.yaml", out=folder / "run")


def test_an_audit_gives_typed_results_and_tables(run: kdaudit.Run) -> None:
    results, examples = run.results, run.examples()
    assert results.models["hard"].memorized == run.attack("greedy", "hard")["memorized"].to_pylist().count(
        True
    )
    assert len(examples) == results.corpus.examples
    assert examples["example_id"].to_pylist() == run.attack("greedy", "teacher")["example_id"].to_pylist()
    assert run.leaks()["example_id"].to_pylist() == [leak.example_id for leak in results.leaks]
    floor = results.models["hard"].holdout
    assert floor is not None
    assert (
        floor.examples == len(run.examples(holdout=True)) == len(run.attack("greedy", "hard", holdout=True))
    )
    assert run.report.exists()
    assert run.public_report.exists()
    assert run.verify() == []


def test_a_risk_that_is_not_there_says_why(run: kdaudit.Run) -> None:
    if (run.path / "risk.parquet").exists():
        assert run.risk().equals(pq.read_table(run.path / "risk.parquet"))
    else:
        with pytest.raises(UsageError, match="no risk predictor"):
            run.risk()


def test_hashes_of_leaks_need_the_runs_own_key(run: kdaudit.Run) -> None:
    key = bytes.fromhex((run.path / "hmac.key").read_text())
    suffixes = {row["example_id"]: row["suffix"] for row in run.leaks().to_pylist()}
    assert run.results.leaks
    for leak in run.results.leaks:
        text = suffixes[leak.example_id].encode()
        assert leak.suffix_hmac == hmac.new(key, text, "sha256").hexdigest()


@pytest.mark.parametrize("shards", ["examples", "extraction/hard", "holdout/examples"])
def test_a_table_without_all_its_shards_is_refused(run: kdaudit.Run, tmp_path: Path, shards: str) -> None:
    copy = open_run(shutil.copytree(run.path, tmp_path / "run"))
    read = {
        "examples": copy.examples,
        "extraction/hard": lambda: copy.attack("greedy", "hard"),
        "holdout/examples": lambda: copy.examples(holdout=True),
    }[shards]
    (shard,) = (copy.path / shards).glob("part-*")
    whole = pq.read_table(shard)
    pq.write_table(whole[:4], shard)
    pq.write_table(whole[4:], shard.with_name("part-00001.parquet"))
    assert len(read()) == len(whole)
    pq.write_table(whole[4:].drop_columns(["example_id"]), shard.with_name("part-00001.parquet"))
    with pytest.raises(UsageError, match="its shards have different columns"):
        read()
    shard.unlink()
    with pytest.raises(UsageError, match=f"holds {len(whole) - 4} examples, and the audit had {len(whole)}"):
        read()
    shard.with_name("part-00001.parquet").unlink()
    with pytest.raises(UsageError, match="holds no shards"):
        read()


def test_wrong_names_are_refused_with_those_that_there_are(run: kdaudit.Run) -> None:
    with pytest.raises(ValueError, match="model 'softt' is not one of this run's: teacher"):
        run.attack("greedy", "softt")
    with pytest.raises(ValueError, match="attack 'greed' is not one of this run's: greedy"):
        run.attack("greed", "soft")


def test_the_audits_of_a_distillation_come_by_rising_seed() -> None:
    trained = {"method": "soft", "parameters": 1, "windows": 1, "tokens": 1, "steps": 1, "losses": []}
    rest = {"seconds": 0.0, "holdout_perplexity": 1.0, "measured": ""}
    folders = [("teacher", 0), ("seed-10/soft", 10), ("seed-2/soft", 2), ("seed-2/hard", 2)]
    models = [{"folder": folder, "seed": seed, **trained, **rest} for folder, seed in folders]
    counts = {"corpus_windows": 1, "corpus_tokens": 1, "holdout_windows": 1}
    record = DistillRecord.model_validate({"name": "a", "versions": {}, "models": models, **counts})
    audits = [Path("out") / f"seed-{seed}" / "audit.yaml" for seed in (2, 10)]
    assert kdaudit.Distillation(Path("out"), record).audits == audits
    shown = [line.split()[-1] for line in render(record, Path("out")).splitlines() if "kdaudit run" in line]
    assert shown == [str(audit) for audit in audits]


def test_a_finished_run_is_opened_without_a_lock_and_unchanged(run: kdaudit.Run) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    opened = open_run(str(run.path))
    assert opened.results == run.results
    assert opened.leaks().equals(run.leaks())
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before


def test_a_folder_without_results_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no results\.json; name the directory"):
        open_run(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        audit(tmp_path / "audit.yaml")
    assert not issubclass(UsageError, RunError)


def test_a_configuration_built_in_code_takes_paths_from_the_working_directory(
    folder: Path,
    run: kdaudit.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(folder)
    config = AuditConfig.model_validate(
        {
            "name": "in-code",
            "corpus": {"path": "./corpus.jsonl", "window": toys.PREFIX + toys.SUFFIX, "limit": 6},
            "models": {
                "teacher": {"path": "./teacher"},
                "students": [{"name": "hard", "path": "./hard", "kd": "hard"}],
            },
            "extraction": {
                "engine": "transformers",
                "prefix_tokens": toys.PREFIX,
                "suffix_tokens": toys.SUFFIX,
            },
        }
    )
    steps: list[str] = []
    with caplog.at_level(logging.WARNING, logger="kdaudit"):
        made = audit(config, progress=lambda what, done, total: steps.append(what))
    assert made.path == Path("runs/in-code")
    assert (folder / "runs" / "in-code" / "results.json").exists()
    assert made.results.corpus.examples == 6
    assert any("hard" in step for step in steps)


def test_results_list_the_first_leaks_and_count_all(run: kdaudit.Run, folder: Path) -> None:
    """Another `report.max_examples` repeats the last stages alone; the list is cut, the counts stay."""
    before, kept = run.results, {path: path.stat().st_mtime_ns for path in run.path.rglob("part-*.parquet")}
    assert before.leak_counts is not None
    assert before.leak_counts.leaks == len(before.leaks) > 2
    config = load_audit(folder / "audit.yaml")
    fewer = config.model_copy(update={"report": config.report.model_copy(update={"max_examples": 2})})
    again = audit(fewer, out=run.path)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    after = again.results
    assert after.leaks == sorted(worst_first(before.leaks)[:2], key=lambda leak: leak.example_id)
    assert (after.leak_counts, after.leak_suffixes, after.gate) == (
        before.leak_counts,
        before.leak_suffixes,
        before.gate,
    )
    assert [*read_leaks(run.path, after)] == [*before.leaks]
    audit(folder / "audit.yaml", out=run.path)
    assert open_run(run.path).results.leaks == before.leaks
