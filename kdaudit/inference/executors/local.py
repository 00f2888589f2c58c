"""Processes of this machine that hold models, each in a place of its own (`places`).

One that dies or runs out of memory ends the others too: the caller loads all of them again, in smaller
batches, and does what is not done yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from kdaudit.errors import UsageError
from kdaudit.inference.executors.base import Executor, HostedModel, Hosts
from kdaudit.inference.executors.places import places_for
from kdaudit.inference.workers import Place, begin_worker

_GIB = 1 << 30


def _silent(_: str) -> None:
    """No process of this machine is lost with others left."""


class LocalExecutor(Executor):
    """See `Executor`.

    Args:
        workers: processes for each model; None: as many as `places_for` says.
        warn: see `Executor`.

    """

    def __init__(self, workers: int | None = None, warn: Callable[[str], None] = _silent) -> None:
        super().__init__(warn)
        self._workers = workers

    @contextmanager
    def hosts(self, models: Sequence[HostedModel], shards: int, tensor_parallel: int = 1) -> Iterator[Hosts]:
        """See `Executor.hosts`."""
        places = places_for(self._workers, tensor_parallel, shards)
        starts = [partial(begin_worker, place=place) for place in places]
        if len(places) < 2 or places[0].gpus:
            yield Hosts(starts)
        else:
            yield Hosts(starts, 1 / len(places), _refuse_too_many([one.path for one in models], places))


def _refuse_too_many(folders: Sequence[Path], places: Sequence[Place]) -> int:
    """Refuse replicas that share the machine's memory where their weights do not fit; give what is free.

    Args:
        folders: models that each of them holds.
        places: of the replicas.

    """
    free = psutil.virtual_memory().available
    weights = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
    if weights * len(places) > free:
        raise UsageError(
            f"{len(places)} replicas of {' and '.join(map(str, folders))} take "
            f"{weights * len(places) / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB of memory are free",
            fix=f"set it to {max(1, int(free // weights))}",
            key="compute.workers",
        )
    return int(free)
