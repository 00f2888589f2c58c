"""The parent's end of a worker process: an object's methods, called over pipes.

Models live in workers: the end of the process frees all memory, one engine cannot disturb the next, and
a crash costs one call, not the run. The worker ends when its parent does, however the parent ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Protocol, Self

from kdaudit.errors import EngineError, WorkerDiedError, WorkerKilledError
from kdaudit.inference.workers.fork_server import fork_server
from kdaudit.inference.workers.messages import Array, Message, read_message, write_message
from kdaudit.inference.workers.place import Place

_LOG_TAIL = 1200
"""Characters of the worker's own output that an error message quotes."""


class Process(Protocol):
    """A process that runs a service, wherever it is; `Worker` is one of this machine.

    All of its methods raise an EngineError where the service fails and a WorkerDiedError where the process
    ends.
    """

    ready: Any
    """What the service's `describe()` said, once `wait` has waited for it."""

    def wait(self) -> Any:  # noqa: ANN401 - JSON values
        """Wait until the service is built, and give what it said; the process ends if it cannot be."""
        ...

    def fileno(self) -> int:
        """What can be read from once the oldest call is answered, or the process has ended."""
        ...

    def call(self, method: str, *arrays: Array, **values: Any) -> Message:  # noqa: ANN401 - JSON values
        """Call a method of the service and wait for its answer."""
        ...

    def send(self, method: str, *arrays: Array, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Begin a call, so that the parent can work while the process does."""
        ...

    def receive(self) -> Message:
        """Wait for the answer to the oldest call begun."""
        ...

    def close(self) -> None:
        """End the process, or give it back to whoever ends it."""
        ...


class HoldsWorker:
    """Base of what has a process of its own: a context manager that ends it."""

    _worker: Process

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()


Start = Callable[[str, dict[str, Any], Sequence[str]], Process]
"""Begins to build a service in a process: called as start(service, options, preload), see `Worker`."""


class Worker:
    """A service in a process of its own.

    Args:
        service: "module:Class" of the service to run: built from `options`, it must have `describe()`, whose
            JSON value becomes `ready`, and methods that take arrays and give arrays, or JSON in a dict.
        options: JSON options that the class is built from, in the worker.
        preload: heavy modules that the service imports; workers with the same ones share the import.
        place: GPUs or cores of its own.
        wait: whether to wait until the service is built; else `wait` does.

    Raises:
        EngineError: the service could not be built, or a call failed.
        WorkerDiedError: the process was killed or crashed.

    """

    def __init__(
        self,
        service: str,
        options: dict[str, Any],
        preload: Sequence[str] = (),
        place: Place = Place(),  # noqa: B008 - a tuple
        *,
        wait: bool = True,
    ) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._server = fork_server(preload)
        self._code: int | None = None
        calls, ours = os.pipe()
        our_end, answers = os.pipe()
        self._calls, self._answers = os.fdopen(ours, "wb"), os.fdopen(our_end, "rb", 0)
        try:
            self._pid = self._server.fork(service, [calls, answers, self._log.fileno()], place)
        finally:
            os.close(calls)
            os.close(answers)
        self.ready: Any = None
        """What the service's `describe()` said once it was built."""
        try:
            self.send("__init__", options=options)
        except BaseException:
            self.close()
            raise
        if wait:
            self.wait()

    def wait(self) -> Any:  # noqa: ANN401 - JSON values
        """Wait until the service is built, and give what it said; the process ends if it cannot be."""
        try:
            self.ready = self.receive().head["value"]
        except BaseException:
            self.close()
            raise
        return self.ready

    def fileno(self) -> int:
        """The pipe of the answers: what is unread is in the pipe alone, so it can be waited for."""
        return self._answers.fileno()

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self._pid

    def call(self, method: str, *arrays: Array, **values: Any) -> Message:  # noqa: ANN401 - JSON values
        """Call a method of the service and wait for its answer."""
        self.send(method, *arrays, **values)
        return self.receive()

    def send(self, method: str, *arrays: Array, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Begin a call, so that the parent can work while the worker does."""
        try:
            write_message(self._calls, Message({"method": method, "values": values}, list(arrays)))
        except OSError:
            self._tell_death()

    def receive(self) -> Message:
        """Wait for the answer to the oldest call begun."""
        message = read_message(self._answers)
        if message is None:
            self._tell_death()
        if "error" in message.head:
            raise EngineError(message.head["error"])
        return message

    def close(self) -> None:
        """End the process and wait until it is gone."""
        with contextlib.suppress(OSError):
            self._calls.close()
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)  # its own children too
            with contextlib.suppress(WorkerDiedError):
                self._wait()
        self._answers.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait(self) -> int:
        if self._code is None:
            self._code = self._server.wait(self._pid)
        return self._code

    def _tell_death(self) -> NoReturn:
        code = self._wait()
        self._log.seek(0)
        tail = self._log.read().decode("utf-8", "replace").strip()
        if len(tail) > _LOG_TAIL:
            tail = tail[-_LOG_TAIL:].partition("\n")[2]
        words = f". Its last output:\n{tail}" if tail else ""
        if code == -signal.SIGKILL:
            raise WorkerKilledError(
                "the engine's worker process was killed, most likely by the OOM killer (SIGKILL); free "
                f"memory or use smaller models; finished shards are kept, run again to resume{words}"
            )
        raise WorkerDiedError(
            f"the engine's worker process ended with code {code}; finished shards are kept, run again to "
            f"resume{words}"
        )


def begin_worker(
    service: str,
    options: dict[str, Any],
    preload: Sequence[str] = (),
    place: Place = Place(),  # noqa: B008 - a tuple
) -> Worker:
    """Begin to build a service, see `Worker`; a `Start`."""
    return Worker(service, options, preload, place, wait=False)
