"""`kdaudit distill` on chats: loss on the answers alone, and a teacher that answers the prompts again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chats
import numpy as np
import pyarrow.parquet as pq
import pytest
from test_answers import Expected, conversation, own_tokenizer
from toys import kdaudit

from kdaudit.config.distill import HardStudent
from kdaudit.config.yaml.loading import load_audit
from kdaudit.distillation import training
from kdaudit.distillation.bases import Base, check_bases
from kdaudit.distillation.corpus import _values
from kdaudit.distillation.plans import decoding_settings
from kdaudit.distillation.windows import WindowFile, open_windows
from kdaudit.errors import ModelError

NEW = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 60,
}


def test_a_model_that_cannot_read_an_answer_is_refused_before_training() -> None:
    bases = {key: Base(None, NEW, key) for key in ("teacher.base", "student.base")}
    with pytest.raises(ModelError, match="prefix and suffix of an answer take 61 behind") as caught:
        check_bases(bases, own_tokenizer(), 64, 61, lambda warning: None, answers=True)
    assert caught.value.key == "teacher.base"


def test_a_family_without_a_chat_template_is_refused_before_training(tmp_path: Path) -> None:
    chats.tokenizer(None).save_pretrained(tmp_path / "tokenizer")
    random = np.random.default_rng(2)
    for name in ("train", "valid"):
        rows = [{"messages": conversation(random, 1)} for _ in range(3)]
        chats.write_rows(tmp_path / f"{name}.jsonl", rows)
    learner = {"base": NEW, "epochs": 1, "learning_rate": 1e-3}
    config = {
        "name": "chat",
        "corpus": {"path": "./train.jsonl", "messages": "messages", "window": 16},
        "holdout": {"path": "./valid.jsonl", "messages": "messages", "window": 16},
        "tokenizer": "./tokenizer",
        "teacher": learner,
        "student": learner,
        "students": [{"name": "baseline", "method": "baseline"}, {"name": "soft", "method": "soft"}],
        "extraction": {"engine": "transformers", "suffix_tokens": 8},
    }
    (tmp_path / "distill.yaml").write_text(json.dumps(config))
    done = kdaudit("validate", "distill.yaml", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert "corpus.template: the model's tokenizer has no chat template" in done.stderr
    (tmp_path / "chat.jinja").write_text(chats.CHATML)
    done = kdaudit("validate", "distill.yaml", "--set", "corpus.template=./chat.jinja", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_of_an_answer_with_nothing_before_it_the_teacher_is_given_its_first_tokens(tmp_path: Path) -> None:
    np.arange(30, dtype="<i4").tofile(tmp_path / "windows.bin")
    prompts = np.array([3, 0, 5])
    windows = WindowFile(tmp_path / "windows.bin", [10, 20, 30], ["a", "b", "c"], "", prompts)
    config = SimpleNamespace(
        corpus=SimpleNamespace(has_answers=True), extraction=SimpleNamespace(prefix_tokens=2)
    )
    lab: Any = SimpleNamespace(config=config, windows=windows, readers=SimpleNamespace(ends=(7,)), bos=None)
    settings = decoding_settings(lab, HardStudent(name="hard", method="hard"), 0)
    assert settings.prefixes(windows, range(3)).tolist() == [3, 2, 5]
    assert settings.prefixes(windows, np.array([1])).tolist() == [2]
    lab.windows.prompts = np.array([3, 4, 5])
    assert _values(decoding_settings(lab, HardStudent(name="hard", method="hard"), 0)) == {
        **{"prefix_tokens": None, "temperature": 0.0, "seed": 0, "bos": None, "ends": (7,)}
    }  # as earlier versions wrote it down


@pytest.mark.slow
def test_a_family_learns_answers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chats.tokenizer(None).save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "chat.jinja").write_text(chats.CHATML)
    random = np.random.default_rng(2)
    rows = [conversation(random, int(random.integers(1, 3))) for _ in range(12)]
    for name, part in (("train", rows), ("valid", [conversation(random, 1) for _ in range(3)])):
        chats.write_rows(tmp_path / f"{name}.jsonl", [{"messages": row} for row in part])
    corpus = {"messages": "messages", "window": 16, "template": "./chat.jinja"}
    learner = {"base": NEW, "epochs": 1, "learning_rate": 1e-3}
    config: dict[str, Any] = {
        "name": "chat",
        "corpus": {"path": "./train.jsonl", **corpus},
        "holdout": {"path": "./valid.jsonl", **corpus},
        "tokenizer": "./tokenizer",
        "teacher": learner,
        "student": learner,
        "students": [
            {"name": "baseline", "method": "baseline", "count": 1},
            {"name": "soft", "method": "soft"},
            {"name": "hard", "method": "hard"},
        ],
        "extraction": {"engine": "transformers", "suffix_tokens": chats.SUFFIX},
        "training": {"batch_size": 4},
    }
    (tmp_path / "distill.yaml").write_text(json.dumps(config))
    read: list[training.Row] = []

    def collate(batch: list[training.Row]) -> dict[str, Any]:
        read.extend(batch)
        return training.padded(batch)._asdict()

    monkeypatch.setattr(training, "collate", collate)
    done = kdaudit("distill", "distill.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    windows = open_windows(tmp_path / "out" / "windows" / "corpus.bin")
    expected = Expected(rows)
    starts = [tuple(row[:end].tolist()) for row, end in zip(windows, windows.measured, strict=True)]
    assert starts == [*expected]
    assert [int(prompt) for prompt in windows.prompts] == [*expected.prompts.values()]
    assert all(
        int(row[-1]) in (2, 3) or len(row) - prompt == 16
        for row, prompt in zip(windows, windows.prompts, strict=True)
    )
    text = sorted(
        (tuple(row.tolist()), int(prompt)) for row, prompt in zip(windows, windows.prompts, strict=True)
    )
    learned = [(tuple(row.token_ids.tolist()), row.prompt) for row in read]
    assert sorted(learned[: len(text)]) == text, "the teacher's"
    assert sorted(learned[2 * len(text) : 3 * len(text)]) == text, "the soft student's"
    written = pq.read_table(tmp_path / "out" / "hard_corpus.parquet").to_pylist()
    for row, window, prompt in zip(written, windows, windows.prompts, strict=True):
        assert row["prefix_token_ids"] == window[:prompt].tolist()
        assert 0 < len(row["generated_token_ids"]) <= len(window) - prompt
    own = sorted(
        (tuple(row["prefix_token_ids"] + row["generated_token_ids"]), len(row["prefix_token_ids"]))
        for row in written
    )
    assert sorted(learned[3 * len(text) :]) == own, "the hard student's"
    audit = load_audit(tmp_path / "out" / "seed-0" / "audit.yaml")
    assert audit.corpus.template == str(tmp_path / "chat.jinja")
    assert (audit.extraction.prefix_tokens, audit.corpus.window) == (0, 16)
    done = kdaudit("run", "out/seed-0/audit.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["corpus"]["examples"] == len(expected)
    assert results["corpus"]["answers"]["template"] == "file"
