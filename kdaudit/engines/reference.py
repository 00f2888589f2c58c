"""The reference of the engine check: what a model itself says, by plain means.

It runs in transformers with eager attention and in float32, all windows of one length, so without padding, on
weights as the audit's dtype holds them. It shares with the engines neither attention kernels, batching nor
decoding loop, and with vLLM neither the loading of weights nor the reading of config.json. It writes the
greedy continuations of a few dozen prefixes with its cache of keys and values; the first of them pass the
model once more, each by itself and without a cache, in float32 and in the audit's dtype. The former shows
that the cache changes nothing, the latter what rounding does to this model: `Rounding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import psutil
from numpy.typing import NDArray

from kdaudit.engines import PRELOAD, explained
from kdaudit.engines.agreement import PROBED, Continuations, Probe
from kdaudit.engines.base import Masking, Tokens
from kdaudit.engines.sizing import own_dtype, read_config
from kdaudit.workers import Worker

if TYPE_CHECKING:
    import torch

_BYTES_A_PARAMETER = 5
"""Memory of a float32 weight, and a quarter more for what passes through."""
_WORK = 5e12
"""Multiplications and additions that continuing may take on a CPU: a minute on a few cores."""


class ReferenceService:
    """Runs in the worker: one model in float32."""

    def __init__(self, options: dict[str, Any]) -> None:
        import transformers

        self._parameters, self._retreat = int(options["parameters"]), int(options["retreat"])
        folder = Path(options["folder"])
        dtype = options["dtype"]
        self._dtype = own_dtype(read_config(folder)) if dtype == "auto" else dtype
        self._device = _device_for(self._parameters)
        self._model = _load(folder, self._dtype, options["trust_remote_code"]).to(self._device)
        self._cast("float32")
        self._masking = Masking()
        self._about = f"transformers {transformers.__version__}, eager attention, float32 on {self._device}"

    def describe(self) -> dict[str, str]:
        """What the reference is, and the dtype of the model under audit."""
        return {"about": self._about, "dtype": self._dtype}

    def continue_greedily(
        self, prefixes: Tokens, *, tokens: int, masking: Sequence[Any]
    ) -> tuple[NDArray[Any], ...]:
        """Continue prefixes, fewer of them where a large model stands on a CPU.

        Args:
            prefixes: int32 (windows, prefix tokens).
            tokens: to write after each.
            masking: the fields of `Masking`: what it must not write.

        Returns:
            The arrays of `Continuations`, then those of `Probe`.

        """
        import torch

        self._masking = Masking(*masking)
        cost = 2.0 * self._parameters * (prefixes.shape[1] + tokens)
        most = len(prefixes) if self._device != "cpu" else max(PROBED, int(_WORK / cost))
        ids = torch.from_numpy(prefixes[:most].astype(np.int64)).to(self._device)
        with torch.inference_mode():
            written = self._write(ids, tokens, cached=True)
            exact, rounded = self._probe(ids, written)
            if (exact.argmax(-1).cpu().numpy() != written.tokens[:PROBED]).any():
                # Only an exact tie, or a cache that changes what the model says.
                written = self._write(ids[:PROBED], tokens, cached=False)
                exact, rounded = self._probe(ids, written)
        return *written, *_probed(exact, rounded)

    def _write(self, ids: torch.Tensor, tokens: int, *, cached: bool) -> Continuations:
        batch = max(1, len(ids) >> 2 * self._retreat)  # a quarter for each
        parts = [
            self._write_batch(ids[row : row + batch], tokens, cached) for row in range(0, len(ids), batch)
        ]
        return Continuations(*(np.concatenate(part) for part in zip(*parts, strict=True)))

    def _write_batch(self, ids: torch.Tensor, tokens: int, cached: bool) -> Continuations:
        import torch

        steps: list[Continuations] = []
        read, cache = ids, None
        for _ in range(tokens):
            found = self._model(input_ids=read, past_key_values=cache, use_cache=cached)
            cache = getattr(found, "past_key_values", None) if cached else None
            steps.append(_judged(self._masked(found.logits[:, -1])))
            said = torch.from_numpy(steps[-1].tokens.astype(np.int64)).to(self._device)[:, None]
            read = said if cache is not None else torch.cat([read, said], dim=1)
        return Continuations(*(np.stack(part, axis=1) for part in zip(*steps, strict=True)))

    def _probe(self, ids: torch.Tensor, written: Continuations) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of the first windows' continuations: float32 (windows, tokens, columns), in both dtypes."""
        import torch

        said = torch.from_numpy(written.tokens[:PROBED].astype(np.int64)).to(self._device)
        rows = torch.cat([ids[: len(said)], said], dim=1)
        start = ids.shape[1] - 1
        exact = torch.cat([self._read(row)[:, start:] for row in rows[:, None]])
        precision = torch.get_float32_matmul_precision()
        self._cast(self._dtype)
        torch.set_float32_matmul_precision("high")  # engines may round products of float32 to TF32 on a GPU
        rounded = torch.cat([self._read(row)[:, start:] for row in rows[:, None]])
        torch.set_float32_matmul_precision(precision)
        self._cast("float32")
        return exact, rounded

    def _read(self, row: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self._model(input_ids=row[:, :-1], use_cache=False).logits
        return self._masked(logits)

    def _masked(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits in float32, of ids that may be written."""
        import torch

        ids = torch.tensor(self._masking.ids(logits.shape[-1]), dtype=torch.long, device=logits.device)
        return logits.float().index_fill(-1, ids, float("-inf"))

    def _cast(self, dtype: str) -> None:
        """Hold the weights in another dtype; buffers, such as the angles of rotary positions, stay exact."""
        import torch

        for weight in self._model.parameters():
            if weight.is_floating_point():
                weight.data = weight.data.to(getattr(torch, dtype))


def _judged(logits: torch.Tensor) -> Continuations:
    """The next token of each row, as in `Continuations` but (rows,)."""
    best = logits.topk(2, dim=-1)
    spread = best.values[:, 0] - logits.median(dim=-1).values
    margins = (best.values[:, 0] - best.values[:, 1]) / spread
    return Continuations(
        best.indices[:, 0].cpu().numpy().astype(np.int32),
        margins.cpu().numpy(),
        logits.argmin(dim=-1).cpu().numpy().astype(np.int32),
    )


def _probed(exact: torch.Tensor, rounded: torch.Tensor) -> Probe:
    best = exact.topk(2, dim=-1)
    spread = best.values[..., 0] - exact.median(dim=-1).values
    there = rounded.gather(-1, best.indices)
    change = (there[..., 0] - there[..., 1]) - (best.values[..., 0] - best.values[..., 1])
    flipped = rounded.argmax(-1) != best.indices[..., 0]
    return Probe((change.abs() / spread).cpu().numpy(), flipped.cpu().numpy())


def _device_for(parameters: int) -> str:
    """Where the model fits in float32: the best device, else the CPU.

    Raises:
        MemoryError: nowhere.

    """
    import torch

    from kdaudit.engines.transformers import pick_device

    need, device = _BYTES_A_PARAMETER * parameters, pick_device()
    if device == "cuda" and torch.cuda.mem_get_info(0)[0] < need:
        device = "cpu"
    available = psutil.virtual_memory().available
    if device != "cuda" and available < need:
        raise MemoryError(
            f"in float32 it takes {need / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free"
        )
    return device


def _load(folder: Path, dtype: str, trust_remote_code: bool) -> Any:  # noqa: ANN401 - transformers is untyped
    """The model as transformers alone reads its folder; not by the engine's own way of loading."""
    import torch
    from transformers import AutoModelForCausalLM

    model, told = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        attn_implementation="eager",
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if told["missing_keys"]:
        raise ValueError(f"its weights lack {sorted(map(str, told['missing_keys']))[0]}")
    return model.eval()


class Reference:
    """The reference of one model in a process of its own; a context manager that ends the process.

    Args:
        folder: the model's.
        dtype: auto (the checkpoint's own), float32, bfloat16 or float16: the audit's.
        trust_remote_code: whether to run code that comes with the model.
        parameters: how many it has.
        retreat: as in `EngineOptions`.

    Raises:
        EngineError: transformers cannot run it, or it does not fit in float32.

    """

    def __init__(
        self, folder: Path, dtype: str, trust_remote_code: bool, parameters: int, retreat: int
    ) -> None:
        self._folder = str(folder)
        options = {
            "folder": self._folder,
            "dtype": dtype,
            "trust_remote_code": trust_remote_code,
            "parameters": parameters,
            "retreat": retreat,
        }
        with explained(self._folder, "transformers"):
            self._worker = Worker(
                "kdaudit.engines.reference:ReferenceService", options, PRELOAD["transformers"]
            )
        self.about: str = self._worker.ready["about"]
        """Library, version, attention, dtype and device."""
        self.dtype: str = self._worker.ready["dtype"]
        """The dtype that the engine runs the model in."""

    def continue_greedily(self, prefixes: Tokens, tokens: int, masking: Masking) -> Written:
        """See `ReferenceService.continue_greedily`."""
        with explained(self._folder, "transformers"):
            answer = self._worker.call("continue_greedily", prefixes, tokens=tokens, masking=masking)
        arrays = answer.arrays
        return Written(Continuations(*arrays[:3]), Probe(*arrays[3:]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()


class Written(NamedTuple):
    """What the reference wrote, and what rounding does to some of it."""

    continuations: Continuations
    probe: Probe
