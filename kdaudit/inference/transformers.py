"""The transformers engine: the independent reference, and the way to audit without vLLM.

It finds matched tokens by teacher forcing: greedy decoding reproduces a suffix as long as, with the true
tokens before it, each next token is the argmax. No cache and no decoding loop are involved, so it shares
no code path with the vLLM engine. Texts of different lengths are padded on the right, behind all that
counts: under causal attention nothing before sees it, and positions are those of each text read alone.
Continuations that are compared otherwise than token by token (`texts`, `edits`) are decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import (
    Engine,
    EngineInfo,
    EngineOptions,
    Loaded,
    MatchedBytes,
    NearMatches,
    Sampling,
    Scores,
)
from kdaudit.inference.edits import EditLedger
from kdaudit.inference.examples import Lengths, Ragged, lengths_of, no_matches
from kdaudit.inference.float32_logits import with_float32_logits
from kdaudit.inference.prefixes import Ledger
from kdaudit.inference.quantized import keep_hub_kernels_out
from kdaudit.inference.sizing import own_dtype
from kdaudit.inference.texts import TextLedger, pieces_from
from kdaudit.models.checkpoint.config import load_config
from kdaudit.models.checkpoint.files import read_config
from kdaudit.models.context import length_of_short_texts

if TYPE_CHECKING:
    import torch

BROKEN = (
    "the model gives NaN or infinite logits: if it is loaded as float16 or bfloat16, set its dtype to "
    "float32, else its weights are damaged"
)
_FIRST_LOOK = 4
"""Suffix tokens read at first: most examples differ within them and need no more."""
_LOGITS_BYTES = 1 << 28
"""Memory that one batch's logits may take."""
_MAX_BATCH = {"cpu": 64}
_MAX_BATCH_GPU = 512


