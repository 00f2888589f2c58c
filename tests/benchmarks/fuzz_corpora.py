"""Corpora as users have them, and damaged ones: each is read right or refused in one sentence.

A case writes documents that it knows in a random format, packing, encoding and layout of files, perhaps with
one fault, and reads them with the product's own code: fingerprint, documents, examples, and the rows that a
screening writes back. What is read must be those documents, unless the fault allows another outcome; else a
UsageError or RunError; never another exception, within bounded time and memory.

    python tests/benchmarks/fuzz_corpora.py --cases 500
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import lzma
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import fuzzing  # noqa: E402 - beside this file

CASES_IN_CI = 60
SECONDS = 20
"""A case may take; most take a few milliseconds."""
GROWTH = 400 << 10
"""KiB by which a case may raise the process's peak of memory."""
BOUND = 1 << 16
"""What a document may hold while fuzzing: a scaled-down `MAX_DOCUMENT_BYTES`."""

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.compress,
}
SPLITS = {
    "train": ("train", "training", "TRAIN"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
METADATA = (
    "README.md",
    "dataset_infos.json",
    "LICENSE.txt",
    "metadata.json",
    ".gitattributes",
    "plot.png",
    "load.py",
)
OLD = {
    "cp1252": "é",
    "latin-1": "ü",
    "cp1251": "щ",
    "koi8-r": "Ж",
    "gb18030": "语",
    "cp932": "語テ",
    "cp949": "글",
}


class Right(NamedTuple):
    """What must come of a case."""

    documents: list[str] | None
    """What may be read; None if nothing may."""
    refused: bool = False
    """Whether it may be refused."""
    loose: bool = False
    """Whether documents may differ where the fault lies: changed bytes of plain text are other text."""


class Corpus:
    """A corpus that is being made: its files, and how each is to be written."""

    def __init__(self, rng: random.Random, folder: Path) -> None:
        self.rng = rng
        self.root = folder / "corpus"
        self.form = rng.choice(["txt", "jsonl", "jsonl", "json", "csv", "parquet", "arrow"])
        self.text_form = self.form not in ("parquet", "arrow")
        self.end = rng.choice(["\n", "\n", "\r\n", "\r"])
        self.files: dict[str, list[str]] = {}
        """Documents by file, its path below the root with no ending."""
        self.config: dict[str, Any] = {}
        self.card: str | None = None

    def documents(self, count: int, extra: str = "") -> list[str]:
        """Random documents; `extra` stands in each."""
        return [self._document(extra) for _ in range(count)]

    def _document(self, extra: str) -> str:
        rng = self.rng
        words = [f"w{rng.randrange(2, 300)}" for _ in range(rng.randrange(2, 30))]
        odd = [
            "é",
            "日本",
            "😀",
            '"',
            "'",
            ",",
            "\\",
            "\u2028",
            "\x85",
            "a\ufeffb",
            "{}",
            "[",
            "NA",
            "2020-01-01",
            "\t",
        ]
        if self.form != "txt":
            odd += ["\n", "\r\n", "\r", "\n\ufeff"]
        words += rng.choices(odd, k=rng.randrange(3)) if not extra else [extra]
        rng.shuffle(words)
        return f"w2 {' '.join(words)} w3"

    def ending(self) -> str:
        """A file's ending; each may be packed in another way."""
        return f".{self.form}{self.rng.choice(list(PACKERS)) if self.text_form else ''}"

    def write(self, encoding: str = "utf-8", marks: bool = False) -> list[Path]:
        """Write all files; returns their paths in the order in which they are read."""
        written = {}
        for name, rows in self.files.items():
            path = self.root / f"{name}{self.ending()}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.packed(path, self.content(rows, encoding, marks)))
            written[path] = rows
        for name in (
            self.rng.sample(METADATA, self.rng.randrange(len(METADATA))) if len(self.files) > 1 else ()
        ):
            (self.root / name).write_text("{}")
        if self.card is not None:
            (self.root / "README.md").write_text(self.card)
        return sorted(written)

    def packed(self, path: Path, data: bytes) -> bytes:
        return PACKERS[path.suffix](data) if path.suffix in PACKERS else data

    def content(self, rows: list[str], encoding: str = "utf-8", marks: bool = False) -> bytes:
        """A file of some documents."""
        if not self.text_form:
            return self._table(rows)
        parts = self._lines(rows)
        if marks and self.form != "json":
            return b"".join(b"\xef\xbb\xbf" + part.encode() for part in parts)
        return (b"\xef\xbb\xbf" if marks else b"") + "".join(parts).encode(encoding, "replace")

    def _lines(self, rows: list[str]) -> list[str]:
        end = self.end
        if self.form == "txt":
            return [f"{row}{end}" for row in rows]
        if self.form == "csv":
            return [_record(["n", "text"], end), *(_record([str(n), row], end) for n, row in enumerate(rows))]
        objects = [
            json.dumps({"n": n, "text": row, "odd": [float("nan"), None, 10**30]}, ensure_ascii=self.ascii)
            for n, row in enumerate(rows)
        ]
        if self.form == "json" and self.rng.random() < 0.5:
            return [f"[{f',{end}'.join(objects)}]"]
        blank = end if self.rng.random() < 0.2 else ""
        return [f"{blank}{one}{end}" for one in objects]

    @property
    def ascii(self) -> bool:
        return self.rng.random() < 0.3

    def _table(self, rows: list[str]) -> bytes:
        kinds = [
            pa.string(),
            pa.large_string(),
            pa.string_view(),
            pa.binary(),
            pa.dictionary(pa.int32(), pa.string()),
        ]
        kind = self.rng.choice(kinds)
        column = pa.array(rows, pa.string())
        column = column.dictionary_encode() if pa.types.is_dictionary(kind) else column.cast(kind)
        nested = pa.array([[{"a": n}] for n in range(len(rows))], pa.list_(pa.struct([("a", pa.int64())])))
        table = pa.table({"nested": nested, "text": column})
        sink = io.BytesIO()
        if self.form == "parquet":
            pq.write_table(table, sink, row_group_size=self.rng.choice([1, 3, 100]))
        else:
            opened = self.rng.choice([pa.ipc.new_file, pa.ipc.new_stream])
            with opened(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=4)
        return sink.getvalue()


def _record(fields: list[str], end: str) -> str:
    sink = io.StringIO()
    # Python 3.11 quotes only line ends like its own, and no reader can tell others from those of records.
    quoting = csv.QUOTE_ALL if any("\r" in one or "\n" in one for one in fields) else csv.QUOTE_MINIMAL
    csv.writer(sink, lineterminator=end, quoting=quoting).writerow(fields)
    return sink.getvalue()


# How files lie in a folder. Each returns the documents that are to be read.


def one_file(corpus: Corpus) -> list[str]:
    corpus.files = {"data": corpus.documents(corpus.rng.randrange(1, 9))}
    corpus.config["path"] = "file"
    return corpus.files["data"]


def no_split(corpus: Corpus) -> list[str]:
    names = corpus.rng.sample(
        ["part-0", "part-1", "sub/part-00000-of-00002", "sub/deep/x", "latest", "b\udcff\udce4"], 3
    )
    corpus.files = {name: corpus.documents(corpus.rng.randrange(1, 5)) for name in names}
    return [text for name in _in_order(corpus) for text in corpus.files[name]]


def by_split(corpus: Corpus) -> list[str]:
    rng = corpus.rng
    shapes = [
        "{}",
        "{}-00000-of-00002",
        "{}-00001-of-00002-a09b74b3ef9c3b56",
        "my_{}.1",
        "{}/part",
        "data/{}/x",
        "en/{}",
    ]
    shape = rng.choice(shapes)
    asked = rng.choice(list(SPLITS))
    for split, words in SPLITS.items():
        if split == asked or rng.random() < 0.8:
            corpus.files[shape.format(rng.choice(words))] = corpus.documents(rng.randrange(1, 5))
            right = corpus.files if split == asked else None
            if right is not None:
                wanted = list(corpus.files.values())[-1]
    corpus.config["split"] = asked if asked != "validation" else rng.choice(["validation", "dev", "valid"])
    return wanted


def by_card(corpus: Corpus) -> list[str]:
    for name in ("data/en-a", "data/en-b", "data/de-a", "other/x"):
        corpus.files[name] = corpus.documents(corpus.rng.randrange(1, 4))
    corpus.card = (
        "---\nlicense: mit\nconfigs:\n- config_name: en\n  default: true\n  data_files:\n"
        "  - {split: train, path: data/en-*}\n  - split: test\n    path: ['**/de-*', other/**]\n---\n# Data\n"
    )
    corpus.config["split"] = corpus.rng.choice(["train", "test"])
    names = ("data/en-a", "data/en-b") if corpus.config["split"] == "train" else ("data/de-a", "other/x")
    return [text for name in names for text in corpus.files[name]]


def _in_order(corpus: Corpus) -> list[str]:
    """Names as their files will be sorted: the ending decides nothing between these."""
    return sorted(corpus.files, key=lambda name: f"{name}.")


LAYOUTS = (one_file, no_split, by_split, by_split, by_card)


# Faults. Each writes the files, and returns what must come of it.


def nothing(corpus: Corpus, documents: list[str]) -> Right:
    corpus.write()
    return Right(documents)


def marks(corpus: Corpus, documents: list[str]) -> Right:
    corpus.write(marks=True)
    return Right(documents)


def padding(corpus: Corpus, documents: list[str]) -> Right:
    for path in corpus.write():
        if corpus.text_form:
            _rewrite(corpus, path, lambda data: data + b"\0" * corpus.rng.choice([1, 7, 512, 1 << 20]))
    return Right(documents)


def wide(corpus: Corpus, documents: list[str]) -> Right:
    encoding = corpus.rng.choice(["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
    corpus.write(encoding)
    return Right(None, refused=True) if corpus.text_form else Right(documents)


def old(corpus: Corpus, documents: list[str]) -> Right:
    encoding, sign = corpus.rng.choice(list(OLD.items()))
    corpus.files = {name: corpus.documents(5, sign) for name in corpus.files}
    corpus.rng = random.Random(str(corpus.rng.random()))
    with mock.patch.object(Corpus, "ascii", new=False):
        corpus.write(encoding)
    if corpus.text_form:
        return Right(None, refused=True)
    return Right(documents, loose=True)


def hole(corpus: Corpus, documents: list[str]) -> Right:
    path = corpus.rng.choice(corpus.write())
    _rewrite(corpus, path, lambda data: data + b"\0" * corpus.rng.choice([64, 4096, 3 << 20]) + b"w5 more\n")
    return Right(documents, refused=True)


def large(corpus: Corpus, documents: list[str]) -> Right:
    name = corpus.rng.choice(list(corpus.files))
    read = corpus.files[name][0] in documents
    corpus.files[name].append("w4 " * BOUND)
    corpus.write()
    return Right(None if read else documents, refused=True)


def cut(corpus: Corpus, documents: list[str]) -> Right:
    path = corpus.rng.choice(corpus.write())
    data = path.read_bytes()
    path.write_bytes(data[: corpus.rng.randrange(len(data))])
    plain = corpus.text_form and path.suffix not in (".gz", ".xz", ".zst")
    return Right(documents, refused=True, loose=plain)


def flipped(corpus: Corpus, documents: list[str]) -> Right:
    path = corpus.rng.choice(corpus.write())
    data = bytearray(path.read_bytes())
    for _ in range(corpus.rng.choice([1, 1, 5])):
        data[corpus.rng.randrange(len(data))] ^= 1 << corpus.rng.randrange(8)
    path.write_bytes(data)
    packed = path.suffix in (".gz", ".xz")
    return Right(documents, refused=True, loose=not packed)


def odd_json(corpus: Corpus, documents: list[str]) -> Right:
    corpus.form = corpus.rng.choice(["json", "jsonl"])
    corpus.text_form = True
    rows = [{"text": text, "n": None} for text in corpus.documents(4)]
    shape = corpus.rng.choice(
        [
            lambda: json.dumps({"data": rows}),
            lambda: json.dumps({"v": 1, "data": rows}, indent=2),
            lambda: "\n".join(json.dumps(row, indent=1) for row in rows),
            lambda: "\n".join(map(repr, rows)),
            lambda: repr(rows),
            lambda: ",\n".join(map(json.dumps, rows)),
            lambda: "".join(map(json.dumps, rows)),
            lambda: json.dumps(rows)[:-1] + ",]",
            lambda: json.dumps(rows) * 2,
            lambda: json.dumps([row["text"] for row in rows]),
            lambda: json.dumps({"text": ["a", "b"]}),
            lambda: '{"text": ' + "9" * 9000 + "}",
            lambda: "[" * 50_000,
            lambda: "<html>",
        ]
    )
    corpus.root.mkdir()
    path = corpus.root / f"data.{corpus.form}"
    path.write_text(shape())
    corpus.files, corpus.config = {"data": []}, {"path": "file"}
    return Right(None, refused=True)


def stranger(corpus: Corpus, documents: list[str]) -> Right:
    """Something that is no file, or no data that can be read, lies among the files."""
    corpus.write()
    odd = corpus.root / f"more{corpus.ending()}"
    kind = corpus.rng.choice(["fifo", "zero", "gone", "loop", "zip", "ndjson"])
    if kind == "fifo":
        os.mkfifo(odd)
    elif kind in ("zip", "ndjson"):
        odd.with_name(f"more.{kind}").write_bytes(b"x")
    else:
        target = {"zero": "/dev/zero", "gone": corpus.root / "gone", "loop": corpus.root}[kind]
        (corpus.root / "loop" if kind == "loop" else odd).symlink_to(target)
    if corpus.config.get("path") == "file":
        return Right(documents)
    return Right(documents if corpus.card is not None and kind != "loop" else None, refused=True)


def alone(corpus: Corpus, documents: list[str]) -> Right:
    """The path itself is no file."""
    corpus.root.mkdir()
    corpus.files, corpus.config = {"data": []}, {"path": "file"}
    path = corpus.root / f"data{corpus.ending()}"
    corpus.rng.choice([lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero"), path.touch])()
    return Right(None, refused=True)


def mixture(corpus: Corpus, documents: list[str]) -> Right:
    """A file that states no split beside others that do, or one of another format."""
    if corpus.config.get("path") == "file" or corpus.card is not None:
        return nothing(corpus, documents)
    corpus.write()
    (corpus.root / "extra.txt").write_text("w8 w9 w8 w9\n")
    (corpus.root / "extra.csv").write_text("text\nw8 w9 w8 w9\n")
    return Right(None, refused=True)


def twice(corpus: Corpus, documents: list[str]) -> Right:
    path = corpus.rng.choice(corpus.write())
    if (
        not corpus.text_form
        or path.suffix in PACKERS
        or corpus.card is not None
        or corpus.config.get("path") == "file"
    ):
        return Right(documents)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    return Right(None, refused=True)


def sliced(corpus: Corpus, documents: list[str]) -> Right:
    corpus.write()
    corpus.config["split"] = corpus.rng.choice(["train[:50%]", "train+test", "train[5:]", "nosuch"])
    return Right(None, refused=True)


def pointer(corpus: Corpus, documents: list[str]) -> Right:
    path = corpus.rng.choice(corpus.write())
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n")
    return Right(documents, refused=True)


FAULTS = (
    *[nothing] * 8, marks, marks, padding, padding, wide, wide, old, old, hole, large, cut, cut,
    flipped, flipped, flipped, odd_json, odd_json, stranger, stranger, alone, mixture, twice, sliced, pointer,
)  # fmt: skip


def _rewrite(corpus: Corpus, path: Path, change: Callable[[bytes], bytes]) -> None:
    unpack = {".gz": gzip.decompress, ".xz": lzma.decompress, ".zst": zstandard.decompress}.get(
        path.suffix, bytes
    )
    path.write_bytes(corpus.packed(path, change(unpack(path.read_bytes()))))


def attempt(rng: random.Random, folder: Path) -> str | None:
    """Make one corpus, read it, and say what went wrong."""
    corpus = Corpus(rng, folder)
    layout, fault = rng.choice(LAYOUTS), rng.choice(FAULTS)
    right = fault(corpus, layout(corpus))
    path = corpus.root
    if corpus.config.get("path") == "file":
        path = next(file for file in sorted(corpus.root.iterdir()) if file.name.startswith("data"))
    config = {**corpus.config, "path": str(path)}
    case = f"{fault.__name__} in {corpus.form}, {layout.__name__}"
    _tokenizer()  # what it loads is not the case's
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    try:
        with _time_limit(), _small_documents():
            found = _read(config, folder / "scratch")
    except _RefusedError as outcome:
        return None if right.refused else f"{case}: refused: {outcome}"
    except Exception as error:
        return f"{case}: {type(error).__name__}: {error}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    if grown > GROWTH or time.monotonic() - began > SECONDS:
        return f"{case}: took {grown:,} KiB and {time.monotonic() - began:.0f} s"
    return _judged(found, right, case)


class _RefusedError(Exception):
    """The corpus was refused in one sentence of ours."""


def _judged(found: list[str], right: Right, case: str) -> str | None:
    if found == right.documents:
        return None
    if right.documents is None:
        return f"{case}: read {len(found)} documents where it should refuse, the first {found[:1]!r:.200}"
    if right.loose:
        return None
    wrong = next((pair for pair in zip(found, right.documents, strict=False) if pair[0] != pair[1]), None)
    return (
        f"{case}: {len(found)} documents, not {len(right.documents)}; the first that differs: {wrong!r:.300}"
    )


def _read(fields: dict[str, Any], scratch: Path) -> list[str]:
    """All that the product does with a corpus but to run models."""
    from kdaudit.config.corpus import CorpusConfig
    from kdaudit.corpus import ExampleTokens, build_examples, open_documents, pin_source
    from kdaudit.corpus.records import read_records
    from kdaudit.errors import RunError, UsageError

    config = CorpusConfig.model_validate({**fields, "window": 14})
    try:
        pinned = pin_source(config).config
        documents = [document.text for document in open_documents(pinned)]
        counted = open_documents(pinned)
        sum(1 for _ in counted)
        scratch.mkdir()
        try:
            examples = build_examples(
                pinned, _tokenizer(), tokens=ExampleTokens(1, 1), seed=0, scratch=scratch
            )
        except UsageError as error:
            if documents:
                raise AssertionError(f"documents are read, but no examples: {error}") from error
            raise
        assert examples.counts.documents == counted.rows
        rows = [
            text for records in read_records(pinned) for text in records.texts if text and not text.isspace()
        ]
    except (UsageError, RunError) as error:
        if "\n" in str(error):
            raise AssertionError(f"several lines: {error}") from error
        raise _RefusedError(str(error)) from error
    assert rows == documents, "a screening would read other rows"
    return documents


@cache
def _tokenizer() -> Any:
    from toys import tokenizer

    return tokenizer()


@contextmanager
def _time_limit() -> Iterator[None]:
    """Turn a wait without end into a failure."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"took more than {SECONDS} s")

    was = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, was)


@contextmanager
def _small_documents() -> Iterator[None]:
    from kdaudit.corpus.readers import json_files, streams, tables, text_files

    with ExitStack() as stack:
        for module in (json_files, streams, tables, text_files):
            stack.enter_context(mock.patch.object(module, "MAX_DOCUMENT_BYTES", BOUND))
        stack.enter_context(mock.patch.object(streams, "_PIECE", BOUND >> 4))
        stack.enter_context(mock.patch.object(json_files, "_CHUNK", BOUND >> 4))
        yield


if __name__ == "__main__":
    fuzzing.main(attempt, cases=500)
