"""What actors answer, or that they are gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from kdaudit.errors import EngineError, WorkerDiedError, WorkerKilledError, reason
from kdaudit.inference.executors.ray.actor import Prepared
from kdaudit.inference.executors.sharing import RESUME
from kdaudit.inference.workers.serving import failure

_LOW_ON_MEMORY = re.compile(r"running low on memory|NODE_OUT_OF_MEMORY")
"""How Ray says that it killed an actor because its node's memory ran out. Of every other death it says that
the OOM killer may be the cause."""

_T = TypeVar("_T")


class Actor(NamedTuple):
    """An actor that has the models' files."""

    handle: Any
    about: Prepared

    def __str__(self) -> str:
        return f"the replica on {self.about.node} (process {self.about.pid})"


class LostError(Exception):
    """An actor, or what it made, is gone."""


def get(answer: Any) -> Any:  # noqa: ANN401 - Ray is untyped here
    """Wait for an answer.

    Raises:
        EngineError: the engine failed.
        WorkerKilledError: Ray killed the actor because memory ran out.
        LostError: actor or answer are gone.

    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(answer)
    except RayTaskError as error:
        raise EngineError(failure(error.cause)) from None
    except RayError as error:
        if _LOW_ON_MEMORY.search(str(error)):
            raise WorkerKilledError("Ray killed an actor for lack of memory", RESUME) from None
        raise LostError(reason(error)) from None


def get_each(begun: Sequence[tuple[_T, Any]], warn: Callable[[str], None]) -> list[tuple[_T, Any]]:
    """What calls gave, of those actors that live.

    Args:
        begun: actors, each with the answer that is awaited.
        warn: told of those that do not.

    Raises:
        EngineError: a call failed, or no actor is left.

    """
    found = []
    for actor, answer in begun:
        try:
            found.append((actor, get(answer)))
        except LostError as lost:
            warn(f"a Ray actor died while it started ({lost}); the others do its work")
    if not found:
        raise nothing_left()
    return found


def nothing_left() -> WorkerDiedError:
    """The error where every actor died."""
    return WorkerDiedError("no replica is left in the Ray cluster", RESUME)
