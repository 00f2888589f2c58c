"""Whatever a user gets wrong ends with exit code 2 and one sentence; once put right, the run goes on.

Each case makes one mistake in an audit that is right and calls `kdaudit run` as a user would. Where that has
begun a run directory, the mistake is put right, and the same call must get as far as loading a model there.
"""

from __future__ import annotations

import contextlib
import ctypes
import gzip
import importlib.util
import json
import lzma
import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
import zstandard
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

from kdaudit.cli import main, printing
from kdaudit.errors import EngineError, UsageError

Mistake = Callable[[Path], list[str]]
"""Goes wrong somewhere in the folder of an audit, or in the words for the command line that it returns."""

LOADING = "a model is being loaded"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit that is right: three small models, a larger teacher, a corpus and a holdout."""
    folder = tmp_path_factory.mktemp("good")
    toys.write_audit(folder)
    toys.save_model(folder / "teacher", 1, width=96)
    return folder


@pytest.fixture
def audit(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in which the test stands; no hub can be reached and no model is loaded."""
    folder = tmp_path / "audit"
    shutil.copytree(good, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise EngineError(LOADING)

    monkeypatch.setattr("kdaudit.inference.RemoteEngine.__init__", refuse)
    monkeypatch.setattr("kdaudit.pipelines.stages.opening.prepare", lambda *_: None)


def kdaudit(*words: str) -> tuple[int, str]:
    """Exit code and standard error of a command, in this process."""
    with as_plain_user():
        result = CliRunner().invoke(main, list(words))
    return result.exit_code, result.stderr


@contextlib.contextmanager
def as_plain_user() -> Iterator[None]:
    """Let file permissions bind root too, as they bind everyone else."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this thread
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; twice 32 bits
    assert libc.capget(header, held) == 0
    less = (ctypes.c_uint32 * 6)(*held)
    less[0] &= ~0b110  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
    assert libc.capset(header, less) == 0
    try:
        yield
    finally:
        assert libc.capset(header, held) == 0


# Mistakes. Each is a function of what goes wrong, so that the table below reads as a list.


def sets(*overrides: str) -> Mistake:
    """`--set` on the command line."""
    return lambda folder: [word for override in overrides for word in ("--set", override)]


def words(*more: str) -> Mistake:
    """Anything else there."""
    return lambda folder: list(more)


def edit(old: str, new: str) -> Mistake:
    """In audit.yaml."""

    def make(folder: Path) -> list[str]:
        text = (folder / "audit.yaml").read_text()
        assert old in text
        (folder / "audit.yaml").write_text(text.replace(old, new, 1))
        return []

    return make


def append(text: str) -> Mistake:
    """At the end of audit.yaml."""
    return lambda folder: write("audit.yaml", (folder / "audit.yaml").read_bytes() + text.encode())(folder)


def write(name: str, content: bytes, *more: str) -> Mistake:
    """A file of this content, and perhaps words on the command line."""

    def make(folder: Path) -> list[str]:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return list(more)

    return make


def corpus(name: str, content: bytes, *more: str) -> Mistake:
    """Another corpus than the right one."""
    return write(name, content, "--set", f"corpus.path=./{name}", *more)


def lines(*rows: Any) -> bytes:
    """JSON lines; bytes stand as they are."""
    return b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)


def gone(name: str) -> Mistake:
    """A file or folder that is not there."""

    def make(folder: Path) -> list[str]:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        return []

    return make


def made(name: str) -> Mistake:
    """A folder with nothing in it, instead of what was there."""

    def make(folder: Path) -> list[str]:
        if (folder / name).exists():
            gone(name)(folder)
        (folder / name).mkdir()
        return []

    return make


def locked(name: str) -> Mistake:
    """A file or folder that its user may neither read nor write."""

    def make(folder: Path) -> list[str]:
        (folder / name).chmod(0)
        return []

    return make


def cut(name: str, keep: int) -> Mistake:
    """A file of which only the first bytes were copied."""
    return lambda folder: write(name, (folder / name).read_bytes()[:keep])(folder)


def both(*mistakes: Mistake) -> Mistake:
    return lambda folder: [word for mistake in mistakes for word in mistake(folder)]


def describe(name: str, **more: Any) -> Mistake:
    """Other values in a model's JSON file."""

    def make(folder: Path) -> list[str]:
        found = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**found, **more}))
        return []

    return make


def renamed(old: str, new: str) -> Mistake:
    def make(folder: Path) -> list[str]:
        (folder / old).rename(folder / new)
        return []

    return make


def lost_shard(folder: Path) -> list[str]:
    """Weights in two shards, one of which was not copied."""
    weights = load_file(folder / "hard" / "model.safetensors")
    names = sorted(weights)
    index = {name: f"model-0000{1 + (row > 3)}-of-00002.safetensors" for row, name in enumerate(names)}
    first = {name: weights[name] for name in names[:4]}
    save_file(first, folder / "hard" / "model-00001-of-00002.safetensors", {"format": "pt"})
    (folder / "hard" / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )
    return gone("hard/model.safetensors")(folder)


