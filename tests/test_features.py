"""Features against oracles written out here: raw transformers, float64, a token at a time."""

from __future__ import annotations

import math
import random
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import toys
from transformers import AutoModelForCausalLM

from kdaudit.errors import EngineError
from kdaudit.features import (
    FeatureWorker,
    ModelFiles,
    PairScores,
    PairWorker,
    SuffixCounter,
    forward,
    zlib_entropy,
)
from kdaudit.features.batches import pack
from kdaudit.features.pair import PairService

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


def distributions(model: Any, tokens: list[int], columns: int) -> tuple[list[list[float]], list[int]]:
    """After each token: log-probabilities over the first columns, and the likeliest token of all columns."""
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0].double()
    told = []
    for row in logits[:, :columns].tolist():
        highest = max(row)
        total = highest + math.log(sum(math.exp(value - highest) for value in row))
        told.append([value - total for value in row])
    return told, logits.argmax(1).tolist()


def oracle(pair: Pair, bos: int | None) -> dict[str, list[float]]:
    """Each field of `PairScores`, by loops."""
    models = [AutoModelForCausalLM.from_pretrained(one).eval() for one in (pair.teacher, pair.baseline)]
    found: dict[str, list[float]] = {name: [] for name in PairScores._fields}
    for window in pair.windows:
        before = [] if bos is None else [bos]
        tokens = [*before, *window.tolist()]
        (p, likeliest_t), (q, likeliest_b) = (distributions(model, tokens, VOCABULARY) for model in models)
        # The window's first token is not foretold, whether a begin token stands before it or not.
        places = range(len(before), len(tokens) - 1)
        found["teacher_nll"].append(-sum(p[i][tokens[i + 1]] for i in places) / len(places))
        found["baseline_nll"].append(-sum(q[i][tokens[i + 1]] for i in places) / len(places))
        divergences = [sum(math.exp(a) * (a - b) for a, b in zip(p[i], q[i], strict=True)) for i in places]
        found["kl_divergence"].append(sum(divergences) / len(places))
        for name, one in (("teacher_entropy", p), ("baseline_entropy", q)):
            found[name].append(-sum(math.exp(a) * a for i in places for a in one[i]) / len(places))
        for name, likeliest in (("teacher_matched", likeliest_t), ("baseline_matched", likeliest_b)):
            matched = 0
            for i in range(len(before) + toys.PREFIX - 1, len(before) + toys.PREFIX + toys.SUFFIX - 1):
                if likeliest[i] != tokens[i + 1]:
                    break
                matched += 1
            found[name].append(matched)
    return found


def files(folder: Path) -> ModelFiles:
    return ModelFiles(folder, "float32", False)


def scores(pair: Pair, bos: int | None, windows: list[np.ndarray]) -> PairScores:
    with PairWorker(
        files(pair.teacher),
        files(pair.baseline),
        vocabulary=VOCABULARY,
        bos=bos,
        prefix_tokens=toys.PREFIX,
        suffix_tokens=toys.SUFFIX,
        retreat=0,
    ) as worker:
        return worker.scores(windows)


@pytest.mark.parametrize("bos", [None, BOS])
def test_scores_equal_the_oracle(pair: Pair, bos: int | None) -> None:
    found, expected = scores(pair, bos, pair.windows), oracle(pair, bos)
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE, err_msg=name)
    if bos is None:
        assert found.teacher_matched[0] == toys.SUFFIX
        assert found.teacher_matched[-1] == toys.SUFFIX - 2
        assert found.baseline_matched.max() < toys.SUFFIX


def service(pair: Pair) -> PairService:
    options = {
        "vocabulary": VOCABULARY,
        "bos": BOS,
        "prefix_tokens": toys.PREFIX,
        "suffix_tokens": toys.SUFFIX,
        "retreat": 0,
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
    found = service(pair).scores(*pack(pair.windows, 2))
    expected = oracle(pair, BOS)
    for name, values in found._asdict().items():
        np.testing.assert_allclose(values, expected[name], rtol=RELATIVE, err_msg=name)


def test_entropy_and_perplexity_of_one_model_equal_the_oracle(pair: Pair) -> None:
    expected = oracle(pair, BOS)
    with FeatureWorker(*files(pair.baseline), retreat=0) as worker:
        found = worker.entropy(pair.windows, BOS, VOCABULARY)
        perplexity = worker.perplexity([pair.windows[:3], pair.windows[3:]], BOS)
    np.testing.assert_allclose(found.entropy, expected["baseline_entropy"], rtol=RELATIVE)
    np.testing.assert_allclose(-found.log_probability, expected["baseline_nll"], rtol=RELATIVE)
    model = AutoModelForCausalLM.from_pretrained(pair.baseline).eval()
    total, count = 0.0, 0
    for window in pair.windows:
        told, _ = distributions(model, [BOS, *window.tolist()], toys.VOCABULARY)
        total -= sum(told[i][int(window[i])] for i in range(1, len(window)))
        count += len(window) - 1
    assert perplexity == pytest.approx(math.exp(total / count), rel=RELATIVE)


def test_weights_that_give_no_numbers_are_refused_by_name(pair: Pair, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(pair.baseline)
    with torch.no_grad():
        model.model.norm.weight[3] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    with pytest.raises(EngineError, match="broken: it gives NaN or infinite logits"):
        scores(pair._replace(baseline=tmp_path / "broken"), None, pair.windows)


@pytest.mark.parametrize("text", ["a", "ab" * 500, "Grüße, 世界 🌍" * 3, "\0" * 100])
def test_zlib_entropy_is_bits_of_the_stream_for_each_byte(text: str) -> None:
    stream = zlib.compressobj(9)
    size = len(stream.compress(text.encode())) + len(stream.flush())
    assert zlib_entropy(text) == pytest.approx(8 * size / len(text.encode()))


def test_repeated_text_has_a_lower_entropy_than_random_text() -> None:
    letters = random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=1000)
    assert zlib_entropy("to be " * 166) < 0.5 < 4 < zlib_entropy("".join(letters)) < 6


@pytest.mark.parametrize("width", [1, 2, 5, 50])
def test_suffixes_are_counted_at_any_offset_of_any_document(width: int) -> None:
    rng = np.random.default_rng(width)
    documents = [rng.integers(0, 3, size).astype(np.int32) for size in rng.integers(0, 160, 120)]
    documents.append(np.full(200, 2, np.int32))  # stretches that overlap themselves
    cuts = [one[-width:] for one in documents if len(one) >= width]
    cuts += [rng.integers(3, 9, width).astype(np.int32)]  # stands nowhere
    suffixes = np.stack(cuts)
    counter = SuffixCounter([suffixes[:7], suffixes[7:]])
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
