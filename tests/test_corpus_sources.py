"""Sources: every format gives the same documents, every defect its own message."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import lzma
import os
from pathlib import Path

import datasets
import httpx2
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.errors import GatedRepoError

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import open_documents, source_fingerprint
from kdaudit.corpus.records import read_records
from kdaudit.corpus.sources import HubDataset, find_source
from kdaudit.errors import CorpusError

TEXTS = ["plain", 'two\nlines, one "quote"', "2020-01-01", "NA", "12", "emoji 😀 and é", "end\u2028\x85."]
"""Texts that sloppy readers change: dates, missing-value words, numbers, unusual line breaks."""
NAMES = [f"doc-{row}" for row in range(len(TEXTS))]
TABLE = {"text": TEXTS, "name": NAMES, "unused": [{"a": 1}] * len(TEXTS)}
PACKERS = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def config(path: object, **fields: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"path": str(path), **fields})


def read(path: object, **fields: object) -> list[tuple[str, str, int]]:
    return [tuple(document[:3]) for document in open_documents(config(path, **fields))]


def error(path: object, **fields: object) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path, **fields)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("corpus.")
    return message


def jsonl(texts=TEXTS, names=NAMES, *, ascii_only: bool = True) -> bytes:
    rows = [{"text": t, "name": n} for t, n in zip(texts, names, strict=True)]
    return "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows).encode()


def write_jsonl(folder: Path, packed: str) -> Path:
    path = folder / f"a.jsonl{packed}"
    path.write_bytes(PACKERS[packed](jsonl(ascii_only=packed == "")))
    return path


def write_json_array(folder: Path) -> Path:
    path = folder / "a.json"
    path.write_text(json.dumps([{"text": t, "name": n} for t, n in zip(TEXTS, NAMES, strict=True)], indent=1))
    return path


def write_json_lines(folder: Path) -> Path:
    path = folder / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + jsonl().replace(b"\n", b"\r\n") + b"\n")
    return path


def write_csv(folder: Path) -> Path:
    path = folder / "a.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as handle:
        csv.writer(handle).writerows([("unused", "name", "text"), *zip("x" * 7, NAMES, TEXTS, strict=True)])
    return path


def write_parquet(folder: Path) -> Path:
    path = folder / "a [1]*.parquet"  # a name that must not be taken for a pattern
    pq.write_table(pa.table(TABLE), path, row_group_size=3)
    return path


def write_saved(folder: Path) -> Path:
    datasets.Dataset.from_dict(TABLE).save_to_disk(folder / "saved", num_shards=2)
    return folder / "saved"


def write_shards(folder: Path) -> Path:
    shards = folder / "shards"
    shards.mkdir()
    for number, rows in ((1, slice(4, None)), (0, slice(0, 4))):
        (shards / f"part-{number}.jsonl.gz").write_bytes(gzip.compress(jsonl(TEXTS[rows], NAMES[rows])))
    (shards / "README.md").write_text("not data")
    (shards / ".hidden.csv").write_text("not data")
    return shards


WRITERS = {
    **{f"jsonl{packed}": lambda folder, packed=packed: write_jsonl(folder, packed) for packed in PACKERS},
    "json array": write_json_array,
    "json lines": write_json_lines,
    "csv": write_csv,
    "parquet": write_parquet,
    "saved dataset": write_saved,
    "folder of shards": write_shards,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_format_gives_the_same_documents(kind, tmp_path):
    path = WRITERS[kind](tmp_path)
    assert read(path, id="name") == list(zip(NAMES, TEXTS, range(7), strict=True))
    assert read(path) == [(str(row), text, row) for row, text in enumerate(TEXTS)]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_column_is_named_with_those_that_there_are(kind, tmp_path):
    path = WRITERS[kind](tmp_path)
    message = error(path, text="txet")
    assert message.startswith("corpus.text: ")
    assert "'txet'" in message
    assert "'name'" in message
    assert "did you mean 'text'?" in message
    message = error(path, id="uuid")
    assert message.startswith("corpus.id: ")
    assert "'uuid'" in message


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "saved dataset", "folder of shards"])
def test_a_wrong_split_is_named_with_those_that_there_are(kind, tmp_path):
    message = error(WRITERS[kind](tmp_path), split="validation")
    assert message.startswith("corpus.split: ")
    assert "'validation'" in message
    assert "choose from 'train'" in message


def test_messages_take_the_key_of_the_section(tmp_path):
    with pytest.raises(CorpusError, match=r"^holdout\.path: .*no such file"):
        open_documents(config(tmp_path / "absent.csv"), key="holdout")


def test_txt_documents_are_lines_or_the_whole_file(tmp_path):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"\xef\xbb\xbfone\r\n\n two\x0b\xc2\x85\nlast"))
    assert read(path) == [("0", "one", 0), ("2", " two\x0b\x85", 2), ("3", "last", 3)]
    assert read(path, documents="file") == [("0", "one\r\n\n two\x0b\x85\nlast", 0)]
    assert "no columns" in error(path, id="name")


def test_a_folder_of_txt_files_is_one_document_a_file(tmp_path):
    for name in "ba":
        (tmp_path / f"{name}.txt").write_text(f"text of {name}\n")
    assert read(tmp_path, documents="file") == [("0", "text of a\n", 0), ("1", "text of b\n", 1)]


def test_shards_named_by_split_are_told_apart(tmp_path):
    for split, text in (("train", "x"), ("test", "y")):
        pq.write_table(pa.table({"text": [text]}), tmp_path / f"{split}-00000-of-00001.parquet")
    assert read(tmp_path) == [("0", "x", 0)]
    assert read(tmp_path, split="test") == [("0", "y", 0)]
    assert "choose from 'test', 'train'" in error(tmp_path, split="dev")


def test_a_saved_dataset_dict_has_its_splits(tmp_path):
    splits = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "valid")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "d")
    assert read(tmp_path / "d", split="valid") == [("0", "valid", 0)]
    assert "choose from 'train', 'valid'" in error(tmp_path / "d", split="test")


def test_id_values_become_strings_and_null_gives_way_to_the_row(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a", "id": 7}\n{"text": "b", "id": null}\n{"text": "c"}\n{"text": "d", "id": "\\ud800"}\n'
    )
    assert [d.id for d in open_documents(config(path, id="id"))] == ["7", "1", "2", "\\ud800"]
    pq.write_table(pa.table({"text": ["a", "b"], "id": [7, None]}), tmp_path / "a.parquet")
    assert [d.id for d in open_documents(config(tmp_path / "a.parquet", id="id"))] == ["7", "1"]


def bad_utf8_strings() -> pa.Array:
    """A string column whose second value is not UTF-8, which Arrow does not check."""
    ends = pa.array([0, 2, 4, 4, 5], pa.int32()).buffers()[1]
    return pa.Array.from_buffers(pa.string(), 4, [None, ends, pa.py_buffer(b"oka\xff ")])


UNDECODABLE = {
    "a.jsonl": b'{"text": "ok"}\n{"text": "a\\ud800"}\n{"text": null}\n{"text": " "}\n'
    b'{"text": "\\ud83d\\ude00"}\n',
    "b.jsonl": b'{"text": "ok"}\n{"text": "a\xff"}\n\n{"text": ""}\n{}\n{"text": "\xf0\x9f\x98\x80"}\n',
    "a.txt": b"ok\na\xff\n\n\t\n\xf0\x9f\x98\x80\n",
    "a.csv": b"text,n\nok,1\na\xff,2\n,3\n\t,4\n\xf0\x9f\x98\x80,5\n",
}


@pytest.mark.parametrize("name", UNDECODABLE)
def test_empty_and_undecodable_rows_are_counted_and_the_rest_goes_on(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(UNDECODABLE[name])
    documents = open_documents(config(path))
    assert [tuple(document[:3]) for document in documents] == [("0", "ok", 0), ("4", "😀", 4)]
    assert (documents.rows, documents.empty, documents.undecodable) == (5, 2, 1)


@pytest.mark.parametrize("kind", ["string", "binary", "large_binary"])
def test_undecodable_values_of_a_parquet_column_are_counted(kind, tmp_path):
    column = bad_utf8_strings()
    if kind != "string":
        column = column.cast(getattr(pa, kind)())
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    documents = open_documents(config(tmp_path / "a.parquet"))
    assert [document.text for document in documents] == ["ok"]
    assert (documents.rows, documents.empty, documents.undecodable) == (4, 2, 1)


def test_a_broken_jsonl_line_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n\n{"text": "b}\n')
    message = error(path)
    assert f"{path}, line 3: is not valid json" in message
    path.write_text('{"text": "a"}\n["b"]\n')
    assert f"{path}, line 2: holds a list" in error(path)
    path.write_text("[" * 100_000)
    assert "nested too deeply" in error(path)


def test_a_broken_json_array_is_named_by_line(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[\n{"text": "a"},\n{"text": b}\n]')
    assert f"{path}, line 3: is not valid json" in error(path)


@pytest.mark.parametrize(
    ("value", "kind"), [(5, "number"), (True, "boolean"), ({}, "json object"), ([], "list")]
)
def test_text_that_is_no_string_is_named_by_line(value, kind, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "a"}}\n{{"text": {json.dumps(value)}}}\n')
    assert f"{path}, line 2: 'text' is a {kind}, not a string" in error(path)


def test_a_missing_text_of_pandas_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"text": "a"}\n{"text": NaN}\n')
    said = error(path)
    assert f"{path}, line 2: 'text' is a NaN, as pandas writes a missing value, not a string" in said
    assert "where a text is missing, write null" in said


@pytest.mark.parametrize(("column", "kind"), [([1, 2], "int64"), ([["a"], []], "list<")])
def test_a_parquet_column_of_another_type_is_refused(column, kind, tmp_path):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    message = error(tmp_path / "a.parquet")
    assert message.startswith("corpus.text: ")
    assert f"row 0: 'text' is of type {kind}" in message


def test_a_broken_csv_record_is_named_by_line(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('text,n\n"a\nb",1\nc,2,3\n')
    assert f"{path}, line 4: has 3 fields, but the header has 2" in error(path)
    path.write_text('text,n\nc,1\n"open,2\n')
    assert f"{path}, line 3: is not valid csv" in error(path)


def test_a_csv_field_may_be_long(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text\n" + "x" * 1_000_000 + "\n")
    assert len(read(path)[0][1]) == 1_000_000


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz", "a.txt.xz", "a.csv.zst"])
def test_a_damaged_file_is_named(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"this is no such file, only text")
    message = error(path)
    assert message.startswith(f"corpus.path: {path}: cannot be read")


def test_a_truncated_gzip_is_named(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"text": "%d"}\n' % n for n in range(999)))[:-100])
    assert f"{path}: cannot be read" in error(path)


@pytest.mark.parametrize("packed", [".gz", ".xz", ".zst"])
def test_a_packed_file_is_read_to_its_end_or_refused(packed, tmp_path):
    """Parts packed one by one and joined are one file; one that was cut short anywhere is none."""
    path = tmp_path / f"a.txt{packed}"
    parts = [PACKERS[packed]("".join(f"{part} {row}\n" for row in range(5000)).encode()) for part in "ab"]
    path.write_bytes(b"".join(parts))
    assert [text for _, text, _ in read(path)] == [f"{part} {row}" for part in "ab" for row in range(5000)]
    for cut in (1, len(parts[1]) // 2, len(parts[1]) - 1, len(parts[1]) + 1, len(b"".join(parts))):
        path.write_bytes(b"".join(parts)[:-cut])
        assert f"{path}: cannot be read" in error(path)


def test_skippable_frames_of_a_zst_are_skipped(tmp_path):
    skipped = (0x184D2A50).to_bytes(4, "little") + (3).to_bytes(4, "little") + b"abc"
    (tmp_path / "a.txt.zst").write_bytes(skipped + PACKERS[".zst"](b"one\n") + skipped)
    assert [text for _, text, _ in read(tmp_path / "a.txt.zst")] == ["one"]


def test_a_csv_with_other_separators_is_told_so_before_any_record(tmp_path):
    for sign, name in ((";", "';'"), ("\t", "tabs"), ("|", "'|'")):
        (tmp_path / "a.csv").write_text(f"name{sign}text\na{sign}b, c, d\n")
        assert f"line 1: its columns are separated by {name}" in error(tmp_path / "a.csv")
    (tmp_path / "a.csv").write_text("a;b\nx\n")  # one column of an odd name
    assert read(tmp_path / "a.csv", text="a;b") == [("0", "x", 0)]
    (tmp_path / "a.csv").write_text("text,text\na,b\n")
    assert "has several columns 'text'" in error(tmp_path / "a.csv")
    table = pa.Table.from_arrays([pa.array(["x"])] * 4, names=["text", "text", "id", "id"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "has several columns 'text'; rename all but the one" in error(tmp_path / "a.parquet")
    pq.write_table(table.select([0, 2, 3]), tmp_path / "a.parquet")
    assert "has several columns 'id'; rename all but the one" in error(tmp_path / "a.parquet", id="id")


def test_a_damaged_saved_dataset_is_named(tmp_path):
    folder = write_saved(tmp_path)
    file = next(folder.glob("*.arrow"))
    file.write_bytes(b"no arrow")
    assert f"{file}: cannot be read" in error(folder)
    file.unlink()
    assert f"{file}: is missing" in error(folder)
    (folder / "state.json").write_text("{}")
    assert "does not describe a saved dataset" in error(folder)


def test_folders_without_data_or_with_mixed_formats_are_refused(tmp_path):
    assert "holds no data files" in error(tmp_path)
    (tmp_path / "a.csv").touch()
    (tmp_path / "b.jsonl").touch()
    assert "mixes .csv, .jsonl (a.csv, b.jsonl); keep" in error(tmp_path)


def test_an_unsupported_file_is_told_what_is_supported(tmp_path):
    (tmp_path / "a.docx").touch()
    assert ".parquet, .jsonl, .json, .csv and .txt" in error(tmp_path / "a.docx")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_file_without_rows_is_refused(name, tmp_path):
    (tmp_path / name).write_text("text\n" if name == "a.csv" else "")
    assert "holds no rows" in error(tmp_path / name)


def test_tables_without_rows_are_refused(tmp_path):
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "a.parquet")
    assert "holds no rows" in error(tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"text": []}).save_to_disk(tmp_path / "saved")
    assert "holds no rows" in error(tmp_path / "saved")


@pytest.mark.parametrize(
    "path", ["./absent", "/absent/folder", "~/absent", "absent.jsonl.gz", "dir/absent.TXT"]
)
def test_what_looks_like_a_path_is_one(path):
    assert "no such file" in error(path)


def test_what_looks_like_no_path_is_a_hub_id():
    found = find_source(config("owner/data", name="en", revision="v1", split="test"))
    assert found == HubDataset("owner/data", "en", "v1", "test")


def test_only_needed_columns_of_parquet_are_read(tmp_path, monkeypatch):
    asked = []
    real = pq.ParquetFile.iter_batches

    def recorded(self, *arguments, columns, **options):
        asked.append(columns)
        return real(self, *arguments, columns=columns, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    read(write_parquet(tmp_path), id="name")
    assert asked == [["text", "name"]] * 3  # row groups


def test_a_dictionary_column_is_text(tmp_path):
    column = pa.array(["a", "b", "a", None]).dictionary_encode()
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert [text for _, text, _ in read(tmp_path / "a.parquet")] == ["a", "b", "a"]


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stand-in for the hub: a folder with two configurations, read by the same builders."""
    for name in ("en", "de"):
        (tmp_path / name).mkdir()
        for split in ("train", "test"):
            table = pa.table({"text": [f"{name} {split}", None], "id": [1, 2], "unused": [0, 0]})
            pq.write_table(table, tmp_path / name / f"{split}-00000-of-00001.parquet")
    card = [f"- config_name: {n}\n  data_files:\n" for n in ("en", "de")]
    card = [
        c + "".join(f"  - split: {s}\n    path: {n}/{s}-*\n" for s in ("train", "test"))
        for n, c in zip(("en", "de"), card, strict=True)
    ]
    (tmp_path / "README.md").write_text("---\nconfigs:\n" + "".join(card) + "---\n")
    real = datasets.load_dataset_builder
    asked: list[object] = []

    def builder(path, revision=None, **options):
        assert (path, revision) == ("hf://datasets/owner/data", "v1")
        asked.append(options.get("columns"))
        return real(str(tmp_path), **options)

    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    return asked


