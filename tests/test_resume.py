"""A run that is killed, interrupted, robbed of its worker or of disk space goes on and finds the same."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys
from click.testing import CliRunner

from kdaudit.cli import main
from kdaudit.runs.verify import check_files

# Exact and near-verbatim extraction are one pass: both stages are open while it writes.
_BY_MODEL = ("engine_check", "attacks/near_verbatim")
_SCORED = ("perplexity", "scores", "holdout/scores")
_STAGES = [
    "config",
    "corpus",
    "holdout",
    *(f"{stage}/{name}" for name in ("soft", "hard", "teacher", "baseline") for stage in _BY_MODEL),
    "continuations",
    "scoring/sample.parquet",
    "holdout/scoring/sample.parquet",
    "scoring/features.parquet",
    "features",
    *(f"{part}/teacher" for part in _SCORED),
    "perplexity/baseline",
    "nearness/baseline.parquet",
    *(f"{part}/baseline" for part in _SCORED[1:]),
    *(f"{part}/{name}" for name in ("soft", "hard") for part in _SCORED),
    "entropy",
    "predictor",
    "results",
    "report",
]
_TIMES = {"created", "seconds", "tokens_per_second"}


class Driver:
    """Audits of one toy family, each attempt in a process of its own; see resume_driver.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._audit = toys.write_audit(folder)
        script = Path(__file__).with_name("resume_driver.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.reference = folder / "undisturbed"
        self.run(folder / "warm-up")  # the libraries are imported while it waits
        began = time.monotonic()
        self.writes: list[str] = self.run(self.reference)["writes"]
        self.seconds = time.monotonic() - began

    def run(self, out: Path, *, audit: str | None = None, **moment: Any) -> dict[str, Any]:
        """One attempt, ended at the moment if one is given."""
        order = {"audit": audit or str(self._audit), "out": str(out), "moment": moment or None}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def moment(self, stage: str, chance: random.Random, how_far: str) -> dict[str, Any]:
        """A random write of a stage, and how far it gets."""
        return {"stage": stage, "write": chance.randrange(self.writes.count(stage)), "how_far": how_far}

    def finish_and_compare(self, out: Path) -> None:
        """Run on undisturbed; every result is that of a run that never was disturbed."""
        assert self.run(out)["code"] == 0
        assert results(out) == results(self.reference)
        assert check_files(out) == []


def results(run: Path) -> Any:
    """results.json without its times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if key not in _TIMES}
        return [timeless(inner) for inner in value] if isinstance(value, list) else value

    return timeless(json.loads((run / "results.json").read_text()))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    found = Driver(tmp_path_factory.mktemp("resume"))
    yield found
    assert found.process.stdin is not None
    found.process.stdin.close()
    found.process.wait(timeout=30)


def test_the_undisturbed_run_has_every_stage_and_several_shards(driver: Driver) -> None:
    assert {*driver.writes} - {""} == {*_STAGES}
    assert len(list((driver.reference / "extraction" / "hard").iterdir())) == 4
    assert results(driver.reference)["models"]["soft"]["memorized"] == 5


def test_sigkill_inside_a_write_of_every_stage(driver: Driver, tmp_path: Path) -> None:
    chance = random.Random(1)
    for number, stage in enumerate(_STAGES):
        how_far = ("half", "before", "after")[number % 3]
        told = driver.run(tmp_path / "run", signal=signal.SIGKILL, **driver.moment(stage, chance, how_far))
        assert told == {"code": -signal.SIGKILL}, (stage, told)
    driver.finish_and_compare(tmp_path / "run")


def test_sigkill_at_random_moments(driver: Driver, tmp_path: Path) -> None:
    """Between writes too: inside an engine's call, a load, the pass over the corpus."""
    chance = random.Random(4)
    killed = 0
    for _ in range(10):
        told = driver.run(
            tmp_path / "run", signal=signal.SIGKILL, timer=chance.uniform(0.05, driver.seconds / 4)
        )
        killed += told["code"] == -signal.SIGKILL
    assert killed >= 3
    driver.finish_and_compare(tmp_path / "run")


@pytest.mark.parametrize("how_far", ["before", "half", "after"])
@pytest.mark.parametrize("which", ["first", "last"])
def test_sigkill_at_the_first_write_and_at_the_seal(
    driver: Driver, tmp_path: Path, which: str, how_far: str
) -> None:
    write = 0 if which == "first" else driver.writes.count("") - 1
    out = Path(shutil.copytree(driver.reference, tmp_path / "run")) if which == "last" else tmp_path / "run"
    if which == "last":  # only the seal is left to write
        (out / "manifest.sha256").unlink()
        write = 0
    told = driver.run(out, signal=signal.SIGKILL, stage="", write=write, how_far=how_far)
    assert told == {"code": -signal.SIGKILL}
    driver.finish_and_compare(out)


def test_sigint_inside_a_write(driver: Driver, tmp_path: Path) -> None:
    chance = random.Random(2)
    for stage in ("corpus", "attacks/near_verbatim/hard", "results"):
        told = driver.run(tmp_path / "run", signal=signal.SIGINT, **driver.moment(stage, chance, "half"))
        assert told["code"] == 130, (stage, told)
        assert not list((tmp_path / "run").rglob("*.partial"))
    driver.finish_and_compare(tmp_path / "run")


@pytest.mark.parametrize(
    "stage", ["attacks/near_verbatim/soft", "attacks/near_verbatim/teacher", "perplexity/hard", "features"]
)
def test_a_killed_worker_is_replaced_with_a_smaller_batch(driver: Driver, tmp_path: Path, stage: str) -> None:
    told = driver.run(tmp_path / "run", stage=stage, worker=1)
    assert told["code"] == 0, told
    name = stage.split("/")[-1]
    (warning,) = [text for text in told["warnings"] if "worker" in text]
    assert warning == f"{name}: its worker process was killed; it is loaded again, with batches of a quarter"
    plan = json.loads((tmp_path / "run" / "manifest.json").read_text())["batch_plan"]
    batches = {f"{model}.sequences": 64 for model in ("soft", "hard", "teacher", "baseline")}
    if stage.startswith("attacks"):
        batches[f"{name}.sequences"] = 16
    assert plan == {"shard_rows": 8, **batches}
    driver.finish_and_compare(tmp_path / "run")


@pytest.mark.parametrize("stage", ["attacks/near_verbatim/hard", "perplexity/soft"])
def test_a_worker_that_dies_again_and_again_ends_the_run_which_can_go_on(
    driver: Driver, tmp_path: Path, stage: str
) -> None:
    told = driver.run(tmp_path / "run", stage=stage, worker=9)
    assert told["code"] == 4
    assert stage.split("/")[-1] in told["error"]
    assert "run again to resume" in told["error"]
    plan = json.loads((tmp_path / "run" / "manifest.json").read_text())["batch_plan"]
    assert plan.get("hard.sequences", 64) == 64, "a crowded hour must not slow the run that goes on"
    driver.finish_and_compare(tmp_path / "run")


def test_workers_killed_at_random_moments(driver: Driver, tmp_path: Path) -> None:
    chance = random.Random(5)
    for _ in range(5):
        told = driver.run(tmp_path / "run", worker_timer=chance.uniform(0.1, driver.seconds / 2))
        assert told["code"] in (0, 4), told
    driver.finish_and_compare(tmp_path / "run")


def test_a_tokenizer_that_was_changed_is_refused(driver: Driver, tmp_path: Path) -> None:
    folder = tmp_path / "family"
    shutil.copytree(driver.folder, folder, ignore=shutil.ignore_patterns("undisturbed"))
    shutil.copytree(driver.reference, tmp_path / "run")
    for config in folder.glob("*/tokenizer_config.json"):
        changed = {**json.loads(config.read_text()), "bos_token": "<|endoftext|>"}
        config.write_text(json.dumps(changed))
    told = driver.run(tmp_path / "run", audit=str(folder / "audit.yaml"))
    assert told["code"] == 2, told
    assert "tokenizer" in told["error"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_the_run_goes_on_once_there_is_space(
    driver: Driver, small_disk: Path
) -> None:
    for size in ("64k", "128k", "160k"):
        subprocess.run(["mount", "-o", f"remount,size={size}", str(small_disk)], check=True)
        told = driver.run(small_disk / "run")
        assert told["code"] == 4, (size, told)
        assert "No space left" in told["error"]
        assert "free space" in told["error"]
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    driver.finish_and_compare(small_disk / "run")


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [_flip, _truncate, Path.unlink])
def test_verify_names_every_damaged_file_of_a_run(driver: Driver, tmp_path: Path, damage: Any) -> None:
    run = Path(shutil.copytree(driver.reference, tmp_path / "run"))
    names = [str(path.relative_to(run)) for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    assert len(names) > 40
    for name in names:
        whole, mode = (run / name).read_bytes(), (run / name).stat().st_mode
        damage(run / name)
        told = CliRunner().invoke(main, ["verify", str(run)])
        assert told.exit_code != 0, name
        assert name in told.output, (name, told.output)
        (run / name).write_bytes(whole)
        (run / name).chmod(mode)
    assert check_files(run) == []


def test_verify_names_an_added_file_in_every_folder(driver: Driver, tmp_path: Path) -> None:
    run = Path(shutil.copytree(driver.reference, tmp_path / "run"))
    for folder in [run, *(path for path in run.rglob("*") if path.is_dir())]:
        added = folder / "part-99999.parquet"
        added.write_bytes(b"x")
        told = CliRunner().invoke(main, ["verify", str(run)])
        assert told.exit_code == 1
        assert f"{added.relative_to(run)}: was added" in told.output
        added.unlink()
