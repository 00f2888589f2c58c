"""The kept corpus, against a plain loop: flagged windows and their suffixes go, and nothing else."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
import re
import stat
from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.screen import ScreenConfig
from kdaudit.corpus import ExampleTokens, build_examples, open_documents
from kdaudit.corpus.fingerprint import PinnedSource
from kdaudit.errors import CorpusError, RunStateError, UsageError
from kdaudit.pipelines.stages.screen_record import much_text_dropped
from kdaudit.runs.store import RunStore
from kdaudit.schemas.screening import KeptCounts
from kdaudit.screening import writers as sinks
from kdaudit.screening.kept import Keeping, Levels, check_writable, write_kept
from kdaudit.screening.schemas import arrow_schema

WORDS = 12
WINDOW, MINIMUM = 4, 2


def word_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({f"w{k}": k for k in range(WORDS)} | {"?": WORDS}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


# The oracle: its own tokens, its own loop over windows, and characters struck out one by one.


class Token(NamedTuple):
    start: int
    end: int
    value: object


def words_of(text: str) -> list[Token]:
    known = {f"w{k}" for k in range(WORDS)}
    found = [Token(m.start(), m.end(), m.group()) for m in re.finditer(r"\S+", text)]
    return [token if token.value in known else token._replace(value="?") for token in found]


def windows_of(tokens: list[Token], window: int, stride: int, minimum: int) -> tuple[list[list[Token]], int]:
    """The windows, and how many stretches were too short."""
    found, short, start = [], 0, 0
    while start < max(len(tokens), 1):
        piece = tokens[start : start + window]
        if len(piece) >= minimum:
            found.append(piece)
        else:
            short += 1
        if start + window >= len(tokens):
            break
        start += stride
    return found, short


def content(piece: list[Token], measured: int = MINIMUM) -> tuple[object, ...]:
    """What makes a window an example: its prefix + suffix."""
    return tuple(token.value for token in piece[:measured])


def spots_of(tokens: list[Token], minimum: int) -> list[tuple[tuple[object, ...], int, int]]:
    """Each run of so many tokens, and its characters."""
    runs = [tokens[at : at + minimum] for at in range(len(tokens) - minimum + 1)]
    return [(content(run, minimum), run[0].start, run[-1].end) for run in runs]


class Oracle(NamedTuple):
    left: list[tuple[int, str]]
    """Row of the corpus, and the text that a row of kept/ holds."""
    counts: dict[str, int]


def oracle(
    texts: Iterable[str | None],
    flagged: set[tuple[object, ...]],
    drop: str,
    *,
    tokens=words_of,
    window: int = WINDOW,
    stride: int = WINDOW,
    minimum: int = MINIMUM,
    scored: set[tuple[object, ...]] | None = None,
) -> Oracle:
    """What stays of texts; '\\0' stands for one that is not valid Unicode. Examples are all suffix."""
    rest = {"withheld": False, "columns_replaced": (), "documents_by_recall": ()}
    counts = dict.fromkeys(KeptCounts.model_fields, 0) | rest
    left: list[tuple[int, str]] = []
    for row, text in enumerate(texts):
        counts["documents_read"] += 1
        if text == "\0":
            counts["undecodable"] += 1
            continue
        if not (text or "").strip():
            counts["empty"] += 1
            counts["documents_kept"] += 1
            counts["characters_before"] += len(text or "")
            left.append((row, text))
            continue
        pieces, short = windows_of(tokens(text), window, stride, minimum)
        risky = [piece for piece in pieces if content(piece, minimum) in flagged]
        spans = [(piece[0].start, piece[-1].end) for piece in risky]
        besides = [
            (start, end)
            for value, start, end in spots_of(tokens(text), minimum)
            if value in flagged and not any(a <= start and end <= b for a, b in spans)
        ]
        struck = {k for start, end in (*spans, *besides) for k in range(start, end)}
        runs = "".join("\0" if k in struck else character for k, character in enumerate(text)).split("\0")
        stay = [text] if not struck else [] if drop == "document" else [run for run in runs if run.strip()]
        left += [(row, one) for one in stay]
        counts["documents_kept" if stay else "documents_dropped"] += 1
        counts["documents_flagged"] += bool(risky)
        counts["windows_flagged"] += len(risky)
        counts["recurrences"] += len(besides)
        counts["characters_before"] += len(text)
        if stay:
            counts["too_short"] += short
            counts["windows_unscored"] += sum(
                scored is not None and content(p, minimum) not in scored for p in pieces
            )
    counts["rows_written"] = len(left)
    counts["characters_after"] = sum(len(text or "") for _, text in left)
    return Oracle(left, counts)


# Running the real thing.


class Kept(NamedTuple):
    counts: KeptCounts
    files: list[Path]
    flagged: set[tuple[object, ...]]
    scored: set[tuple[object, ...]]
    folder: Path
    levels: dict[tuple[object, ...], int]
    """Of each example, by its prefix and suffix."""

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables([pq.read_table(file) for file in self.files], promote_options="default")

    @property
    def lines(self) -> list[str]:
        return [line for file in self.files for line in file.read_text().split("\n")[:-1]]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


def keep(
    path: Path,
    out: Path,
    drop: str,
    form: str,
    *,
    tokenizer: Tokenizer | None = None,
    every: int = 3,
    minimum: int = MINIMUM,
    max_flagged: float = 1.0,
    thresholds: int | None = None,
    before=lambda: None,
    **fields: Any,
) -> Kept:
    """Cut a corpus, flag every so many examples, write what is left; `before` runs between the two passes."""
    tokenizer = tokenizer or word_tokenizer()
    config = CorpusConfig.model_validate({"path": str(path), "window": WINDOW, **fields})
    source, tokens = PinnedSource(config, "sha256:0"), ExampleTokens(0, minimum)
    with RunStore(out, "screening", {}) as run:
        with run.scratch() as scratch:
            examples = build_examples(config, tokenizer, tokens=tokens, seed=5, scratch=scratch)
            for number, table in enumerate(examples.tables(7)):
                run.write_table(f"examples/part-{number:05d}.parquet", table)
        tables = [run.read_table(shard) for shard in run.shards("examples")]
        ids = [tuple(row) for table in tables for row in table["token_ids"].to_pylist()]
        flags = np.array([every > 0 and k % every == 0 for k in range(len(ids))])
        before()
        with run.stage("kept"):
            how = Keeping(tokens, drop, form, max_flagged=max_flagged)
            of_example = np.arange(len(ids)) % (1 + (thresholds or 0))
            levels = None if thresholds is None else Levels(of_example.astype(np.int8), thresholds)
            counts = write_kept(run, source, tokenizer, flags, how, levels=levels)
        files = [out / name for name in run.shards("kept")]
    assert sorted((out / "kept").glob("*")) == files
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    values = [tuple(tokenizer.id_to_token(token) for token in row[:minimum]) for row in ids]
    flagged = {row for row, flag in zip(values, flags, strict=True) if flag}
    return Kept(counts, files, flagged, set(values), out, dict(zip(values, of_example.tolist(), strict=True)))


def some_texts(seed: int = 1, documents: int = 40) -> list[str]:
    """Documents of few words, so that windows stand in many of them; some too short."""
    rng = random.Random(seed)
    phrases = [" ".join(f"w{rng.randrange(WORDS)}" for _ in range(WINDOW)) for _ in range(9)]
    texts = []
    for _ in range(documents):
        parts = [rng.choice(phrases) for _ in range(rng.randrange(6))]
        parts += [f"w{rng.randrange(WORDS)}"] * rng.randrange(3)
        texts.append(rng.choice([" ", "\n", "  "]).join(parts) or f"w{rng.randrange(WORDS)}")
    return texts


TEXTS = some_texts()


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def digests(path: Path) -> dict[str, tuple[str, int]]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files
    }


DROPS = pytest.mark.parametrize("drop", ["document", "window"])
FORMATS = pytest.mark.parametrize("form", ["parquet", "jsonl"])


@pytest.mark.parametrize("thresholds", [1, 5])
def test_documents_are_counted_at_each_threshold(thresholds, tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    kept = keep(path, tmp_path / "out", "document", "jsonl", every=7, thresholds=thresholds)
    lowest = [
        min((kept.levels.get(value, 99) for value, *_ in spots_of(words_of(text), 2)), default=99)
        for text in TEXTS
    ]
    expected = [sum(one <= level for one in lowest) for level in range(thresholds)]
    assert kept.counts.documents_by_recall == tuple(expected)
    assert expected[0] > 0
    assert thresholds == 1 or expected[0] < expected[-1]


@DROPS
@FORMATS
def test_every_place_of_a_flagged_window_goes_and_nothing_else(drop, form, tmp_path):
    rows = [{"id": f"d{k}", "text": text, "n": k} for k, text in enumerate(TEXTS)]
    path = write_jsonl(tmp_path / "c.jsonl", rows)
    before = digests(path)
    kept = keep(path, tmp_path / "out", drop, form)
    expected = oracle(TEXTS, kept.flagged, drop)
    written = kept.table.to_pylist() if form == "parquet" else kept.objects
    assert written == [{**rows[row], "text": text} for row, text in expected.left]
    assert kept.counts.model_dump() == expected.counts
    assert digests(path) == before
    copies = [
        sum(content(p) == one for t in TEXTS for p in windows_of(words_of(t), 4, 4, 2)[0])
        for one in kept.flagged
    ]
    assert kept.counts.recurrences > 0
    assert max(copies) > 3, "the toy corpus must hold copies in several documents"
    assert 0 < kept.counts.documents_dropped < kept.counts.documents_kept + 10


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.lists(st.sampled_from(["w0 ", "w1\n", " w2 ", "ä\t", "\n"]), max_size=25).map("".join),
        min_size=1,
        max_size=8,
    ),
    st.sampled_from(["document", "window"]),
    st.integers(2, 5),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 4),
)
def test_any_window_and_stride_keeps_what_the_oracle_keeps(
    tmp_path_factory, texts, drop, window, stride, minimum, every
):
    texts = [*texts, "w0 w1 w2 w0 w1"]
    folder = tmp_path_factory.mktemp("any")
    path = write_jsonl(folder / "c.jsonl", [{"text": text} for text in texts])
    minimum = min(minimum, window)
    kept = keep(
        path, folder / "out", drop, "jsonl", every=every, window=window, stride=stride, minimum=minimum
    )
    expected = oracle(texts, kept.flagged, drop, window=window, stride=stride, minimum=minimum)
    assert kept.objects == [{"text": text} for _, text in expected.left]
    assert kept.counts.model_dump() == expected.counts


def test_byte_level_tokens_whose_character_a_cut_divides(tmp_path):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        ["the fox and the dog. "] * 9,
        trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, show_progress=False),
    )

    def tokens(text: str) -> list[Token]:
        encoding = tokenizer.encode(text)
        return [Token(*ends, token) for ends, token in zip(encoding.offsets, encoding.tokens, strict=True)]

    rng = random.Random(3)
    parts = ["the fox", " and ", "😀", "é", "👩‍👩‍👧", "\n", " the dog.", "x"]
    texts = ["".join(rng.choice(parts) for _ in range(rng.randrange(1, 30))) for _ in range(30)]
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in texts])
    kept = keep(path, tmp_path / "out", "window", "jsonl", tokenizer=tokenizer, every=2, window=6, minimum=3)
    expected = oracle(texts, kept.flagged, "window", tokens=tokens, window=6, stride=6, minimum=3)
    assert [row["text"] for row in kept.objects] == [text for _, text in expected.left]
    assert kept.counts.model_dump() == expected.counts


def rich_table(texts: list[str | None], kind: pa.DataType) -> pa.Table:
    """Columns of many types, nested and null ones too."""
    count = len(texts)
    rng = random.Random(2)
    column = pa.array(texts)
    text = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
    columns = {
        "name": pa.array([f"d{k}" if k % 4 else None for k in range(count)]),
        "text": text,
        "meta": pa.array(
            [
                None if k % 5 == 0 else {"tags": [f"t{k}", None][: k % 3], "at": {"x": k / 3}}
                for k in range(count)
            ]
        ),
        "empty": pa.nulls(count),
        "small": pa.array([k % 7 for k in range(count)], pa.int8()),
        "score": pa.array([rng.random() for _ in range(count)], pa.float32()),
        "when": pa.array(
            [datetime(2026, 1, 1 + k % 9, tzinfo=UTC) for k in range(count)], pa.timestamp("us", "UTC")
        ),
        "day": pa.array([date(2026, 2, 1 + k % 9) for k in range(count)]),
        "price": pa.array([Decimal(k) / 100 for k in range(count)], pa.decimal128(9, 2)),
        "raw": pa.array([bytes([k, 255]) for k in range(count)]),
        "kind": pa.array([f"c{k % 3}" for k in range(count)]).dictionary_encode(),
    }
    return pa.table(columns).replace_schema_metadata({"made by": "a test"})


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.dictionary(pa.int32(), pa.string()),
]


@DROPS
@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_parquet_keeps_every_column_and_type(drop, kind, tmp_path):
    texts = [*TEXTS, None, "", " \n"]
    table = rich_table(texts, kind)
    path = tmp_path / "c.parquet"
    pq.write_table(table, path, row_group_size=11)
    stored, before = pq.read_table(path), digests(path)
    kept = keep(path, tmp_path / "out", drop, "parquet")
    expected = oracle(texts, kept.flagged, drop)
    assert pq.read_schema(kept.files[0]).equals(stored.schema, check_metadata=True)
    rows = stored.to_pylist()
    encode = str.encode if kind == pa.binary() else str
    wanted = [{**rows[row], "text": None if text is None else encode(text)} for row, text in expected.left]
    assert kept.table.to_pylist() == wanted
    assert kept.counts.model_dump() == expected.counts
    assert digests(path) == before


def test_parquet_becomes_jsonl_with_what_json_lacks_spelled_out(tmp_path):
    table = rich_table(["w1 w2 w3 w4", "w5"], pa.binary())
    table = table.append_column("nan", pa.array([float("nan"), float("inf")]))
    pq.write_table(table, tmp_path / "c.parquet")
    first, second = keep(tmp_path / "c.parquet", tmp_path / "out", "document", "jsonl", every=0).objects
    assert list(first) == table.column_names
    assert first["text"] == "w1 w2 w3 w4"
    assert second["meta"] == {"tags": ["t1"], "at": {"x": 1 / 3}}
    assert (second["when"], second["day"], second["price"]) == (
        "2026-01-02T00:00:00+00:00",
        "2026-02-02",
        "0.01",
    )
    assert (second["raw"], second["kind"], second["small"]) == ("Af8=", "c1", 1)
    assert (first["nan"], second["nan"], first["name"], first["empty"]) == (None, None, None, None)


@DROPS
def test_shards_of_other_types_stay_as_they_are(drop, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    half = len(TEXTS) // 2
    tables = [
        pa.table({"text": TEXTS[:half], "n": pa.array(range(half), pa.int32())}),
        pa.table(
            {
                "n": [f"n{k}" for k in range(half, len(TEXTS))],
                "text": pa.array(TEXTS[half:], pa.large_string()),
            }
        ),
    ]
    for number, table in enumerate(tables):
        pq.write_table(table, folder / f"{number}.parquet")
    before = digests(folder)
    kept = keep(folder, tmp_path / "out", drop, "parquet")
    expected = oracle(TEXTS, kept.flagged, drop)
    assert [pq.read_schema(file) for file in kept.files] == [table.schema for table in tables]
    rows = [row for table in tables for row in table.to_pylist()]
    found = [row for file in kept.files for row in pq.read_table(file).to_pylist()]
    assert found == [{**rows[row], "text": text} for row, text in expected.left]
    assert digests(folder) == before


def test_json_objects_keep_keys_order_and_values(tmp_path):
    lines = [
        '{"b": {"z": 1, "a": [1, "x", null]}, "text": "w1 w2 w3 w4 w5 w6", "a": 12345678901234567890123}',
        '{"text": "w1 w2 w3 w4 w7", "emoji": "\\ud83d\\ude00\\u2028", "f": 0.1, "nan": NaN}',
        '{"only": true}',
        '{"text": null, "broken": "\\ud800"}',
        "",
        '{"x": {}, "text": "w8"}',
    ]
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    before = digests(path)
    kept = keep(path, tmp_path / "out", "window", "jsonl", every=2)
    assert kept.flagged == {("w1", "w2")}
    assert kept.lines == [
        '{"b": {"z": 1, "a": [1, "x", null]}, "text": " w5 w6", "a": 1.2345678901234568e+22}',
        '{"text": " w7", "emoji": "😀\u2028", "f": 0.1, "nan": null}',
        '{"only": true}',
        '{"text": null, "broken": "\ufffd"}',
        '{"x": {}, "text": "w8"}',
    ]
    assert kept.counts.columns_replaced == ("a", "nan", "broken")
    assert digests(path) == before


HARD_FOR_READERS = [
    '{"text": "w1 w2 w3 w4 w5", "v": NaN}',
    '{"text": "w1", "v": [{"deep": -Infinity}, "\\ud83d"]}',
    '{"text": "w2", "v": 123456789012345678901234567890}',
    '{"text": "w3", "v": 1e400}',
    '{"text": "w4", "v": null, "v": "twice"}',
    '{"text": "w6", "\\udc00key": 1, "v": "later text"}',
]


def test_what_is_kept_as_jsonl_is_read_by_strict_readers(tmp_path, monkeypatch):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(line + "\n" for line in HARD_FOR_READERS))
    kept = keep(path, tmp_path / "out", "window", "jsonl", every=0)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    strict = [json.loads(line, parse_constant=refuse) for line in kept.lines]
    assert [row["v"] for row in strict] == [
        None,
        [{"deep": None}, "\ufffd"],
        123456789012345678901234567890.0,
        None,
        "twice",
        "later text",
    ]
    assert kept.counts.columns_replaced == ("v", "\ufffdkey")
    files = [str(file) for file in kept.files]
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["text"][:] == [row["text"] for row in strict]


def nested_table(kind: str, rows: int = 600) -> pa.Table:
    words = pa.array([f"k{row % 3}" for row in range(rows)])
    nested = {
        "list of dictionary": pa.array([["a", "b"]] * rows, pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        "struct of dictionary": pa.StructArray.from_arrays([words.dictionary_encode()], ["kind"]),
        "messages": pa.array([[{"role": "user", "content": f"c{row}"}] for row in range(rows)]),
        "map": pa.array([[("k", row)] for row in range(rows)], pa.map_(pa.string(), pa.int64())),
        "views": pa.array([["a", None]] * rows, pa.list_(pa.string_view())),
    }
    return pa.table({"text": [TEXTS[row % len(TEXTS)] for row in range(rows)], "nested": nested[kind]})


@FORMATS
@pytest.mark.parametrize("kind", ["list of dictionary", "struct of dictionary", "messages", "map", "views"])
def test_nested_columns_are_kept_over_row_groups(kind, form, tmp_path):
    table = nested_table(kind)
    pq.write_table(table, tmp_path / "c.parquet", row_group_size=100)
    config = CorpusConfig.model_validate({"path": str(tmp_path / "c.parquet"), "window": WINDOW})
    check_writable(config, form)
    kept = keep(tmp_path / "c.parquet", tmp_path / "out", "document", form)
    expected = [table["nested"][row].as_py() for row, _ in oracle(TEXTS * 15, kept.flagged, "document").left]
    found = (
        [row["nested"] for file in kept.files for row in pq.ParquetFile(file).read_row_group(0).to_pylist()]
        if form == "parquet"
        else [row["nested"] for row in kept.objects]
    )
    assert found == (
        [[[key, value] for key, value in one] for one in expected]
        if kind == "map" and form == "jsonl"
        else expected
    )


def test_columns_that_parquet_cannot_hold_are_refused_by_the_trial(tmp_path):
    odd = pa.array([None, {"empty": {}}], pa.struct([("empty", pa.struct([]))]))
    table = pa.table({"text": TEXTS[:2], "odd": odd})
    saved = tmp_path / "saved"
    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(saved)
    config = CorpusConfig.model_validate({"path": str(saved)})
    with pytest.raises(UsageError, match=r"^format: the column 'odd' of .* cannot be written as parquet"):
        check_writable(config, "parquet")
    check_writable(config, "jsonl")


def test_a_repeated_column_is_kept_or_refused_by_the_trial(tmp_path):
    columns = [pa.array(TEXTS), pa.array(range(len(TEXTS))), pa.array([0] * len(TEXTS))]
    pq.write_table(pa.Table.from_arrays(columns, names=["text", "n", "n"]), tmp_path / "c.parquet")
    config = CorpusConfig.model_validate({"path": str(tmp_path / "c.parquet")})
    check_writable(config, "parquet")
    with pytest.raises(UsageError, match=r"^format: .*c\.parquet has several columns 'n', .* set format to"):
        check_writable(config, "jsonl")
    kept = keep(tmp_path / "c.parquet", tmp_path / "out", "document", "parquet", every=0)
    assert pq.ParquetFile(kept.files[0]).schema_arrow.names == ["text", "n", "n"]


@FORMATS
def test_the_trial_reads_the_first_rows_of_each_file(form, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "a.csv").write_text("text,n\nw1,1\n")
    (folder / "b.csv").write_text("text,n,n\nw1,1,2\n")
    with pytest.raises(CorpusError, match=r"b\.csv, line 1: has several columns 'n'"):
        check_writable(CorpusConfig.model_validate({"path": str(folder)}), form)


def test_integers_of_64_bits_without_a_sign_stay_exact_in_jsonl(tmp_path):
    hashes = [2**64 - 1, 2**63, 5]
    table = pa.table({"text": ["w1 w2", "w2 w3", "w3 w4"], "hash": pa.array(hashes, pa.uint64())})
    pq.write_table(table, tmp_path / "c.parquet")
    kept = keep(tmp_path / "c.parquet", tmp_path / "out", "document", "jsonl", every=0)
    assert [row["hash"] for row in kept.objects] == hashes
    assert kept.counts.columns_replaced == ()
    files = [str(file) for file in kept.files]
    loaded = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["text"][:] == ["w1 w2", "w2 w3", "w3 w4"]


def test_more_than_is_allowed_writes_nothing(tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    free = keep(path, tmp_path / "free", "document", "jsonl", every=3)
    held = keep(path, tmp_path / "held", "document", "jsonl", every=3, max_flagged=0.2)
    assert held.files == []
    assert held.counts == free.counts.model_copy(update={"withheld": True, "rows_written": 0})
    cut = keep(path, tmp_path / "cut", "window", "jsonl", every=3, max_flagged=0.2)
    assert (cut.files, cut.counts.withheld) == ([], True), (
        "it is windows that count, dropped documents or none"
    )


def test_a_larger_share_of_documents_than_is_allowed_writes_nothing(tmp_path):
    """One example of many is flagged; it stands in ten documents of eleven."""
    texts = [f"w1 w1 w1 w1 w{row % 8 + 2} w{row % 7} w3 w{row % 5}" for row in range(10)] + ["w9 w9 w9 w9"]
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in texts])
    held = keep(path, tmp_path / "held", "document", "jsonl", every=100, max_flagged=0.25)
    assert (held.files, held.counts.documents_dropped, held.counts.withheld) == ([], 10, True)
    cut = keep(path, tmp_path / "cut", "window", "jsonl", every=100, max_flagged=0.25)
    assert (len(cut.files), cut.counts.withheld) == (1, False)


@pytest.mark.parametrize(
    ("drop", "after", "noted"), [("document", 70, True), ("document", 80, False), ("window", 70, False)]
)
def test_text_that_goes_with_long_documents_is_noted(drop, after, noted):
    zeros = {key: 0 for key, field in KeptCounts.model_fields.items() if field.is_required()}
    counts = KeptCounts(**{**zeros, "characters_before": 100, "characters_after": after})
    config = ScreenConfig.model_construct(drop=drop, max_flagged=0.25)
    notes = much_text_dropped(counts, config)
    assert [note.code for note in notes] == (["much_text_dropped"] if noted else [])
    assert all("30% of the text" in note.text for note in notes)


def test_json_types_are_those_that_hold_every_row(tmp_path):
    rows: list[dict[str, Any]] = [{"text": "w1", "n": None, "m": {"a": 1}} for _ in range(1500)]
    rows += [{"text": None, "n": 3, "m": {"b": ["x"]}, "late": []}, {"n": 2.5}, {"m": None, "text": "w2 w3"}]
    path = write_jsonl(tmp_path / "c.jsonl", rows)
    table = keep(path, tmp_path / "out", "window", "parquet", every=0).table
    assert table.column_names == ["text", "n", "m", "late"]
    assert table.schema.field("n").type == pa.float64()
    assert table.schema.field("text").type == pa.string()
    assert table["n"].to_pylist() == [*[None] * 1500, 3.0, 2.5, None]
    assert table["m"][0].as_py() == {"a": 1, "b": None}
    assert table["m"][1500].as_py() == {"a": None, "b": ["x"]}


@pytest.mark.parametrize(
    "rows",
    [
        [{"text": "w1", "n": 1}, {"text": "w1", "n": "one"}],
        [{"text": "w1", "n": 1}] * 2000 + [{"text": "w1", "n": "one"}],
        [{"text": "w1", "m": 2**70 if row == 9 else 1, "n": "one" if row == 5 else row} for row in range(6)],
        [{"text": "w1", "n": {}}],
        [{"text": "w1", "n": [{"k": {}}]}],
        [{"text": "w1", "n": 2**70}],
        [{"text": "w1", "n": "\ud800"}],
    ],
)
def test_rows_that_no_parquet_holds_are_named(rows, tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [*rows, {"text": "w1 w2 w3"}])
    empty = rows[-1]["n"] in ({}, [{"k": {}}])  # of the whole column, not of a row
    place = "" if empty else f"from row {len(rows)} on: "
    told = rf"^format: the rows of .*\({place}.*'?n'?.*; set format to jsonl$"
    with pytest.raises(UsageError, match=told) as caught:
        arrow_schema(CorpusConfig.model_validate({"path": str(path)}))
    assert "\n" not in str(caught.value)
    assert len(keep(path, tmp_path / "out", "document", "jsonl", every=0).objects) == len(rows) + 1


@DROPS
@FORMATS
def test_csv_columns_are_strings(drop, form, tmp_path):
    rows = [
        {"id": f"0{k}", "text": text, "note, quoted": f'say "{k}"\n' if k % 2 else ""}
        for k, text in enumerate(TEXTS)
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path = tmp_path / "c.csv"
    path.write_text("\ufeff" + buffer.getvalue(), encoding="utf-8")
    before = digests(path)
    kept = keep(path, tmp_path / "out", drop, form)
    expected = oracle(TEXTS, kept.flagged, drop)
    written = kept.table.to_pylist() if form == "parquet" else kept.objects
    assert written == [{**rows[row], "text": text} for row, text in expected.left]
    assert digests(path) == before


def test_a_csv_column_that_would_be_lost_is_refused(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("text,n,n\nw1 w2 w3,1,2\n")
    with pytest.raises(CorpusError, match="has several columns 'n'"):
        keep(path, tmp_path / "out", "document", "jsonl")


@DROPS
@FORMATS
@pytest.mark.parametrize("documents", ["line", "file"])
def test_txt_gives_its_one_column(documents, drop, form, tmp_path):
    folder = tmp_path / "txt"
    folder.mkdir()
    texts = [" ".join(text.split()) for text in TEXTS]
    if documents == "line":
        (folder / "a.txt").write_text("".join(f"{text}\r\n" for text in texts), newline="")
    else:
        for k, text in enumerate(texts):
            (folder / f"{k:03d}.txt").write_text(text)
    before = digests(folder)
    kept = keep(folder, tmp_path / "out", drop, form, documents=documents)
    expected = oracle(texts, kept.flagged, drop)
    written = kept.table.to_pylist() if form == "parquet" else kept.objects
    assert written == [{"text": text} for _, text in expected.left]
    assert kept.counts.model_dump() == expected.counts
    assert digests(folder) == before


def test_a_json_array_gives_its_objects(tmp_path):
    (tmp_path / "c.json").write_text(
        json.dumps([{"n": k, "text": text} for k, text in enumerate(TEXTS)], indent=1)
    )
    kept = keep(tmp_path / "c.json", tmp_path / "out", "window", "jsonl")
    expected = oracle(TEXTS, kept.flagged, "window")
    assert kept.objects == [{"n": row, "text": text} for row, text in expected.left]


@DROPS
def test_a_saved_dataset_keeps_its_features(drop, tmp_path):
    labels = datasets.ClassLabel(names=["bad", "good"])
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": labels, "l": datasets.List(datasets.Value("int8"))}
    )
    rows = [{"text": text, "label": k % 2, "l": [k % 5] * (k % 3)} for k, text in enumerate(TEXTS)]
    datasets.Dataset.from_list(rows, features=features).save_to_disk(tmp_path / "saved", num_shards=2)
    before = digests(tmp_path / "saved")
    kept = keep(tmp_path / "saved", tmp_path / "out", drop, "parquet")
    expected = oracle(TEXTS, kept.flagged, drop)
    assert kept.table.to_pylist() == [{**rows[row], "text": text} for row, text in expected.left]
    assert digests(tmp_path / "saved") == before
    again = datasets.load_dataset(str(kept.folder / "kept"), split="train", cache_dir=str(tmp_path / "cache"))
    assert again.features == features


def test_a_hub_dataset_is_streamed_with_all_its_columns(tmp_path, monkeypatch):
    data = tmp_path / "hub"
    data.mkdir()
    rows = [{"text": text, "url": f"u{k}"} for k, text in enumerate(TEXTS)]
    pq.write_table(pa.Table.from_pylist(rows), data / "train-00000-of-00001.parquet")
    real = datasets.load_dataset_builder

    def builder(path, revision=None, **options):
        assert (path, revision) == ("hf://datasets/owner/data", "v1")
        return real(str(data), **options)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    kept = keep("owner/data", tmp_path / "out", "window", "parquet", revision="v1")
    expected = oracle(TEXTS, kept.flagged, "window")
    assert kept.table.to_pylist() == [{**rows[row], "text": text} for row, text in expected.left]


@pytest.mark.parametrize("name", ["c.jsonl", "c.txt", "c.csv"])
@FORMATS
def test_rows_without_text_stay_and_rows_that_are_not_unicode_go(name, form, tmp_path):
    data = {
        "c.jsonl": b'{"text": "w1 w2 w3"}\n{"text": "w1\xff"}\n{"text": "w1\\ud800"}\n{"text": ""}\n'
        b'{"text": "w4"}\n',
        "c.txt": b"w1 w2 w3\nw1\xff\nw1\xff\n\nw4\n",
        "c.csv": b'text\nw1 w2 w3\nw1\xff\nw1\xff\n""\nw4\n',
    }
    (tmp_path / name).write_bytes(data[name])
    kept = keep(tmp_path / name, tmp_path / "out", "document", form, every=0)
    written = kept.table.to_pylist() if form == "parquet" else kept.objects
    assert written == [{"text": "w1 w2 w3"}, {"text": ""}, {"text": "w4"}]
    expected = oracle(["w1 w2 w3", "\0", "\0", "", "w4"], set(), "document")
    assert kept.counts.model_dump() == expected.counts
    assert (kept.counts.undecodable, kept.counts.empty, kept.counts.documents_kept) == (2, 1, 3)


def test_values_of_parquet_that_are_not_unicode_go(tmp_path):
    ends = pa.array([0, 8, 10, 10], pa.int32()).buffers()[1]
    column = pa.Array.from_buffers(pa.string(), 3, [None, ends, pa.py_buffer(b"w1 w2 w3a\xff")])
    pq.write_table(pa.table({"text": column, "n": [1, 2, 3]}), tmp_path / "c.parquet")
    kept = keep(tmp_path / "c.parquet", tmp_path / "out", "document", "parquet", every=0)
    assert kept.table.to_pylist() == [{"text": "w1 w2 w3", "n": 1}, {"text": "", "n": 3}]


@DROPS
def test_windows_outside_the_sample_are_kept_and_counted(drop, tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    kept = keep(path, tmp_path / "out", drop, "jsonl", every=2, limit=8)
    assert len(kept.scored) == 8
    expected = oracle(TEXTS, kept.flagged, drop, scored=kept.scored)
    assert [row["text"] for row in kept.objects] == [text for _, text in expected.left]
    assert kept.counts.model_dump() == expected.counts
    assert kept.counts.windows_unscored > 0


@FORMATS
def test_parts_hold_the_rows_in_order_and_replace_earlier_ones(form, tmp_path, monkeypatch):
    path = write_jsonl(
        tmp_path / "c.jsonl", [{"n": k, "text": text} for k, text in enumerate(some_texts(4, 900))]
    )
    monkeypatch.setattr(sinks, "PART_BYTES", 2000)
    other = "jsonl" if form == "parquet" else "parquet"
    keep(path, tmp_path / "out", "document", other, every=0)
    left = tmp_path / "out/kept/part-99999.jsonl"
    left.write_text("{}\n")
    with pytest.raises(RunStateError, match="did not write"):
        keep(path, tmp_path / "out", "document", form, every=0)
    assert left.exists(), "it may be the user's"
    (tmp_path / "out/.writing").write_text("kept/part-99999.jsonl\n")  # a process died before it was listed
    kept = keep(path, tmp_path / "out", "document", form, every=0)
    assert len(kept.files) > 2
    assert {file.suffix for file in kept.files} == {f".{form}"}
    rows = kept.table.to_pylist() if form == "parquet" else kept.objects
    assert [row["n"] for row in rows] == list(range(900))
    RunStore(tmp_path / "out", "screening", {}).close()  # every part is as the manifest lists it


@FORMATS
def test_the_kept_corpus_is_a_corpus_again(form, tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [{"id": f"d{k}", "text": text} for k, text in enumerate(TEXTS)])
    kept = keep(path, tmp_path / "out", "document", form)
    config = CorpusConfig.model_validate({"path": str(kept.folder / "kept"), "id": "id"})
    expected = oracle(TEXTS, kept.flagged, "document").left
    assert [(d.id, d.text) for d in open_documents(config)] == [(f"d{row}", text) for row, text in expected]
    assert not kept.flagged & {
        content(piece) for d in open_documents(config) for piece in windows_of(words_of(d.text), 4, 4, 2)[0]
    }


@FORMATS
@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_where_nothing_stays_kept_is_empty(form, ending, tmp_path):
    path, rows = tmp_path / f"c.{ending}", [{"text": "w1 w2 w3 w4", "n": 1}] * 3
    write_jsonl(path, rows) if ending == "jsonl" else pq.write_table(pa.Table.from_pylist(rows), path)
    kept = keep(path, tmp_path / "out", "window", form, every=1)
    assert (kept.counts.documents_dropped, kept.counts.rows_written) == (3, 0)
    assert len(kept.files) == 1
    if form == "parquet":
        assert kept.table.schema.names == ["text", "n"]
        assert len(kept.table) == 0
    else:
        assert kept.objects == []


def test_a_corpus_that_changed_meanwhile_is_refused(tmp_path):
    path = write_jsonl(tmp_path / "c.jsonl", [{"text": text} for text in TEXTS])
    changed = [{"text": f"w0 {text}"} for text in TEXTS]
    with pytest.raises(CorpusError, match=r"corpus\.path: .* has changed since its examples were cut"):
        keep(path, tmp_path / "out", "window", "jsonl", every=1, before=lambda: write_jsonl(path, changed))
