"""Toy models whose memorization is known by construction.

A word-level tokenizer makes text and tokens the same thing, and each model is random: it "memorizes" just the
windows that were made of its own greedy continuations. Two models with equal weights memorize the same.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kdaudit.cli import main

VOCABULARY = 300
PREFIX, SUFFIX = 6, 8


def kdaudit(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A command of the program as if called from `cwd`, in this process.

    It has imported the libraries, and so has the fork server of the workers: a process of its own would spend
    ten seconds on that. Where the process itself is the subject (streams, signals, imports), tests start one.
    """
    command = [*map(str, words)]
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(main, command)
    return subprocess.CompletedProcess(command, done.exit_code, done.stdout, done.stderr)


def tokenizer() -> Any:
    words = {"<|endoftext|>": 0, "<unk>": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", unk_token="<unk>")


def save_model(folder: Path, seed: int, width: int = 64) -> Any:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=1,
            num_attention_heads=width // 32,
            max_position_embeddings=64,
            initializer_range=0.3,
            bos_token_id=None,
            eos_token_id=0,
        )
    ).eval()
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return model


def memorized_window(model: Any, random: np.random.Generator) -> list[int]:
    """A prefix of random words and the model's own continuation of it."""
    ids = random.integers(2, VOCABULARY, PREFIX).tolist()
    for _ in range(SUFFIX):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids


def text_of(ids: list[int]) -> str:
    words = ["<|endoftext|>", "<unk>"]
    return " ".join(words[i] if i < 2 else f"w{i}" for i in ids)


def write_corpus(path: Path, windows: list[list[int]]) -> None:
    rows = [json.dumps({"id": f"doc-{row}", "text": text_of(ids)}) for row, ids in enumerate(windows)]
    path.write_text("\n".join(rows) + "\n")


def write_audit(folder: Path, **extra: Any) -> Path:
    """Three models and a corpus, and the audit.yaml of them; returns its path.

    teacher and soft have the same weights (seed 1), baseline has seed 2, hard seed 3. The corpus holds 5
    windows of the teacher, one of them 3 times, 4 of the baseline, 2 of hard, and 20 of nobody.
    """
    from ruamel.yaml import YAML

    random = np.random.default_rng(7)
    own = {
        seed: save_model(folder / name, seed) for seed, name in ((1, "teacher"), (2, "baseline"), (3, "hard"))
    }
    save_model(folder / "soft", 1)
    windows = [memorized_window(own[1], random) for _ in range(5)]
    windows += [windows[0], windows[0]]
    windows += [memorized_window(own[2], random) for _ in range(4)]
    windows += [memorized_window(own[3], random) for _ in range(2)]
    windows += random.integers(2, VOCABULARY, (20, PREFIX + SUFFIX)).tolist()
    write_corpus(folder / "corpus.jsonl", windows)
    write_corpus(folder / "holdout.jsonl", random.integers(2, VOCABULARY, (10, PREFIX + SUFFIX)).tolist())
    config = {
        "name": "toy",
        "corpus": {"path": "./corpus.jsonl", "id": "id", "window": PREFIX + SUFFIX},
        "holdout": {"path": "./holdout.jsonl", "window": PREFIX + SUFFIX},
        "models": {
            "teacher": "./teacher",
            "baseline": "./baseline",
            "students": [
                {"name": "soft", "path": "./soft", "kd": "soft"},
                {"name": "hard", "path": "./hard", "kd": "hard"},
            ],
        },
        "extraction": {"engine": "transformers", "prefix_tokens": PREFIX, "suffix_tokens": SUFFIX},
        **extra,
    }
    path = folder / "audit.yaml"
    with path.open("w") as handle:
        YAML().dump(config, handle)
    return path
