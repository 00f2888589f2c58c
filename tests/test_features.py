"""Features against oracles written out here: raw transformers, float64, a token at a time."""

from __future__ import annotations

import math
import random
import shutil
import weakref
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import toys
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GPTNeoXConfig, MambaConfig

from kdaudit.errors import EngineError, ModelError
from kdaudit.inference import ABILITIES, EngineOptions, Ragged, start
from kdaudit.inference.scoring import (
    EntropyScores,
    FeatureWorker,
    ModelFiles,
    PairScores,
    PairWorker,
    entropy_of,
    forward,
)
from kdaudit.inference.scoring.batches import pack
from kdaudit.inference.scoring.forward import Piece
from kdaudit.inference.scoring.pair import PairService
from kdaudit.inference.scoring.suffix import Leads, Suffixes
from kdaudit.inference.transformers import TransformersEngine
from kdaudit.risk import suffix_copies as suffix_module
from kdaudit.risk.suffix_copies import SuffixCounter, SuffixFinder
from kdaudit.risk.text import zlib_entropy

VOCABULARY = toys.VOCABULARY - 10
"""Fewer tokens than the models have columns, as where an output layer is padded."""
BOS = 0
RELATIVE = 1e-4


class Pair(NamedTuple):
    teacher: Path
    baseline: Path
    windows: list[np.ndarray]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """Two random models and windows of many lengths, the first of them the teacher's own words."""
    folder = tmp_path_factory.mktemp("pair")
    teacher = toys.save_model(folder / "teacher", 1)
    toys.save_model(folder / "baseline", 2, width=32)
    rng = np.random.default_rng(0)
    windows = [toys.memorized_window(teacher, rng)]
    windows += [
        rng.integers(2, VOCABULARY, toys.PREFIX + toys.SUFFIX + extra).tolist() for extra in (0, 3, 40, 9, 1)
    ]
    windows.append([*windows[0][:-2], *windows[1][:5]])  # leaves the teacher's words two tokens early
    return Pair(folder / "teacher", folder / "baseline", [np.array(one, np.int32) for one in windows])


class Told(NamedTuple):
    """What a model says after each token."""

    log_p: list[list[float]]
    """Over the first columns."""
    likeliest: list[int]
    """Of all columns."""
    logits: list[list[float]]
    """Of all columns."""


def distributions(model: Any, tokens: list[int], columns: int) -> Told:
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].double()
    told = []
    for row in logits[:, :columns].tolist():
        highest = max(row)
        total = highest + math.log(sum(math.exp(value - highest) for value in row))
        told.append([value - total for value in row])
    return Told(told, logits.argmax(1).tolist(), logits.tolist())


Begun = tuple[int | None, int | None]
"""BOS token that the teacher reads before each window, and the baseline's."""
NONE, BOTH, TEACHER = (None, None), (BOS, BOS), (BOS, None)


def oracle(pair: Pair, bos: Begun, dtype: str = "float32") -> dict[str, list[float]]:
    """Each field of `PairScores`, by loops."""
    folders = (pair.teacher, pair.baseline)
    eager = {"attn_implementation": "eager"}  # sdpa ignores Gemma-2's soft cap
    models = [AutoModelForCausalLM.from_pretrained(one, dtype=dtype, **eager).eval() for one in folders]
    found: dict[str, list[float]] = {name: [] for name in PairScores._fields}
    for window in pair.windows:
        tokens = window.tolist()
        both = [after_bos(model, begin, tokens) for model, begin in zip(models, bos, strict=True)]
        whole = range(len(tokens) - 1)
        suffix = range(toys.PREFIX - 1, toys.PREFIX + toys.SUFFIX - 1)
        for role, told in zip(("teacher", "baseline"), both, strict=True):
            for name, value in of_one(told, tokens, whole, suffix).items():
                found[f"{role}_{name}"].append(value)
        found["kl_divergence"].append(divergence(*both, whole))
        found["suffix_kl_divergence"].append(divergence(*both, suffix))
    return found


