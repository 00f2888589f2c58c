"""What is to be trained of a family, model by model: from which base, on which rows, by which trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.distill import DistillConfig
from kdaudit.config.learners import LearnerConfig, LoraSection
from kdaudit.config.models import ModelConfig
from kdaudit.config.students import HardStudent, LabStudent, SoftStudent
from kdaudit.distillation.bases import Base
from kdaudit.distillation.corpus import (
    DecodingSettings,
    TeacherEngine,
    read_hard_texts,
    read_hard_windows,
    write_hard_corpus,
)
from kdaudit.distillation.hard import TokenHardTrainer
from kdaudit.distillation.members import Member, order_of
from kdaudit.distillation.opening import Lab
from kdaudit.distillation.outcome import resolved
from kdaudit.distillation.own_tokens import OwnWindows
from kdaudit.distillation.soft import SoftSettings, SoftTrainer
from kdaudit.distillation.training import Recipe, Training, WindowTrainer
from kdaudit.inference import EngineOptions
from kdaudit.inference.base import Tokens
from kdaudit.inference.transformers import load_model
from kdaudit.models.resolving import ResolvedModel
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs import layout


class TrainingRows(NamedTuple):
    """What a model learns."""

    windows: Sequence[Tokens]
    prompts: Sequence[int] | NDArray[np.int64] | None
    """See `Training.prompts`."""


class Plan(NamedTuple):
    """One model to train."""

    name: str
    folder: Path
    method: str
    base: Base
    tokenizer: ModelTokenizer
    """What it reads with, and is saved with."""
    bos: int | None
    """BOS token before each of its windows, if any."""
    learner: LearnerConfig
    seed: int
    order: int | None
    """See `Recipe.order`."""
    lora: LoraSection | None
    """The adapter that is trained in place of all weights, if one is."""
    settings: dict[str, Any]
    """What its weights depend on besides base, recipe and windows: JSON values."""
    rows: Callable[[], TrainingRows]
    trainer: Callable[[Training], WindowTrainer]


def plan_teacher(lab: Lab, learner: LearnerConfig) -> Plan:
    """The teacher, with cross-entropy on the corpus."""
    seed = lab.config.seeds[0]
    return Plan(
        name="teacher",
        folder=lab.teacher,
        method="teacher",
        base=lab.bases["teacher.base"],
        tokenizer=lab.readers.own["teacher.base"],
        bos=lab.bos,
        learner=learner,
        seed=seed,
        order=order_of(lab.config, "teacher", seed),
        lora=None,
        settings={"method": "teacher"},
        rows=lambda: _own(lab),
        trainer=WindowTrainer,
    )


def plan_member(lab: Lab, member: Member) -> Plan:
    """A baseline or a student; the teacher must stand."""
    student = member.student
    settings = student.model_dump(mode="json", exclude={"name", "count", "tokenizer"})
    if student.method != "baseline":
        settings["teacher"] = _teacher_model(lab).fingerprint
        if lab.teacher_dtype is not None:
            settings["teacher_dtype"] = lab.teacher_dtype
    if isinstance(student, HardStudent) and student.level == "sequence":
        settings["engine"] = lab.config.extraction.engine
    if lab.config.student.lora is not None:
        settings["lora"] = lab.config.student.lora.model_dump(mode="json")
    return Plan(
        name=member.name,
        folder=lab.out / member.folder,
        method=student.method,
        base=lab.bases["student.base"],
        tokenizer=lab.own.get(student.name, lab.readers.own["student.base"]),
        bos=lab.bos_of(student.name),
        learner=lab.config.student,
        seed=member.draws,
        order=order_of(lab.config, member.name, member.seed),
        lora=lab.config.student.lora,
        settings=settings,
        rows=lambda: _rows(lab, student, member.seed),
        trainer=lambda training: _trainer(lab, student, training),
    )


def _teacher_model(lab: Lab) -> ResolvedModel:
    if lab.given is not None:
        return lab.given
    lab.progress("teacher: hashing", 0, 0)
    return resolved(lab.teacher, "teacher")


def _own(lab: Lab) -> TrainingRows:
    """The corpus."""
    return TrainingRows(lab.windows, lab.windows.prompts if lab.config.corpus.has_answers else None)


def _rows(lab: Lab, student: LabStudent, seed: int) -> TrainingRows:
    """The training text of a student: the corpus, or the text that the teacher generated."""
    if not isinstance(student, HardStudent) or student.level == "token":
        return _own(lab)
    path = lab.out / hard_corpus_name(lab.config, student, seed)
    lab.processes.first_then_all(lambda: _write(lab, student, seed, path), lambda: None)
    if (own := lab.own.get(student.name)) is not None:
        return TrainingRows(_own_windows(lab, student.name, own, path), None)
    read = read_hard_windows(path)
    windows = [np.concatenate(row) for row in read]
    return TrainingRows(windows, [len(row.prompt) for row in read] if lab.config.corpus.has_answers else None)


def _own_windows(lab: Lab, student: str, own: ModelTokenizer, path: Path) -> list[Tokens]:
    """What the teacher wrote, in the tokens of a student's own tokenizer."""
    cutting = OwnWindows(own, lab.longest_of(student))
    windows = [window for texts in read_hard_texts(path) for window in cutting.cut(texts)]
    if (warning := cutting.warning(student, "texts that the teacher wrote", "corpus.window")) is not None:
        lab.warn(warning)
    return windows


