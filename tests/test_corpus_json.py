"""Json files that are not one object a line, and rows too large to hold: told by what they are."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_reading import refusal, texts

from kdaudit.corpus.readers import json_files, streams

ROWS = [{"text": f'row {n}, "quoted"\n', "n": n, "more": {"a": [1, None]}} for n in range(12)]
TEXTS = [row["text"] for row in ROWS]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
BIG = [{"text": "x" * 3000, "n": n} for n in range(1000)]
"""More than the beginning by which a file is told."""

OVER_LINES = "holds json objects that are spread over several lines; save it as json lines"
ARRAY = "is a json array, not one object a line; rename it"
PYTHON = "holds Python objects as `print` shows them, not json"


def pretty(rows: list[dict[str, object]], between: str = "\n") -> str:
    return between.join(json.dumps(row, indent=2) for row in rows)


SHAPES = {
    "wrapped.json": (json.dumps({"version": "1", "data": ROWS}, indent=2), "whose key 'data' holds the rows"),
    "oneline.json": (
        json.dumps({"data": ROWS}),
        "is one json object whose key 'data' holds the rows; save those",
    ),
    "big-wrapped.json": (
        json.dumps({"a": "\\ b", "n": 1, "rows": BIG}, indent=1),
        "whose key 'rows' holds the rows",
    ),
    "big-oneline.jsonl": (json.dumps({"rows": BIG}), "is one json object whose key 'rows' holds the rows"),
    "splits.json": (json.dumps({"train": ROWS, "test": ROWS}), "whose keys 'train' and 'test' hold the rows"),
    "nested.json": (
        json.dumps({"data": {"rows": ROWS}}),
        "one json object whose key 'data.rows' holds the rows",
    ),
    "pandas-split.json": (
        json.dumps({"columns": ["text"], "data": [["a"]]}),
        "whose key 'data' holds the rows",
    ),
    "pandas-columns.json": (
        json.dumps({"text": {"0": "a", "1": "b"}}),
        "holds whole columns; save it row by row",
    ),
    "columns.json": (
        json.dumps({"text": ["a", "b"], "n": [1, 2]}),
        "is one json object that holds whole columns",
    ),
    "pretty-columns.json": (
        json.dumps({"text": ["a", "b"]}, indent=2),
        "is one json object that holds whole",
    ),
    "by-key.json": (
        json.dumps({"a": {"text": "x"}, "b": {"text": "y"}}),
        "that holds the rows by key; save its",
    ),
    "odd-key.json": (
        json.dumps({"a 'b\n": ROWS}, indent=1),
        """key "a 'b\\n" holds the rows; save those rows as""",
    ),
    "pretty.json": (pretty(ROWS), OVER_LINES),
    "pretty.jsonl": (pretty(ROWS), OVER_LINES),
    "pretty-one.json": (pretty(ROWS[:1]), OVER_LINES),
    "big-pretty.json": (pretty([{"text": "x" * (2 << 20)}] * 2), OVER_LINES),
    "pretty-comma.json": (pretty(ROWS, ",\n"), "holds objects with commas between them"),
    "line-commas.jsonl": (LINES.replace("}\n", "},\n"), "holds objects with commas between them"),
    "array.jsonl": (json.dumps(ROWS, indent=1), ARRAY),
    "array-line.jsonl": (json.dumps(ROWS), ARRAY),
    "array-rows.jsonl": ("[\n" + LINES.replace("}\n", "},\n") + "]", ARRAY),
    "arrays.jsonl": (
        '["id", "text"]\n["1", "hello"]\n',
        "holds an array in each line, and a row must be an object",
    ),
    "comma.json": (json.dumps(ROWS)[:-1] + ",]", "is not valid json (a comma stands before the closing ])"),
    "comma-lines.json": (json.dumps(ROWS, indent=1)[:-2] + ",\n]", "(a comma stands before the closing ])"),
    "comma-object.json": (json.dumps(ROWS)[:-2] + ",}]", "(a comma stands before the closing })"),
    "comma.jsonl": (LINES + '{"text": "a",}\n', "is not valid json (a comma stands before the closing })"),
    "two-arrays.json": (
        json.dumps(ROWS) + "\n" + json.dumps(ROWS),
        "another json array begins; join the arrays",
    ),
    "open.json": (json.dumps(ROWS)[:-1], "(the array is not closed)"),
    "cut.json": (json.dumps(ROWS)[:-9], "the file ends in the middle of a value: it was cut short"),
    "cut.jsonl": (LINES[:-9], "is not valid json (the file ends in the middle of a value: it was cut short)"),
    "no-comma.json": (json.dumps(ROWS).replace("}, {", "} {"), "row 0 is followed by '{', not by a comma"),
    "behind.json": (json.dumps(ROWS) + "x", "text stands behind the array"),
    "same-line.jsonl": (
        LINES.replace("\n", " "),
        "several objects stand on one line: put each on a line of its",
    ),
    "repr.jsonl": ("\n".join(map(str, ROWS)), PYTHON),
    "repr.json": (str(ROWS), "(a Python object as `print` shows it, not json"),
    "repr-pretty.json": ("{'text':\n   'a'}", PYTHON),
    "none.jsonl": (LINES + '{"text": None}\n', "is not valid json (a Python object as `print` shows it"),
    "true.json": ('[{"text": "a", "n": True}]', "(a Python object as `print` shows it, not json"),
    "page.jsonl": ("<!DOCTYPE html>\n<html><body>Not found</body></html>", "holds HTML or XML, not json"),
    "strings.json": (json.dumps(TEXTS), "row 0: holds a string, not an object"),
    "strings.jsonl": ("\n".join(map(json.dumps, TEXTS)), "holds a string, not an object"),
    "tab.jsonl": (
        LINES + '{"text": "a\tb"}\n',
        "a control character stands in a string: write a tab as \\t, a line break as \\n",
    ),
    "break.json": ('[{"text": "a\nb"}]', "a control character stands in a string"),
    "nothing.json": ("{}", "its rows have no columns"),
    "words.jsonl": ("just some text\n", "is not valid json"),
}
PLACES = {
    "comma.json": 1, "comma-lines.json": 122, "comma-object.json": 1, "comma.jsonl": 13, "two-arrays.json": 2,
    "cut.jsonl": 12, "none.jsonl": 13, "true.json": 1, "strings.jsonl": 1, "words.jsonl": 1,
}  # fmt: skip
"""The lines that messages name, where they name one."""


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("start", ["", "\ufeff", "\n\n  "], ids=["", "mark", "blank"])
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_the_sentence_says_what_a_json_file_is(name: str, start: str, packed: str, tmp_path: Path) -> None:
    text, says = SHAPES[name]
    data = (start + text).encode()
    path = tmp_path / f"{name}{packed}"
    path.write_bytes(gzip.compress(data, 1) if packed else data)
    message = refusal(path)
    assert str(path) in message
    assert says in message
    assert "Expecting" not in message or name == "words.jsonl"
    if name in PLACES:
        assert f"{path}, line {PLACES[name] + start.count(chr(10))}: " in message


@pytest.mark.parametrize("name", ["c.json", "c.jsonl"])
def test_a_file_cut_short_within_a_string_is_told_wherever_it_ends(name: str, tmp_path: Path) -> None:
    row = json.dumps({"text": "\u043f\u0440\u0438"})  # each letter as an escape, as `json.dumps` writes them
    whole = f"[{row}, {row}" if name == "c.json" else f"{row}\n{row}"
    for missing in range(2, 21):
        (tmp_path / name).write_text(whole[:-missing])
        message = refusal(tmp_path / name)
        assert "the file ends in the middle of a value: it was cut short" in message, whole[:-missing]


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 0, 3])
def test_an_array_is_read_wherever_pieces_end(chunk: int, indent: int | None, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_files, "_CHUNK", chunk)
    rows = [{"text": text, "n": 1.5e3} for text in [*TEXTS, "é\ud800 \\ \"'[]{}", "日本" * 99, ""]]
    (tmp_path / "a.json").write_text(" \n" + json.dumps(rows, indent=indent, ensure_ascii=True) + " \n\n")
    assert texts(tmp_path / "a.json") == [*TEXTS, "日本" * 99]
    (tmp_path / "a.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode("utf-8", "replace"))
    assert texts(tmp_path / "a.json") == [*TEXTS, "é? \\ \"'[]{}", "日本" * 99]
    (tmp_path / "a.json").write_text("[]")
    assert "holds no rows" in refusal(tmp_path / "a.json")


LARGE = {
    "a.jsonl": (b'{"text": "ok"}\n', b'{"text": "', b'"}', ", line 2: is longer than 1 MiB"),
    "a.txt": (b"ok\n", b"", b"\n", ", line 2: is longer than 1 MiB"),
    "a.csv": (b"text\nok\n", b"", b"\n", ", line 3: is longer than 1 MiB"),
    "b.csv": (b"text\nok\n", b'"a\n', b'"\n', ", line 3: begins a field of more than 1 MiB"),
    "a.json": (b'[{"text": "ok"},\n', b'{"text": "', b'"}]', ", line 2: a row is larger than 1 MiB"),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", LARGE)
def test_a_row_too_large_to_hold_is_named(name: str, packed: str, tmp_path: Path, monkeypatch) -> None:
    for module in (streams, json_files, sys.modules["kdaudit.corpus.readers.text_files"]):
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1 << 20)
        monkeypatch.setattr(module, "MAX_DOCUMENT", "1 MiB", raising=False)
    before, start, end, says = LARGE[name]
    path = tmp_path / f"{name}{packed}"
    filling = (b"x" * 99 + b"\n" if name == "b.csv" else b"x" * 100) * 50_000
    data = before + start + filling + end
    path.write_bytes(gzip.compress(data) if packed else data)
    message = refusal(path)
    assert f"corpus.path: {path}{says}" in message


def test_documents_that_are_whole_files_or_values_of_tables_are_bounded(tmp_path: Path, monkeypatch) -> None:
    for module in (streams, sys.modules["kdaudit.corpus.readers.tables"]):
        monkeypatch.setattr(module, "MAX_DOCUMENT_BYTES", 1000)
    (tmp_path / "a.txt").write_text("x " * 501)
    assert "a.txt: is larger than 64 MiB, the most that a document may hold" in refusal(
        tmp_path / "a.txt", documents="file"
    )
    pq.write_table(pa.table({"text": ["ok"] * 300 + ["x" * 1001]}), tmp_path / "a.parquet")
    assert "a.parquet, row 300: its text is longer than 64 MiB" in refusal(tmp_path / "a.parquet")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.txt.gz", "a.csv.gz", "a.json.gz"])
def test_a_line_of_gigabytes_takes_bounded_memory(name: str, tmp_path: Path) -> None:
    """13 MB packed are 3 GB of one line; here 1 GB, which must not be held."""
    piece = b"x" * (1 << 20)
    start = {"a.csv.gz": b"text\n", "a.json.gz": b'[{"text": "', "a.jsonl.gz": b'{"text": "'}.get(name, b"")
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as handle:
        handle.write(start)
        for _ in range(1024):
            handle.write(piece)
    script = (
        "import resource, sys\n"
        "from kdaudit.config.corpus import CorpusConfig\n"
        "from kdaudit.corpus import open_documents\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: open_documents(CorpusConfig(path=sys.argv[1]))\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / name],
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30)),
    )
    told, grown = done.stdout.splitlines()
    assert told.startswith("CorpusError corpus.path: ")
    assert f"{name}, line {2 if 'csv' in name else 1}: " in told
    assert "64 MiB" in told
    assert int(grown) < 600 << 10, "KiB"
