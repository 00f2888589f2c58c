"""`kdaudit distill`, top to bottom: `run_distill` is its map.

    distill.yaml -> bases, tokenizer, windows -> teacher -> for each seed: students -> audit.yaml,
    distill.json

Every model is a folder that is whole or absent. An existing model that was trained from the same inputs is
not trained again; an interrupted training resumes from its last checkpoint.

If a launcher started several processes, all of them run this code, and only the first writes.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from accelerate.utils.memory import clear_device_cache
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from kdaudit.config.audit import ModelConfig
from kdaudit.config.distill import (
    DistillConfig,
    HardStudent,
    LabStudent,
    LearnerConfig,
    SoftStudent,
)
from kdaudit.distillation.audit_file import write_audit_file
from kdaudit.distillation.bases import Base, load_base
from kdaudit.distillation.corpus import DecodingSettings, TeacherEngine, read_hard_windows, write_hard_corpus
from kdaudit.distillation.folders import (
    TrainingRecord,
    fingerprint,
    new_folder,
    read_record,
    save_model,
    what_changed,
)
from kdaudit.distillation.hard import TokenHardTrainer
from kdaudit.distillation.opening import Lab, open_lab
from kdaudit.distillation.outcome import Finished, resolved, write_record
from kdaudit.distillation.outcome import read_record as read_outcome
from kdaudit.distillation.processes import ALONE, Processes
from kdaudit.distillation.soft import SoftSettings, SoftTrainer
from kdaudit.distillation.training import Progress, Recipe, Training, WindowTrainer
from kdaudit.errors import RunStateError, UsageError
from kdaudit.inference import EngineOptions
from kdaudit.inference.base import Tokens
from kdaudit.inference.transformers import load_model
from kdaudit.models.resolving import ResolvedModel
from kdaudit.models.tokenizer import reading_fingerprint
from kdaudit.runs import layout
from kdaudit.runs.files import check_folders
from kdaudit.runs.lock import FolderLock
from kdaudit.schemas.distillation import DistillRecord


class _Plan(NamedTuple):
    """One model to train."""

    name: str
    folder: Path
    method: str
    base: Base
    learner: LearnerConfig
    seed: int
    settings: dict[str, Any]
    """What its weights depend on besides base, recipe and windows: JSON values."""
    rows: Callable[[], Sequence[Tokens]]
    trainer: Callable[[Training], WindowTrainer]


def run_distill(
    config: DistillConfig,
    out: Path,
    *,
    progress: Progress,
    warn: Callable[[str], None],
    processes: Processes = ALONE,
) -> DistillRecord:
    """Train teacher, baseline and students, and write the audit.yaml files that audit them.

    Args:
        config: what to train.
        out: the output folder; made if absent. Several processes need the same one.
        progress: called at every training step.
        warn: receives what the user should know but need not act on.
        processes: the processes that train together, from `kdaudit.distillation.processes.together`.

    Returns:
        The contents of distill.json.

    Raises:
        UsageError: configuration, corpus or models are wrong.
        RunError: a training loss became NaN or infinite, an engine failed, or the disk is full.

    """
    processes.share(config.training.batch_size)
    if isinstance(config.teacher, ModelConfig) and (
        config.teacher.revision is not None or config.teacher.trust_remote_code
    ):
        raise UsageError(
            "revision and trust_remote_code are not supported here",
            fix="fetch that model and name its folder",
            key="teacher",
        )
    out = out.absolute()
    if (out / layout.MANIFEST).exists():
        raise RunStateError(f"{out}: holds an audit or a screening", fix="choose another --out")
    for folder in _folders(config, out):
        check_folders(folder, out)
    lock: AbstractContextManager[Any] = processes.first_then_all(lambda: FolderLock(out), nullcontext)
    with lock:
        disable_progress_bar()  # transformers' own bars: progress is shown by `progress` alone
        set_verbosity_error()  # it warns of every training that resumes from a checkpoint
        return _distill(open_lab(config, out, processes, progress, warn))


def _folders(config: DistillConfig, out: Path) -> list[Path]:
    """Folders that the family is written to."""
    students = [out / layout.seed_folder(seed) / one.name for seed in config.seeds for one in config.students]
    return [out / layout.WINDOWS, out / layout.CHECKPOINTS, out / layout.TEACHER, *students]


def _distill(lab: Lab) -> DistillRecord:
    finished = [_teacher(lab)]
    for seed in lab.config.seeds:
        finished += [_train(lab, _plan_student(lab, student, seed)) for student in lab.config.students]
        if lab.processes.first:
            write_audit_file(lab.config, lab.out / layout.seed_folder(seed) / layout.AUDIT_FILE, lab.teacher)
    return lab.processes.first_then_all(lambda: write_record(lab, finished), lambda: read_outcome(lab.out))


def _teacher(lab: Lab) -> Finished:
    """Train the teacher, unless it is taken as it is."""
    learner = lab.config.teacher
    if isinstance(learner, ModelConfig):
        return Finished("teacher", "teacher", lab.teacher, None)
    plan = _Plan(
        name="teacher",
        folder=lab.teacher,
        method="teacher",
        base=lab.bases["teacher.base"],
        learner=learner,
        seed=lab.config.seeds[0],
        settings={"method": "teacher"},
        rows=lambda: lab.windows,
        trainer=WindowTrainer,
    )
    return _train(lab, plan)


def _plan_student(lab: Lab, student: LabStudent, seed: int) -> _Plan:
    settings = student.model_dump(mode="json", exclude={"name"})
    if student.method != "baseline":
        settings["teacher"] = _teacher_model(lab).fingerprint
        if lab.teacher_dtype is not None:
            settings["teacher_dtype"] = lab.teacher_dtype
    if isinstance(student, HardStudent) and student.level == "sequence":
        settings["engine"] = lab.config.extraction.engine
    return _Plan(
        name=student.name,
        folder=lab.out / layout.seed_folder(seed) / student.name,
        method=student.method,
        base=lab.bases["student.base"],
        learner=lab.config.student,
        seed=seed,
        settings=settings,
        rows=lambda: _rows(lab, student, seed),
        trainer=lambda training: _trainer(lab, student, training),
    )


def _teacher_model(lab: Lab) -> ResolvedModel:
    lab.progress("teacher: hashing", 0, 0)
    return resolved(lab.teacher, "teacher")


def _rows(lab: Lab, student: LabStudent, seed: int) -> Sequence[Tokens]:
    """The training text of a student: the corpus, or the text that the teacher generated."""
    if not isinstance(student, HardStudent) or student.level == "token":
        return lab.windows
    path = lab.out / _hard_corpus_name(lab.config, student, seed)
    lab.processes.first_then_all(lambda: _write(lab, student, seed, path), lambda: None)
    return read_hard_windows(path)


def _write(lab: Lab, student: HardStudent, seed: int, path: Path) -> None:
    """Let the teacher generate the training text of a hard student."""
    extraction, given = lab.config.extraction, lab.config.teacher
    shared_by = given.tensor_parallel if isinstance(given, ModelConfig) else None
    engine = EngineOptions(
        engine=extraction.engine,
        path=str(lab.teacher),
        max_tokens=lab.config.corpus.window + (lab.bos is not None),
        dtype=lab.teacher_dtype or "auto",
        tensor_parallel=shared_by or extraction.tensor_parallel,
        vocabulary=lab.readers.vocabulary,
        unused_ids=lab.readers.tokenizer.unused_ids,
    )
    temperature = 0.0 if student.decoding == "greedy" else student.sampling_temperature
    settings = DecodingSettings(student.prefix_tokens, temperature, seed, lab.bos)
    model = _teacher_model(lab)
    teacher = TeacherEngine(engine, model.fingerprint, model.parameters)
    write_hard_corpus(path, lab.windows, teacher, settings, lab.readers.tokenizer, lab.progress, lab.warn)


def _hard_corpus_name(config: DistillConfig, student: HardStudent, seed: int) -> str:
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
    return load_model(lab.teacher, lab.teacher_dtype or "auto", "cpu", False)


def _train(lab: Lab, plan: _Plan) -> Finished:
    """Train a model, unless its folder holds one that was trained from the same inputs."""
    depends = {
        "base": plan.base.fingerprint,
        "recipe": _recipe(lab.config, plan)._asdict(),
        "settings": plan.settings,
        "tokenizer": reading_fingerprint(lab.readers.own[plan.base.key]),
        "windows": lab.windows.fingerprint,
        "bos": lab.bos,
    }
    record = lab.processes.first_then_all(
        lambda: _kept(plan.folder, depends), lambda: read_record(plan.folder)
    )
    if record is None:
        record = _trained(lab, plan, depends)
        clear_device_cache(garbage_collection=True)  # what is measured or written next needs the memory
    return Finished(plan.name, plan.method, plan.folder, record)


def _kept(folder: Path, depends: dict[str, Any]) -> TrainingRecord | None:
    """The record of a model that need not be trained again; None if there is no model."""
    there = read_record(folder)
    if there is None and folder.exists():
        raise RunStateError(
            f"{folder}: exists and was not trained here",
            fix="choose another --out, or move it away",
        )
    if there is not None and there.fingerprint != fingerprint(depends, []):
        raise RunStateError(
            f"{folder}: was trained from other text or settings ({what_changed(there.settings, depends)})",
            fix="choose another --out, or move it away to train it again",
        )
    return there


def _trained(lab: Lab, plan: _Plan, depends: dict[str, Any]) -> TrainingRecord:
    rows = plan.rows()
    lab.progress(f"{plan.name}: loading", 0, 0)
    checkpoints = _checkpoints(lab, depends, rows)
    with new_folder(plan.folder, lab.out) if lab.processes.first else nullcontext() as partial:
        began = time.perf_counter()
        model = load_base(plan.base, lab.readers.own[plan.base.key], plan.seed)
        recipe = _recipe(lab.config, plan)
        running = plan.trainer(
            Training(plan.name, model, rows, recipe, checkpoints, lab.progress, lab.bos, lab.processes)
        )
        running.train_on()
        record = TrainingRecord(
            fingerprint=fingerprint(depends, []),
            settings=depends,
            rows=len(rows),
            steps=running.state.global_step,
            losses=running.losses,
            seconds=running.earlier_seconds + time.perf_counter() - began,
        )
        lab.progress(f"{plan.name}: saving", 0, 0)
        weights = running.gathered_weights()
        if partial is not None:
            save_model(model, lab.readers.own[plan.base.key], record, partial, weights)
    lab.processes.first_then_all(lambda: shutil.rmtree(checkpoints, ignore_errors=True), lambda: None)
    return record


def _checkpoints(lab: Lab, depends: dict[str, Any], rows: Sequence[Tokens]) -> Path:
    """It depends on the rows too: a teacher's text may differ with the engine or the machine.

    And on the number of processes, each of which keeps its own state in a checkpoint.
    """
    count = lab.processes.count
    depends = depends if count == 1 else {**depends, "processes": count}
    return lab.out / layout.CHECKPOINTS / fingerprint(depends, rows)[:16]


def _recipe(config: DistillConfig, plan: _Plan) -> Recipe:
    return Recipe(
        epochs=plan.learner.epochs,
        learning_rate=plan.learner.learning_rate,
        batch_size=config.training.batch_size,
        warmup_ratio=config.training.warmup_ratio,
        seed=plan.seed,
        schedule=config.training.schedule,
        precision=config.training.precision,
    )
