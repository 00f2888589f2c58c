"""What the recall guarantee counts: documents where these hold several windows, else distinct texts.

Windows of one document are alike, and windows with one suffix are one text, whatever stands before it. So
rows belong to one unit if they share a document or a suffix, or are linked through rows that do (connected
components). Two cases need another rule, and are told as a caveat:

- Boilerplate links documents that are otherwise apart. Where that makes one unit of a quarter of the
  positives, each text that stands in several documents is a unit by itself, and other rows go by document.
- There are too few documents, with positives or without, for a predictor: then distinct texts are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk.splits import LEAST_GROUPS, Flags, Groups, find_groups
from kdaudit.schemas.predictor import Unit

_GIANT = 0.25
"""Share of the positives in one unit of several documents from which on it is one of boilerplate."""

Ids = NDArray[np.int64]


class Units(NamedTuple):
    """Which rows are one draw of the guarantee."""

    of_row: Ids
    """Equal for rows of one unit: int64 (n,)."""
    name: Unit
    """What a unit is."""
    caveat: str | None
    """Where units are not what they should be: which they are, and what that does to the guarantee."""


def find_units(documents: Ids, suffixes: Ids, positive: Flags) -> Units:
    """The units of a table's rows.

    Args:
        documents: equal for rows of one document: int64 (n,).
        suffixes: equal for rows of one suffix: int64 (n,).
        positive: whether memorized: bool (n,).

    """
    document, suffix = (np.unique(ids, return_inverse=True)[1] for ids in (documents, suffixes))
    units, caveat = _linked(document, suffix), None
    if _is_boilerplate(find_groups(units, positive), document, positive):
        units, caveat = _apart(document, suffix), _BOILERPLATE
    if len(np.unique(units)) == len(np.unique(suffix)):
        return Units(suffix, "texts", None)
    found = find_groups(units, positive)
    if min(found.with_positive, found.with_other) < LEAST_GROUPS:
        return Units(suffix, "texts", _few_documents(found.with_positive, found.with_other))
    return Units(units, "documents", caveat)


def _linked(document: Ids, suffix: Ids) -> Ids:
    """Connected components of documents and suffixes, each row an edge between its two."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    documents = int(document.max(initial=-1)) + 1
    nodes = documents + int(suffix.max(initial=-1)) + 1
    edges = coo_array((np.ones(len(document), np.int8), (document, documents + suffix)), (nodes, nodes))
    _, component = connected_components(edges, directed=False)
    units: Ids = component[document].astype(np.int64)
    return units


def _is_boilerplate(units: Groups, document: Ids, positive: Flags) -> bool:
    """Whether a unit of several documents holds too many of the positives."""
    held = np.bincount(units.of_row[positive], minlength=units.total)
    largest = units.of_row == held.argmax()
    return bool(held.max() >= _GIANT * positive.sum() and np.ptp(document[largest]) > 0)


def _apart(document: Ids, suffix: Ids) -> Ids:
    """Units by suffix where that stands in several documents, else by document."""
    first, last = np.full(len(suffix), len(document)), np.full(len(suffix), -1)
    np.minimum.at(first, suffix, document)
    np.maximum.at(last, suffix, document)
    shared = (first < last)[suffix]
    return np.where(shared, len(document) + suffix, document)


_BOILERPLATE = (
    "The recall guarantee counts documents. Text that stands in several of them, which would join a quarter "
    "of the memorized examples or more into one, is counted apart from the documents around it."
)


def _few_documents(positives: int, others: int) -> str:
    holders = f"{positives:,} with memorized examples and {others:,} with others"
    return (
        f"The recall guarantee counts distinct texts, since there are too few documents to count ({holders}; "
        f"it takes {LEAST_GROUPS} of each). Windows of one document are not independent draws: what is "
        "guaranteed may be more than what holds for other documents."
    )
