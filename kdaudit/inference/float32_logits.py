"""Logits in float32 of models in half precision, in transformers.

A bfloat16 has eight significant bits: between 16 and 32 it is a multiple of 1/8. So the two best logits of a
vocabulary often tie exactly, and the kernel decides which of them is the argmax. Here the output layer
multiplies and sums in float32; hidden states stay in the model's own dtype. vLLM does the same where its
configuration says `head_dtype: float32`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def with_float32_logits(model: Any) -> Any:  # noqa: ANN401 - any causal language model of transformers
    """The model, its output layer replaced by one that computes in float32.

    Left as it is: a model in float32, and an output layer that is quantized or no plain linear one.
    """
    import torch

    head = model.get_output_embeddings()
    if type(head) is torch.nn.Linear and head.weight.dtype in (torch.bfloat16, torch.float16):
        # Its parameters stay what they are: code of models reads the layer's dtype and width from them.
        head.forward = _projection(head)  # type: ignore[method-assign, assignment]
    return model


def _projection(head: torch.nn.Linear) -> Callable[[torch.Tensor], torch.Tensor]:
    """From hidden states to logits."""
    import torch

    bias = None if head.bias is None else head.bias.float()
    if head.weight.is_cuda:

        def project(hidden: torch.Tensor) -> torch.Tensor:
            """On tensor cores, which sum in float32 anyway, without a copy of the weights."""
            logits = torch.mm(hidden.flatten(0, -2), head.weight.t(), out_dtype=torch.float32)
            return (logits if bias is None else logits + bias).reshape(*hidden.shape[:-1], -1)

        return project
    weight = head.weight.detach().float()
    return lambda hidden: torch.nn.functional.linear(hidden.float(), weight, bias)
