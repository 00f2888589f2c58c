"""Matched tokens by `vllm.LLM.generate` of whole suffixes, as its own documentation uses it.

Run as a script in a process of its own: plain_vllm.py MODEL IN.npz OUT.npz.
"""

from __future__ import annotations

import os
import sys

import numpy as np

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"


def main(model_path: str, source: str, target: str) -> None:
    from vllm import LLM, SamplingParams, TokensPrompt

    given = np.load(source)
    width = given["suffixes"].shape[1]
    llm = LLM(
        model=model_path,
        dtype="float32",
        skip_tokenizer_init=True,
        generation_config="vllm",
        enforce_eager=True,
        max_model_len=given["prefixes"].shape[1] + width + 1,
        kv_cache_memory_bytes=256 << 20,
        max_num_seqs=128,
    )
    prompts = [TokensPrompt(prompt_token_ids=row.tolist()) for row in given["prefixes"]]
    params = SamplingParams(temperature=0.0, max_tokens=width, ignore_eos=True, detokenize=False)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    said = np.array([output.outputs[0].token_ids for output in outputs])
    np.savez(target, matched=np.cumprod(said == given["suffixes"], axis=1).sum(axis=1))


if __name__ == "__main__":
    main(*sys.argv[1:4])
