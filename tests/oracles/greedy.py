"""Matched tokens by plain greedy decoding: raw transformers in float32, one token after the other.

Run as a script in a process of its own: greedy.py IN.npz MODEL OUT.npz [MODEL OUT.npz]... IN holds prefixes
and suffixes; each model's OUT gets matched, and gap: the distance of the two best logits where greedy
decoding left the suffix (infinite where it never did).
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main(source: str, model_path: str, target: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    given = np.load(source)
    prefixes = torch.from_numpy(given["prefixes"].astype(np.int64))
    suffixes = torch.from_numpy(given["suffixes"].astype(np.int64))
    matched = np.zeros(len(prefixes), dtype=np.int64)
    gap = np.full(len(prefixes), np.inf)
    for start in range(0, len(prefixes), 32):
        alive = np.arange(start, min(start + 32, len(prefixes)))
        read, cache = prefixes[alive], None
        for step in range(suffixes.shape[1]):
            with torch.inference_mode():
                told = model(read, past_key_values=cache, use_cache=True)
            best = told.logits[:, -1].topk(2, dim=-1)
            right = (best.indices[:, 0] == suffixes[alive, step]).numpy()
            gap[alive[~right]] = (best.values[:, 0] - best.values[:, 1]).numpy()[~right]
            matched[alive[right]] = step + 1
            alive = alive[right]
            if not len(alive):
                break
            cache = told.past_key_values
            cache.batch_select_indices(torch.from_numpy(np.flatnonzero(right)))
            read = suffixes[alive, step : step + 1]
    np.savez(target, matched=matched, gap=gap)


if __name__ == "__main__":
    assert "vllm" not in sys.modules
    for path, out in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
        main(sys.argv[1], path, out)
