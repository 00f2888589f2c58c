"""The outcome of a family: each model is measured on the holdout; cards and distill.json are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from kdaudit.config.models import ModelConfig
from kdaudit.corpus.distinct import Ledger, identity
from kdaudit.distillation.folders import TrainingRecord, first_card
from kdaudit.distillation.model_card import About, model_card
from kdaudit.distillation.opening import Lab
from kdaudit.distillation.own_tokens import OwnWindows
from kdaudit.distillation.planting import planted_in
from kdaudit.inference.merged import MergedModels
from kdaudit.inference.scoring import FeatureWorker
from kdaudit.models.resolving import ResolvedModel, resolve_model
from kdaudit.models.tokenizer import reading_fingerprint
from kdaudit.runs import layout
from kdaudit.runs.files import own_folder, read_bounded, remove_own, write_file
from kdaudit.runs.manifest import environment
from kdaudit.schemas.distillation import DistillRecord, TrainedModel

_MOST_BYTES = 64 << 20
"""Bytes of a card, or of distill.json, at most."""
_ROWS = 4096
"""Windows of the holdout that are read together."""


class FinishedModel(NamedTuple):
    """A finished model in its folder."""

    name: str
    method: str
    folder: Path
    record: TrainingRecord | None
    """None for a teacher that was not trained here."""


def write_record(lab: Lab, finished: Sequence[FinishedModel]) -> DistillRecord:
    """Measure every model, and write the cards of those that were trained, and distill.json.

    A measurement of an earlier call, of the same weights on the same holdout, is not repeated.

    Raises:
        EngineError: a model could not be run.
        StorageError: the file could not be written.

    """
    known = _measured_before(lab.out)
    record = DistillRecord(
        name=lab.config.name,
        versions=environment(),
        corpus_windows=len(lab.windows),
        corpus_tokens=lab.windows.tokens,
        holdout_windows=len(lab.holdout),
        canary_windows=sum(one.repetitions for one in planted_in(lab.config)),
        models=[_measured(lab, one, known) for one in finished],
    )
    for one, measured in zip(finished, record.models, strict=True):
        if one.record is not None and _card_is_new(one.folder / layout.MODEL_CARD, one.record):
            card = model_card(_about(lab, one, measured.holdout_perplexity), one.record)
            write_file(one.folder, layout.MODEL_CARD, card.encode())
    text = record.model_dump_json(indent=1) + "\n"
    write_file(lab.out, layout.DISTILL_RECORD, text.encode())
    return record


def _card_is_new(path: Path, record: TrainingRecord) -> bool:
    """Whether a card is as training wrote it; a changed card is kept, since it may hold an audit."""
    try:
        return read_bounded(path, _MOST_BYTES).decode() == first_card(record)
    except (OSError, UnicodeDecodeError):
        return not path.exists()


def read_distill_record(out: Path) -> DistillRecord:
    """The distill.json that `write_record` wrote."""
    return DistillRecord.model_validate_json(read_bounded(out / layout.DISTILL_RECORD, _MOST_BYTES))


def resolved(folder: Path, key: str) -> ResolvedModel:
    """A model of the family as the audit will find it."""
    return resolve_model(ModelConfig(path=str(folder.resolve())), key)


def _measured_before(out: Path) -> dict[str, float]:
    """Perplexities of an earlier distill.json by `TrainedModel.measured`."""
    try:
        return {one.measured: one.holdout_perplexity for one in read_distill_record(out).models}
    except (OSError, ValidationError):
        return {}


def _measured(lab: Lab, one: FinishedModel, known: dict[str, float]) -> TrainedModel:
    record, folder = one.record, one.folder
    lab.progress(f"{one.name}: perplexity of the holdout", 0, 0)
    model = resolved(folder, one.name) if record is not None or lab.given is None else lab.given
    own = lab.own.get(one.name)
    on = [model.fingerprint, lab.holdout.fingerprint, lab.bos, _dtype(lab, one), _example_tokens(lab)]
    on += [] if own is None else [reading_fingerprint(own)]
    measured = sha256(json.dumps(on).encode()).hexdigest()
    perplexity = known.get(measured)
    if perplexity is None:
        perplexity = _perplexity(lab, one, model)
    recipe = {} if record is None else record.settings.get("recipe", {})
    return TrainedModel(
        folder=str(folder.relative_to(lab.out)) if folder.is_relative_to(lab.out) else str(folder),
        method=one.method,
        seed=recipe.get("seed"),
        parameters=model.parameters,
        windows=0 if record is None else record.rows,
        tokens=_tokens(lab, record) * int(recipe.get("epochs", 0)),
        steps=0 if record is None else record.steps,
        losses=[] if record is None else record.losses,
        seconds=0.0 if record is None else record.seconds,
        holdout_perplexity=perplexity,
        measured=measured,
        own_tokenizer=own is not None,
    )


def _tokens(lab: Lab, record: TrainingRecord | None) -> int:
    """Tokens of what a model learned, in one epoch."""
    return lab.windows.tokens if record is None or record.tokens is None else record.tokens


def _about(lab: Lab, one: FinishedModel, perplexity: float) -> About:
    base = lab.bases["teacher.base" if one.method == "teacher" else "student.base"].model
    return About(
        name=one.name,
        base=None if base is None else base.name,
        teacher=str(lab.teacher) if one.method in ("soft", "hard") else None,
        corpus=lab.config.corpus.path,
        perplexity=perplexity,
        own_tokenizer=one.name in lab.own,
        answers=lab.config.corpus.has_answers,
    )


def _perplexity(lab: Lab, one: FinishedModel, model: ResolvedModel) -> float:
    """Perplexity of the holdout, on distinct examples, as in an audit of the same model."""
    rows = _distinct_rows(lab)
    batches = ([lab.holdout[row] for row in rows[at : at + _ROWS]] for at in range(0, len(rows), _ROWS))
    cutting = None
    if (tokenizer := lab.own.get(one.name)) is not None:
        cutting = own = OwnWindows(tokenizer, lab.longest_of(one.name))
        batches = (own.cut(lab.readers.tokenizer.batch_decode(windows)) for windows in batches)
    dtype = _dtype(lab, one)
    with (
        MergedModels(lambda: _scratch(lab.out), lab.progress) as merged,
        FeatureWorker(
            merged.folder(one.name, model, dtype), dtype, trust_remote_code=False, retries=0
        ) as worker,
    ):
        perplexity = worker.perplexity(batches, lab.bos_of(one.name))
    if cutting is not None and (
        warning := cutting.warning(one.name, "texts of the holdout", "holdout.window")
    ):
        lab.warn(warning)
    return perplexity


def _distinct_rows(lab: Lab) -> list[int]:
    """The first window of each distinct example of the holdout."""
    ledger = Ledger(seed=0, limit=None)
    for row, window in enumerate(lab.holdout):
        own = lab.holdout.measured
        measured = window[: _example_tokens(lab) if own is None else int(own[row])]
        ledger.add(identity(measured, int(lab.holdout.prompts[row])))
    return [int(row) for row in ledger.settle().rows]


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """An empty folder beside the models, gone when the block ends, as is what a killed call left there.

    Such folders stand there one at a time.
    """
    remove_own(out, deep=False)
    folder = own_folder(out)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _example_tokens(lab: Lab) -> int:
    extraction = lab.config.extraction
    return extraction.prefix_tokens + extraction.suffix_tokens


def _dtype(lab: Lab, one: FinishedModel) -> str:
    given = lab.teacher_dtype if one.method == "teacher" else None
    return given or lab.config.extraction.dtype
