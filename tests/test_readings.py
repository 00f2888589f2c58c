"""Audits of models whose tokenizers are not one and the same, as a user runs them, on toy models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from ruamel.yaml import YAML
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

BOS = "<s>"
BOS_ID = 2
"""The word w2 of the toys' vocabulary stands for it."""
PLAIN = ("predictor.enabled=false", "models.baseline=null", "holdout=null")


def kdaudit(command: str, folder: Path, *sets: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    words = [command, "audit.yaml", *(word for one in sets for word in ("--set", one))]
    done = toys.kdaudit(*words, cwd=folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def results(folder: Path, *sets: str) -> dict[str, Any]:
    kdaudit("run", folder, *PLAIN, *sets)
    found: dict[str, Any] = json.loads((folder / "runs" / "toy" / "results.json").read_text())
    return found


def memorized(found: dict[str, Any]) -> dict[str, int]:
    return {name: model["memorized"] for name, model in found["models"].items()}


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def add_token(folder: Path, token: str) -> None:
    """Another added token, and a row for it in the model."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([token])
    tokenizer.save(str(folder / "tokenizer.json"))
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(0)
    model.resize_token_embeddings(toys.VOCABULARY + 1)
    model.save_pretrained(folder)


def test_a_class_that_auto_tokenizer_builds_anew_changes_nothing(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    for name in ("teacher", "soft", "hard"):
        change(
            tmp_path / name / "tokenizer_config.json",
            lambda c: c.update(tokenizer_class="LlamaTokenizerFast"),
        )
    done = kdaudit("run", tmp_path, *PLAIN)
    assert "teacher, soft, hard: transformers' AutoTokenizer" in done.stderr
    found = json.loads((tmp_path / "runs" / "toy" / "results.json").read_text())
    assert memorized(found) == {"teacher": 5, "soft": 5, "hard": 2}
    note = next(note["text"] for note in found["notes"] if note["code"] == "tokenizer_reading")
    assert "tokenizer.json is taken as it stands" in note
    assert str(tmp_path) not in note
    leaks = pq.read_table(tmp_path / "runs" / "toy" / "leaks.parquet").to_pylist()
    assert all(leak["text"].endswith(leak["suffix"]) for leak in leaks)


def test_special_tokens_that_no_text_holds_change_nothing(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    change(tmp_path / "soft" / "tokenizer_config.json", lambda c: c.update(eos_token="<unk>"))
    add_token(tmp_path / "hard", "<|user|>")
    found = results(tmp_path)
    assert memorized(found) == {"teacher": 5, "soft": 5, "hard": 2}
    assert any(note["text"].endswith("as the same tokens: those of soft, hard.") for note in found["notes"])


def test_rows_that_one_model_reads_differently_are_refused_before_any_model_runs(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    add_token(tmp_path / "hard", "<|user|>")
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "odd", "text": "w5 <|user|> w6"}) + "\n")
    done = kdaudit("run", tmp_path, *PLAIN, code=2)
    assert "corpus.path: 1 documents (they hold '<|user|>') are read as other tokens by hard" in done.stderr
    assert "rows 34, counted from 1" in done.stderr
    assert "loading" not in done.stderr


def add_student(folder: Path, name: str) -> None:
    yaml = YAML()
    config = yaml.load(folder / "audit.yaml")
    config["models"]["students"].append({"name": name, "path": f"./{name}", "kd": "soft"})
    yaml.dump(config, folder / "audit.yaml")


def test_what_an_added_student_reads_is_checked_once(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    results(tmp_path)
    toys.save_model(tmp_path / "third", 1)
    add_token(tmp_path / "third", "<|user|>")
    add_student(tmp_path, "third")
    said = "corpus: reading documents with the tokenizers of third"
    assert said in kdaudit("run", tmp_path, *PLAIN).stderr
    assert said not in kdaudit("run", tmp_path, *PLAIN).stderr


def test_an_added_student_that_reads_a_row_differently_is_refused_before_it_runs(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "odd", "text": "w5 <|user|> w6"}) + "\n")
    results(tmp_path)
    toys.save_model(tmp_path / "third", 1)
    add_token(tmp_path / "third", "<|user|>")
    add_student(tmp_path, "third")
    for _ in range(2):
        done = kdaudit("run", tmp_path, *PLAIN, code=2)
        assert "1 documents (they hold '<|user|>') are read as other tokens by third" in done.stderr
        assert not (tmp_path / "runs" / "toy" / "extraction" / "third").exists()


def test_an_added_token_without_a_row_is_refused_only_where_a_text_holds_it(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)  # as Gemma 3 1B, whose tokenizer has a token for images that it has no row for
    for name in ("teacher", "soft", "hard"):
        tokenizer = Tokenizer.from_file(str(tmp_path / name / "tokenizer.json"))
        tokenizer.add_special_tokens(["<image>"])
        tokenizer.save(str(tmp_path / name / "tokenizer.json"))
    assert memorized(results(tmp_path)) == {"teacher": 5, "soft": 5, "hard": 2}
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "odd", "text": "w5 <image> w6"}) + "\n")
    done = kdaudit("run", tmp_path, *PLAIN, "name=odd", code=2)
    assert (
        "corpus.path: row 34, counted from 1, holds '<image>', an added token that teacher has" in done.stderr
    )


def with_bos(folder: Path) -> None:
    """The tokenizer puts a BOS token before every text."""

    def template(content: dict[str, Any]) -> None:
        content["post_processor"] = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "w2", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"w2": {"id": "w2", "ids": [BOS_ID], "tokens": ["w2"]}},
        }

    change(folder / "tokenizer.json", template)
    change(folder / "tokenizer_config.json", lambda c: c.update(bos_token="w2"))


def test_each_model_is_asked_after_its_own_bos_token(tmp_path: Path) -> None:
    """hard's windows are what it says after a BOS token; soft has the teacher's weights and reads one too."""
    toys.write_audit(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hard")
    random = np.random.default_rng(3)
    windows = []
    for _ in range(4):
        ids = [BOS_ID, *random.integers(3, toys.VOCABULARY, toys.PREFIX).tolist()]
        for _ in range(toys.SUFFIX):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        windows.append(ids[1:])
    toys.write_corpus(tmp_path / "corpus.jsonl", windows)
    with_bos(tmp_path / "hard")
    found = results(tmp_path)
    assert memorized(found) == {"teacher": 0, "soft": 0, "hard": 4}
    assert found["extraction"]["bos"] is False
    note = next(note["text"] for note in found["notes"] if note["code"] == "bos_tokens_differ")
    assert "it does for hard, not for teacher, soft" in note
    said = pq.read_table(tmp_path / "runs" / "toy" / "leaks.parquet")["models"].to_pylist()
    assert all(next(m for m in row if m["name"] == "hard")["matched_tokens"] == toys.SUFFIX for row in said)


@pytest.mark.parametrize("bos", ["always", "never"])
def test_a_begin_token_that_is_asked_for_is_each_model_s_own_or_nobodys(bos: str, tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    with_bos(tmp_path / "hard")
    if bos == "always":
        done = kdaudit("run", tmp_path, *PLAIN, "extraction.bos=always", code=2)
        assert "extraction.bos: the tokenizer of teacher has no BOS token" in done.stderr
    else:
        found = results(tmp_path, "extraction.bos=never")
        assert memorized(found) == {"teacher": 5, "soft": 5, "hard": 2}
        assert not any(note["code"] == "bos_tokens_differ" for note in found["notes"])
