"""Replicas of a model: shards are shared, results are one replica's, a death means what it means for one."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys

from kdaudit.attacks import GREEDY
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import UsageError, WorkerKilledError
from kdaudit.inference import Batch, Engine, EngineOptions, Ragged, RemoteEngine
from kdaudit.inference.base import Loaded
from kdaudit.inference.executors import LocalExecutor, ModelJob, Replicas, Shard, places
from kdaudit.inference.scoring import FeatureWorker, PairWorker, Question
from kdaudit.inference.workers import fork_server
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.stages import features
from kdaudit.pipelines.stages.scorers import Scorers
from kdaudit.runs import store

SHARD_ROWS = 4
_TIMES = {"created", "seconds", "tokens_per_second", "suffix_hmac", "config"}
"""Keys of results.json whose values no two runs share: times, and hashes with the run's own key."""


class Outcome(NamedTuple):
    """What an audit wrote, without times."""

    tables: dict[str, pa.Table]
    results: dict[str, Any]

    def equals(self, other: Outcome) -> bool:
        return (
            self.results == other.results
            and self.tables.keys() == other.tables.keys()
            and all(table.equals(other.tables[name]) for name, table in self.tables.items())
        )


class Run:
    """An audit of the toy models, in small shards."""

    def __init__(
        self, data: Path, folder: Path, workers: int | str = "auto", *, predictor: bool = False
    ) -> None:
        self.folder, self.warnings = folder, []
        words = [f"predictor.enabled={json.dumps(predictor)}", f"compute.workers={workers}"]
        self._config = load_audit(data / "audit.yaml", words)

    def __call__(self) -> Outcome:
        warn = self.warnings.append
        run_audit(self._config, self.folder, fresh=False, progress=lambda *_: None, warn=warn)
        tables = {
            str(path.relative_to(self.folder)): _without_own_key(pq.read_table(path))
            for path in sorted(self.folder.rglob("*.parquet"))
            if path.parts[-3] in ("extraction", "scores")
            or path.name in ("leaks.parquet", "continuations.parquet")
        }
        return Outcome(tables, untimed(json.loads((self.folder / "results.json").read_text())))


def _without_own_key(table: pa.Table) -> pa.Table:
    """What does not depend on the run's own key."""
    return table.drop_columns("suffix_hmac") if "suffix_hmac" in table.column_names else table


def untimed(value: Any) -> Any:
    if isinstance(value, list):
        return [untimed(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: untimed(one) for key, one in value.items() if key not in _TIMES}


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "SHARD_ROWS", SHARD_ROWS)
        yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    toys.write_audit(folder)
    return folder


@pytest.fixture(scope="module")
def alone_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone") / "run"


@pytest.fixture(scope="module")
def alone(data: Path, alone_dir: Path) -> Outcome:
    """What one worker finds."""
    return Run(data, alone_dir)()


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> int:
    """A machine that is said to have four cores, all of them one; given is its number.

    It is not where this process runs by itself, so that a worker that is not bound shows.
    """
    own = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, own)
    core = next((one for one in sorted(every) if {one} != own), min(own))
    monkeypatch.setattr(places, "usable_cores", lambda: [core] * 4)
    return core