def of_one(told: Told, tokens: list[int], whole: range, suffix: range) -> dict[str, float]:
    """What concerns one model, by the ends of the fields' names."""
    own = [told.log_p[i][tokens[i + 1]] for i in whole]
    entropies = [-sum(math.exp(a) * a for a in told.log_p[i]) for i in whole]
    rising = sorted(own[i] for i in suffix)
    lowest = rising[: max(1, int(0.2 * len(suffix)))]
    margins, matched = [], 0
    for i in suffix:
        others = [logit for token, logit in enumerate(told.logits[i]) if token != tokens[i + 1]]
        margins.append(told.logits[i][tokens[i + 1]] - max(others))
    for i in suffix:
        if told.likeliest[i] != tokens[i + 1]:
            break
        matched += 1
    return {
        "nll": -sum(own) / len(whole),
        "entropy": sum(entropies) / len(whole),
        "matched": matched,
        "suffix_nll": -sum(rising) / len(suffix),
        "suffix_entropy": sum(entropies[i] for i in suffix) / len(suffix),
        "suffix_min_k": sum(lowest) / len(lowest),
        "suffix_worst": rising[0],
        "suffix_margin": min(margins),
        "suffix_spread": max(narrow := told.logits[suffix[margins.index(min(margins))]]) - middle(narrow),
    }


def middle(values: list[float]) -> float:
    """The lower median."""
    return sorted(values)[(len(values) - 1) // 2]


def divergence(teacher: Told, baseline: Told, places: range) -> float:
    """Mean KL(teacher || baseline)."""
    p, q = teacher.log_p, baseline.log_p
    each = [sum(math.exp(a) * (a - b) for a, b in zip(p[i], q[i], strict=True)) for i in places]
    return sum(each) / len(places)


def after_bos(model: Any, bos: int | None, tokens: list[int]) -> Told:
    """`distributions` after each token of a window; what a BOS token predicts, its first one, is left out."""
    if bos is None:
        return distributions(model, tokens, VOCABULARY)
    return Told(*(each[1:] for each in distributions(model, [bos, *tokens], VOCABULARY)))


def files(folder: Path, dtype: str = "float32") -> ModelFiles:
    return ModelFiles(folder, dtype, False)


def scores(pair: Pair, bos: Begun, windows: list[np.ndarray], dtype: str = "float32") -> PairScores:
    with PairWorker(
        files(pair.teacher, dtype),
        files(pair.baseline, dtype),
        vocabulary=VOCABULARY,
        teacher_bos=bos[0],
        baseline_bos=bos[1],
        retries=0,
    ).wait() as worker:
        return worker.scores(Ragged.of(windows), *lengths(windows))


def lengths(windows: list[np.ndarray]) -> list[np.ndarray]:
    """Tokens of each window's prompt and target."""
    return [np.full(len(windows), tokens) for tokens in (toys.PREFIX, toys.SUFFIX)]


@pytest.mark.parametrize("bos", [NONE, BOTH, TEACHER, (None, BOS)])
def test_scores_equal_the_oracle(pair: Pair, bos: Begun) -> None:
    found, expected = scores(pair, bos, pair.windows), oracle(pair, bos)
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE, err_msg=name)
    if bos == NONE:
        assert found.teacher_matched[0] == toys.SUFFIX
        assert found.teacher_matched[-1] == toys.SUFFIX - 2
        assert found.baseline_matched.max() < toys.SUFFIX


def test_where_two_tokens_tie_decoding_decides_and_the_margin_is_0() -> None:
    logits = torch.zeros(1, 6, 5)
    logits[0, 0, 1] = logits[0, 1, 3] = 2.0  # right by 2, wrong by 2, then ties of all and of two
    logits[0, 3, 1] = logits[0, 3, 4] = 1.0
    logits[0, 4, 1] = logits[0, 4, 4] = 1.0
    logits[0, 5, 2] = -1.5
    targets = torch.tensor([[1, 0, 0, 1, 4, 2]])
    first, kept = logits.argmax(-1), logits.clone()
    least = []
    for first_place in range(6):
        found = Leads.empty((1, 6))
        suffixes = Suffixes.between(np.array([first_place]), np.array([first_place + 1]), 6)
        for piece in (Piece(0, 4), Piece(4, 6)):
            found.fill(logits[:, slice(*piece)].bfloat16(), targets, piece, suffixes)
        least.append(found.margin.item())
        assert found.hit[0, first_place] == (first == targets)[0, first_place]
    assert least == [2.0, -2.0, 0.0, 0.0, 0.0, -1.5]
    found.fill(logits, targets, Piece(0, 6), Suffixes.between(np.array([0]), np.array([6]), 6))
    assert (found.margin.item(), found.spread.item()) == (-2.0, 2.0)
    assert found.hit.tolist() == (first == targets).tolist()
    assert torch.equal(logits, kept)


