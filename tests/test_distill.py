"""Training of teacher, baseline and students: losses against oracles, order, seeds, hard corpora."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import chain, cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdaudit.distillation.families import random_model, train_bpe
from kdaudit.distillation.folders import fingerprint, new_folder, read_training_record
from kdaudit.distillation.hard import TokenHardTrainer, hard_windows, token_labels
from kdaudit.distillation.soft import SoftSettings, SoftTrainer, soft_loss
from kdaudit.distillation.teacher import Teacher
from kdaudit.distillation.training import IGNORED, Recipe, Rows, Training, WindowTrainer, collate
from kdaudit.errors import ModelError, RunError, RunStateError, StorageError
from kdaudit.inference import Lengths, Ragged, Tokens
from kdaudit.runs.layout import TRAINING_RECORD

VOCABULARY = 40
RECIPE = Recipe(epochs=2, learning_rate=1e-2, batch_size=4, seed=5)
PAPER = SoftSettings()


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


def training(folder: Path, windows: list[Tokens], **changed: Any) -> Training:
    return Training(
        name="baseline",
        model=random_model(llama(), 1),
        windows=windows,
        recipe=RECIPE,
        folder=folder,
        progress=no_progress,
    )._replace(**changed)


def window_trainer(folder: Path, windows: list[Tokens], **changed: Any) -> WindowTrainer:
    return WindowTrainer(training(folder, windows, **changed))


def soft_trainer(
    folder: Path,
    windows: list[Tokens],
    settings: SoftSettings = PAPER,
    teacher: Any = None,
    **changed: Any,
) -> SoftTrainer:
    return SoftTrainer(
        training(folder, windows, **{"name": "soft", **changed}),
        teacher=teacher or random_model(llama(64), 2),
        vocabulary=VOCABULARY,
        settings=settings,
    )


def token_trainer(
    folder: Path, windows: list[Tokens], teacher: Any = None, **changed: Any
) -> TokenHardTrainer:
    return TokenHardTrainer(
        training(folder, windows, **{"name": "token", **changed}),
        teacher=teacher or random_model(llama(64), 2),
        vocabulary=VOCABULARY,
    )


def assert_equal_weights(one: Any, other: Any) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


# The formulas in float64 and loops. Forward KL is that of arXiv 2601.15394.


def softened(logits: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in logits]
    return [power / sum(powers) for power in powers]


def forward_kl(student: list[float], teacher: list[float]) -> float:
    return sum(t * math.log(t / s) for s, t in zip(student, teacher, strict=True))


def reverse_kl(student: list[float], teacher: list[float]) -> float:
    return sum(s * math.log(s / t) for s, t in zip(student, teacher, strict=True))


def jsd(student: list[float], teacher: list[float]) -> float:
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        middle = (s + t) / 2
        total += 0.5 * s * math.log(s / middle) + 0.5 * t * math.log(t / middle)
    return total


ORACLES = {"forward_kl": forward_kl, "reverse_kl": reverse_kl, "jsd": jsd}


def oracle_sum(
    student: list[list[float]], teacher: list[list[float]], next_tokens: list[int], settings: SoftSettings
) -> float:
    """The teacher's rows are as long as the tokenizer; the student's may go on with padding."""
    total = 0.0
    for own, given, token in zip(student, teacher, next_tokens, strict=True):
        if token != IGNORED:
            p_student = softened(own[: len(given)], settings.temperature)
            p_teacher = softened(given, settings.temperature)
            divergence = settings.temperature**2 * ORACLES[settings.divergence](p_student, p_teacher)
            total += (1 - settings.alpha) * divergence - settings.alpha * math.log(softened(own, 1.0)[token])
    return total


def positions(student_width: int = 6, vocabulary: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Seven positions, five of them targets: logits of student and teacher, and the next tokens."""
    draw = torch.Generator().manual_seed(3)
    student = 3 * torch.randn(7, student_width, generator=draw)
    teacher = 3 * torch.randn(7, vocabulary, generator=draw)
    return student, teacher, torch.tensor([5, 0, IGNORED, 2, IGNORED, 2, 4])


