"""The corpus in results.json: what was read, and what was left out."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from kdaudit.schemas.result import Result


class Skipped(Result):
    """Text that was left out, by reason."""

    too_short: int
    """Documents, and tails of documents, with fewer than prefix + suffix tokens."""
    empty: int
    """Rows whose text is null, empty or only white space."""
    undecodable: int
    """Rows whose text is not valid Unicode."""
    no_boundary: int = 0
    """Windows in which models with different tokenizers have no boundary in common near the end of prefix or
    suffix; 0 where all share one."""


LeftOutWhy = Literal["no_answer", "unknown_role", "not_text", "template"]


class AnswersResult(Result):
    """What more there is to say of a corpus of prompts and answers."""

    template: Literal["chat", "file", "none"]
    """What made one text of them: the teacher's chat template, that of a file, or none."""
    bos: bool
    """Whether every example begins with the BOS token."""
    left_out: dict[LeftOutWhy, int]
    """Rows that give no example: no answer with text, a role that is not known, content that is not text, or
    what the chat template does not take."""
    min_suffix_tokens: int
    """Tokens that an answer has at least; one with fewer than `suffix_tokens` must be reproduced whole."""
    without_prompt: int
    """Answers left out because nothing stands before them."""
    prompts_cut: int
    """Occurrences whose prompt was cut from the left, to what all models can read."""
    answers_cut: int
    """Occurrences whose answer has more tokens than `corpus.window`, or than models can read."""
    suffixes: int
    """Distinct suffixes of the examples: answers recur behind other prompts."""
    recurring: int
    """Examples whose suffix is that of another example, too."""


class CorpusResult(Result):
    """What was audited."""

    path: str
    documents: int
    """Rows read, skipped ones included."""
    windows: int
    """All windows of the corpus: occurrences of examples."""
    examples: PositiveInt
    """Distinct examples audited: windows that differ in prefix + suffix."""
    skipped: Skipped
    sampled: bool
    """True when `corpus.limit` took a sample; False for a census."""
    fingerprint: str
    answers: AnswersResult | None = None
    """Of a corpus of prompts and answers; None for plain text."""

    @property
    def left_out(self) -> int:
        """Rows, answers, windows and ends of documents that give no example."""
        skipped = self.skipped
        return skipped.too_short + skipped.empty + skipped.undecodable + self.for_other_reasons

    @property
    def for_other_reasons(self) -> int:
        """How many of them are neither too short nor empty nor invalid Unicode; notes say why."""
        more = (
            0 if self.answers is None else sum(self.answers.left_out.values()) + self.answers.without_prompt
        )
        return self.skipped.no_boundary + more