def another_decoder(folder: Path) -> list[str]:
    """A tokenizer of its own whose decoder joins equal tokens: the text of one token is not known."""
    path = folder / "hard" / "tokenizer.json"
    described = json.loads(path.read_text().replace('"w17"', '"w-17"'))
    described["decoder"] = {
        "type": "CTC",
        "pad_token": "<unk>",
        "word_delimiter_token": "|",
        "cleanup": False,
    }
    path.write_text(json.dumps(described))
    return []


def longer_tokenizer(folder: Path) -> list[str]:
    """A token was added to every tokenizer, and the models have no row for it."""
    for name in ("teacher", "baseline", "soft", "hard"):
        path = folder / name / "tokenizer.json"
        found = json.loads(path.read_text())
        found["model"]["vocab"]["added"] = toys.VOCABULARY
        path.write_text(json.dumps(found))
    return []


def mixed_shards(folder: Path) -> list[str]:
    write("shards/a.csv", b"text\nx\n")(folder)
    return write("shards/b.jsonl", lines({"text": "x"}), "--set", "corpus.path=./shards")(folder)


def torn_parquet(folder: Path) -> list[str]:
    pq.write_table(pa.table({"text": ["w2 w3"] * 99}), folder / "c.parquet")
    return both(cut("c.parquet", 200), sets("corpus.path=./c.parquet"))(folder)


def numbers_in_parquet(folder: Path) -> list[str]:
    pq.write_table(pa.table({"text": [1, 2]}), folder / "c.parquet")
    return sets("corpus.path=./c.parquet", "corpus.id=null")(folder)


ROW = {"id": "a", "text": " ".join(f"w{i}" for i in range(2, 40))}
SOFT = "name: soft"
PACKED = lines(*[ROW] * 50)
_NOISE = random.Random(0).randbytes(5000)
"""Bytes that no packer makes smaller."""
HUGE = struct.pack("<Q", 1 << 40)  # a header that claims a terabyte

