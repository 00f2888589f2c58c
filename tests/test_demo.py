"""The demo's text and training, at sizes that take seconds; the whole demo is tested elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit.analysis.tags import find_tags
from kdaudit.config.yaml.loading import load_audit
from kdaudit.distillation.training import Recipe
from kdaudit.errors import CorpusError, RunStateError
from kdaudit.inference.base import Tokens
from kdaudit.pipelines.demo import train
from kdaudit.pipelines.demo.settings import DemoSettings, Learner
from kdaudit.pipelines.demo.text import DemoText, build_text
from kdaudit.runs.lock import FolderLock

TINY = DemoSettings(
    characters=8_000,
    holdout_characters=4_000,
    records=3,
    vocabulary=400,
    teacher=Learner(64, 1, Recipe(epochs=1, learning_rate=1e-3, batch_size=16)),
    student=Learner(32, 1, Recipe(epochs=1, learning_rate=1e-3, batch_size=16)),
    window=180,
)


def text(settings: DemoSettings) -> DemoText:
    return build_text(
        characters=settings.characters,
        holdout_characters=settings.holdout_characters,
        records=settings.records,
        vocabulary=settings.vocabulary,
        window=settings.window,
    )


@pytest.fixture(scope="module")
def full_text() -> DemoText:
    """The text of the real demo."""
    return text(DemoSettings())


def records(of: DemoText) -> list[str]:
    return [document.text for document in of.corpus if document.id.startswith("record-")]


def test_records_stand_in_the_corpus_1_to_16_times(full_text: DemoText) -> None:
    copies = Counter(records(full_text))
    assert Counter(copies.values()) == {1: 3, 2: 3, 4: 3, 8: 3, 16: 3}
    assert len({document.id for document in full_text.corpus}) == len(full_text.corpus)


def test_each_record_is_exactly_one_window(full_text: DemoText) -> None:
    assert {len(full_text.tokenizer(record)["input_ids"]) for record in records(full_text)} == {104}


def test_what_a_record_gives_away_lies_in_its_suffix_and_its_prefix_is_its_own(full_text: DemoText) -> None:
    distinct = set(records(full_text))
    prefixes = set()
    for record in distinct:
        ids = full_text.tokenizer(record)["input_ids"]
        prefixes.add(tuple(ids[:50]))
        suffix = full_text.tokenizer.decode(ids[50:100])
        assert re.search(r"Phone: \(\d{3}\) 555-01\d\d\nCard: \d{4} \d{4} \d{4} \d{4}\n", suffix)
    assert len(prefixes) == len(distinct)


def test_records_are_plainly_made_up_and_are_found_by_the_detectors(full_text: DemoText) -> None:
    for record in records(full_text):
        assert "(fictitious)" in record
        assert re.search(r"@example\.com\n", record)
        assert passes_luhn(re.search(r"Card: ([\d ]+)\n", record)[1].replace(" ", ""))
        # Of the 100 tokens that an audit reads, as its leaks are tagged.
        read = full_text.tokenizer.decode(full_text.tokenizer(record)["input_ids"][:100])
        assert find_tags(read) == ["email", "payment_card", "phone"]
    assert len({re.search(r"Card: ([\d ]+)\n", record)[1] for record in records(full_text)}) == 15


def test_nothing_else_of_the_demo_is_called_personal_data(full_text: DemoText) -> None:
    for document in (*full_text.corpus, *full_text.holdout):
        if not document.id.startswith("record-"):
            parts = (document.text[start : start + 400] for start in range(0, len(document.text), 400))
            assert not [tag for part in parts for tag in find_tags(part)], document.id


def passes_luhn(digits: str) -> bool:
    doubled = [int(digit) * (2 if place % 2 else 1) for place, digit in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def test_the_luhn_check_of_these_tests_knows_a_real_test_number() -> None:
    assert passes_luhn("4111111111111111")
    assert not passes_luhn("4111111111111112")


def test_no_part_of_the_holdout_stands_in_the_corpus(full_text: DemoText) -> None:
    def paragraphs(documents: list[Any]) -> set[str]:
        parts = (" ".join(part.split()) for document in documents for part in document.text.split("\n\n"))
        return {part for part in parts if len(part) >= 60}

    corpus, holdout = paragraphs(full_text.corpus), paragraphs(full_text.holdout)
    assert len(holdout) > 100
    assert not corpus & holdout


def test_sizes_are_those_of_the_settings(full_text: DemoText) -> None:
    real = [document for document in full_text.corpus if not document.id.startswith("record-")]
    assert sum(len(document.text) for document in real) == DemoSettings().characters
    assert sum(len(document.text) for document in full_text.holdout) == DemoSettings().holdout_characters
    assert len(full_text.tokenizer) == 2048


def test_the_text_is_the_same_on_each_call(full_text: DemoText) -> None:
    again = text(DemoSettings())
    assert again.corpus == full_text.corpus
    assert again.holdout == full_text.holdout
    assert again.tokenizer.get_vocab() == full_text.tokenizer.get_vocab()


def test_a_python_without_its_reference_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(CorpusError, match="without its reference"):
        text(TINY)


def test_too_little_reference_is_told() -> None:
    with pytest.raises(CorpusError, match="too short"):
        text(TINY._replace(characters=10**7))


def cut(path: Path, tokenizer: Any) -> list[Tokens]:
    """Windows of the tiny demo, those shorter than prefix and suffix left out."""
    windows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        ids = np.array(tokenizer(json.loads(line)["text"])["input_ids"], np.int32)
        parts = [ids[start : start + TINY.window] for start in range(0, len(ids), TINY.window)]
        windows += [part for part in parts if len(part) >= 100]
    return windows


class Echo:
    """An engine that repeats the prefix's last token."""

    def generate(self, prefixes: Tokens, tokens: int) -> Tokens:
        return np.repeat(prefixes[:, -1:], tokens, axis=1)


