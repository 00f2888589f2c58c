"""Whether the probability that sampling gives a text is how often it does: vLLM samples it.

    python tests/benchmarks/sampled_continuations.py --examples 50 --samples 400

A tiny random model of peaked distributions, random prompts, and as targets what the model itself may say.
Each target's count among so many continuations of its prompt, sampled by plain vLLM, is set against the
binomial distribution of the probability that one teacher-forced pass gives. Exit code 1 if a count is outside
its 99.99% interval, or the counts together are less likely than 1 in 1,000 (chi-square, where five or more
are expected).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy import stats
from transformers import LlamaConfig, LlamaForCausalLM

from kdaudit.inference import EngineOptions, Ragged, Sampling
from kdaudit.inference.transformers import TransformersEngine

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

_PROMPT, _VOCABULARY = 8, 300


def _save_model(folder: Path) -> None:
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


def _probabilities(folder: Path, prompts: Ragged, targets: Ragged, sampling: Sampling) -> np.ndarray:
    """p_z of each target, from one pass."""
    options = EngineOptions("transformers", str(folder), 64, "float32")
    scores = TransformersEngine(options._asdict()).score(prompts.followed_by(targets), sampling)
    ends = scores.offsets[1:]
    return np.exp(
        [scores.sampled[end - len(one) : end].sum() for end, one in zip(ends, targets, strict=True)]
    )


def _sampled(folder: Path, prompts: Ragged, tokens: int, samples: int, sampling: Sampling) -> np.ndarray:
    """What vLLM says after each prompt: int64 (prompts, samples, tokens)."""
    from vllm import LLM, SamplingParams, TokensPrompt

    model = LLM(
        model=str(folder),
        dtype="float32",
        skip_tokenizer_init=True,
        generation_config="vllm",
        enforce_eager=True,
        max_model_len=64,
        kv_cache_memory_bytes=256 << 20,
        max_num_seqs=256,
        seed=11,
    )
    params = SamplingParams(
        n=samples,
        temperature=sampling.temperature,
        top_k=sampling.top_k or 0,
        max_tokens=tokens,
        ignore_eos=True,
        detokenize=False,
    )
    asked = [TokensPrompt(prompt_token_ids=prompt.tolist()) for prompt in prompts]
    outputs = model.generate(asked, params, use_tqdm=False)
    return np.array([[one.token_ids for one in output.outputs] for output in outputs])


def main() -> int:
    """Sample, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--examples", type=int, default=50)
    parser.add_argument("--samples", type=int, default=400)
    parser.add_argument("--tokens", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-k", type=int, default=20)
    asked = parser.parse_args()
    sampling = Sampling(asked.temperature, asked.top_k)
    dice = np.random.default_rng(2)
    prompts = Ragged.of(dice.integers(2, _VOCABULARY, (asked.examples, _PROMPT)))
    with tempfile.TemporaryDirectory() as name:
        _save_model(Path(name))
        said = _sampled(Path(name), prompts, asked.tokens, asked.samples + 1, sampling)
        targets = Ragged.of(said[:, -1])  # one that is drawn, and not counted
        p_z = _probabilities(Path(name), prompts, targets, sampling)
    counts = (said[:, :-1] == said[:, -1:]).all(-1).sum(-1)
    low, high = stats.binom.interval(0.9999, asked.samples, p_z)
    outside = int(((counts < low) | (counts > high)).sum())
    large = asked.samples * np.minimum(p_z, 1 - p_z) >= 5
    z = (counts - asked.samples * p_z)[large] / np.sqrt(asked.samples * p_z * (1 - p_z))[large]
    chance = float(stats.chi2.sf((z**2).sum(), len(z)))
    print(f"{asked.examples} examples, {asked.samples} continuations each")
    print(f"p_z {p_z.min():.2g} to {p_z.max():.2g}")
    print(f"drawn {counts.sum():,}, expected {asked.samples * p_z.sum():,.1f}; {outside} outside 99.99%")
    print(f"chi-square of {len(z)} examples: {(z**2).sum():.1f}, p = {chance:.3g}")
    return int(outside > 0 or chance < 1e-3)


if __name__ == "__main__":
    sys.exit(main())
