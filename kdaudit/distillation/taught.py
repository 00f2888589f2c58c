"""A trainer that has a frozen teacher beside the student, for soft and token-level hard distillation."""

from __future__ import annotations

from typing import Any

from kdaudit.distillation.teacher import Teacher, check_output_width
from kdaudit.distillation.training import Training, WindowTrainer


class TaughtTrainer(WindowTrainer):
    """Trains a student on windows with a loss that takes the teacher's logits.

    Args:
        training: the student and how it is trained.
        teacher: any causal language model of transformers with the student's tokenizer.
        vocabulary: that tokenizer's length.

    Raises:
        ModelError: teacher or student has fewer logits than the tokenizer has tokens, or the teacher's logits
            are more than its output layer on its last hidden states.

    """

    def __init__(
        self,
        training: Training,
        *,
        teacher: Any,  # noqa: ANN401 - any causal language model of transformers
        vocabulary: int,
    ) -> None:
        super().__init__(training)
        check_output_width(f"student {training.name}", training.model, vocabulary)
        self._teacher = Teacher(teacher, vocabulary, self.args.device)