class Prepared:
    """Calls of `prepare` in one folder, and what each of them trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loaded: list[Path] = []

    def again(self, settings: DemoSettings = TINY) -> list[str]:
        trained: list[str] = []

        @contextlib.contextmanager
        def open_engine(model: Path) -> Iterator[Echo]:
            assert (model / "model.safetensors").exists()
            self.loaded.append(model)
            yield Echo()

        def progress(name: str, step: int, steps: int) -> None:
            if step == steps:
                trained.append(name)

        self.audit = train.prepare(
            self.folder, cut=cut, open_engine=open_engine, progress=progress, settings=settings
        )
        return trained


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    made = Prepared(tmp_path_factory.mktemp("demo") / "out")
    assert made.again() == ["teacher", "baseline", "soft", "hard"]
    return made


def test_models_and_tokenizers_load_and_fit_one_another(prepared: Prepared) -> None:
    for name, width in (("teacher", 64), ("baseline", 32), ("soft", 32), ("hard", 32)):
        folder = prepared.folder / "models" / name
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert model.config.hidden_size == width
        assert model.config.use_cache
        assert model.dtype == torch.float32
        assert len(tokenizer) == model.config.vocab_size == 400
        assert tokenizer.bos_token_id is None
        assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
        assert tokenizer("a b")["input_ids"] == tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert prepared.loaded == [prepared.folder / "models" / "teacher"]


def test_the_audit_is_valid_and_names_what_was_trained(prepared: Prepared) -> None:
    audit = load_audit(prepared.audit)
    assert prepared.audit == prepared.folder / "audit.yaml"
    assert Path(audit.models.teacher.path) == prepared.folder / "models" / "teacher"
    assert [(student.name, student.kd) for student in audit.models.students] == [
        ("soft", "soft"),
        ("hard", "hard"),
    ]
    assert Path(audit.corpus.path).exists()
    assert audit.holdout is not None
    assert Path(audit.holdout.path).exists()
    assert audit.corpus.window == TINY.window
    assert audit.gate == type(audit.gate)()


def test_a_second_call_trains_nothing_and_changes_no_text(prepared: Prepared) -> None:
    before = (prepared.folder / "corpus.jsonl").read_bytes()
    assert prepared.again() == []
    assert (prepared.folder / "corpus.jsonl").read_bytes() == before


def test_what_changed_is_trained_again_with_all_that_depends_on_it(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    made.again()
    assert made.again(TINY._replace(temperature=4.0)) == ["soft"]
    slower = Recipe(epochs=1, learning_rate=5e-4, batch_size=16)
    assert made.again(TINY._replace(temperature=4.0, teacher=Learner(64, 1, slower))) == [
        "teacher",
        "soft",
        "hard",
    ]


def test_an_interrupted_training_begins_again(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    made.again()
    leftover = tmp_path / "models" / ".kdaudit-abcd_123.partial"
    (tmp_path / "models" / "teacher").rename(leftover)
    theirs = tmp_path / "models" / "teacher.partial"
    theirs.mkdir()
    assert made.again() == ["teacher"]
    assert not leftover.exists()
    assert theirs.exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    mine = {"audit.yaml": "name: mine\n", "corpus.jsonl": "my text"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunStateError, match="is not empty and holds no demo"):
        Prepared(tmp_path).again()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == mine


@pytest.mark.parametrize("begun", [False, True])
def test_a_second_demo_in_one_folder_is_refused(tmp_path: Path, begun: bool) -> None:
    training = tmp_path / "models" / ".kdaudit-abcdefgh.partial"
    if begun:
        (tmp_path / "audit.yaml").write_text("# Written by `kdaudit demo`.\n")
        training.mkdir(parents=True)
    with FolderLock(tmp_path), pytest.raises(RunStateError, match="another kdaudit process is at work"):
        Prepared(tmp_path).again()
    assert training.exists() == begun


def test_a_model_that_the_demo_did_not_train_is_left_alone(tmp_path: Path) -> None:
    made = Prepared(tmp_path)
    made.again()
    (tmp_path / "models" / "soft" / "training.json").unlink()
    with pytest.raises(RunStateError, match="was not trained here"):
        made.again()
    assert (tmp_path / "models" / "soft" / "model.safetensors").exists()


def test_baseline_and_students_start_from_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts = []

    def noted(config: dict[str, Any], seed: int) -> Any:
        model = original(config, seed)
        starts.append(model.model.embed_tokens.weight.detach().clone())
        return model

    original = train.random_model
    monkeypatch.setattr(train, "random_model", noted)
    Prepared(tmp_path).again()
    teacher, *students = starts
    assert teacher.shape[1] == 64
    assert len(students) == 3
    assert all(torch.equal(students[0], other) for other in students[1:])
