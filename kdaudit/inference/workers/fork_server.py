"""A process that imports the heavy libraries once and forks every worker from there.

vLLM, torch and transformers take some 15 seconds of CPU to import; an audit of four models would pay that
five times. A fork server never loads a model and never computes, so what is forked is as good as new. Only on
Linux without a GPU: a GPU driver and macOS's frameworks do not survive a fork, so there a fork server imports
nothing and each worker does for itself.

Request and answer are one JSON line each on a socket: {"service": ..., "environment": {...}, "cores": [...]}
with the worker's three standard streams gives {"pid": ...}; {"wait": pid} gives {"code": ...}, negative for a
signal.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdaudit import NO_USAGE_REPORTS
from kdaudit.errors import WorkerDiedError, WorkerKilledError
from kdaudit.inference.workers.memory import keep_freed_memory
from kdaudit.inference.workers.place import Place, bind
from kdaudit.inference.workers.serving import serve

_ENVIRONMENT = NO_USAGE_REPORTS | {
    "HF_HUB_OFFLINE": "1",  # a worker's models are local folders: it has nothing to ask the network for
    "PYTHONSAFEPATH": "1",  # nothing is imported from the folder that the user happens to stand in
    "TOKENIZERS_PARALLELISM": "false",
}
_KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
"""oneDNN keeps kernels by shape, and each step of vLLM may have another number of tokens: its own 1,024 took
300 MB more, which came in slowly over a hundred thousand windows, and no less time."""
_LOG_TAIL = 1200
"""Characters of its own output that an error message quotes."""
_PATIENCE = 5.0
"""Seconds for a process to end that has closed its socket."""
_LINE = 1 << 14
"""Longest request or answer, in bytes."""


class ForkServer:
    """The parent's end of the process of a fork server; it ends with its parent.

    Args:
        preload: modules that it imports before it forks the first worker, and functions, "module:function",
            that it calls for what they keep in memory.

    """

    def __init__(self, preload: Sequence[str]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._begin(preload)
        self._forked = False
        atexit.register(self.close)

    def _begin(self, preload: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "kdaudit.inference.workers", str(theirs.fileno()), *preload],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**_KERNELS, **os.environ, **_ENVIRONMENT},
                stdout=subprocess.DEVNULL,
                stderr=self._log,
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )

    def fork(self, service: str, streams: Sequence[int], place: Place) -> int:
        """Start a worker.

        Args:
            service: see `serve`.
            streams: file descriptors for its standard input, output and error.
            place: GPUs or cores of its own.

        Returns:
            Its process id, which is also that of its process group.

        """
        request = {"service": service, "environment": place.environment, "cores": place.cores}
        try:
            pid = int(self._ask(request, streams)["pid"])
        except WorkerKilledError:
            raise
        except WorkerDiedError:
            if self._forked:
                raise
            # A module ended the process. A worker may not need it, and else tells of which model it is.
            self._socket.close()
            self._begin(())
            pid = int(self._ask(request, streams)["pid"])
        self._forked = True
        return pid

    def wait(self, pid: int) -> int:
        """Wait for a worker's end: its exit code, negative for a signal."""
        return int(self._ask({"wait": pid}, [])["code"])

    @property
    def alive(self) -> bool:
        """Whether the process is not known to have ended."""
        return self._process.returncode is None

    def close(self) -> None:
        """End the process; workers end when their own pipes close."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _ask(self, request: dict[str, Any], streams: Sequence[int]) -> dict[str, Any]:
        answer = b""
        try:
            with contextlib.suppress(OSError):
                socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
                answer = self._socket.recv(_LINE)
            if not answer:
                raise self._death()
        except BaseException:  # an answer that nobody took would be taken for the next one's
            self._process.kill()
            self._process.wait()
            raise
        found: dict[str, Any] = json.loads(answer)
        return found

    def _death(self) -> WorkerDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=_PATIENCE)
        self._log.seek(0)
        words = self._log.read().decode("utf-8", "replace").strip()[-_LOG_TAIL:]
        killed = self._process.returncode == -signal.SIGKILL
        return (WorkerKilledError if killed else WorkerDiedError)(
            f"the process that starts workers {'was killed' if killed else 'ended'}; finished shards are "
            "kept, run again to resume" + (f". Its last output:\n{words}" if words else "")
        )


def fork_server(preload: Sequence[str]) -> ForkServer:
    """A fork server with these modules, and maybe more: begun on first use, and again where it has died."""
    key = tuple(preload) if _forks_well() else ()
    for modules, running in _running.items():
        if running.alive and set(key) <= set(modules):
            return running
    _running[key] = ForkServer(key)
    return _running[key]


_running: dict[tuple[str, ...], ForkServer] = {}
"""Fork servers of this process, by what they imported."""


def _forks_well() -> bool:
    """Whether libraries may be imported before the fork."""
    return sys.platform == "linux" and not any(
        Path("/dev", name).exists() for name in ("nvidiactl", "kfd", "dxg")
    )


def serve_forever(control: socket.socket, preload: Sequence[str]) -> None:
    """Fork a worker for each request, until the parent is gone: the fork server's main loop."""
    keep_freed_memory()  # the workers inherit it
    gc.disable()  # what modules make stays
    for name in preload:
        try:
            module, _, function = name.partition(":")
            imported = importlib.import_module(module)
            if function:
                getattr(imported, function)()
        except Exception:  # the worker imports it again, and its parent is told
            traceback.print_exc()
    gc.freeze()  # a collection in a worker would copy every page that it shares with the fork server
    gc.enable()
    while True:
        request, streams, _, _ = socket.recv_fds(control, _LINE, 3)
        if not request:
            return
        asked = json.loads(request)
        if "wait" in asked:
            control.sendall(json.dumps({"code": _wait(asked["wait"])}).encode())
        else:
            control.sendall(json.dumps({"pid": _fork(control, asked, streams)}).encode())


def _wait(pid: int) -> int:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)  # what a dead worker leaves behind would keep a GPU's memory
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _fork(control: socket.socket, asked: dict[str, Any], streams: Sequence[int]) -> int:
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        return pid
    try:
        os.setsid()
        control.close()
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.environ.update(asked["environment"])
        bind(asked["cores"])
        serve(asked["service"])
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)
