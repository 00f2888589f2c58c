"""The versioned schema of results.json, as frozen pydantic models.

A figure that is not available is None and `notes` says why; it is never 0 and never absent. Rates are
shares of distinct examples (0 to 1); an interval's open end is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from kdaudit.schemas.accepted import AcceptedResult, PublicAcceptedResult
from kdaudit.schemas.attacks import AttackResults
from kdaudit.schemas.comparison import ComparisonResult, SoftVsHard
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.leak_counts import LeakCounts, PublicLeakCounts
from kdaudit.schemas.notes import Notes, SchemaVersion
from kdaudit.schemas.predictor import PredictorResult
from kdaudit.schemas.result import Interval, LeakClass, Result, Role, Verdict


class ExtractionResult(Result):
    """How memorization was measured."""

    engine: str
    engine_version: str
    prefix_tokens: NonNegativeInt
    suffix_tokens: PositiveInt
    bos: bool
    """Whether a BOS token stood before each prefix that the teacher read, or without a teacher the first
    model; a note says if models differ."""
    dtype: str
    device: str


class Floor(Result):
    """Memorization measured on text that the model never saw: the false-positive floor.

    Examples of the holdout that stand in the corpus are left out.
    """

    examples: int
    memorized: int
    rate: float
    ci95: Interval


class HoldoutOverlap(Result):
    """How much of the holdout stands in the corpus too, and so was trained on."""

    examples: int
    """Distinct examples of the holdout."""
    in_corpus: int
    """Those whose last 50 tokens of prefix and suffix stand in a window that was audited, at any offset. The
    floor and membership leave them out."""


class Repeated(Result):
    """What a model continues word for word of the text that the teacher wrote."""

    examples: int
    memorized: int
    rate: float
    ci95: Interval


class EngineCheck(Result):
    """An engine against plain float32 passes in transformers, on continuations of the corpus's prefixes."""

    windows: int
    """Continuations compared."""
    positions: int
    """Their tokens compared; a continuation ends at its first difference."""
    disagreeing: int
    """Continuations that the engine left without a near tie; an audit continues only if there are none."""
    near_ties: int
    """Continuations that it left at a near tie between two tokens."""
    tolerance: float
    """Largest margin of a near tie: a share of the distance between the best logit and the median of all."""
    seconds: float
    reference: str
    """Library, version, attention, dtype and device."""


class BelowRounding(Result):
    """Examples for which rounding may decide: another engine, GPU or batch may find another outcome.

    Their smallest margin over the suffix lies within the engine check's tolerance. Counted, never corrected.
    """

    memorized: int
    """Memorized examples that it may not reproduce."""
    others: int
    """Other examples, of which it may memorize some; an estimate where features were taken of a sample."""
    share: float | None
    """`memorized` over all memorized examples; None without any."""


class ModelResult(Result):
    """One model's memorization."""

    role: Role
    kd: Literal["soft", "hard"] | None
    examples: int
    memorized: int
    rate: float
    ci95: Interval
    """Clopper-Pearson."""
    ci95_by_document: Interval | None = None
    """The same where documents are the unit: windows of one document are not independent."""
    windows_memorized: int
    """Occurrences of the memorized examples in the corpus."""
    survival: list[float]
    """Entry k is the share with at least k matched tokens of the examples whose suffix has k: k = 0 to
    suffix_tokens, or to the longest suffix where lengths differ."""
    holdout: Floor | None
    perplexity: float | None
    """Of the holdout text, over all tokens after the first of each window."""
    bits_per_byte: float | None = None
    """Of the same: -log2 p of these tokens over the bytes of text that they write. Comparable between models
    with different tokenizers, as perplexity is not."""
    fingerprint: str
    seconds: float
    """Extraction alone, without loading the model."""
    tokens_per_second: float | None
    """Prefix tokens read per second."""
    engine_check: EngineCheck | None = None
    """None if the check was not possible; a note says why."""
    generated: Repeated | None = None
    """Of the teacher's own text; None where the audit names none."""
    matched_by: Literal["tokens", "text"] = "tokens"
    """text: the model has a tokenizer of its own, and is compared by what it writes. Its matched tokens are
    those of the teacher's tokenizer whose text it reproduces."""
    below_rounding: BelowRounding | None = None
    """None if the model's margins or its tolerance are not known; a note says so."""
    quantization: str | None = None
    """Format of quantized weights, as in `compressed-tensors, INT8 W8A8`; None for whole weights."""

    @property
    def public_fingerprint(self) -> str:
        """The fingerprint; that of a model behind an endpoint is over its address, which could be guessed."""
        return "endpoint" if self.fingerprint.startswith("endpoint:") else self.fingerprint


class Point(Result):
    """A point of a chart."""

    x: float
    y: float


class Curves(Result):
    """The charts' data; each None if it is not available."""

    roc: list[Point] | None = None
    precision_recall: list[Point] | None = None
    calibration: list[Point] | None = None
    risk_histogram: dict[str, list[float]] | None = None
    entropy_logprob: dict[str, list[Point]] | None = None


