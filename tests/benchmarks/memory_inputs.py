"""Inputs of the memory benchmark: tiny models of one tokenizer, a corpus of any size, the audit of them.

Windows are random words, so each is distinct; a word is a token. One document in twenty is a copy of an
earlier one, one in ten holds several windows, and lengths vary as the windows of a real corpus do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

WINDOW = 256
MINIMUM = 100
"""Tokens of prefix and suffix together."""
_WORDS = 300


def write_audit(folder: Path, examples: int, engine: Literal["generated", "vllm", "transformers"]) -> Path:
    """Models, texts and the audit.yaml of them; returns its path.

    A generated audit has every kind of model and a holdout; a real one a teacher and a student, since each
    model takes a while to load.
    """
    names = ["teacher", "hard"] if engine != "generated" else ["teacher", "baseline", "soft", "hard"]
    for seed, name in enumerate(names):
        _save_model(folder / name, seed)
    _write_corpus(folder / "corpus.jsonl", examples, seed=1)
    students = [{"name": name, "path": f"./{name}", "kd": name} for name in names if name in ("soft", "hard")]
    config: dict[str, Any] = {
        "name": "memory",
        "corpus": {"path": "./corpus.jsonl", "id": "id", "window": WINDOW},
        "models": {"teacher": "./teacher", "students": students},
        "extraction": {"engine": "transformers" if engine == "generated" else engine},
    }
    if engine == "generated":
        _write_corpus(folder / "holdout.jsonl", examples // 2, seed=2)
        config["holdout"] = {"path": "./holdout.jsonl", "window": WINDOW}
        config["models"]["baseline"] = "./baseline"
        config["attacks"] = dict.fromkeys(("near_verbatim", "sampled", "membership"))
    path = folder / "audit.yaml"
    path.write_text(json.dumps(config))  # JSON is YAML
    return path


def _write_corpus(path: Path, examples: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    words = np.array([f"w{number}" for number in range(_WORDS)], dtype=object)
    with path.open("w") as file:
        for row, ids in enumerate(_documents(examples, random)):
            file.write(json.dumps({"id": f"doc-{row}", "text": " ".join(words[ids].tolist())}) + "\n")


def _documents(examples: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Documents of `examples` distinct windows in all, and copies of some."""
    left = examples
    earlier: NDArray[np.int64] | None = None
    while left:
        windows = min(left, int(random.integers(2, 6)) if random.random() < 0.1 else 1)
        left -= windows
        length = (windows - 1) * WINDOW + int(random.integers(MINIMUM, WINDOW + 1))
        document = random.integers(2, _WORDS, length)
        yield document
        if random.random() < 0.05:
            earlier = document if earlier is None or random.random() < 0.5 else earlier
            yield earlier


def _save_model(folder: Path, seed: int) -> None:
    import torch
    from toys import VOCABULARY, tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=WINDOW + 1,
        bos_token_id=None,
        eos_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
