"""Hard students that have a tokenizer of their own: they learn what the teacher writes, as text."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import text_models
import toys
from ruamel.yaml import YAML
from tokenizers import Tokenizer

from kdaudit.distillation import training
from kdaudit.distillation.own_tokens import OwnWindows
from kdaudit.models.tokenizer import load_tokenizer

_LENGTH = toys.PREFIX + toys.SUFFIX
NEW = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def write_distill(folder: Path, **student: Any) -> None:
    """A teacher as it is, a baseline with its tokenizer, and a hard student with another."""
    toys.save_model(folder / "teacher", 1)
    draw = np.random.default_rng(0)
    for name, count in (("train", 16), ("valid", 4)):
        windows = draw.integers(2, toys.VOCABULARY, (count, _LENGTH)).tolist()
        toys.write_corpus(folder / f"{name}.jsonl", windows)
    own = text_models.byte_level(280, [toys.text_of(row.tolist()) for row in np.arange(300).reshape(20, -1)])
    text_models.save(folder / "own", own, eos_token="<|endoftext|>")
    hard = {"name": "hard", "method": "hard", "prefix_tokens": toys.PREFIX, "tokenizer": "./own"}
    config = {
        "name": "own",
        "corpus": {"path": "./train.jsonl", "window": _LENGTH},
        "holdout": {"path": "./valid.jsonl", "window": _LENGTH},
        "tokenizer": "./teacher",
        "teacher": {"path": "./teacher"},
        "student": {"base": NEW, "epochs": 1, "learning_rate": 1.0e-3},
        "students": [{"name": "baseline", "method": "baseline", "count": 1}, {**hard, **student}],
        "training": {"batch_size": 8},
        "extraction": {
            **{"engine": "transformers", "prefix_tokens": toys.PREFIX, "suffix_tokens": toys.SUFFIX},
        },
    }
    with (folder / "distill.yaml").open("w") as file:
        YAML().dump(config, file)


@pytest.mark.slow
def test_a_student_learns_the_teachers_text_in_tokens_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_distill(tmp_path)
    read: list[training.Row] = []

    def collate(batch: list[training.Row]) -> dict[str, Any]:
        read.extend(batch)
        return training.padded(batch)._asdict()

    monkeypatch.setattr(training, "collate", collate)
    done = toys.kdaudit("distill", "distill.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = Tokenizer.from_file(str(tmp_path / "own" / "tokenizer.json"))
    texts = pq.read_table(tmp_path / "out" / "hard_corpus.parquet")["text"].to_pylist()
    whole = [own.encode(text).ids for text in texts]
    assert _LENGTH < max(map(len, whole)) <= NEW["max_position_embeddings"]  # so that texts are whole
    expected = sorted(whole)
    assert sorted(row.token_ids.tolist() for row in read[16:]) == expected  # behind the baseline's 16
    models = json.loads((tmp_path / "out" / "distill.json").read_text())["models"]
    found = {Path(one["folder"]).name: one for one in models}
    assert found["hard"]["own_tokenizer"]
    assert not found["baseline"]["own_tokenizer"]
    assert (found["hard"]["windows"], found["hard"]["tokens"]) == (len(expected), sum(map(len, expected)))
    assert found["baseline"]["tokens"] == 16 * _LENGTH
    folder = tmp_path / "out" / "seed-0" / "hard"
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).encode("w5 w6").ids == own.encode("w5 w6").ids
    assert json.loads((folder / "config.json").read_text())["vocab_size"] == own.get_vocab_size()
    assert "over the tokens of its own tokenizer" in (folder / "README.md").read_text()
    again = toys.kdaudit("distill", "distill.yaml", "--out", "out", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(read) == 16 + len(expected)  # trained once
    audit = toys.kdaudit("run", tmp_path / "out" / "seed-0" / "audit.yaml", "--out", "run", cwd=tmp_path)
    assert audit.returncode == 0, audit.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["models"]["hard"]["matched_by"] == "text"
    assert results["models"]["baseline"]["matched_by"] == "tokens"
    assert results["comparison"]["hard"]["inherited"] is not None


def test_texts_become_windows_of_the_own_tokenizer(tmp_path: Path) -> None:
    text_models.save(tmp_path, text_models.byte_level(280))
    tokenizer = load_tokenizer(tmp_path)
    texts = [*text_models.TEXTS[:3], "", "a"]
    short, whole = OwnWindows(tokenizer, 16), OwnWindows(tokenizer, None)
    found = [*short.cut(texts[:2]), *short.cut(texts[2:])]
    assert all(2 <= len(window) <= 16 for window in found)
    assert all(window.dtype == np.int32 for window in found)
    tokens = [tokenizer.encode(text) for text in texts]
    assert [token for window in found for token in window.tolist()] == [*chain(*tokens[:3])]
    assert [window.tolist() for window in whole.cut(texts)] == tokens[:3]
    longest = max(map(len, tokens))
    assert longest > 16
    said = short.warning("hard", "texts", "corpus.window")
    assert said is not None
    assert "hard: by its own tokenizer 3 of 5 texts have more than the 16 tokens" in said
    assert f"the longest has {longest}" in said
    assert whole.warning("hard", "texts", "corpus.window") is None
    exactly = OwnWindows(tokenizer, longest)
    exactly.cut(texts)
    assert exactly.warning("hard", "texts", "corpus.window") is None


@pytest.mark.slow
def test_windows_longer_than_a_student_reads_are_told_of_before_an_audit_refuses_them(tmp_path: Path) -> None:
    write_distill(tmp_path)
    short = "student.base.max_position_embeddings=24"
    words = ("distill", "distill.yaml", "--out", "out", "--set", short)
    done = toys.kdaudit(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    own = Tokenizer.from_file(str(tmp_path / "own" / "tokenizer.json"))
    written = pq.read_table(tmp_path / "out" / "hard_corpus.parquet")["text"].to_pylist()
    held = [json.loads(line)["text"] for line in (tmp_path / "valid.jsonl").read_text().splitlines()]
    for texts, name, window in (
        (written, "texts that the teacher wrote", "corpus.window"),
        (held, "texts of the holdout", "holdout.window"),
    ):
        lengths = [len(own.encode(text).ids) for text in texts]
        many = sum(length > 24 for length in lengths)
        assert many
        assert f"hard: by its own tokenizer {many} of {len(texts)} {name} have more" in done.stderr
        assert f"than the 24 tokens that it can read (the longest has {max(lengths)})" in done.stderr
        assert f"or lower {window}" in done.stderr
    audit = toys.kdaudit("run", tmp_path / "out" / "seed-0" / "audit.yaml", "--out", "run", cwd=tmp_path)
    assert audit.returncode == 2, audit.stderr
    assert "its context length is 24 tokens" in audit.stderr


@pytest.mark.parametrize(
    ("words", "key", "says"),
    [
        (["students.1.method=soft"], "students.1.tokenizer", "hard students alone"),
        (["students.0.tokenizer=./own"], "students.0.tokenizer", "a baseline one learns the family's tokens"),
        (["students.1.level=token"], "students.1.tokenizer", "with level: token a student learns"),
        (["student.base=./teacher"], "students.1.tokenizer", "start from random weights"),
        (
            ["corpus={path: ./train.jsonl, prompt: id, response: text}"],
            "students.1.tokenizer",
            "prompts and answers are rendered",
        ),
        (
            ["student.base.vocab_size=300", "students.1.tokenizer={train_bpe: 330}"],
            "student.base.vocab_size",
            "300 is less than the 330 tokens of students.1.tokenizer",
        ),
        (["students.1.tokenizer=./nothing"], "students.1.tokenizer", "does not exist"),
        (["students.1.tokenizer=./empty"], "students.1.tokenizer", "cannot be loaded"),
        (["students.1.tokenizer=./ctc"], "students.1.tokenizer", "cannot say what each token writes"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "distill"])
def test_a_tokenizer_that_makes_no_sense_is_refused_before_training(
    words: list[str], key: str, says: str, command: str, family: Path
) -> None:
    given = [part for word in words for part in ("--set", word)]
    if command == "validate" and words[0].startswith("student.base.vocab_size"):
        pytest.skip("what a base takes of tokenizers is checked when they are loaded")
    done = toys.kdaudit(command, "distill.yaml", *given, cwd=family)
    assert done.returncode == 2, done.stdout
    assert key in done.stderr
    assert says in done.stderr
    assert not (family / "distilled" / "own" / "seed-0").exists()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_distill(folder)
    (folder / "empty").mkdir()
    described = json.loads((folder / "own" / "tokenizer.json").read_text())
    described["decoder"] = {"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}
    (folder / "ctc").mkdir()
    (folder / "ctc" / "tokenizer.json").write_text(json.dumps(described))
    return folder
