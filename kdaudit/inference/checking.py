"""The engine check, over token ids alone: the reference writes, the engine is asked, and the two must agree.

What is compared, and what cannot be seen, says `kdaudit.inference.agreement`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import (
    DisagreementError,
    ModelError,
    NoReferenceError,
    OutOfMemoryError,
    WorkerDiedError,
)
from kdaudit.inference.agreement import (
    Agreement,
    Continuations,
    Departure,
    Rounding,
    ask,
    compare_outputs,
    rounding_of,
)
from kdaudit.inference.base import EngineInfo, Masking
from kdaudit.inference.examples import Lengths, Ragged
from kdaudit.inference.reference import Reference

_CAUSES = (
    "Causes seen so far: weight files that only one of them loads, an output layer tied by one alone, rotary "
    "positions scaled by one alone, a sliding window, soft cap or bias left out, a dtype that overflows."
)

NO_REFERENCE = (NoReferenceError, OutOfMemoryError, WorkerDiedError)
"""Errors after which there is no check, and a note says why; any other ends the run."""


class Model(NamedTuple):
    """The model under check."""

    name: str
    """For messages."""
    folder: Path
    dtype: str
    """auto (the checkpoint's own), float32, bfloat16 or float16: what the engine runs it in."""
    trust_remote_code: bool
    parameters: int


class Expected(NamedTuple):
    """What the reference says, and so what an engine has to say."""

    prompts: Ragged
    """The BOS token first where there is one."""
    continuations: Continuations
    rounding: Rounding
    about: str
    """What the reference is: library, version, attention, dtype and device."""


class Asking(NamedTuple):
    """How to ask an engine."""

    info: EngineInfo
    match: Callable[[Ragged, Ragged], NDArray[np.int16]]
    """See `Engine.match`."""
    generate: Callable[[Ragged, int], Ragged] | None
    """See `Engine.generate`; None where it only reads."""


def ask_reference(
    model: Model, prompts: Ragged, tokens: int | Lengths, retries: int = 0, masking: Masking | None = None
) -> Expected:
    """Let the reference continue prompts; a large model on a CPU continues the first of them alone.

    Args:
        model: the model.
        prompts: what is read.
        tokens: to write after all, or after each.
        retries: as in `EngineOptions`.
        masking: what it must not write, where the engine is asked to generate and not to match.

    Raises:
        NoReferenceError: transformers cannot load or run the model, or it does not fit in float32.
        EngineError: anything else went wrong.
        ModelError: the model gives numbers that are not finite.

    """
    with Reference(*model[1:], retries) as reference:
        written, probe = reference.continue_greedily(prompts, tokens, masking or Masking())
        about, dtype = reference.about, reference.dtype
    broken = int((~np.isfinite(written.margins)).any(axis=1).sum())
    if broken:
        raise ModelError(
            f"{model.folder}: NaN or infinite logits for {broken:,} of {len(written.tokens):,} windows",
            fix="if it is loaded as float16, set its dtype to float32, else its weights are damaged: "
            "copy or train it again",
        )
    if not np.isfinite(probe.change).all():
        raise ModelError(
            f"{model.folder}: in {dtype} it gives NaN or infinite logits, in float32 it does not",
            fix="set its dtype to float32 or bfloat16",
        )
    return Expected(
        prompts.take(np.arange(len(written.tokens))), written, rounding_of(written, probe, dtype), about
    )


def check_engine(
    model: Model, expected: Expected, asking: Asking, names: NDArray[np.int64], seed: int
) -> Agreement:
    """Check that an engine runs the model that the reference runs.

    Args:
        model: the model.
        expected: what the reference says.
        asking: the engine, with the model loaded.
        names: what the windows are called in a message: int64 (windows,).
        seed: of the positions of wrong tokens.

    Raises:
        DisagreementError: it does not.
        EngineError: it failed.

    """
    asked = ask(expected.continuations, seed)
    matched = asking.match(expected.prompts.take(asked.windows), asked.targets)
    found = compare_outputs(expected.continuations, asked, matched, expected.rounding)
    if not found.holds:
        raise DisagreementError(_explained(model, expected, asking, found, names))
    return found


def _explained(
    model: Model, expected: Expected, asking: Asking, found: Agreement, names: NDArray[np.int64]
) -> str:
    engine = f"{asking.info.engine} {asking.info.version} ({asking.info.dtype})"
    other = "transformers" if asking.info.engine == "vllm" else "vllm"
    return (
        f"{model.name}: {engine} and the reference ({expected.about}) do not run the same model from "
        f"{model.folder}: {_where(expected, asking, found, names)}. {_CAUSES} Nothing of it was measured; "
        "finished models are kept. Remove what is stale or stray from its folder, or save it again with "
        "save_pretrained, and run again; if the two still differ, set extraction.engine to "
        f"{other} and report it"
    )


def _where(expected: Expected, asking: Asking, found: Agreement, names: NDArray[np.int64]) -> str:
    if not found.departures:
        return (
            f"in {found.near_ties} of {found.windows} windows the greedy continuations part, each at a near "
            f"tie, but after {found.positions:,} tokens in all; rounding explains one in "
            f"{1 / expected.rounding.rate:,.0f} tokens"
        )
    first = found.departures[0]
    token = int(expected.continuations.tokens[first.window, first.position])
    windows = len({departure.window for departure in found.departures})
    return (
        f"in {windows} of {found.windows} windows the greedy continuations part where no near tie explains "
        f"it; first in example {names[first.window]} at token {first.position}: the reference says "
        f"{token}, the engine {_engine_token(expected, asking, first)}"
    )


def _engine_token(expected: Expected, asking: Asking, first: Departure) -> str:
    """The engine's token at a departure."""
    if asking.generate is None:
        return "another token"
    written = asking.generate(Ragged.of([expected.prompts[first.window]]), first.position + 1)[0]
    token = int(written[first.position])
    if token == int(expected.continuations.tokens[first.window, first.position]):
        return f"{token} too, yet it also takes another for it"
    return str(token)
