"""The processes that train one family together: what only the first does, and how all of them end.

`torchrun` and `accelerate launch` start one command several times. The first process (rank 0) does what is
done once, and the others then read what it wrote; all of them train. They wait for each other through the
launcher's key-value store and not through the training's own process group: a wait may take hours, as
long as the teacher generates, and a process group would time out after half an hour.

Invariant: every process calls `first_then_all` in the same order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from kdaudit.errors import KdauditError, RunError, ToldElsewhere, UsageError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_T = TypeVar("_T")
_LOOK = 0.1
"""Seconds between two reads of the store."""
_GRACE = 3.0
"""Seconds for the process that failed first to report why, before a launcher sees another one end."""
_FAILED, _HEARD = "failed", "heard"
_INTERRUPTED = 130
_LAUNCHERS = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_", "ACCELERATE_"),
)
"""Prefixes of the variables in which a launcher tells a process its rank."""


class Processes:
    """The processes that train together, as one of them sees them.

    Args:
        rank: this one's number, from 0.
        count: how many there are.
        store: the launcher's key-value store; None for a process alone.

    """

    def __init__(self, rank: int = 0, count: int = 1, store: Store | None = None) -> None:
        self.count = count
        self._rank = rank
        self._store = store
        self._turn = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self._rank == 0

    def share(self, batch_size: int) -> int:
        """Windows of a step that each process reads.

        Raises:
            UsageError: they cannot be dealt out evenly.

        """
        if batch_size % self.count:
            raise UsageError(
                f"{batch_size} windows per step cannot be divided evenly among {self.count} processes",
                fix=f"set it to a multiple of {self.count}, or start another number of them",
                key="training.batch_size",
            )
        return batch_size // self.count

    def first_then_all(self, make: Callable[[], _T], read: Callable[[], _T]) -> _T:
        """The result of `make` in the first process, and of `read` in the others once that is done.

        During `make`, the first process and its children see no launcher.
        """
        if self._store is None:
            return make()
        self._turn += 1
        done = f"done {self._turn}"
        if self.first:
            with _without_launcher():
                made = make()
            self._store.set(done, "")
            return made
        while not self._store.check([done]):
            if self._store.check([_FAILED]):
                self._leave(self._store)
            time.sleep(_LOOK)
        return read()

    @contextmanager
    def one_voice(self) -> Iterator[None]:
        """Let the first error of all processes through; processes that stop because of it print nothing.

        Raises:
            RunError: another process died without a message.
            ToldElsewhere: another process reports what failed; the exit code is the same.

        """
        if self._store is None:
            yield
            return
        try:
            yield
        except ToldElsewhere:
            raise
        except BaseException as error:
            mine = f"{self._rank} {_exit_code(error)}"
            if self._store.compare_set(_FAILED, "", mine).decode() != mine:
                self._leave(self._store)
            self._wait_until_heard(self._store)
            if _lost_another(error):
                raise RunError(
                    "distill: another process of this training was killed or lost; see its own output, "
                    "then run the same command to resume from the last checkpoint"
                ) from error
            raise

    def _leave(self, store: Store) -> None:
        """End with the exit code of the process that failed, after it had time to report why."""
        code = int(store.get(_FAILED).decode().split()[1])
        store.add(_HEARD, 1)
        time.sleep(_GRACE)
        raise ToldElsewhere(code)

    def _wait_until_heard(self, store: Store) -> None:
        """Keep the store, which this process may host, until the others but those in a step have read it."""
        end = time.monotonic() + _GRACE
        while store.add(_HEARD, 0) < self.count - 1 and time.monotonic() < end:
            time.sleep(_LOOK)


ALONE = Processes()
"""A command that runs in one process."""


@contextmanager
def together() -> Iterator[Processes]:
    """The processes that a launcher started; they end as described at `Processes.one_voice`."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield ALONE
        return
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    store, rank, count = next(rendezvous("env://"))
    processes = Processes(rank, count, PrefixStore("kdaudit", store))
    with processes.one_voice():
        yield processes


def _exit_code(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return _INTERRUPTED
    return error.exit_code if isinstance(error, KdauditError) else KdauditError.exit_code


def _lost_another(error: BaseException) -> bool:
    """Whether an error is one that a step raises if another process is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


@contextmanager
def _without_launcher() -> Iterator[None]:
    """Remove the launcher's variables: a worker's torch would look for its store and its other ranks."""
    taken = {name: value for name, value in os.environ.items() if name.startswith(_LAUNCHERS)}
    for name in taken:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(taken)
