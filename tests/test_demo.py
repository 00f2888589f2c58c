"""The demo's text and training, at sizes that take seconds; the whole demo is tested elsewhere."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit.analysis.personal_data import find_tags
from kdaudit.config.yaml.loading import load_audit
from kdaudit.distillation import lab
from kdaudit.errors import CorpusError, RunStateError
from kdaudit.pipelines.demo import run
from kdaudit.pipelines.demo.settings import DemoSettings, Learner
from kdaudit.pipelines.demo.text import DemoText, build_text
from kdaudit.runs.lock import FolderLock

TINY = DemoSettings(
    characters=8_000,
    holdout_characters=4_000,
    records=3,
    vocabulary=700,
    teacher=Learner(64, 1, epochs=1, learning_rate=1e-3),
    student=Learner(32, 1, epochs=1, learning_rate=1e-3),
    window=180,
)

BASELINES = ["baseline", "baseline-2", "baseline-3"]
TRAINED = ["teacher", *BASELINES, "soft", "hard"]


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


class Demo:
    """Calls of `run_demo` in one folder, with what each of them trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models = folder / "models"
        self.warnings: list[str] = []

    def again(self, settings: DemoSettings = TINY) -> list[str]:
        trained: list[str] = []

        def progress(name: str, step: int, steps: int) -> None:
            if name in TRAINED and step == steps > 0:
                trained.append(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run, "engine_name", lambda: "transformers")  # starts in a fraction of vLLM's time
            self.results = run.run_demo(
                self.folder, progress=progress, say=self.warnings.append, settings=settings
            )
        return trained

    def copy(self, folder: Path) -> Demo:
        """The same in a folder of its own, to be changed."""
        return Demo(Path(shutil.copytree(self.folder, folder / "out")))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    made = Demo(tmp_path_factory.mktemp("demo") / "out")
    assert made.again() == TRAINED
    return made


def test_models_and_tokenizers_load_and_fit_one_another(tiny: Demo) -> None:
    own = [f"seed-0/{name}" for name in TRAINED[1:]]
    for name, width in (("teacher", 64), *((name, 32) for name in own)):
        model = AutoModelForCausalLM.from_pretrained(tiny.models / name)
        tokenizer = AutoTokenizer.from_pretrained(tiny.models / name)
        assert model.config.hidden_size == width
        assert model.config.use_cache
        assert model.dtype == torch.float32
        assert len(tokenizer) == model.config.vocab_size == 700
        assert tokenizer.bos_token_id is None
        assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
        assert tokenizer("a b")["input_ids"] == tokenizer("a b", add_special_tokens=False)["input_ids"]


def test_the_audit_is_valid_and_names_what_was_trained(tiny: Demo) -> None:
    audit = load_audit(tiny.folder / "audit.yaml")
    assert Path(audit.models.teacher.path) == tiny.models / "teacher"
    assert [Path(one.path) for one in audit.models.baseline] == [
        tiny.models / "seed-0" / name for name in BASELINES
    ]
    assert [(student.name, student.kd) for student in audit.models.students] == [
        ("soft", "soft"),
        ("hard", "hard"),
    ]
    assert Path(audit.corpus.path).exists()
    assert audit.holdout is not None
    assert Path(audit.holdout.path).exists()
    assert audit.corpus.window == TINY.window
    assert audit.gate == type(audit.gate)()


def test_the_audit_is_that_of_the_lab_but_for_name_title_and_engine(tiny: Demo) -> None:
    """Two files name the same models and text: the one beside the students, and the demo's own."""
    own, lab_s = (load_audit(path / "audit.yaml") for path in (tiny.folder, tiny.models / "seed-0"))
    assert own.model_copy(update={"name": lab_s.name, "report": lab_s.report}) == lab_s


def test_a_second_call_trains_nothing_and_changes_no_file(tiny: Demo) -> None:
    names = ("corpus.jsonl", "holdout.jsonl", "audit.yaml", "distill.yaml", "tokenizer/tokenizer.json")
    before = [(tiny.folder / name).read_bytes() for name in names]
    assert tiny.again() == []
    assert [(tiny.folder / name).read_bytes() for name in names] == before


