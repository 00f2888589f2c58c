"""How a model's greedy continuation begins: raw transformers in float32.

Nothing of kdaudit is used. The tokenizer is AutoTokenizer; a continuation's text is what `decode` gives for
prompt and continuation, less what it gives for the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode


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


def continuations(folder: Path, prompts: Sequence[Sequence[int]], most: int) -> list[list[int]]:
    """The greedy continuation of each prompt, of `most` tokens; prompts of one length together."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    continued: list[list[int]] = [[] for _ in prompts]
    for length in {len(prompt) for prompt in prompts}:
        rows = [row for row, prompt in enumerate(prompts) if len(prompt) == length]
        ids = torch.tensor([list(prompts[row]) for row in rows])
        with torch.inference_mode():
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=most,
                eos_token_id=None,
                pad_token_id=0,
            )
        for row, tokens in zip(rows, whole[:, length:].tolist(), strict=True):
            continued[row] = tokens
    return continued


def byte_level_pieces(folder: Path) -> list[bytes]:
    """The bytes that each token of a byte-level vocabulary writes, by its id."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    byte_of = {character: byte for byte, character in bytes_to_unicode().items()}
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    return [bytes(byte_of[character] for character in token) for token in tokens]