def short(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


EVERY_LOSS = [
    SoftSettings(temperature, divergence, alpha)
    for temperature in (1.0, 2.0, 4.0)
    for divergence in ("forward_kl", "reverse_kl", "jsd")
    for alpha in (0.0, 0.3, 1.0)
]


def test_the_paper_s_loss_is_the_default() -> None:
    assert SoftSettings(temperature=2.0, divergence="forward_kl", alpha=0.0) == PAPER


@pytest.mark.parametrize("student_width", [6, 9])
@pytest.mark.parametrize("settings", EVERY_LOSS, ids=short)
def test_soft_loss_is_the_formula(settings: SoftSettings, student_width: int) -> None:
    student, teacher, next_tokens = positions(student_width)
    found = soft_loss(student, teacher.__getitem__, next_tokens, settings, chunk=3)
    wanted = oracle_sum(student.tolist(), teacher.tolist(), next_tokens.tolist(), settings)
    assert found.item() == pytest.approx(wanted, abs=1e-5, rel=1e-6)


@pytest.mark.parametrize("student_width", [6, 9])
@pytest.mark.parametrize("settings", EVERY_LOSS, ids=short)
def test_soft_loss_gradient_is_the_slope_of_the_formula(settings: SoftSettings, student_width: int) -> None:
    student, teacher, next_tokens = positions(student_width)
    student.requires_grad_()
    soft_loss(student, teacher.__getitem__, next_tokens, settings, chunk=3).backward()
    point, step = student.tolist(), 1e-5
    for row, values in enumerate(point):
        for column, value in enumerate(values):
            ends = []
            for moved in (value + step, value - step):
                point[row][column] = moved
                ends.append(oracle_sum(point, teacher.tolist(), next_tokens.tolist(), settings))
            point[row][column] = value
            assert student.grad[row, column].item() == pytest.approx(
                (ends[0] - ends[1]) / (2 * step), abs=1e-5
            )


@pytest.mark.parametrize("settings", EVERY_LOSS[9:18], ids=short)
@pytest.mark.parametrize("chunk", [1, 2, 3, 6])
def test_chunked_soft_loss_equals_the_whole(chunk: int, settings: SoftSettings) -> None:
    student, teacher, next_tokens = positions(student_width=8)
    results = []
    for size, factor in ((chunk, 3), (len(student), 1)):
        logits = student.clone().requires_grad_()
        loss = soft_loss(logits, teacher.__getitem__, next_tokens, settings, size)
        (factor * loss).backward()  # a factor upstream must reach the gradient
        results.append((loss.item(), logits.grad / factor))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-6, atol=1e-6)


def test_the_teacher_is_asked_for_no_more_than_a_chunk() -> None:
    student, teacher, next_tokens = positions()
    asked = []

    def logits(part: slice) -> torch.Tensor:
        asked.append(len(teacher[part]))
        return teacher[part]

    soft_loss(student, logits, next_tokens, PAPER, chunk=3)
    assert asked == [3, 3, 1]


class Large(TorchDispatchMode):
    """Notes the operations whose result has more elements than `limit`."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.numel() > self.limit:
            self.found.append(func.overloadpacket.__name__)
        return made


@pytest.mark.parametrize("settings", EVERY_LOSS[9:18], ids=short)
def test_of_the_soft_loss_only_the_gradient_is_larger_than_a_chunk(settings: SoftSettings) -> None:
    student, teacher, next_tokens = positions()
    student.requires_grad_()
    with Large(limit=2 * 6) as large:
        soft_loss(student, teacher.__getitem__, next_tokens, settings, chunk=2)
    assert large.found == ["empty_like"]


def logits_alone(model: Any, window: Tokens) -> list[list[float]]:
    """A model's logits after each token of one window that is not padded."""
    with torch.no_grad():
        rows: list[list[float]] = model(torch.as_tensor(window, dtype=torch.long)[None]).logits[0].tolist()
    return rows


RAGGED = [np.array([3, 7, 0, 9, 0], np.int32), np.array([4, 5, 6], np.int32)]
"""Token 0, the end of text, is text too."""


