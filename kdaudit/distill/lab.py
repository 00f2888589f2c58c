"""`kdaudit distill`, top to bottom: `run_distill` is its map.

    distill.yaml -> bases, tokenizer, windows -> teacher -> for each seed: students -> audit.yaml,
    distill.json

Every model is a folder that is whole or absent. One that stands there and was trained from the same things
is not trained again; one that was being trained goes on from its last checkpoint.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers.utils.logging import disable_progress_bar

from kdaudit.config.audit import ModelConfig
from kdaudit.config.distill import (
    DistillConfig,
    HardStudent,
    LabStudent,
    LearnerConfig,
    SoftStudent,
)
from kdaudit.distill.audit_file import write_audit_file
from kdaudit.distill.bases import Base, check_bases, family_tokenizer, load_base, resolve_base
from kdaudit.distill.corpus import Writing, read_hard_windows, write_hard_corpus
from kdaudit.distill.folders import TrainingRecord, fingerprint, new_folder, read_record, save_model
from kdaudit.distill.hard import TokenHardTrainer
from kdaudit.distill.record import DistillRecord, TrainedModel
from kdaudit.distill.soft import SoftSettings, SoftTrainer
from kdaudit.distill.training import Progress, Recipe, Training, WindowTrainer
from kdaudit.distill.windows import WindowFile, cut_windows
from kdaudit.engines import EngineOptions, start
from kdaudit.engines.base import Tokens
from kdaudit.engines.transformers import load_model
from kdaudit.errors import RunStateError, UsageError
from kdaudit.features import FeatureWorker
from kdaudit.files import write_bytes
from kdaudit.lock import take_lock
from kdaudit.manifest import environment
from kdaudit.models import ResolvedModel, resolve_model
from kdaudit.tokenizer import bos_token_id, reading_fingerprint, uses_bos

RECORD_FILE, AUDIT_FILE = "distill.json", "audit.yaml"
_ROWS = 4096
"""Windows of the holdout that are read together."""


class _Lab(NamedTuple):
    """What every training needs."""

    config: DistillConfig
    out: Path
    teacher: Path
    """The teacher's folder: given, or where it will be trained."""
    tokenizer: Any
    bos: int | None
    """Begin token before each window, where the tokenizer itself puts one."""
    windows: WindowFile
    holdout: WindowFile
    progress: Progress


class _Plan(NamedTuple):
    """One model to train."""

    name: str
    folder: Path
    method: str
    base: Base
    learner: LearnerConfig
    seed: int
    settings: dict[str, Any]
    """What its weights depend on beside base, recipe and windows: JSON values."""
    rows: Callable[[], Sequence[Tokens]]
    trainer: Callable[[Training], WindowTrainer]