class TransformersEngine(Engine):
    """One model in transformers, in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        import torch
        import transformers

        wanted = EngineOptions(**options)
        self._device = pick_device()
        self._model = with_float32_logits(
            load_model(Path(wanted.path), wanted.dtype, self._device, wanted.trust_remote_code)
        )
        usual = _MAX_BATCH.get(self._device, _MAX_BATCH_GPU)
        self._most = max(1, (wanted.max_num_seqs or usual) >> 2 * wanted.retries)  # a quarter for each
        self._width = output_width(self._model)
        self._masked = wanted.masking.ids(self._width)
        self._vocabulary = min(wanted.vocabulary or self._width, self._width)
        self._retries = wanted.retries
        self._pieces, self._longest = pieces_from(wanted), wanted.max_tokens
        self._short = length_of_short_texts(self._model.config)
        name = torch.cuda.get_device_name(0) if self._device == "cuda" else self._device
        dtype = str(self._model.dtype).removeprefix("torch.")
        self._info = EngineInfo("transformers", transformers.__version__, name, dtype)

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return Loaded(self._info, self._most)

    def match(self, prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """See `Engine.match`."""
        matched = no_matches(targets)
        alive = np.arange(len(targets))
        whole = targets.lengths
        first = np.minimum(_FIRST_LOOK, whole)
        read = prompts.lengths - 1
        # Where a text counts as long, fewer of its tokens would be read at other positions.
        first = np.where(self._is_long(read + first) == self._is_long(read + whole), first, whole)
        for look in (first, whole):
            matched[alive] = self._match(prompts.take(alive), targets.take(alive).head(look[alive]))
            alive = alive[(matched[alive] == look[alive]) & (look[alive] < whole[alive])]
        return matched

    def match_text(self, prompts: Ragged, targets: Ragged) -> MatchedBytes:
        """See `Engine.match_text`."""
        ledger = TextLedger(prompts, targets, self._pieces, self._longest)
        self._follow(ledger)
        return ledger.matched

    def match_nearly(self, prompts: Ragged, targets: Ragged, limits: Lengths) -> NearMatches:
        """See `Engine.match_nearly`; matched tokens are found as `match` finds them."""
        ledger = EditLedger(prompts, targets, limits)
        self._follow(ledger)
        return ledger.found._replace(matched=self.match(prompts, targets))

    def _follow(self, ledger: Ledger) -> None:
        """Continue prompts a few tokens, then those that the ledger has not given up some more."""
        read, alive, look = ledger.prompts, np.arange(len(ledger.prompts)), _FIRST_LOOK
        while len(alive):
            written = self._write(read, np.minimum(look, ledger.tokens[alive]), {"do_sample": False})
            left = ledger.tokens[alive] - written.lengths
            on = [ledger.advance(row, new.tolist()) for row, new in zip(alive.tolist(), written, strict=True)]
            ledger.tokens[alive] = left
            kept = np.flatnonzero(on & (left > 0))
            read, alive, look = read.followed_by(written).take(kept), alive[kept], 4 * look

    def _is_long(self, read: Lengths) -> NDArray[np.bool_]:
        """Whether so many tokens are read at the positions of long texts."""
        return np.zeros(len(read), np.bool_) if self._short is None else read > self._short

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        import torch

        how: dict[str, Any] = (
            {"do_sample": True, "temperature": temperature, "top_k": 0}
            if temperature
            else {"do_sample": False}
        )
        if self._masked:
            how["suppress_tokens"] = self._masked
        torch.manual_seed(seed)
        return self._write(prompts, lengths_of(tokens, len(prompts)), how)

    def _write(self, prompts: Ragged, lengths: Lengths, how: dict[str, Any]) -> Ragged:
        """Continue prompts of one length together, each cut to what was asked of it."""
        import torch

        written: dict[int, list[int]] = {}
        batch = self._batch(1)
        for rows in _of_one_length(prompts.lengths, batch):
            ids = torch.from_numpy(prompts.take(rows).matrix().astype(np.int64)).to(self._device)
            with torch.inference_mode():
                found = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=int(lengths[rows].max()),
                    **how,
                    pad_token_id=0,
                )
            own = found[:, ids.shape[1] :].tolist()
            written |= {row: one[: lengths[row]] for row, one in zip(rows.tolist(), own, strict=True)}
        return Ragged.of(written[row] for row in range(len(prompts)))

    def score(self, windows: Ragged, sampling: Sampling | None = None) -> Scores:
        """See `Engine.score`."""
        from kdaudit.inference.scoring.forward import CausalModel
        from kdaudit.inference.scoring.single import score_tokens

        model = CausalModel(self._model, self._device)
        return score_tokens(model, windows, self._vocabulary, self._retries, sampling)

    def _match(self, prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """Matched tokens of each target, in one look."""
        import torch

        matched = np.zeros(len(targets), dtype=np.int16)
        texts = prompts.followed_by(targets)
        for rows in self._batches(prompts.lengths, texts.lengths):
            batch = _Padded.of(texts.take(rows), prompts.lengths[rows])
            ids, inside, before = (torch.from_numpy(part).to(self._device) for part in batch)
            padding = {} if batch.inside[:, -1].all() else {"attention_mask": self._mask(texts.lengths[rows])}
            with torch.inference_mode():
                # The last target token is not read: what follows it is not asked, and a model may have no
                # position for it.
                logits = self._model(
                    input_ids=ids[:, :-1], use_cache=False, logits_to_keep=inside.shape[1], **padding
                ).logits
                best = logits.max(-1)
                right = (best.indices == ids[:, -inside.shape[1] :]) | before
            if not best.values[inside].isfinite().all():  # NaN and infinity are the largest of their row
                raise ValueError(BROKEN)
            matched[rows] = (right.int().cumprod(1) * inside).sum(1).cpu().numpy()
        return matched

    def _mask(self, lengths: Lengths) -> torch.Tensor:
        """1 where a text is read, 0 where there is padding: int64 (rows, positions)."""
        import torch

        mask = np.arange(lengths.max() - 1) < lengths[:, None] - 1
        return torch.from_numpy(mask.astype(np.int64)).to(self._device)

    def _batches(self, prompts: Lengths, texts: Lengths) -> Iterator[NDArray[np.intp]]:
        """Rows that are read together: of like length, and long or short ones alone.

        Args:
            prompts: tokens of each prompt.
            texts: tokens of each prompt and target.

        """
        long = self._is_long(texts - 1)
        order = np.lexsort((prompts, texts, long))
        while len(order):
            rows = order[: self._most]
            rows = rows[long[rows] == long[rows[0]]]
            while len(rows) > (room := self._batch(int(texts[rows].max() - prompts[rows].min()))):
                rows = rows[:room]
            yield rows
            order = order[len(rows) :]

    def _batch(self, positions: int) -> int:
        """Examples a batch, so that float32 logits at so many positions stay within bounds."""
        return max(1, min(self._most, _LOGITS_BYTES // (4 * (positions + 1) * self._width)))


class _Padded(NamedTuple):
    """Texts in one matrix, and the positions whose next token is asked for: the last ones of the longest."""

    ids: NDArray[np.int64]
    """int64 (rows, tokens), 0 behind a text's end."""
    inside: NDArray[np.bool_]
    """Whether the next token is one of the row's target: bool (rows, positions)."""
    before: NDArray[np.bool_]
    """Whether it is still the prompt's: bool (rows, positions)."""

    @classmethod
    def of(cls, texts: Ragged, prompts: Lengths) -> _Padded:
        """Pad texts whose prompts have so many tokens."""
        places = np.arange(texts.lengths.max())
        ids = np.zeros((len(texts), len(places)), np.int64)
        ids[places < texts.lengths[:, None]] = texts.values
        asked = places[prompts.min() :]
        before = asked < prompts[:, None]
        return cls(ids, ~before & (asked < texts.lengths[:, None]), before)


def _of_one_length(lengths: Lengths, most: int) -> Iterator[NDArray[np.intp]]:
    """Rows of one length, so many at most: lengths ascend, rows too."""
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        yield from (rows[start : start + most] for start in range(0, len(rows), most))


def pick_device() -> str:
    """The best device that torch has here: cuda, mps or cpu."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def output_width(model: Any) -> int:  # noqa: ANN401 - any causal language model of transformers
    """How many logits a model gives for each position, padding of its output layer included."""
    return int((model.get_output_embeddings() or model.get_input_embeddings()).weight.shape[0])


def compile_renamings() -> None:
    """Compile the patterns by which transformers renames weights, those of all families.

    For them alone a small model's first loading in a process takes several times as long as the next.
    """
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")  # whatever is asked for, all of them are made


def load_model(folder: Path, dtype: str, device: str, trust_remote_code: bool) -> Any:  # noqa: ANN401
    """Load a causal language model for inference, from safetensors only.

    Attention is computed as `attention_of` says; of generation_config.json nothing is taken.

    Raises:
        ValueError: transformers would fill some weights with random numbers.

    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    described = read_config(folder)
    name = dtype if dtype != "auto" else own_dtype(described)
    if "quantization_config" in described:
        keep_hub_kernels_out()
    model, loading_info = AutoModelForCausalLM.from_pretrained(
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
    lacking = sorted(str(weight) for weight in loading_info["missing_keys"])
    if lacking:  # transformers would fill them with random numbers
        raise ValueError(
            f"its weights lack {len(lacking)} that its config.json asks for, such as {lacking[0]}"
        )
    return model.eval().to(device)
