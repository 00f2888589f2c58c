"""What to do when memory runs out: the same work in smaller batches, before giving up."""

from __future__ import annotations

from collections.abc import Callable

from kdaudit.errors import OutOfMemoryError, WorkerKilledError

ATTEMPTS = 3
"""Times that a model is loaded before memory is said to be too small."""


def retry_on_oom(name: str, work: Callable[[int], None], warn: Callable[[str], None]) -> None:
    """Do `work(retries)`, with one more retry each time that memory runs out.

    Args:
        name: whose work it is, for the warning.
        work: loads a model and works with it, in batches of a quarter for each retry.
        warn: told of each retry.

    Raises:
        OutOfMemoryError: memory ran out in the last attempt too.
        WorkerKilledError: the worker was killed in the last attempt too.

    """
    for retries in range(ATTEMPTS):
        try:
            work(retries)
        except (OutOfMemoryError, WorkerKilledError) as error:
            if retries == ATTEMPTS - 1:
                raise
            killed = isinstance(error, WorkerKilledError)
            warn(
                f"{name}: {'its worker process was killed' if killed else 'memory ran out'}; it is loaded "
                "again, with batches of a quarter"
            )
        else:
            return
