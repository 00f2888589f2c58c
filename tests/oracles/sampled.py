"""How likely sampling is to give a text: transformers' own processors, one forward pass a text."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper


def drawn(
    model: Any,
    prompt: list[int],
    target: list[int],
    *,
    vocabulary: int,
    temperature: float,
    top_k: int | None,
) -> list[float]:
    """ln of the probability that each token of a target is drawn, given those before it."""
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + target])).logits[0, len(prompt) - 1 : -1, :vocabulary]
    logits = TemperatureLogitsWarper(temperature)(None, logits.float())
    if top_k is not None:
        logits = TopKLogitsWarper(top_k)(None, logits)
    shares = logits.double().softmax(-1).log()
    return [float(share[token]) for share, token in zip(shares, target, strict=True)]
