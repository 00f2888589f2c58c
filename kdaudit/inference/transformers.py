"""The transformers engine: the independent reference, and the way to audit without vLLM.

It finds matched tokens by teacher forcing: greedy decoding reproduces a suffix as long as, with the true
tokens before it, each next token is the argmax. No cache and no decoding loop are involved, so it shares
no code path with the vLLM engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import EngineInfo, EngineOptions, Loaded, Tokens
from kdaudit.inference.sizing import own_dtype
from kdaudit.models.checkpoint.config import load_config
from kdaudit.models.checkpoint.files import read_config
from kdaudit.models.context import length_of_short_texts

if TYPE_CHECKING:
    import torch

_FIRST_LOOK = 4
"""Suffix tokens read at first: most examples differ within them and need no more."""
_LOGITS_BYTES = 1 << 28
"""Memory that one batch's logits may take."""
_MAX_BATCH = {"cpu": 64}
_MAX_BATCH_GPU = 512


class TransformersEngine:
    """One model in transformers, in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        import torch
        import transformers

        wanted = EngineOptions(**options)
        self._device = pick_device()
        self._model = load_model(Path(wanted.path), wanted.dtype, self._device, wanted.trust_remote_code)
        usual = _MAX_BATCH.get(self._device, _MAX_BATCH_GPU)
        self._most = max(1, (wanted.sequences or usual) >> 2 * wanted.retreat)  # a quarter for each
        self._width = output_width(self._model)
        self._masked = wanted.masking.ids(self._width)
        self._short = length_of_short_texts(self._model.config)
        name = torch.cuda.get_device_name(0) if self._device == "cuda" else self._device
        dtype = str(self._model.dtype).removeprefix("torch.")
        self._info = EngineInfo("transformers", transformers.__version__, name, dtype)

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return Loaded(self._info, self._most)

    def match(self, prefixes: Tokens, suffixes: Tokens) -> NDArray[np.int16]:
        """See `Engine.match`."""
        width = suffixes.shape[1]
        matched = np.zeros(len(suffixes), dtype=np.int16)
        alive = np.arange(len(suffixes))
        first = min(_FIRST_LOOK, width)
        read = prefixes.shape[1] - 1
        if self._short is not None and read + first <= self._short < read + width:
            first = width  # fewer tokens would be read at other positions
        for look in sorted({first, width}):
            matched[alive] = self._match(prefixes[alive], suffixes[alive, :look])
            alive = np.flatnonzero(matched == look)
        return matched

    def generate(self, prefixes: Tokens, tokens: int, temperature: float = 0.0, seed: int = 0) -> Tokens:
        """See `Engine.generate`."""
        import torch

        out = np.zeros((len(prefixes), tokens), dtype=np.int32)
        batch = self._batch(1)
        how: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        if self._masked:
            how["suppress_tokens"] = self._masked
        torch.manual_seed(seed)
        for start in range(0, len(prefixes), batch):
            ids = self._tensor(prefixes[start : start + batch])
            with torch.inference_mode():
                found = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=tokens,
                    **how,
                    pad_token_id=0,
                )
            out[start : start + batch] = found[:, ids.shape[1] :].cpu().numpy()
        return out

    def _match(self, prefixes: Tokens, suffixes: Tokens) -> NDArray[np.int16]:
        import torch

        matched = np.zeros(len(suffixes), dtype=np.int16)
        width = suffixes.shape[1]
        batch = self._batch(width)
        for start in range(0, len(suffixes), batch):
            rows = slice(start, start + batch)
            ids = self._tensor(np.concatenate([prefixes[rows], suffixes[rows]], axis=1))
            with torch.inference_mode():
                # The last suffix token is not read: what follows it is not asked, and a model may have no
                # position for it.
                logits = self._model(input_ids=ids[:, :-1], use_cache=False, logits_to_keep=width).logits
                best = logits.max(-1)
                right = best.indices == ids[:, -width:]
            if not best.values.isfinite().all():  # NaN and infinity are the largest of their row
                raise ValueError(
                    "the model gives NaN or infinite logits: if it is loaded as float16 or bfloat16, set its "
                    "dtype to float32, else its weights are damaged"
                )
            matched[rows] = right.int().cumprod(1).sum(1).cpu().numpy()
        return matched

    def _batch(self, positions: int) -> int:
        """Examples a batch, so that float32 logits at so many positions stay within bounds."""
        return max(1, min(self._most, _LOGITS_BYTES // (4 * (positions + 1) * self._width)))

    def _tensor(self, rows: Tokens) -> torch.Tensor:
        import torch

        return torch.from_numpy(rows.astype(np.int64)).to(self._device)


def pick_device() -> str:
    """The best device that torch has here: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def output_width(model: Any) -> int:  # noqa: ANN401 - any causal language model of transformers
    """How many logits a model gives for each position, padding of its output layer included."""
    return int((model.get_output_embeddings() or model.get_input_embeddings()).weight.shape[0])


def load_model(folder: Path, dtype: str, device: str, trust_remote_code: bool) -> Any:  # noqa: ANN401
    """Load a causal language model for inference, from safetensors only.

    Attention is computed as `attention_of` says; of generation_config.json nothing is taken.

    Raises:
        ValueError: transformers would fill some weights with random numbers.

    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    name = dtype if dtype != "auto" else own_dtype(read_config(folder))
    model, told = AutoModelForCausalLM.from_pretrained(
        folder,
        config=load_config(folder, trust_remote_code=trust_remote_code),
        dtype=getattr(torch, name),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
        # generate() fills what its caller leaves open from the model's own generation_config.json;
        # an empty one keeps sampling, penalties and end tokens out.
        generation_config=GenerationConfig(),
        output_loading_info=True,
    )
    lacking = sorted(str(weight) for weight in told["missing_keys"])
    if lacking:  # transformers would fill them with random numbers
        raise ValueError(
            f"its weights lack {len(lacking)} that its config.json asks for, such as {lacking[0]}"
        )
    return model.eval().to(device)