# Each: the mistake; what the sentence begins with; what it tells to do. `DIR` stands for the audit's folder.
# These are found in the configuration alone, so that `kdaudit validate` says the same.
CONFIGURATION = [
    pytest.param(
        edit(SOFT, "name: a/b"),
        "audit.yaml:13: models.students.0.name: 'a/b' cannot name a folder",
        "use 1 to 64 letters, digits",
        id="student named a/b",
    ),
    pytest.param(
        edit(SOFT, "name: ../x"),
        "audit.yaml:13: models.students.0.name: '../x' cannot name a folder",
        "use 1 to 64 letters, digits",
        id="student named ../x",
    ),
    pytest.param(
        edit(SOFT, "name: ''"),
        "audit.yaml:13: models.students.0.name: '' cannot name a folder",
        "use 1 to 64 letters, digits",
        id="student without a name",
    ),
    pytest.param(
        edit(SOFT, r'name: "soft\n"'),
        r"audit.yaml:13: models.students.0.name: 'soft\n' cannot name a folder",
        "use 1 to 64 letters, digits",
        id="student's name ends a line",
    ),
    *[
        pytest.param(
            edit(SOFT, f"name: {name}"),
            f"audit.yaml:13: models.students.0.name: '{name}' is reserved",
            "choose a name other than teacher, baseline, holdout and baseline-N",
            id=f"student named {name}",
        )
        for name in ("teacher", "Baseline", "baseline-1", "holdout")
    ],
    pytest.param(
        edit("name: hard", "name: soft"),
        "audit.yaml:16: models.students.1.name: 'soft' is used twice",
        "give each student its own name",
        id="students of one name",
    ),
    pytest.param(
        edit("name: hard", "name: SOFT"),
        "audit.yaml:16: models.students.1.name: 'SOFT' is used twice",
        "upper and lower case do not count",
        id="students' names differ by case",
    ),
    pytest.param(
        edit("name: toy", "name: ../toy"),
        "audit.yaml:1: name: '../toy' cannot name a folder",
        "use 1 to 64 letters, digits",
        id="audit named ../toy",
    ),
    pytest.param(
        edit("window: 14", "window: 13"),
        "audit.yaml:5: corpus.window: 13 tokens cannot hold extraction.prefix_tokens + ",
        "raise the window or lower those",
        id="window shorter than prefix and suffix",
    ),
    pytest.param(
        sets("holdout.window=13"),
        "--set holdout.window: 13 tokens cannot hold",
        "raise the window or lower those",
        id="holdout's window shorter than that",
    ),
    pytest.param(
        append("gate: {max_rate: 1.5}\n"),
        "audit.yaml:23: gate.max_rate: 1.5 is out of range",
        "give at most 1; it is a share, as 0.05 for 5%",
        id="gate above one",
    ),
    pytest.param(
        append("gate: {max_rate: -0.1}\n"),
        "audit.yaml:23: gate.max_rate: -0.1 is out of range",
        "give at least 0",
        id="gate below zero",
    ),
    pytest.param(
        append("gate:\n  max_rate: 0,1\n"),
        "audit.yaml:24: gate.max_rate: expected a number, got the text '0,1'",
        "write 0.1, with a dot",
        id="decimal comma",
    ),
    pytest.param(
        append("gate: {max_rate: 0,1}\n"),
        "audit.yaml:23: '1' cannot be a key",
        "write a fraction with a dot, as in 0.1, not with a comma",
        id="decimal comma in braces",
    ),
    pytest.param(
        sets("corpus.limit=100,000"),
        "--set corpus.limit: expected a whole number, got the text '100,000'",
        "write 100000, without separators",
        id="thousands separated",
    ),
    *[
        pytest.param(
            both(sets("models.baseline=null"), append(f"gate: {{{limit}}}\n")),
            f"audit.yaml:23: gate.{limit.split(':')[0]}: needs models.baseline",
            "name a baseline or remove this limit",
            id=f"{limit.split(':')[0]} without a baseline",
        )
        for limit in ("max_inherited: 0", "max_inheritance_rate: 0.1", "max_ratio_to_baseline: 2")
    ],
    pytest.param(
        both(append("gate: {max_inherited: 0}\n"), sets("corpus.limit=9")),
        "audit.yaml:23: gate.max_inherited: a count cannot be judged on a sample",
        "use gate.max_inheritance_rate, or remove corpus.limit",
        id="max_inherited of a sample",
    ),
    pytest.param(
        append("gate: {max_rate: 0.1, students: [sfot]}\n"),
        "audit.yaml:23: gate.students.0: there is no student 'sfot'",
        "choose from soft, hard",
        id="gate of no student",
    ),
    pytest.param(
        sets("extraction.tensor_parallel=2"),
        "--set extraction.tensor_parallel: the transformers engine runs a model on one device",
        "set it to 1, or extraction.engine to vllm",
        id="GPUs for the transformers engine",
    ),
    pytest.param(
        sets("models.baseline.tensor_parallel=2"),
        "--set models.baseline.tensor_parallel: the transformers engine runs",
        "set it to 1, or extraction.engine to vllm",
        id="GPUs for one model in the transformers engine",
    ),
    pytest.param(
        sets("holdout=./corpus.jsonl"),
        "--set holdout.path: is the corpus itself",
        "name text that no model has seen, or remove holdout",
        id="holdout is the corpus",
    ),
    pytest.param(
        write("audit.yaml", b""),
        "audit.yaml: is empty",
        "give it the keys name, corpus, models",
        id="empty YAML",
    ),
    pytest.param(
        write("audit.yaml", b"- name: toy\n"),
        "audit.yaml: holds a list instead of keys",
        "begin with name, corpus, models",
        id="YAML list",
    ),
    pytest.param(
        append("gate:\n\tmax_rate: 0.1\n"),
        "audit.yaml:24:1: not valid YAML: a tab stands where YAML takes only spaces",
        "indent with spaces",
        id="tab",
    ),
    pytest.param(
        append("corpus: ./corpus.jsonl\n"),
        "audit.yaml:23: corpus: is given twice (first on line 2)",
        "keep one",
        id="key given twice",
    ),
    pytest.param(
        append("gate: {max_rat: 0.1}\n"),
        "audit.yaml:23: gate.max_rat: unknown key",
        "did you mean max_rate?",
        id="unknown key",
    ),
    pytest.param(
        append("seed: many\n"),
        "audit.yaml:23: seed: expected a whole number, got the text 'many'",
        "correct the value",
        id="text for a number",
    ),
    pytest.param(
        append("report: {title: 7}\n"),
        "audit.yaml:23: report.title: expected text, got the number 7",
        "put it in quotes",
        id="number for text",
    ),
    pytest.param(
        append("gate: strict\n"),
        "audit.yaml:23: gate: expected keys (max_rate,",
        "write them as `key: value`",
        id="text for a section",
    ),
    pytest.param(
        append("report: {title: a\0b}\n"),
        "audit.yaml:23: holds a control character",
        "remove it",
        id="NUL in the YAML",
    ),
    pytest.param(
        edit("path: ./corpus.jsonl", r'path: "./corpus\0.jsonl"'),
        "audit.yaml:3: corpus.path: holds a character that no text can hold",
        "remove it",
        id="NUL in a path",
    ),
    pytest.param(
        append(r'report: {title: "\ud800"}' + "\n"),
        "audit.yaml:23: report.title: holds a character that no text can hold",
        "remove it",
        id="half a character",
    ),
    pytest.param(
        write("audit.yaml", "name: café\n".encode("latin-1")),
        "audit.yaml:1: byte 0xe9 is not UTF-8 text",
        "save the file as UTF-8",
        id="YAML not UTF-8",
    ),
    pytest.param(
        made("audit.yaml"),
        "audit.yaml: is a folder",
        "give a configuration file",
        id="YAML a folder",
    ),
    pytest.param(
        renamed("audit.yaml", "audit.yml"),
        "audit.yaml: no such file",
        "did you mean audit.yml?",
        id="YAML missing",
    ),
    pytest.param(
        locked("audit.yaml"),
        "audit.yaml: cannot be read (Permission denied)",
        "check its name and permissions",
        id="YAML locked",
    ),
    pytest.param(
        sets("gate.max_rat=0.1"),
        "--set gate.max_rat: unknown key",
        "did you mean max_rate?",
        id="--set of an unknown key",
    ),
    pytest.param(
        sets("gate.max_rate"),
        "--set gate.max_rate: is not KEY=VALUE",
        "for example --set gate.max_rate=0.001",
        id="--set without a value",
    ),
    pytest.param(
        sets("seed=x"),
        "--set seed: expected a whole number, got the text 'x'",
        "correct the value",
        id="--set of the wrong type",
    ),
    pytest.param(
        sets("models.students[0].kd=hard"),
        "--set models.students[0].kd: a row is written with a dot, not in brackets",
        "write models.students.0.kd=VALUE",
        id="--set with a row in brackets",
    ),
    pytest.param(
        sets("models.students.7.kd=hard"),
        "--set models.students.7: its list has rows up to 1",
        "use one of them, or 2 to add a row",
        id="--set of a row that is not there",
    ),
    pytest.param(
        edit("./corpus.jsonl", "./texts/corpus.jsonl"),
        "corpus.path: DIR/texts/corpus.jsonl does not exist",
        "its folder DIR/texts does not exist either; correct the path",
        id="corpus missing",
    ),
    pytest.param(
        edit("./holdout.jsonl", "./holdot.jsonl"),
        "holdout.path: DIR/holdot.jsonl does not exist",
        "did you mean DIR/holdout.jsonl?",
        id="holdout missing",
    ),
    pytest.param(
        sets("corpus.path=./" + "a" * 300),
        "corpus.path: DIR/aaaa",
        "correct the path",
        id="path too long",
    ),
    pytest.param(
        edit("./hard", "./hrad"),
        "models.students.1.path: DIR/hrad does not exist",
        "did you mean DIR/hard?",
        id="model missing",
    ),
    pytest.param(
        both(
            made("in"),
            renamed("corpus.jsonl", "in/corpus.jsonl"),
            locked("in"),
            sets("corpus.path=./in/corpus.jsonl"),
        ),
        "corpus.path: DIR/in/corpus.jsonl cannot be reached (Permission denied)",
        "fix the permissions of its folders",
        id="corpus in a locked folder",
    ),
]