def _write(lab: Lab, student: HardStudent, seed: int, path: Path) -> None:
    """Let the teacher generate the training text of a hard student."""
    extraction, given = lab.config.extraction, lab.config.teacher
    shared_by = given.tensor_parallel if isinstance(given, ModelConfig) else None
    engine = EngineOptions(
        engine=extraction.engine,
        path=str(lab.teacher_weights),
        max_tokens=lab.longest,
        dtype=lab.teacher_dtype or "auto",
        tensor_parallel=shared_by or extraction.tensor_parallel,
        vocabulary=lab.readers.vocabulary,
        unused_ids=lab.readers.tokenizer.unused_ids,
    )
    settings = decoding_settings(lab, student, seed)
    model = _teacher_model(lab)
    teacher = TeacherEngine(engine, model.fingerprint, model.parameters)
    write_hard_corpus(path, lab.windows, teacher, settings, lab.readers.tokenizer, lab.progress, lab.warn)


def decoding_settings(lab: Lab, student: HardStudent, seed: int) -> DecodingSettings:
    """How the teacher generates: behind prefixes of plain text, or behind prompts."""
    temperature = 0.0 if student.decoding == "greedy" else student.sampling_temperature
    settings = DecodingSettings(student.prefix_tokens, temperature, seed, lab.bos)
    if not lab.config.corpus.has_answers:
        return settings
    begun = 0 if lab.windows.prompts.all() else lab.config.extraction.prefix_tokens
    return settings._replace(prefix_tokens=None, ends=lab.readers.ends, begun=begun)


def hard_corpus_name(config: DistillConfig, student: HardStudent, seed: int) -> str:
    """Plain for the first sequence-level student; else with its name, and with a later seed if sampled."""
    first = next(one for one in config.students if isinstance(one, HardStudent) and one.level == "sequence")
    sampled = student.decoding == "sampled" and seed != config.seeds[0]
    return layout.hard_corpus(None if student.name == first.name else student.name, seed if sampled else None)


def _trainer(lab: Lab, student: LabStudent, training: Training) -> WindowTrainer:
    if isinstance(student, SoftStudent):
        settings = SoftSettings(student.temperature, student.divergence, student.alpha)
        return SoftTrainer(
            training, teacher=_load_teacher(lab), vocabulary=lab.readers.vocabulary, settings=settings
        )
    if isinstance(student, HardStudent) and student.level == "token":
        return TokenHardTrainer(training, teacher=_load_teacher(lab), vocabulary=lab.readers.vocabulary)
    return WindowTrainer(training)


def _load_teacher(lab: Lab) -> Any:  # noqa: ANN401 - transformers is untyped
    return load_model(lab.teacher_weights, lab.teacher_dtype or "auto", "cpu", False)


def recipe_of(config: DistillConfig, plan: Plan) -> Recipe:
    """How long and how fast a model learns."""
    return Recipe(
        epochs=plan.learner.epochs,
        learning_rate=plan.learner.learning_rate,
        batch_size=config.training.batch_size,
        warmup_ratio=config.training.warmup_ratio,
        seed=plan.seed,
        schedule=config.training.schedule,
        precision=config.training.precision,
        order=plan.order,
    )