@pytest.mark.parametrize("workers", [2, 4])
def test_replicas_find_what_one_finds_and_a_kill_costs_one_reload(
    workers: int,
    data: Path,
    alone: Outcome,
    tmp_path: Path,
    four_cores: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin, used, calls, killed = RemoteEngine.begin, set(), [], []

    def begun(engine: RemoteEngine, *given: Any) -> None:
        begin(engine, *given)
        used.add(engine._worker.pid)
        calls.append(engine)
        if len(calls) == 7:  # of the first model's 8 shards
            killed.append(engine._worker.pid)
            os.kill(engine._worker.pid, signal.SIGKILL)

    monkeypatch.setattr(RemoteEngine, "begin", begun)
    ask, scored = FeatureWorker.begin, set()

    def asked(worker: FeatureWorker, question: Question) -> None:
        scored.add(worker._worker.pid)
        ask(worker, question)

    monkeypatch.setattr(FeatureWorker, "begin", asked)
    run = Run(data, tmp_path / "run", workers)
    shared = run()
    assert killed
    assert len(used) >= 4 * workers + 1, (
        "all of each of four models, and those that took over from the killed"
    )
    assert len(scored) == 4 * workers
    assert alone.equals(shared)
    assert len([name for name in shared.tables if name.startswith("extraction/soft/")]) == -(
        -31 // SHARD_ROWS
    )
    reloads = [one for one in run.warnings if "its worker process was killed; it is loaded again" in one]
    assert [one.partition(":")[0] for one in reloads] == ["soft"]


def test_the_order_in_which_shards_are_finished_changes_nothing(
    data: Path, alone: Outcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor in which windows are scored."""
    mapped, each = Replicas.map, Scorers.each
    monkeypatch.setattr(Replicas, "map", lambda *given: reversed([*mapped(*given)]))
    monkeypatch.setattr(Scorers, "each", lambda *given: reversed([*each(*given)]))
    assert alone.equals(Run(data, tmp_path / "run")())


@pytest.mark.usefixtures("alone")
def test_features_are_those_of_one_process_in_whatever_order_they_come(
    data: Path, alone_dir: Path, tmp_path: Path, four_cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, used = {}, set()
    finish = PairWorker.finish

    def finished(worker: PairWorker) -> Any:
        used.add(worker._worker.pid)
        return finish(worker)

    monkeypatch.setattr(PairWorker, "finish", finished)
    shared = features.share_out
    for workers in (1, 2):
        if workers == 2:
            monkeypatch.setattr(features, "share_out", lambda *given: reversed([*shared(*given)]))
        run = Run(data, Path(shutil.copytree(alone_dir, tmp_path / str(workers))), workers, predictor=True)
        run()
        tables = [pq.read_table(path) for path in sorted(run.folder.glob("features/part-*"))]
        assert len(tables) == -(-31 // SHARD_ROWS)
        found[workers] = pa.concat_tables(one.replace_schema_metadata() for one in tables)
        assert len(used) == (1 if workers == 1 else 3)
    assert found[1].equals(found[2])


def test_what_was_done_before_a_death_is_kept(
    data: Path, alone: Outcome, tmp_path: Path, four_cores: int
) -> None:
    """A replica that dies in each attempt ends the run; the next call does the rest, with another number."""
    with pytest.MonkeyPatch.context() as patch:
        begin = RemoteEngine.begin

        def begun(engine: RemoteEngine, *given: Any) -> None:
            begin(engine, *given)
            if [*(tmp_path / "run").glob("extraction/soft/part-*")]:
                os.kill(engine._worker.pid, signal.SIGKILL)

        patch.setattr(RemoteEngine, "begin", begun)
        with pytest.raises(WorkerKilledError, match="finished shards are kept"):
            Run(data, tmp_path / "run", 2)()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("extraction/soft/part-*")}
    assert kept
    assert Run(data, tmp_path / "run", 1)().equals(alone)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@dataclass(frozen=True)
class Sees:
    """What a worker sees of its machine."""

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        import torch

        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND")
        gpus, *cores = (os.environ.get(name) for name in names)
        return pa.table(
            {
                "gpus": [gpus],
                "pid": [os.getpid()],
                "cores": [
                    [str(one) for one in (*cores, sorted(os.sched_getaffinity(0)), torch.get_num_threads())]
                ],
            }
        )


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
    monkeypatch.setattr(places, "gpu_groups", lambda _: [["0", "3"], ["5", "6"]])
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
    monkeypatch.setattr(places, "gpu_groups", lambda _: [["0"], ["1"], ["2"]])
    wait, loaded = RemoteEngine.wait, []

    def waited(engine: RemoteEngine) -> RemoteEngine:
        loaded.append(wait(engine))
        if len(loaded) == 2:
            engine._loaded = Loaded(engine.info._replace(device="another"), engine.max_num_seqs)
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


def test_on_a_cpu_each_replica_keeps_to_its_cores(tmp_path: Path, own_modules: None, four_cores: int) -> None:
    toys.save_model(tmp_path, 1)
    options = EngineOptions("transformers", str(tmp_path), 14, "float32")
    with LocalExecutor(2).load(ModelJob(options, 9)) as model:
        rows = [finished.done.rows.to_pylist()[0] for finished in model.map(Sees(), shards(9))]
    assert len({row["pid"] for row in rows}) == 2
    bound = ["2", f"{four_cores},{four_cores}", f"[{four_cores}]", "2"]
    assert all(row["cores"] == bound for row in rows)


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [(0, 1, 2, 3, 4)]), (2, [(0, 1), (2, 3)]), (5, [(0,), (1,), (2,), (3,), (4,)])],
)
def test_cores_are_shared_out_evenly(count: int, expected: list[tuple[int, ...]]) -> None:
    assert places.core_groups(range(5), count) == expected


@pytest.mark.parametrize(
    ("gpus", "replicas", "together", "message"),
    [
        (
            "",
            5,
            1,
            "asks for 5 replicas, and this process may use 4 CPU cores; set it to 4 or fewer, or to auto",
        ),
        ("0,1", 3, 1, "asks for 3 replicas, and the GPUs of this machine hold 2; set it to 2 or to auto"),
        ("0,1,2,3", 3, 2, "asks for 3 replicas of 2 GPUs each, and the GPUs of this machine hold 2"),
    ],
)
def test_more_replicas_than_there_is_room_for_are_refused(
    gpus: str, replicas: int, together: int, message: str, four_cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    with pytest.raises(UsageError) as refused:
        places.check_replicas(replicas, together)
    assert str(refused.value).startswith(f"compute.workers: {message}")
    places.check_replicas(replicas - 1 if together == 1 else 2, together)


def test_an_audit_refuses_too_many_replicas_before_it_reads_the_corpus(
    data: Path, tmp_path: Path, four_cores: int
) -> None:
    with pytest.raises(UsageError, match="asks for 5 replicas"):
        Run(data, tmp_path / "run", 5)()
    assert not (tmp_path / "run" / "examples").exists()


def test_replicas_whose_weights_do_not_fit_the_memory_are_refused(
    tmp_path: Path, four_cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.save_model(tmp_path, 1)
    weights = (tmp_path / "model.safetensors").stat().st_size
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=3.5 * weights))
    options = EngineOptions("transformers", str(tmp_path), 14, "float32")
    with pytest.raises(UsageError, match=r"4 replicas of .* set it to 3") as refused:
        LocalExecutor(4).load(ModelJob(options, 9)).__enter__()
    assert refused.value.key == "compute.workers"


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
    assert places.gpu_groups(together) == expected
