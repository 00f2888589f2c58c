"""How every model of a family is trained: one set-up of `transformers.Trainer` on rows of token ids.

Equal seeds of the order, equal numbers of rows and equal batch sizes give the same order of rows, whatever
the model, the loss or the number of processes. On a CPU equal inputs give equal weights in one process;
several give those up to rounding.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from kdaudit.distillation.folders import storing
from kdaudit.distillation.order import NO_ROW, SharedOrder
from kdaudit.distillation.processes import ALONE, Processes
from kdaudit.errors import ModelError, RunError
from kdaudit.inference.base import Tokens
from kdaudit.inference.workers.memory import keep_freed_memory
from kdaudit.runs.files import read_bounded

IGNORED = -100
"""Label of a position that is not a target, as in transformers."""

_SECONDS = "seconds"
_MOST_BYTES = 64 << 20
"""Bytes of a Trainer's state at most."""
_PATIENCE = 4 * 3600
"""Seconds that GPUs wait for each other within a step: the first may be writing a large checkpoint."""

Progress = Callable[[str, int, int], None]
"""Called as progress(model's name, steps done, all steps) after every optimizer step."""


class Recipe(NamedTuple):
    """Epochs, learning rate and the like: AdamW, with a schedule after a linear warm-up."""

    epochs: int
    learning_rate: float
    batch_size: int
    """Rows per step, over all processes."""
    warmup_ratio: float = 0.03
    """Share of all steps in which the learning rate rises from 0."""
    seed: int = 0
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate changes after the warm-up."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """The dtype of the computation; auto is bfloat16 on a GPU that supports it, else float32."""
    order: int | None = None
    """Seed of the order of rows; None for `seed`."""


class Training(NamedTuple):
    """One model and how it is trained: what every trainer here takes."""

    name: str
    """The model's name in progress and errors."""
    model: Any
    """A causal language model of transformers; it is trained in place."""
    windows: Sequence[Tokens]
    """int32 (tokens,) each, of any lengths."""
    recipe: Recipe
    folder: Path
    """Where checkpoints are written: twenty over the training, of which the last ones are kept."""
    progress: Progress
    """Called at every step."""
    bos: int | None = None
    """BOS token before each window, or None."""
    processes: Processes = ALONE
    """The processes that train the model together, including this one."""
    prompts: Sequence[int] | NDArray[np.int64] | None = None
    """Tokens of each window that stand before an answer: read, and not learned; None for none."""


class Batch(NamedTuple):
    """Rows of one step, padded on the right to the longest."""

    input_ids: Tensor
    """int64 (rows, tokens)."""
    attention_mask: Tensor
    """int64 (rows, tokens): 1 for text, 0 for padding."""
    labels: Tensor
    """int64 (rows, tokens): the token itself, `IGNORED` for padding and prompts."""


class Row(NamedTuple):
    """A window for the Trainer."""

    token_ids: Tensor
    """int64 (tokens,), with the BOS token where there is one."""
    prompt: int = 0
    """How many of them stand before an answer, and are not learned."""