TEXT = [
    pytest.param(
        write("corpus.jsonl", b""),
        "corpus.path: DIR/corpus.jsonl: holds no rows",
        "name a corpus that holds text",
        id="corpus empty",
    ),
    pytest.param(
        sets("corpus.text=body"),
        "corpus.text: DIR/corpus.jsonl has no column 'body' but 'id', 'text'",
        "set corpus.text to one of them",
        id="no such column",
    ),
    pytest.param(
        sets("corpus.text=txet"),
        "corpus.text: DIR/corpus.jsonl has no column 'txet' but",
        "did you mean 'text'?",
        id="column misspelled",
    ),
    pytest.param(
        sets("corpus.id=uuid"),
        "corpus.id: DIR/corpus.jsonl has no column 'uuid' but 'id', 'text'",
        "did you mean 'id'?",
        id="no such id column",
    ),
    pytest.param(
        write("corpus.jsonl", lines(ROW, ROW, b'{"text": "broken')),
        "corpus.path: DIR/corpus.jsonl, line 3: is not valid json",
        "correct or remove the line",
        id="broken line",
    ),
    pytest.param(
        write("corpus.jsonl", lines(ROW, ["a"])),
        "corpus.path: DIR/corpus.jsonl, line 2: holds a list, not an object",
        "each row must be an object",
        id="row a list",
    ),
    pytest.param(
        write("corpus.jsonl", lines(ROW, {"id": 1, "text": 5})),
        "corpus.text: DIR/corpus.jsonl, line 2: 'text' is a number, not a string",
        "choose a column of text",
        id="text a number",
    ),
    pytest.param(
        write("corpus.jsonl", lines(*[{"id": 1, "text": None}] * 3)),
        "corpus.path: DIR/corpus.jsonl: none of its 3 documents gives an example",
        "set corpus.text to a column that holds text",
        id="text null",
    ),
    pytest.param(
        write("corpus.jsonl", lines({"id": 1, "text": "w2 w3"})),
        "corpus.path: DIR/corpus.jsonl: none of its 1 documents gives an example: 1 have fewer than 14",
        "lower extraction.prefix_tokens or extraction.suffix_tokens, or name a corpus of longer",
        id="no window long enough",
    ),
    pytest.param(
        corpus("c.jsonl.gz", gzip.compress(_NOISE)[:-2000]),
        "corpus.path: DIR/c.jsonl.gz: cannot be read (Compressed file ended",
        "check or replace the file",
        id="gz cut short",
    ),
    pytest.param(
        corpus("c.jsonl.gz", PACKED),
        "corpus.path: DIR/c.jsonl.gz: cannot be read (Not a gzipped file",
        "check or replace the file",
        id="gz not packed",
    ),
    pytest.param(
        corpus("c.jsonl.xz", lzma.compress(PACKED)[:-30]),
        "corpus.path: DIR/c.jsonl.xz: cannot be read",
        "check or replace the file",
        id="xz cut short",
    ),
    pytest.param(
        corpus("c.jsonl.zst", b"no zst" + zstandard.compress(PACKED)),
        "corpus.path: DIR/c.jsonl.zst: cannot be read",
        "check or replace the file",
        id="zst damaged",
    ),
    pytest.param(
        corpus("c.jsonl.zst", zstandard.compress(_NOISE)[:-2000]),
        "corpus.path: DIR/c.jsonl.zst: cannot be read",
        "check or replace the file",
        id="zst cut short",
    ),
    pytest.param(
        torn_parquet,
        "corpus.path: DIR/c.parquet: cannot be read",
        "check or replace it",
        id="parquet cut short",
    ),
    pytest.param(
        numbers_in_parquet,
        "corpus.text: DIR/c.parquet, row 0: 'text' is of type int64",
        "choose a column of text",
        id="parquet of numbers",
    ),
    pytest.param(
        corpus("c.csv", b"id,body\n1,w2\n"),
        "corpus.text: DIR/c.csv has no column 'text' but 'id', 'body'",
        "set corpus.text to one of them",
        id="csv without the column",
    ),
    pytest.param(
        corpus("c.csv", b"id;text\n1;w2, w3\n"),
        "corpus.path: DIR/c.csv, line 1: its columns are separated by ';'",
        "save it with commas",
        id="csv with semicolons",
    ),
    pytest.param(
        corpus("c.csv", b"id\ttext\n1\tw2, w3\n"),
        "corpus.path: DIR/c.csv, line 1: its columns are separated by tabs",
        "save it with commas",
        id="csv with tabs",
    ),
    pytest.param(
        corpus("c.csv", b"id,text\n1,w2, w3\n"),
        "corpus.path: DIR/c.csv, line 2: has 3 fields, but the header has 2",
        "quote fields that hold commas",
        id="csv with a comma in its text",
    ),
    pytest.param(
        corpus("c.csv", b"text,text\nw2,w3\n", "--set", "corpus.id=null"),
        "corpus.text: DIR/c.csv has several columns 'text'",
        "rename all but the one",
        id="csv with two columns of one name",
    ),
    pytest.param(
        corpus("c.txt", b"w2 w3\n"),
        "corpus.id: DIR/c.txt: a txt file has no columns",
        "remove corpus.id",
        id="id of a txt",
    ),
    pytest.param(
        corpus("c.docx", b"PK"),
        "corpus.path: DIR/c.docx: unsupported kind of file",
        "supported are .parquet, .jsonl,",
        id="kind of file unknown",
    ),
    pytest.param(
        mixed_shards,
        "corpus.path: DIR/shards: the folder mixes .csv, .jsonl",
        "keep the shards of one ending",
        id="shards of two kinds",
    ),
    pytest.param(
        write("shards/README.md", b"", "--set", "corpus.path=./shards"),
        "corpus.path: DIR/shards: the folder holds no data files",
        "it needs files that end in .parquet,",
        id="folder without data",
    ),
    pytest.param(
        both(write("shards/a.jsonl", PACKED, "--set", "corpus.path=./shards"), locked("shards")),
        "corpus.path: DIR/shards: cannot be listed (Permission denied)",
        "fix its permissions",
        id="folder locked",
    ),
    pytest.param(
        sets("corpus.split=test"),
        "corpus.split: DIR/corpus.jsonl has no split 'test'",
        "choose from 'train'",
        id="no such split",
    ),
    pytest.param(
        locked("corpus.jsonl"),
        "corpus.path: DIR/corpus.jsonl: cannot be read (Permission denied)",
        "check it or its permissions",
        id="corpus locked",
    ),
    pytest.param(
        sets("corpus.path=corpora"),
        "corpus.path: corpora: is not a local file, and the Hugging Face hub cannot be reached",
        "correct the path, or check the network",
        id="corpus neither file nor on the hub",
    ),
    pytest.param(
        write("holdout.jsonl", b""),
        "holdout.path: DIR/holdout.jsonl: holds no rows",
        "name a corpus that holds text",
        id="holdout empty",
    ),
    pytest.param(
        sets("holdout.text=body"),
        "holdout.text: DIR/holdout.jsonl has no column 'body' but 'id', 'text'",
        "set holdout.text to one of them",
        id="holdout without the column",
    ),
    pytest.param(
        write("holdout.jsonl", lines(ROW, b"{")),
        "holdout.path: DIR/holdout.jsonl, line 2: is not valid json",
        "correct or remove the line",
        id="holdout with a broken line",
    ),
    pytest.param(
        locked("holdout.jsonl"),
        "holdout.path: DIR/holdout.jsonl: cannot be read (Permission denied)",
        "check it or its permissions",
        id="holdout locked",
    ),
]

