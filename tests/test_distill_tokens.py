"""`kdaudit distill` with tokenizers that are not one and the same, and with a padded teacher."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from ruamel.yaml import YAML
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

_PADDED = toys.VOCABULARY + 20
_TEXT = "w5 w6 <|user|> w7"


def _add_token(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|user|>"])
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A padded teacher that likes to say what stands for no token, and has a chat token; a base without it.

    The tokenizer_config.json of both names a class that AutoTokenizer makes other tokens with.
    """
    folder = tmp_path_factory.mktemp("family")
    for name, width in (("teacher", 64), ("base", 32)):
        toys.save_model(folder / name, 1, width)
        config = folder / name / "tokenizer_config.json"
        config.write_text(
            json.dumps({**json.loads(config.read_text()), "tokenizer_class": "LlamaTokenizerFast"})
        )
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher")
    teacher.resize_token_embeddings(_PADDED)
    with torch.no_grad():
        for row in range(toys.VOCABULARY, _PADDED):
            teacher.lm_head.weight[row] = 1.5 * teacher.lm_head.weight[row - 200]
    teacher.save_pretrained(folder / "teacher")
    _add_token(folder / "teacher")
    draw = np.random.default_rng(0)
    for name, count in (("train", 24), ("valid", 4)):
        toys.write_corpus(folder / f"{name}.jsonl", draw.integers(2, toys.VOCABULARY, (count, 16)).tolist())
    config = {
        "name": "tiny",
        "corpus": {"path": "./train.jsonl", "window": 16},
        "holdout": {"path": "./valid.jsonl", "window": 16},
        "teacher": {"path": "./teacher"},
        "student": {"base": "./base", "epochs": 1, "learning_rate": 1.0e-4},
        "students": [
            {"name": "greedy", "method": "hard", "prefix_tokens": 6},
            {"name": "sampled", "method": "hard", "prefix_tokens": 6, "decoding": "sampled"},
        ],
        "training": {"batch_size": 8},
        "seeds": [0],
        "extraction": {"engine": "transformers", "prefix_tokens": 6, "suffix_tokens": 8},
    }
    with (folder / "distill.yaml").open("w") as out:
        YAML().dump(config, out)
    return folder


def _distill(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return toys.kdaudit("distill", "distill.yaml", *words, cwd=folder)


@pytest.fixture(scope="module")
def done(made: Path) -> subprocess.CompletedProcess[str]:
    done = _distill(made)
    assert done.returncode == 0, done.stderr
    return done


def test_a_padded_teacher_writes_nothing_but_tokens(made: Path, done: Any) -> None:
    for name in ("hard_corpus", "hard_corpus-sampled"):
        rows = pq.read_table(made / "distilled" / "tiny" / f"{name}.parquet").to_pylist()
        assert len(rows) == 24
        assert max(max(row["generated_token_ids"]) for row in rows) < toys.VOCABULARY, name
        assert all(len(row["generated"].split()) == 10 for row in rows), name


def test_students_are_saved_with_the_tokenizer_of_their_base_as_its_file_reads(
    made: Path, done: subprocess.CompletedProcess[str]
) -> None:
    student = made / "distilled" / "tiny" / "seed-0" / "greedy"
    expected = Tokenizer.from_file(str(made / "base" / "tokenizer.json")).encode(_TEXT).ids
    assert Tokenizer.from_file(str(student / "tokenizer.json")).encode(_TEXT).ids == expected
    assert AutoTokenizer.from_pretrained(student).encode(_TEXT) == expected
    assert "transformers' AutoTokenizer (LlamaTokenizer)" in done.stderr


def test_text_that_teacher_and_base_read_differently_is_refused(made: Path, tmp_path: Path) -> None:
    text = (made / "train.jsonl").read_text()
    (tmp_path / "train.jsonl").write_text(text + json.dumps({"id": "odd", "text": _TEXT}) + "\n")
    done = _distill(made, "--set", f"corpus.path={tmp_path / 'train.jsonl'}", "--out", str(tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert "corpus.path: 1 documents (they hold '<|user|>') are read as other tokens by" in done.stderr
    assert "rows 25, counted from 1" in done.stderr
