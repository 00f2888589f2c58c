"""Training of teacher, baseline and students: the soft loss against an oracle, order, seeds, hard corpora."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdaudit.distill.families import random_model, train_bpe
from kdaudit.distill.folders import RECORD, fingerprint, new_folder, recorded_fingerprint
from kdaudit.distill.hard import hard_windows
from kdaudit.distill.soft import SoftTrainer, soft_loss
from kdaudit.distill.training import IGNORED, Recipe, Rows, WindowTrainer, collate
from kdaudit.engines.base import Tokens
from kdaudit.errors import ModelError, RunError, StorageError

VOCABULARY = 40
RECIPE = Recipe(epochs=2, learning_rate=1e-2, batch_size=4, seed=5)


def llama(width: int = 32, **changed: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 32,
        "bos_token_id": None,
        "eos_token_id": 0,
        **changed,
    }


def ragged_windows(count: int = 14, seed: int = 0) -> list[Tokens]:
    """Windows of 9 to 12 tokens; window i begins with token i + 1, so a batch shows its rows."""
    draw = np.random.default_rng(seed)
    windows = []
    for row in range(count):
        window = draw.integers(1, VOCABULARY, size=draw.integers(9, 13), dtype=np.int32)
        window[0] = row + 1
        windows.append(window)
    return windows


def no_progress(name: str, step: int, steps: int) -> None:
    pass


def trained(trainer: WindowTrainer) -> Any:
    trainer.train()
    return trainer.model


def window_trainer(folder: Path, windows: list[Tokens], **changed: Any) -> WindowTrainer:
    parts = {"name": "baseline", "model": random_model(llama(), 1), "recipe": RECIPE, "progress": no_progress}
    return WindowTrainer(windows=windows, folder=folder, **{**parts, **changed})


def soft_trainer(
    folder: Path, windows: list[Tokens], temperature: float = 2.0, **changed: Any
) -> SoftTrainer:
    parts = {"name": "soft", "model": random_model(llama(), 1), "recipe": RECIPE, "progress": no_progress}
    teacher = random_model(llama(64), 2)
    return SoftTrainer(
        windows=windows, folder=folder, teacher=teacher, temperature=temperature, **{**parts, **changed}
    )


def assert_equal_weights(one: Any, other: Any) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


# The formula of arXiv 2601.15394 in float64 and loops: T^2 * sum_v p_t(v) * log(p_t(v) / p_s(v)).


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def oracle_sum(
    student: list[list[float]], teacher: list[list[float]], is_target: list[bool], temperature: float
) -> float:
    total = 0.0
    for own, given, counts in zip(student, teacher, is_target, strict=True):
        if counts:
            p_student, p_teacher = softened(own, temperature), softened(given, temperature)
            for s, t in zip(p_student, p_teacher, strict=True):
                total += temperature**2 * t * math.log(t / s)
    return total


def positions(count: int = 7, vocabulary: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(3)
    student = 3 * torch.randn(count, vocabulary, generator=draw)
    teacher = 3 * torch.randn(count, vocabulary, generator=draw)
    return student, teacher, torch.tensor([True, True, False, True, False, True, True])[:count]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_soft_loss_is_the_formula(temperature: float) -> None:
    student, teacher, is_target = positions()
    found = soft_loss(student, teacher.__getitem__, is_target, temperature, chunk=3)
    wanted = oracle_sum(student.tolist(), teacher.tolist(), is_target.tolist(), temperature)
    assert found.item() == pytest.approx(wanted, abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_soft_loss_gradient_is_the_slope_of_the_formula(temperature: float) -> None:
    student, teacher, is_target = positions()
    student.requires_grad_()
    soft_loss(student, teacher.__getitem__, is_target, temperature, chunk=3).backward()
    point, step = student.tolist(), 1e-5
    for row, values in enumerate(point):
        for column, value in enumerate(values):
            ends = []
            for moved in (value + step, value - step):
                point[row][column] = moved
                ends.append(oracle_sum(point, teacher.tolist(), is_target.tolist(), temperature))
            point[row][column] = value
            assert student.grad[row, column].item() == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), abs=1e-5
            )


@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_chunked_soft_loss_equals_the_whole(chunk: int) -> None:
    student, teacher, is_target = positions()
    results = []
    for size in (chunk, len(student)):
        logits = student.clone().requires_grad_()
        loss = soft_loss(logits, teacher.__getitem__, is_target, 2.0, size)
        (3 * loss).backward()  # a factor upstream must reach the gradient
        results.append((loss.item(), logits.grad))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-7)


def test_the_teacher_is_asked_for_no_more_than_a_chunk() -> None:
    student, teacher, is_target = positions()
    asked = []

    def logits(part: slice) -> torch.Tensor:
        asked.append(len(teacher[part]))
        return teacher[part]

    soft_loss(student, logits, is_target, 2.0, chunk=3)
    assert asked == [3, 3, 1]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_soft_trainer_averages_over_the_next_tokens_that_are_text(tmp_path: Path, temperature: float) -> None:
    windows = [np.array([3, 7, 0, 9, 0], np.int32), np.array([4, 5, 6], np.int32)]
    trainer = soft_trainer(tmp_path, windows, temperature)
    student = trainer.model
    teacher = random_model(llama(64), 2).eval()
    total, targets = 0.0, 0
    for window in windows:  # each alone, so nothing is padded; token 0, the end of text, is text too
        ids = torch.as_tensor(window, dtype=torch.long)[None]
        with torch.no_grad():
            own, given = student(ids).logits[0, :-1], teacher(ids).logits[0, :-1]
        total += oracle_sum(own.tolist(), given.tolist(), [True] * len(own), temperature)
        targets += len(own)
    batch = collate(list(Rows(windows)))
    assert trainer.compute_loss(student, batch).item() == pytest.approx(total / targets, abs=1e-5)
    half = trainer.compute_loss(student, batch, num_items_in_batch=torch.tensor(2 * targets))
    assert half.item() == pytest.approx(total / targets / 2, abs=1e-5)


def test_batches_are_padded_by_length_and_padding_is_no_target() -> None:
    batch = collate(list(Rows([np.array([0, 5, 0], np.int32), np.array([7], np.int32)])))
    assert batch["labels"].tolist() == [[0, 5, 0], [7, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"][0].tolist() == [0, 5, 0]


def test_soft_training_moves_the_student_towards_the_teacher_and_leaves_the_teacher(tmp_path: Path) -> None:
    windows = ragged_windows()
    teacher = random_model(llama(64, initializer_range=0.2), 2)
    before = random_model(llama(64, initializer_range=0.2), 2)
    recipe = RECIPE._replace(epochs=10)
    trainer = SoftTrainer(
        "soft",
        random_model(llama(), 1),
        windows,
        recipe,
        tmp_path,
        no_progress,
        teacher=teacher,
        temperature=2.0,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.last_loss == losses[-1]
    assert_equal_weights(teacher, before)


@pytest.mark.parametrize("make", [window_trainer, soft_trainer])
def test_one_seed_gives_equal_weights(tmp_path: Path, make: Callable[..., WindowTrainer]) -> None:
    first = trained(make(tmp_path / "a", ragged_windows()))
    torch.rand(3)  # the state of the global generator must not matter
    assert_equal_weights(first, trained(make(tmp_path / "b", ragged_windows())))
    other = trained(make(tmp_path / "c", ragged_windows(), recipe=RECIPE._replace(seed=6)))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_baseline_and_students_read_the_same_windows_in_the_same_order(tmp_path: Path) -> None:
    windows = ragged_windows()
    hard = hard_windows(windows, 4, Countdown())

    def order(trainer: WindowTrainer) -> list[list[int]]:
        seen = []

        def note(_module: Any, _args: Any, values: dict[str, Any]) -> None:
            seen.append(values["input_ids"][:, 0].tolist())

        trainer.model.register_forward_pre_hook(note, with_kwargs=True)
        trainer.train()
        return seen

    baseline = order(window_trainer(tmp_path / "baseline", windows))
    assert len(baseline) == 8  # 14 windows in fours, two epochs
    assert baseline == order(soft_trainer(tmp_path / "soft", windows))
    assert baseline == order(window_trainer(tmp_path / "hard", hard, name="hard"))
    first, second = list(chain(*baseline[:4])), list(chain(*baseline[4:]))
    assert sorted(first) == sorted(second) == list(range(1, 15))
    assert first != second


def test_random_models_of_one_seed_start_equal_and_leave_the_global_generator() -> None:
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    one = random_model(llama(), 1)
    assert torch.equal(torch.rand(2), expected)
    assert_equal_weights(one, random_model(llama(), 1))
    assert not torch.equal(one.lm_head.weight, random_model(llama(), 2).lm_head.weight)


def test_progress_names_the_model_and_counts_every_step(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    trained(window_trainer(tmp_path, ragged_windows(), progress=lambda *step: told.append(step)))
    assert told == [("baseline", step, 8) for step in range(1, 9)]


def test_training_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(window_trainer(tmp_path, ragged_windows()))
    assert capsys.readouterr().out == ""


def test_a_loss_that_is_no_number_is_told_at_once(tmp_path: Path) -> None:
    model = random_model(llama(), 1)
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(RunError, match=r"baseline: the training loss .* lower the learning rate"):
        trained(window_trainer(tmp_path, ragged_windows(), model=model))


def test_a_teacher_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    config = llama(64, model_type="granite", logits_scaling=4.0)
    with pytest.raises(ModelError, match="GraniteForCausalLM changes its logits"):
        SoftTrainer(
            "soft",
            random_model(llama(), 1),
            ragged_windows(),
            RECIPE,
            tmp_path,
            no_progress,
            teacher=random_model(config, 2),
            temperature=2.0,
        )


class Countdown:
    """An engine that goes on from a prefix's last token, counting down."""

    def generate(self, prefixes: Tokens, tokens: int) -> Tokens:
        assert prefixes.dtype == np.int32
        return (prefixes[:, -1:] - np.arange(1, tokens + 1, dtype=np.int32)) % VOCABULARY


