"""How an audit and a screening begin: mistakes are refused, models and texts found, and the run is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.attacks import ATTACKS, attacks_of
from kdaudit.config.audit import AuditConfig
from kdaudit.config.screen import ScreenConfig
from kdaudit.config.yaml.loading import dump_yaml
from kdaudit.corpus import ChatFormat, PinnedSource, first_texts, pin_source, refuse_equal_sources
from kdaudit.errors import ModelError, RunStateError
from kdaudit.exporting.trackers import refuse_missing
from kdaudit.inference import Sampling, Split, prepare
from kdaudit.inference.executors import executor_for
from kdaudit.inference.merged import MergedModels
from kdaudit.models.audited import AuditedModels
from kdaudit.models.audited_notes import with_tokenizer_notes
from kdaudit.models.checkpoint.copies import equal_models
from kdaudit.models.finding import find_models
from kdaudit.pipelines.stages.answers import template_notes
from kdaudit.pipelines.stages.endpoints import ask_endpoints
from kdaudit.pipelines.stages.fit import split_of
from kdaudit.pipelines.stages.inputs import chat_inputs, pinned, run_inputs
from kdaudit.pipelines.stages.machine import check_machine, check_quantized, quantization_notes
from kdaudit.pipelines.stages.preflight import chats_of, corpora_of, preflight, read_whole
from kdaudit.pipelines.stages.tokenizer_notes import tokenizer_notes
from kdaudit.pipelines.stages.work import Scoring, Work
from kdaudit.runs import Progress, layout
from kdaudit.runs.opening import check_folder
from kdaudit.runs.store import RunStore
from kdaudit.schemas.notes import Note


class Opened(NamedTuple):
    """A run that its stages can work on."""

    work: Work
    sources: dict[str, PinnedSource]
    """The texts, by configuration key."""


@contextmanager
def opened(
    config: AuditConfig | ScreenConfig,
    folder: Path,
    outcome: str,
    *,
    fresh: bool,
    progress: Progress,
    warn: Callable[[str], None],
) -> Iterator[Opened]:
    """Open a run, or resume one; its config.yaml is written.

    Args:
        config: what is to be done.
        folder: the run directory.
        outcome: the file that a finished run holds: such a run is shown on any machine.
        fresh: forget an earlier run there.
        progress: told of every step.
        warn: told what the user should know and need not act on.

    Raises:
        UsageError: configuration, corpus, models or run directory are wrong.

    """
    check_folder(folder)
    _refuse_other_kind(folder, outcome)
    found = _find(config, progress, runs=fresh or not (folder / outcome).exists())
    for warning in (*(note.text for note in found.text_notes), *found.models.warnings):
        warn(warning)
    inputs = run_inputs(config.seed, found.sources, config.extraction, found.models)
    progress(f"{folder}: checking what an earlier call wrote", 0, 0)
    with (
        RunStore(folder, config.name, inputs | chat_inputs(found.chats), fresh=fresh) as run,
        MergedModels(run.scratch, progress) as merged,
        executor_for(config.compute, warn) as executor,
    ):
        _write_config(run, pinned(config, found.sources, found.models))
        work = Work(
            run=run,
            models=found.models,
            split=found.split,
            extraction=config.extraction,
            predictor=config.predictor,
            seed=config.seed,
            notes=_notes(config, found),
            progress=progress,
            warn=warn,
            merged=merged,
            chats=found.chats,
            executor=executor,
            **_of_attacks(config),
        )
        yield Opened(work, found.sources)


class _Found(NamedTuple):
    """What a configuration names, looked up and checked."""

    models: AuditedModels
    chats: dict[str, ChatFormat]
    """How prompts and answers become token ids, by the texts' keys."""
    split: Split
    sources: dict[str, PinnedSource]
    """The texts, by configuration key."""
    text_notes: list[Note]


def _refuse_other_kind(folder: Path, outcome: str) -> None:
    """Refuse a folder that a finished screening holds, for an audit, and the other way round.

    Also with `fresh`: that forgets an earlier run, not other work.
    """
    kinds = {layout.RESULTS: "an audit", layout.SCREEN: "a screening"}
    for other, kind in kinds.items():
        if other != outcome and (folder / other).exists():
            raise RunStateError(f"{folder}: holds {kind}, not {kinds[outcome]}", fix="choose another --out")