def service(pair: Pair, bos: Begun = BOTH) -> PairService:
    options = {
        "vocabulary": VOCABULARY,
        "teacher_bos": bos[0],
        "baseline_bos": bos[1],
        "retries": 0,
    }
    found = PairService(options)
    found.load(role="teacher", **files(pair.teacher).options())
    found.load(role="baseline", **files(pair.baseline).options())
    return found


@pytest.mark.parametrize("positions", [1, 7, 60, 10_000])
def test_batches_and_pieces_change_nothing(
    pair: Pair, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one position at a time, over windows alone, to all windows padded into one batch."""
    monkeypatch.setattr(forward, "_LOGITS_BYTES", positions * 4 * toys.VOCABULARY)
    found = service(pair, TEACHER).scores(*pack(pair.windows, 2), *lengths(pair.windows))
    expected = oracle(pair, TEACHER)
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE, err_msg=name)


def test_one_stretch_of_logits_is_held_at_a_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may take a quarter of a gigabyte, of each model."""
    monkeypatch.setattr(forward, "_LOGITS_BYTES", 7 * 4 * toys.VOCABULARY)
    read, made = forward.Reading.logits, []

    def seen(reading: Any, piece: Any) -> Any:
        assert sum(one() is not None for one in made) < 2, "the teacher's of this stretch at most"
        logits = read(reading, piece)
        made.append(weakref.ref(logits))
        return logits

    monkeypatch.setattr(forward.Reading, "logits", seen)
    service(pair, TEACHER).scores(*pack(pair.windows), *lengths(pair.windows))
    assert len(made) > 2 * len(pair.windows)


WIDE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3}
SLIDING = {"num_key_value_heads": 1, "head_dim": 32, "sliding_window": 9, "final_logit_softcapping": 5.0}
FAMILIES = [
    GPT2Config(n_embd=64, n_layer=2, n_head=2, initializer_range=0.3, vocab_size=toys.VOCABULARY),
    GPTNeoXConfig(**WIDE, intermediate_size=128, vocab_size=toys.VOCABULARY),
    Gemma2Config(**WIDE, **SLIDING, intermediate_size=128, vocab_size=toys.VOCABULARY),
    MambaConfig(hidden_size=64, num_hidden_layers=2, state_size=8, vocab_size=toys.VOCABULARY),
]


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
def test_any_family_can_be_read_in_pieces(
    pair: Pair, config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned and rotary positions, a sliding window, capped logits, and no cache at all."""
    torch.manual_seed(4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    monkeypatch.setattr(forward, "_LOGITS_BYTES", 7 * 4 * toys.VOCABULARY)
    mixed = pair._replace(teacher=tmp_path)
    found, expected = (
        service(mixed).scores(*pack(mixed.windows), *lengths(mixed.windows)),
        oracle(mixed, BOTH),
    )
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE, err_msg=name)


@pytest.mark.parametrize("sharpness", [1, 8])
def test_models_that_nearly_agree_are_told_apart(pair: Pair, sharpness: float, tmp_path: Path) -> None:
    """Small divergences, of broad distributions and of nearly sure ones."""
    for name in ("teacher", "baseline"):
        model = AutoModelForCausalLM.from_pretrained(pair.teacher)
        generator = torch.Generator().manual_seed(6)
        with torch.no_grad():
            model.model.norm.weight.mul_(sharpness)
            for weight in model.parameters() if name == "baseline" else ():
                weight.add_(2e-3 * weight.std() * torch.randn(weight.shape, generator=generator))
        model.save_pretrained(tmp_path / name)
    near = pair._replace(teacher=tmp_path / "teacher", baseline=tmp_path / "baseline")
    found, expected = service(near).scores(*pack(near.windows), *lengths(near.windows)), oracle(near, BOTH)
    assert max(expected["kl_divergence"]) < 0.02
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE * sharpness, err_msg=name)
    same = service(near._replace(baseline=near.teacher)).scores(*pack(near.windows), *lengths(near.windows))
    assert not same.kl_divergence.any()


def test_bfloat16_is_used_where_it_is_asked_for(pair: Pair) -> None:
    found, expected = scores(pair, NONE, pair.windows, "bfloat16"), oracle(pair, NONE, "bfloat16")
    exact = oracle(pair, NONE)
    for name in PairScores._fields[:5]:
        np.testing.assert_allclose(getattr(found, name), expected[name], rtol=0.01, err_msg=name)
    assert not np.allclose(found.kl_divergence, exact["kl_divergence"], rtol=RELATIVE)


def test_entropy_and_perplexity_of_one_model_equal_the_oracle(pair: Pair) -> None:
    expected = oracle(pair, BOTH)
    with FeatureWorker(*files(pair.baseline), retries=0) as worker:
        found = EntropyScores(*worker.ask(entropy_of(pair.windows, BOS, VOCABULARY)))
        perplexity = worker.perplexity([pair.windows[:3], pair.windows[3:]], BOS)
    np.testing.assert_allclose(found.entropy, expected["baseline_entropy"], rtol=RELATIVE)
    np.testing.assert_allclose(-found.log_probability, expected["baseline_nll"], rtol=RELATIVE)
    model = AutoModelForCausalLM.from_pretrained(pair.baseline).eval()
    total, count = 0.0, 0
    for window in pair.windows:
        told = distributions(model, [BOS, *window.tolist()], toys.VOCABULARY).log_p
        total -= sum(told[i][int(window[i])] for i in range(1, len(window)))
        count += len(window) - 1
    assert perplexity == pytest.approx(math.exp(total / count), rel=RELATIVE)


@pytest.mark.parametrize("positions", [1, 7, 60, 10_000])
def test_prompts_and_targets_of_any_length_are_matched_as_alone(
    pair: Pair, positions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch, and where a target lies in several pieces."""
    monkeypatch.setattr(forward, "_LOGITS_BYTES", positions * 4 * toys.VOCABULARY)
    model = AutoModelForCausalLM.from_pretrained(pair.teacher).eval()
    random = np.random.default_rng(9)
    windows, prompts, targets, expected = [], [], [], []
    for prompt, target in zip(random.integers(1, 12, 24), random.integers(1, 12, 24), strict=True):
        ids = random.integers(2, VOCABULARY, prompt).tolist()
        for _ in range(target):
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        wrong = int(random.integers(0, 2 * target))
        if wrong < target:
            ids[prompt + wrong] = (ids[prompt + wrong] + 1) % VOCABULARY
        ids += random.integers(2, VOCABULARY, random.integers(0, 9)).tolist()
        windows.append(np.array(ids, np.int32))
        prompts.append(prompt)
        targets.append(target)
        expected.append(min(wrong, target))
    whole = service(pair, NONE)
    whole._vocabulary = toys.VOCABULARY  # the model's own words may be of any column
    found = whole.scores(*pack(windows), np.array(prompts), np.array(targets))
    assert found.teacher_matched.tolist() == expected


@pytest.mark.parametrize("positions", [1, 7, 60, 10_000])
@pytest.mark.parametrize("sharpness", [1, 8])
def test_scores_of_each_token_equal_a_log_softmax_in_float64(
    pair: Pair, positions: int, sharpness: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probability, moments and argmax, of broad distributions and of nearly sure ones."""
    monkeypatch.setattr(forward, "_LOGITS_BYTES", positions * 4 * toys.VOCABULARY)
    model = AutoModelForCausalLM.from_pretrained(pair.teacher).eval()
    with torch.no_grad():
        model.model.norm.weight.mul_(sharpness)
    model.save_pretrained(tmp_path)
    options = EngineOptions("transformers", str(tmp_path), 60, "float32", vocabulary=VOCABULARY)
    found = TransformersEngine(options._asdict()).score(Ragged.of(pair.windows))
    assert np.diff(found.offsets).tolist() == [len(window) - 1 for window in pair.windows]
    for row, window in enumerate(pair.windows):
        with torch.inference_mode():
            logits = model(torch.tensor(window[None].astype(np.int64))).logits[0, :-1].double()
        log_p = logits[:, :VOCABULARY].log_softmax(-1)
        p, own = log_p.exp(), torch.from_numpy(window[1:].astype(np.int64))[:, None]
        mean = (p * log_p).sum(-1)
        there = slice(*found.offsets[row : row + 2])
        for name, expected in {
            "log_probability": log_p.gather(-1, own)[:, 0],
            "mean": mean,
            "variance": (p * (log_p - mean[:, None]) ** 2).sum(-1),
        }.items():
            np.testing.assert_allclose(
                getattr(found, name)[there], expected, rtol=RELATIVE * sharpness, atol=1e-7, err_msg=name
            )
        assert found.hit[there].tolist() == (logits.argmax(-1) == own[:, 0]).tolist()
    assert found.hit.any()


def test_scores_come_whole_from_a_worker_and_vllm_gives_none(pair: Pair) -> None:
    windows = Ragged.of(pair.windows)
    options = EngineOptions("transformers", str(pair.teacher), 60, "float32")
    with start(options) as engine:
        told = engine.score(windows)
    own = TransformersEngine(options._asdict()).score(windows)
    for name, values in told._asdict().items():
        np.testing.assert_allclose(values, getattr(own, name), rtol=RELATIVE, err_msg=name)
        assert values.dtype == getattr(own, name).dtype
    assert "score" not in ABILITIES["vllm"]
    nothing = TransformersEngine(options._asdict()).score(Ragged.of([]))
    assert [len(values) for values in nothing] == [1, 0, 0, 0, 0, 0], (
        "as of a shard without a sampled example"
    )


def test_weights_that_give_no_numbers_are_refused_by_name(pair: Pair, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(pair.baseline)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(ModelError, match="broken: it gives NaN or infinite logits"):
        scores(pair._replace(baseline=tmp_path / "broken"), NONE, pair.windows)
    options = EngineOptions("transformers", str(tmp_path / "broken"), 60, "float32")
    with pytest.raises(ValueError, match="NaN or infinite logits"):
        TransformersEngine(options._asdict()).score(Ragged.of(pair.windows))
    with FeatureWorker(*files(tmp_path / "broken"), retries=0) as worker:
        for ask in (
            lambda: worker.perplexity([pair.windows], None),
            lambda: worker.ask(entropy_of(pair.windows, None, VOCABULARY)),
        ):
            with pytest.raises(ModelError, match="broken: it gives NaN or infinite logits for 7 of 7"):
                ask()


def test_the_model_that_cannot_be_loaded_is_named(pair: Pair, tmp_path: Path) -> None:
    shutil.copytree(pair.baseline, tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    with pytest.raises(EngineError, match=f"^{tmp_path / 'empty'}: transformers cannot run this model"):
        scores(pair._replace(baseline=tmp_path / "empty"), NONE, pair.windows)


def test_a_window_without_a_whole_suffix_is_a_mistake_of_the_caller(pair: Pair) -> None:
    short = pair.windows[0][: toys.PREFIX + toys.SUFFIX - 1]
    with pytest.raises(ValueError, match="window 1 has 13 tokens, not 14"):
        scores(pair, NONE, [pair.windows[0], short])


@pytest.mark.parametrize("text", ["a", "ab" * 500, "Grüße, 世界 🌍" * 3, "\0" * 100])
def test_zlib_entropy_is_bits_of_the_stream_for_each_byte(text: str) -> None:
    stream = zlib.compressobj(9)
    size = len(stream.compress(text.encode())) + len(stream.flush())
    assert zlib_entropy(text) == pytest.approx(8 * size / len(text.encode()))


def test_repeated_text_has_a_lower_entropy_than_random_text() -> None:
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1000)
    assert zlib_entropy("to be " * 166) < 0.5 < 4 < zlib_entropy("".join(letters)) < 6


@pytest.mark.parametrize("chunk", [16, suffix_module._CHUNK])
@pytest.mark.parametrize("width", [1, 2, 5, 50])
def test_suffixes_are_counted_at_any_offset_of_any_document(
    width: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where documents are longer than what is hashed together, and shorter than a suffix."""
    monkeypatch.setattr(suffix_module, "_CHUNK", chunk)
    rng = np.random.default_rng(width)
    documents = [rng.integers(0, 3, size).astype(np.int32) for size in rng.integers(0, 160, 120)]
    documents.append(np.full(200, 2, np.int32))  # stretches that overlap themselves
    cuts = [one[-width:] for one in documents if len(one) >= width]
    cuts += [rng.integers(3, 9, width).astype(np.int32)]  # stands nowhere
    suffixes = np.stack(cuts)
    counter = SuffixCounter([Ragged.of(suffixes[:7]), Ragged.of(suffixes[7:])])
    for document in documents:
        counter.feed(document)
    plain = [tuple(document.tolist()) for document in documents]
    expected = [
        sum(
            one[i : i + width] == tuple(suffix.tolist()) for one in plain for i in range(len(one) - width + 1)
        )
        for suffix in suffixes
    ]
    assert counter.counts.tolist() == expected
    assert expected[-1] == 0
    assert max(expected) > 1


def test_suffixes_of_any_lengths_are_counted_each_for_itself() -> None:
    rng = np.random.default_rng(3)
    documents = [rng.integers(0, 3, size).astype(np.int32) for size in rng.integers(1, 60, 80)]
    suffixes = [one[-int(rng.integers(1, 6)) :] for one in documents]
    counter = SuffixCounter([Ragged.of(suffixes[:30]), Ragged.of(suffixes[30:])])
    for document in documents:
        counter.feed(document)
    spelled = ["".join(map(str, document)) for document in documents]
    expected = [
        sum(text.startswith(one, at) for text in spelled for at in range(len(text)))
        for one in ("".join(map(str, suffix)) for suffix in suffixes)
    ]
    assert counter.counts.tolist() == expected
    assert len({len(suffix) for suffix in suffixes}) > 3


@pytest.mark.parametrize("chunk", [16, suffix_module._CHUNK])
def test_suffixes_are_found_where_they_stand(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suffix_module, "_CHUNK", chunk)
    rng = np.random.default_rng(5)
    suffixes = [rng.integers(0, 3, rng.integers(1, 6)).astype(np.int32) for _ in range(40)]
    finder = SuffixFinder(Ragged.of(suffixes))
    distinct = {
        tuple(suffix.tolist()): number for suffix, number in zip(suffixes, finder.number_of, strict=True)
    }
    assert sorted(distinct.values()) == list(range(finder.distinct))
    for size in (0, 3, 70):
        document = rng.integers(0, 4, size).astype(np.int32)
        plain = tuple(document.tolist())
        expected = [
            (at, at + len(one), number)
            for at in range(size)
            for one, number in distinct.items()
            if plain[at : at + len(one)] == one
        ]
        found = finder.find(document)
        assert sorted(zip(*(part.tolist() for part in found), strict=True)) == sorted(expected)
        assert (np.diff(found.starts) >= 0).all()


def test_stretches_that_a_weak_hash_confuses_are_told_apart() -> None:
    """Thue-Morse words and swapped tokens: sums of powers modulo 2^64 collide on them most easily."""
    word = [0]
    while len(word) < 64:
        word += [1 - bit for bit in word]
    one, other = (np.array([bit ^ flip for bit in word], np.int32) for flip in (0, 1))
    swapped = [one.copy() for _ in range(63)]
    for place, copy in enumerate(swapped):
        copy[[place, place + 1]] = 5, 6
    reversed_ = [np.where(copy == 5, 6, np.where(copy == 6, 5, copy)).astype(np.int32) for copy in swapped]
    counter = SuffixCounter([Ragged.of([one, *swapped])])
    for document in (other, *reversed_):
        counter.feed(document)
    assert not counter.counts.any()
    counter.feed(np.concatenate([other, one]))
    assert counter.counts.tolist() == [1] + [0] * 63


def test_a_corpus_without_examples_counts_nothing() -> None:
    counter = SuffixCounter([])
    counter.feed(np.arange(100, dtype=np.int32))
    assert counter.counts.shape == (0,)
