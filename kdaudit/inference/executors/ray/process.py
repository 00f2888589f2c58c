"""A service in an actor, called as one in a worker process of this machine is."""

from __future__ import annotations

import contextlib
import json
import socket
from collections import deque
from collections.abc import Sequence
from typing import Any

from kdaudit.errors import WorkerLostError
from kdaudit.inference.executors.ray.answers import Actor, LostError, get
from kdaudit.inference.workers.messages import Array, Message


class RayProcess:
    """See `Process`: arrays and answers travel through Ray's object store. The actor is the cluster's to end.

    Args:
        actor: has found the models' files.
        service: see `Worker`.
        options: see `Worker`.
        preload: not used: an actor imports what its service needs.

    """

    def __init__(self, actor: Actor, service: str, options: dict[str, Any], preload: Sequence[str]) -> None:
        del preload
        self._actor = actor
        self._begun: deque[Any] = deque()
        self._ours, self._theirs = socket.socketpair()  # a byte for each answer, so that many can be awaited
        self.ready: Any = None
        """See `Process.ready`."""
        self._await(actor.handle.load.remote(service, json.dumps(options)))

    @property
    def pid(self) -> int:
        """The actor's process id on its node."""
        return self._actor.about.pid

    def wait(self) -> Any:  # noqa: ANN401 - JSON values
        """See `Process.wait`."""
        self.ready = self.receive().head["value"]
        return self.ready

    def fileno(self) -> int:
        """See `Process.fileno`."""
        return self._ours.fileno()

    def call(self, method: str, *arrays: Array, **values: Any) -> Message:  # noqa: ANN401 - JSON values
        """See `Process.call`."""
        self.send(method, *arrays, **values)
        return self.receive()

    def send(self, method: str, *arrays: Array, **values: Any) -> None:  # noqa: ANN401 - JSON values
        """See `Process.send`."""
        self._await(self._actor.handle.call.remote(method, json.dumps(values), *arrays))

    def receive(self) -> Message:
        """See `Process.receive`.

        Raises:
            WorkerLostError: the actor is gone.
            WorkerKilledError: Ray killed it because memory ran out.
            EngineError: the service failed.

        """
        self._ours.recv(1)
        try:
            answer = get(self._begun.popleft())
        except LostError as lost:
            raise WorkerLostError(f"{self._actor} died ({lost})") from None
        return Message({"value": answer.value, "seconds": answer.seconds}, answer.arrays)

    def close(self) -> None:
        """See `Process.close`."""
        self._ours.close()
        self._theirs.close()

    def _await(self, answer: Any) -> None:  # noqa: ANN401 - Ray is untyped here
        self._begun.append(answer)
        answer.future().add_done_callback(self._tell)

    def _tell(self, _: object) -> None:
        """Called in a thread of Ray's."""
        with contextlib.suppress(OSError):  # nobody waits any more
            self._theirs.send(b".")
