"""The audit.yaml of a trained family, ready for `kdaudit run`."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.models import ModelConfig
from kdaudit.config.students import BaselineStudent
from kdaudit.config.yaml.document import MAX_BYTES
from kdaudit.config.yaml.loading import dump_yaml
from kdaudit.distillation.members import baselines_of
from kdaudit.distillation.windows import SAMPLE_SEED
from kdaudit.runs import layout
from kdaudit.runs.files import read_bounded, write_file

_SEAL = "# sha256 of what follows: "


def write_audit_file(config: DistillConfig, out: Path, seed: int, teacher: Path) -> None:
    """Write the audit.yaml of a seed's models into their folder; its paths are relative to that folder.

    Its own baseline comes first and gives the predictor's features; the others are a floor beside it. What
    baselines and students started from is named too, where it is a model: an audit tells what it completes
    untouched. A file that its user changed since an earlier call, to set a gate or a title, is kept as it is.

    Args:
        config: the family.
        out: its output folder.
        seed: whose models are audited.
        teacher: its folder.

    Raises:
        StorageError: the file could not be written.

    """
    path = out / layout.seed_folder(seed) / layout.AUDIT_FILE
    adapted = _adapter_base(config, path)
    baselines = [
        {"path": place, **adapted} if adapted else place
        for place in (_from(path, str(out / member.folder)) for member in baselines_of(config, seed))
    ]
    students = [
        {"name": student.name, "path": f"./{student.name}", "kd": student.method, **adapted}
        for student in config.students
        if not isinstance(student, BaselineStudent)
    ]
    models: dict[str, Any] = {"teacher": _teacher(config, path, teacher)}
    if baselines:
        models["baseline"] = baselines if len(baselines) > 1 else baselines[0]
    audit = {
        "name": f"{config.name}-{path.parent.name}",
        "corpus": _corpus(path, config.corpus),
        "holdout": _corpus(path, config.holdout),
        "models": {**models, **_base(config, path), "students": students},
        **_attacks(config, path),
        "extraction": config.extraction.model_dump(mode="json"),
        "seed": SAMPLE_SEED,
    }
    if _is_ours(path):
        write_file(path.parent, path.name, _sealed(dump_yaml(audit)).encode())


def _sealed(body: str) -> str:
    """The file's text: a hash in its first lines shows whether the rest was changed."""
    return (
        "# Written by kdaudit distill, which keeps this file if you change it. Paths are relative to its "
        f"folder.\n{_SEAL}{sha256(body.encode()).hexdigest()}\n{body}"
    )


def _is_ours(path: Path) -> bool:
    """Whether the file is absent, or as an earlier call wrote it."""
    if not path.exists():
        return True
    try:
        text = read_bounded(path, MAX_BYTES).decode()
    except (OSError, UnicodeDecodeError):
        return False
    return text == _sealed("".join(text.splitlines(keepends=True)[2:]))


def _teacher(config: DistillConfig, path: Path, teacher: Path) -> str | dict[str, Any]:
    """The teacher's path, with the settings that distill.yaml has for a teacher that is not trained."""
    place = _from(path, str(teacher))
    if not isinstance(config.teacher, ModelConfig):
        return place
    said = config.teacher.model_dump(mode="json", exclude_defaults=True, exclude={"path"})
    if (base := config.teacher.base) is not None:
        said["base"]["path"] = _from(path, base.path)
    return {"path": place, **said} if said else place


def _base(config: DistillConfig, path: Path) -> dict[str, str]:
    """The model that the students start from; none where it is random weights, or a student has its key."""
    taken = any(student.name.lower() == "base" for student in config.students)
    start = config.student.base
    return {"base": _from(path, start)} if isinstance(start, str) and not taken else {}


def _adapter_base(config: DistillConfig, path: Path) -> dict[str, str]:
    """Where the base of students that are adapters lies; they name one on the hub themselves."""
    start = config.student.base
    local = isinstance(start, str) and Path(start).is_absolute()
    return {"base": _from(path, str(start))} if config.student.lora is not None and local else {}


def _attacks(config: DistillConfig, path: Path) -> dict[str, Any]:
    """The canaries that were mixed into the corpus."""
    return {} if config.canaries is None else {"attacks": {"canaries": _from(path, config.canaries.path)}}


def _corpus(path: Path, config: CorpusConfig) -> dict[str, Any]:
    written = config.model_dump(mode="json", exclude_defaults=True)
    if config.has_answers and Path(config.template).is_absolute():
        written["template"] = _from(path, config.template)
    return {**written, "path": _from(path, config.path), "window": config.window}


def _from(path: Path, named: str) -> str:
    """A local path as seen from the audit's folder; a hub id so that no student's folder is taken for it."""
    if not Path(named).is_absolute():
        return f"hf://{named}"
    return f"./{os.path.relpath(os.path.realpath(named), os.path.realpath(path.parent))}"
