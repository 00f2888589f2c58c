"""A step done ahead in a thread, while the caller works on what came of the one before.

The tokenizer encodes without Python's lock and on all cores; what is done with its tokens is Python on one.
So the one overlaps the other, and memory holds two batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


def ahead(items: Iterable[_T], step: Callable[[_T], _R]) -> Iterator[tuple[_T, _R]]:
    """Each item and what the step made of it, in order; the step works on the next one meanwhile.

    Args:
        items: taken one ahead, in the caller's thread.
        step: for one item at a time.

    """
    with ThreadPoolExecutor(1) as thread:
        begun: tuple[_T, Future[_R]] | None = None
        for item in items:
            before, begun = begun, (item, thread.submit(step, item))
            if before is not None:
                yield before[0], before[1].result()
        if begun is not None:
            yield begun[0], begun[1].result()
