"""The reference of the engine check: what a model itself says, by plain means.

It runs in transformers with eager attention and in float32, prompts of one length together and so without
padding, on weights as the audit's dtype holds them. It shares with the engines neither attention kernels,
batching nor decoding loop, and with vLLM neither the loading of weights nor the reading of config.json. It
writes the greedy continuations of a few dozen prompts with its cache of keys and values; the first of them
pass the model once more, each by itself and without a cache, in float32 and in the audit's dtype. The former
shows that the cache changes nothing, the latter what rounding does to this model: `Rounding`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import NoReferenceError
from kdaudit.inference.agreement import Continuations, Probe
from kdaudit.inference.base import Masking
from kdaudit.inference.examples import Lengths, Ragged, lengths_of
from kdaudit.inference.remote import PRELOAD, explained
from kdaudit.inference.workers import HoldsWorker, Worker


class Reference(HoldsWorker):
    """The reference of one model in a process of its own; a context manager that ends the process.

    Args:
        folder: the model's.
        dtype: auto (the checkpoint's own), float32, bfloat16 or float16: the audit's.
        trust_remote_code: whether to run code that comes with the model.
        parameters: how many it has.
        retries: as in `EngineOptions`.

    Raises:
        NoReferenceError: transformers cannot load or run it, or it does not fit in float32.
        EngineError: anything else went wrong.

    """

    def __init__(
        self, folder: Path, dtype: str, trust_remote_code: bool, parameters: int, retries: int
    ) -> None:
        self._folder = str(folder)
        options = {
            "folder": self._folder,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "parameters": parameters,
            "retries": retries,
        }
        with explained(self._folder, "transformers"):
            self._worker = Worker(
                "kdaudit.inference.reference_service:ReferenceService", options, PRELOAD["transformers"]
            )
        if trouble := self._worker.ready["trouble"]:
            self._worker.close()
            raise NoReferenceError(f"{self._folder}: transformers cannot run this model: {trouble}")
        self.about: str = self._worker.ready["about"]
        """Library, version, attention, dtype and device."""
        self.dtype: str = self._worker.ready["dtype"]
        """The dtype that the engine runs the model in."""

    def continue_greedily(self, prompts: Ragged, tokens: int | Lengths, masking: Masking) -> ReferenceOutput:
        """See `ReferenceService.continue_greedily`."""
        lengths = lengths_of(tokens, len(prompts))
        with explained(self._folder, "transformers"):
            answer = self._worker.call(
                "continue_greedily", prompts.values, prompts.offsets, lengths, masking=masking
            )
        arrays = answer.arrays
        return ReferenceOutput(Continuations(*arrays[:4]), Probe(*arrays[4:]))


class ReferenceOutput(NamedTuple):
    """What the reference wrote, and what rounding does to some of it."""

    continuations: Continuations
    probe: Probe
