"""compare.json: what changed between two audits of one corpus.

It names leaks by number, document and keyed hash, and holds no training text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Interval, LeakClass, Result, Role

Change = Literal["new", "gone", "remaining"]


class ComparedRun(Result):
    """One of both runs."""

    name: str
    created: str
    kdaudit_version: str
    corpus: str
    """Fingerprint."""
    examples: int
    sampled: bool


class Shared(Result):
    """Examples that the runs have in common: those of equal prefix and suffix, token by token."""

    both: int
    old_only: int
    new_only: int


class PairedRates(Result):
    """What one model, or two of one name, memorizes of the examples that both runs have."""

    examples: int
    old: int
    """Exposed in the old run; rates are over `examples`."""
    new: int
    both: int
    old_only: int
    new_only: int
    old_rate: float
    new_rate: float
    difference: float
    """The new rate minus the old one."""
    difference_ci95: Interval
    """Newcombe's paired interval."""
    difference_ci95_by_document: Interval
    """The same where documents are the unit."""
    appeared_ci95: Interval
    """Of the share that is newly exposed (`new_only` over `examples`): Clopper-Pearson."""
    appeared_ci95_by_document: Interval
    mcnemar_p: float
    """Exact McNemar, two-sided."""
    holm_p: float
    """The same, adjusted by Holm for all pairs of models whose weights differ."""
    detectable: float | None
    """The smallest difference that the test could show here at 0.05, if all changes go one way; None if no
    difference could be shown with so few examples."""


class ComparedModel(Result):
    """A model of the new run against the old run's."""

    role: Role
    old_name: str
    """Its name in the old run: the same but for the only student of each."""
    same_weights: bool | None
    """None for models behind endpoints, whose weights are not known."""
    attacks: dict[str, PairedRates]
    """By attack; without those that one of the runs lacks, or ran with other settings."""


class ChangeCounts(Result):
    """How one student's leaks changed."""

    new: int
    """Leaks of examples that both runs audited and that did not leak before."""
    gone: int
    remaining: int
    added: int | None
    """Leaks of examples that only the new run audited; None if that is not known."""
    dropped: int | None
    """Leaks of examples that only the old run audited."""
    not_accepted: int
    """Of `new` and `added`: not accepted."""


class LeakChange(Result):
    """A leak of one of the runs, or of both."""

    change: Change
    added: bool | None
    """Whether only one run audited the example; None if that is not known."""
    students: list[str]
    """For which students it is so: names of the new run."""
    example_id: int | None
    """In the new run; None if that lacks it, as the next in the old one."""
    old_example_id: int | None
    document_id: str
    kind: LeakClass
    """Its class in the run that has the leak, the new one of both."""
    copies: int
    risk: float | None
    tags: list[str]
    suffix_hmac: str
    """Of the same run: its key is that run's."""
    accepted: bool


class Difference(Result):
    """A setting, version or model that differs."""

    key: str
    old: str
    new: str


class CompareResults(Result):
    """compare.json."""

    schema_version: Literal["1"] = "1"
    kdaudit_version: str
    old: ComparedRun
    new: ComparedRun
    shared: Shared | None
    """None where a run holds its leaks alone."""
    models: dict[str, ComparedModel]
    """By name in the new run; a student without a counterpart is in a note."""
    counts: dict[str, ChangeCounts]
    """By student."""
    new_leaks: int
    """Leaks that are new for some student, those of added text among them."""
    not_accepted: int
    """Of these: neither accepted by the new run's file nor by what it said when it ran. Any sets exit code
    1."""
    leaks: Sequence[LeakChange]
    """The first 1,000 that are new, then of those that are gone, then of those that remain: of each those to
    look at first, by the id in their run. The runs' leaks.parquet hold all."""
    leak_totals: dict[Change, int] | None = None
    """How many there are of each kind; None in comparisons of versions that list all."""
    differences: Sequence[Difference]
    notes: list[Note]


class PublicLeakChange(LeakChange):
    """A leak as pages for everyone know it: neither its document nor what kind of data it seems to hold."""

    document_id: Literal[""] = ""
    tags: Annotated[list[str], Field(max_length=0)] = Field(default=[])


class PublicDifference(Difference):
    """A difference as pages for everyone know it: values that cannot name a place or a column."""

    old: Annotated[str, Field(pattern=r"^[^/\\]*$")]
    new: Annotated[str, Field(pattern=r"^[^/\\]*$")]


class PublicCompareResults(CompareResults):
    """What the public page is made from."""

    leaks: Sequence[PublicLeakChange]
    differences: Sequence[PublicDifference]
