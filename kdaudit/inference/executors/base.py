"""What an executor does: it loads a model as often as there is room, and maps shards of work over these."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol

from kdaudit.inference import Batch, Done, EngineInfo, EngineOptions, Lengths, MatchedTokens, Ragged, Task
from kdaudit.inference.workers import Place


class ModelJob(NamedTuple):
    """A model to load."""

    options: EngineOptions
    shards: int
    """How many are to come: more replicas than that are of no use."""
    fingerprint: str = ""
    """See `ResolvedModel.fingerprint`, of the folder of the options; empty: not taken yet."""
    hub: tuple[str, str] | None = None
    """The model's hub id and commit, where it is of the hub."""


class Shard(NamedTuple):
    """A part of the work."""

    name: str
    examples: Batch


class Finished(NamedTuple):
    """A shard that is done."""

    name: str
    done: Done


class LoadedModel(Protocol):
    """A model's replicas; what is asked of one is asked of the first."""

    @property
    def info(self) -> EngineInfo:
        """Engine, version, device and dtype, of all alike."""
        ...

    @property
    def sequences(self) -> int:
        """Sequences that each meets together at most."""
        ...

    def match(self, prompts: Ragged, targets: Ragged) -> MatchedTokens:
        """See `Engine.match`."""
        ...

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        ...

    def map(self, task: Task, shards: Iterable[Shard]) -> Iterator[Finished]:
        """Do a task on each shard, each as it is done; with one replica in their order.

        Shards are asked for one by one, ahead of the engines' need: to read one, and to write one that is
        done, overlaps their work. A shard is one batch of work to whatever replica takes it, so what comes of
        it does not depend on how many there are.

        Raises:
            EngineError: as `explained`: one replica failed or died. Shards that were given out are done.

        """
        ...


class Executor(Protocol):
    """Loads models."""

    def load(self, job: ModelJob) -> AbstractContextManager[LoadedModel]:
        """Load a model's replicas; they end with the block.

        Raises:
            UsageError: vLLM is asked for and not installed.
            EngineError: as `explained`.

        """
        ...

    def places(self, folders: Sequence[Path], shards: int) -> list[Place]:
        """Where processes of this machine run that share work on models in transformers, one or several each.

        Args:
            folders: of the models that each process holds.
            shards: parts of the work: more processes than that are of no use.

        Raises:
            UsageError: the machine has no room for so many.

        """
        ...
