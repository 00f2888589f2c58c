"""The vLLM engine: greedy decoding with early exit at the first mismatched token.

Greedy decoding reproduces a suffix if and only if every step's argmax is the suffix's next token, so a
sequence can be aborted at its first difference; most differ within two tokens, and the cost falls to
little more than reading the prefixes. `LLM.generate` cannot stop a request early, so the engine is
driven step by step. All that kdaudit knows of vLLM's inside is in this module; the range of versions in
pyproject.toml is the one that its tests ran with.

Import this module in a worker process only: vLLM binds threads and patches transformers classes.
"""

from __future__ import annotations

import glob
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Engine, EngineInfo, EngineOptions, Loaded, MatchedBytes, NearMatches
from kdaudit.inference.edits import EditLedger
from kdaudit.inference.examples import Lengths, Ragged, lengths_of
from kdaudit.inference.prefixes import Ledger, SuffixLedger
from kdaudit.inference.sizing import Sizes, plan_sizes
from kdaudit.inference.texts import TextLedger, pieces_from
from kdaudit.models.checkpoint.files import read_config

if TYPE_CHECKING:
    from vllm import SamplingParams

    _Params = Callable[[int], SamplingParams]

# Read by vLLM when it is first imported. In one process its scheduling is deterministic.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
# vLLM counts the last token of a sequence, which is never read, and does not know every scaling of RoPE.
# Whether a model has a position for each token that it reads is checked before (kdaudit.models.context).
os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"


