"""What to do when memory runs out: the same work in smaller batches, before giving up."""

from __future__ import annotations

from collections.abc import Callable

from kdaudit.errors import OutOfMemoryError, WorkerKilledError

ATTEMPTS = 3
"""Times that a model is loaded before memory is said to be too small."""


def retreating(name: str, work: Callable[[int], None], warn: Callable[[str], None]) -> None:
    """Do `work(retreat)`, with one retreat more each time that memory runs out.

    Args:
        name: whose work it is, for the warning.
        work: loads a model and works with it, in batches of a quarter for each retreat.
        warn: told of each retreat.

    Raises:
        OutOfMemoryError: memory ran out in the last attempt too.
        WorkerKilledError: the worker was killed in the last attempt too.

    """
    for retreat in range(ATTEMPTS):
        try:
            work(retreat)
        except (OutOfMemoryError, WorkerKilledError) as error:
            if retreat == ATTEMPTS - 1:
                raise
            killed = isinstance(error, WorkerKilledError)
            warn(
                f"{name}: {'its worker process was killed' if killed else 'memory ran out'}; it is loaded "
                "again, with batches of a quarter"
            )
        else:
            return
