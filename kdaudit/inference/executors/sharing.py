"""Work shared out to processes of which each does one thing at a time, in the order in which it was begun."""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

_AHEAD = 2
"""Pieces of work that a process has at once: one that it works on, one that waits."""


class Process(Protocol):
    """A process that work can be begun in."""

    def fileno(self) -> int:
        """What can be read from once the oldest piece of work is done, or the process has ended."""
        ...


_P = TypeVar("_P", bound=Process)
_W = TypeVar("_W")
_D = TypeVar("_D")


def share_out(
    processes: Sequence[_P],
    todo: Iterator[_W],
    begin: Callable[[_P, _W], None],
    finish: Callable[[_P], _D],
) -> Iterator[tuple[_W, _D]]:
    """Each piece of work, and what came of it, as it is done; with one process in their order.

    Pieces are asked for one by one, ahead of the processes' need: to prepare one, and to use what came of
    another, overlaps their work.

    Args:
        processes: alike.
        todo: pieces of work.
        begin: begins one in a process.
        finish: waits for the oldest in a process; raises where the process has ended.

    """
    waiting: list[deque[_W]] = [deque() for _ in processes]
    with selectors.DefaultSelector() as selector:
        for number, process in enumerate(processes):
            selector.register(process, selectors.EVENT_READ, number)
        while _fill(processes, waiting, todo, begin):
            for key, _ in selector.select():
                done = finish(processes[key.data])  # raises where the process died, idle or not
                yield waiting[key.data].popleft(), done


def _fill(
    processes: Sequence[_P], waiting: Sequence[deque[_W]], todo: Iterator[_W], begin: Callable[[_P, _W], None]
) -> bool:
    """Give work to processes that have too little, one piece to each first; False once none is awaited."""
    for ahead in range(1, _AHEAD + 1):
        for process, own in zip(processes, waiting, strict=True):
            if len(own) < ahead and (piece := next(todo, None)) is not None:
                begin(process, piece)
                own.append(piece)
    return any(waiting)
