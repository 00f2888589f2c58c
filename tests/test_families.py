"""The paper's families: their sample configurations are valid, and a twin of each is distilled and audited.

A twin is tiny: it has its family's architecture and random weights.
"""

from __future__ import annotations

import importlib.util
import json
import math
import shlex
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ROOT
from ruamel.yaml import YAML

from kdaudit.cli import main

_PAPER = ROOT / "sample_configs" / "paper"
_WINDOW, _PREFIX, _SUFFIX = 24, 8, 8
_NAMES = ["teacher", "baseline", "soft", "hard"]

FAMILIES = {
    "gpt_neox": ("GPTNeoXForCausalLM", {"rotary_pct": 0.25, "use_parallel_residual": True}),
    "olmo2": ("Olmo2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {"head_dim": 32, "num_key_value_heads": 1, "tie_word_embeddings": True}),
}
"""Each family's class in transformers, and what makes its twin like the original."""


def _model(family: str, width: int) -> dict[str, Any]:
    return {
        "model_type": family,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 64,
        **FAMILIES[family][1],
    }


def _write_texts(folder: Path) -> None:
    """Paragraphs of the manual that every Python carries."""
    paragraphs = [part.strip() for name in sorted(topics) for part in topics[name].split("\n\n")]
    usable = [part for part in paragraphs if 60 < len(part) < 160]
    for name, texts in (("train", usable[:40]), ("valid", usable[40:50])):
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def _write_config(folder: Path, family: str, engine: str) -> Path:
    _write_texts(folder)
    config = {
        "name": family.replace("_", "-"),
        "corpus": {"path": "./train.jsonl", "window": _WINDOW},
        "holdout": {"path": "./valid.jsonl", "window": _WINDOW},
        "tokenizer": {"train_bpe": 320},
        "teacher": {"base": _model(family, 64), "epochs": 3, "learning_rate": 1.0e-2},
        "student": {"base": _model(family, 32), "epochs": 2, "learning_rate": 1.0e-2},
        "students": [
            {"name": "baseline", "method": "baseline", "count": 1},
            {"name": "soft", "method": "soft"},
            {"name": "hard", "method": "hard", "prefix_tokens": _PREFIX},
        ],
        "training": {"batch_size": 16},
        "extraction": {"engine": engine, "prefix_tokens": _PREFIX, "suffix_tokens": _SUFFIX},
    }
    path = folder / "distill.yaml"
    with path.open("w") as out:
        YAML().dump(config, out)
    return path


def _kdaudit(*words: object) -> Any:
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_is_distilled_and_audited(family: str, tmp_path: Path) -> None:
    # GPT-NeoX is the paper's main family, and the one for which vLLM runs another library's code.
    fast = family == "gpt_neox" and importlib.util.find_spec("vllm") is not None
    out = tmp_path / "out"
    config = _write_config(tmp_path, family, "vllm" if fast else "transformers")
    record = _kdaudit("distill", config, "--out", out, "--json")
    assert [model["method"] for model in record["models"]] == _NAMES
    for model in record["models"]:
        described = json.loads((out / model["folder"] / "config.json").read_text())
        assert described["architectures"] == [FAMILIES[family][0]]
        assert model["losses"][-1] < model["losses"][0]
        assert math.isfinite(model["holdout_perplexity"])
    assert record["corpus_windows"] >= 40

    results = _kdaudit("run", out / "seed-0" / "audit.yaml", "--out", tmp_path / "run", "--json")
    assert [*results["models"]] == _NAMES
    assert results["extraction"]["engine"] == ("vllm" if fast else "transformers")
    assert results["corpus"]["windows"] == record["corpus_windows"]
    for model in results["models"].values():
        assert model["examples"] == results["corpus"]["examples"]
        assert 0 <= model["memorized"] <= model["examples"]
        assert len(model["survival"]) == _SUFFIX + 1
    assert {*results["comparison"]} == {"soft", "hard"}
    assert results["soft_vs_hard"] is not None
    for told, found in zip(record["models"], results["models"].values(), strict=True):
        assert found["perplexity"] == pytest.approx(told["holdout_perplexity"], rel=1e-5)


def _corpora() -> list[list[str]]:
    """What README.md adds to the command line for each corpus; nothing for the one that the files name."""
    lines = (_PAPER / "README.md").read_text(encoding="utf-8").splitlines()
    return [[], *(shlex.split(line) for line in lines if line.startswith("--set"))]


@pytest.mark.parametrize("corpus", _corpora(), ids=["fineweb", "wikitext", "nemotron"])
@pytest.mark.parametrize("family", ["pythia", "olmo2", "qwen3"])
def test_the_papers_configurations_are_valid(family: str, corpus: list[str]) -> None:
    done = CliRunner().invoke(main, ["validate", str(_PAPER / f"{family}.yaml"), *corpus])
    assert done.exit_code == 0, done.stderr
    assert "is a valid distillation of 3 models" in done.stdout
