"""Folders: which split a file belongs to, what is data and what describes it, and repositories of the Hub."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from corpus_reading import refusal, texts, write_rows

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import pin_source, source_fingerprint

HASH = "a09b74b3ef9c3b56"

LAYOUTS = {
    "files": ["train.jsonl", "validation.jsonl", "test.jsonl"],
    "other words": ["training.jsonl", "dev.jsonl", "eval.jsonl"],
    "words in names": ["my_train-0.jsonl", "my-val.1.jsonl", "big testing 3.jsonl"],
    "upper case": ["TRAIN.jsonl", "Valid.jsonl", "Test.JSONL"],
    "sets": ["trainset.jsonl", "my_valset.jsonl", "testset-0.jsonl"],
    "data in names": ["trainData.jsonl", "DevData.jsonl", "test_split.jsonl"],
    "numbered": ["train1.jsonl", "val2.jsonl", "evaluation3.jsonl"],
    "shards": [f"{name}-00000-of-00001.jsonl" for name in ("train", "validation", "test")],
    "hashed shards": [f"{name}-00000-of-00001-{HASH}.jsonl" for name in ("train", "valid", "test")],
    "shards of old": [f"c4-{name}.00000-of-01024.jsonl" for name in ("train", "validation", "test")],
    "folders": ["train/a.jsonl", "validation/a.jsonl", "test/a.jsonl"],
    "folders below": ["data/train/a.jsonl", "data/dev/a.jsonl", "data/test/a.jsonl"],
    "folders of a language": ["en/train.jsonl", "en/valid.jsonl", "en/test.jsonl"],
    "folders with more in their names": ["train_v2/a.jsonl", "v2-val/a.jsonl", "test.old/a.jsonl"],
    "data/": [f"data/{name}-00000-of-00001-{HASH}.jsonl" for name in ("train", "validation", "test")],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_split_is_read_alone(layout: str, tmp_path: Path) -> None:
    for split, name in zip("abc", LAYOUTS[layout], strict=True):
        write_rows(tmp_path / "corpus" / name, [f"{split} {row}" for row in range(3)])
    for asked, split in (("train", "a"), ("validation", "b"), ("test", "c")):
        assert texts(tmp_path / "corpus", split=asked) == [f"{split} 0", f"{split} 1", f"{split} 2"]
    assert texts(tmp_path / "corpus", split="dev") == ["b 0", "b 1", "b 2"]
    assert "choose from" in refusal(tmp_path / "corpus", split="unsupervised")


def test_shards_may_have_splits_of_any_name(tmp_path: Path) -> None:
    for name in ("train", "unsupervised"):
        write_rows(tmp_path / "flat" / f"{name}-00000-of-00001.jsonl", [name])
    assert texts(tmp_path / "flat") == ["train"]
    assert texts(tmp_path / "flat", split="unsupervised") == ["unsupervised"]
    for name in ("train_sft", "train_gen", "test_sft"):
        write_rows(tmp_path / "sft" / "data" / f"{name}-00000-of-00001.jsonl", [name])
    assert texts(tmp_path / "sft", split="train_gen") == ["train_gen"]
    assert texts(tmp_path / "sft", split="test") == ["test_sft"]
    message = refusal(tmp_path / "sft")
    assert (
        "several splits that 'train' could mean; choose from 'test_sft', 'train_gen', 'train_sft'" in message
    )


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (
            ["train-00000-of-00003", "train-00002-of-00003"],
            "1 of 3 shards of train (such as train-00001-of-00003)",
        ),
        (["sub/c-00007-of-01024"], "1,023 of 1,024 shards of c (such as c-00000-of-01024)"),
        (["train-00000-of-00002-" + HASH, "train-00001-of-00002-" + HASH], None),
        (["c-00001-of-00002", "c-00002-of-00002"], None),
    ],
)
def test_shards_that_are_not_there_are_noted(names: list[str], says: str | None, tmp_path: Path) -> None:
    for name in names:
        write_rows(tmp_path / f"{name}.jsonl", [name])
    note = pin_source(CorpusConfig(path=str(tmp_path))).note
    assert (None if note is None else note.text) == (
        None if says is None else f"The corpus lacks {says}: their text was not read."
    )
    assert pin_source(CorpusConfig(path=str(tmp_path / f"{names[0]}.jsonl"))).note is None, "one is named"


def test_names_without_a_split_are_one_split(tmp_path: Path) -> None:
    for name in ("part-00000-of-00002.jsonl", "part-00001-of-00002.jsonl", "trainer.jsonl", "latest.jsonl"):
        write_rows(tmp_path / "c" / name, [name])
    assert texts(tmp_path / "c") == sorted(file.name for file in (tmp_path / "c").iterdir())
    assert "choose from 'train'" in refusal(tmp_path / "c", split="validation")
    assert texts(write_rows(tmp_path / "validation" / "a.jsonl", ["x"]).parent, split="validation") == ["x"]
    assert texts(write_rows(tmp_path / "dev.jsonl", ["x"]), split="validation") == ["x"]
    assert texts(tmp_path / "dev.jsonl") == ["x"]


def test_a_mixture_is_refused_with_the_names(tmp_path: Path) -> None:
    for name in ("train.jsonl", "extra.jsonl", *(f"more-{row}.jsonl" for row in range(9))):
        write_rows(tmp_path / name, [name])
    message = refusal(tmp_path)
    assert "train.jsonl named after a split" in message
    assert "extra.jsonl, more-0.jsonl, more-1.jsonl and 7 more after none" in message


@pytest.mark.parametrize("name", ["holdout.jsonl", "my_heldout.jsonl", "holdout/a.jsonl"])
def test_a_holdout_beside_the_corpus_is_not_part_of_it(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a" / "corpus.jsonl", ["x"])
    write_rows(tmp_path / "a" / name, ["y"])
    assert f"{name} named after a split, corpus.jsonl after none" in refusal(tmp_path / "a")
    write_rows(tmp_path / "b" / "train.jsonl", ["x"])
    path = write_rows(tmp_path / "b" / name, ["y"])
    assert texts(tmp_path / "b") == ["x"]
    assert texts(tmp_path / "b", split="holdout") == ["y"]
    assert texts(path) == texts(path.parent if path.parent.name == "holdout" else path) == ["y"]


def test_a_name_of_several_splits_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a" / "train-test.jsonl", ["x"])
    assert "train-test.jsonl: a name that states several splits" in refusal(tmp_path / "a")
    write_rows(tmp_path / "b" / "train" / "test-0.jsonl", ["x"])
    assert "train/test-0.jsonl: a name that states several splits" in refusal(tmp_path / "b")


def test_another_split_of_the_corpus_is_another_text(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        write_rows(tmp_path / f"{name}.jsonl", [name])
    prints = {
        source_fingerprint(CorpusConfig(path=str(tmp_path), split=split)) for split in ("train", "validation")
    }
    assert len(prints) == 2


def test_a_fingerprint_does_not_depend_on_the_folders_above(tmp_path: Path) -> None:
    write_rows(tmp_path / "data" / "train-00000-of-00001.jsonl", ["x"])
    (tmp_path / "README.md").write_text("text")
    prints = {source_fingerprint(CorpusConfig(path=str(path))) for path in (tmp_path, tmp_path / "data")}
    assert len(prints) == 1
    write_rows(tmp_path / "nested" / "a" / "x.jsonl", ["x"])
    write_rows(tmp_path / "nested" / "b" / "x.jsonl", ["y"])
    before = source_fingerprint(CorpusConfig(path=str(tmp_path / "nested")))
    (tmp_path / "nested" / "a").rename(tmp_path / "nested" / "c")
    assert source_fingerprint(CorpusConfig(path=str(tmp_path / "nested"))) != before


@pytest.mark.parametrize("split", ["train[:50%]", "train[10:20]", "[:5]", "train+test", "train[:1%]+test"])
@pytest.mark.parametrize("where", ["file", "folder", "hub"])
def test_part_of_a_split_is_refused_with_a_remedy(split: str, where: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "train.jsonl", ["x"])
    message = refusal({"file": path, "folder": tmp_path, "hub": "owner/data"}[where], split=split)
    assert message.startswith(f"corpus.split: {split!r} ")
    assert "corpus.limit to how many examples" in message if "[" in split else "name one of them" in message


METADATA = (
    "dataset_infos.json", "dataset_info.json", "dataset_dict.json.bak", "metadata.json", "state.json",
    "config.json",
    "README.md", "README.txt", "LICENSE.txt", "requirements.txt", ".gitattributes", "croissant.json",
    "_SUCCESS",
    "plot.png", "load.py",
)  # fmt: skip


@pytest.mark.parametrize("form", ["parquet", "jsonl", "json", "csv", "txt"])
def test_metadata_beside_data_is_not_data(form: str, tmp_path: Path) -> None:
    rows = ["one", "two"]
    if form == "parquet":
        pq.write_table(pa.table({"text": rows}), tmp_path / "a.parquet")
    elif form in ("jsonl", "json"):
        write_rows(tmp_path / f"a.{form}", rows)
    else:
        (tmp_path / f"a.{form}").write_text("\n".join(["text", *rows] if form == "csv" else rows) + "\n")
    for name in METADATA:
        (tmp_path / name).write_text("{}")
    for name in (".git/objects/a.jsonl", "__pycache__/b.jsonl", ".cache/c.parquet"):
        write_rows(tmp_path / name, ["hidden"])
    assert texts(tmp_path) == rows


def test_metadata_alone_is_no_data(tmp_path: Path) -> None:
    for name in ("dataset_infos.json", "README.md"):
        (tmp_path / name).write_text("{}")
    assert "holds no data files" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["b.jsonl.bz2", "b.ndjson", "b.tsv", "b.zip", "b.tar.gz", "more/b.feather", "b.parquet.gz", "b.csv.zip"],
)
def test_data_that_cannot_be_read_is_not_left_out_in_silence(name: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    write_rows(tmp_path / name, ["y"])
    message = refusal(tmp_path)
    assert f"{tmp_path / name}: is data of an unsupported kind" in message
    assert "move it away" in message


def test_shards_of_one_format_may_be_packed_in_different_ways(tmp_path: Path) -> None:
    line = b'{"text": "%s"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line % b"a"))
    (tmp_path / "b.jsonl.xz").write_bytes(lzma.compress(line % b"b"))
    (tmp_path / "c.jsonl").write_bytes(line % b"c")
    assert texts(tmp_path) == ["a", "b", "c"]
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(line % b"c"))
    assert "holds c.jsonl and c.jsonl.gz, by their names the same text twice" in refusal(tmp_path)


CARD = """---
license: mit
configs:
- config_name: en
  default: true
  data_files:
  - {split: train, path: data/en-train-*}
  - split: test
    path: [data/en-test-*, more/**]
- config_name: de
  data_files: "data/de-?.jsonl"
tags: [text]
---
# Data
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A cloned repository of the Hub whose names alone would say something else."""
    for name in (
        "data/en-train-0.jsonl", "data/en-train-1.jsonl", "data/en-test-0.jsonl", "data/de-0.jsonl",
        "more/a/b.jsonl",
        "data/left-out.jsonl",
    ):  # fmt: skip
        write_rows(tmp_path / name, [name])
    (tmp_path / "README.md").write_text(CARD)
    (tmp_path / "dataset_infos.json").write_text("{}")
    return tmp_path


def test_a_cloned_repository_is_read_as_its_card_says(repository: Path) -> None:
    assert texts(repository) == ["data/en-train-0.jsonl", "data/en-train-1.jsonl"]
    assert texts(repository, split="test") == ["data/en-test-0.jsonl", "more/a/b.jsonl"]
    assert texts(repository, name="de") == ["data/de-0.jsonl"]
    assert "choose from 'train', 'test'" in refusal(repository, split="validation")
    assert "no configuration 'fr' in README.md; choose from 'en', 'de'" in refusal(repository, name="fr")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_cloned_repository_without_patterns_is_read_by_its_names(line_end: str, tmp_path: Path) -> None:
    for name in ("data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl"):
        write_rows(tmp_path / name, [name])
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\nconfigs:\n", newline=line_end)
    assert texts(tmp_path) == ["data/train-00000-of-00001.jsonl"]
    card = "---\nconfigs:\n- config_name: default\n  data_dir: data\n---\n"
    (tmp_path / "README.md").write_text(card, newline=line_end)
    write_rows(tmp_path / "other.jsonl", ["other"])
    assert texts(tmp_path, split="test") == ["data/test-00000-of-00001.jsonl"]


ODD_CARDS = {
    "- config_name: a\n  data_files: a.jsonl\n  sep: ';'": "its configuration 'a' sets sep",
    "- config_name: a\n  data_files: a.jsonl\n  field: data": "its configuration 'a' sets field",
    "- config_name: a\n  data_files: b-*.jsonl": "README.md names b-*.jsonl, which no data file here matches",
    "- config_name: a\n  data_files: ../a.jsonl": "names ../a.jsonl, which lies elsewhere",
    "- config_name: a\n  data_files: https://example.org/a.jsonl": "which lies elsewhere",
    "- data_files: a.jsonl": "has no config_name",
    "- config_name: a\n  data_files: [{split: train}]": "does not give each split its paths",
    "  a: b": "configs is not a list",
    "- config_name: [": "its configs cannot be read",
    "- {config_name: a, data_files: a.jsonl}\n- {config_name: b, data_files: a.jsonl}": "choose from 'a', "
    "'b'",
}


@pytest.mark.parametrize("configs", ODD_CARDS)
def test_a_card_that_cannot_be_honoured_is_refused_by_name(configs: str, tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}\nlicense: mit\n---\n")
    message = refusal(tmp_path)
    assert ODD_CARDS[configs] in message
    assert "README.md" in message


def test_a_card_may_declare_thousands_of_configurations(tmp_path: Path) -> None:
    """One for each language, as in the large corpora of the web."""
    write_rows(tmp_path / "data" / "l7" / "0.jsonl", ["x"])
    entries = "".join(
        f"- config_name: l{n}\n  data_files:\n  - split: train\n    path: data/l{n}/*\n  - split: test\n"
        f"    path: test/l{n}/*\n"
        for n in range(1900)
    )
    (tmp_path / "README.md").write_text(f"---\nlicense: mit\nconfigs:\n{entries}---\n")
    assert texts(tmp_path, name="l7") == ["x"]


def test_what_is_wrong_in_a_card_is_told_with_its_line(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "README.md").write_text(
        "---\nlicense: mit\nconfigs:\n- config_name: a\n  a: 1\n  a: 2\n---\n"
    )
    assert "README.md:6: configs.0.a: is given twice (first on line 5)" in refusal(tmp_path)


def test_a_card_that_declares_nothing_is_not_read_as_yaml(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "README.md").write_bytes(b"---\nodd: [\n&a *a\xff\n---\n")
    assert texts(tmp_path) == ["x"]


def test_a_folder_of_a_model_is_told_from_one_of_texts(tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{\n}")
    assert f"{tmp_path}: holds a model, not texts; name the folder or file of the texts" in refusal(tmp_path)


def test_settings_of_the_hub_are_refused_for_local_files(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", ["x"])
    for place in (path, tmp_path):
        assert refusal(place, name="en").startswith(f"corpus.name: {place} has no configuration 'en'")
        assert refusal(place, revision="v1").startswith(f"corpus.revision: {place} is local")


def test_a_pointer_of_git_lfs_is_not_text(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"
    for name in ("a.txt", "a.jsonl", "a.csv", "a.parquet", "a.json"):
        (tmp_path / name).write_text(pointer)
        assert f"{name}: is a pointer of Git LFS" in refusal(tmp_path / name)
        assert "run `git lfs pull`" in refusal(tmp_path / name)


def test_saved_splits_without_the_file_that_lists_them(tmp_path: Path) -> None:
    for name in ("train", "test"):
        datasets.Dataset.from_dict({"text": [name]}).save_to_disk(tmp_path / name)
    assert texts(tmp_path) == ["train"]
    assert texts(tmp_path, split="test") == ["test"]


def test_arrow_files_of_the_cache_of_datasets(tmp_path: Path) -> None:
    for name in ("wikitext-train", "wikitext-test", "cache-0123456789abcdef"):
        table = pa.table({"text": [name]})
        opened = pa.ipc.new_file if name.endswith("test") else pa.ipc.new_stream
        with opened(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "dataset_info.json").write_text("{}")
    assert texts(tmp_path) == ["wikitext-train"]
    assert texts(tmp_path, split="test") == ["wikitext-test"]


def test_a_saved_dataset_is_what_it_lists(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    datasets.Dataset.from_dict({"text": ["a", "b"]}, split="validation").save_to_disk(folder, num_shards=2)
    assert texts(folder) == texts(folder, split="validation") == ["a", "b"]
    assert "choose from 'train', 'validation'" in refusal(folder, split="test")
    write_rows(folder / "train.jsonl", ["x"])
    assert "holds a saved dataset and beside it train.jsonl" in refusal(folder)
    (folder / "train.jsonl").unlink()
    state = json.loads((folder / "state.json").read_text())
    outside = {**state, "_data_files": [{"filename": "../secret.arrow"}]}
    selected = {**state, "_indices_data_files": [{"filename": "indices.arrow"}]}
    for changed, says in (
        (outside, "'../secret.arrow' is not a file's name"),
        (selected, "a selection of its rows"),
    ):
        (folder / "state.json").write_text(json.dumps(changed))
        assert says in refusal(folder)


def test_tables_that_are_more_than_their_files_are_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    (tmp_path / "_delta_log").mkdir()
    assert "is a Delta Lake table" in refusal(tmp_path)


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", ["x"])
    odd = tmp_path / "b.jsonl"
    os.mkfifo(odd)
    assert f"{odd}: is not a regular file" in refusal(tmp_path)
    assert f"{odd}: cannot be read (not a regular file)" in refusal(odd)
    odd.unlink()
    odd.symlink_to("/dev/zero")
    assert f"{odd}: is not a regular file" in refusal(tmp_path)
    odd.unlink()
    odd.symlink_to(tmp_path / "gone")
    assert f"{odd}: is a link to something that is gone" in refusal(tmp_path)
    odd.unlink()
    (tmp_path / "loop").symlink_to(tmp_path)
    assert f"{tmp_path / 'loop'}: is reached twice" in refusal(tmp_path)
    (tmp_path / "loop").unlink()
    os.mkfifo(tmp_path / "README.md")
    assert "README.md: cannot be read (not a regular file)" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name", ["a.parquet", "a.jsonl", "a.txt.gz", "a.csv.zst", "a.json", "a.arrow", "saved"]
)
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_path_that_would_block_or_never_end(kind: str, name: str, tmp_path: Path) -> None:
    odd = tmp_path / name
    if kind == "fifo":
        os.mkfifo(odd)
    else:
        odd.symlink_to("/dev/zero")
    message = refusal(odd)
    assert "cannot be read (not a regular file)" in message or "unsupported kind of file" in message


def test_linked_files_are_read(tmp_path: Path) -> None:
    write_rows(tmp_path / "blobs" / "0123", ["a", "b"])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").symlink_to(tmp_path / "blobs" / "0123")
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    assert texts(tmp_path / "data") == texts(tmp_path / "linked") == ["a", "b"]
