"""The reference of the engine check, in its worker process: see `kdaudit.inference.reference`."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil
from numpy.typing import NDArray

from kdaudit.inference.agreement import EXACT, PROBED, Continuations, Probe
from kdaudit.inference.base import Masking
from kdaudit.inference.examples import Lengths, Ragged, Tokens
from kdaudit.inference.quantized import keep_hub_kernels_out
from kdaudit.inference.sizing import own_dtype
from kdaudit.models.checkpoint.config import load_config
from kdaudit.models.checkpoint.files import read_config

if TYPE_CHECKING:
    import torch

_BYTES_A_PARAMETER = 5
"""Memory of a float32 weight, and a quarter more for what passes through."""
_WORK = 5e12
"""Multiplications and additions that continuing may take on a CPU: a minute on a few cores."""


class ReferenceService:
    """Runs in the worker: one model in float32."""

    def __init__(self, options: dict[str, Any]) -> None:
        import torch
        import transformers

        self._parameters, self._retries = int(options["parameters"]), int(options["retries"])
        folder = Path(options["folder"])
        dtype = options["dtype"]
        self._dtype = own_dtype(read_config(folder)) if dtype == "auto" else dtype
        self._masking = Masking()
        self._about, self._trouble = "", ""
        device, lacking = _device_for(self._parameters)
        if device is None:
            self._trouble = lacking
            return
        self._device = device
        config = load_config(folder, trust_remote_code=options["trust_remote_code"])  # no keys of loading
        # An error in this block is the library's; elsewhere it is ours, and ends the run.
        try:
            self._model = _load(folder, config, self._dtype, options["trust_remote_code"])
            self._model.to(device)
            self._cast("float32")
            self._model(input_ids=torch.zeros((1, 1), dtype=torch.long, device=device))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            traceback.print_exc()
            self._trouble = f"{type(error).__name__}: {error}"
        self._about = f"transformers {transformers.__version__}, eager attention, float32 on {device}"

    def describe(self) -> dict[str, str]:
        """What the reference is, the dtype of the model under audit, and why it cannot run, if it cannot."""
        return {"about": self._about, "dtype": self._dtype, "trouble": self._trouble}

    def continue_greedily(
        self, prompts: Tokens, offsets: Lengths, tokens: Lengths, *, masking: Sequence[Any]
    ) -> tuple[NDArray[Any], ...]:
        """Continue prompts, fewer of them where a large model stands on a CPU.

        Args:
            prompts: see `Ragged`.
            offsets: the same.
            tokens: to write after each: int64 (prompts,).
            masking: the fields of `Masking`: what it must not write.

        Returns:
            The arrays of `Continuations`, then those of `Probe`.

        """
        import torch

        self._masking = Masking(*masking)
        given = Ragged(prompts, offsets)
        cost = 2.0 * self._parameters * int((given.lengths + tokens).max())
        most = len(given) if self._device != "cpu" else max(PROBED, int(_WORK / cost))
        ids = [torch.from_numpy(one.astype(np.int64)).to(self._device) for one in given][:most]
        with torch.inference_mode():
            if self._keeps_cache(ids[0]):
                written = self._write(ids, tokens[:most], cached=True)
                found = self._probe(ids, written)
                if found.same:
                    return *written, *found.probe
            # Without a cache each token passes the model many times, so the first windows have to do.
            written = self._write(ids[:PROBED], tokens[:PROBED], cached=False)
            return *written, *self._probe(ids, written).probe

    def _keeps_cache(self, ids: torch.Tensor) -> bool:
        """Whether a text can be read on where it ended; recurrent models have no such cache."""
        found = self._model(input_ids=ids[None], use_cache=True)
        return getattr(found, "past_key_values", None) is not None

    def _write(self, ids: Sequence[torch.Tensor], tokens: Lengths, *, cached: bool) -> _Texts:
        """Continue prompts, those of one length together."""
        import torch

        shape = (len(ids), int(tokens.max()))
        written = _Texts(
            np.zeros(shape, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.int32), tokens
        )
        batch = max(1, len(ids) >> 2 * self._retries)  # a quarter for each
        lengths = np.array([len(one) for one in ids])
        for length in np.unique(lengths):
            alike = np.flatnonzero(lengths == length)
            for rows in (alike[start : start + batch] for start in range(0, len(alike), batch)):
                width = int(tokens[rows].max())
                found = self._write_batch(torch.stack([ids[row] for row in rows]), width, cached)
                for whole, part in zip(written[:3], found[:3], strict=True):
                    whole[rows, :width] = part
        return written

    def _write_batch(self, ids: torch.Tensor, tokens: int, cached: bool) -> Continuations:
        import torch

        steps: list[Continuations] = []
        read, cache = ids, None
        for _ in range(tokens):
            found = self._model(input_ids=read, past_key_values=cache, use_cache=cached)
            steps.append(_judged(self._masked(found.logits[:, -1])))
            newest = torch.from_numpy(steps[-1].tokens.astype(np.int64)).to(self._device)[:, None]
            cache, read = (
                (found.past_key_values, newest) if cached else (None, torch.cat([read, newest], dim=1))
            )
        return Continuations(
            *(np.stack(part, axis=1) for part in zip(*(step[:3] for step in steps), strict=True))
        )

    def _probe(self, ids: Sequence[torch.Tensor], written: _Texts) -> _Probed:
        """Read the first windows' continuations, each by itself and at once, in float32 and rounded."""
        import torch

        continuations = [
            torch.from_numpy(tokens[:end].astype(np.int64)).to(self._device)
            for tokens, end in zip(written.tokens[:PROBED], written.lengths, strict=False)
        ]
        rows = [torch.cat([read, own]) for read, own in zip(ids, continuations, strict=False)]
        exact = [_best(self._read(row, len(own))) for row, own in zip(rows, continuations, strict=True)]
        precision = torch.get_float32_matmul_precision()
        self._cast(self._dtype)
        self._round_activations(False)
        torch.set_float32_matmul_precision("high")  # engines may round products of float32 to TF32 on a GPU
        rounded = [
            _changed(self._read(row, len(best.lead)), best) for row, best in zip(rows, exact, strict=True)
        ]
        torch.set_float32_matmul_precision(precision)
        self._cast("float32")
        self._round_activations(True)
        # A tie in float32 may fall otherwise without the cache; what is likelier by more may not.
        ties = [best.margin < EXACT for best in exact]
        same = [best.tokens[:, 0] == row for best, row in zip(exact, continuations, strict=True)]
        agree = all(bool((one | tie).all()) for one, tie in zip(same, ties, strict=True))
        width = written.tokens.shape[1]
        padded = ([np.pad(one, (0, width - len(one))) for one in part] for part in zip(*rounded, strict=True))
        return _Probed(Probe(*map(np.stack, padded)), agree)

    def _read(self, row: torch.Tensor, tokens: int) -> torch.Tensor:
        """Logits that give the last tokens of a row, read at once: float32 (tokens, columns)."""
        logits: torch.Tensor = self._model(input_ids=row[None, :-1], use_cache=False).logits
        return self._masked(logits[0, -tokens:])

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

    def _round_activations(self, rounds: bool) -> None:
        """Round what passes through layers with quantized activations, as the model was made for, or do not.

        Engines round it each in its own way, on other grids: so the rounding itself counts as rounding.
        """
        for module in self._model.modules():
            scheme = getattr(module, "quantization_scheme", None)
            if scheme is not None and scheme.input_activations:
                module.quantization_enabled = rounds


