"""Trains the demo's models and writes the audit.yaml that audits them.

The folder then holds

    audit.yaml                             written first: it tells a demo's folder from any other
    corpus.jsonl, holdout.jsonl            {"id", "text"} each line
    models/{teacher,baseline,soft,hard}/   Hugging Face form, with training.json

A model that is finished and was trained from the same text and settings is not trained again.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoModelForCausalLM
from transformers.utils.logging import disable_progress_bar

from kdaudit.config.audit import EngineName
from kdaudit.distillation.families import random_model
from kdaudit.distillation.folders import (
    TrainingRecord,
    fingerprint,
    new_folder,
    recorded_fingerprint,
    save_model,
)
from kdaudit.distillation.hard import Continues, hard_windows
from kdaudit.distillation.soft import SoftSettings, SoftTrainer
from kdaudit.distillation.training import Progress, Training, WindowTrainer
from kdaudit.errors import RunStateError
from kdaudit.inference.base import Tokens
from kdaudit.pipelines.demo.settings import DemoSettings, Learner
from kdaudit.pipelines.demo.text import DemoText, build_text, write_documents
from kdaudit.runs.files import is_own, read_bounded, write_bytes
from kdaudit.runs.lock import LOCK_FILE, FolderLock

Cut = Callable[[Path, Any], list[Tokens]]
"""Gives a jsonl corpus's windows under a tokenizer as the audit cuts them, copies too: (path, tokenizer)."""

OpenEngine = Callable[[Path], AbstractContextManager[Continues]]
"""Loads the model of a folder into an inference engine for as long as the context lasts."""


class Lab(NamedTuple):
    """What the training of each model needs."""

    models: Path
    settings: DemoSettings
    tokenizer: Any
    windows: list[Tokens]
    progress: Progress


def engine_name() -> EngineName:
    """The engine for this machine: vllm where it is installed, else transformers."""
    return "transformers" if importlib.util.find_spec("vllm") is None else "vllm"


def prepare(
    folder: Path,
    *,
    cut: Cut,
    open_engine: OpenEngine,
    progress: Progress,
    settings: DemoSettings = DemoSettings(),  # noqa: B008 - immutable
) -> Path:
    """Write audit.yaml and the corpora, and train what is not trained yet.

    Args:
        folder: the demo's folder; made if absent.
        cut: cuts the written corpus into windows.
        open_engine: loads the teacher, to write what the hard student learns.
        progress: told of every training step; a model that is there already is not mentioned.
        settings: sizes.

    Returns:
        The path of audit.yaml.

    Raises:
        CorpusError: this Python comes without its reference.
        RunStateError: the folder holds something else than a demo, or another process works there.
        StorageError: a file could not be written.
        RunError: a training's loss became no number.
    """
    disable_progress_bar()  # transformers' own: `progress` alone says how far things are
    _open_folder(folder)
    with FolderLock(folder):  # a second process would sweep away the model that the first is training
        path = _write_audit(folder, settings)
        text = _write_text(folder, settings)
        windows = cut(folder / "corpus.jsonl", text.tokenizer)
        lab = Lab(folder / "models", settings, text.tokenizer, windows, progress)
        _train_fresh(lab, "teacher", settings.teacher)
        _train_fresh(lab, "baseline", settings.student)
        _train_soft(lab)
        _train_hard(lab, open_engine)
    return path