def run_distill(
    config: DistillConfig, out: Path, *, progress: Progress, warn: Callable[[str], None]
) -> DistillRecord:
    """Train teacher, baseline and students, and write the audit.yaml files that audit them.

    Args:
        config: what to train.
        out: the output folder; made if absent.
        progress: told of every training step.
        warn: told what the user should know and need not act on.

    Returns:
        What stands in distill.json.

    Raises:
        UsageError: configuration, corpus or models are wrong.
        RunError: a training's loss became no number, an engine failed, or the disk is full.

    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("distill: runs in one process in this version; start it without torchrun")
    if isinstance(config.teacher, ModelConfig) and (
        config.teacher.revision is not None or config.teacher.trust_remote_code
    ):
        raise UsageError(
            "teacher: revision and trust_remote_code are not supported here; fetch that model and name "
            "its folder"
        )
    out = out.absolute()
    lock = take_lock(out)
    try:
        return _distill(config, out, progress, warn)
    finally:
        os.close(lock)


def _distill(
    config: DistillConfig, out: Path, progress: Progress, warn: Callable[[str], None]
) -> DistillRecord:
    disable_progress_bar()  # transformers' own: `progress` alone says how far things are
    bases = {key: resolve_base(_plain(base), key) for key, base in config.starts().items()}
    tokenizer = family_tokenizer(config, bases)
    bos = bos_token_id(tokenizer) if uses_bos(tokenizer) else None
    longest = max(config.corpus.window, config.holdout.window) + (bos is not None)
    check_bases(bases, tokenizer, longest, warn)
    given = bases.get("teacher.path")
    work = out / "windows"
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    lab = _Lab(
        config,
        out,
        out / "teacher" if given is None or given.model is None else given.model.folder,
        tokenizer,
        bos,
        _cut(config, "corpus", tokenizer, work, progress),
        _cut(config, "holdout", tokenizer, work, progress),
        progress,
    )
    teacher = _teacher(lab, bases)
    trained = [_record_of(lab, "teacher", "teacher", lab.teacher, teacher)]
    for seed in config.seeds:
        for student in config.students:
            plan = _plan_student(lab, student, bases["student.base"], seed)
            trained.append(_record_of(lab, student.name, student.method, plan.folder, _train(lab, plan)))
        write_audit_file(config, out / f"seed-{seed}" / AUDIT_FILE, lab.teacher)
    return _write_record(lab, trained)


def _plain(base: Any) -> Any:  # noqa: ANN401 - a path, or a configuration section
    return base if isinstance(base, str) else base.model_dump(mode="json")


def _cut(config: DistillConfig, key: str, tokenizer: Any, work: Path, progress: Progress) -> WindowFile:  # noqa: ANN401
    """Windows of the corpus or the holdout: those that an audit would find."""
    return cut_windows(
        config.corpus if key == "corpus" else config.holdout,
        tokenizer,
        work / f"{key}.bin",
        minimum=config.extraction.prefix_tokens + config.extraction.suffix_tokens,
        key=key,
        progress=lambda rows: progress(f"{key}: reading documents", rows, 0),
    )


def _teacher(lab: _Lab, bases: dict[str, Base]) -> TrainingRecord | None:
    """Train the teacher; None for one that is taken as it is."""
    learner = lab.config.teacher
    if isinstance(learner, ModelConfig):
        return None
    plan = _Plan(
        name="teacher",
        folder=lab.teacher,
        method="teacher",
        base=bases["teacher.base"],
        learner=learner,
        seed=lab.config.seeds[0],
        settings={"method": "teacher"},
        rows=lambda: lab.windows,
        trainer=WindowTrainer,
    )
    return _train(lab, plan)


def _plan_student(lab: _Lab, student: LabStudent, base: Base, seed: int) -> _Plan:
    settings = student.model_dump(mode="json", exclude={"name"})
    if student.method != "baseline":
        settings["teacher"] = _resolved(lab.teacher, "teacher").fingerprint
    if isinstance(student, HardStudent) and student.level == "sequence":
        settings["engine"] = lab.config.extraction.engine
    return _Plan(
        name=student.name,
        folder=lab.out / f"seed-{seed}" / student.name,
        method=student.method,
        base=base,
        learner=lab.config.student,
        seed=seed,
        settings=settings,
        rows=lambda: _rows(lab, student, seed),
        trainer=lambda training: _trainer(lab, student, training),
    )


def _rows(lab: _Lab, student: LabStudent, seed: int) -> Sequence[Tokens]:
    """What a student reads: the corpus, or what the teacher wrote in its place."""
    if not isinstance(student, HardStudent) or student.level == "token":
        return lab.windows
    greedy = student.decoding == "greedy"
    writing = Writing(student.prefix_tokens, 0.0 if greedy else student.sampling_temperature, seed, lab.bos)
    path = lab.out / _hard_corpus_name(lab.config, student, seed)
    longest = lab.config.corpus.window + (lab.bos is not None)
    engine = EngineOptions(lab.config.extraction.engine, str(lab.teacher), longest)
    with start(engine) as teacher:
        write_hard_corpus(path, lab.windows, teacher, writing, lab.tokenizer, lab.progress)
    return read_hard_windows(path)


def _hard_corpus_name(config: DistillConfig, student: HardStudent, seed: int) -> str:
    """The first sequence-level student's text has the plain name; others add theirs, later seeds theirs."""
    first = next(one for one in config.students if isinstance(one, HardStudent) and one.level == "sequence")
    stem = "hard_corpus" if student.name == first.name else f"hard_corpus-{student.name}"
    sampled = student.decoding == "sampled" and seed != config.seeds[0]
    return f"{stem}-seed-{seed}.parquet" if sampled else f"{stem}.parquet"