def test_hard_windows_are_the_prefix_and_what_the_engine_writes() -> None:
    windows = [np.array([1, 2, 30, 4, 5, 6], np.int32), np.array([7, 8, 20, 10], np.int32)]
    made = hard_windows(windows, 3, Countdown())
    assert [row.tolist() for row in made] == [[1, 2, 30, 29, 28, 27], [7, 8, 20, 19]]
    assert {row.dtype for row in made} == {np.dtype(np.int32)}


def test_bpe_writes_any_text_and_is_the_same_each_time(tmp_path: Path) -> None:
    texts = ["the cat sat on the mat", "the dog sat on the log"] * 3
    tokenizer = train_bpe(texts, 280)
    assert len(tokenizer) <= 280
    text = "Zoë — 猫\n<tab>\t the cat"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.eos_token_id not in ids
    tokenizer.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids
    assert train_bpe(texts, 280).get_vocab() == tokenizer.get_vocab()


def test_fingerprints_tell_settings_windows_and_their_cuts_apart() -> None:
    one, two = np.array([1, 2, 3], np.int32), np.array([4], np.int32)
    prints = {
        fingerprint({"a": 1}, [one, two]),
        fingerprint({"a": 2}, [one, two]),
        fingerprint({"a": 1}, [two, one]),
        fingerprint({"a": 1}, [one[:2], np.array([3, 4], np.int32)]),
    }
    assert len(prints) == 4
    assert fingerprint({"a": 1, "b": 2}, [one]) == fingerprint({"b": 2, "a": 1}, [one.copy()])


def test_a_model_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with new_folder(folder) as partial:
        (partial / RECORD).write_text('{"fingerprint": "old"}')
    with pytest.raises(ZeroDivisionError), new_folder(folder) as partial:
        (partial / RECORD).write_text(f"{1 / 0}")
    assert recorded_fingerprint(folder) == "old"
    with new_folder(folder) as partial:
        assert not list(partial.iterdir())
        (partial / RECORD).write_text('{"fingerprint": "new"}')
    assert recorded_fingerprint(folder) == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"), new_folder(tmp_path / "file" / "model"):
        pass


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"fingerprint": 3}'])
def test_a_damaged_record_counts_as_no_model(tmp_path: Path, record: str) -> None:
    (tmp_path / RECORD).write_text(record)
    assert recorded_fingerprint(tmp_path) is None
