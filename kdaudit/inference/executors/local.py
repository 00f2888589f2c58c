"""Replicas of a model in worker processes of this machine, each in a place of its own (`places`).

A replica that dies or runs out of memory ends the others too: the
caller loads all of them again, in smaller batches, and does what is not done yet.
"""

from __future__ import annotations

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
from kdaudit.inference.executors.sharing import share_out
from kdaudit.inference.workers import Place

_GIB = 1 << 30


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

    def places(self, folders: Sequence[Path], shards: int) -> list[Place]:
        """See `Executor.places`."""
        places = places_for(self._workers, 1, shards)
        _refuse_too_many(folders, places)
        return places

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
    free = _refuse_too_many([Path(options.path)], places)
    return options._replace(memory_share=options.memory_share / len(places), free_memory=free)


def _refuse_too_many(folders: Sequence[Path], places: Sequence[Place]) -> int:
    """Refuse replicas whose weights do not fit the machine's memory, where they share it; give what is free.

    Args:
        folders: models that each of them holds.
        places: of the replicas.

    """
    free = psutil.virtual_memory().available
    weights = sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
    if len(places) > 1 and not places[0].gpus and weights * len(places) > free:
        raise UsageError(
            f"{len(places)} replicas of {' and '.join(map(str, folders))} take "
            f"{weights * len(places) / _GIB:.1f} GiB, and {free / _GIB:.1f} GiB of memory are free",
            fix=f"set it to {max(1, int(free // weights))}",
            key="compute.workers",
        )
    return int(free)


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
        done = share_out(
            self._engines,
            iter(shards),
            lambda engine, shard: engine.begin(task, shard.examples),
            RemoteEngine.finish,
        )
        return (Finished(shard.name, found) for shard, found in done)
