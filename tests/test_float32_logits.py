"""Logits in float32 of models in half precision: exact products, no ties, and float32 models as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toys
from conftest import needs_vllm
from transformers import AutoModelForCausalLM

from kdaudit.inference import EngineOptions, Ragged, start
from kdaudit.inference.float32_logits import with_float32_logits
from kdaudit.inference.transformers import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("half") / "model"
    toys.save_model(path, 1)
    return path


@pytest.fixture(scope="module")
def ids() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(2, toys.VOCABULARY, (40, 30)))


def ties(logits: torch.Tensor) -> int:
    two = logits.float().topk(2).values
    return int((two[..., 0] == two[..., 1]).sum())


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_logits_are_the_hidden_states_products_in_float32(
    folder: Path, ids: torch.Tensor, dtype: str
) -> None:
    model = load_model(folder, dtype, "cpu", False)
    with torch.inference_mode():
        rounded = model(ids).logits
        hidden = model.model(ids).last_hidden_state
        exact = hidden.double() @ model.get_output_embeddings().weight.double().T
        found = with_float32_logits(model)(ids).logits
    assert (rounded.dtype, found.dtype) == (getattr(torch, dtype), torch.float32)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert ties(found) == 0
    if dtype == "bfloat16":
        assert ties(rounded) > 0
    assert model.dtype == getattr(torch, dtype)
    assert len(model.generate(ids[:2], max_new_tokens=3, do_sample=False)[0]) == 33


def test_a_model_in_float32_is_left_as_it_is(folder: Path, ids: torch.Tensor) -> None:
    model = load_model(folder, "float32", "cpu", False)
    with torch.inference_mode():
        plain = AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits
        assert torch.equal(with_float32_logits(model)(ids).logits, plain)
    assert "forward" not in vars(model.get_output_embeddings())


@needs_vllm
def test_engines_agree_in_bfloat16(folder: Path) -> None:
    """On the model's own words in bfloat16, but for near ties, since hidden states are rounded."""
    model = with_float32_logits(load_model(folder, "bfloat16", "cpu", False))
    prompts = torch.from_numpy(np.random.default_rng(1).integers(2, toys.VOCABULARY, (48, toys.PREFIX)))
    with torch.inference_mode():
        said = model.generate(prompts, max_new_tokens=toys.SUFFIX, do_sample=False)[:, toys.PREFIX :]
    asked = (Ragged.of(prompts.numpy().astype(np.int32)), Ragged.of(said.numpy().astype(np.int32)))
    whole = {}
    for engine in ("transformers", "vllm"):
        with start(EngineOptions(engine, str(folder), toys.PREFIX + toys.SUFFIX, "bfloat16")) as running:
            whole[engine] = int((running.match(*asked) == toys.SUFFIX).sum())
    assert whole["transformers"] == 48
    assert whole["vllm"] >= 36, whole
