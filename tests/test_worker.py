"""Worker processes: calls, errors, death on either side."""

from __future__ import annotations

import os
import platform
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from kdaudit.errors import EngineError
from kdaudit.inference.remote import PRELOAD
from kdaudit.inference.workers import Worker, fork_server

_called_by: list[int] = []


def remember() -> None:
    """Called in the fork server."""
    _called_by.append(os.getpid())


class Service:
    """Runs in the worker."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._add = options["add"]

    def describe(self) -> dict[str, int]:
        return {"pid": os.getpid()}

    def plus(self, numbers: np.ndarray, *, times: int) -> np.ndarray:
        print("noise on standard output")
        return (numbers + self._add) * times

    def fail(self) -> None:
        raise ValueError("no such thing")

    def refuse(self) -> None:
        raise EngineError("it does not do this")

    def callers(self) -> dict[str, Any]:
        return {"called_by": _called_by, "parent": os.getppid()}

    def faults(self) -> dict[str, int]:
        """Page faults of batches after the first, which need as much memory as that."""
        counts = []
        for _ in range(10):
            _ = [np.ones(20 << 17) for _ in range(3)]  # 20 MiB each
            counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        return {"faults": counts[-1] - counts[0]}

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def sleep(self) -> None:
        time.sleep(60)


class Loaded:
    """Runs in the worker: loads a model, and counts the patterns that this compiles."""

    def __init__(self, options: dict[str, Any]) -> None:
        from kdaudit.inference.transformers import load_model

        compiled, compiler = 0, re._compiler  # type: ignore[attr-defined]
        plain = compiler.compile

        def compile_one(*values: Any) -> Any:
            nonlocal compiled
            compiled += 1
            return plain(*values)

        compiler.compile = compile_one
        load_model(Path(options["path"]), "auto", "cpu", trust_remote_code=False)
        self._compiled = compiled

    def describe(self) -> dict[str, int]:
        return {"compiled": self._compiled}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(fork_server, "_running", {})  # one that knows this path
    with Worker("test_worker:Service", {"add": 1}) as found:
        yield found


def test_arrays_go_there_and_back(worker: Worker) -> None:
    answer = worker.call("plus", np.arange(3, dtype=np.int32), times=2)
    assert answer.arrays[0].tolist() == [2, 4, 6]
    assert answer.arrays[0].dtype == np.int32
    assert answer.head["seconds"] >= 0


def test_answers_come_in_the_order_of_the_calls(worker: Worker) -> None:
    for times in (1, 2):
        worker.send("plus", np.zeros(1), times=times)
    assert [worker.receive().arrays[0].item() for _ in range(2)] == [1.0, 2.0]


def test_what_a_fork_server_calls_is_done_once_for_all_workers(worker: Worker) -> None:
    for _ in range(2):
        with Worker("test_worker:Service", {"add": 1}, ["test_worker:remember"]) as after:
            told = after.call("callers").head["value"]
        assert told["called_by"] == [told["parent"]]
    assert worker.call("callers").head["value"]["called_by"] == []


def test_a_worker_loads_a_model_without_compiling_what_transformers_needs_for_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of patterns, of every family, take longer than loading a small model."""
    import toys  # the other workers, which import this file, need no torch

    toys.save_model(tmp_path / "model", 1)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(fork_server, "_running", {})
    with Worker("test_worker:Loaded", {"path": str(tmp_path / "model")}, PRELOAD["transformers"]) as worker:
        assert worker.ready["compiled"] < 100


@pytest.mark.parametrize("line", ["raise SystemExit(3)", "import os; os._exit(3)"])
def test_a_module_that_ends_the_fork_server_costs_time_and_no_worker(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fatal.py").write_text(line)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{Path(__file__).parent}")
    monkeypatch.setattr(fork_server, "_running", {})
    for _ in range(2):
        with Worker("test_worker:Service", {"add": 1}, ["fatal"]) as worker:
            assert worker.call("plus", np.zeros(1), times=1).arrays[0].item() == 1.0


@pytest.mark.parametrize("on_cpu", [True, False])
def test_what_vllm_needs_on_a_cpu_is_imported_beforehand_there_alone(on_cpu: bool, tmp_path: Path) -> None:
    """vLLM's worker for CPUs replaces torch.Event and streams, which one for another device computes with."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").touch()
    (tmp_path / "vllm" / "platforms.py").write_text(
        f"class current_platform:\n    is_cpu = staticmethod(lambda: {on_cpu})\n"
    )
    script = "from kdaudit.inference import vllm; vllm.import_the_rest()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    tried = "No module named 'vllm.v1'" in done.stderr
    assert (tried, done.returncode) == ((True, 1) if on_cpu else (False, 0))


def test_an_error_inside_is_told_and_the_worker_lives(worker: Worker) -> None:
    with pytest.raises(EngineError, match="ValueError: no such thing"):
        worker.call("fail")
    with pytest.raises(EngineError, match=r"^it does not do this$"):
        worker.call("refuse")
    assert worker.call("plus", np.zeros(1), times=1).arrays[0].item() == 1.0


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="other C libraries have settings of their own")
def test_what_a_batch_frees_stays_for_the_next(worker: Worker) -> None:
    assert worker.call("faults").head["value"]["faults"] < 1000


def test_a_killed_worker_is_told(worker: Worker) -> None:
    with pytest.raises(EngineError, match=r"was killed, most likely by the OOM killer"):
        worker.call("die")


def test_the_worker_ends_with_its_parent_even_in_the_midst_of_a_call() -> None:
    script = (
        "import sys; from kdaudit.inference.workers import Worker; "
        "w = Worker('test_worker:Service', {'add': 1}); "
        "w.send('sleep'); print(w.ready['pid'], flush=True); sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    child.wait(timeout=10)