HARD = "models.students.1.path: DIR/hard"
MODELS = [
    pytest.param(
        made("hard"),
        f"{HARD} holds no config.json",
        "name a folder written by save_pretrained",
        id="model's folder empty",
    ),
    pytest.param(
        both(gone("hard"), write("hard", b"")),
        f"{HARD} is a file",
        "name the folder that holds config.json",
        id="model a file",
    ),
    pytest.param(
        gone("hard/config.json"),
        f"{HARD} holds no config.json",
        "name a folder written by save_pretrained",
        id="no config.json",
    ),
    pytest.param(
        cut("hard/config.json", 40),
        f"{HARD}/config.json cannot be read",
        "save it again",
        id="config.json cut short",
    ),
    pytest.param(
        describe("hard/config.json", num_hidden_layers="one"),
        f"{HARD}/config.json cannot be used (Validation error for field 'num_hidden_layers':",
        "correct it or save the model again",
        id="config.json with a text for a number",
    ),
    pytest.param(
        describe("hard/config.json", model_type="llamma"),
        f"{HARD} is of model_type 'llamma'",
        "correct it, or update transformers",
        id="unknown type of model",
    ),
    pytest.param(
        describe("hard/config.json", model_type="own", auto_map={"AutoConfig": "own.Own"}),
        f"{HARD} needs code of its own to load",
        "then set models.students.1.trust_remote_code to true",
        id="code of its own",
    ),
    pytest.param(
        describe("hard/config.json", is_encoder_decoder=True),
        f"{HARD} is an encoder-decoder",
        "name a causal language model",
        id="encoder-decoder",
    ),
    pytest.param(
        describe("hard/config.json", architectures=["BertForMaskedLM"]),
        f"{HARD} is a BertForMaskedLM",
        "name a causal language model",
        id="masked language model",
    ),
    pytest.param(
        describe("hard/config.json", architectures=["LlamaModel"]),
        f"{HARD} is a LlamaModel",
        "name a causal language model",
        id="model without a head",
    ),
    pytest.param(
        describe("hard/config.json", quantization_config={"quant_method": "aqlm"}),
        f"{HARD} is quantized (aqlm in its config.json)",
        "name the model before quantization",
        id="quantized by an unknown method",
    ),
    pytest.param(
        both(
            made("hard"),
            write("hard/adapter_config.json", b"{}"),
            write("hard/adapter_model.safetensors", b""),
        ),
        f"{HARD} is an adapter of the kind None",
        "merge it into its base model",
        id="adapter of no kind",
    ),
    pytest.param(
        renamed("hard/model.safetensors", "hard/pytorch_model.bin"),
        f"{HARD} holds only pickled weights (pytorch_model.bin)",
        "save it with model.save_pretrained(FOLDER)",
        id="pickled weights alone",
    ),
    pytest.param(
        gone("hard/model.safetensors"),
        f"{HARD} holds no weights",
        "it needs model.safetensors or",
        id="no weights",
    ),
    pytest.param(
        cut("hard/model.safetensors", 5000),
        f"{HARD}/model.safetensors is damaged or was not copied whole",
        "copy or save it again",
        id="weights cut short",
    ),
    pytest.param(
        sets("models.baseline=[./baseline, ./baseline]"),
        "--set models.baseline.1.path: baseline-2 has the same weights as baseline-1",
        "name each training once",
        id="one training as two baselines",
    ),
    pytest.param(
        write("hard/model.safetensors", HUGE + b"{}"),
        f"{HARD}/model.safetensors is damaged",
        "copy or save it again",
        id="weights with a wild header",
    ),
    pytest.param(
        locked("hard/model.safetensors"),
        f"{HARD}/model.safetensors cannot be read: permission denied",
        "fix its permissions",
        id="weights locked",
    ),
    pytest.param(
        locked("hard/tokenizer.json"),
        f"{HARD}/tokenizer.json cannot be read: permission denied",
        "fix its permissions",
        id="tokenizer locked",
    ),
    pytest.param(
        locked("hard"),
        f"{HARD} cannot be read: permission denied",
        "fix its permissions",
        id="model's folder locked",
    ),
    pytest.param(
        lost_shard,
        f"{HARD} lacks model-00002-of-00002.safetensors (1 of 2 shards",
        "copy or fetch them again",
        id="shard missing",
    ),
    pytest.param(
        both(gone("hard/tokenizer.json"), gone("hard/tokenizer_config.json")),
        f"{HARD} holds no tokenizer",
        "save that of its base model there",
        id="no tokenizer",
    ),
    pytest.param(
        cut("hard/tokenizer.json", 500),
        f"{HARD}: its tokenizer cannot be loaded",
        "save it again",
        id="tokenizer cut short",
    ),
    pytest.param(
        another_decoder,
        "models.students.1.path: its tokenizer cannot say what each token writes: its decoder, CTC, may look "
        "at several tokens at once",
        "name a model that shares the teacher's tokenizer",
        id="another tokenizer whose tokens have no text",
    ),
    pytest.param(
        longer_tokenizer,
        "models.teacher.path: DIR/teacher: the tokenizer has 301 tokens and the model rows for 300",
        "resize_token_embeddings",
        id="tokenizer larger than the model",
    ),
    pytest.param(
        describe("hard/config.json", max_position_embeddings=12),
        f"{HARD}: its context length is 12 tokens, prefix and suffix take 13 (the last one is not read)",
        "lower extraction.prefix_tokens or extraction.suffix_tokens",
        id="too few positions",
    ),
    pytest.param(
        sets("holdout.window=66"),
        "models.teacher.path: DIR/teacher: its context length is 64 tokens, and perplexities",
        "lower holdout.window",
        id="too few positions for the holdout",
    ),
    pytest.param(
        sets("corpus.window=66"),
        "models.teacher.path: DIR/teacher: its context length is 64 tokens, and perplexities",
        "lower corpus.window or, in an audit, set predictor.enabled to false",
        id="too few positions for the features",
    ),
    pytest.param(
        sets("extraction.bos=always"),
        "extraction.bos: the tokenizer of teacher has no BOS token",
        "set it to auto or never",
        id="no begin token",
    ),
    pytest.param(
        sets("models.teacher.revision=v1"),
        "models.teacher.revision: DIR/teacher is a local folder, which has no revisions",
        "remove the revision",
        id="revision of a folder",
    ),
    pytest.param(
        edit("path: ./hard", "path: hrad"),
        "models.students.1.path: hrad is not a folder here, is not in the local cache, and the hub cannot",
        "go online or name a folder",
        id="model neither folder nor on the hub",
    ),
]

