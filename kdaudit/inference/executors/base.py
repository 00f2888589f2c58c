"""What an executor does: it starts processes that hold models, as many as there is room for.

`load` puts a model's engine into each of them and maps shards of work over these; the passes of
`kdaudit.inference.scoring` run in such processes too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kdaudit.errors import WorkerLostError
from kdaudit.inference import (
    Batch,
    Done,
    EngineInfo,
    EngineOptions,
    Lengths,
    MatchedTokens,
    Ragged,
    RemoteEngine,
    Task,
    require,
)
from kdaudit.inference.executors.sharing import drop, share_out, wait_for
from kdaudit.inference.workers import Start, begin_worker
from kdaudit.models.tokenizer import Encode

_T = TypeVar("_T")


class HostedModel(NamedTuple):
    """A model, as every machine must have it that holds it."""

    path: Path
    """Its folder on this machine, where others should have it too."""
    fingerprint: str = ""
    """See `ResolvedModel.fingerprint`; empty: not taken yet."""
    hub: tuple[str, str] | None = None
    """Its hub id and commit, where it is of the hub, so that machines without the folder can fetch it."""
    trust_remote_code: bool = False


class Hosts(NamedTuple):
    """Processes that can hold models, none of them started."""

    starts: Sequence[Start]
    """One for each."""
    memory_share: float = 1.0
    """The part of its machine's memory that is each one's."""
    free_memory: int | None = None
    """Bytes free on the machine that has the least; None where they do not share it."""


class ModelJob(NamedTuple):
    """A model to load in an engine."""

    options: EngineOptions
    shards: int
    """How many are to come: more replicas than that are of no use."""
    fingerprint: str = ""
    """See `HostedModel`."""
    hub: tuple[str, str] | None = None
    """See `HostedModel`."""

    @property
    def model(self) -> HostedModel:
        """What is loaded."""
        path = Path(self.options.path)
        return HostedModel(path, self.fingerprint, self.hub, self.options.trust_remote_code)


class Shard(NamedTuple):
    """A part of the work."""

    name: str
    examples: Batch


class Finished(NamedTuple):
    """A shard that is done."""

    name: str
    done: Done


class Replicas:
    """A model's replicas; what is asked of one is asked of the first.

    Args:
        engines: loaded, all alike; those that are lost are removed.
        warn: told of them.

    """

    def __init__(self, engines: list[RemoteEngine], warn: Callable[[str], None]) -> None:
        self._engines = engines
        self._warn = warn

    @property
    def info(self) -> EngineInfo:
        """Engine, version, device and dtype, of all alike."""
        return self._engines[0].info

    @property
    def max_num_seqs(self) -> int:
        """Maximum concurrent sequences of each."""
        return self._engines[0].max_num_seqs

    def match(self, prompts: Ragged, targets: Ragged) -> MatchedTokens:
        """See `Engine.match`."""
        return self._ask(lambda engine: engine.match(prompts, targets))

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        return self._ask(lambda engine: engine.generate(prompts, tokens, temperature, seed))

    def map(self, task: Task, shards: Iterable[Shard]) -> Iterator[Finished]:
        """Do a task on each shard, each as it is done; with one replica in their order.

        A shard is one batch of work to whatever replica takes it, so what comes of it does not depend on how
        many there are. See `share_out`.

        Raises:
            EngineError: one replica failed or died. Shards that were given out are done.

        """

        def begin(engine: RemoteEngine, shard: Shard) -> None:
            engine.begin(task, shard.examples)

        done = share_out(self._engines, shards, begin, RemoteEngine.finish, self._warn)
        return (Finished(shard.name, found) for shard, found in done)

    def _ask(self, ask: Callable[[RemoteEngine], _T]) -> _T:
        """Ask the first replica, or the next where it is lost."""
        while True:
            engine = self._engines[0]
            try:
                return ask(engine)
            except WorkerLostError as lost:
                drop(self._engines, engine, lost, self._warn)


class Executor(ABC):
    """Starts processes that hold models, on this machine or in a cluster.

    Args:
        warn: told of processes that are lost where others do their work.

    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.warn = warn

    @abstractmethod
    def hosts(
        self, models: Sequence[HostedModel], shards: int, tensor_parallel: int = 1
    ) -> AbstractContextManager[Hosts]:
        """Make room for processes that hold these models, each all of them; they end with the block.

        Args:
            models: what each holds.
            shards: parts of the work: more processes than that are of no use.
            tensor_parallel: GPUs that share one process's model.

        Raises:
            UsageError: there is no room for so many, or a machine lacks a model.
            EngineError: the machines of a cluster are busy or gone.

        """

    def encoding(self, tokenizer: Any) -> Encode | None:  # noqa: ANN401 - `tokenizers` is untyped
        """What encodes texts; None: this process, as the tokenizers library uses all of a machine's cores.

        Raises:
            ModelError: as `Encoder`.

        """
        del tokenizer
        return None

    @contextmanager
    def load(self, job: ModelJob) -> Iterator[Replicas]:
        """Load a model's replicas; they end with the block.

        Raises:
            UsageError: vLLM is asked for and not installed, or as `hosts`.
            EngineError: as `explained`, or as `hosts`.

        """
        options = job.options
        require(options.engine)
        tensor_parallel = options.tensor_parallel if options.engine == "vllm" else 1
        with ExitStack() as stack:
            if options.engine == "endpoint":  # which asks several times at once by itself
                hosts = Hosts([begin_worker])
            else:
                hosts = stack.enter_context(self.hosts([job.model], job.shards, tensor_parallel))
            if hosts.free_memory is not None:
                share = options.memory_share * hosts.memory_share
                options = options._replace(memory_share=share, free_memory=hosts.free_memory)
            engines = [stack.enter_context(RemoteEngine(options, start)) for start in hosts.starts]
            wait_for(engines, self.warn)
            # All shards of a model must come from one engine: GPUs of another kind stay idle.
            kind = engines[0].info, engines[0].max_num_seqs
            yield Replicas([one for one in engines if (one.info, one.max_num_seqs) == kind], self.warn)