class Check(Result):
    """One limit of the gate, judged for one student."""

    name: str
    student: str
    limit: float
    value: float | None
    at: str | None = None
    """What the value was measured at, where the limit says so, such as "1,000 samples, p 0.5"."""
    ci95: Interval | None
    ci95_by_document: Interval | None = None
    """Where documents are the unit: a sample is judged by both, so by the wider one."""
    accepted: int = 0
    """Accepted leaks of the student: value and intervals are of what it memorizes beside them."""
    verdict: Literal["pass", "fail", "inconclusive"]


class GateResult(Result):
    """The gate's verdict: the worst of its checks, `none` without any."""

    verdict: Verdict
    checks: list[Check]
    confidence: float | None = None
    """That no check of a sample passes or fails wrongly, all together: 1 - 0.025 for each (Bonferroni). None
    for a census, which has no sampling error, and without checks."""
    confidence_by: Literal["Bonferroni"] | None = None
    """The correction for several checks and students that it goes by; None where there is no confidence."""


class Leak(Result):
    """An example that at least one student memorized; its text is in leaks.parquet."""

    example_id: int
    document_id: str
    memorized_by: list[str]
    """All models that memorize it, teacher and baselines too."""
    classes: dict[str, LeakClass]
    """The class for each student that memorizes it: `unknown` where teacher or baseline was not audited, so
    that only `memorized_by` tells who else memorizes it."""
    copies: int
    risk: float | None
    tags: list[str]
    suffix_hmac: str
    """HMAC-SHA256 of the suffix's text under a key that stays in the run directory."""
    prefix_tokens: int | None = None
    """Tokens that the model is given; None where all examples have as many."""
    suffix_tokens: int | None = None
    """Tokens that it reproduces; None as above."""
    accepted: bool = False
    """Whether an entry of accepted.yaml that holds names it: then the gate disregards it."""


class LeakSuffixes(Result):
    """Distinct suffixes among the leaks: one after several prefixes (a licence, a signature) is one text."""

    leaks: int
    """Of all leaks."""
    students: dict[str, int]
    """Of the examples that each student memorizes."""


class AuditResults(Result):
    """results.json."""

    schema_version: SchemaVersion
    name: str
    created: str
    """UTC, ISO 8601."""
    kdaudit_version: str
    seed: int
    corpus: CorpusResult
    extraction: ExtractionResult
    models: dict[str, ModelResult]
    comparison: dict[str, ComparisonResult]
    soft_vs_hard: SoftVsHard | None
    predictor: PredictorResult
    curves: Curves
    gate: GateResult
    leaks: Sequence[Leak]
    """The first `report.max_examples`, worst first, by example id; leaks.parquet holds all. In results of
    versions without `leak_counts` all."""
    leak_counts: LeakCounts | None = None
    """Of all leaks; None in results of versions that list all."""
    leak_suffixes: LeakSuffixes | None = None
    """None in results of versions that did not count them."""
    generated: CorpusResult | None = None
    """The text that the teacher wrote, where the audit names it."""
    holdout_overlap: HoldoutOverlap | None = None
    """None without a holdout, and in older results."""
    attacks: dict[str, AttackResults] = Field(default={})
    """By model; empty if no attack was asked for beside exact greedy extraction, and in older results."""
    accepted: AcceptedResult | None = None
    """None where the gate names no accepted.yaml, and in older results."""
    notes: Notes

    @model_validator(mode="after")
    def _name_the_same_students(self) -> Self:
        students = {name for name, model in self.models.items() if model.role == "student"}
        if {*self.comparison} != students:
            raise ValueError("comparison and models name different students")
        if self.leak_suffixes is not None and {*self.leak_suffixes.students} != students:
            raise ValueError("leak_suffixes and models name different students")
        if self.leak_counts is not None and {*self.leak_counts.students} != students:
            raise ValueError("leak_counts and models name different students")
        if self.leak_counts is not None and self.leak_counts.leaks < len(self.leaks):
            raise ValueError("leak_counts counts fewer leaks than are listed")
        return self


class PublicLeak(Leak):
    """A leak as pages for everyone know it: neither its document nor what kind of data it seems to hold."""

    document_id: Literal[""] = ""
    tags: Annotated[list[str], Field(max_length=0)] = Field(default=[])


class PublicCorpus(CorpusResult):
    """A corpus as pages for everyone know it: a name without a folder, or a hub id."""

    path: Annotated[str, Field(pattern=r"^[^/\\]*(/[^/\\]*)?$")]


class PublicResults(AuditResults):
    """The results that public pages and model cards are made from: they cannot hold what is private."""

    corpus: PublicCorpus
    generated: PublicCorpus | None = None
    leaks: Sequence[PublicLeak]
    leak_counts: PublicLeakCounts | None = None
    accepted: PublicAcceptedResult | None = None