class Rows(Dataset[Row]):
    """Windows for the Trainer: row i is window i, after a BOS token if there is one.

    `NO_ROW` gives one token, which nothing predicts and which predicts nothing: a row without a target.
    """

    def __init__(
        self,
        windows: Sequence[Tokens],
        bos: int | None = None,
        prompts: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> None:
        self._windows = windows
        self._begin = [] if bos is None else [bos]
        self._prompts = prompts

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> Row:
        if index == NO_ROW:
            return Row(torch.zeros(1, dtype=torch.long))
        prompt = 0 if self._prompts is None else int(self._prompts[index])
        ids = torch.tensor([*self._begin, *self._windows[index].tolist()], dtype=torch.long)
        return Row(ids, prompt + len(self._begin) if prompt else 0)


def padded(rows: Sequence[Row]) -> Batch:
    """Put rows of token ids into one batch; padding is marked by length, so any token may be text."""
    shape = (len(rows), max(len(row.token_ids) for row in rows))
    input_ids, attention_mask = torch.zeros((2, *shape), dtype=torch.long)
    labels = torch.full(shape, IGNORED)
    for place, (ids, prompt) in enumerate(rows):
        input_ids[place, : len(ids)] = ids
        attention_mask[place, : len(ids)] = 1
        labels[place, prompt : len(ids)] = ids[prompt:]
    return Batch(input_ids, attention_mask, labels)


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """`padded` as the keyword arguments of a model."""
    return padded(rows)._asdict()


class WindowTrainer(Trainer):  # type: ignore[misc]  # transformers comes without types
    """Trains one model on windows with cross-entropy on every token after the first, or after the prompt.

    Raises:
        ModelError: several processes train, and the model does not accept the number of all their targets.
        UsageError: a step's windows cannot be divided evenly among the processes.

    """

    def __init__(self, training: Training) -> None:
        self._processes = training.processes
        self._watch = _Watch(training.name, training.progress)
        super().__init__(
            model=training.model,
            args=_arguments(training),
            train_dataset=Rows(training.windows, training.bos, training.prompts),
            data_collator=collate,
            callbacks=[self._watch],
        )
        # It prints to standard output, which is for the command's own result.
        self.remove_callback(PrinterCallback)
        if training.processes.count > 1 and not self.model_accepts_loss_kwargs:
            raise ModelError(
                f"the model {training.name}: {type(training.model).__name__} averages its loss by "
                "itself, which is wrong in several processes",
                fix="train it in one, without torchrun",
            )

    def train_on(self) -> None:
        """Train, or resume from the last whole checkpoint in the training's folder."""
        folder = Path(self.args.output_dir)
        # Only the first process removes half-written checkpoints; then all of them find the same.
        found = self._processes.first_then_all(
            lambda: _last_checkpoint(folder), lambda: _last_checkpoint(folder)
        )
        self._watch.before = 0.0 if found is None else _seconds_until(Path(found))
        if self.args.device.type == "cpu":
            keep_freed_memory()
        self.train(resume_from_checkpoint=found)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:  # noqa: ANN401 - the Trainer's hook
        # torch's writer reports a full disk as a RuntimeError about positions in its file.
        with storing(f"{self.args.output_dir}: a checkpoint of {self._watch.name}", RuntimeError):
            super()._save_checkpoint(model, trial)

    @property
    def earlier_seconds(self) -> float:
        """Seconds of earlier starts of this training."""
        return self._watch.before

    def gathered_weights(self) -> dict[str, Tensor] | None:
        """The model's weights if they are sharded over the processes, which must all call this; else None."""
        if not self.is_fsdp_enabled:
            return None
        weights: dict[str, Tensor] = self.accelerator.get_state_dict(self.model)
        return weights

    def _get_train_sampler(self, train_dataset: Rows | None = None) -> Any:  # noqa: ANN401 - the Trainer's hook
        if self._processes.count == 1:
            return super()._get_train_sampler(train_dataset)
        rows = len(train_dataset or self.train_dataset)
        step = self.args.per_device_train_batch_size * self._processes.count
        steps = -(-rows // step)
        # The epoch is taken from the steps done: where a resumed epoch is entered halfway, the
        # Trainer tells it to no sampler of several processes.
        return SharedOrder(rows, step, self.args.data_seed, lambda: self.state.global_step // steps)

    @property
    def losses(self) -> list[float]:
        """Mean loss of each epoch, once trained."""
        return [float(entry["loss"]) for entry in self.state.log_history if "loss" in entry]


def _last_checkpoint(folder: Path) -> str | None:
    """The latest checkpoint that was written to its end: the Trainer writes its state last.

    A half-written checkpoint of a killed process is removed: the Trainer would count it among those it keeps.
    """
    numbered = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    for found in sorted(numbered, key=lambda path: int(path.name[11:]), reverse=True):
        try:
            json.loads(read_bounded(found / TRAINER_STATE_NAME, _MOST_BYTES))
        except (OSError, ValueError):
            shutil.rmtree(found)
        else:
            return str(found)
    return None


def _seconds_until(checkpoint: Path) -> float:
    """Seconds of training until it was written; 0 if the process died before they were saved."""
    try:
        return float(read_bounded(checkpoint / _SECONDS, 100))
    except (OSError, ValueError):
        return 0.0


class _Watch(TrainerCallback):  # type: ignore[misc]  # transformers comes without types
    """Reports steps, saves the time beside each checkpoint, stops a training if its loss is not finite."""

    def __init__(self, name: str, progress: Progress) -> None:
        self.name = name
        self._progress = progress
        self._began = time.perf_counter()
        self.before = 0.0
        """Seconds that earlier starts spent."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self._began = time.perf_counter()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        if state.is_world_process_zero:
            seconds = self.before + time.perf_counter() - self._began
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (folder / _SECONDS).write_text(f"{seconds}\n", encoding="utf-8")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        self._progress(self.name, state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:  # noqa: ANN401, ARG002
        if not math.isfinite(logs.get("loss", 0.0)):
            raise RunError(
                f"{self.name}: the training loss became NaN or infinite at step {state.global_step}; "
                "lower the learning rate and run again"
            )


def _arguments(training: Training) -> Any:  # noqa: ANN401 - TrainingArguments comes without types
    recipe = training.recipe
    on_gpu = torch.cuda.is_available()
    precision = recipe.precision
    if precision == "auto":
        precision = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported() else "float32"
    arguments = TrainingArguments(
        output_dir=str(training.folder),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=training.processes.share(recipe.batch_size),
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="constant_with_warmup" if recipe.schedule == "constant" else recipe.schedule,
        warmup_steps=recipe.warmup_ratio,  # below 1 the Trainer takes it as a share of all steps
        seed=recipe.seed,
        data_seed=recipe.seed if recipe.order is None else recipe.order,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        bf16=precision == "bfloat16",
        fp16=precision == "float16",
        save_strategy="steps",
        save_steps=0.05,
        save_total_limit=2,  # the newest may be half written when the process dies
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        ddp_timeout=_PATIENCE,
        ddp_find_unused_parameters=False,  # every weight of a language model is used in every step
    )
    if on_gpu:
        # It counts the GPUs; a process uses one, so that a step has `batch_size` rows.
        _ = arguments.device
        arguments._n_gpu = 1
    return arguments
