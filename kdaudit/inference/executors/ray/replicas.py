"""A model's actors, and shards shared out to them."""

from __future__ import annotations

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, cast

from kdaudit.inference import (
    Done,
    EngineInfo,
    EngineOptions,
    Lengths,
    MatchedTokens,
    Ragged,
    Task,
    explained,
)
from kdaudit.inference.base import Loaded
from kdaudit.inference.examples import lengths_of
from kdaudit.inference.executors.base import Finished, Shard
from kdaudit.inference.executors.ray.actor import Answer
from kdaudit.inference.executors.ray.answers import Actor, LostError, get, nothing_left
from kdaudit.inference.workers.messages import Array

_AHEAD = 2
"""Shards that an actor has at once: one that it works on, one that waits."""


class _Given(NamedTuple):
    """A shard whose examples are in the object store."""

    name: str
    arrays: Any
    actor: Actor


class RayReplicas:
    """See `LoadedModel`.

    Args:
        actors: those that have loaded the model.
        loaded: what each of them said of it.
        options: how it was loaded.
        warn: told of actors that die.

    """

    def __init__(
        self, actors: list[Actor], loaded: Loaded, options: EngineOptions, warn: Callable[[str], None]
    ) -> None:
        self._actors = actors
        self._loaded = loaded
        self._options = options
        self._warn = warn

    @property
    def info(self) -> EngineInfo:
        """See `LoadedModel.info`."""
        return self._loaded.info

    @property
    def sequences(self) -> int:
        """See `LoadedModel.sequences`."""
        return self._loaded.sequences

    def match(self, prompts: Ragged, targets: Ragged) -> MatchedTokens:
        """See `Engine.match`."""
        return self._ask("match", (*prompts.arrays, *targets.arrays)).arrays[0]

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        arrays = (*prompts.arrays, lengths_of(tokens, len(prompts)))
        return Ragged(*self._ask("generate", arrays, temperature=temperature, seed=seed).arrays)

    def map(self, task: Task, shards: Iterable[Shard]) -> Iterator[Finished]:
        """See `LoadedModel.map`: shards of an actor that dies are done again by the others."""
        import ray

        todo, again = iter(shards), deque[_Given]()
        pending: dict[Any, _Given] = {}
        while self._fill(task, todo, again, pending):
            ready, _ = ray.wait([*pending], num_returns=1)
            given = pending.pop(ready[0])
            try:
                found = self._get(ready[0])
            except LostError as lost:
                again.append(given)
                self._drop(given.actor, lost)
            else:
                yield Finished(given.name, _done(found))

    def _fill(
        self, task: Task, todo: Iterator[Shard], again: deque[_Given], pending: dict[Any, _Given]
    ) -> bool:
        """Give shards to actors that have too few, one to each first; False once nothing is awaited."""
        for ahead in range(1, _AHEAD + 1):
            for actor in self._actors:
                if sum(given.actor is actor for given in pending.values()) < ahead:
                    given = again.popleft() if again else _stored(next(todo, None), actor)
                    if given is not None:
                        pending[_begin(task, given.arrays, actor)] = given._replace(actor=actor)
        return bool(pending)

    def _ask(self, method: str, arrays: tuple[Array, ...], **values: Any) -> Answer:  # noqa: ANN401 - JSON
        """Ask the first actor, or the next where it dies."""
        while True:
            actor = self._actors[0]
            try:
                return self._get(actor.handle.call.remote(method, arrays, json.dumps(values)))
            except LostError as lost:
                self._drop(actor, lost)

    def _get(self, answer: Any) -> Answer:  # noqa: ANN401 - Ray is untyped here
        with explained(self._options.path, self._options.engine):
            return cast("Answer", get(answer))

    def _drop(self, actor: Actor, lost: LostError) -> None:
        """Do without an actor.

        Raises:
            WorkerDiedError: none is left.

        """
        if actor not in self._actors:
            return
        self._actors = [one for one in self._actors if one is not actor]
        if not self._actors:
            with explained(self._options.path, self._options.engine):
                raise nothing_left()
        self._warn(
            f"{self._options.path}: {actor} died ({lost}); its shards are done again by those that are left: "
            f"{len(self._actors)}"
        )


def _stored(shard: Shard | None, actor: Actor) -> _Given | None:
    """Put a shard's examples into the object store, from where an actor on any node reads them."""
    import ray

    if shard is None:
        return None
    ids, prompts, targets = shard.examples.example_ids, shard.examples.prompts, shard.examples.targets
    return _Given(shard.name, ray.put((ids, *prompts.arrays, *targets.arrays)), actor)


def _begin(task: Task, arrays: Any, actor: Actor) -> Any:  # noqa: ANN401 - Ray is untyped here
    kind = type(task)
    name, settings = f"{kind.__module__}:{kind.__qualname__}", dataclasses.asdict(cast("Any", task))
    return actor.handle.call.remote("run", arrays, json.dumps({"task": name, "settings": settings}))


def _done(answer: Answer) -> Done:
    import pyarrow as pa

    with pa.ipc.open_stream(pa.py_buffer(answer.arrays[0])) as stream:
        return Done(stream.read_all(), answer.seconds)