WIDTHS = [(40, 40), (48, 56), (56, 40), (40, 48)]
"""Of student's and teacher's output layers; the tokenizer has 40 tokens."""


@pytest.mark.parametrize(
    ("settings", "widths"), list(zip(EVERY_LOSS[::3], cycle(WIDTHS), strict=False)), ids=short
)
def test_soft_trainer_averages_over_the_next_tokens_that_are_text(
    tmp_path: Path, settings: SoftSettings, widths: tuple[int, int]
) -> None:
    student_width, teacher_width = widths
    student = random_model(llama(vocab_size=student_width), 1)
    teacher = random_model(llama(64, vocab_size=teacher_width), 2).eval()
    trainer = soft_trainer(tmp_path, RAGGED, settings, teacher, model=student)
    total, targets = 0.0, 0
    for window in RAGGED:
        own, given = logits_alone(student, window), logits_alone(teacher, window)
        given = [row[:VOCABULARY] for row in given]
        total += oracle_sum(own[:-1], given[:-1], window[1:].tolist(), settings)
        targets += len(window) - 1
    batch = collate(list(Rows(RAGGED)))
    assert trainer.compute_loss(student, batch).item() == pytest.approx(total / targets, abs=1e-5)
    half = trainer.compute_loss(student, batch, num_items_in_batch=torch.tensor(2 * targets))
    assert half.item() == pytest.approx(total / targets / 2, abs=1e-5)


def test_a_soft_student_that_learns_cross_entropy_alone_has_the_baseline_s_loss(tmp_path: Path) -> None:
    student = random_model(llama(vocab_size=48), 1)
    batch = collate(list(Rows(RAGGED)))
    baseline = window_trainer(tmp_path / "a", RAGGED, model=student).compute_loss(student, batch)
    soft = soft_trainer(tmp_path / "b", RAGGED, SoftSettings(alpha=1.0), model=student)
    assert soft.compute_loss(student, batch).item() == pytest.approx(baseline.item(), rel=1e-6)


@pytest.mark.parametrize("make", [soft_trainer, token_trainer])
def test_a_model_narrower_than_the_tokenizer_is_refused(tmp_path: Path, make: Callable[..., Any]) -> None:
    narrow = "its output layer has 39 entries, fewer than the tokenizer's 40 tokens; teacher and student"
    with pytest.raises(ModelError, match="^teacher: " + narrow):
        make(tmp_path, RAGGED, teacher=random_model(llama(64, vocab_size=39), 2))
    with pytest.raises(ModelError, match="^student small: " + narrow):
        make(tmp_path, RAGGED, name="small", model=random_model(llama(vocab_size=39), 1))


FAMILY = {"num_key_value_heads": 2, "head_dim": 32, "pad_token_id": 0}
"""What some families of the paper need beside `llama`'s sizes."""


@pytest.mark.parametrize("model_type", ["gpt_neox", "olmo2", "qwen3"])
def test_a_teacher_s_logits_are_the_model_s_in_every_family_of_the_paper(model_type: str) -> None:
    model = random_model(llama(64, **FAMILY, model_type=model_type, vocab_size=48), 2).eval()
    texts = {name: value for name, value in collate(list(Rows(RAGGED))).items() if name != "labels"}
    with torch.no_grad():
        wanted = model(**texts).logits.flatten(0, 1)[:, :VOCABULARY]
    logits = Teacher(model, VOCABULARY, torch.device("cpu")).read(texts)
    found = torch.cat([logits(slice(start, start + 3)) for start in range(0, len(wanted), 3)])
    torch.testing.assert_close(found, wanted)


def teacher_choices(teacher: Any, window: Tokens) -> list[int]:
    """The teacher's greedy choice after each token of a window, one reading each, in a plain loop."""
    choices = []
    for end in range(1, len(window) + 1):
        logits = logits_alone(teacher, window[:end])[-1][:VOCABULARY]
        choices.append(max(range(VOCABULARY), key=logits.__getitem__))
    return choices


