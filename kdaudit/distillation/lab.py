"""`kdaudit distill`, top to bottom: `run_distill` is its map.

    distill.yaml -> bases, tokenizer, windows -> teacher -> baselines
    -> for each seed: students -> audit.yaml, distill.json

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
from typing import Any

from accelerate.utils.memory import clear_device_cache
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from kdaudit.config.distill import DistillConfig
from kdaudit.config.models import ModelConfig
from kdaudit.distillation.audit_file import write_audit_file
from kdaudit.distillation.bases import load_base
from kdaudit.distillation.folders import (
    TrainingRecord,
    fingerprint,
    new_folder,
    read_training_record,
    save_model,
    what_changed,
)
from kdaudit.distillation.lora import with_lora
from kdaudit.distillation.members import members
from kdaudit.distillation.opening import Lab, merged_teacher, open_lab
from kdaudit.distillation.outcome import FinishedModel, read_distill_record, write_record
from kdaudit.distillation.plans import Plan, plan_member, plan_teacher, recipe_of
from kdaudit.distillation.processes import ALONE, Processes
from kdaudit.distillation.training import Progress, Recipe, Training
from kdaudit.errors import RunStateError, UsageError
from kdaudit.inference.base import Tokens
from kdaudit.inference.workers.memory import release_freed_memory
from kdaudit.models.tokenizer import reading_fingerprint
from kdaudit.runs import layout
from kdaudit.runs.files import check_folders
from kdaudit.runs.lock import FolderLock
from kdaudit.schemas.distillation import DistillRecord


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
        try:
            return _distill(open_lab(config, out, processes, progress, warn))
        finally:
            if processes.first:
                shutil.rmtree(merged_teacher(out), ignore_errors=True)


def _folders(config: DistillConfig, out: Path) -> list[Path]:
    """Where the family is written."""
    own = [out / member.folder for member in members(config)]
    return [merged_teacher(out), out / layout.CHECKPOINTS, out / layout.TEACHER, *own]


def _distill(lab: Lab) -> DistillRecord:
    """Baselines come before students: the audit.yaml of each seed names the baselines of all."""
    teacher, family = _teacher(lab), members(lab.config)
    done = {member.folder: _train(lab, plan_member(lab, member)) for member in family if member.is_baseline}
    for seed in lab.config.seeds:
        for member in family:
            if member.seed == seed and not member.is_baseline:
                done[member.folder] = _train(lab, plan_member(lab, member))
        if lab.processes.first:
            write_audit_file(lab.config, lab.out, seed, lab.teacher)
    finished = [teacher, *(done[member.folder] for member in family)]
    return lab.processes.first_then_all(
        lambda: write_record(lab, finished), lambda: read_distill_record(lab.out)
    )


def _teacher(lab: Lab) -> FinishedModel:
    """Train the teacher, unless it is taken as it is."""
    learner = lab.config.teacher
    if isinstance(learner, ModelConfig):
        return FinishedModel("teacher", "teacher", lab.teacher, None)
    return _train(lab, plan_teacher(lab, learner))


def _train(lab: Lab, plan: Plan) -> FinishedModel:
    """Train a model, unless its folder holds one that was trained from the same inputs."""
    depends = {
        "base": plan.base.fingerprint,
        "recipe": _values(recipe_of(lab.config, plan)),
        "settings": plan.settings,
        "tokenizer": reading_fingerprint(plan.tokenizer),
        "windows": lab.windows.fingerprint,
        "bos": plan.bos,
    }
    record = lab.processes.first_then_all(
        lambda: _kept(plan.folder, depends), lambda: read_training_record(plan.folder)
    )
    if record is None:
        record = _trained(lab, plan, depends)
        clear_device_cache(garbage_collection=True)  # what is measured or written next needs the memory
        release_freed_memory()
    return FinishedModel(plan.name, plan.method, plan.folder, record)


def _values(recipe: Recipe) -> dict[str, Any]:
    """A recipe's values, as earlier versions wrote them down where it has no order of its own."""
    return {key: value for key, value in recipe._asdict().items() if (key, value) != ("order", None)}


def _kept(folder: Path, depends: dict[str, Any]) -> TrainingRecord | None:
    """The record of a model that need not be trained again; None if there is no model."""
    there = read_training_record(folder)
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


def _trained(lab: Lab, plan: Plan, depends: dict[str, Any]) -> TrainingRecord:
    rows = plan.rows()
    lab.progress(f"{plan.name}: loading", 0, 0)
    checkpoints = _checkpoints(lab, depends, rows.windows)
    with new_folder(plan.folder, lab.out) if lab.processes.first else nullcontext() as partial:
        began = time.perf_counter()
        model = load_base(plan.base, plan.tokenizer, plan.seed)
        if plan.lora is not None:
            model = with_lora(model, plan.lora, plan.base, plan.seed)
        recipe = recipe_of(lab.config, plan)
        running = plan.trainer(
            Training(
                plan.name,
                model,
                rows.windows,
                recipe,
                checkpoints,
                lab.progress,
                plan.bos,
                lab.processes,
                rows.prompts,
            )
        )
        running.train_on()
        record = TrainingRecord(
            fingerprint=fingerprint(depends, []),
            settings=depends,
            rows=len(rows.windows),
            tokens=sum(map(len, rows.windows)),
            steps=running.state.global_step,
            losses=running.losses,
            seconds=running.earlier_seconds + time.perf_counter() - began,
        )
        lab.progress(f"{plan.name}: saving", 0, 0)
        weights = running.gathered_weights()
        if partial is not None:
            save_model(model, plan.tokenizer, record, partial, plan.base, weights)
    lab.processes.first_then_all(lambda: shutil.rmtree(checkpoints, ignore_errors=True), lambda: None)
    return record


def _checkpoints(lab: Lab, depends: dict[str, Any], windows: Sequence[Tokens]) -> Path:
    """It depends on the rows too: a teacher's text may differ with the engine or the machine.

    And on the number of processes, each of which keeps its own state in a checkpoint.
    """
    count = lab.processes.count
    depends = depends if count == 1 else {**depends, "processes": count}
    return lab.out / layout.CHECKPOINTS / fingerprint(depends, windows)[:16]
