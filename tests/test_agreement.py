"""Engines agree: early exit in vLLM, plain vLLM, the transformers engine and plain greedy decoding."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, SHARED, Demo, needs_vllm

from kdaudit.attacks.examples import examples_of
from kdaudit.inference import EngineOptions, Ragged, Split, start

pytestmark = needs_vllm

_WIDTH = 50


class Oracle(NamedTuple):
    matched: np.ndarray
    gap: np.ndarray


def _script(name: str, models: Sequence[Path], tmp: Path, prefixes: np.ndarray, suffixes: np.ndarray) -> Any:
    """What an oracle finds of each model: a process of its own, in which no other engine is loaded."""
    source = tmp / f"{name}-in.npz"
    np.savez(source, prefixes=prefixes, suffixes=suffixes)
    targets = [tmp / f"{name}-out-{row}.npz" for row in range(len(models))]
    pairs = [str(path) for pair in zip(models, targets, strict=True) for path in pair]
    command = [sys.executable, str(ROOT / "tests" / "oracles" / f"{name}.py"), str(source), *pairs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [np.load(target) for target in targets]


def _oracle(model: Path, tmp: Path, prefixes: np.ndarray, suffixes: np.ndarray) -> Oracle:
    (found,) = _script("greedy", [model], tmp, prefixes, suffixes)
    return Oracle(found["matched"], found["gap"])


def _engine(engine: Any, model: Path, prefixes: np.ndarray, suffixes: np.ndarray) -> np.ndarray:
    with start(EngineOptions(engine, str(model), 2 * _WIDTH + 1, "float32")) as loaded:
        return loaded.match(Ragged.of(prefixes), Ragged.of(suffixes))


class Asked(NamedTuple):
    """What the oracles find of the demo's models, on every example."""

    shard: Path
    prefixes: np.ndarray
    suffixes: np.ndarray
    models: dict[str, Path]
    matched: dict[str, dict[str, np.ndarray]]
    """By oracle and model."""


@pytest.fixture(scope="module")
def asked(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> Asked:
    (shard,) = (demo.folder / "run" / "examples").glob("part-*.parquet")  # every example is in it
    examples = examples_of(pq.read_table(shard), Split(_WIDTH, _WIDTH, None))
    parts = (examples.prompts.matrix(), examples.targets.matrix())
    folder = demo.folder / "models"
    models = {"teacher": folder / "teacher"}
    students = {"baseline-1": "baseline", "soft": "soft", "hard": "hard"}
    models |= {name: folder / "seed-0" / path for name, path in students.items()}
    matched = {}
    for name in ("greedy", "plain_vllm"):
        found = _script(name, [*models.values()], tmp_path_factory.mktemp("oracles"), *parts)
        matched[name] = dict(zip(models, (one["matched"] for one in found), strict=True))
    return Asked(shard, *parts, models, matched)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["teacher", "baseline-1", "soft", "hard"])
def test_demo_models_agree_on_every_example(demo: Demo, asked: Asked, name: str) -> None:
    written = pq.read_table(demo.folder / "run" / "extraction" / name / asked.shard.name)
    early_exit = written["matched_tokens"].to_numpy()
    assert np.array_equal(early_exit, asked.matched["greedy"][name])
    assert np.array_equal(early_exit, asked.matched["plain_vllm"][name])
    found = _engine("transformers", asked.models[name], asked.prefixes, asked.suffixes)
    assert np.array_equal(early_exit, found)


@pytest.mark.slow
def test_smollm2_agrees_but_for_ties(smollm2: Path, tmp_path: Path) -> None:
    news = SHARED / "data" / "wikinews.jsonl.xz"
    if not news.exists():
        pytest.skip("the Wikinews articles are not beside this checkout")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    windows: list[list[int]] = []
    with lzma.open(news, "rt", encoding="utf-8") as lines:
        for line in lines:
            ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
            windows += [ids[at : at + 100] for at in range(0, len(ids) - 100, 256)]
            if len(windows) >= 250:
                break
    tokens = np.array(windows[:250], dtype=np.int32)
    prefixes, suffixes = tokens[:, :_WIDTH], tokens[:, _WIDTH:]
    oracle = _oracle(smollm2, tmp_path, prefixes, suffixes)
    for engine in ("vllm", "transformers"):
        found = _engine(engine, smollm2, prefixes, suffixes)
        differ = found != oracle.matched
        assert differ.sum() <= 1, engine
        assert (oracle.gap[differ] < 1e-3).all(), engine


_FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {"intermediate_size": 256},
    "olmo2": {"intermediate_size": 256, "num_key_value_heads": 2},
    "qwen3": {"intermediate_size": 256, "num_key_value_heads": 2, "head_dim": 32},
    "llama": {"intermediate_size": 256, "num_key_value_heads": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", list(_FAMILIES))
def test_families_agree_on_their_own_output_with_one_token_changed(family: str, tmp_path: Path) -> None:
    """Suffixes agree with greedy decoding up to a random place, so matched tokens spread over 0 to 50.

    The model's generation_config.json asks for sampling, a penalty and an early end; none may have a say.
    """
    model = tmp_path / family
    _save_random_model(family, model)
    random = np.random.default_rng(0)
    prefixes = random.integers(3, 512, (64, _WIDTH)).astype(np.int32)
    with start(EngineOptions("transformers", str(model), 2 * _WIDTH, "float32")) as engine:
        suffixes = engine.generate(Ragged.of(prefixes), _WIDTH).matrix()
    places = random.integers(0, _WIDTH + 1, 64)
    for row, place in enumerate(places):
        if place < _WIDTH:
            suffixes[row, place] = (suffixes[row, place] + 1) % 512
    oracle = _oracle(model, tmp_path, prefixes, suffixes)
    assert np.array_equal(oracle.matched, places)
    for engine_name in ("vllm", "transformers"):
        assert np.array_equal(_engine(engine_name, model, prefixes, suffixes), places), engine_name


_ROWS, _TOKENS, _UNUSED = 320, 300, 12


def _padded_model(folder: Path) -> Path:
    """Rows of the output layer that stand for no token, and are the likeliest time and again."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_ROWS,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2 * _WIDTH,
        initializer_range=0.3,
        eos_token_id=0,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for row, like in ((310, 17), (311, 20), (_UNUSED, 21)):
            model.lm_head.weight[row] = 1.5 * model.lm_head.weight[like]
    model.save_pretrained(folder)
    return folder


def _masked_greedy(folder: Path, prefixes: np.ndarray, tokens: int) -> np.ndarray:
    """Plain greedy decoding of ids that stand for tokens, one whole pass a step."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.from_numpy(prefixes.astype(np.int64))
    for _ in range(tokens):
        with torch.inference_mode():
            logits = model(ids).logits[:, -1].clone()
            logits[:, [_UNUSED, *range(_TOKENS, _ROWS)]] = -torch.inf
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], dim=1)
    return ids[:, -tokens:].numpy()


@pytest.mark.slow
def test_ids_without_a_token_are_never_generated_and_are_no_match(tmp_path: Path) -> None:
    """Greedy or sampled. `match` takes the model as released, which gives such ids out: a difference."""
    model = _padded_model(tmp_path / "model")
    prefixes = np.random.default_rng(0).integers(20, _TOKENS, (32, _WIDTH)).astype(np.int32)
    prompts = Ragged.of(prefixes)
    expected = _masked_greedy(model, prefixes, _WIDTH)
    released = _oracle(model, tmp_path, prefixes, expected)
    assert 0 < released.matched.mean() < _WIDTH
    for name in ("vllm", "transformers"):
        options = EngineOptions(name, str(model), 2 * _WIDTH, "float32")
        with start(options._replace(vocabulary=_TOKENS, unused_ids=(_UNUSED,))) as engine:
            assert np.array_equal(engine.generate(prompts, _WIDTH).matrix(), expected), name
            sampled = engine.generate(prompts, _WIDTH, 1.0, 3).values
            assert sampled.max() < _TOKENS, name
            assert not (sampled == _UNUSED).any(), name
            matched = engine.match(prompts, Ragged.of(expected))
            assert np.array_equal(matched, released.matched), name
        with start(options) as engine:
            assert engine.generate(prompts, _WIDTH).values.max() >= _TOKENS, "the model should say them"


_SECOND_RUNNER = """
import torch
from vllm import SamplingParams
from vllm.v1.worker.gpu.sample.logits_processor.loader import build_custom_logits_processors
from kdaudit.inference import vllm_mask

class Request:
    device = max_num_reqs = vocab_size = all_token_ids = prompt_len = prefill_len = total_len = None

[mask] = build_custom_logits_processors(None, Request(), False, [vllm_mask.NAME])
assert not mask.add_request(0, SamplingParams())
assert torch.isfinite(mask.apply(torch.zeros(2, 5), None)).all()
assert mask.add_request(1, SamplingParams(extra_args=vllm_mask.masking([1, 4])))
assert torch.isinf(mask.apply(torch.zeros(2, 5), None)).tolist() == [[False, True, False, False, True]] * 2
"""


@pytest.mark.slow
def test_ids_are_masked_in_vllm_s_second_model_runner_too() -> None:
    """It runs on GPUs alone; here its own loader makes the processor, which is then called as it would be."""
    done = subprocess.run([sys.executable, "-c", _SECOND_RUNNER], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def _save_random_model(family: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=512,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.3,  # far from uniform, so that no two logits tie
        **_FAMILIES[family],
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    leak = {
        "do_sample": True,
        "temperature": 5.0,
        "repetition_penalty": 9.0,
        "eos_token_id": list(range(512)),
    }
    (folder / "generation_config.json").write_text(json.dumps(leak))