@pytest.mark.parametrize("teacher_width", [40, 80])
def test_token_labels_are_what_the_teacher_would_write_next(
    monkeypatch: pytest.MonkeyPatch, teacher_width: int
) -> None:
    monkeypatch.setattr("kdaudit.distillation.teacher.CHUNK_ELEMENTS", 3 * teacher_width)
    model = random_model(llama(64, vocab_size=teacher_width, initializer_range=0.3), 2)
    teacher = Teacher(model, VOCABULARY, torch.device("cpu"))
    assert teacher.chunk == 3
    windows = ragged_windows(3)
    labels = token_labels(teacher, collate(list(Rows(windows))))
    longest = max(len(window) for window in windows)
    for row, window in zip(labels.tolist(), windows, strict=True):
        padding = [IGNORED] * (longest - len(window))
        assert row == [window[0], *teacher_choices(model, window)[:-1], *padding]
    unlimited = [np.argmax(logits_alone(model, window), axis=-1) for window in windows]
    beyond = any((choices >= VOCABULARY).any() for choices in unlimited)
    assert beyond == (teacher_width > VOCABULARY)  # else the cut would not have been tested


def test_token_level_loss_is_cross_entropy_to_the_teacher_s_choices(tmp_path: Path) -> None:
    student, teacher = random_model(llama(vocab_size=48), 1), random_model(llama(64), 2)
    total, targets = 0.0, 0
    for window in RAGGED:
        choices = teacher_choices(teacher, window)
        for logits, choice in list(zip(logits_alone(student, window), choices, strict=True))[:-1]:
            total -= math.log(softened(logits, 1.0)[choice])
            targets += 1
    trainer = token_trainer(tmp_path, RAGGED, teacher, model=student)
    batch = collate(list(Rows(RAGGED)))
    assert trainer.compute_loss(student, batch).item() == pytest.approx(total / targets, abs=1e-5)
    half = trainer.compute_loss(student, batch, num_items_in_batch=torch.tensor(2 * targets))
    assert half.item() == pytest.approx(total / targets / 2, abs=1e-5)
    assert batch["labels"].tolist() == collate(list(Rows(RAGGED)))["labels"].tolist()


