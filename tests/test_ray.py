"""Replicas in Ray find what one worker finds, whatever dies. One cluster of two raylets serves all tests."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import toys
from test_executors import SHARD_ROWS, untimed

from kdaudit.attacks import GREEDY
from kdaudit.config.models import ModelConfig
from kdaudit.config.yaml.loading import load_audit
from kdaudit.corpus import windows
from kdaudit.errors import EngineError, ModelError, UsageError, WorkerDiedError, WorkerKilledError
from kdaudit.inference import Batch, EngineOptions, Ragged
from kdaudit.inference.executors import HostedModel, LocalExecutor, ModelJob, Shard, check_ray, encoding
from kdaudit.inference.executors.ray import RayExecutor, actor, answers, executor
from kdaudit.inference.executors.ray.places import Plan, Room, cores_each, plan_encoders, plan_replicas
from kdaudit.inference.executors.ray.process import RayProcess
from kdaudit.models.resolving import local_fingerprint
from kdaudit.pipelines.audit import run_audit
from kdaudit.runs import store
from kdaudit.runs.layout import RESULTS

needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed (kdaudit[ray])"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        room = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
        started = Cluster(initialize_head=True, head_node_args=room)
        started.add_node(num_cpus=1, object_store_memory=80 << 20)
        yield started
        started.shutdown()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    toys.save_model(folder, 1)
    return folder


def job(model: Path, **more: Any) -> ModelJob:
    return ModelJob(EngineOptions("transformers", str(model), 14, "float32"), 8, **more)


def shards(model: Path) -> list[Shard]:
    """Half of the targets are what the model says."""
    random = np.random.default_rng(3)
    prompts = Ragged.of(random.integers(2, toys.VOCABULARY, (48, toys.PREFIX)))
    with LocalExecutor(1).load(job(model)) as loaded:
        own = loaded.generate(prompts, toys.SUFFIX)
    other = random.integers(2, toys.VOCABULARY, (48, toys.SUFFIX))
    targets = Ragged.of(one if row % 2 else other[row] for row, one in enumerate(own))
    every = Batch(np.arange(48), prompts, targets)
    return [Shard(str(start), every.take(np.arange(start, start + 6))) for start in range(0, 48, 6)]


def found(mapped: Any) -> dict[str, Any]:
    return {one.name: one.done.rows.to_pydict() for one in mapped}


@needs_ray
def test_actors_finish_an_audit_as_one_worker_does_though_one_is_killed(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import json

    import pyarrow.parquet as pq

    monkeypatch.setattr(store, "SHARD_ROWS", SHARD_ROWS)
    monkeypatch.setattr(windows, "BATCH_DOCUMENTS", 2)
    monkeypatch.setattr(encoding, "_ALONE", 450)  # more than the holdout has
    monkeypatch.setattr(executor, "usable_cores", lambda: [0])
    (tmp_path / "data").mkdir()
    path = toys.write_audit(tmp_path / "data")
    soft = tmp_path / "data" / "soft"
    one = ["models.teacher=null", "models.baseline=null", "predictor.enabled=false"]
    one.append(f"models.students=[{{name: soft, path: {soft}, kd: soft}}]")
    send, asked, warnings = RayProcess.send, [], []

    def killing(process: RayProcess, method: str, *arrays: Any, **values: Any) -> None:
        asked.append((method, process.pid))
        send(process, method, *arrays, **values)
        if [one for one, _ in asked].count(method) == 4 and method in ("encode", "run", "scores"):
            os.kill(process.pid, signal.SIGKILL)

    monkeypatch.setattr(RayProcess, "send", killing)
    outcomes = []
    for name, more in (("alone", []), ("ray", [f"compute.ray={cluster.address}", "compute.workers=2"])):
        out = tmp_path / name
        run_audit(
            load_audit(path, one + more), out, fresh=False, progress=lambda *_: None, warn=warnings.append
        )
        tables = {str(part.relative_to(out)): pq.read_table(part) for part in sorted(out.rglob("*.parquet"))}
        tables.pop("engine_check/soft.parquet", None)
        outcomes.append((tables, untimed(json.loads((out / RESULTS).read_text()))))
    (alone, results), (shared, shared_results) = outcomes
    assert results == shared_results
    assert alone.keys() == shared.keys()
    assert [name for name in alone if name.startswith("examples/")]
    assert all(table.equals(shared[name]) for name, table in alone.items() if name != "leaks.parquet")
    methods = ("encode", "run", "scores", "log_likelihood")
    pids = [{pid for one, pid in asked if one == method} for method in methods]
    assert [len(one) for one in pids] == [2, 2, 2, 2], "all of it is shared out"
    assert not pids[1] & pids[2]
    lost = [one for one in warnings if "its work is done by those that are left: 1" in one]
    assert len(lost) == 3


@needs_ray
def test_a_lost_nodes_shards_are_done_again_and_nothing_left_is_said(
    cluster: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Last of those that use the cluster, which is one node then."""
    given, warnings = shards(model), []
    with LocalExecutor(1).load(job(model)) as loaded:
        expected = found(loaded.map(GREEDY, given))
    assert {one for rows in expected.values() for one in rows["matched_tokens"]} >= {0, toys.SUFFIX}
    with RayExecutor(cluster.address, 2, warnings.append) as ray, ray.load(job(model)) as loaded:
        assert len(loaded._engines) == 2
        mapped = loaded.map(GREEDY, given)
        first = [next(mapped), next(mapped)]
        pids = [engine._worker.pid for engine in loaded._engines]
        cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)
        until = time.monotonic() + 60
        while all(map(psutil.pid_exists, pids)) and time.monotonic() < until:
            time.sleep(0.1)  # an actor outlives its node for a while, and would finish all of it
        assert found([*first, *mapped]) == expected
        assert len(warnings) == 1
        (left,) = loaded._engines
        mapped = loaded.map(GREEDY, given)
        next(mapped)
        os.kill(left._worker.pid, signal.SIGKILL)
        with pytest.raises(WorkerDiedError, match=r"no replica is left.*run again to resume"):
            list(mapped)