def _trainer(lab: _Lab, student: LabStudent, training: Training) -> WindowTrainer:
    if isinstance(student, SoftStudent):
        settings = SoftSettings(student.temperature, student.divergence, student.alpha)
        return SoftTrainer(
            training, teacher=_load_teacher(lab), vocabulary=len(lab.tokenizer), settings=settings
        )
    if isinstance(student, HardStudent) and student.level == "token":
        return TokenHardTrainer(training, teacher=_load_teacher(lab), vocabulary=len(lab.tokenizer))
    return WindowTrainer(training)


def _load_teacher(lab: _Lab) -> Any:  # noqa: ANN401 - transformers is untyped
    return load_model(lab.teacher, "auto", "cpu", False)


def _train(lab: _Lab, plan: _Plan) -> TrainingRecord:
    """Train a model, unless its folder holds one that was trained from the same things."""
    recipe = _recipe(lab.config, plan)
    depends = {
        "base": plan.base.fingerprint,
        "recipe": recipe._asdict(),
        "settings": plan.settings,
        "tokenizer": reading_fingerprint(lab.tokenizer),
        "windows": lab.windows.fingerprint,
        "bos": lab.bos,
    }
    wanted = fingerprint(depends, [])
    there = read_record(plan.folder)
    if there is None and plan.folder.exists():
        raise RunStateError(
            f"{plan.folder}: is there already and was not trained here; choose another --out, or move it away"
        )
    if there is not None and there.fingerprint == wanted:
        return there
    if there is not None:
        raise RunStateError(
            f"{plan.folder}: was trained from other text or settings; choose another --out, or move it "
            "away to train it anew"
        )
    rows = plan.rows()
    with new_folder(plan.folder) as partial:
        began = time.perf_counter()
        model = load_base(plan.base, lab.tokenizer, plan.seed)
        # Of the rows too: what a teacher writes may differ where an engine or a machine does.
        checkpoints = lab.out / "checkpoints" / fingerprint(depends, rows)[:16]
        running = plan.trainer(
            Training(plan.name, model, rows, recipe, checkpoints, lab.progress, True, lab.bos)
        )
        running.train_on()
        record = TrainingRecord(
            fingerprint=wanted,
            settings=depends,
            rows=len(rows),
            steps=running.state.global_step,
            losses=running.losses,
            seconds=time.perf_counter() - began,
        )
        save_model(model, lab.tokenizer, record, partial)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return record


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


def _record_of(
    lab: _Lab, name: str, method: str, folder: Path, record: TrainingRecord | None
) -> TrainedModel:
    model = _resolved(folder, name)
    settings = {} if record is None else record.settings
    recipe = settings.get("recipe", {})
    return TrainedModel(
        folder=str(folder.relative_to(lab.out)) if folder.is_relative_to(lab.out) else str(folder),
        method=method,
        seed=recipe.get("seed"),
        parameters=model.parameters,
        windows=0 if record is None else record.rows,
        tokens=lab.windows.tokens * int(recipe.get("epochs", 0)),
        steps=0 if record is None else record.steps,
        losses=[] if record is None else record.losses,
        seconds=0.0 if record is None else record.seconds,
        holdout_perplexity=_perplexity(lab, folder),
    )


def _resolved(folder: Path, key: str) -> ResolvedModel:
    return resolve_model(ModelConfig(path=str(folder.resolve())), key)


def _perplexity(lab: _Lab, folder: Path) -> float:
    """Perplexity of the holdout, as an audit of the same model has it."""
    batches = (lab.holdout[row : row + _ROWS] for row in range(0, len(lab.holdout), _ROWS))
    with FeatureWorker(folder, "auto", trust_remote_code=False, retreat=0) as worker:
        return worker.perplexity(batches, lab.bos)


def _write_record(lab: _Lab, trained: list[TrainedModel]) -> DistillRecord:
    record = DistillRecord(
        name=lab.config.name,
        versions=environment(),
        corpus_windows=len(lab.windows),
        corpus_tokens=lab.windows.tokens,
        holdout_windows=len(lab.holdout),
        models=trained,
    )
    text = record.model_dump_json(indent=1) + "\n"
    write_bytes(lab.out / RECORD_FILE, text.encode(), private=False)
    return record