def test_batches_are_padded_by_length_and_padding_is_no_target() -> None:
    batch = collate(list(Rows([np.array([0, 5, 0], np.int32), np.array([7], np.int32)])))
    assert batch["labels"].tolist() == [[0, 5, 0], [7, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["input_ids"][0].tolist() == [0, 5, 0]


@pytest.mark.parametrize("make", [soft_trainer, token_trainer])
def test_training_moves_the_student_towards_the_teacher_and_leaves_the_teacher(
    tmp_path: Path, make: Callable[..., WindowTrainer]
) -> None:
    teacher = random_model(llama(64, initializer_range=0.2), 2)
    before = random_model(llama(64, initializer_range=0.2), 2)
    trainer = make(tmp_path, ragged_windows(), teacher=teacher, recipe=RECIPE._replace(epochs=10))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.7 * losses[0]
    assert trainer.losses == losses
    assert_equal_weights(teacher, before)


@pytest.mark.parametrize("make", [window_trainer, soft_trainer, token_trainer])
def test_one_seed_gives_equal_weights(tmp_path: Path, make: Callable[..., WindowTrainer]) -> None:
    first = trained(make(tmp_path / "a", ragged_windows()))
    torch.rand(3)  # the state of the global generator must not matter
    assert_equal_weights(first, trained(make(tmp_path / "b", ragged_windows())))
    other = trained(make(tmp_path / "c", ragged_windows(), recipe=RECIPE._replace(seed=6)))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_baseline_and_students_read_the_same_windows_in_the_same_order(tmp_path: Path) -> None:
    windows = ragged_windows()
    hard = [np.concatenate(row) for row in hard_windows(windows, 4, Countdown())]

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
    assert baseline == order(token_trainer(tmp_path / "token", windows))
    assert baseline == order(window_trainer(tmp_path / "hard", hard, name="hard"))
    first, second = list(chain(*baseline[:4])), list(chain(*baseline[4:]))
    assert sorted(first) == sorted(second) == list(range(1, 15))
    assert first != second
    own = order(window_trainer(tmp_path / "own", windows, recipe=RECIPE._replace(order=8)))
    assert sorted(chain(*own[:4])) == sorted(first)
    assert own != baseline
    moved = RECIPE._replace(order=8, seed=RECIPE.seed + 1)
    assert own == order(window_trainer(tmp_path / "moved", windows, recipe=moved))


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


@pytest.mark.parametrize("make", [soft_trainer, token_trainer])
def test_a_teacher_that_scales_its_logits_is_refused(tmp_path: Path, make: Callable[..., Any]) -> None:
    teacher = random_model(llama(64, model_type="granite", logits_scaling=4.0), 2)
    with pytest.raises(ModelError, match="GraniteForCausalLM changes its logits"):
        make(tmp_path, ragged_windows(), teacher=teacher)


class Countdown:
    """An engine that continues a prefix's last token, counting down."""

    def generate(self, prompts: Ragged, tokens: Lengths) -> Ragged:
        assert prompts.values.dtype == np.int32
        pairs = zip(prompts, tokens, strict=True)
        return Ragged.of((row[-1] - np.arange(1, length + 1)) % VOCABULARY for row, length in pairs)


def test_hard_windows_are_the_prefix_and_what_the_engine_writes() -> None:
    windows = [np.array([1, 2, 30, 4, 5, 6], np.int32), np.array([7, 8, 20, 10], np.int32)]
    made = hard_windows(windows, 3, Countdown())
    assert [[*row.prompt, *row.written] for row in made] == [[1, 2, 30, 29, 28, 27], [7, 8, 20, 19]]
    assert {part.dtype for row in made for part in row} == {np.dtype(np.int32)}


def test_an_answer_that_the_teacher_writes_ends_where_it_ends_it() -> None:
    windows = [np.array([1, 2, 30, 4, 5, 6], np.int32), np.array([7, 8, 20, 10], np.int32)]
    made = hard_windows(windows, np.array([3, 1]), Countdown(), ends=(28, 5))
    assert [(row.prompt.tolist(), row.written.tolist()) for row in made] == [
        ([1, 2, 30], [29, 28]),
        ([7], [6, 5]),
    ]


def test_nothing_is_learned_of_a_prompt() -> None:
    """Its positions have no label, in every loss."""
    rows = Rows(RAGGED, 3, [2] * len(RAGGED))
    batch = collate(list(rows))
    for place, window in enumerate(RAGGED):
        labels = batch["labels"][place].tolist()
        assert labels[: 1 + 2] == [IGNORED] * 3
        assert labels[3 : 1 + len(window)] == window.tolist()[2:]
        assert batch["attention_mask"][place].sum() == 1 + len(window)
        assert batch["input_ids"][place, : 1 + len(window)].tolist() == [3, *window.tolist()]


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


def test_a_model_folder_is_whole_or_absent_and_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (tmp_path / ".kdaudit-abcd_123.partial").mkdir()  # a killed process left it
    with pytest.raises(ZeroDivisionError), new_folder(folder) as partial:
        (partial / TRAINING_RECORD).write_text(f"{1 / 0}")
    assert [*tmp_path.iterdir()] == []
    with new_folder(folder) as partial:
        (partial / TRAINING_RECORD).write_text("mine")
        assert not folder.exists()
    with pytest.raises(RunStateError, match="exists and was not trained here"), new_folder(folder) as partial:
        raise AssertionError("nothing may be written")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model"]
    assert (folder / TRAINING_RECORD).read_text() == "mine"


def test_a_model_folder_that_appears_meanwhile_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(RunStateError, match="exists and was not trained here"), new_folder(folder):
        folder.mkdir()
    assert [*tmp_path.rglob("*")] == [folder]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"), new_folder(tmp_path / "file" / "model"):
        pass


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"fingerprint": 3}'])
def test_a_damaged_record_counts_as_no_model(tmp_path: Path, record: str) -> None:
    (tmp_path / TRAINING_RECORD).write_text(record)
    assert read_training_record(tmp_path) is None
