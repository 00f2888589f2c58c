"""A run that is killed, interrupted, robbed of its worker or of disk space goes on and finds the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import toys

from kdaudit.manifest import check_files

_STAGES = [
    "config",
    "corpus",
    "holdout",
    "extraction/soft",
    "extraction/hard",
    "extraction/teacher",
    "extraction/baseline",
    "perplexity",
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
        self.writes: list[str] = self.run(self.reference)["writes"]

    def run(self, out: Path, **moment: Any) -> dict[str, Any]:
        """One attempt, ended at the moment if one is given."""
        order = {"audit": str(self._audit), "out": str(out), "moment": moment or None}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told

    def moment(self, stage: str, chance: random.Random) -> dict[str, Any]:
        """A random write of a stage, and how far it gets."""
        return {
            "stage": stage,
            "write": chance.randrange(self.writes.count(stage)),
            "how_far": chance.choice(["before", "half", "after"]),
        }

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


@pytest.mark.parametrize("seed", [1])
def test_sigkill_inside_every_stage(driver: Driver, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    for stage in _STAGES:
        told = driver.run(tmp_path / "run", signal=signal.SIGKILL, **driver.moment(stage, chance))
        assert told == {"code": -signal.SIGKILL}, (stage, told)
    driver.finish_and_compare(tmp_path / "run")


def test_sigkill_at_the_seal(driver: Driver, tmp_path: Path) -> None:
    last = driver.writes.count("") - 1
    told = driver.run(tmp_path / "run", signal=signal.SIGKILL, stage="", write=last, how_far="half")
    assert told == {"code": -signal.SIGKILL}
    assert check_files(tmp_path / "run") != []
    driver.finish_and_compare(tmp_path / "run")


def test_sigint_inside_a_write(driver: Driver, tmp_path: Path) -> None:
    chance = random.Random(2)
    for stage in ("corpus", "extraction/hard", "results"):
        told = driver.run(tmp_path / "run", signal=signal.SIGINT, **driver.moment(stage, chance))
        assert told["code"] == 130, (stage, told)
        assert not list((tmp_path / "run").rglob("*.partial"))
    driver.finish_and_compare(tmp_path / "run")


def test_a_killed_worker_is_replaced_with_a_smaller_batch(driver: Driver, tmp_path: Path) -> None:
    told = driver.run(tmp_path / "run", stage="extraction/teacher", worker=1)
    assert told["code"] == 0, told
    (warning,) = [text for text in told["warnings"] if "worker process" in text]
    assert "going on with 16 sequences" in warning
    plan = json.loads((tmp_path / "run" / "manifest.json").read_text())["batch_plan"]
    assert plan == {
        "shard_rows": 8,
        "soft.sequences": 64,
        "hard.sequences": 64,
        "teacher.sequences": 16,
        "baseline.sequences": 64,
    }
    driver.finish_and_compare(tmp_path / "run")


def test_a_worker_that_dies_again_and_again_ends_the_run_which_can_go_on(
    driver: Driver, tmp_path: Path
) -> None:
    told = driver.run(tmp_path / "run", stage="extraction/hard", worker=9)
    assert told["code"] == 4
    assert "run again to go on" in told["error"]
    driver.finish_and_compare(tmp_path / "run")


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
