"""Replicas of a model in worker processes of this machine, each in a place of its own (`places`).

A replica that dies or runs out of memory ends the others too: the
caller loads all of them again, in smaller batches, and does what is not done yet.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from kdaudit.errors import UsageError
from kdaudit.inference import (
    EngineInfo,
    EngineOptions,
    Lengths,
    MatchedTokens,
    Ragged,
    RemoteEngine,
    Task,
    require,
)
from kdaudit.inference.executors.base import Finished, ModelJob, Shard
from kdaudit.inference.executors.places import places_for
from kdaudit.inference.workers import Place

_GIB = 1 << 30
_AHEAD = 2
"""Shards that a replica has at once: one that it works on, one that waits."""


class LocalExecutor:
    """See `Executor`.

    Args:
        workers: replicas of each model; None: as many as `places_for` says.

    """

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    @contextmanager
    def load(self, job: ModelJob) -> Iterator[Replicas]:
        """See `Executor.load`."""
        require(job.options.engine)
        places = self._places(job)
        options = _shared(job.options, places)
        with ExitStack() as stack:
            begun = [stack.enter_context(RemoteEngine(options, place)) for place in places]
            for engine in begun:  # they load side by side
                engine.wait()
            # All shards of a model must come from one engine: GPUs of another kind stay idle.
            kind = begun[0].info, begun[0].sequences
            yield Replicas([engine for engine in begun if (engine.info, engine.sequences) == kind])

    def _places(self, job: ModelJob) -> list[Place]:
        """Where each replica runs."""
        if job.options.engine == "endpoint":  # which asks several times at once by itself
            return [Place()]
        together = job.options.tensor_parallel if job.options.engine == "vllm" else 1
        return places_for(self._workers, together, job.shards)


def _shared(options: EngineOptions, places: Sequence[Place]) -> EngineOptions:
    """How replicas are loaded that share the machine's memory, where they do.

    Raises:
        UsageError: it does not hold so many copies of the weights.

    """
    if len(places) < 2 or places[0].gpus:
        return options
    free = psutil.virtual_memory().available
    weights = sum(path.stat().st_size for path in Path(options.path).glob("*.safetensors"))
    if weights * len(places) > free:
        raise UsageError(
            f"{len(places)} replicas of {options.path} take {weights * len(places) / _GIB:.1f} GiB, and "
            f"{free / _GIB:.1f} GiB of memory are free",
            fix=f"set it to {max(1, int(free // weights))}",
            key="compute.workers",
        )
    return options._replace(memory_share=options.memory_share / len(places), free_memory=free)


class Replicas:
    """See `LoadedModel`."""

    def __init__(self, engines: Sequence[RemoteEngine]) -> None:
        self._engines = engines

    @property
    def info(self) -> EngineInfo:
        """See `LoadedModel.info`."""
        return self._engines[0].info

    @property
    def sequences(self) -> int:
        """See `LoadedModel.sequences`."""
        return self._engines[0].sequences

    def match(self, prompts: Ragged, targets: Ragged) -> MatchedTokens:
        """See `Engine.match`."""
        return self._engines[0].match(prompts, targets)

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        return self._engines[0].generate(prompts, tokens, temperature, seed)

    def map(self, task: Task, shards: Iterable[Shard]) -> Iterator[Finished]:
        """See `LoadedModel.map`."""
        todo = iter(shards)
        waiting: list[deque[str]] = [deque() for _ in self._engines]
        with selectors.DefaultSelector() as selector:
            for number, engine in enumerate(self._engines):
                selector.register(engine, selectors.EVENT_READ, number)
            while self._fill(task, todo, waiting):
                for key, _ in selector.select():
                    done = self._engines[key.data].finish()  # raises where the replica died, idle or not
                    yield Finished(waiting[key.data].popleft(), done)

    def _fill(self, task: Task, todo: Iterator[Shard], waiting: Sequence[deque[str]]) -> bool:
        """Give shards to replicas that have too few, one to each first; False once nothing is awaited."""
        for ahead in range(1, _AHEAD + 1):
            for engine, names in zip(self._engines, waiting, strict=True):
                if len(names) < ahead and (shard := next(todo, None)) is not None:
                    engine.begin(task, shard.examples)
                    names.append(shard.name)
        return any(waiting)
