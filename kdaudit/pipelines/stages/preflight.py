"""What is checked before anything costs time: the first rows of the texts, then the headers of the models.

`kdaudit validate` does this and no more; run, screen and distill do it first of all. The texts come first,
since a wrong column is found in a second, and transformers, which reads a model's description, takes several
to be imported. No weights are read, nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdaudit.analysis.accepted import acceptance
from kdaudit.config.attacks import CanariesConfig
from kdaudit.config.audit import AuditConfig
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.learners import NewModelConfig
from kdaudit.config.models import ModelConfig
from kdaudit.config.screen import KINDS, ScreenConfig
from kdaudit.corpus import ChatFormat, ExampleTokens, Reading, nothing_left, open_documents, template_of
from kdaudit.corpus.canaries import read_canaries
from kdaudit.corpus.sources import HubDataset, find_source
from kdaudit.errors import ModelError
from kdaudit.models.audited import AuditedModels
from kdaudit.models.finding import find_models
from kdaudit.pipelines.stages.canaries import KEY, texts_of
from kdaudit.pipelines.stages.fit import chat_of, split_of
from kdaudit.pipelines.stages.machine import check_quantized
from kdaudit.runs import Progress, layout

if TYPE_CHECKING:
    from kdaudit.distillation.bases import Base  # imports transformers

_MOST_ROWS, _MOST_CHARACTERS = 1000, 500_000
"""Documents looked at, and their characters: a text of no more than that is looked at whole."""


class _Head(NamedTuple):
    """A text's first documents."""

    config: CorpusConfig
    key: str
    whole: bool
    """Whether these are all that there are."""


def preflight(
    config: AuditConfig | ScreenConfig | DistillConfig,
    *,
    hub: bool,
    progress: Progress = lambda *_: None,
    meanwhile: Callable[[], None] = lambda: None,
    ask: Callable[[AuditedModels, Mapping[str, ChatFormat]], None] = lambda *_: None,
) -> list[str]:
    """Refuse what a look at the texts' first rows and at the models' headers shows to be wrong.

    Args:
        config: what is to be done.
        hub: whether to read the first rows of a text on the hub, too. Models on the hub are never looked at:
            they are checked once they are downloaded.
        progress: told of each text and model.
        meanwhile: called once the texts are right, to begin what takes long.
        ask: given the models that are here once they are right, and the texts' chat formats by key, to ask
            models behind endpoints; not called while a chat template may come with a model that is not here.

    Returns:
        What was not looked at, each with the reason.

    Raises:
        CorpusError: a text cannot be read, lacks a column, or holds nothing to examine.
        ModelError: a model is missing, incomplete, of no kind to use, or does not fit the others or the text.
        UsageError: another file that is named cannot be used.

    """
    if isinstance(config, AuditConfig) and config.gate.accept is not None:
        acceptance(Path(config.gate.accept))
    skipped: list[str] = []
    heads: dict[str, _Head] = {}
    if (canaries := _canaries(config)) is not None:
        read_canaries(Path(canaries.config.path), canaries.key)
    tokens = ExampleTokens.of(config.extraction)
    for key, corpus in corpora_of(config).items():
        progress(f"{key}: reading the first rows", 0, 0)
        if not hub and isinstance(find_source(corpus, key), HubDataset):
            skipped.append(f"{key}.path: {corpus.path} is on the hub and was not read")
        else:
            heads[key] = _head(corpus, key, tokens.least)
    if isinstance(config, ScreenConfig):
        _check_screening(config, heads)
    meanwhile()
    if isinstance(config, DistillConfig):
        return [*skipped, *_check_starts(config, progress)]
    missing, models = _check_models(config, progress)
    if models is not None and not (config.corpus.has_answers and missing):  # one may bring the template
        chats = chats_of(config, models)
        for key, head in heads.items():
            _check_lengths(head, models.tokenizer, tokens, chats.get(key))
        ask(models, chats)
    return [*skipped, *missing]


def corpora_of(config: AuditConfig | ScreenConfig | DistillConfig) -> dict[str, CorpusConfig]:
    """The texts by configuration key."""
    named = {key: getattr(config, key, None) for key in (layout.HOLDOUT, layout.GENERATED)}
    if (canaries := _canaries(config)) is not None:
        named[canaries.key] = texts_of(canaries.config)
    return {"corpus": config.corpus} | {key: text for key, text in named.items() if text is not None}


class _Canaries(NamedTuple):
    key: str
    config: CanariesConfig


def _canaries(config: AuditConfig | ScreenConfig | DistillConfig) -> _Canaries | None:
    """The canaries that a configuration names, and under which key."""
    if isinstance(config, ScreenConfig):
        return None
    key, found = (
        (KEY, config.attacks.canaries)
        if isinstance(config, AuditConfig)
        else (layout.CANARIES, config.canaries)
    )
    return None if found is None else _Canaries(key, found)


def chats_of(config: AuditConfig | ScreenConfig, models: AuditedModels) -> dict[str, ChatFormat]:
    """How the texts' prompts and answers become token ids, by configuration key; none of plain text.

    Raises:
        UsageError: see `chat_of`.

    """
    return {
        key: chat_of(corpus, config.extraction, models, key)
        for key, corpus in corpora_of(config).items()
        if corpus.has_answers
    }


def read_whole(config: AuditConfig | ScreenConfig) -> dict[str, CorpusConfig]:
    """Texts whose whole windows models read, beyond prefix and suffix."""
    texts, scored = corpora_of(config), isinstance(config, ScreenConfig) or config.predictor.enabled
    return {key: corpus for key, corpus in texts.items() if key == "holdout" or (key == "corpus" and scored)}


