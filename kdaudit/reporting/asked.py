"""What a model is given and what it must generate, in words: of plain text, or of prompts and answers."""

from __future__ import annotations

from kdaudit.reporting.formatting import plural
from kdaudit.schemas.corpus import AnswersResult
from kdaudit.schemas.results import ExtractionResult


def given_words(extraction: ExtractionResult, answers: AnswersResult | None) -> str:
    """What a model is given of an example: "its first 50 tokens"."""
    tokens = plural(extraction.prefix_tokens, "token")
    if answers is None:
        return f"its first {tokens}"
    return f"its prompt and the first {tokens} of the answer" if extraction.prefix_tokens else "its prompt"


def needed_words(extraction: ExtractionResult, answers: AnswersResult | None) -> str:
    """What it must generate: "the next 50 tokens of the corpus"."""
    if answers is None:
        return f"the next {extraction.suffix_tokens} tokens of the corpus"
    where = "next" if extraction.prefix_tokens else "first"
    words = f"the {where} {plural(extraction.suffix_tokens, 'token')} of the answer"
    if answers.min_suffix_tokens == extraction.suffix_tokens:
        return words
    return f"{words} (all of an answer that has fewer, but at least {answers.min_suffix_tokens})"
