"""What every training of a family shares, found and checked before the first of them begins.

The first process resolves the models, cuts the text and writes both down in `windows/`; others read it there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.config.audit import ModelConfig
from kdaudit.config.distill import DistillConfig, HardStudent, LabStudent, SoftStudent
from kdaudit.distill.bases import Base, check_bases, check_logits, family_tokenizer, resolve_base
from kdaudit.distill.processes import Processes
from kdaudit.distill.training import Progress
from kdaudit.distill.windows import WindowFile, cut_windows, open_windows
from kdaudit.tokenizer import bos_token_id, load_tokenizer, uses_bos


class Lab(NamedTuple):
    """What every training needs."""

    config: DistillConfig
    out: Path
    processes: Processes
    bases: dict[str, Base]
    """What teacher and students start from, by dotted key, in this order."""
    teacher: Path
    """The teacher's folder: given, or where it will be trained."""
    tokenizer: Any
    bos: int | None
    """Begin token before each window, where the tokenizer itself puts one."""
    windows: WindowFile
    holdout: WindowFile
    progress: Progress
    warn: Callable[[str], None]

    @property
    def teacher_dtype(self) -> str | None:
        """Number format that distill.yaml asks of a given teacher."""
        teacher = self.config.teacher
        return teacher.dtype if isinstance(teacher, ModelConfig) else None


class _Opening(NamedTuple):
    config: DistillConfig
    out: Path
    processes: Processes
    progress: Progress
    warn: Callable[[str], None]


def open_lab(
    config: DistillConfig,
    out: Path,
    processes: Processes,
    progress: Progress,
    warn: Callable[[str], None],
) -> Lab:
    """Find what training starts from, cut the text, and refuse what could not be trained.

    Args:
        config: what to train.
        out: the output folder.
        processes: those that train.
        progress: told of rows read.
        warn: told what the user should know.

    Raises:
        UsageError: corpus or models are wrong.
        StorageError: a file could not be written.

    """
    opening = _Opening(config, out, processes, progress, warn)
    return processes.first_then_all(lambda: _make(opening), lambda: _read(opening))


def _make(opening: _Opening) -> Lab:
    config, work = opening.config, _work(opening)
    bases = _bases(config)
    tokenizer = family_tokenizer(config, bases)
    bos = bos_token_id(tokenizer) if uses_bos(tokenizer) else None
    longest = max(config.corpus.window, config.holdout.window) + (bos is not None)
    check_bases(bases, tokenizer, longest, opening.warn)
    if any(_learns_logits(student) for student in config.students):
        dtype = config.teacher.dtype if isinstance(config.teacher, ModelConfig) else None
        check_logits(next(iter(bases.values())), tokenizer, dtype or "auto")
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    if opening.processes.count > 1:
        tokenizer.save_pretrained(work / "tokenizer")
        tokenizer = load_tokenizer(work / "tokenizer")
    return _lab(
        opening, bases, tokenizer, _cut(opening, "corpus", tokenizer), _cut(opening, "holdout", tokenizer)
    )


def _read(opening: _Opening) -> Lab:
    work = _work(opening)
    windows, holdout = (open_windows(work / f"{key}.bin") for key in ("corpus", "holdout"))
    return _lab(opening, _bases(opening.config), load_tokenizer(work / "tokenizer"), windows, holdout)


def _lab(
    opening: _Opening,
    bases: dict[str, Base],
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    windows: WindowFile,
    holdout: WindowFile,
) -> Lab:
    given = bases.get("teacher.path")
    return Lab(
        config=opening.config,
        out=opening.out,
        processes=opening.processes,
        bases=bases,
        teacher=opening.out / "teacher" if given is None or given.model is None else given.model.folder,
        tokenizer=tokenizer,
        bos=bos_token_id(tokenizer) if uses_bos(tokenizer) else None,
        windows=windows,
        holdout=holdout,
        progress=opening.progress,
        warn=opening.warn,
    )


def _work(opening: _Opening) -> Path:
    return opening.out / "windows"


def _bases(config: DistillConfig) -> dict[str, Base]:
    return {key: resolve_base(_plain(base), key) for key, base in config.starts().items()}


def _plain(base: Any) -> Any:  # noqa: ANN401 - a path, or a configuration section
    return base if isinstance(base, str) else base.model_dump(mode="json")


def _learns_logits(student: LabStudent) -> bool:
    return isinstance(student, SoftStudent) or (isinstance(student, HardStudent) and student.level == "token")


def _cut(opening: _Opening, key: str, tokenizer: Any) -> WindowFile:  # noqa: ANN401
    """Windows of the corpus or the holdout: those that an audit would find."""
    config = opening.config
    return cut_windows(
        config.corpus if key == "corpus" else config.holdout,
        tokenizer,
        _work(opening) / f"{key}.bin",
        minimum=config.extraction.prefix_tokens + config.extraction.suffix_tokens,
        key=key,
        progress=lambda rows: opening.progress(f"{key}: reading documents", rows, 0),
    )
