"""`kdaudit distill` on a tiny family from scratch: what it writes, that it goes on, that its audit runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

_WINDOW, _PREFIX = 24, 8


def _model(width: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 64,
    }


def _write_family(folder: Path) -> Path:
    draw = np.random.default_rng(3)
    words = ["red", "green", "blue", "stone", "river", "cloud", "seven", "north", "glass", "winter"]
    for name, count in (("train", 30), ("valid", 8)):
        texts = [" ".join(draw.choice(words, 40)) for _ in range(count)]
        lines = [json.dumps({"id": f"{name}-{row}", "text": text}) for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    config = {
        "name": "tiny",
        "corpus": {"path": "./train.jsonl", "id": "id", "window": _WINDOW},
        "holdout": {"path": "./valid.jsonl", "id": "id", "window": _WINDOW},
        "tokenizer": {"train_bpe": 300},
        "teacher": {"base": _model(64), "epochs": 2, "learning_rate": 1.0e-2},
        "student": {"base": _model(32), "epochs": 2, "learning_rate": 1.0e-2},
        "students": [
            {"name": "baseline", "method": "baseline"},
            {"name": "soft", "method": "soft", "temperature": 2.0},
            {"name": "jsd", "method": "soft", "divergence": "jsd", "alpha": 0.5},
            {"name": "hard", "method": "hard", "prefix_tokens": _PREFIX},
            {"name": "token", "method": "hard", "level": "token"},
            {"name": "drawn", "method": "hard", "prefix_tokens": _PREFIX, "decoding": "sampled"},
        ],
        "training": {"batch_size": 8},
        "seeds": [0, 1],
        "extraction": {"engine": "transformers", "prefix_tokens": _PREFIX, "suffix_tokens": 8},
    }
    path = folder / "distill.yaml"
    with path.open("w") as out:
        YAML().dump(config, out)
    return path


class Family:
    """A finished `kdaudit distill`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = _write_family(folder)
        self.out = folder / "distilled" / "tiny"
        self.done = self.distill()
        assert self.done.returncode == 0, self.done.stderr
        self.record = json.loads((self.out / "distill.json").read_text())

    def distill(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "kdaudit", "distill", str(self.config), *words]
        return subprocess.run(command, capture_output=True, text=True, cwd=self.folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def test_every_model_lies_in_its_folder_and_in_the_record(family: Family) -> None:
    names = ["baseline", "soft", "jsd", "hard", "token", "drawn"]
    folders = ["teacher", *(f"seed-{seed}/{name}" for seed in (0, 1) for name in names)]
    assert [model["folder"] for model in family.record["models"]] == folders
    for folder in folders:
        assert (family.out / folder / "model.safetensors").is_file()
        assert (family.out / folder / "README.md").is_file()
    assert not list(family.out.rglob("checkpoint-*"))


def test_perplexity_is_that_of_a_plain_forward_pass(family: Family) -> None:
    folder = family.out / "seed-1" / "soft"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    total, count = 0.0, 0
    for line in (family.folder / "valid.jsonl").read_text().splitlines():
        ids = tokenizer(json.loads(line)["text"], add_special_tokens=False)["input_ids"]
        for start in range(0, len(ids), _WINDOW):
            window = ids[start : start + _WINDOW]
            if len(window) < _PREFIX + 8:
                continue
            with torch.inference_mode():
                logits = model(torch.tensor([window])).logits[0].double()
            for place, token in enumerate(window[1:]):
                total -= torch.log_softmax(logits[place], -1)[token].item()
                count += 1
    (found,) = [one for one in family.record["models"] if one["folder"] == "seed-1/soft"]
    assert found["holdout_perplexity"] == pytest.approx(np.exp(total / count), rel=1e-4)


def test_the_hard_corpus_is_what_the_teacher_says_to_each_prefix(family: Family) -> None:
    teacher = AutoModelForCausalLM.from_pretrained(family.out / "teacher")
    rows = pq.read_table(family.out / "hard_corpus.parquet").to_pylist()
    assert len(rows) == family.record["corpus_windows"]
    for row in rows[:10]:
        ids = list(row["prefix_token_ids"])
        assert len(ids) == _PREFIX
        for token in row["generated_token_ids"]:
            with torch.inference_mode():
                logits = teacher(torch.tensor([ids])).logits[0, -1]
            assert logits.max() - logits[token] < 1e-4
            ids.append(token)
    assert {row["document_id"] for row in rows} == {f"train-{row}" for row in range(30)}


def test_sampled_text_is_not_greedy_text_and_each_seed_has_its_own(family: Family) -> None:
    files = ["hard_corpus.parquet", "hard_corpus-drawn.parquet", "hard_corpus-drawn-seed-1.parquet"]
    texts = [pq.read_table(family.out / name)["generated_token_ids"].to_pylist() for name in files]
    assert texts[0] != texts[1]
    assert texts[1] != texts[2]


def test_finished_models_are_not_trained_again(family: Family) -> None:
    before = {path: path.stat().st_mtime_ns for path in family.out.rglob("*.safetensors")}
    again = family.distill("--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["models"] == family.record["models"]
    assert {path: path.stat().st_mtime_ns for path in family.out.rglob("*.safetensors")} == before


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(
    family: Family, tmp_path: Path
) -> None:
    """Ended in the midst of the teacher, then of a student; then every weight is that of the undisturbed."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdaudit", "distill", str(family.config), "--out", str(out)]
    for beside in ("teacher", "seed-0/baseline"):
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            while not (out / f"{beside}.partial").exists() or not list(
                out.glob("checkpoints/*/checkpoint-*")
            ):
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.005)
            process.kill()
        assert not (out / beside).exists()
    done = family.distill("--out", str(out), "--set", "seeds=[0]")
    assert done.returncode == 0, done.stderr
    for path in [out / "teacher", *(out / "seed-0" / name for name in ("baseline", "soft", "hard"))]:
        own = load_file(path / "model.safetensors")
        undisturbed = load_file(family.out / path.relative_to(out) / "model.safetensors")
        assert own.keys() == undisturbed.keys()
        assert all(torch.equal(own[name], undisturbed[name]) for name in own), path


def test_a_folder_of_somebody_else_is_left_alone(family: Family, tmp_path: Path) -> None:
    (tmp_path / "teacher").mkdir()
    (tmp_path / "teacher" / "mine.txt").write_text("years of work")
    done = family.distill("--out", str(tmp_path))
    assert done.returncode == 2
    assert "was not trained here; choose another --out" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "teacher" / "mine.txt").exists()


def test_another_setting_never_replaces_a_trained_model(family: Family) -> None:
    before = {path: path.stat().st_mtime_ns for path in family.out.rglob("*.safetensors")}
    done = family.distill("--set", "seeds=[1]")
    assert done.returncode == 2
    assert "was trained from other text or settings; choose another --out" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in family.out.rglob("*.safetensors")} == before


def test_a_base_with_a_wrong_value_is_told_with_its_key(family: Family, tmp_path: Path) -> None:
    done = family.distill("--out", str(tmp_path / "out"), "--set", "student.base.num_attention_heads=five")
    assert done.returncode == 2
    assert "student.base" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_audit_runs(family: Family) -> None:
    audit = family.out / "seed-0" / "audit.yaml"
    command = [sys.executable, "-m", "kdaudit", "run", str(audit), "--out", "run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=family.folder)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert {*results["models"]} == {"teacher", "baseline", "soft", "jsd", "hard", "token", "drawn"}
    assert results["models"]["jsd"]["kd"] == "soft"
    for name in ("soft", "hard"):
        (trained,) = [one for one in family.record["models"] if one["folder"] == f"seed-0/{name}"]
        assert results["models"][name]["perplexity"] == pytest.approx(trained["holdout_perplexity"], rel=1e-5)
