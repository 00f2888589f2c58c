"""Context length: what each family's configuration means, and that both engines read just as much."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs_vllm
from transformers import AutoConfig, AutoModelForCausalLM

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.extraction import ExtractionConfig
from kdaudit.config.models import ModelSet
from kdaudit.errors import ModelError
from kdaudit.inference import EngineOptions, Ragged, start
from kdaudit.models.context import context_length, read_context_length
from kdaudit.models.finding import find_models
from kdaudit.pipelines.stages.fit import split_of

THETA = {"rope_theta": 10000.0}
PREFIX, SUFFIX = 40, 50
SMALL = {
    "vocab_size": 320,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "initializer_range": 0.3,
    "bos_token_id": None,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def rope(kind: str, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, **more, **THETA}}


YARN = rope("yarn", factor=4.0, original_max_position_embeddings=64)
LLAMA3 = rope(
    "llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64
)
LONGROPE = rope(
    "longrope", short_factor=[1.0] * 16, long_factor=[4.0] * 16, original_max_position_embeddings=64
)

LENGTHS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "plain rope": ("llama", {"max_position_embeddings": 64}, 64),
    "linear": ("llama", {"max_position_embeddings": 64, **rope("linear", factor=2.5)}, 160),
    "dynamic": ("llama", {"max_position_embeddings": 64, **rope("dynamic", factor=4.0)}, 64),
    "yarn, length as it was": ("llama", {"max_position_embeddings": 64, **YARN}, 256),
    "yarn, length scaled": ("llama", {"max_position_embeddings": 256, **YARN}, 256),
    "llama3": ("llama", {"max_position_embeddings": 256, **LLAMA3}, 256),
    "longrope": ("llama", {"max_position_embeddings": 256, **LONGROPE}, 256),
    "scaled in some layers": (
        "gemma3_text",
        {
            "max_position_embeddings": 64,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, **THETA},
                "sliding_attention": {"rope_type": "default", **THETA},
            },
        },
        64,
    ),
    "gpt2": ("gpt2", {"n_positions": 99}, 99),
    "gpt2 that does not say": ("gpt2", {}, 1024),
    "gptj": ("gptj", {"n_positions": 99}, 99),
    "opt, whose table has two more rows": ("opt", {"max_position_embeddings": 100}, 100),
    "roberta, whose table has not": ("roberta", {"max_position_embeddings": 100, "pad_token_id": 1}, 98),
    "mpt": ("mpt", {"max_seq_len": 99}, 99),
    "bloom": ("bloom", {"seq_length": 64}, None),
    "falcon with distances": ("falcon", {"alibi": True, "max_position_embeddings": 64}, None),
    "falcon with rope": ("falcon", {"alibi": False, "max_position_embeddings": 64}, 64),
    "recurrent": ("mamba", {}, None),
    "sliding window": ("mistral", {"max_position_embeddings": 64, "sliding_window": 8}, 64),
    "a tokenizer's length in config.json": (
        "llama",
        {"max_position_embeddings": 64, "model_max_length": 32},
        64,
    ),
    "command-r": ("cohere", {"max_position_embeddings": 64, "model_max_length": 128}, 128),
}


@pytest.mark.parametrize("name", LENGTHS)
def test_context_length_is_what_both_engines_have_positions_for(name: str) -> None:
    kind, values, expected = LENGTHS[name]
    assert context_length(AutoConfig.for_model(kind, **values)) == expected


def save(folder: Path, kind: str, **values: Any) -> Path:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **values})
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", {"n_positions": PREFIX + SUFFIX - 1}),
    "opt": (
        "opt",
        {"max_position_embeddings": PREFIX + SUFFIX - 1, "ffn_dim": 64, "word_embed_proj_dim": 64},
    ),
    "rope scaled to more": ("llama", {"max_position_embeddings": 45, **rope("linear", factor=2.0)}),
    "longrope across its short texts": ("llama", {"max_position_embeddings": 256, **LONGROPE}),
}


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_engines_agree_where_the_last_token_has_no_position(name: str, tmp_path: Path) -> None:
    kind, values = EXACT[name]
    model = save(tmp_path / "model", kind, **values)
    length = read_context_length(model)
    assert length is not None
    assert length >= PREFIX + SUFFIX - 1
    prefixes = Ragged.of(np.random.default_rng(0).integers(2, 320, (16, PREFIX)))
    options = EngineOptions("vllm", str(model), PREFIX + SUFFIX, "float32")
    with start(options) as engine:
        suffixes = engine.generate(prefixes, SUFFIX)
        assert engine.match(prefixes, suffixes).tolist() == [SUFFIX] * 16
    with start(options._replace(engine="transformers")) as engine:
        assert engine.match(prefixes, suffixes).tolist() == [SUFFIX] * 16


def refused(folder: Path, prefix: int, suffix: int, window: int | None = None) -> str | None:
    """What is said of a teacher that reads so much, or None."""
    models = find_models(ModelSet(teacher=str(folder), students=[{"name": "s", "path": str(folder)}]))  # type: ignore[arg-type,list-item]
    extraction = ExtractionConfig(prefix_tokens=prefix, suffix_tokens=suffix)
    whole = {} if window is None else {"corpus": CorpusConfig(path="./x", window=window)}
    try:
        split_of(extraction, models, whole)
    except ModelError as error:
        return str(error)
    return None


def test_prefix_and_suffix_need_one_position_less_than_they_have_tokens(tmp_path: Path) -> None:
    import toys

    folder = save(tmp_path / "gpt2", "gpt2", n_positions=99)
    toys.tokenizer().save_pretrained(folder)
    assert refused(folder, 50, 50) is None
    assert refused(folder, 50, 50, window=100) is None
    said = refused(folder, 50, 51)
    assert said is not None
    assert said.startswith(f"models.teacher.path: {folder}: its context length is 99 tokens, prefix and ")
    assert "take 100 " in said
    said = refused(folder, 50, 50, window=101)
    assert said is not None
    assert "100 of their tokens; lower corpus.window" in said