class _Texts(NamedTuple):
    """The fields of `Continuations`, which this process fills one after the other."""

    tokens: Tokens
    margins: NDArray[np.float32]
    unlikely: Tokens
    lengths: Lengths


class _Probed(NamedTuple):
    probe: Probe
    same: bool
    """Whether the cache changes nothing."""


class _Best(NamedTuple):
    """The two likeliest tokens at some positions."""

    tokens: torch.Tensor
    """int64 (positions, 2)"""
    lead: torch.Tensor
    """The best logit less the second: float32 (positions,)."""
    spread: torch.Tensor
    """The best logit less the median of all: float32 (positions,)."""

    @property
    def margin(self) -> torch.Tensor:
        """See `Continuations.margins`: float32 (positions,)."""
        return _over(self.lead, self.spread)


def _over(difference: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """A difference in units of the spread, which is 0 where all logits are equal: none is none."""
    import torch

    return torch.where(difference == 0, 0.0, difference / spread)


def _best(logits: torch.Tensor) -> _Best:
    """Of logits (positions, columns)."""
    two = logits.topk(2, dim=-1)
    spread = two.values[:, 0] - logits.median(dim=-1).values
    return _Best(two.indices, two.values[:, 0] - two.values[:, 1], spread)


def _judged(logits: torch.Tensor) -> Continuations:
    """The next token of each row, as in `Continuations` but (rows,)."""
    best = _best(logits)
    return Continuations(
        best.tokens[:, 0].cpu().numpy().astype(np.int32),
        best.margin.cpu().numpy(),
        logits.argmin(dim=-1).cpu().numpy().astype(np.int32),
    )


def _changed(logits: torch.Tensor, exact: _Best) -> Probe:
    """What rounding changed at the positions of one window, as in `Probe` but (positions,)."""
    there = logits.gather(-1, exact.tokens)
    change = _over((there[:, 0] - there[:, 1] - exact.lead).abs(), exact.spread)
    flipped = logits.argmax(dim=-1) != exact.tokens[:, 0]
    return Probe(change.cpu().numpy(), flipped.cpu().numpy())


def _device_for(parameters: int) -> tuple[str | None, str]:
    """Where the model fits in float32: the best device, else the CPU, else None and what it lacks."""
    import torch

    from kdaudit.inference.transformers import pick_device

    need, device = _BYTES_A_PARAMETER * parameters, pick_device()
    if device == "cuda" and torch.cuda.mem_get_info(0)[0] < need:
        device = "cpu"
    available = psutil.virtual_memory().available
    if device != "cuda" and available < need:
        return None, f"in float32 it takes {need / 2**30:.1f} GiB and {available / 2**30:.1f} GiB are free"
    return device, ""


def _load(folder: Path, config: Any, dtype: str, trust_remote_code: bool) -> Any:  # noqa: ANN401 - untyped
    """The model as transformers alone reads its folder; not by the engine's own way of loading."""
    import torch
    from transformers import AutoModelForCausalLM

    config._attn_implementation = "eager"
    if hasattr(config, "quantization_config"):
        keep_hub_kernels_out()
    model, loading_info = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=getattr(torch, dtype),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        output_loading_info=True,
    )
    if loading_info["missing_keys"]:
        raise ValueError(f"its weights lack {sorted(map(str, loading_info['missing_keys']))[0]}")
    return model.eval()
