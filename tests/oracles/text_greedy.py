"""Whether a model's greedy continuation begins with a text: raw transformers in float32, one at a time.

Nothing of kdaudit is used. The tokenizer is AutoTokenizer; a continuation's text is what `decode` gives for
prompt and continuation, less what it gives for the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def begins_with(folder: Path, prompts: Sequence[Sequence[int]], targets: Sequence[str]) -> list[bool]:
    """For each prompt, whether the text of its continuation begins with its target."""
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
        before, after = (
            tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for part in (ids[0], whole)
        )
        found.append(after[len(before) :].startswith(target))
    return found