HUB = {"name": "de", "revision": "v1"}


def test_a_hub_dataset_is_read_by_configuration_and_split(hub):
    assert read("owner/data", split="test", **HUB) == [("0", "de test", 0)]
    assert read("owner/data", id="id", **HUB) == [("1", "de train", 0)]
    assert hub == [None, ["text"], None, ["text", "id"]]


@pytest.mark.parametrize("name", ["owner/data", "wikitext", "json"])
def test_no_folder_of_the_working_directory_is_read_for_a_hub_dataset(name, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    (tmp_path / name / "train.jsonl").write_text('{"text": "not this"}\n')
    asked = CorpusConfig.model_validate({"path": f"hf://{name}"})
    for rows in (open_documents, read_records):
        with pytest.raises(CorpusError, match=rf"^corpus\.path: {name}.* [Hh]ub"):
            list(rows(asked))


def test_wrong_parts_of_a_hub_dataset_are_named(hub):
    message = error("owner/data", split="dev", **HUB)
    assert "'train'" in message
    assert "'test'" in message
    assert "did you mean 'text'?" in error("owner/data", text="txt", **HUB)
    message = error("owner/data", **{**HUB, "name": "fr"})
    assert "fr" in message
    assert "corpus.name" in message


def gated(message: str) -> Exception:
    """As `datasets` raises it: the message holds the repository's name, the cause says what it is."""
    error = DatasetNotFoundError(message)
    request = httpx2.Request("GET", "https://huggingface.co/api/datasets/owner/data")
    error.__cause__ = GatedRepoError("403", response=httpx2.Response(403, request=request))
    return error


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ConnectionError("Couldn't reach 'owner/data' on the Hub"), "check the network"),
        (DatasetNotFoundError("Dataset 'owner/data' doesn't exist on the Hub"), "no such dataset"),
        (gated("Dataset 'owner/data' is a gated dataset on the Hub."), "is gated"),
        (DatasetNotFoundError("Dataset 'owner/gated-data' doesn't exist on the Hub"), "no such dataset"),
        (RuntimeError("strange\nlong story"), "cannot be read from the Hugging Face hub (strange)"),
    ],
)
def test_failures_of_the_hub_are_told_apart(raised, said, monkeypatch):
    def fail(*arguments, **options):
        raise raised

    monkeypatch.setattr(datasets, "load_dataset_builder", fail)
    message = error("owner/data")
    assert message.startswith("corpus.path: owner/data: ")
    assert said in message


