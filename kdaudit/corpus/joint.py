"""Where an example is cut that models with different tokenizers read.

An example is its text. Prompt and target end at joint boundaries: places where the tokenizers of all models
may cut the window's text (`kdaudit.models.tokenizer.texts`). The prompt ends at the last joint boundary at or
before `prefix_tokens` of the tokenizer that cuts the corpus, else at the first one behind; the target at the
first one at which it has `suffix_tokens` or more. Both lie at most `REACH` tokens from where they would
otherwise be cut: a window without such boundaries, as within one very long word, is left out and counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kdaudit.models.tokenizer import Spans, TextReader
from kdaudit.models.tokenizer.texts import Places

REACH = 16
"""Tokens that prompt and target may be shorter or longer."""


class JointCut(NamedTuple):
    """Where a window is cut into prompt, target, and what follows them."""

    prefix_tokens: int
    """Tokens of the prompt, by the tokenizer that cuts the corpus."""
    suffix_tokens: int
    """Tokens of the target."""
    prompt_end: int
    """Characters of the prompt."""
    target_end: int
    """Characters of prompt and target."""


class Longest(NamedTuple):
    """The most that a model with its own tokenizer is given, over all windows."""

    prompt: int = 0
    """Tokens of a prompt, without a BOS token."""
    example: int = 0
    """Tokens of prompt and target."""
    window: int = 0
    """Tokens of a window."""
    text: int = 0
    """Bytes of a target."""

    def and_(self, other: Longest) -> Longest:
        """The most of both."""
        return Longest(*map(max, self, other))


class JointCutter:
    """Finds joint boundaries.

    Args:
        readers: models with tokenizers of their own, by name.
        prefix: tokens of a prompt.
        suffix: tokens of a target.

    """

    def __init__(self, readers: Mapping[str, TextReader], prefix: int, suffix: int) -> None:
        self._readers = readers
        self._prefix, self._suffix = prefix, suffix
        self.longest = dict.fromkeys(readers, Longest())

    def cut(self, texts: Sequence[str], boundaries: Sequence[Places]) -> list[JointCut | None]:
        """Cut windows; None where there are no joint boundaries near.

        Args:
            texts: of the windows.
            boundaries: for each, behind which characters its tokens end, -1 where the text may not be cut
                there: int64 (tokens,).

        """
        read = {id(reader): list(reader.read(texts)) for reader in self._readers.values()}
        cuts = []
        for row, (text, places) in enumerate(zip(texts, boundaries, strict=True)):
            own = {name: read[id(reader)][row] for name, reader in self._readers.items()}
            cut = joint_cut(places, [*own.values()], self._prefix, self._suffix)
            cuts.append(None if cut is None else self._noted(text, own, cut))
        return cuts

    def _noted(self, text: str, own: Mapping[str, Spans], cut: JointCut) -> JointCut | None:
        """A cut, noted for `longest`; None where a tokenizer leaves nothing of the target."""
        examples = {
            name: self._readers[name].example(text, spans, cut.prompt_end, cut.target_end)
            for name, spans in own.items()
        }
        if not all(example.text for example in examples.values()):
            return None
        for name, (prompt, target, expected) in examples.items():
            mine = Longest(len(prompt), len(prompt) + len(target), len(own[name].ids), len(expected))
            self.longest[name] = self.longest[name].and_(mine)
        return cut


def joint_cut(places: Places, others: Sequence[Spans], prefix: int, suffix: int) -> JointCut | None:
    """The cut of one window; None where there are no joint boundaries near.

    Args:
        places: as in `JointCutter.cut`.
        others: how the other tokenizers read the same text.
        prefix: tokens of a prompt.
        suffix: tokens of a target.

    """
    back = range(prefix, max(prefix - REACH, 1) - 1, -1)
    prompt = _first_joint(places, others, [*back, *range(prefix + 1, prefix + REACH + 1)])
    if prompt is None:
        return None
    least = prompt + suffix
    whole = _first_joint(places, others, range(least, least + REACH + 1))
    if whole is None:
        return None
    return JointCut(prompt, whole - prompt, int(places[prompt - 1]), int(places[whole - 1]))


def _first_joint(places: Places, others: Sequence[Spans], counts: Iterable[int]) -> int | None:
    """The first of these numbers of tokens behind which every tokenizer may cut."""
    for count in counts:
        place = int(places[count - 1]) if count <= len(places) else -1
        if place >= 0 and all(spans.tokens_before(place) is not None for spans in others):
            return count
    return None
