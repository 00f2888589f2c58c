"""What a soft student's step costs beside its parts: the teacher's forward pass and a cross-entropy step.

    python tests/benchmarks/soft_step.py

A step is the loss and its gradient, as the trainers of `kdaudit.distillation` make them. The three take
turns, and each figure is a median over the turns; a ratio is soft / (teacher forward + cross-entropy step).
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from kdaudit.distillation.families import random_model
from kdaudit.distillation.soft import Divergence, SoftSettings, SoftTrainer
from kdaudit.distillation.training import Recipe, Row, Training, WindowTrainer, collate

ROWS, TOKENS, VOCABULARY = 8, 128, 4096
TURNS = 20


def llama(width: int, layers: int, seed: int) -> Any:
    sizes = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": width,
        "intermediate_size": width * 8 // 3,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 32,
        "max_position_embeddings": TOKENS,
        "tie_word_embeddings": True,
    }
    return random_model(sizes, seed)


def main() -> None:
    windows = np.random.default_rng(0).integers(0, VOCABULARY, (ROWS, TOKENS)).astype(np.int32)
    batch = collate([Row(torch.from_numpy(row.astype(np.int64))) for row in windows])
    teacher = llama(256, 6, 0)
    with tempfile.TemporaryDirectory() as scratch:

        def trainer(kind: Callable[..., Any], **more: Any) -> Any:
            recipe = Recipe(epochs=1, learning_rate=1e-3, batch_size=ROWS)
            return kind(
                Training("student", llama(128, 4, 1), list(windows), recipe, Path(scratch), print), **more
            )

        def step(one: Any) -> Callable[[], None]:
            def run() -> None:
                one.model.zero_grad(set_to_none=True)
                one.compute_loss(one.model, dict(batch)).backward()

            return run

        @torch.no_grad()
        def read() -> None:
            teacher(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False)

        ways = {"teacher": read, "cross-entropy": step(trainer(WindowTrainer))}
        for divergence in get_args(Divergence):
            settings = SoftSettings(2.0, divergence)
            ways[divergence] = step(
                trainer(SoftTrainer, teacher=teacher, vocabulary=VOCABULARY, settings=settings)
            )
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(TURNS + 2):
            for name, run in ways.items():
                began = time.perf_counter()
                run()
                if turn >= 2:
                    seconds[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    parts = medians["teacher"] + medians["cross-entropy"]
    for name, taken in medians.items():
        ratio = "" if name in ("teacher", "cross-entropy") else f"  {taken / parts:.3f} of both parts"
        print(f"{name:14} {1000 * taken:8.1f} ms{ratio}")


if __name__ == "__main__":
    main()
