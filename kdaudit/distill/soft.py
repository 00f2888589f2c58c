"""Soft (logit-level) distillation: the student learns the teacher's softened next-token distribution.

For each position that has a next token, with p = softmax(z / T) over the vocabulary,

    loss = T² · Σ_v p_teacher(v) · log(p_teacher(v) / p_student(v))

(arXiv 2601.15394), averaged over the positions of a step; padding is no target. The teacher's logits are
made on the fly, without gradients and for a bounded number of positions at a time, so that they never
stand in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, pad

from kdaudit.distill.training import IGNORED, Progress, Recipe, WindowTrainer
from kdaudit.engines.base import Tokens
from kdaudit.errors import ModelError

CHUNK_ELEMENTS = 2**22
"""Logits of the teacher that stand in memory at once: 16 MiB in float32."""

TeacherLogits = Callable[[slice], Tensor]
"""Gives the teacher's logits (positions of the slice, vocabulary) for a slice of all positions."""


def forward_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher ‖ student) of softened distributions: (..., vocabulary) twice to (...), in nats."""
    log_student = log_softmax(student.float() / temperature, dim=-1)
    log_teacher = log_softmax(teacher.float() / temperature, dim=-1)
    return temperature**2 * (log_teacher.exp() * (log_teacher - log_student)).sum(dim=-1)


def soft_loss(
    student: Tensor, teacher: TeacherLogits, is_target: Tensor, temperature: float, chunk: int
) -> Tensor:
    """Sum of `forward_kl` over the positions that are targets, made `chunk` positions at a time.

    Args:
        student: logits (positions, vocabulary).
        teacher: gives the same positions' logits of the teacher, slice by slice.
        is_target: bool (positions,).
        temperature: T of the formula.
        chunk: positions at a time; it changes memory, not the result.

    Returns:
        float32 scalar, in nats; differentiable with respect to `student`.
    """
    total: Tensor = _ChunkedLoss.apply(student, teacher, is_target, temperature, chunk)  # type: ignore[no-untyped-call]
    return total


class _ChunkedLoss(torch.autograd.Function):
    """The sum and, in the same pass, its gradient.

    Taking each chunk's gradient at once frees what autograd would otherwise keep for the backward pass:
    several tensors as large as the logits.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context object
        student: Tensor,
        teacher: TeacherLogits,
        is_target: Tensor,
        temperature: float,
        chunk: int,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0]
        gradient = torch.empty_like(student) if wanted else None
        total = torch.zeros((), device=student.device)
        for start in range(0, len(student), chunk):
            part = slice(start, start + chunk)
            piece = student[part].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                loss = (forward_kl(piece, teacher(part), temperature) * is_target[part]).sum()
            if gradient is not None:
                (gradient[part],) = torch.autograd.grad(loss, piece)
            total += loss.detach()
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None, None


class SoftTrainer(WindowTrainer):
    """Trains a student on windows with `soft_loss` against a teacher, which stays as it is.

    Raises:
        ModelError: the teacher's logits are more than its output layer on its last hidden states.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # noqa: ANN401 - any causal language model of transformers
        windows: Sequence[Tokens],
        recipe: Recipe,
        folder: Path,
        progress: Progress,
        *,
        teacher: Any,  # noqa: ANN401 - any causal language model of transformers
        temperature: float,
    ) -> None:
        super().__init__(name, model, windows, recipe, folder, progress)
        self._teacher = teacher.to(self.args.device).eval().requires_grad_(False)
        self._temperature = temperature
        _check_output_layer(self._teacher)

    def compute_loss(
        self,
        model: Any,  # noqa: ANN401 - the wrapped student
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - as the Trainer's
        """The mean of the soft loss over the targets of a whole optimizer step, all devices together."""
        is_target = pad(inputs["labels"][:, 1:] != IGNORED, (0, 1)).reshape(-1)
        texts = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
        outputs = model(**texts, use_cache=False)
        logits = outputs.logits.flatten(0, 1)
        chunk = max(1, CHUNK_ELEMENTS // logits.shape[-1])
        total = soft_loss(logits, self._teacher_logits(texts), is_target, self._temperature, chunk)
        loss = total / (is_target.sum() if num_items_in_batch is None else num_items_in_batch)
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            # The count is that of all devices, and their gradients are averaged after this.
            loss = loss * self.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    def _teacher_logits(self, texts: dict[str, Tensor]) -> TeacherLogits:
        with torch.no_grad():
            hidden = self._teacher.base_model(**texts, use_cache=False).last_hidden_state.flatten(0, 1)
        head = self._teacher.get_output_embeddings()

        def logits(part: slice) -> Tensor:
            with torch.no_grad():
                made: Tensor = head(hidden[part])
            return made

        return logits


def _check_output_layer(teacher: Any) -> None:  # noqa: ANN401 - any causal language model of transformers
    """Some families scale or cap their logits after the output layer; those cannot be made in chunks."""
    token = torch.zeros((1, 1), dtype=torch.long, device=teacher.device)
    with torch.no_grad():
        hidden = teacher.base_model(input_ids=token, use_cache=False).last_hidden_state
        same = torch.allclose(
            teacher.get_output_embeddings()(hidden), teacher(input_ids=token, use_cache=False).logits
        )
    if not same:
        raise ModelError(
            f"teacher: {type(teacher).__name__} changes its logits after the output layer, which soft "
            "distillation does not support; use hard distillation or a teacher of another family"
        )
