"""Attention that sdpa cannot compute: Gemma-2's soft cap is applied by every path that runs a model.

The models' post-norm weights are raised: those of a new model make one token repeat, whatever is attended to.
"""

from __future__ import annotations

import inspect
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import needs_vllm
from toys import VOCABULARY, tokenizer
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM, LlamaConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kdaudit.distillation.bases import load_base, resolve_base
from kdaudit.distillation.families import random_model
from kdaudit.inference import EngineOptions, Ragged, start
from kdaudit.inference.scoring import FeatureWorker, log_likelihood_of
from kdaudit.inference.transformers import load_model
from kdaudit.models.checkpoint.config import attention_of, load_config

PREFIX, WIDTH, ROWS = 24, 12, 40


def gemma(cap: float | None) -> Gemma2ForCausalLM:
    torch.manual_seed(1)
    config = Gemma2Config(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, max_position_embeddings=64,
        query_pre_attn_scalar=1, attn_logit_softcapping=cap, initializer_range=0.15, bos_token_id=None,
        eos_token_id=0, pad_token_id=None, sliding_window=64,
    )  # fmt: skip
    model = Gemma2ForCausalLM(config).eval()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.post_attention_layernorm.weight += 6
    return model


def save(folder: Path, cap: float | None) -> Path:
    gemma(cap).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=[5.0, 50.0])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("gemma") / "model", request.param)


def prefixes() -> np.ndarray:
    return np.random.default_rng(0).integers(2, VOCABULARY, (ROWS, PREFIX)).astype(np.int32)


def loaded(folder: Path, attention: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()


def continued(model: Any) -> np.ndarray:
    """Plain greedy decoding, one forward pass a token."""
    ids = torch.from_numpy(prefixes().astype(np.int64))
    for _ in range(WIDTH):
        with torch.inference_mode():
            ids = torch.cat([ids, model(ids, use_cache=False).logits[:, -1].argmax(-1)[:, None]], 1)
    return ids[:, PREFIX:].numpy()


def differing(one: np.ndarray, two: np.ndarray) -> int:
    return int((one != two).any(1).sum())


def test_engine_continues_as_eager_attention_does(model: Path) -> None:
    oracle = continued(loaded(model, "eager"))
    assert differing(continued(loaded(model, "sdpa")), oracle) > 8  # else this would show nothing
    with start(EngineOptions("transformers", str(model), PREFIX + WIDTH, "float32")) as engine:
        assert differing(engine.generate(Ragged.of(prefixes()), WIDTH).matrix(), oracle) == 0
        assert (engine.match(Ragged.of(prefixes()), Ragged.of(oracle)) == WIDTH).all()


@needs_vllm
@pytest.mark.slow
def test_vllm_continues_as_eager_attention_does(model: Path) -> None:
    oracle = continued(loaded(model, "eager"))
    with start(EngineOptions("vllm", str(model), PREFIX + WIDTH + 1, "float32")) as engine:
        assert differing(engine.generate(Ragged.of(prefixes()), WIDTH).matrix(), oracle) == 0


def test_scores_are_those_of_eager_attention(model: Path) -> None:
    windows = list(prefixes()[:8])
    ids = torch.from_numpy(np.stack(windows).astype(np.int64))
    with torch.inference_mode():
        log = loaded(model, "eager")(ids).logits[:, :-1].log_softmax(-1)
    expected = log.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(1).numpy()
    with FeatureWorker(model, "float32", False, 0) as worker:
        assert worker.ask(log_likelihood_of(windows, None))[0] == pytest.approx(expected, rel=1e-4)


def test_what_is_trained_and_what_teaches_use_eager_attention(model: Path) -> None:
    ids = torch.from_numpy(prefixes()[:4].astype(np.int64))
    with torch.inference_mode():
        oracle = loaded(model, "eager")(ids).logits
        student = load_base(resolve_base(str(model), "student.base"), tokenizer(), 0).eval()
        for one in (student, load_model(model, "auto", "cpu", False)):
            assert torch.allclose(one(ids).logits, oracle, atol=1e-4)
    made = random_model(gemma(5.0).config.to_dict(), 0)
    assert made.config._attn_implementation == "eager"


def test_reason_is_told_and_others_are_left_to_transformers(tmp_path: Path) -> None:
    chosen = attention_of(load_config(save(tmp_path / "capped", 50.0)))
    assert chosen == ("eager", "attn_logit_softcapping is 50.0, which sdpa does not apply")
    assert attention_of(load_config(save(tmp_path / "open", None))).implementation is None
    assert attention_of(LlamaConfig()).implementation is None
    assert load_model(tmp_path / "open", "auto", "cpu", False).config._attn_implementation == "sdpa"


DECIDED = {
    "softcap": "eager, by attention_of",
    "s_aux": "attention sinks: these families refuse sdpa",
    "sliding_window": "part of the mask",
    "indices": "part of the mask under sdpa",
    "block_indices": "part of the mask under sdpa",
    "output_attentions": "set back by load_config",
    "cu_seq_lens_q": "vision towers, for flash attention alone",
    "cu_seq_lens_k": "as cu_seq_lens_q",
    "max_length_q": "as cu_seq_lens_q",
    "max_length_k": "as cu_seq_lens_q",
    "deterministic": "flash attention alone",
    "position_ids": "flash attention alone",
}  # fmt: skip


def test_whatever_models_give_to_attention_is_decided() -> None:
    """A new feature of transformers that sdpa would drop without a word makes this fail."""
    taken = inspect.signature(sdpa_attention_forward).parameters.keys()
    given: dict[str, set[str]] = {}
    refusing = set()
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        text = path.read_text()
        for call in text.split("= attention_interface(\n")[1:]:
            lines = list(takewhile(lambda line: line.strip() != ")", call.splitlines()))
            depth = min(len(line) - len(line.lstrip()) for line in lines)
            for keyword in re.findall(rf"^ {{{depth}}}(\w+)=", "\n".join(lines), re.MULTILINE):
                given.setdefault(keyword, set()).add(path.name)
        if "_supports_sdpa = False" in text:
            refusing.add(path.name)
    assert "softcap" in given
    assert given.keys() - taken <= DECIDED.keys()
    assert given["s_aux"] <= refusing
