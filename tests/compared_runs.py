"""Small runs for the tests of comparisons, written without a model: examples, outcomes, leaks, results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from sample_results import sample_dict

from kdaudit.attacks import GREEDY, NearVerbatim
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import EXAMPLES_SCHEMA, LEAKS_SCHEMA

PREFIX, SUFFIX = 2, 3
KINDS = {"teacher": "teacher", "baseline": "baseline"}


class Text(NamedTuple):
    """An example: its document, and the number that all of its tokens and words are made of."""

    number: int
    document: str = "d"
    tail: int = 99

    @property
    def prefix(self) -> str:
        return f"prefix {self.number}"

    @property
    def suffix(self) -> str:
        return f"suffix {self.number}"

    @property
    def tokens(self) -> list[int]:
        """Ten numbers share all but the last token of the suffix; one token stands behind that."""
        return [self.number // 10, 7, 8, 9, self.number % 10, self.tail]


def write_run(
    folder: Path,
    texts: Sequence[Text],
    memorized: Mapping[str, set[int]],
    *,
    near: Mapping[str, set[int]] | None = None,
    edits: float = 0.1,
    weights: Mapping[str, str] | None = None,
    examples: bool = True,
    rows: int = 4,
    tags: Mapping[int, list[str]] | None = None,
    **changes: Any,
) -> Path:
    """A run directory of a teacher, a baseline and students.

    Args:
        folder: the run.
        texts: its examples, by id.
        memorized: numbers of the texts that each model memorizes.
        near: those that it reproduces nearly; None where that attack did not run.
        edits: the limit of that attack.
        weights: fingerprints, where they are not the model's name.
        examples: whether the run holds its examples and outcomes.
        rows: examples a shard.
        tags: what texts seem to hold, by their number.
        changes: of results.json.

    """
    folder.mkdir(parents=True)
    data = sample_dict(**changes)
    data["corpus"] |= {"examples": len(texts)}
    data["extraction"] |= {"prefix_tokens": PREFIX, "suffix_tokens": SUFFIX}
    model = {**data["models"]["soft"], "holdout": None}
    data["models"] = {
        name: {
            **model,
            "role": KINDS.get(name, "student"),
            "kd": None,
            "fingerprint": (weights or {}).get(name, name),
            "examples": len(texts),
            "memorized": len(numbers),
        }
        for name, numbers in memorized.items()
    }
    students = [name for name in memorized if name not in KINDS]
    data["comparison"] = dict.fromkeys(students, data["comparison"]["soft"])
    data["soft_vs_hard"] = None
    data["gate"] = {"verdict": "none", "checks": []}
    found = [_leak(place, text, memorized, students, tags or {}) for place, text in enumerate(texts)]
    leaks = [leak for leak in found if leak["classes"]]
    if "accepted" in data:
        named = {one for entry in data["accepted"]["in_force"] for one in entry["leaks"]}
        leaks = [{**leak, "accepted": leak["example_id"] in named} for leak in leaks]
    data["leaks"] = leaks
    (folder / layout.RESULTS).write_text(json.dumps(data))
    table = pa.Table.from_pylist([_row(leak, texts) for leak in leaks], schema=LEAKS_SCHEMA)
    pq.write_table(table, folder / layout.LEAKS)
    if examples:
        _write_examples(folder, texts, rows)
        for name, numbers in memorized.items():
            _write_outcome(folder, name, texts, numbers, rows)
        for name, numbers in (near or {}).items():
            _write_near(folder, name, texts, numbers, rows, edits)
    return folder


def _leak(
    place: int,
    text: Text,
    memorized: Mapping[str, set[int]],
    students: list[str],
    tags: Mapping[int, list[str]],
) -> dict[str, Any]:
    by = [name for name, numbers in memorized.items() if text.number in numbers]
    kinds = {(True, True): "easy_core", (True, False): "inherited", (False, True): "with_baseline"}
    kind = kinds.get(("teacher" in by, "baseline" in by), "student_only")
    return {
        "example_id": place,
        "document_id": text.document,
        "memorized_by": by,
        "classes": {name: kind for name in students if name in by},
        "copies": 1,
        "risk": None,
        "tags": list(tags.get(text.number, [])),
        "suffix_hmac": f"{text.number:064x}",
    }


def _row(leak: Mapping[str, Any], texts: Sequence[Text]) -> dict[str, Any]:
    text = texts[leak["example_id"]]
    return {
        **{key: value for key, value in leak.items() if key != "classes"},
        "offset": 0,
        "text": f"{text.prefix} {text.suffix}",
        "prefix": text.prefix,
        "suffix": text.suffix,
        "models": [],
        "accepted": leak.get("accepted", False),
        "classes": [{"student": name, "class": kind} for name, kind in leak["classes"].items()],
    }


def _shards(folder: Path, name: str, table: pa.Table, rows: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, len(table), rows)):
        pq.write_table(table.slice(start, rows), folder / layout.shard(name, number))


def _write_examples(folder: Path, texts: Sequence[Text], rows: int) -> None:
    values = [
        {
            "example_id": place,
            "document_id": text.document,
            "offset": 0,
            "text": f"{text.prefix} {text.suffix}",
            "token_ids": text.tokens,
            "copies": 1,
        }
        for place, text in enumerate(texts)
    ]
    fields = [field for field in EXAMPLES_SCHEMA if field.name in values[0]]
    _shards(folder, layout.EXAMPLES, pa.Table.from_pylist(values, schema=pa.schema(fields)), rows)


def _write_outcome(folder: Path, name: str, texts: Sequence[Text], numbers: set[int], rows: int) -> None:
    flags = [text.number in numbers for text in texts]
    columns = [range(len(texts)), [SUFFIX * flag for flag in flags], flags]
    table = pa.table([pa.array(one) for one in columns], names=GREEDY.columns.names)
    _shards(folder, layout.attack("greedy", name), table, rows)


def _write_near(
    folder: Path, name: str, texts: Sequence[Text], numbers: set[int], rows: int, edits: float
) -> None:
    distances = [1 if text.number in numbers else None for text in texts]
    table = pa.table([range(len(texts)), pa.array(distances, pa.int16())], names=NearVerbatim.columns.names)
    table = table.replace_schema_metadata({"settings": json.dumps({"max_edit_distance": edits})})
    _shards(folder, layout.attack("near_verbatim", name), table, rows)
