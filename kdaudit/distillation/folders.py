"""Folders of trained models: written under another name, then renamed, so that each is whole or absent.

A finished folder holds `training.json`, whose fingerprint says what the model was trained from; a model
with the wanted fingerprint need not be trained again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from torch import Tensor

from kdaudit.distillation.bases import Base
from kdaudit.distillation.lora import is_adapted, save_adapter
from kdaudit.errors import RunStateError, StorageError, reason
from kdaudit.inference.base import Tokens
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs import layout
from kdaudit.runs.files import check_folders, kind_of, own_folder, read_bounded, remove_own

_MOST_BYTES = 64 << 20
"""Bytes of a record at most: it has a number for each epoch."""
_MOST_SHOWN = 60
"""Characters of two values that a message can hold."""


class TrainingRecord(NamedTuple):
    """The contents of training.json, beside a trained model."""

    fingerprint: str
    """SHA-256 of everything that the weights depend on."""
    settings: dict[str, Any]
    rows: int
    steps: int
    losses: list[float]
    """Mean of each epoch, in nats."""
    seconds: float
    tokens: int | None = None
    """Of all rows; None in records of earlier versions."""


def fingerprint(settings: dict[str, Any], windows: Sequence[Tokens]) -> str:
    """SHA-256 of settings, which must be JSON values, and of the windows' tokens in their order."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for window in windows:
        digest.update(len(window).to_bytes(8, "little"))
        digest.update(window.astype("<i4").tobytes())
    return digest.hexdigest()


def what_changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, in words; hashes and other long values are named without their value."""
    before, after = _flat(then), _flat(now)
    changes = []
    for key in {**before, **after}:
        old, new = before.get(key), after.get(key)
        if old != new:
            short = len(f"{old}{new}") < _MOST_SHOWN
            changes.append(f"{key} was {old} and is {new}" if short else f"{key} differs")
    return ", ".join(changes) or "another version of kdaudit trained it"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def read_training_record(folder: Path) -> TrainingRecord | None:
    """The record of the finished model in `folder`; None if there is none that can be read."""
    try:
        found = TrainingRecord(**json.loads(read_bounded(folder / layout.TRAINING_RECORD, _MOST_BYTES)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    return found if isinstance(found.fingerprint, str) else None


@contextmanager
def storing(what: str, *also: type[Exception]) -> Iterator[None]:
    """Turn errors of libraries that cannot write weights into a StorageError; `what` begins its message.

    Args:
        what: what is written, and where.
        also: errors that mean the same, but only inside this block.

    Raises:
        StorageError: an OSError, one of safetensors, or one of `also` was raised.

    """
    failures: tuple[type[Exception], ...] = (OSError, SafetensorError, *also)
    try:
        yield
    except failures as error:
        why = (error.strerror if isinstance(error, OSError) else None) or reason(error)
        raise StorageError(
            f"{what} could not be written ({why}); free space or fix the folder's permissions, then run "
            "again: training resumes from the last whole checkpoint"
        ) from error


@contextmanager
def new_folder(folder: Path, root: Path | None = None) -> Iterator[Path]:
    """An empty folder to write a model to; it becomes `folder` if the block ends without an error.

    The caller makes sure that no other process writes beside `folder`: leftovers of killed ones are removed.

    Args:
        folder: the model's folder. Nothing is replaced, and nothing is written through a link.
        root: a folder that contains it, at any depth; None for its parent.

    Raises:
        RunStateError: the folder exists already.
        StorageError: the folder could not be written.
    """
    _refuse_others(folder)
    with storing(f"{folder}: the model"):
        check_folders(folder.parent, root or folder.parent)
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_own(folder.parent, deep=False)
        partial = own_folder(folder.parent)
        try:
            yield partial
            _refuse_others(folder)
            partial.chmod(0o755)
            partial.rename(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _refuse_others(folder: Path) -> None:
    if kind_of(folder) is not None:
        raise RunStateError(
            f"{folder}: exists and was not trained here",
            fix="choose another --out, or move it away",
        )


def save_model(
    model: Any,  # noqa: ANN401 - transformers is untyped
    tokenizer: ModelTokenizer,
    record: TrainingRecord,
    folder: Path,
    base: Base,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write model, generation settings, tokenizer and record in Hugging Face format, the record last.

    Args:
        model: a causal language model of transformers.
        tokenizer: the one that it was trained with.
        record: how the model was trained.
        folder: where to write.
        base: what it was trained from, which an adapter names.
        weights: the model's, if the model itself does not hold all of them.

    """
    model.config.use_cache = True  # the Trainer turns it off
    if is_adapted(model):
        save_adapter(model, base, folder, weights)
    else:
        model.save_pretrained(folder, state_dict=weights)
    tokenizer.save_pretrained(folder)
    (folder / layout.MODEL_CARD).write_text(first_card(record), encoding="utf-8")
    text = json.dumps(record._asdict(), indent=2) + "\n"
    (folder / layout.TRAINING_RECORD).write_text(text, encoding="utf-8")


def first_card(record: TrainingRecord) -> str:
    """A model card with how the model was trained, before it is measured."""
    settings = json.dumps(record.settings, indent=2)
    return (
        "---\nlibrary_name: transformers\ntags: [knowledge-distillation, kdaudit]\n---\n\n"
        f"Trained by kdaudit on {record.rows:,} windows in {record.steps:,} steps; mean loss of the last "
        f"epoch {record.losses[-1]:.4f} nats.\n\nWhat its weights depend on:\n\n```json\n{settings}\n```\n"
    )
