"""Text of the corpus in the holdout: what is found of it, and what no longer stands for unseen text."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa

from kdaudit.analysis.intervals import clopper_pearson
from kdaudit.analysis.membership import plain_samples
from kdaudit.inference import Split
from kdaudit.pipelines.stages.attacked import Attacked
from kdaudit.pipelines.stages.overlap import find_overlap, overlap_notes, overlap_result
from kdaudit.pipelines.stages.results import _floor

PREFIX, SUFFIX, WINDOW = 30, 40, 90
"""An example has 70 tokens, of which the last 50 are looked for."""


class Examples:
    """Stands in for a run: one shard of the corpus's windows, one of the holdout's."""

    def __init__(self, corpus: list[tuple[str, int, list[int]]], holdout: list[list[int]]) -> None:
        self._tables = {
            "examples": _table(corpus),
            "holdout/examples": _table([("h", 0, tokens) for tokens in holdout]),
        }

    def shards(self, folder: str) -> list[str]:
        return [folder]

    def read_table(self, name: str, columns: list[str], if_there: Any = ()) -> pa.Table:
        return self._tables[name].select(columns)


def _table(rows: list[tuple[str, int, list[int]]]) -> pa.Table:
    documents, offsets, tokens = ([*column] for column in zip(*rows, strict=True))
    return pa.table(
        {
            "example_id": np.arange(len(rows)),
            "document_id": documents,
            "offset": pa.array(offsets, pa.int32()),
            "token_ids": pa.array(tokens, pa.list_(pa.int32())),
        }
    )


def _found(corpus: list[tuple[str, int, list[int]]], holdout: list[list[int]]) -> list[bool]:
    work: Any = SimpleNamespace(
        run=Examples(corpus, holdout), split=Split(PREFIX, SUFFIX, None), progress=lambda *_: None
    )
    found = find_overlap(work)
    assert found is not None
    return [bool(flag) for flag in found]


def _windows(name: str, text: list[int], stride: int = WINDOW) -> list[tuple[str, int, list[int]]]:
    starts = range(0, len(text) - PREFIX - SUFFIX + 1, stride)
    return [(name, start, text[start : start + WINDOW]) for start in starts]


def _slow(corpus: list[tuple[str, list[int]]], holdout: list[list[int]]) -> list[bool]:
    """Every span of 50 tokens of every document."""
    spans = {tuple(text[at : at + 50]) for _, text in corpus for at in range(len(text) - 49)}
    return [tuple(tokens[PREFIX + SUFFIX - 50 : PREFIX + SUFFIX]) in spans for tokens in holdout]


def test_text_of_the_corpus_is_found_at_any_offset_and_across_windows() -> None:
    dice = np.random.default_rng(0)
    texts = [("a", dice.integers(2, 40, 360).tolist()), ("b", dice.integers(2, 40, 270).tolist())]
    one, two = texts[0][1], texts[1][1]
    changed = one[:70]
    changed[69] = 41
    holdout = [
        one[:90],
        one[47:137],  # its end lies in two windows
        [*dice.integers(2, 40, 20).tolist(), *two[33:103]],  # behind another beginning
        changed,
        [*one[300:340], *two[:50]],
        dice.integers(2, 40, 90).tolist(),
    ]
    corpus = [window for name, text in texts for window in _windows(name, text)]
    expected = _slow(texts, holdout)
    assert expected == [True, True, True, False, False, False]
    assert _found(corpus, holdout) == expected


def test_windows_that_do_not_follow_one_another_are_not_joined() -> None:
    dice = np.random.default_rng(1)
    text = dice.integers(2, 40, 360).tolist()
    across = text[65:155]
    assert _slow([("a", text)], [across]) == [True]
    first, second, *rest = _windows("a", text)
    assert _found([first, *rest], [across]) == [False]
    assert _found([first, ("b", 90, second[2])], [across]) == [False]
    joint = [*first[2][-45:], *rest[0][2][:45]]  # what no document holds
    assert _found([first, *rest], [joint]) == [False]


def test_the_floor_leaves_out_what_stands_in_the_corpus() -> None:
    exposed = np.array([1, 1, 0, 0, 0], bool)
    found = Attacked(pa.table({}), exposed, 0.0, ("", "", "", ""))  # type: ignore[arg-type]
    floor = _floor(found, np.array([1, 0, 0, 0, 1], bool))
    assert floor is not None
    assert (floor.memorized, floor.examples, floor.ci95) == (1, 3, clopper_pearson(1, 3))
    assert _floor(found, np.ones(5, bool)) is None
    assert _floor(None, None) is None


def test_a_weight_of_nothing_leaves_an_example_out_of_membership() -> None:
    weights = np.array([0.0, 4.0, 4.0, 0.0, 4.0])
    assert plain_samples(np.ones(9), weights, 0).nonmembers.tolist() == [1, 2, 4]
    assert len(plain_samples(np.ones(9), np.zeros(5), 0).members) == 0


def test_a_note_counts_what_is_left_out() -> None:
    found = np.array([1, 0, 1], bool)
    (note,) = overlap_notes(found, sampled=False)
    assert "Of the 3 examples of the holdout 2 stand in the corpus too" in note.text
    assert "at least 2" in overlap_notes(found, sampled=True)[0].text
    assert overlap_notes(np.zeros(3, bool), sampled=False) == overlap_notes(None, sampled=False) == []
    result = overlap_result(found)
    assert result is not None
    assert (result.examples, result.in_corpus) == (3, 2)
    assert overlap_result(None) is None
