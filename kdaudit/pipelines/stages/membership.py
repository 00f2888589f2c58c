"""Membership inference from what the scoring pass kept of corpus and holdout, for every model with weights.

Nothing here runs a model. The same examples are compared under every model, so that models can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.blind import LEAST_DOCUMENTS, blind_scores
from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.intervals import Flags, Floats
from kdaudit.analysis.membership import (
    Judged,
    PlainSamples,
    membership_notes,
    membership_result,
    plain_samples,
)
from kdaudit.analysis.roc import Scored
from kdaudit.attacks.membership import (
    SuffixTokens,
    TextSizes,
    compressed_bytes,
    ez_score,
    own_scores,
    reference_score,
)
from kdaudit.corpus import ExampleTokens, read_rows
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.readings import is_by_text
from kdaudit.pipelines.stages.scores import CORPUS, OF_HOLDOUT, ScoredText, read_scores
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs.examples import read_examples
from kdaudit.schemas.attacks import MembershipResult
from kdaudit.schemas.notes import Note

_LEAST = 10
"""Examples of either kind that figures take at least."""


class Membership(NamedTuple):
    """What was found."""

    results: Mapping[str, MembershipResult]
    """By model."""
    notes: list[Note]
    """What is not available, and why."""


class _Kind(NamedTuple):
    """Members, or non-members."""

    text: ScoredText
    places: NDArray[np.int64]
    """In the text's sample, ascending."""
    texts: list[str]
    """Of prefix and suffix."""
    sizes: TextSizes
    documents: list[str]
    """Id of the document that each stands in."""


def find_membership(work: Work, overlap: Flags | None) -> Membership:
    """Compare members with the holdout under every model; without a holdout a note says why not.

    Args:
        work: the run.
        overlap: examples of the holdout that are members, see `find_overlap`: they are compared with nothing.

    """
    if overlap is None:
        return _nothing("It takes a holdout: text of the same kind that no model was trained on.")
    drawn = _samples(work, overlap)
    fewest = min(map(len, drawn))
    if fewest < _LEAST:
        return _nothing(f"It takes {_LEAST} examples of corpus and holdout; of one there are {fewest}.")
    work.progress("membership: comparing corpus and holdout", 0, 0)
    kinds = [_kind(work, text, places) for text, places in zip((CORPUS, OF_HOLDOUT), drawn, strict=True)]
    results = _results(work, _Comparison(work, *kinds))
    return Membership(results, [*_without_weights(work), *membership_notes(results)])


def _nothing(why: str) -> Membership:
    text = f"Membership inference was not measured. {why}"
    return Membership({}, [Note(code="membership_not_measured", subject="attacks", text=text)])


def _without_weights(work: Work) -> list[Note]:
    left = [one.name for one in work.models.all if one not in work.models.with_weights]
    text = (
        f"Membership inference was not measured of {', '.join(left)}: it takes the probability of every "
        "token, which an endpoint does not give."
    )
    return [Note(code="membership_not_measured", subject="attacks", text=text)] if left else []


def _samples(work: Work, overlap: Flags) -> PlainSamples:
    (_, corpus), (ids, holdout) = (
        [column.to_numpy() for column in work.run.read_table(text.sample, ["example_id", "weight"]).columns]
        for text in (CORPUS, OF_HOLDOUT)
    )
    return plain_samples(corpus, np.where(overlap[ids], 0.0, holdout), work.seed)


def _kind(work: Work, text: ScoredText, places: NDArray[np.int64]) -> _Kind:
    """Read the texts of a draw."""
    ids = work.run.read_table(text.sample, ["example_id"])["example_id"].to_numpy()[places]
    usual = ExampleTokens(work.split.prefix_tokens, work.split.suffix_tokens)
    texts, tokens, compressed, documents = [], [], [], []
    for table in read_examples(work.run, text.examples, ids):
        for row in read_rows(table, usual):
            counted = row.target if work.chats else np.concatenate([row.prompt, row.target])
            texts.append(work.models.decode([*row.prompt, *row.target]))
            compressed.append(compressed_bytes(work.models.decode(counted)))
            tokens.append(len(counted) - _unscored(work))
            documents.append(row.document)
    return _Kind(text, places, texts, TextSizes(np.array(tokens), np.array(compressed)), documents)


