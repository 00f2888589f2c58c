"""What the recall guarantee counts, against a search from row to row; and its words."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_results import sample_dict

from kdaudit.reporting.predictor_recall import guarantee_of
from kdaudit.risk import PredictorSettings, Table, find_units, fit_predictor, guarantee_words
from kdaudit.risk.units import Units
from kdaudit.schemas.predictor import Origin, RecallGuarantee
from kdaudit.schemas.results import AuditResults

rows_of_corpora = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 120)), min_size=1, max_size=150)


def units_of(rows: list[tuple[int, int]], positive: np.ndarray) -> Units:
    documents, suffixes = np.array(rows).T
    return find_units(documents * 7 - 50, suffixes * 3 - 9, positive)


def together(rows: list[tuple[int, int]]) -> list[int]:
    """For each row the first row that is reached from it over shared documents and suffixes."""
    first = [-1] * len(rows)
    for start in range(len(rows)):
        reached = [start] if first[start] < 0 else []
        while reached:
            row = reached.pop()
            if first[row] < 0:
                first[row] = start
                reached += [k for k, other in enumerate(rows) if rows[row][0] == other[0]]
                reached += [k for k, other in enumerate(rows) if rows[row][1] == other[1]]
    return first


def partition(ids: np.ndarray | list[int]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(np.array(ids) == one).tolist()) for one in np.array(ids)}


@given(rows_of_corpora, st.integers(0, 2**32 - 1))
@settings(deadline=None)  # the first call imports scipy
def test_rows_are_one_unit_if_documents_or_suffixes_link_them(rows, seed) -> None:
    positive = np.random.default_rng(seed).random(len(rows)) < 0.5
    found = units_of(rows, positive)
    if found.name == "documents" and found.caveat is None:
        assert partition(found.of_row) == partition(together(rows))
    elif found.name == "texts":
        assert partition(found.of_row) == partition([suffix for _, suffix in rows])
    assert all(len({found.of_row[k] for k, row in enumerate(rows) if row[1] == one}) == 1 for _, one in rows)


def documents(count: int, windows: int) -> list[tuple[int, int]]:
    return [(document, document * windows + k) for document in range(count) for k in range(windows)]


def test_documents_of_several_windows_are_counted() -> None:
    rows = documents(40, 5)
    found = units_of(rows, np.arange(200) % 10 == 0)
    assert (found.name, found.caveat) == ("documents", None)
    assert partition(found.of_row) == partition([document for document, _ in rows])


def test_where_each_document_is_one_window_texts_are_counted() -> None:
    rows = [(document, document // 2) for document in range(100)]
    found = units_of(rows, np.arange(100) < 30)
    assert (found.name, found.caveat) == ("texts", None)
    assert partition(found.of_row) == partition([suffix for _, suffix in rows])


def test_boilerplate_that_joins_all_documents_is_a_unit_by_itself() -> None:
    rows = [*documents(40, 5), *((document, 999) for document in range(40))]
    found = units_of(rows, np.arange(240) % 10 == 0)
    assert found.name == "documents"
    assert "counted apart from the documents around it" in (found.caveat or "")
    expected = [document for document, _ in rows[:200]] + [-1] * 40
    assert partition(found.of_row) == partition(expected)


def test_documents_that_hold_both_kinds_are_documents_of_both() -> None:
    rows = documents(12, 20)
    found = units_of(rows, np.arange(len(rows)) % 20 == 0)  # no document is without a positive
    assert (found.name, found.caveat) == ("documents", None)


@pytest.mark.parametrize(("with_positives", "without"), [(9, 50), (30, 4), (0, 3)])
def test_too_few_documents_leave_texts_and_that_is_said(with_positives: int, without: int) -> None:
    rows = documents(with_positives + without, 20)
    found = units_of(rows, np.arange(len(rows)) < with_positives * 20)
    assert found.name == "texts"
    assert f"{with_positives} with memorized examples and {without} with others" in (found.caveat or "")
    assert len(np.unique(found.of_row)) == len(rows)


ORIGIN = Origin(teacher="t", family="f", corpus="c", labels="teacher", prefix_tokens=50, suffix_tokens=50)


def test_a_guarantee_by_documents_says_so() -> None:
    rng = np.random.default_rng(0)
    of_document = np.repeat(np.arange(120), 5)
    positive = (of_document < 40) & ((rng.random(600) < 0.6) | (np.arange(600) % 5 == 0))
    features = np.exp(rng.normal(np.where(positive, -1.0, 0.0)[:, None], 0.5, (600, 4)))
    table = Table(features, positive, of_document, "documents")
    fitted = fit_predictor(table, PredictorSettings(1, 0.99, 0.95, 0), ORIGIN)
    assert fitted.predictor.promise == RecallGuarantee(
        recall=0.05 ** (1 / 40), confidence=0.95, calibration_positives=40, unit="documents"
    )
    said, weak = (note.text for note in fitted.notes)
    assert said.startswith(
        "The risk predictor's recall guarantee: with 95% confidence, all examples that the teacher memorizes "
        "are flagged in at least 92.7% of the documents that hold any. The guarantee rests on 40 documents "
        "with memorized examples, each scored by a model fitted without it"
    )
    assert "40 documents with memorized examples allow a guarantee of at most 92.7%" in weak
    flagged = fitted.predictor.flagged(fitted.predictor.risk(features))
    whole = [flagged[positive & (of_document == one)].all() for one in range(40)]
    assert np.mean(whole) > 0.9


def test_a_predictor_is_fitted_where_every_document_holds_memorized_and_other_windows() -> None:
    rng = np.random.default_rng(1)
    of_document = np.repeat(np.arange(12), 30)
    positive = np.arange(360) % 30 < 6
    features = np.exp(rng.normal(np.where(positive, -1.0, 0.0)[:, None], 0.5, (360, 4)))
    table = Table(features, positive, of_document, "documents")
    fitted = fit_predictor(table, PredictorSettings(20, 0.8, 0.9, 0), ORIGIN)
    assert fitted.positives == 72
    assert fitted.predictor.promise.calibration_positives == 12
    assert 0.8 < fitted.figures.auc.mean < 1


def test_files_from_before_the_unit_count_texts() -> None:
    old = RecallGuarantee.model_validate({"recall": 0.9, "confidence": 0.95, "calibration_positives": 30})
    assert "at least 90% of the examples that the teacher memorizes are flagged" in guarantee_words(
        old, "teacher", None
    )


def test_the_report_names_the_unit() -> None:
    data = sample_dict()
    data["predictor"]["promise"]["unit"] = "documents"
    found = guarantee_of(AuditResults.model_validate(data))
    assert "are flagged in at least 99% of the documents that hold any." in found.sentences
    assert "351 documents with memorized examples" in found.sentences
    assert "are flagged in at least 99% of the documents that hold any" in found.clause
