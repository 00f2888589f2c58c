"""Replicas of a model: shards are shared, results are one replica's, a death means what it means for one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys

from kdaudit.attacks import GREEDY
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import WorkerKilledError
from kdaudit.inference import Batch, Engine, EngineOptions, Ragged, RemoteEngine
from kdaudit.inference.base import Loaded
from kdaudit.inference.executors import LocalExecutor, ModelJob, Shard, local
from kdaudit.inference.workers import fork_server
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.stages import extracting
from kdaudit.runs import store

SHARD_ROWS = 4


class Run:
    """An audit of the toy models, in small shards."""

    def __init__(self, data: Path, folder: Path) -> None:
        self.folder, self.warnings = folder, []
        self._config = load_audit(data / "audit.yaml", ["predictor.enabled=false", "holdout=null"])

    def __call__(self) -> dict[str, Any]:
        warn = self.warnings.append
        run_audit(self._config, self.folder, fresh=False, progress=lambda *_: None, warn=warn)
        return {
            str(path.relative_to(self.folder)): pq.read_table(path)
            for path in sorted(self.folder.rglob("*.parquet"))
            if path.parts[-3] == "extraction" or path.name == "leaks.parquet"
        }


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "SHARD_ROWS", SHARD_ROWS)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    toys.write_audit(folder)
    return folder


def equal(one: dict[str, pa.Table], other: dict[str, pa.Table]) -> bool:
    return one.keys() == other.keys() and all(table.equals(other[name]) for name, table in one.items())


def test_two_replicas_find_what_one_finds_and_a_kill_costs_one_reload(
    data: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = Run(data, tmp_path / "one")()
    monkeypatch.setattr(extracting, "EXECUTOR", LocalExecutor(2))
    begin, used, killed = RemoteEngine.begin, set(), []

    def begun(engine: RemoteEngine, *given: Any) -> None:
        begin(engine, *given)
        used.add(engine._worker.pid)
        if len(used) == 2 and not killed and len([*(tmp_path / "two").glob("extraction/soft/part-*")]) >= 2:
            killed.append(engine._worker.pid)
            os.kill(engine._worker.pid, signal.SIGKILL)

    monkeypatch.setattr(RemoteEngine, "begin", begun)
    run = Run(data, tmp_path / "two")
    shared = run()
    assert killed
    assert len(used) >= 2 * 4 + 2, "two for each of four models, and two that took over from the killed"
    assert equal(alone, shared)
    assert len([name for name in shared if name.startswith("extraction/soft/")]) == -(-31 // SHARD_ROWS)
    reloads = [one for one in run.warnings if "its worker process was killed; it is loaded again" in one]
    assert [one.partition(":")[0] for one in reloads] == ["soft"]


def test_what_was_done_before_a_death_is_kept(
    data: Path, tmp_path: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica that dies in each attempt ends the run; the next call does the rest alone."""
    expected = Run(data, tmp_path / "one")()
    with monkeypatch.context() as patch:
        patch.setattr(extracting, "EXECUTOR", LocalExecutor(2))
        begin = RemoteEngine.begin

        def begun(engine: RemoteEngine, *given: Any) -> None:
            begin(engine, *given)
            if [*(tmp_path / "two").glob("extraction/soft/part-*")]:
                os.kill(engine._worker.pid, signal.SIGKILL)

        patch.setattr(RemoteEngine, "begin", begun)
        with pytest.raises(WorkerKilledError, match="finished shards are kept"):
            Run(data, tmp_path / "two")()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("extraction/soft/part-*")}
    assert kept
    assert equal(Run(data, tmp_path / "two")(), expected)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@dataclass(frozen=True)
class Sees:
    """What a worker sees of its machine."""

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        return pa.table({"gpus": [os.environ.get("CUDA_VISIBLE_DEVICES")], "pid": [os.getpid()]})


@pytest.fixture
def own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Workers that find this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(fork_server, "_running", {})
    return


def shards(count: int) -> Iterator[Shard]:
    one = Ragged.of([[5, 6, 7]])
    return (Shard(str(number), Batch(np.array([number]), one, one)) for number in range(count))


def test_each_group_of_gpus_has_a_replica_that_sees_it_alone(
    tmp_path: Path, own_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.save_model(tmp_path, 1)
    monkeypatch.setattr(local, "gpu_groups", lambda _: [["0", "3"], ["5", "6"]])
    options = EngineOptions("transformers", str(tmp_path), 14, "float32")
    with LocalExecutor().load(ModelJob(options, 9)) as model:
        rows = [finished.done.rows.to_pylist()[0] for finished in model.map(Sees(), shards(9))]
    assert {row["gpus"] for row in rows} == {"0,3", "5,6"}
    assert len({row["pid"] for row in rows}) == 2
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    with LocalExecutor().load(ModelJob(options, 1)) as model:
        (only,) = model.map(Sees(), shards(1))
    assert only.done.rows["gpus"].to_pylist() == [None], "one shard needs one replica, and all there is"


def test_a_replica_on_another_kind_of_gpu_gets_no_shard(
    tmp_path: Path, own_modules: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A near tie may fall otherwise there, and each shard is written as of the first one's device."""
    toys.save_model(tmp_path, 1)
    monkeypatch.setattr(local, "gpu_groups", lambda _: [["0"], ["1"], ["2"]])
    wait, loaded = RemoteEngine.wait, []

    def waited(engine: RemoteEngine) -> RemoteEngine:
        loaded.append(wait(engine))
        if len(loaded) == 2:
            engine._loaded = Loaded(engine.info._replace(device="another"), engine.sequences)
        return engine

    monkeypatch.setattr(RemoteEngine, "wait", waited)
    options = EngineOptions("transformers", str(tmp_path), 14, "float32")
    with LocalExecutor().load(ModelJob(options, 9)) as model:
        rows = [finished.done.rows.to_pylist()[0] for finished in model.map(Sees(), shards(9))]
    assert {row["gpus"] for row in rows} == {"0", "2"}


def test_one_replica_gives_its_shards_in_order_and_asks_for_two_ahead(tmp_path: Path) -> None:
    toys.save_model(tmp_path, 1)
    asked: list[int] = []

    def watched() -> Iterator[Shard]:
        for shard in shards(6):
            asked.append(int(shard.name))
            yield shard

    with LocalExecutor(1).load(ModelJob(EngineOptions("transformers", str(tmp_path), 14), 6)) as model:
        for number, finished in enumerate(model.map(GREEDY, watched())):
            assert finished.name == str(number)
            assert finished.done.rows["example_id"].to_pylist() == [number]
            assert len(asked) == min(number + 2, 6), "read ahead while the engine works, and no further"


@pytest.mark.parametrize(
    ("named", "together", "expected"),
    [
        ("0,1,2,3", 1, [["0"], ["1"], ["2"], ["3"]]),
        ("4, 5,6,7", 2, [["4", "5"], ["6", "7"]]),
        ("GPU-a,GPU-b,GPU-c", 2, [["GPU-a", "GPU-b"]]),
        ("", 1, []),
        ("-1", 1, []),
        ("0", 2, []),
    ],
)
def test_gpus_are_those_that_the_process_may_use(
    named: str, together: int, expected: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert local.gpu_groups(together) == expected