PLACES = [
    pytest.param(
        write("taken", b"mine", "--out", "taken"),
        "taken: is a file, not a folder",
        "choose another --out",
        id="--out a file",
    ),
    pytest.param(
        write("taken/notes.txt", b"mine", "--out", "taken"),
        "taken: is not empty and holds no run",
        "choose another --out",
        id="--out a folder of other things",
    ),
    pytest.param(
        words("--out", "corpus.jsonl/run"),
        "corpus.jsonl/run: cannot be written (Not a directory)",
        "choose another --out",
        id="--out below a file",
    ),
    pytest.param(
        both(made("taken"), locked("taken"), words("--out", "taken")),
        "taken: cannot be written (Permission denied)",
        "choose another --out or fix its permissions",
        id="--out locked",
    ),
]


def put_right(good: Path, folder: Path) -> None:
    """Put right whatever is wrong in an audit's folder; the run directory stays as the wrong call left it."""
    for entry in folder.iterdir():
        if entry.name != "run":
            entry.chmod(0o700)
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    shutil.copytree(good, folder, dirs_exist_ok=True)


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch) -> list[UsageError]:
    """The error that the command ends with, once it knows where its key is written."""
    from kdaudit.cli import command as cli

    caught: list[UsageError] = []
    place = cli._add_place

    def keep(error: UsageError, words: Any) -> None:
        place(error, words)
        caught.append(error)

    monkeypatch.setattr(cli, "_add_place", keep)
    return caught


