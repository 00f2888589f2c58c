"""Students that are LoRA adapters: trained, saved as PEFT saves them, resumed, and audited."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import toys
from conftest import needs_vllm
from oracles.lora import merge_by_hand
from ruamel.yaml import YAML
from safetensors.torch import load_file
from test_adapters import save_adapter

from kdaudit.config.yaml.loading import load_distill
from kdaudit.distillation.lab import run_distill
from kdaudit.distillation.outcome import _scratch
from kdaudit.runs.files import own_folder

peft = pytest.importorskip("peft", reason="peft is not installed (kdaudit[lora])")

_LENGTH = toys.PREFIX + toys.SUFFIX


def write_distill(folder: Path, **student: Any) -> Path:
    """A teacher as it is, and a baseline and a soft student that are adapters on a base."""
    folder.mkdir(exist_ok=True)
    toys.save_model(folder / "teacher", 1, width=128)
    toys.save_model(folder / "base", 2)
    random = np.random.default_rng(5)
    toys.write_corpus(folder / "corpus.jsonl", random.integers(2, toys.VOCABULARY, (24, _LENGTH)).tolist())
    toys.write_corpus(folder / "holdout.jsonl", random.integers(2, toys.VOCABULARY, (8, _LENGTH)).tolist())
    config = {
        "name": "adapters",
        "corpus": {"path": "./corpus.jsonl", "window": _LENGTH},
        "holdout": {"path": "./holdout.jsonl", "window": _LENGTH},
        "teacher": {"path": "./teacher"},
        "student": {
            **{"base": "./base", "epochs": 60, "learning_rate": 1.0e-2, "lora": {"r": 8, "alpha": 16}},
            **student,
        },
        "students": [
            {"name": "baseline", "method": "baseline", "count": 1},
            {"name": "soft", "method": "soft"},
        ],
        "training": {"batch_size": 8},
        "extraction": {
            **{"engine": "transformers", "prefix_tokens": toys.PREFIX, "suffix_tokens": toys.SUFFIX},
        },
    }
    with (folder / "distill.yaml").open("w") as file:
        YAML().dump(config, file)
    return folder / "distill.yaml"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    write_distill(folder)
    before = (folder / "base" / "model.safetensors").read_bytes()
    done = toys.kdaudit("distill", "distill.yaml", "--out", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (folder / "base" / "model.safetensors").read_bytes() == before
    return folder


def test_an_adapter_alone_is_saved_and_names_its_base(trained: Path) -> None:
    for name in ("baseline", "soft"):
        folder = trained / "out" / "seed-0" / name
        tensors = load_file(folder / "adapter_model.safetensors")
        assert all(".lora_A." in key or ".lora_B." in key for key in tensors)
        assert {tensor.shape[0] for key, tensor in tensors.items() if ".lora_A." in key} == {8}
        assert not (folder / "model.safetensors").exists()
        settings = json.loads((folder / "adapter_config.json").read_text())
        assert settings["base_model_name_or_path"] == str(trained / "base")
        assert (settings["lora_alpha"], settings["task_type"]) == (16, "CAUSAL_LM")
        card = (folder / "README.md").read_text()
        assert "library_name: peft" in card
        assert "base_model: base\nbase_model_relation: adapter" in card
        assert "LoRA, rank 8, alpha 16" in card
        assert str(trained) not in card.split("## What its weights depend on")[0]


def test_it_learned_what_it_was_trained_on(trained: Path) -> None:
    models = {
        one["folder"]: one for one in json.loads((trained / "out" / "distill.json").read_text())["models"]
    }
    losses = models["seed-0/baseline"]["losses"]
    assert losses[-1] < 0.7 * losses[0]
    assert not list((trained / "out").glob("*kdaudit*"))  # nothing merged is left


@pytest.mark.slow
def test_the_audit_that_is_written_audits_the_adapters(trained: Path) -> None:
    out = trained / "out" / "seed-0"
    audit = YAML(typ="safe").load(out / "audit.yaml")
    assert audit["models"]["baseline"] == {"path": "./baseline", "base": "./../../base"}
    assert audit["models"]["students"][0]["base"] == "./../../base"
    done = toys.kdaudit("run", out / "audit.yaml", "--out", trained / "run", cwd=trained)
    assert done.returncode == 0, done.stderr
    results = json.loads((trained / "run" / "results.json").read_text())
    matching = {name: model["survival"][1] for name, model in results["models"].items()}
    assert matching["baseline"] > matching["base"] + 0.2  # the first token of each suffix
    assert {note["subject"] for note in results["notes"] if note["code"] == "adapter"} == {"baseline", "soft"}


def test_a_training_that_was_killed_resumes_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    for name in ("teacher", "base", "corpus.jsonl", "holdout.jsonl", "distill.yaml"):
        copy = shutil.copytree if (trained / name).is_dir() else shutil.copy
        copy(trained / name, tmp_path / name)
    config = load_distill(tmp_path / "distill.yaml", ())

    def killed(name: str, done: int, total: int) -> None:
        if name == "soft" and done == 70:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_distill(config, tmp_path / "out", progress=killed, warn=lambda _: None)
    assert list((tmp_path / "out" / "checkpoints").glob("*/checkpoint-*/adapter_model.safetensors"))
    run_distill(config, tmp_path / "out", progress=lambda *_: None, warn=lambda _: None)
    own, whole = (
        load_file(folder / "out" / "seed-0" / "soft" / "adapter_model.safetensors")
        for folder in (tmp_path, trained)
    )
    assert own.keys() == whole.keys()
    assert all(bool((own[key] == whole[key]).all()) for key in own)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        ({"base": {"model_type": "llama", "hidden_size": 64}}, "an adapter on random weights is of no use"),
        ({"lora": {"r": 0}}, "student.lora.r"),
        ({"lora": {"rank": 8}}, "student.lora.rank: unknown key"),
        ({"lora": {"target_modules": ["query"]}}, "name layers of this architecture"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_trained(
    student: dict[str, Any], says: str, tmp_path: Path
) -> None:
    write_distill(tmp_path, **student)
    done = toys.kdaudit("distill", "distill.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert says in done.stderr
    assert not (tmp_path / "out" / "seed-0").exists()


def test_without_peft_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distill(tmp_path)
    monkeypatch.setattr("kdaudit.distillation.lora.find_spec", lambda _: None)
    done = toys.kdaudit("distill", "distill.yaml", "--out", "out", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "student.lora: peft is not installed; run pip install 'kdaudit[lora]'" in done.stderr


def test_what_a_killed_call_merged_is_removed(tmp_path: Path) -> None:
    """It is as large as the base model."""
    (own_folder(tmp_path) / "soft").mkdir()
    (tmp_path / "teacher").mkdir()
    with _scratch(tmp_path) as folder:
        assert {*tmp_path.iterdir()} == {folder, tmp_path / "teacher"}
    assert [*tmp_path.iterdir()] == [tmp_path / "teacher"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=needs_vllm)])
def test_a_teacher_that_is_an_adapter_teaches_what_its_merged_weights_teach(
    engine: str, tmp_path: Path
) -> None:
    """The oracle is merged by hand, without PEFT."""
    new = {"epochs": 2, "lora": None}
    for place in ("adapter", "merged"):
        write_distill(tmp_path / place, **new)
    toys.save_model(tmp_path / "wide", 1, width=128)
    save_adapter(tmp_path / "wide", tmp_path / "adapter" / "lora", 3)
    shutil.rmtree(tmp_path / "merged" / "teacher")
    merge_by_hand(tmp_path / "wide", tmp_path / "adapter" / "lora", tmp_path / "merged" / "teacher")
    toys.tokenizer().save_pretrained(tmp_path / "merged" / "teacher")
    students = "students=[{name: baseline, method: baseline, count: 1}, {name: soft, method: soft}, "
    students += f"{{name: hard, method: hard, prefix_tokens: {toys.PREFIX}}}]"
    words = ["distill", "distill.yaml", "--out", "out", "--set", f"extraction.engine={engine}"]
    words += ["--set", students]
    left = tmp_path / "adapter" / "out" / "windows" / "teacher"
    left.mkdir(parents=True)
    (left / "of-a-killed-call").touch()
    taught = ("--set", "teacher={path: ./lora, base: ../wide}")
    for place, more in (("adapter", taught), ("merged", ())):
        done = toys.kdaudit(*words, *more, cwd=tmp_path / place)
        assert done.returncode == 0, done.stderr
    outs = [tmp_path / place / "out" for place in ("adapter", "merged")]
    assert not left.exists()
    one, two = (pq.read_table(out / "hard_corpus.parquet")["generated_token_ids"] for out in outs)
    assert one.to_pylist() == two.to_pylist()
    for name in ("soft", "hard"):
        losses = [json.loads((out / "seed-0" / name / "training.json").read_text())["losses"] for out in outs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), name
    records = [json.loads((out / "distill.json").read_text())["models"][0] for out in outs]
    assert records[0]["folder"] == str(tmp_path / "adapter" / "lora")
    assert records[0]["holdout_perplexity"] == pytest.approx(records[1]["holdout_perplexity"], rel=1e-4)
    audit = outs[0] / "seed-0" / "audit.yaml"
    assert YAML(typ="safe").load(audit)["models"]["teacher"] == {
        "path": "./../../lora",
        "base": {"path": "./../../../wide"},
    }
    found = []
    for out in outs:
        done = toys.kdaudit("run", out / "seed-0" / "audit.yaml", "--out", out / "run", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found.append(json.loads((out / "run" / "results.json").read_text()))
    keys = ("examples", "memorized", "survival")
    for name in ("teacher", "soft", "hard"):
        assert [found[0]["models"][name][key] for key in keys] == [
            found[1]["models"][name][key] for key in keys
        ]


@pytest.mark.parametrize(
    ("teacher", "key", "says"),
    [
        (
            "{path: ./teacher, base: ./base}",
            "teacher.base",
            "is a whole model, and only an adapter has a base",
        ),
        ("{path: ./lora, base: ./base}", "teacher.base", "does not fit its base model"),
        ("{path: ./lora}", "teacher.path", "set teacher.base to the folder or hub id of that model"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "distill"])
def test_a_teacher_that_is_an_adapter_needs_its_own_base(
    teacher: str, key: str, says: str, command: str, tmp_path: Path
) -> None:
    write_distill(tmp_path)
    save_adapter(tmp_path / "teacher", tmp_path / "lora", 3)
    settings = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = "/home/ann/teacher"
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps(settings))
    done = toys.kdaudit(command, "distill.yaml", "--set", f"teacher={teacher}", cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    assert key in done.stderr
    assert says in done.stderr
