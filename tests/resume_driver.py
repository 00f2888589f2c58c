"""Runs an audit again and again in forked children, and ends each at a moment that it is told.

A moment is a write: its stage, its number inside the stage, and how far it gets: `before` it begins, with
`half` of it on disk, or `after` it stands in its place. Lines of JSON come in and go out.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch  # noqa: F401 - imported once, here, and not in every child
from transformers import AutoConfig, AutoTokenizer  # noqa: F401

from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import KdauditError
from kdaudit.inference import prepare
from kdaudit.inference.workers import Worker, fork_server
from kdaudit.pipelines.audit import run_audit
from kdaudit.runs import files, store

_SHARD_ROWS = 8


class Ender:
    """Ends this process, or its worker, at one moment; and remembers what was written until then."""

    def __init__(self, moment: dict[str, Any] | None) -> None:
        self._moment = moment or {}
        self._stage = ""
        self._worker = 0
        self.writes: list[str] = []

    @contextmanager
    def replacing(self, path: Path, *, private: bool) -> Iterator[Path]:
        number = self.writes.count(self._stage)
        self.writes.append(self._stage)
        self._meet(number, "before")
        with _REPLACING(path, private=private) as partial:
            yield partial
            if self._is_now(number, "half"):
                os.truncate(partial, partial.stat().st_size // 2)
            self._meet(number, "half")
        self._meet(number, "after")

    @contextmanager
    def stage(self, run: store.RunStore, name: str, *values: Any, **named: Any) -> Iterator[None]:
        self._stage = name
        with _STAGE(run, name, *values, **named):
            yield
        self._stage = ""

    def send(self, worker: Worker, method: str, *arrays: Any, **values: Any) -> None:
        """With `worker`: kill the worker in the midst of a call of this stage, so many times."""
        self._worker = worker.pid
        _SEND(worker, method, *arrays, **values)
        due = method != "__init__" and self._stage == self._moment.get("stage")
        if due and self._moment.get("worker", 0) > 0:
            self._moment["worker"] -= 1
            os.kill(worker.pid, signal.SIGKILL)

    def set_timers(self) -> None:
        """With `timer` or `worker_timer`: kill this process, or its worker, after so many seconds."""
        if "timer" in self._moment:
            self._later(self._moment["timer"], lambda: os.kill(os.getpid(), self._moment["signal"]))
        if "worker_timer" in self._moment:
            self._later(self._moment["worker_timer"], self._kill_worker)

    def _kill_worker(self) -> None:
        with suppress(ProcessLookupError):
            if self._worker:
                os.kill(self._worker, signal.SIGKILL)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        timer.daemon = True
        timer.start()

    def _is_now(self, number: int, how_far: str) -> bool:
        return self._moment == {**self._moment, "stage": self._stage, "write": number, "how_far": how_far}

    def _meet(self, number: int, how_far: str) -> None:
        if self._is_now(number, how_far):
            os.kill(os.getpid(), self._moment["signal"])


_REPLACING = files.replacing
_STAGE = store.RunStore.stage
_SEND = Worker.send
_ASK = fork_server.ForkServer._ask
_UNANSWERED = mmap.mmap(-1, 1)
"""Shared with the children: whether one has asked its fork server something and has no answer yet."""


def _asking(server: fork_server.ForkServer, *request: Any) -> dict[str, Any]:
    _UNANSWERED[0] = 1
    found = _ASK(server, *request)
    _UNANSWERED[0] = 0
    return found


def _patch(ender: Ender) -> None:
    files.replacing = store.replacing = ender.replacing
    store.RunStore.stage = lambda *values, **named: ender.stage(*values, **named)  # type: ignore[assignment,method-assign]
    fork_server.ForkServer._ask = _asking  # type: ignore[method-assign]
    Worker.send = lambda worker, *call, **values: ender.send(worker, *call, **values)  # type: ignore[method-assign]
    store.SHARD_ROWS = _SHARD_ROWS
    os.urandom = lambda size: b"k" * size  # hashes of text are keyed: one key, or runs could not be compared


def _attempt(order: dict[str, Any], answers: int) -> None:
    """Run once, in this forked child, and tell how it went."""
    ender = Ender(order["moment"])
    _patch(ender)
    ender.set_timers()
    warnings: list[str] = []
    try:
        config = load_audit(Path(order["audit"]), ())
        run_audit(config, Path(order["out"]), fresh=False, progress=lambda *_: None, warn=warnings.append)
        told: dict[str, Any] = {"code": 0}
    except KdauditError as error:
        told = {"code": error.exit_code, "error": str(error)}
    except KeyboardInterrupt:
        told = {"code": 130}
    os.write(answers, json.dumps({**told, "writes": ender.writes, "warnings": warnings}).encode())


def _fork(order: dict[str, Any]) -> dict[str, Any]:
    _UNANSWERED[0] = 0
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _attempt(order, theirs)
            os._exit(0)
        except BaseException:  # nothing that a run may end with
            traceback.print_exc()
        finally:
            os._exit(99)
    os.close(theirs)
    with os.fdopen(ours, "rb") as stream:
        told = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0 and _UNANSWERED[0]:
        _drain()
    return json.loads(told) if told else {"code": status}


def _drain() -> None:
    """Take the answer that a killed child may still be owed; a fork server outlives no run but here."""
    for found in fork_server._running.values():
        found._socket.settimeout(1.0)
        with suppress(TimeoutError):
            found._socket.recv(4096)
        found._socket.settimeout(None)


if __name__ == "__main__":
    prepare("transformers")
    gc.freeze()  # or each child would copy all that is imported here to look through it
    for line in sys.stdin:
        print(json.dumps(_fork(json.loads(line))), flush=True)