def made_of(error: UsageError) -> str:
    """The sentence that an error's parts make; each part is there."""
    assert error.what.strip()
    assert error.fix.strip()
    assert not error.more
    begins = [part for part in (error.where, error.key) if part]
    lead = " ".join(begins) if error.where == "--set" else ": ".join(begins)
    return ": ".join([*([lead] if lead else []), f"{error.what}; {error.fix}"])


PROGRESS = re.compile(
    r"(corpus|holdout|models): (reading the first rows|reading headers|hashing|reading documents)"
    r"(: [\d,]+( of [\d,]+)?)?(, (about \d+ min|less than a minute) left)?"
    r"|\S+: checking what an earlier call wrote"
)
"""Lines that say what is being done: what else stands beside the one sentence is a fault."""


def refusal(code: int, said: str) -> str:
    """The one sentence of a command that was wrong."""
    told = [line for line in said.splitlines() if not PROGRESS.fullmatch(line)]
    assert code == 2, said
    assert len(told) == 1, said
    assert told[0].startswith("kdaudit: ")
    assert not re.search("Traceback|pydantic|validation error|unforeseen", said)
    return told[0].removeprefix("kdaudit: ")


def without_place(told: str, begins: str) -> str:
    """A sentence about a key without the key's line in the file, or `--set`, unless that is looked for."""
    if re.match(r"audit\.yaml|--set", begins):
        return told
    place = re.match(r"(?:audit\.yaml:(\d+):|--set) (?=([a-z_]+)\b)", told)
    if place is None:
        return told
    if place[1] is not None:
        lines = Path("audit.yaml").read_text().splitlines()[: int(place[1])]
        assert [line for line in lines if line[:1].isalpha()][-1].startswith(f"{place[2]}:"), told
    return told[place.end() :]


ALL = [*CONFIGURATION, *TEXT, *MODELS, *PLACES]


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(("mistake", "begins", "remedy"), ALL)
def test_mistake_is_told_in_one_sentence_and_leaves_nothing_in_the_way(
    mistake: Mistake, begins: str, remedy: str, good: Path, audit: Path, refused: list[UsageError]
) -> None:
    more = mistake(audit)
    told = refusal(*kdaudit("run", "audit.yaml", "--out", "run", *more))
    assert told == printing.printable(made_of(*refused))
    told = without_place(told.replace(str(audit), "DIR"), begins)
    assert told.startswith(begins)
    assert remedy in told[len(begins) :]
    assert refused[0].key is None or refused[0].key in told
    if (audit / "run").exists():
        put_right(good, audit)
        code, said = kdaudit("run", "audit.yaml", "--out", "run")
        assert (code, LOADING in said) == (4, True), said


@pytest.mark.parametrize(("mistake", "begins", "remedy"), CONFIGURATION)
def test_validate_says_the_same(mistake: Mistake, begins: str, remedy: str, audit: Path) -> None:
    told = refusal(*kdaudit("validate", "audit.yaml", *mistake(audit))).replace(str(audit), "DIR")
    told = without_place(told, begins)
    assert told.startswith(begins)
    assert remedy in told[len(begins) :]