def _open_folder(folder: Path) -> None:
    """Make the folder, or refuse one that holds something else than a demo."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir() if not (is_own(path.name) or path.name == LOCK_FILE)]
        first = b"" if "audit.yaml" not in names else read_bounded(folder / "audit.yaml", 1 << 20)
    except OSError as error:
        raise RunStateError(f"{folder}: is no folder to write to ({error.strerror}); name another") from error
    if names and not first.startswith(_WRITTEN_BY.encode()):
        raise RunStateError(f"{folder}: is not empty and holds no demo; choose another --out")


def _write_text(folder: Path, settings: DemoSettings) -> DemoText:
    text = build_text(
        characters=settings.characters,
        holdout_characters=settings.holdout_characters,
        records=settings.records,
        vocabulary=settings.vocabulary,
        window=settings.window,
    )
    write_documents(folder / "corpus.jsonl", text.corpus)
    write_documents(folder / "holdout.jsonl", text.holdout)
    return text


def _train_fresh(lab: Lab, name: str, learner: Learner) -> None:
    """Teacher and baseline: random weights, cross-entropy on the corpus."""
    _unless_trained(lab, name, learner, {}, lambda: lab.windows, WindowTrainer)


def _train_soft(lab: Lab) -> None:
    """The soft student: the baseline's start and windows, the teacher's distributions as targets."""
    settings = {"temperature": lab.settings.temperature, "teacher": _teacher_fingerprint(lab)}

    def trainer(training: Training) -> SoftTrainer:
        return SoftTrainer(
            training,
            teacher=AutoModelForCausalLM.from_pretrained(lab.models / "teacher"),
            vocabulary=len(lab.tokenizer),
            settings=SoftSettings(temperature=lab.settings.temperature),
        )

    _unless_trained(lab, "soft", lab.settings.student, settings, lambda: lab.windows, trainer)


def _train_hard(lab: Lab, open_engine: OpenEngine) -> None:
    """The hard student: the baseline's start, and the teacher's continuation of each window's prefix."""
    settings = {"prefix_tokens": lab.settings.prefix_tokens, "teacher": _teacher_fingerprint(lab)}

    def windows() -> list[Tokens]:
        lab.progress("hard: the teacher writes what it learns", 0, len(lab.windows))
        with open_engine(lab.models / "teacher") as engine:
            return hard_windows(lab.windows, lab.settings.prefix_tokens, engine)

    _unless_trained(lab, "hard", lab.settings.student, settings, windows, WindowTrainer)


def _teacher_fingerprint(lab: Lab) -> str | None:
    return recorded_fingerprint(lab.models / "teacher")


def _unless_trained(
    lab: Lab,
    name: str,
    learner: Learner,
    method: dict[str, Any],
    windows: Callable[[], Sequence[Tokens]],
    trainer: Callable[[Training], WindowTrainer],
) -> None:
    """Train a model from random weights, unless its folder holds one from the same text and settings."""
    config = learner.config(len(lab.tokenizer), lab.tokenizer.eos_token_id)
    settings = {"config": config, "recipe": learner.recipe._asdict(), "method": method}
    wanted = fingerprint({**settings, "tokenizer": lab.tokenizer.backend_tokenizer.to_str()}, lab.windows)
    folder = lab.models / name
    if recorded_fingerprint(folder) == wanted:
        return
    rows = windows()
    steps = learner.recipe.epochs * -(-len(rows) // learner.recipe.batch_size)
    lab.progress(name, 0, steps)
    with new_folder(folder) as partial:
        began = time.perf_counter()
        model = random_model(config, learner.recipe.seed)
        running = trainer(Training(name, model, rows, learner.recipe, partial, lab.progress))
        running.train()
        record = TrainingRecord(
            fingerprint=wanted,
            settings=settings,
            rows=len(rows),
            steps=running.state.global_step,
            losses=running.losses,
            seconds=time.perf_counter() - began,
        )
        save_model(model, lab.tokenizer, record, partial)


def _write_audit(folder: Path, settings: DemoSettings) -> Path:
    path = folder / "audit.yaml"
    text = _AUDIT.format(
        window=settings.window,
        prefix_tokens=settings.prefix_tokens,
        suffix_tokens=settings.suffix_tokens,
        engine=engine_name(),
    )
    write_bytes(path, text.encode(), private=False)
    return path


_WRITTEN_BY = "# Written by `kdaudit demo`."
_AUDIT = """\
# Written by `kdaudit demo`. Paths are taken from this file's folder.
name: demo
corpus: {{path: ./corpus.jsonl, text: text, id: id, window: {window}}}
holdout: {{path: ./holdout.jsonl, text: text, id: id, window: {window}}}
models:
  teacher: {{path: ./models/teacher}}
  baseline: {{path: ./models/baseline}}
  students:
    - {{name: soft, path: ./models/soft, kd: soft}}
    - {{name: hard, path: ./models/hard, kd: hard}}
extraction: {{engine: {engine}, prefix_tokens: {prefix_tokens}, suffix_tokens: {suffix_tokens}}}
report: {{title: The kdaudit demo}}
seed: 0
"""
