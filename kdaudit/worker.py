"""A worker process that serves one object's methods to its parent, over pipes, without pickle.

Engines live in workers: the end of the process frees all memory, one engine cannot disturb the next, and
a crash costs one call, not the run. A message is a JSON header and a NumPy archive of its arrays. The
worker ends when its parent does, however the parent ends.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import EngineError, WorkerDiedError

Array = NDArray[Any]
_LOG_TAIL = 1200
"""Characters of the worker's own output that an error message quotes."""


_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # a worker's models are local folders: it has nothing to ask the network for
    "PYTHONSAFEPATH": "1",  # nothing is imported from the folder that the user happens to stand in
    "TOKENIZERS_PARALLELISM": "false",
}


class Message(NamedTuple):
    """A call or its answer: plain JSON values and arrays.

    An answer's head holds `seconds`, the time that the method took inside the worker.
    """

    head: dict[str, Any]
    arrays: list[Array]


class Worker:
    """The parent's end of a worker process.

    Args:
        service: "module:Class" of the service to run: built from `options`, it must have `describe()`, whose
            JSON value becomes `ready`, and methods that take and give arrays.
        options: JSON options that the class is built from, in the worker.

    Raises:
        EngineError: the service could not be built, or a call failed.
        WorkerDiedError: the process was killed or crashed.

    """

    def __init__(self, service: str, options: dict[str, Any]) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        environment = {**os.environ, **_ENVIRONMENT}
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "kdaudit.worker", service],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
            start_new_session=True,  # Ctrl-C is the parent's to handle
        )
        try:
            self.ready = self.call("__init__", options=options).head["value"]
            """What the service's `describe()` said once it was built."""
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arrays: Array, **values: Any) -> Message:  # noqa: ANN401 - JSON values
        """Call a method of the service and wait for its answer."""
        self.send(method, *arrays, **values)
        return self.receive()

    def send(self, method: str, *arrays: Array, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """Begin a call, so that the parent can work while the worker does."""
        try:
            _write(self._stdin, Message({"method": method, "values": values}, list(arrays)))
        except OSError:
            raise self._death() from None

    def receive(self) -> Message:
        """Wait for the answer to the oldest call begun."""
        message = _read(self._stdout)
        if message is None:
            raise self._death()
        if "error" in message.head:
            raise EngineError(message.head["error"])
        return message

    def close(self) -> None:
        """End the process and wait until it is gone."""
        with contextlib.suppress(OSError):
            self._stdin.close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # its own children too
        self._process.wait()
        self._stdout.close()
        self._log.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None  # noqa: S101 - Popen was given a pipe
        return self._process.stdin

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None  # noqa: S101 - Popen was given a pipe
        return self._process.stdout

    def _death(self) -> WorkerDiedError:
        code = self._process.wait()
        self._log.seek(0)
        tail = self._log.read().decode("utf-8", "replace")[-_LOG_TAIL:].strip()
        cause = (
            "was killed, most often by the system for want of memory; free memory or use smaller models"
            if code == -signal.SIGKILL
            else f"ended with code {code}"
        )
        return WorkerDiedError(
            f"the engine's worker process {cause}; finished shards are kept, run again to go on"
            + (f". Its last words:\n{tail}" if tail else "")
        )


def _write(stream: IO[bytes], message: Message) -> None:
    head = json.dumps(message.head).encode()
    body = io.BytesIO()
    np.savez(body, *message.arrays)
    for part in (head, body.getvalue()):
        stream.write(len(part).to_bytes(8, "little"))
        stream.write(part)
    stream.flush()


def _read(stream: IO[bytes]) -> Message | None:
    """Read the next message; None at the end of the stream, also when it ends inside a message."""
    parts: list[bytes] = []
    for _ in range(2):
        size = stream.read(8)
        part = stream.read(int.from_bytes(size, "little"))
        if len(size) < 8 or len(part) < int.from_bytes(size, "little"):
            return None
        parts.append(part)
    with np.load(io.BytesIO(parts[1]), allow_pickle=False) as archive:
        return Message(json.loads(parts[0]), [archive[name] for name in archive.files])


def _serve(service: str) -> None:
    """The worker's main loop: calls in on the old standard input, answers out on the old output."""
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # libraries print; the answers' pipe must stay clean
    target: Any = None
    for message in _messages(calls):
        began = time.monotonic()
        try:
            if message.head["method"] == "__init__":
                module, _, name = service.partition(":")
                target = getattr(importlib.import_module(module), name)(message.head["values"]["options"])
                answer = Message({"value": target.describe()}, [])
            else:
                found = getattr(target, message.head["method"])(*message.arrays, **message.head["values"])
                answer = Message({"seconds": time.monotonic() - began}, list(_arrays(found)))
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = Message({"error": f"{type(error).__name__}: {error}"}, [])
        _write(answers, answer)


def _arrays(found: Any) -> Sequence[Array]:  # noqa: ANN401 - a service's return value
    if found is None:
        return []
    return [found] if isinstance(found, np.ndarray) else list(found)


def _messages(calls: IO[bytes]) -> Iterator[Message]:
    """Yield calls; a thread reads them, so that the parent's end is seen in the midst of one."""
    import queue

    pending: queue.Queue[Message] = queue.Queue()

    def read() -> None:
        while (message := _read(calls)) is not None:
            pending.put(message)
        os._exit(0)  # the parent is gone or has closed us: nobody waits for an answer

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield pending.get()


if __name__ == "__main__":
    _serve(sys.argv[1])