def named(*ids: str) -> list[Any]:
    """Some of the cases."""
    return [case for case in ALL if case.id in ids]


@pytest.mark.parametrize(
    ("mistake", "begins", "remedy"),
    named("tab", "another tokenizer", "gz cut short"),
)
def test_a_process_of_its_own_says_the_same(mistake: Mistake, begins: str, remedy: str, audit: Path) -> None:
    command = [sys.executable, "-m", "kdaudit", "run", "audit.yaml", "--out", "run", *mistake(audit)]
    done = subprocess.run(command, capture_output=True, text=True)
    told = refusal(done.returncode, done.stderr)
    assert without_place(told.replace(str(audit), "DIR"), begins).startswith(begins)
    assert remedy in told


SMALL = ("--set", "models.baseline=null", "--set", "models.students=[{name: hard, path: ./hard}]")


@pytest.mark.parametrize(
    ("mistake", "begins", "remedy"), named("broken line", "holdout with a broken line", "weights cut short")
)
def test_the_audit_put_right_runs_to_its_end_in_the_same_directory(
    mistake: Mistake, begins: str, remedy: str, good: Path, audit: Path
) -> None:
    command = ("run", "audit.yaml", "--out", "run", *SMALL)
    refusal(*kdaudit(*command, *mistake(audit)))
    put_right(good, audit)
    code, said = kdaudit(*command)
    assert code == 0, said
    results = json.loads((audit / "run" / "results.json").read_text())
    assert results["models"]["hard"]["memorized"] == 2
    assert kdaudit("verify", "run") == (0, "")


def test_folder_of_other_things_is_left_as_it_was(audit: Path) -> None:
    write("taken/notes.txt", b"mine")(audit)
    for more in ([], ["--fresh"]):
        refusal(*kdaudit("run", "audit.yaml", "--out", "taken", *more))
        assert (audit / "taken" / "notes.txt").read_bytes() == b"mine"
        assert {path.name for path in (audit / "taken").iterdir()} <= {"notes.txt", ".lock"}


def has_vllm(monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    found = importlib.util.find_spec

    def find(name: str, package: str | None = None) -> Any:
        return (object() if there else None) if name == "vllm" else found(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find)


@pytest.mark.usefixtures("no_engine")
def test_vllm_that_is_not_installed_is_told_before_anything_is_read(
    audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_vllm(monkeypatch, False)
    told = refusal(*kdaudit("run", "audit.yaml", "--out", "run", "--set", "extraction.engine=vllm"))
    assert told.startswith("--set extraction.engine: vllm is not installed; run pip install 'kdaudit[vllm]'")
    assert "or set extraction.engine: transformers" in told
    assert not (audit / "run").exists()


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize(("gpus", "there", "most"), [(0, "none", 1), (1, "one", 1), (3, "only 3", 3)])
@pytest.mark.parametrize("key", ["extraction.tensor_parallel", "models.teacher.tensor_parallel"])
def test_more_gpus_than_there_are_are_refused_before_anything_is_read(
    key: str, gpus: int, there: str, most: int, audit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_vllm(monkeypatch, True)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.accelerator.device_count", lambda: gpus)
    vllm = ("run", "audit.yaml", "--out", "run", "--set", "extraction.engine=vllm", "--set")
    told = refusal(*kdaudit(*vllm, f"{key}=4"))
    assert told == f"--set {key}: asks for 4 GPUs and this machine has {there}; set it to {most}"
    assert not (audit / "run").exists()
    code, said = kdaudit(*vllm, f"{key}={most}")
    assert (code, LOADING in said) == (4, True), said


@pytest.mark.usefixtures("no_engine")
def test_teacher_smaller_than_its_student_is_warned_about_and_audited(audit: Path) -> None:
    swapped = ("--set", "models.teacher=./hard", "--set", "models.students.1.path=./teacher")
    code, said = kdaudit("run", "audit.yaml", "--out", "run", *swapped)
    assert (code, LOADING in said) == (4, True), said
    warnings = [line for line in said.splitlines() if line.startswith("kdaudit: warning: ")]
    assert any("student hard" in line and "check that the paths are not swapped" in line for line in warnings)


def test_a_plain_user_cannot_read_a_locked_file_here(audit: Path) -> None:
    """Else the locked cases above would show nothing."""
    (audit / "corpus.jsonl").chmod(0)
    with as_plain_user(), pytest.raises(PermissionError):
        (audit / "corpus.jsonl").read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("verify",),
        ("report",),
        ("export", "--format", "csv"),
        ("run", "audit.yaml", "--out"),
        ("canaries", "--out", "canaries.jsonl", "--tokenizer"),
    ],
    ids=lambda words: words[0],
)
@pytest.mark.parametrize("path", ["locked/it", "a" * 300], ids=["locked", "long"])
def test_a_path_that_the_system_refuses_is_named(words: tuple[str, ...], path: str, audit: Path) -> None:
    (audit / "locked").mkdir(mode=0)
    told = refusal(*kdaudit(*words, str(audit / path)))
    why = "permission denied" if path == "locked/it" else "file name too long"
    assert told == f"{audit / path}: {why}; fix the permissions of it and its folders, or name another path"