def test_models_of_other_settings_are_refused_and_left_alone(tiny: Demo, tmp_path: Path) -> None:
    made = tiny.copy(tmp_path)
    with pytest.raises(RunStateError, match=r"recipe.learning_rate was 0.001 and is 0.0005"):
        made.again(TINY._replace(teacher=Learner(64, 1, epochs=1, learning_rate=5e-4)))
    assert made.again() == []


def test_an_audit_by_other_means_starts_again(
    tiny: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another engine, say, where vLLM was installed since."""
    made = tiny.copy(tmp_path)

    def shorter(*given: Any) -> str:
        return original(*given).replace("suffix_tokens: 50", "suffix_tokens: 40")

    original = run.audit_yaml
    monkeypatch.setattr(run, "audit_yaml", shorter)
    assert made.again() == []
    assert made.results.extraction.suffix_tokens == 40


def test_what_a_killed_training_left_is_removed_and_the_model_trained(tiny: Demo, tmp_path: Path) -> None:
    made = tiny.copy(tmp_path)
    leftover, theirs = made.models / ".kdaudit-abcd_123.partial", made.models / "teacher.partial"
    (made.models / "teacher").rename(leftover)
    theirs.mkdir()
    assert made.again() == ["teacher"]
    assert not leftover.exists()
    assert theirs.exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    mine = {"audit.yaml": "name: mine\n", "corpus.jsonl": "my text"}
    for name, text in mine.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(RunStateError, match="is not empty and holds no demo"):
        Demo(tmp_path).again()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == mine


def test_a_demo_of_an_earlier_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    """It had no distill.yaml, and its models lay elsewhere in `models`."""
    (tmp_path / "models" / "teacher").mkdir(parents=True)
    (tmp_path / "audit.yaml").write_text("# Written by `kdaudit demo`. Paths ...\n")
    with pytest.raises(RunStateError, match="holds the demo of an earlier version"):
        Demo(tmp_path).again()
    assert {path.name for path in tmp_path.iterdir()} == {"audit.yaml", "models"}


@pytest.mark.parametrize("begun", [False, True])
def test_a_second_demo_in_one_folder_is_refused(tmp_path: Path, begun: bool) -> None:
    training = tmp_path / "models" / ".kdaudit-abcdefgh.partial"
    if begun:
        for name in ("audit.yaml", "distill.yaml"):
            (tmp_path / name).write_text("# Written by `kdaudit demo`.\n")
        training.mkdir(parents=True)
    with FolderLock(tmp_path), pytest.raises(RunStateError, match="another kdaudit process is at work"):
        Demo(tmp_path).again()
    assert training.exists() == begun


def test_a_model_that_the_demo_did_not_train_is_left_alone(tiny: Demo, tmp_path: Path) -> None:
    made = tiny.copy(tmp_path)
    soft = made.models / "seed-0" / "soft"
    (soft / "training.json").unlink()
    with pytest.raises(RunStateError, match="was not trained here"):
        made.again()
    assert (soft / "model.safetensors").exists()


def test_nothing_is_written_through_a_link_for_the_tokenizer(tiny: Demo, tmp_path: Path) -> None:
    made = tiny.copy(tmp_path)
    theirs = tmp_path / "theirs"
    (made.folder / "tokenizer").rename(theirs)
    (made.folder / "tokenizer").symlink_to(theirs)
    before = {path.name: path.stat().st_ino for path in theirs.iterdir()}
    with pytest.raises(RunStateError, match="is a link, not a directory"):
        made.again()
    assert {path.name: path.stat().st_ino for path in theirs.iterdir()} == before


def test_baseline_and_students_start_from_the_same_weights(
    tiny: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tiny.copy(tmp_path)
    shutil.rmtree(made.models)
    starts = []

    def noted(*given: Any) -> Any:
        model = original(*given)
        starts.append(model.model.embed_tokens.weight.detach().clone())
        return model

    original = lab.load_base
    monkeypatch.setattr(lab, "load_base", noted)
    made.again()
    teacher, baseline, *others, soft, hard = starts
    assert teacher.shape[1] == 64
    assert torch.equal(baseline, soft)
    assert torch.equal(baseline, hard)
    assert len(others) == 2
    assert not any(torch.equal(baseline, other) for other in others)
