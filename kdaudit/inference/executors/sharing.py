"""Work shared out to processes of which each does one thing at a time, in the order in which it was begun."""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from kdaudit.errors import WorkerDiedError, WorkerLostError

_AHEAD = 2
"""Pieces of work that a process has at once: one that it works on, one that waits."""
_EARLY = 4
"""Pieces of each process that may be done while one before them is not: they wait in memory."""
RESUME = "finished shards are kept: run again to resume, with this cluster, another, or compute.ray: null"


class Remote(Protocol):
    """A process that work can be begun in."""

    def wait(self) -> object:
        """Wait until it can be."""
        ...

    def fileno(self) -> int:
        """What can be read from once the oldest piece of work is done, or the process has ended."""
        ...


_P = TypeVar("_P", bound=Remote)
_W = TypeVar("_W")
_D = TypeVar("_D")


def share_out(
    processes: list[_P],
    todo: Iterable[_W],
    begin: Callable[[_P, _W], None],
    finish: Callable[[_P], _D],
    warn: Callable[[str], None],
    *,
    in_order: bool = False,
    more: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[_W, _D]]:
    """Each piece of work, and what came of it, as it is done; with one process in their order.

    Pieces are asked for one by one, ahead of the processes' need: to prepare one, and to use what came of
    another, overlaps their work. What a process of a cluster had when it was lost is done again by the
    others.

    Args:
        processes: alike; those that are lost are removed.
        todo: pieces of work.
        begin: begins one in a process.
        finish: waits for the oldest in a process; raises where the process has ended.
        warn: told of processes that are lost.
        in_order: whether to give them in the order of the work. While one is not done, only some of those
            behind it are begun then: what waits for it stays bounded.
        more: whether to begin more; false only while something that was begun is not done.

    Raises:
        WorkerDiedError: none is left.

    """
    numbered = enumerate(todo)
    again: deque[tuple[int, _W]] = deque()
    early: dict[int, tuple[_W, _D]] = {}
    due = 0

    def following() -> tuple[int, _W] | None:
        if again:
            return again.popleft()
        return next(numbered, None) if len(early) < _EARLY * len(processes) and more() else None

    waiting: dict[_P, deque[tuple[int, _W]]] = {process: deque() for process in processes}
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process, selectors.EVENT_READ, process)
        while _fill(processes, waiting, following, lambda process, piece: begin(process, piece[1])):
            for key, _ in selector.select():
                asked: _P = key.data
                try:
                    done = finish(asked)  # raises where the process died, idle or not
                except WorkerLostError as lost:
                    selector.unregister(asked)
                    again.extendleft(reversed(waiting.pop(asked)))
                    drop(processes, asked, lost, warn)
                    continue
                number, piece = waiting[asked].popleft()
                if not in_order:
                    yield piece, done
                    continue
                early[number] = piece, done
                while due in early:
                    yield early.pop(due)
                    due += 1


def wait_for(processes: list[_P], warn: Callable[[str], None]) -> None:
    """Wait until all have loaded what they hold, which they do side by side; see `share_out`."""
    for process in [*processes]:
        try:
            process.wait()
        except WorkerLostError as lost:
            drop(processes, process, lost, warn)


def drop(processes: list[_P], lost: _P, error: WorkerLostError, warn: Callable[[str], None]) -> None:
    """Do without a process; `warn` is told.

    Raises:
        WorkerDiedError: none is left.

    """
    processes.remove(lost)
    if not processes:
        raise WorkerDiedError(f"{error}; no replica is left in the Ray cluster", RESUME) from error
    warn(f"{error}; its work is done by those that are left: {len(processes)}")


def _fill(
    processes: list[_P],
    waiting: dict[_P, deque[_W]],
    todo: Callable[[], _W | None],
    begin: Callable[[_P, _W], None],
) -> bool:
    """Give work to processes that have too little, one piece to each first; False once none is awaited."""
    for ahead in range(1, _AHEAD + 1):
        for process in processes:
            own = waiting[process]
            if len(own) < ahead and (piece := todo()) is not None:
                begin(process, piece)
                own.append(piece)
    return any(waiting.values())