def _unscored(work: Work) -> int:
    """Tokens of an example that no score counts: the first, where no BOS token stands before it."""
    return 0 if work.chats or work.split.bos is not None else 1


class _Comparison:
    """The examples compared, and a model's scores of them.

    Args:
        work: the run.
        members: of the corpus.
        nonmembers: of the holdout.

    """

    def __init__(self, work: Work, members: _Kind, nonmembers: _Kind) -> None:
        self._work = work
        self._kinds = (members, nonmembers)
        names = [*members.documents, *nonmembers.documents]
        self._numbers = np.unique(names, return_inverse=True)[1].astype(np.int64)
        """Of members' and non-members' documents. Those of one id may be one, a part of it set aside."""
        parts = np.split(self._numbers, [len(members.documents)])
        self._documents = [Documents(part) for part in parts]
        self._sizes = TextSizes(
            *(np.concatenate(arrays) for arrays in zip(members.sizes, nonmembers.sizes, strict=True))
        )

    def judge(self, scores: Floats) -> Judged:
        """What a score of members and then non-members tells: (examples,)."""
        split = len(self._kinds[0].texts)
        return Judged.of(Scored(scores[:split], scores[split:], *self._documents))

    def blind(self) -> Judged | None:
        """The blind baseline; None with too few documents."""
        if min(one.count for one in self._documents) < LEAST_DOCUMENTS:
            return None
        members, nonmembers = self._kinds
        member = np.repeat([True, False], [len(members.texts), len(nonmembers.texts)])
        return self.judge(
            blind_scores([*members.texts, *nonmembers.texts], member, self._numbers, self._work.seed)
        )

    def reading(self, audited: AuditedModel) -> SuffixTokens:
        """What a model makes of the examples."""
        tables = [read_scores(self._work, audited, kind.text).take(kind.places) for kind in self._kinds]
        return _reading(pa.concat_tables(tables), with_prefix=not self._work.chats)

    def scores(
        self, audited: AuditedModel, references: Mapping[str, tuple[AuditedModel, SuffixTokens]]
    ) -> Iterator[tuple[str, Floats]]:
        """A model's scores, by name.

        Args:
            audited: the model.
            references: models that it is set against, and what they make of the examples, by what scores are
                called after them.

        """
        reading = self.reading(audited)
        yield from own_scores(reading, self._sizes).items()
        others = {name: pair for name, pair in references.items() if pair[0] is not audited}
        for name, (_, other) in others.items():
            yield f"reference_{name}", reference_score(reading, other, self._sizes)
        for name in [name for name in ("base", "baseline") if name in others][:1]:
            one, other = others[name]
            if not any(is_by_text(self._work, each) for each in (audited, one)):
                yield f"ez_{name}", ez_score(reading, other)


def _results(work: Work, compared: _Comparison) -> dict[str, MembershipResult]:
    models = work.models
    named = {"base": models.base, "baseline": next(iter(models.baselines), None), "teacher": models.teacher}
    references = {
        name: (one, compared.reading(one))
        for name, one in named.items()
        if one is not None and one in models.with_weights
    }
    judged = {
        audited.name: {name: compared.judge(values) for name, values in compared.scores(audited, references)}
        for audited in models.with_weights
    }
    blind = compared.blind()
    teacher = judged.get("teacher")
    students = {student.name for student in models.students}
    return {
        name: membership_result(scores, blind, teacher if name in students else None)
        for name, scores in judged.items()
    }


def _reading(table: pa.Table, *, with_prefix: bool) -> SuffixTokens:
    """Rows of `SCORES_SCHEMA` as arrays."""
    prefix: Floats = table["prefix_log_probability"].to_numpy()
    return SuffixTokens(
        log_probability=_padded(table["log_probabilities"]),
        mean=_padded(table["means"]),
        variance=_padded(table["variances"]),
        hit=_padded(table["hits"]) == 1,
        prefix=prefix if with_prefix else np.zeros(len(prefix)),
    )


def _padded(column: pa.ChunkedArray) -> Floats:
    """Lists as rows, with NaN behind the end of shorter ones: (rows, longest)."""
    lists = column.combine_chunks()
    lengths = lists.value_lengths().to_numpy()
    rows = np.full((len(lengths), int(lengths.max())), np.nan)
    rows[np.arange(rows.shape[1]) < lengths[:, None]] = lists.flatten().to_numpy(zero_copy_only=False)
    return rows
