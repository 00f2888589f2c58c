"""The teacher for its students: frozen, its logits computed on the fly, a slice of positions at a time.

One forward pass without gradients gives the last hidden states; the output layer, whose result is as wide as
the vocabulary, is applied only to the positions that are asked for, so that the teacher's logits are never
in memory as a whole.

Families pad their output layers, each size of a family differently, so entries beyond the tokenizer's length
represent no token: the teacher's are cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kdaudit.errors import ModelError
from kdaudit.inference.transformers import output_width

CHUNK_ELEMENTS = 2**22
"""Logits of the teacher in memory at once: 16 MiB in float32."""

TeacherLogits = Callable[[slice], Tensor]
"""Gives the teacher's logits (positions of the slice, vocabulary) for a slice of all positions."""


class Teacher:
    """A teacher in evaluation mode and without gradients.

    Args:
        model: any causal language model of transformers; it is not changed, but moved to `device`.
        vocabulary: the tokenizer's length.
        device: where the student learns.

    Raises:
        ModelError: the teacher has no logits for some of the tokenizer's tokens, or its logits are more than
            its output layer on its last hidden states.
    """

    def __init__(self, model: Any, vocabulary: int, device: torch.device) -> None:  # noqa: ANN401
        check_output_width("teacher", model, vocabulary)
        self._model = model.to(device).eval().requires_grad_(False)
        self._vocabulary = vocabulary
        _check_output_layer(self._model)

    @property
    def chunk(self) -> int:
        """Positions whose logits may be in memory at once."""
        return max(1, CHUNK_ELEMENTS // output_width(self._model))

    def read(self, texts: Mapping[str, Tensor]) -> TeacherLogits:
        """Read a batch under teacher forcing; its positions are those of all rows, one row after another.

        Args:
            texts: `input_ids` and `attention_mask`, (rows, tokens) each.
        """
        with torch.no_grad():
            hidden = self._model.base_model(**texts, use_cache=False).last_hidden_state.flatten(0, 1)
        head = self._model.get_output_embeddings()

        def logits(part: slice) -> Tensor:
            with torch.no_grad():
                made: Tensor = head(hidden[part])[:, : self._vocabulary]
            return made

        return logits

    def likeliest(self, texts: Mapping[str, Tensor]) -> Tensor:
        """The teacher's most likely token after each position: int64 (rows, tokens).

        Of equally likely tokens it is the one with the lowest id.
        """
        logits, positions = self.read(texts), texts["input_ids"].numel()
        parts = [
            logits(slice(start, start + self.chunk)).argmax(-1) for start in range(0, positions, self.chunk)
        ]
        return torch.cat(parts).view_as(texts["input_ids"])


def check_output_width(name: str, model: Any, vocabulary: int) -> None:  # noqa: ANN401
    """Refuse a model that has no logit for some of the tokenizer's tokens.

    Raises:
        ModelError: with `name` for the model.
    """
    width = output_width(model)
    if width < vocabulary:
        key = name if name == "teacher" else None
        raise ModelError(
            f"{'' if key else f'{name}: '}its output layer has {width:,} entries, fewer than the tokenizer's "
            f"{vocabulary:,} tokens; "
            "teacher and student must share one tokenizer",
            fix="name a model that was made for this one",
            key=key,
        )


def _check_output_layer(teacher: Any) -> None:  # noqa: ANN401 - any causal language model of transformers
    """Some families scale or cap their logits after the output layer; those cannot be computed in chunks."""
    # Several tokens: the embedding of one that pads may be zero, and zero scaled is zero.
    text = torch.arange(min(8, output_width(teacher)), device=teacher.device)[None]
    with torch.no_grad():
        hidden = teacher.base_model(input_ids=text, use_cache=False).last_hidden_state
        same = torch.allclose(
            teacher.get_output_embeddings()(hidden), teacher(input_ids=text, use_cache=False).logits
        )
    if not same:
        raise ModelError(
            f"{type(teacher).__name__} changes its logits after the output layer, which soft and "
            "token-level hard distillation do not support",
            fix="use sequence-level hard distillation or a teacher of another family",
            key="teacher",
        )