def _find(config: AuditConfig | ScreenConfig, progress: Progress, *, runs: bool) -> _Found:
    """Refuse mistakes, the cheapest to find first; find models and texts.

    Args:
        config: what is to be done.
        progress: told of every step.
        runs: whether models will be run, so that machine and endpoints have to be ready for them.

    """
    asked = set[str]()

    def ask(models: AuditedModels, chats: Mapping[str, ChatFormat]) -> None:
        left = [audited for audited in models.all if runs and audited.name not in asked]
        asked.update(ask_endpoints(config.extraction, left, chats, progress))

    meanwhile = partial(_make_ready, config) if runs else lambda: None
    preflight(config, hub=True, progress=progress, meanwhile=meanwhile, ask=ask)
    one_tokenizer = isinstance(config, ScreenConfig)
    models = find_models(config.models, one_tokenizer=one_tokenizer, progress=progress)
    _refuse_equal_baselines(models)
    chats = chats_of(config, models)
    ask(models, chats)
    whole = read_whole(config)
    check_quantized(config.extraction, models, scored=bool(whole))
    split = split_of(config.extraction, models, whole, answers=config.corpus.has_answers)
    sources = _pin_texts(config, progress)
    models = with_tokenizer_notes(models, first_texts(sources["corpus"].config))
    notes = [source.note for source in sources.values() if source.note is not None]
    chosen = [key for key, section in corpora_of(config).items() if section.template != "auto"]
    return _Found(models, chats, split, sources, [*notes, *template_notes(models, chats, chosen)])


def _make_ready(config: AuditConfig | ScreenConfig) -> None:
    """Refuse what this machine cannot do, and begin to import what takes long."""
    if isinstance(config, AuditConfig):
        refuse_missing(config.report.trackers)
    check_machine(config)
    prepare((config.compute.ray is None and config.extraction.engine) or "transformers")


def _pin_texts(config: AuditConfig | ScreenConfig, progress: Progress) -> dict[str, PinnedSource]:
    sources = {}
    for key, section in corpora_of(config).items():
        progress(f"{key}: hashing", 0, 0)
        sources[key] = pin_source(section, key)
    refuse_equal_sources(sources)
    return sources


def _write_config(run: RunStore, values: dict[str, Any]) -> None:
    if not run.done("config", values):
        with run.stage("config", values):
            run.write_text(layout.CONFIG, dump_yaml(values))


def _notes(config: AuditConfig | ScreenConfig, found: _Found) -> list[Note]:
    """What readers of the results should know of texts and models."""
    answers = config.corpus.has_answers
    return [
        *found.text_notes,
        *tokenizer_notes(config.extraction, found.models, answers=answers),
        *quantization_notes(found.models),
    ]


def _of_attacks(config: AuditConfig | ScreenConfig) -> dict[str, Any]:
    """The fields of `Work` that an audit's attacks decide."""
    if isinstance(config, ScreenConfig):
        return {"attacks": ATTACKS}
    attacks = config.attacks
    return {"attacks": attacks_of(attacks), "scoring": _scoring_of(config), "sample": attacks.sample}


def _refuse_equal_baselines(models: AuditedModels) -> None:
    """Refuse a baseline that is given twice: each misses what the other does, as if chance gave nothing.

    Raises:
        ModelError: two baselines have the same weights.

    """
    baselines = {one.name: one for one in models.baselines}
    for one, two in equal_models({name: baseline.model.weights for name, baseline in baselines.items()}):
        raise ModelError(
            f"{two} has the same weights as {one}, tensor for tensor: it is not another training, and "
            "chance is measured by other trainings",
            fix="name each training once (models.baseline, one per seed)",
            key=f"{baselines[two].key}.path",
        )


def _scoring_of(config: AuditConfig) -> Scoring | None:
    """The scoring pass that an audit's attacks ask for; None if none does."""
    attacks = config.attacks
    membership = attacks.membership is not None and config.holdout is not None
    if attacks.sampled is None and not membership:
        return None
    sampled = attacks.sampled
    sampling = None if sampled is None else Sampling(sampled.temperature, sampled.top_k)
    return Scoring(sampling, holdout=membership)