def _head(config: CorpusConfig, key: str, least: int) -> _Head:
    """Read a text's first documents; refuse a text that has none."""
    rows = open_documents(config, key)
    documents, characters = 0, 0
    for document in rows:
        documents += 1
        characters += len(document.text)
        if documents == _MOST_ROWS or characters > _MOST_CHARACTERS:
            return _Head(config, key, False)
    if not documents:
        raise nothing_left(config, key, rows, 0, least)
    return _Head(config, key, True)


def _check_lengths(
    head: _Head,
    tokenizer: Any,  # noqa: ANN401 - untyped
    tokens: ExampleTokens,
    chat: ChatFormat | None,
) -> None:
    """Refuse a text that was seen whole and has no document as long as prefix and suffix."""
    if not head.whole:
        return
    reading = Reading(head.config, tokenizer, chat, head.key)  # as it is small, and its counts start at 0
    cutter = reading.cutter(tokens)
    if not any(True for batch in reading.batches() for _ in cutter.cut(batch)):
        raise nothing_left(head.config, head.key, reading.documents, cutter.too_short, tokens.least)


def _check_screening(config: ScreenConfig, heads: Mapping[str, _Head]) -> None:
    """What a screening needs besides: a predictor that is named, and rows that can be written again."""
    from kdaudit.risk import load_predictor
    from kdaudit.screening.kept import check_first_rows

    if config.predictor.labels not in KINDS:
        load_predictor(Path(config.predictor.labels))
    if "corpus" in heads:
        check_first_rows(config.corpus, config.format)


def _check_models(
    config: AuditConfig | ScreenConfig, progress: Progress
) -> tuple[list[str], AuditedModels | None]:
    """Check the local models' headers, and whether they fit one another and the windows."""
    found = {key: _elsewhere(key, one) for key, one in config.models.by_key().items()}
    skipped = [why for why, _ in found.values() if why is not None]
    if not any(here for _, here in found.values()):
        return skipped, None
    one_tokenizer = isinstance(config, ScreenConfig)
    models = find_models(config.models, one_tokenizer=one_tokenizer, headers_only=True, progress=progress)
    whole = read_whole(config)
    check_quantized(config.extraction, models, scored=bool(whole))
    split_of(config.extraction, models, whole, answers=config.corpus.has_answers)
    return skipped, models


def _elsewhere(key: str, config: ModelConfig) -> tuple[str | None, bool]:
    """Why a model was not looked at, if it was not, and whether its tokenizer is here."""
    from kdaudit.models.adapters import remote_part

    if config.endpoint is not None:
        why = f"{key}.path: {config.path} was not asked; an audit asks it before the corpus is read"
        return why, config.tokenizer is not None and Path(config.tokenizer).is_absolute()
    name = remote_part(config, key)
    return (None, True) if name is None else (_not_checked(key, name), False)


def _check_starts(config: DistillConfig, progress: Progress) -> list[str]:
    """Check what teacher and student are trained from."""
    from kdaudit.distillation.lora import check_lora

    skipped, bases = [], {}
    for key, start in config.starts().items():
        progress(f"{key}: reading headers", 0, 0)
        found = _start(config, key, start)
        if isinstance(found, str):
            skipped.append(_not_checked(key, found))
            continue
        bases[key] = found
        if key == "student.base":
            check_lora(config.student.lora, found)
    _check_template(config, bases)
    return [*skipped, *_check_own_tokenizers(config)]


def _start(config: DistillConfig, key: str, start: str | NewModelConfig) -> Base | str:
    """What a model is trained from or taken as; the id of what of it is on the hub."""
    from kdaudit.distillation.bases import GIVEN, check_architecture, resolve_base, resolve_teacher
    from kdaudit.models.adapters import remote_part

    if isinstance(config.teacher, ModelConfig) and key == GIVEN:
        return remote_part(config.teacher, "teacher") or resolve_teacher(config.teacher, hashed=False)
    if isinstance(start, str):
        return resolve_base(start, key, hashed=False) if Path(start).is_absolute() else start
    made = resolve_base(start.model_dump(mode="json"), key)
    check_architecture(made)
    return made


def _check_own_tokenizers(config: DistillConfig) -> list[str]:
    """Check the tokenizers of students that have one of their own; gives what was not looked at."""
    from kdaudit.distillation.readers import check_own
    from kdaudit.models.tokenizer import load_tokenizer

    skipped = []
    for key, wanted in config.own_tokenizers().items():
        if not isinstance(wanted, str):
            continue
        if not Path(wanted).is_absolute():
            skipped.append(f"{key}: {wanted} is on the hub and was not downloaded")
            continue
        try:
            check_own(load_tokenizer(Path(wanted)), key)
        except ModelError as error:
            error.key = key
            raise
    return skipped


def _check_template(config: DistillConfig, bases: Mapping[str, Base]) -> None:
    """Refuse prompts and answers that the family's chat template cannot render, if its tokenizer is here."""
    from kdaudit.models.resolving import read_tokenizer
    from kdaudit.models.tokenizer import load_tokenizer

    if not config.corpus.has_answers:
        return
    if isinstance(config.tokenizer, str):
        if Path(config.tokenizer).is_absolute():
            template_of(config.corpus, load_tokenizer(Path(config.tokenizer)))
    elif config.tokenizer is None:
        first = next(key for key, start in config.starts().items() if isinstance(start, str))
        if first in bases and (model := bases[first].model) is not None:
            template_of(config.corpus, read_tokenizer(model))


def _not_checked(key: str, name: str) -> str:
    place = key if key.endswith((".path", ".base")) else f"{key}.path"
    return f"{place}: {name} is on the hub and was not downloaded; its files are checked when it is"
