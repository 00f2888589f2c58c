"""Extraction of every model, one model loaded at a time, and what models say after leaked prefixes.

Students come first: once all of them are done it is known what leaked, and the models that follow
continue the leaks' prefixes while they are loaded anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks.greedy import continuations_file, continue_leaks, extract, leaked, read_extraction
from kdaudit.config.audit import EngineName
from kdaudit.errors import RunError
from kdaudit.inference import RemoteEngine, start
from kdaudit.inference.retry import retreating
from kdaudit.models.audited import Member
from kdaudit.pipelines.stages.engine_check import check_files, check_remote, write_reference
from kdaudit.pipelines.stages.estimate import estimating
from kdaudit.pipelines.stages.fit import engine_options
from kdaudit.pipelines.stages.work import EXAMPLES, HOLDOUT, Work
from kdaudit.runs import Progress


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
        self._to_come: list[Member] = []
        """Models that are not extracted yet, in their order."""

    def extract(self, members: Sequence[Member], *, leaks: bool) -> None:
        """Extract corpus, and holdout where there is one, from these models.

        Args:
            members: the models.
            leaks: whether to continue the leaks' prefixes too, with every model of the roster.

        """
        run = self._work.run
        in_order = sorted(members, key=lambda member: member.role != "student")
        self._to_come = [member for member in in_order if not run.done(extraction_of(member))]
        for member in in_order:
            stage = extraction_of(member)
            if not run.done(stage):
                write_reference(self._work, member)
                with run.stage(stage):
                    self._with_model(member, lambda one, engine: self._extract(one, engine, leaks))
                    self._work.check_unchanged(member, partial(self._written, member))
        for member in members if leaks else ():
            if not run.has(continuations_file(member.name)):
                self._with_model(member, self._continue)  # extracted before all leaks were known

    def _written(self, member: Member) -> list[str]:
        run, stage = self._work.run, extraction_of(member)
        shards = [*run.shards(stage), *run.shards(f"holdout/{stage}")]
        return [*shards, continuations_file(member.name), *check_files(member)]

    def _extract(self, member: Member, engine: RemoteEngine, leaks: bool) -> None:
        work, run, stage = self._work, self._work.run, extraction_of(member)
        check_remote(work, member, engine)
        split = work.split_of(member)
        extract(run, engine, split, EXAMPLES, stage, self._estimating(member))
        if run.shards(HOLDOUT):
            extract(run, engine, split, HOLDOUT, f"holdout/{stage}", work.progress)
        students = work.roster.students
        if leaks and all(run.done(extraction_of(one)) or one is member for one in students):
            self._continue(member, engine)

    def _estimating(self, member: Member) -> Progress:
        """Progress that says how long this model and those to come will take; the first model's alone."""
        first, costs = self._to_come[0], [one.model.parameters for one in self._to_come]
        what = f"extraction of {self._examples:,} examples"
        return estimating(self._work.progress, what, costs) if member is first else self._work.progress

    def _with_model(self, member: Member, do: Callable[[Member, RemoteEngine], None]) -> None:
        """Do something with a model loaded; where memory runs out, with smaller batches, then give up.

        The batch is recorded: in low precision a near tie between two tokens may fall otherwise in another.
        """
        work, run, key = self._work, self._work.run, f"{member.name}.sequences"
        before = run.planned(key)
        options = engine_options(
            work.extraction, self._engine, member, work.split_of(member), self._examples, sequences=before
        )

        def attempt(retreat: int) -> None:
            work.progress(f"{member.name}: loading", 0, 0)
            with start(options._replace(retreat=retreat)) as engine:
                run.plan(key, engine.sequences)
                do(member, engine)

        try:
            retreating(member.name, attempt, work.warn)
        except RunError:
            if not run.shards(extraction_of(member)):
                run.plan(key, before)  # a crowded hour must not slow the whole run
            raise

    def _continue(self, member: Member, engine: RemoteEngine) -> None:
        """Write what a model says after the leaked prefixes whose suffix it does not reproduce."""
        work, missed = self._work, self._missed_leaks(member)
        if len(missed):
            work.progress(f"{member.name}: continuing {len(missed):,} leaks that it does not reproduce", 0, 0)
        split, out = work.split_of(member), continuations_file(member.name)
        continue_leaks(work.run, engine, split, EXAMPLES, missed, out)

    def _missed_leaks(self, member: Member) -> NDArray[np.int64]:
        """Leaks whose suffix this model does not reproduce."""
        run, split = self._work.run, self._work.split
        students = self._work.roster.students
        leaks = leaked([read_extraction(run, extraction_of(student)) for student in students], split)
        own = read_extraction(run, extraction_of(member)).matched
        return leaks[own[leaks] < split.suffix_tokens]


def extraction_of(member: Member) -> str:
    """A model's extraction: its stage, and its folder in the run."""
    return f"extraction/{member.name}"


def memorized_by(work: Work, members: Sequence[Member]) -> dict[str, Flags]:
    """Which examples each model memorizes, by its name: bool (examples,)."""
    return {
        member.name: read_extraction(work.run, extraction_of(member)).matched == work.split.suffix_tokens
        for member in members
    }
