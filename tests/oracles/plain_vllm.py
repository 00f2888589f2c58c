"""Matched tokens by `vllm.LLM.generate` of whole suffixes, as its own documentation uses it.

Run as a script in a process of its own: plain_vllm.py IN.npz MODEL OUT.npz [MODEL OUT.npz]... vLLM is
imported once, and each model is loaded in a forked child.
"""

from __future__ import annotations

import os
import sys
import traceback

import numpy as np

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

from vllm import LLM, SamplingParams, TokensPrompt
from vllm.v1.engine import llm_engine  # noqa: F401 - what an engine would import


def main(source: str, model_path: str, target: str) -> None:
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
    for path, out in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                main(sys.argv[1], path, out)
                code = 0
            except BaseException:
                traceback.print_exc()
            os._exit(code)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            sys.exit(f"{path}: could not be run")