def test_an_address_where_nothing_answers_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UsageError) as refused:
            check_ray(address)
    assert refused.value.key == "compute.ray"


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=r"pip install 'kdaudit\[ray\]'"):
        check_ray("auto")


def wanted(model: Path, fingerprint: str, hub: tuple[str, str] | None = None) -> HostedModel:
    return HostedModel(model, fingerprint, hub)


def test_a_node_checks_the_models_files(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = local_fingerprint(ModelConfig(path=str(model)), "model")
    assert actor._folder_of(wanted(model, own)) == str(model)
    for other in (wanted(model, "sha256:0"), wanted(tmp_path / "absent", own)):
        with pytest.raises(ModelError):
            actor._folder_of(other)
    asked: list[Any] = []
    monkeypatch.setattr(actor, "find_folder", lambda config, _: asked.append(config) or model)
    assert actor._folder_of(wanted(tmp_path / "absent", own, ("org/name", "c0ffee"))) == str(model)
    assert [(one.path, one.revision) for one in asked] == [("org/name", "c0ffee")]


GPUS = [Room(16, 8), Room(16, 4)]
CPUS = [Room(4, 0), Room(2, 0), Room(0, 0)]


@pytest.mark.parametrize(
    ("rooms", "replicas", "together", "shards", "expected"),
    [
        (GPUS, None, 1, 99, Plan(12, 1, 1)),
        (GPUS, None, 4, 99, Plan(3, 1, 4)),
        (GPUS, 5, 2, 99, Plan(5, 1, 2)),
        (GPUS, None, 1, 3, Plan(3, 1, 1)),
        (CPUS, None, 1, 99, Plan(2, 2, 0)),
        (CPUS, 6, 1, 99, Plan(6, 1, 0)),
        (CPUS, 1, 1, 99, Plan(1, 4, 0)),
    ],
)
def test_a_cluster_is_shared_out(
    rooms: list[Room], replicas: int | None, together: int, shards: int, expected: Plan
) -> None:
    assert plan_replicas(rooms, replicas, together, shards) == expected


@pytest.mark.parametrize(
    ("rooms", "replicas", "together", "message"),
    [
        (
            GPUS,
            13,
            1,
            "asks for 13 replicas, and the Ray cluster holds 12; set it to 12 or fewer, or to auto",
        ),
        (GPUS, None, 16, "has no room of 16 GPUs each, and the Ray cluster holds 0; add nodes"),
        (CPUS, 7, 1, "asks for 7 replicas, and the Ray cluster holds 6"),
        ([], None, 1, "has no room, and the Ray cluster holds 0"),
    ],
)
def test_more_replicas_than_a_cluster_holds_are_refused(
    rooms: list[Room], replicas: int | None, together: int, message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        plan_replicas(rooms, replicas, together, 99)
    assert str(refused.value).startswith(f"compute.workers: {message}")


@pytest.mark.parametrize(
    ("rooms", "workers", "own", "expected"),
    [
        (CPUS, None, 4, Plan(3, 2, 0)),
        ([Room(2, 0), Room(2, 0), Room(1, 0)], None, 4, Plan(5, 1, 0)),
        ([Room(3, 0), Room(3, 0)], None, 6, Plan(2, 3, 0)),
        ([Room(64, 8), Room(64, 8)], None, 99, Plan(4, 4, 0)),
        ([Room(64, 8), Room(64, 8)], 2, 8, Plan(2, 4, 0)),
        ([Room(64, 8), Room(64, 8)], 2, 9, None),
        ([Room(1, 0)] * 99, None, 99, Plan(16, 1, 0)),
        ([Room(1, 0)], None, 1, Plan(1, 1, 0)),
        ([Room(1, 0)], None, 2, None),
        ([Room(0, 0)], None, 1, None),
        ([], None, 1, None),
    ],
)
def test_texts_are_encoded_on_as_many_cores_as_the_driver_can_follow_and_no_fewer_than_it_has(
    rooms: list[Room], workers: int | None, own: int, expected: Plan | None
) -> None:
    assert plan_encoders(rooms, workers, own) == expected


@pytest.mark.parametrize("count", range(1, 15))
def test_cores_of_each_replica_are_the_most_that_fit(count: int) -> None:
    """By trying every number of cores."""
    rooms = [Room(8, 0), Room(4, 0), Room(3, 0)]
    fitting = [each for each in range(1, 9) if sum(room.cpus // each for room in rooms) >= count]
    assert cores_each(rooms, count) == max(fitting)


@needs_ray
def test_what_ray_raises_is_told_as_of_any_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray
    from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayTaskError

    full = "Task was killed due to the node running low on memory."
    for raised, expected, words in (
        (RayTaskError("call", "", MemoryError("full")), EngineError, "^MemoryError: full$"),
        (RayTaskError("call", "", EngineError("no", "try another")), EngineError, "^no; try another$"),
        (OutOfMemoryError(full), WorkerKilledError, "lack of memory; finished shards are kept"),
        (RayActorError(error_msg="maybe by the OOM killer"), answers.LostError, "maybe by the OOM"),
        (NodeDiedError("gone"), answers.LostError, "gone"),
    ):

        def fail(_: Any, error: Exception = raised) -> None:
            raise error

        monkeypatch.setattr(ray, "get", fail)
        with pytest.raises(expected, match=words):
            answers.get(None)
