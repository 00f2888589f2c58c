"""Soft (logit-level) distillation: the student learns the teacher's softened next-token distribution.

For each position that has a next token, with p = softmax(z / T) over the vocabulary,

    loss = T² · Σ_v p_teacher(v) · log(p_teacher(v) / p_student(v))

(arXiv 2601.15394), averaged over the positions of a step; padding is not a target. Instead of this forward KL
divergence, the reverse, KL(student ‖ teacher), or the Jensen-Shannon divergence can be chosen: the mean of
the KL divergences of both from their even mixture. A share `alpha` of cross-entropy on the text can be mixed
in:

    loss = (1 - alpha) · T² · divergence + alpha · cross-entropy

The divergence is over the tokenizer's entries only: padding of a model's output layer represents no token.
The cross-entropy is the baseline's: at temperature 1, over all of the student's logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, pad

from kdaudit.distillation.taught import TaughtTrainer
from kdaudit.distillation.teacher import TeacherLogits
from kdaudit.distillation.training import IGNORED, Training

Divergence = Literal["forward_kl", "reverse_kl", "jsd"]


class SoftSettings(NamedTuple):
    """What a soft student learns."""

    temperature: float = 2.0
    """T of the formula, above 0."""
    divergence: Divergence = "forward_kl"
    alpha: float = 0.0
    """Share of cross-entropy on the text in the loss, 0 to 1."""


def _softened_divergence(student: Tensor, teacher: Tensor, settings: SoftSettings) -> Tensor:
    """T² · divergence of softened distributions: logits (..., vocabulary) twice to (...), in nats."""
    temperature = settings.temperature
    log_student = log_softmax(student.float() / temperature, dim=-1)
    log_teacher = log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * _DIVERGENCES[settings.divergence](log_student, log_teacher)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)


def _jensen_shannon(log_p: Tensor, log_q: Tensor) -> Tensor:
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    return (_kl(log_p, log_mixture) + _kl(log_q, log_mixture)) / 2


_DIVERGENCES: dict[Divergence, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": lambda log_student, log_teacher: _kl(log_teacher, log_student),
    "reverse_kl": _kl,
    "jsd": _jensen_shannon,
}
"""Each takes the logarithms of the student's and the teacher's distributions, in this order."""


def soft_loss(
    student: Tensor, teacher: TeacherLogits, next_tokens: Tensor, settings: SoftSettings, chunk: int
) -> Tensor:
    """Sum of the loss over the positions that are targets, computed `chunk` positions at a time.

    Args:
        student: logits (positions, at least the vocabulary).
        teacher: gives the same positions' logits of the teacher, (positions, vocabulary), slice by slice.
        next_tokens: int64 (positions,), the token that follows; `IGNORED` where a position is not a target.
        settings: temperature, divergence and share of cross-entropy.
        chunk: positions at a time; it changes memory, not the result.

    Returns:
        float32 scalar, in nats; differentiable with respect to `student`.
    """
    total: Tensor = _ChunkedLoss.apply(student, teacher, next_tokens, settings, chunk)  # type: ignore[no-untyped-call]
    return total


class _ChunkedLoss(torch.autograd.Function):
    """The sum and, in the same pass, its gradient.

    Computing each chunk's gradient at once frees what autograd would otherwise keep for the backward pass:
    several tensors as large as the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context object
        student: Tensor,
        teacher: TeacherLogits,
        next_tokens: Tensor,
        settings: SoftSettings,
        chunk: int,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(student) if wanted else None
        total = torch.zeros((), device=student.device)
        for start in range(0, len(student), chunk):
            part = slice(start, start + chunk)
            piece = student[part].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                loss = _chunk_loss(piece, teacher(part), next_tokens[part], settings)
            if gradient is not None:
                (gradient[part],) = torch.autograd.grad(loss, piece)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None, None


def _chunk_loss(student: Tensor, teacher: Tensor, next_tokens: Tensor, settings: SoftSettings) -> Tensor:
    # Entries of the student beyond the teacher's logits only pad its output layer.
    divergences = _softened_divergence(student[:, : teacher.shape[-1]], teacher, settings)
    soft = (divergences * (next_tokens != IGNORED)).sum()
    if settings.alpha == 0:  # the usual case skips the cost of the other term
        return soft
    hard = cross_entropy(student.float(), next_tokens, ignore_index=IGNORED, reduction="sum")
    return (1 - settings.alpha) * soft + settings.alpha * hard


class SoftTrainer(TaughtTrainer):
    """Trains a student on windows with `soft_loss` against a frozen teacher; arguments as for its base.

    Args:
        training: the student and how it is trained.
        teacher: the teacher.
        vocabulary: the tokenizer's length.
        settings: temperature, divergence and share of cross-entropy.

    """

    def __init__(
        self,
        training: Training,
        *,
        teacher: Any,  # noqa: ANN401 - any causal language model of transformers
        vocabulary: int,
        settings: SoftSettings,
    ) -> None:
        super().__init__(training, teacher=teacher, vocabulary=vocabulary)
        self._settings = settings

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401 - the wrapped student
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as the Trainer's
        """The mean of the soft loss over the targets of a whole optimizer step, all devices together."""
        next_tokens = pad(inputs["labels"][:, 1:], (0, 1), value=IGNORED).reshape(-1)
        texts = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        outputs = model(**texts, use_cache=False)
        logits = outputs.logits.flatten(0, 1)
        total = soft_loss(logits, self._teacher.read(texts), next_tokens, self._settings, self._teacher.chunk)
        loss = total / ((next_tokens != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is that of all devices, and their gradients are averaged after this.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss
