"""What all trainings of a family share, loaded and checked before the first one begins.

The first process resolves the models, cuts the text and writes both to `windows/`, where the others read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.config.distill import DistillConfig
from kdaudit.config.models import ModelConfig
from kdaudit.config.students import HardStudent, LabStudent, SoftStudent
from kdaudit.corpus import ChatFormat, ExampleTokens, first_texts, template_of
from kdaudit.distillation.bases import (
    GIVEN,
    Base,
    check_bases,
    check_logits,
    context_of,
    resolve_base,
    resolve_teacher,
    shortest_context,
)
from kdaudit.distillation.lora import check_lora
from kdaudit.distillation.planting import planted_in
from kdaudit.distillation.processes import Processes
from kdaudit.distillation.readers import Readers, bos_of, family_readers, own_readers, readers_of
from kdaudit.distillation.training import Progress
from kdaudit.distillation.windows import WindowFile, cut_windows, open_windows
from kdaudit.inference.merging import MergeFiles, merge
from kdaudit.models.resolving import ResolvedModel
from kdaudit.models.tokenizer import ModelTokenizer, load_tokenizer, rewriting_warning
from kdaudit.runs import layout

_PROMPT = 2
"""Tokens that are left at least of a prompt that is cut to what models can read, as an audit wants them."""


class Lab(NamedTuple):
    """What every training needs."""

    config: DistillConfig
    out: Path
    processes: Processes
    bases: dict[str, Base]
    """What teacher and students start from, by dotted key, in this order."""
    teacher: Path
    """The teacher's folder: given, or where it will be trained."""
    teacher_weights: Path
    """Where its weights are loaded from: that folder, or what an adapter was merged into."""
    readers: Readers
    own: Mapping[str, ModelTokenizer]
    """Tokenizers of students that have one of their own, by the student's name."""
    windows: WindowFile
    holdout: WindowFile
    progress: Progress
    warn: Callable[[str], None]

    @property
    def bos(self) -> int | None:
        """BOS token before each window, if the tokenizers add one; a conversation holds its own."""
        return None if self.config.corpus.has_answers else self.readers.bos

    def bos_of(self, student: str) -> int | None:
        """BOS token before each of a model's windows: by a tokenizer of its own, or as `bos`."""
        own = self.own.get(student)
        return self.bos if own is None else bos_of(own)

    def longest_of(self, student: str) -> int | None:
        """Tokens of a window that a model can read behind its BOS token; None where nothing bounds them."""
        most = context_of(self.bases["student.base"])
        return None if most is None else most - (self.bos_of(student) is not None)

    @property
    def given(self) -> ResolvedModel | None:
        """The teacher that is taken as it is; None for one that is trained."""
        base = self.bases.get(GIVEN)
        return None if base is None else base.model

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that a model reads of the corpus."""
        if self.config.corpus.has_answers:
            return self.windows.longest
        return self.config.corpus.window + (self.bos is not None)

    @property
    def teacher_dtype(self) -> str | None:
        """The dtype that distill.yaml sets for a teacher that is not trained."""
        return _dtype_of(self.config)


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
    """Find what training starts from, cut the text, and refuse what cannot be trained.

    Args:
        config: what to train.
        out: the output folder.
        processes: the processes that train.
        progress: called with the rows read.
        warn: receives what the user should know.

    Raises:
        UsageError: corpus or models are wrong.
        StorageError: a file could not be written.

    """
    opening = _Opening(config, out, processes, progress, warn)
    return processes.first_then_all(lambda: _make(opening), lambda: _read(opening))


def _make(opening: _Opening) -> Lab:
    config, work, progress = opening.config, _work(opening), opening.progress
    progress(f"{' and '.join(config.starts())}: hashing", 0, 0)
    bases = _bases(config)
    progress("tokenizer: loading, or training on the corpus", 0, 0)
    readers = family_readers(config, bases)
    answers = config.corpus.has_answers
    if answers:
        longest = _PROMPT + config.extraction.prefix_tokens + config.extraction.suffix_tokens
    else:
        longest = max(config.corpus.window, config.holdout.window) + (readers.bos is not None)
    progress("checking that teacher and students can be trained", 0, 0)
    check_bases(bases, readers.tokenizer, readers.vocabulary, longest, opening.warn, answers=answers)
    check_lora(config.student.lora, bases["student.base"])
    own = own_readers(config, bases["student.base"])
    _warn_of_rewriting(opening, bases, readers)
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    _merge_teacher(opening, bases)
    if any(_learns_logits(student) for student in config.students):
        first, dtype = next(iter(bases.values())), _dtype_of(config)
        folder = None if first.model is None else _weights_of(opening, first.model)
        check_logits(first, folder, readers.tokenizer, readers.vocabulary, dtype or "auto")
    if opening.processes.count > 1:
        for name, tokenizer in {"": readers.tokenizer, **own}.items():
            tokenizer.save_pretrained(_saved(opening, name))
        readers, own = _read_again(opening, bases), _own_again(opening)
    context = shortest_context(bases) if answers else None
    texts = [_cut(opening, key, readers, context) for key in ("corpus", "holdout")]
    return _lab(opening, bases, readers, own, *texts)


def _merge_teacher(opening: _Opening, bases: dict[str, Base]) -> None:
    """Merge a teacher that is an adapter into its base model; `merged_teacher` is removed with the call."""
    given = None if GIVEN not in bases else bases[GIVEN].model
    if given is None or given.adapted is None:
        return
    opening.progress("teacher: merging the adapter into its base model", 0, 0)
    folder = merged_teacher(opening.out)
    shutil.rmtree(folder, ignore_errors=True)  # of a killed call
    folder.mkdir()
    adapter, dtype = given.adapted, _dtype_of(opening.config) or "auto"
    merge(MergeFiles(given.folder, adapter.adapter.folder, adapter.rows, dtype), folder)


def merged_teacher(out: Path) -> Path:
    """Where a teacher that is an adapter lies as a whole model while its students are trained."""
    return out / layout.WINDOWS / layout.TEACHER


def _weights_of(opening: _Opening, model: ResolvedModel) -> Path:
    return model.folder if model.adapted is None else merged_teacher(opening.out)


def _dtype_of(config: DistillConfig) -> str | None:
    """The dtype that distill.yaml sets for a teacher that is not trained."""
    return config.teacher.dtype if isinstance(config.teacher, ModelConfig) else None


def _read(opening: _Opening) -> Lab:
    work, bases = _work(opening), _bases(opening.config)
    windows, holdout = (open_windows(work / f"{key}.bin") for key in ("corpus", "holdout"))
    return _lab(opening, bases, _read_again(opening, bases), _own_again(opening), windows, holdout)


def _read_again(opening: _Opening, bases: dict[str, Base]) -> Readers:
    """The tokenizers as every process reads them, once the first has written the family's."""
    tokenizer = load_tokenizer(_saved(opening))
    return readers_of(tokenizer, bases, named=opening.config.tokenizer is not None)


