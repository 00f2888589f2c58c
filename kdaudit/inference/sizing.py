"""Batch and cache sizes from the machine and the model, so that nobody has to set them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import psutil

from kdaudit.inference.base import EngineOptions
from kdaudit.models.checkpoint.files import read_config

EAGER_BELOW_CPU = 50_000
"""Examples below which compiling for a CPU (about a minute) does not pay."""
EAGER_BELOW_GPU = 20_000
"""Examples below which capturing CUDA graphs does not pay."""

_BLOCK = 128
"""Cache slots are granted in blocks of at most this many tokens."""
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_MIB = 1 << 20


class Sizes(NamedTuple):
    """How an engine batches."""

    dtype: str
    """float32, bfloat16 or float16."""
    max_num_seqs: int
    """Maximum concurrent sequences."""
    batched_tokens: int
    """Tokens that one step reads at most."""
    queue: int
    """Requests inside the engine at most, running and waiting."""
    wave: int
    """Requests that are admitted together once so many places are free."""
    cache_bytes: int | None
    """Size of the key-value cache; None leaves it to the engine."""
    gpu_share: float
    """Share of a GPU's memory that the engine may take."""
    eager: bool
    """Whether to do without compilation and CUDA graphs."""


def plan_sizes(options: EngineOptions, device: str) -> Sizes:
    """Choose sizes for a model on `device` ("cpu", "cuda", ...)."""
    config = read_config(Path(options.path))
    dtype = options.dtype if options.dtype != "auto" else own_dtype(config)
    on_cpu = device == "cpu"
    max_num_seqs = max(1, (options.max_num_seqs or (256 if on_cpu else 1024)) >> 2 * options.retries)
    cache = None
    if on_cpu:
        token_bytes = _cache_bytes_per_token(config, _BYTES[dtype])
        blocks = -(-options.max_tokens // _BLOCK) * _BLOCK
        if not options.max_num_seqs:  # what was planned stands: a continued run batches as the first did
            free = options.free_memory or psutil.virtual_memory().available
            budget = int(free * 0.4 * options.memory_share)
            max_num_seqs = max(1, min(max_num_seqs, budget // (blocks * token_bytes)))
        cache = max(max_num_seqs * blocks * token_bytes, 64 * _MIB)
    return Sizes(
        dtype=dtype,
        max_num_seqs=max_num_seqs,
        batched_tokens=max(16 * max_num_seqs, options.max_tokens),
        queue=2 * max_num_seqs,
        wave=max(1, max_num_seqs // 4),
        cache_bytes=cache,
        gpu_share=0.9 if on_cpu else _free_gpu_share() * options.memory_share,
        eager=options.expected_examples < (EAGER_BELOW_CPU if on_cpu else EAGER_BELOW_GPU),
    )


def own_dtype(config: dict[str, Any]) -> str:
    """The dtype that the checkpoint was saved in; float32 where it does not say."""
    name = str(config.get("dtype") or config.get("torch_dtype") or "float32").removeprefix("torch.")
    return name if name in _BYTES else "float32"


def _cache_bytes_per_token(config: dict[str, Any], number_bytes: int) -> int:
    """Bytes of keys and values that one token leaves in the cache, over all layers."""
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 32)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 32)
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 4096)
    kv_heads = int(config.get("num_key_value_heads") or heads)
    head_size = int(config.get("head_dim") or hidden // heads)
    return 2 * layers * kv_heads * head_size * number_bytes


def _free_gpu_share() -> float:
    """Share of the first GPU that is free, with a little left for others; at most 0.9."""
    import torch

    if not torch.cuda.is_available():
        return 0.9
    free, total = torch.cuda.mem_get_info(0)
    return max(0.05, min(0.9, free / total - 0.03))
