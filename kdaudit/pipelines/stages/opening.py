"""How an audit and a screening begin: mistakes are refused, models and texts found, and the run is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kdaudit.attacks import ATTACKS, attacks_of
from kdaudit.config.audit import AuditConfig
from kdaudit.config.screen import ScreenConfig
from kdaudit.config.yaml.loading import dump_yaml
from kdaudit.corpus import ChatFormat, PinnedSource, first_texts, pin_source, refuse_equal_sources
from kdaudit.exporting.trackers import refuse_missing
from kdaudit.inference import Sampling, prepare
from kdaudit.inference.executors import executor_for
from kdaudit.inference.merged import MergedModels
from kdaudit.models.audited import AuditedModels, find_models, with_tokenizer_notes
from kdaudit.pipelines.stages.answers import template_notes
from kdaudit.pipelines.stages.endpoints import ask_endpoints
from kdaudit.pipelines.stages.fit import split_of, tokenizer_notes
from kdaudit.pipelines.stages.inputs import chat_inputs, pinned, run_inputs
from kdaudit.pipelines.stages.machine import check_machine, check_quantized, quantization_notes
from kdaudit.pipelines.stages.preflight import chats_of, corpora_of, preflight, read_whole
from kdaudit.pipelines.stages.work import Scoring, Work
from kdaudit.runs import Progress, layout
from kdaudit.runs.opening import check_folder
from kdaudit.runs.store import RunStore


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

    runs, asked = fresh or not (folder / outcome).exists(), set[str]()

    def make_ready() -> None:
        if runs:
            if isinstance(config, AuditConfig):
                refuse_missing(config.report.trackers)
            check_machine(config)
            prepare((config.compute.ray is None and config.extraction.engine) or "transformers")

    def ask(models: AuditedModels, chats: Mapping[str, ChatFormat]) -> None:
        left = [member for member in models.members if runs and member.name not in asked]
        asked.update(ask_endpoints(config.extraction, left, chats, progress))

    preflight(config, hub=True, progress=progress, meanwhile=make_ready, ask=ask)
    one_tokenizer = isinstance(config, ScreenConfig)
    models = find_models(config.models, one_tokenizer=one_tokenizer, progress=progress)
    chats = chats_of(config, models)
    ask(models, chats)
    whole, answers = read_whole(config), config.corpus.has_answers
    check_quantized(config.extraction, models, scored=bool(whole))
    split = split_of(config.extraction, models, whole, answers=answers)
    sources = {}
    for key, section in corpora_of(config).items():
        progress(f"{key}: hashing", 0, 0)
        sources[key] = pin_source(section, key)
    refuse_equal_sources(sources)
    models = with_tokenizer_notes(models, first_texts(sources["corpus"].config))
    of_texts = [source.note for source in sources.values() if source.note is not None]
    chosen = [key for key, section in corpora_of(config).items() if section.template != "auto"]
    of_texts += template_notes(models, chats, chosen)
    for warning in (*(note.text for note in of_texts), *models.warnings):
        warn(warning)
    inputs = run_inputs(config.seed, sources, config.extraction, models) | chat_inputs(chats)
    progress(f"{folder}: checking what an earlier call wrote", 0, 0)
    with (
        RunStore(folder, config.name, inputs, fresh=fresh) as run,
        MergedModels(run.scratch, progress) as merged,
        executor_for(config.compute, warn) as executor,
    ):
        values = pinned(config, sources, models)
        if not run.done("config", values):
            with run.stage("config", values):
                run.write_text(layout.CONFIG, dump_yaml(values))
        notes = [
            *of_texts,
            *tokenizer_notes(config.extraction, models, answers=answers),
            *quantization_notes(models),
        ]
        work = Work(
            run,
            models,
            split,
            config.extraction,
            config.predictor,
            attacks_of(config.attacks) if isinstance(config, AuditConfig) else ATTACKS,
            config.seed,
            notes,
            progress,
            warn,
            merged,
            chats,
            executor,
            scoring_of(config) if isinstance(config, AuditConfig) else None,
            config.attacks.sample if isinstance(config, AuditConfig) else None,
        )
        yield Opened(work, sources)


def scoring_of(config: AuditConfig) -> Scoring | None:
    """The scoring pass that an audit's attacks ask for; None if none does."""
    attacks = config.attacks
    membership = attacks.membership is not None and config.holdout is not None
    if attacks.sampled is None and not membership:
        return None
    sampled = attacks.sampled
    sampling = None if sampled is None else Sampling(sampled.temperature, sampled.top_k)
    return Scoring(sampling, holdout=membership)
