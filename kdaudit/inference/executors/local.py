"""Replicas of a model in worker processes of this machine.

One for each GPU, or group of GPUs that shares the model (`tensor_parallel`), each of which sees its own
alone; on a machine without GPUs one. A replica that dies or runs out of memory ends the others too: the
caller loads all of them again, in smaller batches, and does what is not done yet.
"""

from __future__ import annotations

import os
import re
import selectors
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

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

_AHEAD = 2
"""Shards that a replica has at once: one that it works on, one that waits."""


class LocalExecutor:
    """See `Executor`.

    Args:
        replicas: how many, which then share the machine as they are; None: as the GPUs allow.

    """

    def __init__(self, replicas: int | None = None) -> None:
        self._replicas = replicas

    @contextmanager
    def load(self, job: ModelJob) -> Iterator[Replicas]:
        """See `Executor.load`."""
        require(job.options.engine)
        with ExitStack() as stack:
            begun = [
                stack.enter_context(RemoteEngine(options, environment))
                for options, environment in self._places(job)
            ]
            for engine in begun:  # they load side by side
                engine.wait()
            # All shards of a model must come from one engine: GPUs of another kind stay idle.
            kind = begun[0].info, begun[0].sequences
            yield Replicas([engine for engine in begun if (engine.info, engine.sequences) == kind])

    def _places(self, job: ModelJob) -> Iterator[tuple[EngineOptions, dict[str, str]]]:
        """What each replica is loaded with."""
        options = job.options
        if options.engine == "endpoint":  # which asks several times at once by itself
            yield options, {}
            return
        if self._replicas is not None:
            for _ in range(self._replicas):
                yield options._replace(memory_share=options.memory_share / self._replicas), {}
            return
        groups = gpu_groups(options.tensor_parallel if options.engine == "vllm" else 1)[: job.shards]
        if len(groups) < 2:
            yield options, {}
            return
        for group in groups:
            yield options, {"CUDA_VISIBLE_DEVICES": ",".join(group)}


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


def gpu_groups(tensor_parallel: int) -> list[list[str]]:
    """NVIDIA GPUs that this process may use, so many together; those that are left over stay idle."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        found = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
        gpus = [str(number) for number in range(len(found))]
    else:
        gpus = [one.strip() for one in named.split(",") if one.strip() not in ("", "-1")]
    whole = len(gpus) // tensor_parallel * tensor_parallel
    return [gpus[start : start + tensor_parallel] for start in range(0, whole, tensor_parallel)]
