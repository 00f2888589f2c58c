"""Whether a model's greedy continuation begins with a text: raw transformers in float32.

Nothing of kdaudit is used. The tokenizer is AutoTokenizer; a continuation's text is what `decode` gives for
prompt and continuation, less what it gives for the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def begins_with(folder: Path, prompts: Sequence[Sequence[int]], targets: Sequence[str]) -> list[bool]:
    """For each prompt, whether the text of its continuation begins with its target; one at a time.

    As many tokens are decoded as write the target. With more of them a decoder with byte fallback may show
    less: it replaces the bytes of a whole character too, where bytes that form none follow.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = []
    for prompt, target in zip(prompts, targets, strict=True):
        ids = torch.tensor([list(prompt)])
        with torch.inference_mode():
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=len(target.encode()) + 8,
                eos_token_id=None,
                pad_token_id=0,
            )[0]
        before, *after = (
            tokenizer.decode(whole[:size], skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for size in range(len(prompt), len(whole) + 1)
        )
        found.append(any(text[len(before) :].startswith(target) for text in after))
    return found
