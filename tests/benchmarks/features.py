"""What the feature pass costs beside the two models' bare forward passes, its memory, and counting suffixes.

    python tests/benchmarks/features.py

Time: the same windows in the same batches, bare (both models' logits made and dropped) and scored, in turns
and in one process; the median of the turns' ratios, so that a busy machine slows both. Prefix and suffix
alone, as an audit reads most windows, are scored in the same turns. Memory: the peak of a worker that scores
windows of 256 tokens at a vocabulary of 150,000, above what it holds once both models are loaded.
Suffixes: random documents of 500 tokens on average, against 1,000 and 1,000,000 examples cut from
them. Exit code 1 above 1.25 times, or 1.5 GB.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from kdaudit.inference import Ragged, Tokens
from kdaudit.inference.scoring import ModelFiles, PairWorker
from kdaudit.inference.scoring.batches import batches, pack
from kdaudit.inference.scoring.forward import CausalModel, Piece, logits_room
from kdaudit.inference.scoring.pair import PairService
from kdaudit.risk.suffix_copies import SuffixCounter

_COST, _BYTES = 1.25, 1.5e9
PREFIX, SUFFIX, WINDOW = 50, 50, 256
LARGE = 150_000


def save(folder: Path, vocabulary: int, width: int, layers: int) -> ModelFiles:
    torch.manual_seed(layers)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        max_position_embeddings=WINDOW,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return ModelFiles(folder, "float32", False)


def windows(count: int, vocabulary: int) -> list[Tokens]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(PREFIX + SUFFIX, WINDOW + 1, count)
    return [rng.integers(0, vocabulary, length).astype(np.int32) for length in lengths]


def split(count: int) -> list[NDArray[np.int64]]:
    """Tokens of each window's prompt and target."""
    return [np.full(count, tokens, np.int64) for tokens in (PREFIX, SUFFIX)]


def options(vocabulary: int) -> dict[str, Any]:
    return {
        "vocabulary": vocabulary,
        "teacher_bos": None,
        "baseline_bos": None,
        "retries": 0,
    }


def cost(folder: Path, count: int, turns: int, vocabulary: int) -> float:
    """Seconds of the feature pass over those of the bare forward passes."""
    files = [save(folder / "teacher", vocabulary, 512, 8), save(folder / "baseline", vocabulary, 256, 6)]
    service = PairService(options(vocabulary))
    for role, one in zip(("teacher", "baseline"), files, strict=True):
        service.load(role=role, **one.options())
    models = [CausalModel.load(**one.options()) for one in files]
    whole = windows(count, vocabulary)
    packed, lengths = pack(whole, PREFIX + SUFFIX), split(count)
    cut = pack([window[: PREFIX + SUFFIX] for window in whole])

    def bare() -> None:
        with torch.inference_mode():
            for batch in batches(packed, logits_room(0, *models)):
                for model in models:
                    model.read(batch, None).logits(Piece(0, batch.inputs.shape[1]))

    ratios, saved = [], []
    for turn in range(turns + 1):
        plain, scored = seconds(bare), seconds(lambda: service.scores(*packed, *lengths))
        if turn:  # the first warms up
            ratios.append(scored / plain)
            saved.append(seconds(lambda: service.scores(*cut, *lengths)) / scored)
            print(f"{count} windows, vocabulary {vocabulary:,}: bare {plain:.2f} s, scored {scored:.2f} s")
    print(f"prefix and suffix alone take {statistics.median(saved):.3f} times whole windows")
    return statistics.median(ratios)


def seconds(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def suffixes(examples: int, tokens: int) -> float:
    """Tokens of a corpus that a second counts, reading them apart."""
    rng = np.random.default_rng(0)
    flat = rng.integers(0, LARGE, tokens).astype(np.int32)
    documents = np.split(flat, np.sort(rng.integers(0, tokens, tokens // 500)))
    starts = rng.integers(0, tokens - SUFFIX, examples)
    counter = SuffixCounter(
        Ragged.of(flat[starts[row : row + 4096, None] + np.arange(SUFFIX)])
        for row in range(0, examples, 4096)
    )

    def count() -> None:
        for document in documents:
            counter.feed(document)
        assert counter.counts.shape == (examples,)

    return tokens / seconds(count)


def memory(folder: Path) -> float:
    """Bytes at the peak of scoring, above the loaded models."""
    files = [save(folder / "large", LARGE, 128, 2), save(folder / "small", LARGE, 64, 2)]
    with PairWorker(*files, **options(LARGE)).wait() as worker:
        process = Path("/proc", str(worker._worker.pid))
        before = _kilobytes(process, "VmRSS")
        (process / "clear_refs").write_text("5")  # the peak begins anew
        worker.scores(Ragged.of(windows(16, LARGE)), *split(16))
        return 1024.0 * (_kilobytes(process, "VmHWM") - before)


def _kilobytes(process: Path, field: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    asked = parser.parse_args()
    for examples in (1_000, 1_000_000):
        speed = suffixes(examples, 10_000_000) / 1e6
        print(f"suffixes of {examples:,} examples: {speed:.1f} million tokens of the corpus a second")
    with tempfile.TemporaryDirectory() as name:
        peak = memory(Path(name))
        print(f"peak above the models at vocabulary {LARGE:,}: {peak / 1e9:.2f} GB (bound {_BYTES / 1e9})")
        ratio = cost(Path(name), asked.windows, asked.turns, asked.vocabulary)
    print(f"the feature pass takes {ratio:.3f} times the bare forward passes (bound {_COST})")
    return int(ratio > _COST or peak > _BYTES)


if __name__ == "__main__":
    sys.exit(main())