def test_a_local_fingerprint_follows_names_and_contents(tmp_path):
    folder = write_shards(tmp_path)
    first, second = sorted(folder.glob("*.gz"))
    lines = [f"{f.name}\0{hashlib.sha256(f.read_bytes()).hexdigest()}\n" for f in (first, second)]
    expected = hashlib.sha256("".join(lines).encode()).hexdigest()
    before = source_fingerprint(config(folder))
    assert before == f"sha256:{expected}"
    (folder / "README.md").write_text("changed, but no data")
    os.utime(first, (0, 0))
    assert source_fingerprint(config(folder, window=64, limit=3)) == before
    second.write_bytes(second.read_bytes() + b"\0")
    assert source_fingerprint(config(folder)) != before


def test_a_saved_fingerprint_follows_its_data(tmp_path):
    folder = write_saved(tmp_path)
    before = source_fingerprint(config(folder))
    (folder / "cache-1.arrow").touch()  # `datasets` leaves such files
    assert source_fingerprint(config(folder)) == before
    file = next(folder.glob("data-*.arrow"))
    file.write_bytes(file.read_bytes() + b"\0")
    assert source_fingerprint(config(folder)) != before


def test_a_hub_fingerprint_is_the_commit(monkeypatch):
    def info(self, repository, revision=None):
        assert (repository, revision) == ("owner/data", "main")
        return huggingface_hub.DatasetInfo(
            id=repository, sha="c0ffee", private=False, downloads=0, likes=0, tags=[]
        )

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    found = source_fingerprint(config("owner/data", name="en", revision="main", split="test"))
    assert found == "hub:owner/data@c0ffee?name=en&split=test"


def test_a_hub_fingerprint_without_network(monkeypatch):
    def fail(*arguments, **options):
        raise OSError("no route")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", fail)
    with pytest.raises(CorpusError, match=r"owner/data.*no route.*network"):
        source_fingerprint(config("owner/data"))
