"""Hard distillation: the student learns tokens that the teacher chose, with cross-entropy.

Sequence level: the teacher continues the prefix of each training window, greedily or by sampling, up to the
window's own length, so that a hard student reads as many tokens as the others, in the same order of windows.
Of prompts and answers it generates the answer again, until it ends its message or has written as much.

Token level: the student reads the windows themselves, and after each position learns the token that the
teacher finds most likely there. These labels are computed on the fly, without gradients.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from kdaudit.distillation.taught import TaughtTrainer
from kdaudit.distillation.teacher import Teacher
from kdaudit.distillation.training import IGNORED
from kdaudit.inference import Lengths, Ragged, Tokens


class Continues(Protocol):
    """The part of an inference engine that is used here; `kdaudit.inference.base.Engine` has it."""

    def generate(self, prompts: Ragged, tokens: Lengths) -> Ragged:
        """Continuation of each prompt, of as many tokens as asked: int64 (prompts,)."""
        ...


class HardWindow(NamedTuple):
    """What the teacher was given of a window, and what it wrote: int32 (tokens,) each."""

    prompt: Tokens
    written: Tokens


def hard_windows(
    windows: Sequence[Tokens], prefix_tokens: int | Lengths, teacher: Continues, ends: Collection[int] = ()
) -> list[HardWindow]:
    """Each window's prefix with the teacher's continuation, as long as the window itself.

    Args:
        windows: int32 (tokens,) each, longer than the prefix.
        prefix_tokens: tokens that are kept of each window: of all, or of each, int64 (windows,).
        teacher: an engine that has the teacher loaded.
        ends: tokens that end an answer, behind which nothing is kept.

    Returns:
        Row i comes from window i, and has as many tokens, or fewer where the teacher ended its answer.
    """
    given = Ragged.of(windows)
    prompts = given.head(prefix_tokens)
    written = teacher.generate(prompts, given.lengths - prompts.lengths)
    return [HardWindow(*row) for row in zip(prompts, (_ended(one, ends) for one in written), strict=True)]


def _ended(written: Tokens, ends: Collection[int]) -> Tokens:
    """What was written, up to the first token that ends it."""
    places = np.flatnonzero(np.isin(written, [*ends]))
    return written[: places[0] + 1] if len(places) else written


def token_labels(teacher: Teacher, batch: dict[str, Tensor]) -> Tensor:
    """Labels of a batch whose next tokens are the teacher's choice in place of the text's.

    Args:
        teacher: reads the batch's own text.
        batch: `input_ids`, `attention_mask` and `labels`, (rows, tokens) each.

    Returns:
        int64 (rows, tokens): at position i + 1 the token that the teacher finds most likely after the text
        up to and including position i; `IGNORED` where the batch's labels are. The first position, which
        nothing predicts, is unchanged.
    """
    chosen = teacher.likeliest({name: batch[name] for name in ("input_ids", "attention_mask")})
    labels = batch["labels"]
    following = torch.where(labels[:, 1:] == IGNORED, labels[:, 1:], chosen[:, :-1])
    return torch.cat([labels[:, :1], following], dim=1)


class TokenHardTrainer(TaughtTrainer):
    """Trains a student on windows with cross-entropy to `token_labels` of a frozen teacher."""

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401 - the wrapped student
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as the Trainer's
        """The Trainer's own cross-entropy to the teacher's labels, which are as many as the text's."""
        taught = {**inputs, "labels": token_labels(self._teacher, inputs)}
        return super().compute_loss(model, taught, return_outputs, num_items_in_batch)
