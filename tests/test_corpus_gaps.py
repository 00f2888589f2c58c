"""Data that would be missing, or read twice, without a word."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

import pytest
import toys

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import open_documents, pin_source, refuse_equal_sources
from kdaudit.errors import CorpusError


def rows(*texts: str) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def read(path: Path, **keys: str) -> list[str]:
    return [document.text for document in open_documents(CorpusConfig(path=str(path), **keys))]


FIRST, SECOND = lzma.compress(rows("one", "two")), lzma.compress(rows("three") * 5000)


@pytest.mark.parametrize("between", [b"", b"\0" * 4, b"\0" * 8])
def test_every_stream_of_an_xz_file_is_read(between: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(FIRST + between + SECOND + b"\0" * 4)
    assert read(path) == ["one", "two", *["three"] * 5000]


@pytest.mark.parametrize(
    "damaged",
    [FIRST + b"x" + SECOND[1:], FIRST + b"\0\0\0\0garbage", FIRST + SECOND[:-9], FIRST[:-3]],
)
def test_a_damaged_stream_of_an_xz_file_is_refused(damaged: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.xz"
    path.write_bytes(damaged)
    with pytest.raises(CorpusError, match="cannot be read"):
        read(path)


def test_shards_of_two_uploads_are_refused(tmp_path: Path) -> None:
    for number, total in ((0, 1), (0, 2), (1, 2)):
        (tmp_path / f"train-{number:05d}-of-{total:05d}.jsonl").write_bytes(rows("text"))
    with pytest.raises(CorpusError, match=r"several uploads \(of 1 and of 2\)"):
        read(tmp_path)


@pytest.mark.parametrize("first", ["train-00000-of-00001", "train-00000-of-00001-a1b2c3d4e5f60718"])
def test_a_shard_of_two_uploads_is_refused(first: str, tmp_path: Path) -> None:
    second = "train-00000-of-00001-ffffffffffffffff"
    for name in (first, second):
        (tmp_path / f"{name}.jsonl").write_bytes(rows("text"))
    with pytest.raises(CorpusError, match=rf"holds {first}.jsonl and {second}.jsonl, one shard of two"):
        read(tmp_path)


def test_shards_that_share_a_number_may_be_of_two_texts(tmp_path: Path) -> None:
    for name in ("00000-of-00001-en", "00000-of-00001-fr", "00000-of-00001.de", "00000-of-00001.it"):
        (tmp_path / f"c-{name}.jsonl").write_bytes(rows(name))
    assert len(read(tmp_path)) == 4


def test_a_file_and_a_link_to_it_are_not_read_twice(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "part-0.jsonl").write_bytes(rows("one"))
    link = tmp_path / "data" / "latest.jsonl"
    link.symlink_to("part-0.jsonl")
    with pytest.raises(CorpusError, match=r"is a link to .*part-0\.jsonl, which is read too"):
        read(tmp_path)
    link.unlink()
    (tmp_path / "elsewhere").write_bytes(rows("two"))
    link.symlink_to(tmp_path / "elsewhere")  # as the hub's cache has it
    assert sorted(read(tmp_path)) == ["one", "two"]
    link.unlink()
    (tmp_path / ".cache").mkdir()  # which is not read
    (tmp_path / ".cache" / "b.jsonl").write_bytes(rows("three"))
    link.symlink_to(tmp_path / ".cache" / "b.jsonl")
    assert sorted(read(tmp_path)) == ["one", "three"]
    link.unlink()
    link.symlink_to("latest.jsonl")
    with pytest.raises(CorpusError, match=r"latest\.jsonl"):
        read(tmp_path)


@pytest.mark.parametrize("copy", ["a link", "a copy"])
def test_a_holdout_with_the_corpuss_content_is_refused(copy: str, tmp_path: Path) -> None:
    corpus, holdout = tmp_path / "corpus.jsonl", tmp_path / "valid.jsonl"
    corpus.write_bytes(rows("one", "two"))
    if copy == "a link":
        holdout.symlink_to(corpus)
    else:
        holdout.write_bytes(corpus.read_bytes())
    sources = {
        key: pin_source(CorpusConfig(path=str(path)), key)
        for key, path in {"corpus": corpus, "holdout": holdout}.items()
    }
    with pytest.raises(
        CorpusError, match=r"^holdout\.path: .*valid\.jsonl: holds the same data as the corpus"
    ):
        refuse_equal_sources(sources)
    holdout.unlink()
    holdout.write_bytes(rows("one", "three"))
    refuse_equal_sources({**sources, "holdout": pin_source(CorpusConfig(path=str(holdout)), "holdout")})


def test_an_audit_whose_holdout_is_a_copy_of_its_corpus_is_refused(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    shutil.copy(tmp_path / "corpus.jsonl", tmp_path / "holdout.jsonl")
    done = toys.kdaudit("run", tmp_path / "audit.yaml", "--out", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 2
    assert "holdout.path" in done.stderr
    assert "holds the same data as the corpus" in done.stderr
    assert not (tmp_path / "run").exists()
