"""How every model of an audit is trained: one set-up of `transformers.Trainer` on rows of token ids.

Equal seeds, equal numbers of rows and equal batch sizes give the same order of rows, whatever the model
or the loss. On a CPU equal inputs give equal weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from kdaudit.engines.base import Tokens
from kdaudit.errors import RunError

IGNORED = -100
"""Label of a position that is no target, as transformers has it."""

Progress = Callable[[str, int, int], None]
"""Called as progress(model's name, steps done, all steps) after every optimizer step."""


class Recipe(NamedTuple):
    """How long and how fast a model learns: AdamW, cosine schedule after a linear warm-up."""

    epochs: int
    learning_rate: float
    batch_size: int
    """Rows a step on one device."""
    warmup_ratio: float = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    seed: int = 0


class Batch(NamedTuple):
    """Rows of one step, padded on the right to the longest."""

    input_ids: Tensor
    """int64 (rows, tokens)."""
    attention_mask: Tensor
    """int64 (rows, tokens): 1 for text, 0 for padding."""
    labels: Tensor
    """int64 (rows, tokens): the token itself, `IGNORED` for padding."""


class Rows(Dataset[Tensor]):
    """Windows as the Trainer reads them: row i is window i."""

    def __init__(self, windows: Sequence[Tokens]) -> None:
        self._rows = [torch.as_tensor(window, dtype=torch.long) for window in windows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self._rows[index]


def padded(rows: Sequence[Tensor]) -> Batch:
    """Put rows of token ids into one batch; padding is marked by length, so any token may be text."""
    shape = (len(rows), max(len(row) for row in rows))
    input_ids = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for place, row in enumerate(rows):
        input_ids[place, : len(row)] = row
        labels[place, : len(row)] = row
    return Batch(input_ids, (labels != IGNORED).long(), labels)


def collate(rows: Sequence[Tensor]) -> dict[str, Tensor]:
    """`padded` as the keyword arguments of a model."""
    return padded(rows)._asdict()


class WindowTrainer(Trainer):  # type: ignore[misc]  # transformers comes without types
    """Trains one model on windows with cross-entropy on every token after the first.

    Args:
        name: what progress and errors call the model.
        model: a causal language model; it is trained in place.
        windows: int32 (tokens,) each, of any lengths.
        recipe: how long and how fast.
        folder: where the Trainer may write.
        progress: told of every step.
    """

    def __init__(
        self,
        name: str,
        model: Any,  # noqa: ANN401 - any causal language model of transformers
        windows: Sequence[Tokens],
        recipe: Recipe,
        folder: Path,
        progress: Progress,
    ) -> None:
        super().__init__(
            model=model,
            args=_arguments(recipe, folder),
            train_dataset=Rows(windows),
            data_collator=collate,
            callbacks=[_Watch(name, progress)],
        )
        # It prints to standard output, which belongs to the command's own result.
        self.remove_callback(PrinterCallback)

    @property
    def last_loss(self) -> float:
        """Mean loss of the last epoch, once trained."""
        return float([entry["loss"] for entry in self.state.log_history if "loss" in entry][-1])


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
    """Reports steps and stops a training whose loss is no number."""

    def __init__(self, name: str, progress: Progress) -> None:
        self._name = name
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self._progress(self._name, state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        if not math.isfinite(logs.get("loss", 0.0)):
            raise RunError(
                f"{self._name}: the training loss was no longer a number at step {state.global_step}; "
                "lower the learning rate and run again"
            )


def _arguments(recipe: Recipe, folder: Path) -> Any:  # noqa: ANN401 - TrainingArguments comes without types
    on_gpu = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=recipe.warmup_ratio,  # below 1 the Trainer takes it as a share of all steps
        seed=recipe.seed,
        data_seed=recipe.seed,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        save_strategy="no",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
    )