class VllmEngine(Engine):
    """One model in vLLM, in this process."""

    def __init__(self, options: dict[str, Any]) -> None:
        import vllm
        from vllm.platforms import current_platform

        wanted = EngineOptions(**options)
        device = str(current_platform.device_type)
        self._sizes = plan_sizes(wanted, device)
        self._masked = wanted.masking.ids(_logits(wanted))
        self._pieces, self._most = pieces_from(wanted), wanted.max_tokens
        self._engine = _load(wanted, self._sizes, masks=bool(self._masked))
        model_config = self._engine.vllm_config.model_config
        self._info = EngineInfo(
            "vllm", vllm.__version__, _device_name(device), str(model_config.dtype).removeprefix("torch.")
        )

    def describe(self) -> Loaded:
        """See `Engine.describe`."""
        return Loaded(self._info, self._sizes.max_num_seqs)

    def match(self, prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """See `Engine.match`: one request for each distinct prompt, aborted at its last target's mismatch."""
        ledger = SuffixLedger(prompts, targets)
        self._follow(ledger)
        return ledger.matched

    def match_text(self, prompts: Ragged, targets: Ragged) -> MatchedBytes:
        """See `Engine.match_text`: as `match`, by the bytes that the tokens write."""
        ledger = TextLedger(prompts, targets, self._pieces, self._most)
        self._follow(ledger)
        return ledger.matched

    def match_nearly(self, prompts: Ragged, targets: Ragged, limits: Lengths) -> NearMatches:
        """See `Engine.match_nearly`: as `match`, aborted where the distance must exceed the limit."""
        ledger = EditLedger(prompts, targets, limits)
        self._follow(ledger)
        return ledger.found

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """See `Engine.generate`."""
        lengths = lengths_of(tokens, len(prompts))
        written: list[list[int]] = [[] for _ in range(len(prompts))]
        for outputs in self._run(prompts, lengths, temperature, seed, self._masked):
            for row, new in outputs:
                written[row] += new
        return Ragged.of(written)

    def _follow(self, ledger: Ledger) -> None:
        """Decode greedily, each prompt until the ledger gives it up.

        An aborted request emits no last output, so the ledger alone knows what came of it.
        """
        for outputs in self._run(ledger.prompts, ledger.tokens, 0.0, 0, ()):
            self._abort(row for row, tokens in outputs if not ledger.advance(row, tokens))

    def _run(
        self, prompts: Ragged, lengths: Lengths, temperature: float, seed: int, masked: Sequence[int]
    ) -> Iterator[list[tuple[int, Sequence[int]]]]:
        """Yield, for each engine step, the rows that moved and their new tokens.

        Prompts are fed in waves, so that the batch stays full while most requests die young.

        Args:
            prompts: what is read.
            lengths: tokens to write after each: int64 (prompts,).
            temperature: 0 is greedy.
            seed: of sampling.
            masked: ids that are never written.

        """
        params = _params(temperature, seed, masked)
        admitted = 0
        while admitted < len(prompts) or self._engine.has_unfinished_requests():
            room = self._sizes.queue - self._engine.get_num_unfinished_requests()
            if admitted < len(prompts) and room >= self._sizes.wave:
                admitted = self._admit(prompts, lengths, admitted, admitted + room, params)
            yield [(int(output.request_id), output.outputs[0].token_ids) for output in self._engine.step()]

    def _admit(self, prompts: Ragged, lengths: Lengths, start: int, stop: int, params: _Params) -> int:
        from vllm.inputs import TokensPrompt

        rows = range(start, min(stop, len(prompts)))
        rendered = self._engine.renderer.render_cmpl(
            [TokensPrompt(prompt_token_ids=prompts[row].tolist()) for row in rows]
        )
        for row, prompt in zip(rows, rendered, strict=True):
            own = params(int(lengths[row]))
            own = own if own.seed is None else _seeded(own, own.seed + row)
            self._engine.add_request(str(row), prompt, own)
        return rows.stop

    def _abort(self, rows: Iterator[int]) -> None:
        ids = [str(row) for row in rows]
        if ids:
            self._engine.abort_request(ids)


def import_the_rest() -> None:
    """Import what vLLM imports by name when it loads a model on a CPU.

    Its worker for CPUs replaces parts of torch, which a worker for another device needs.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    for name in (
        "vllm.v1.executor.uniproc_executor",
        "vllm.v1.worker.cpu_worker",
        "vllm.v1.core.sched.scheduler",
        "vllm.model_executor.layers.quantization.online.base",
    ):
        importlib.import_module(name)


def _logits(options: EngineOptions) -> int:
    """How many logits vLLM gives at each position: where the configuration pads the vocabulary, those too."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(options.path, trust_remote_code=options.trust_remote_code)
    return int(config.get_text_config().vocab_size)


def _load(options: EngineOptions, sizes: Sizes, *, masks: bool) -> Any:  # noqa: ANN401 - vLLM is untyped here
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from kdaudit.inference import vllm_mask

    with _plain_path(options.path) as path:
        return LLMEngine.from_engine_args(
            EngineArgs(
                model=path,
                skip_tokenizer_init=True,
                trust_remote_code=options.trust_remote_code,
                load_format="safetensors",
                config_format="hf",  # never params.json, which Mistral's own form brings
                runner="generate",  # also beside the files of sentence-transformers
                dtype=sizes.dtype,
                hf_overrides=_overrides(options.path, sizes.dtype),
                generation_config="vllm",  # nothing of the model's own sampling defaults
                max_model_len=options.max_tokens,
                tensor_parallel_size=options.tensor_parallel,
                max_num_seqs=sizes.max_num_seqs,
                max_num_batched_tokens=sizes.batched_tokens,
                kv_cache_memory_bytes=sizes.cache_bytes,
                gpu_memory_utilization=sizes.gpu_share,
                enforce_eager=sizes.eager,
                enable_prefix_caching=False,  # a hit would change the batches of a continued run
                disable_log_stats=True,
                seed=0,
                # Where the mask has nothing to do it would cost.
                logits_processors=[vllm_mask.NAME] if masks else None,
            )
        )


def _overrides(path: str, dtype: str) -> dict[str, str]:
    """Logits in float32 of models in half precision, whose two best otherwise often tie exactly.

    vLLM refuses it where the output layer is quantized, which a quantized model's may be.
    """
    quantized = "quantization_config" in read_config(Path(path))
    return {} if dtype == "float32" or quantized else {"head_dtype": "float32"}


@contextmanager
def _plain_path(path: str) -> Iterator[str]:
    """A path to the same folder that is not a pattern to `glob`.

    vLLM finds weights with it: for a folder named `model[1]` it would load those of `model1`.
    """
    if glob.escape(path) == path:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="kdaudit-") as folder:
        link = Path(folder) / "model"
        link.symlink_to(path)
        yield str(link)


def _params(temperature: float, seed: int, masked: Sequence[int]) -> _Params:
    """How so many tokens are written: greedily, or with a temperature by a generator of each row's own."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    from kdaudit.inference import vllm_mask

    mask = vllm_mask.masking(masked) if masked else None

    @cache
    def of(tokens: int) -> SamplingParams:
        return SamplingParams(
            temperature=temperature,
            seed=seed if temperature else None,
            max_tokens=tokens,
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=mask,
        )

    return of


def _seeded(params: SamplingParams, seed: int) -> SamplingParams:
    own = params.clone()
    own.seed = seed
    return own


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(0) if device == "cuda" else device