def _own_again(opening: _Opening) -> dict[str, ModelTokenizer]:
    """Students' own tokenizers, as every process reads them."""
    rows = [int(key.split(".")[1]) for key in opening.config.own_tokenizers()]
    names = [opening.config.students[row].name for row in rows]
    return {name: load_tokenizer(_saved(opening, name)) for name in names}


def _saved(opening: _Opening, student: str = "") -> Path:
    """Where the first process writes a tokenizer for the others: the family's, or a student's own."""
    return _work(opening) / (f"tokenizer-{student}" if student else "tokenizer")


def _warn_of_rewriting(opening: _Opening, bases: dict[str, Base], readers: Readers) -> None:
    """Warn if a tokenizer that models are saved with is rewritten."""
    texts = first_texts(opening.config.corpus)
    for key, base in bases.items():
        there = base.model
        said = None if there is None else rewriting_warning(there.tokenizer_folder, readers.own[key], texts)
        if said is not None:
            opening.warn(f"{key}: {said}; what is trained is saved so that AutoTokenizer reads the same")
        for token in readers.own[key].left_out:
            opening.warn(
                f"{key}: its tokenizer_config.json names {token}, which is not an added token of its "
                "tokenizer.json; what is trained is saved without it, so that AutoTokenizer reads the same"
            )


def _lab(
    opening: _Opening,
    bases: dict[str, Base],
    readers: Readers,
    own: Mapping[str, ModelTokenizer],
    windows: WindowFile,
    holdout: WindowFile,
) -> Lab:
    given = None if GIVEN not in bases else bases[GIVEN].model
    teacher = weights = opening.out / layout.TEACHER
    if given is not None:  # whole, or merged meanwhile
        teacher = given.folder if given.adapted is None else given.adapted.adapter.folder
        weights = _weights_of(opening, given)
    return Lab(
        config=opening.config,
        out=opening.out,
        processes=opening.processes,
        bases=bases,
        teacher=teacher,
        teacher_weights=weights,
        readers=readers,
        own=own,
        windows=windows,
        holdout=holdout,
        progress=opening.progress,
        warn=opening.warn,
    )


def _work(opening: _Opening) -> Path:
    return opening.out / layout.WINDOWS


def _bases(config: DistillConfig) -> dict[str, Base]:
    return {
        key: resolve_teacher(config.teacher)
        if isinstance(config.teacher, ModelConfig) and key == GIVEN
        else resolve_base(_plain(base), key)
        for key, base in config.starts().items()
    }


def _plain(base: Any) -> Any:  # noqa: ANN401 - a path, or a configuration section
    return base if isinstance(base, str) else base.model_dump(mode="json")


def _learns_logits(student: LabStudent) -> bool:
    return isinstance(student, SoftStudent) or (isinstance(student, HardStudent) and student.level == "token")


def _cut(opening: _Opening, key: str, readers: Readers, context: int | None) -> WindowFile:
    """Windows of the corpus or the holdout: those that an audit would find."""
    config = opening.config
    corpus = config.corpus if key == "corpus" else config.holdout
    opening.progress(f"{key}: reading documents", 0, 0)
    return cut_windows(
        corpus,
        readers.tokenizer,
        _work(opening) / f"{key}.bin",
        tokens=ExampleTokens.of(config.extraction),
        key=key,
        chat=ChatFormat(template_of(corpus, readers.tokenizer, key), config.extraction.bos, context)
        if corpus.has_answers
        else None,
        progress=lambda rows: opening.progress(f"{key}: reading documents", rows, 0),
        reading_check=readers.reading_check(key),
        canaries=planted_in(config) if key == "corpus" else (),
    )
