"""Extraction of every model, one model loaded at a time, and what models say after leaked prefixes.

Students come first: once all of them are done it is known what leaked, and the models that follow
continue the leaks' prefixes while they are loaded anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks import GREEDY, GREEDY_TEXT, Attack, decodings
from kdaudit.config.section import EngineName
from kdaudit.errors import RunError, UsageError
from kdaudit.inference import ABILITIES, EngineOptions, Ragged
from kdaudit.inference.executors import ModelJob, Replicas
from kdaudit.inference.retry import retry_on_oom
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.attacked import (
    attack_folder,
    exposed_by,
    has_other_settings,
    is_done,
    leaked,
    settings_of,
    write_attacks,
)
from kdaudit.pipelines.stages.engine_check import check_remote, engine_check_files, write_reference
from kdaudit.pipelines.stages.engine_options import engine_options
from kdaudit.pipelines.stages.estimate import estimating
from kdaudit.pipelines.stages.examples import longest_sequence
from kdaudit.pipelines.stages.fit import most_tokens
from kdaudit.pipelines.stages.readings import examples_for, is_by_text, longest_of
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import Progress, layout
from kdaudit.runs.arrow_schemas import CONTINUATIONS_SCHEMA
from kdaudit.runs.examples import read_examples


class Extracting:
    """The engine's part of a run.

    Args:
        work: the run.
        engine: what runs the models.
        examples: how many there are.

    """

    def __init__(self, work: Work, engine: EngineName, examples: int) -> None:
        self._work = work
        self._engine = engine
        self._examples = examples
        self._to_come: list[AuditedModel] = []
        """Models that are not extracted yet, in their order."""

    def extract(self, audited_models: Sequence[AuditedModel], *, leaks: bool) -> None:
        """Run every attack of these models on the corpus, and on the texts beside it where there are any.

        Args:
            audited_models: the models.
            leaks: whether to continue the leaks' prefixes too, with every model.

        """
        run = self._work.run
        in_order = sorted(audited_models, key=lambda audited: audited.role != "student")
        self._to_come = [audited for audited in in_order if self._pending(audited)]
        for audited in in_order:
            if pending := self._pending(audited):
                stamps = self._work.stamps(audited)
                self._discard_others(audited, pending, stamps)
                write_reference(self._work, audited)
                with ExitStack() as stages:
                    for attack in pending:
                        stage, with_ = attack_folder(attack, audited), _with(attack, stamps)
                        stages.enter_context(run.stage(stage, settings_of(attack), with_))
                    self._with_model(audited, partial(self._attack, pending, leaks))
                    self._work.check_unchanged(audited, partial(self._written, audited, pending))
        if leaks:
            self._continue_rest(audited_models)

    def _discard_others(
        self, audited: AuditedModel, attacks: Sequence[Attack], stamps: dict[str, Any]
    ) -> None:
        """Discard shards of other settings, or that may be of weights which were here meanwhile.

        A stage that another text makes unfinished does not tell what it was finished with: its shards do.
        """
        run = self._work.run
        for attack in attacks:
            stage = attack_folder(attack, audited)
            if run.begun_otherwise(stage, _with(attack, stamps)):
                run.discard(*self._written(audited, [attack]))
            elif any(has_other_settings(run, attack, folder) for folder in (stage, *_beside(stage))):
                run.discard(*self._shards([attack], audited))

    def _continue_rest(self, audited_models: Sequence[AuditedModel]) -> None:
        """Continue leaks with models that were extracted before all leaks were known."""
        run = self._work.run
        depends = {one.name: one.model.fingerprint for one in self._work.models.all}
        if not run.done("continuations", depends):
            with run.stage("continuations", depends):
                for audited in audited_models:
                    if not self._is_continued(audited):
                        self._with_model(audited, self._continue)

    def _is_continued(self, audited: AuditedModel) -> bool:
        """Whether it is written what a model says after all leaks that it does not reproduce."""
        run, name = self._work.run, layout.continuations(audited.name)
        if not run.has(name):
            return False
        continued = run.read_table(name, ["example_id"])["example_id"].to_numpy()
        return bool(np.isin(self._missed_leaks(audited), continued).all())

    def _pending(self, audited: AuditedModel) -> list[Attack]:
        """Attacks on a model that are not finished; without those that its engine has no way to do.

        Raises:
            UsageError: the engine cannot do what the first attack needs.

        """
        engine = self._engine if audited.model.behind is None else "endpoint"
        first, *others = self._work.attacks
        by_text = is_by_text(self._work, audited)
        if lacking := (first.needs | (GREEDY_TEXT.needs if by_text else frozenset())) - ABILITIES[engine]:
            what = " or ".join(sorted(lacking))
            raise UsageError(
                f"{engine} cannot {what}, which the attack {first.name} needs",
                fix="set it to transformers",
                key="extraction.engine",
            )
        able = [attack for attack in others if not by_text and attack.needs <= ABILITIES[engine]]
        return [attack for attack in (first, *able) if not is_done(self._work, attack, audited)]

    def _written(self, audited: AuditedModel, attacks: Sequence[Attack]) -> list[str]:
        shards = self._shards(attacks, audited)
        return [*shards, layout.continuations(audited.name), *engine_check_files(audited)]

    def _shards(self, attacks: Sequence[Attack], audited: AuditedModel) -> list[str]:
        """What attacks on a model wrote, of the corpus and of the texts beside it."""
        run, folders = self._work.run, [attack_folder(attack, audited) for attack in attacks]
        places = [place for one in folders for place in (one, *_beside(one))]
        return [shard for place in places for shard in run.shards(place)]

    def _attack(
        self, attacks: Sequence[Attack], leaks: bool, audited: AuditedModel, engine: Replicas
    ) -> None:
        work, run = self._work, self._work.run
        check_remote(work, audited, engine)
        for decoding in decodings(attacks):
            outs = [attack_folder(attack, audited) for attack in decoding.attacks]
            write_attacks(work, engine, decoding, audited, layout.EXAMPLES, outs, self._estimating(audited))
            for text in layout.SIDE_TEXTS:
                examples = layout.beside_corpus(text, layout.EXAMPLES)
                if run.shards(examples):
                    beside = [layout.beside_corpus(text, out) for out in outs]
                    write_attacks(work, engine, decoding, audited, examples, beside, work.progress)
        students = work.models.students
        known = all(run.done(attack_folder(GREEDY, one)) or one is audited for one in students)
        if leaks and known and not self._is_continued(audited):
            self._continue(audited, engine)

    def _estimating(self, audited: AuditedModel) -> Progress:
        """Progress that says how long this model and those to come will take; the first model's alone."""
        first, costs = self._to_come[0], [one.model.parameters for one in self._to_come]
        what = f"extraction of {self._examples:,} examples"
        known = audited is first and first.model.behind is None  # whose parameters are not known
        return estimating(self._work.progress, what, costs) if known else self._work.progress

    def _with_model(self, audited: AuditedModel, do: Callable[[AuditedModel, Replicas], None]) -> None:
        """Do something with a model loaded; where memory runs out, with smaller batches, then give up.

        The batch is recorded: in low precision a near tie between two tokens may fall otherwise in another.
        """
        work, run, key = self._work, self._work.run, f"{audited.name}.sequences"
        before = run.planned(key)
        options = self._options(audited, before)

        def attempt(retries: int) -> None:
            folder = work.merged.folder(
                audited.name, audited.model, options.dtype, packed=self._engine == "vllm"
            )
            located = options if folder == audited.model.folder else options._replace(path=str(folder))
            work.progress(f"{audited.name}: loading", 0, 0)
            job = self._job(audited, located._replace(retries=retries))
            with work.executor.load(job) as engine:
                run.plan(key, engine.max_num_seqs)
                do(audited, engine)

        try:
            retry_on_oom(audited.name, attempt, work.warn)
        except RunError:
            if not run.shards(attack_folder(GREEDY, audited)):
                run.plan(key, before)  # a crowded hour must not slow the whole run
            raise

    def _job(self, audited: AuditedModel, options: EngineOptions) -> ModelJob:
        hosted = self._work.hosted(audited, Path(options.path))
        shards = len(self._work.run.shards(layout.EXAMPLES))
        return ModelJob(options, shards, hosted.fingerprint, hosted.hub)

    def _options(self, audited: AuditedModel, max_num_seqs: int) -> EngineOptions:
        """How to load a model, for as many concurrent sequences as an earlier call planned."""
        work, by_text = self._work, is_by_text(self._work, audited)
        if by_text:
            longest = most_tokens(work.extraction, audited, longest_of(work, audited))
        else:
            longest = longest_sequence(work) + (work.split_of(audited).bos is not None)
        return engine_options(
            work.extraction, self._engine, audited, longest, self._examples, max_num_seqs, by_text=by_text
        )

    def _continue(self, audited: AuditedModel, engine: Replicas) -> None:
        """Write what a model says after the leaked prefixes whose suffix it does not reproduce."""
        work, run, missed = self._work, self._work.run, self._missed_leaks(audited)
        if len(missed):
            work.progress(
                f"{audited.name}: continuing {len(missed):,} leaks that it does not reproduce", 0, 0
            )
        parts = [examples_for(work, audited, rows) for rows in read_examples(run, layout.EXAMPLES, missed)]
        prompts = Ragged.of(prompt for part in parts for prompt in part.prompts)
        lengths = [int(length) for part in parts for length in part.targets.lengths]
        tokens = engine.generate(prompts, np.array(lengths, np.int64)) if len(missed) else prompts
        columns = {"example_id": missed, "token_ids": list(tokens)}
        table = pa.table(columns, schema=CONTINUATIONS_SCHEMA)
        run.write_table(layout.continuations(audited.name), table)

    def _missed_leaks(self, audited: AuditedModel) -> NDArray[np.int64]:
        """Leaks whose suffix this model does not reproduce."""
        leaks = leaked([*exposed_by(self._work, self._work.models.students).values()])
        own = exposed_by(self._work, [audited])[audited.name]
        return leaks[~own[leaks]]


def _with(attack: Attack, stamps: dict[str, Any]) -> dict[str, Any]:
    """An unfinished attack starts over once one of these changed."""
    settings = settings_of(attack)
    return stamps if settings is None else {**stamps, "settings": settings}


def _beside(folder: str) -> list[str]:
    """A folder of the corpus, for each of the texts beside it."""
    return [layout.beside_corpus(text, folder) for text in layout.SIDE_TEXTS]
