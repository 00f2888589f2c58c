"""Quantized models: measured as they are released, or refused at once with what could run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from conftest import needs_vllm
from oracles import greedy
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kdaudit.config.models import ModelConfig
from kdaudit.errors import ModelError
from kdaudit.inference import quantized
from kdaudit.models.checkpoint.quantized import Quantization
from kdaudit.models.resolving import resolve_model

pytest.importorskip("compressed_tensors", reason="compressed-tensors is not installed")

import quantized_toys

KEY = "models.students.0"
_PRESETS = {"INT8": ("W8A16", None), "INT4": ("W4A16", 32), "FP8": ("FP8_DYNAMIC", None)}


def dequantize(folder: Path, out: Path, preset: str) -> None:
    """Weights times scales, by hand, as a whole model in float32."""
    tensors = load_file(folder / "model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(folder.parent / "base", dtype=torch.float32)
    for name, scale in tensors.items():
        if not name.endswith(".weight_scale"):
            continue
        stem = name.removesuffix(".weight_scale")
        shape = model.get_submodule(stem).weight.shape
        if f"{stem}.weight_packed" in tensors:
            bits = 8 if preset == "W8A16" else 4
            packed = tensors[f"{stem}.weight_packed"].long() & 0xFFFFFFFF
            parts = [(packed >> bits * place) & (2**bits - 1) for place in range(32 // bits)]
            numbers = torch.stack(parts, -1).flatten(1)[:, : shape[1]].float() - 2 ** (bits - 1)
        else:
            numbers = tensors[f"{stem}.weight"].float()
        groups = numbers.unflatten(1, (scale.shape[1], -1))
        with torch.no_grad():
            model.get_submodule(stem).weight.copy_((groups * scale.float()[..., None]).flatten(1))
    model.save_pretrained(out)


def write_audit(folder: Path, students: list[dict[str, Any]], said_by: dict[str, Any]) -> None:
    """Audits of a base and its quantized students, on what these say, half of it with a token changed."""
    random, windows = np.random.default_rng(3), []
    for model in said_by.values():
        for row in range(12):
            ids = toys.memorized_window(model, random)
            if row % 2:
                ids[-random.integers(1, toys.SUFFIX + 1)] = 2
            windows.append(ids)
    toys.write_corpus(folder / "corpus.jsonl", windows)
    config = {
        "name": "quantized",
        "corpus": {"path": "./corpus.jsonl", "window": toys.PREFIX + toys.SUFFIX},
        "models": {"teacher": "./base", "students": students},
        "extraction": {"prefix_tokens": toys.PREFIX, "suffix_tokens": toys.SUFFIX, "engine": "transformers"},
        "predictor": {"enabled": False},
    }
    with (folder / "audit.yaml").open("w") as file:
        YAML().dump(config, file)


def matched(run: Path, name: str) -> np.ndarray:
    found = pq.read_table(run / "extraction" / name / "part-00000.parquet")
    return found["matched_tokens"].to_numpy()


@pytest.mark.slow
def test_transformers_matches_what_weights_dequantized_by_hand_match(tmp_path: Path) -> None:
    """Of weights alone: what rounds activations too has no whole model that says the same."""
    toys.save_model(tmp_path / "base", 1, width=128)
    by_hand = {}
    for name, (preset, group) in _PRESETS.items():
        quantized_toys.quantize(tmp_path / "base", tmp_path / name, preset, group)
        if name != "FP8":
            dequantize(tmp_path / name, tmp_path / f"{name}-by-hand", preset)
            by_hand[name] = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-by-hand").eval()
    write_audit(tmp_path, [{"name": name, "path": f"./{name}"} for name in _PRESETS], by_hand)
    done = toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    examples = pq.read_table(tmp_path / "run" / "examples" / "part-00000.parquet")
    ids = np.stack(examples["token_ids"].to_numpy())
    np.savez(tmp_path / "in.npz", prefixes=ids[:, : toys.PREFIX], suffixes=ids[:, toys.PREFIX :])
    for name in by_hand:
        greedy.main(str(tmp_path / "in.npz"), str(tmp_path / f"{name}-by-hand"), str(tmp_path / "out.npz"))
        oracle = np.load(tmp_path / "out.npz")["matched"]
        assert np.array_equal(matched(tmp_path / "run", name), oracle), name
        assert 6 <= (oracle == toys.SUFFIX).sum() < len(oracle)
    models = json.loads((tmp_path / "run" / "results.json").read_text())["models"]
    assert {name: models[name]["quantization"] for name in models} == {
        "teacher": None,
        "INT8": "compressed-tensors, INT8 W8A16",
        "INT4": "compressed-tensors, INT4 W4A16",
        "FP8": "compressed-tensors, FP8 W8A8",
    }
    assert (
        "quantized: compressed-tensors, INT4 W4A16" in (tmp_path / "run" / "report.public.html").read_text()
    )


@pytest.mark.slow
@needs_vllm
def test_vllm_runs_int8_and_the_engine_check_knows_that_activations_are_rounded(tmp_path: Path) -> None:
    toys.save_model(tmp_path / "base", 1, width=128)
    quantized_toys.quantize(tmp_path / "base", tmp_path / "INT8", "W8A8")
    said_by = {"base": AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()}
    write_audit(tmp_path, [{"name": "INT8", "path": "./INT8"}], said_by)
    done = toys.kdaudit(
        *("run", "audit.yaml", "--out", "run", "--set", "extraction.engine=vllm"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    check = results["models"]["INT8"]["engine_check"]
    assert check["disagreeing"] == 0
    assert check["tolerance"] > 10 * results["models"]["teacher"]["engine_check"]["tolerance"]
    (note,) = (note for note in results["notes"] if note["code"] == "quantized")
    assert "It rounds activations too" in note["text"]


def resolve(folder: Path) -> Any:
    return resolve_model(ModelConfig(path=str(folder)), KEY)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantized models of several formats."""
    folder = tmp_path_factory.mktemp("packed")
    toys.save_model(folder / "base", 1, width=128)
    quantized_toys.quantize(folder / "base", folder / "int4", "W4A16", 32)
    quantized_toys.quantize(folder / "base", folder / "int8", "W8A8")
    quantized_toys.gptq(folder / "base", folder / "gptq")
    quantized_toys.awq(folder / "base", folder / "awq")
    return folder


@pytest.mark.parametrize("name", ["int4", "gptq", "awq"])
def test_packed_weights_count_as_the_numbers_that_they_hold(packed: Path, name: str) -> None:
    assert resolve(packed / name).parameters == resolve(packed / "base").parameters


def test_a_missing_tensor_of_a_quantized_model_is_refused(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed / "gptq", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    gone = {name: one for name, one in tensors.items() if "layers.0.mlp.up_proj" not in name}
    save_file(gone, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 that its config.json asks for"):
        resolve(folder)


@pytest.mark.parametrize("head", ["equal", "other", "packed"])
def test_an_output_layer_that_is_tied_and_differs_is_refused_in_a_quantized_model_too(
    packed: Path, head: str, tmp_path: Path
) -> None:
    folder = shutil.copytree(packed / "gptq", tmp_path / "model")
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    if head == "equal":
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    elif head == "packed":
        del tensors["lm_head.weight"]
        inputs, outputs = 128, toys.VOCABULARY
        tensors |= {
            "lm_head.qweight": torch.zeros(inputs // 8, outputs, dtype=torch.int32),
            "lm_head.qzeros": torch.zeros(inputs // 32, outputs // 8, dtype=torch.int32),
            "lm_head.scales": torch.zeros(inputs // 32, outputs, dtype=torch.float16),
        }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    if head == "equal":
        assert resolve(folder).quantization is not None
        return
    with pytest.raises(ModelError, match=r"hold a (lm_head|model.embed_tokens).weight that differs from"):
        resolve(folder)


_Q = "model.layers.0.self_attn.q_proj"


def _settings(**changed: Any) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda settings, tensors: settings.update(changed)


def _without(part: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda settings, tensors: tensors.pop(f"{_Q}.{part}")


def _shortened(part: str) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    return lambda settings, tensors: tensors.update({f"{_Q}.{part}": tensors[f"{_Q}.{part}"][:4].clone()})


def _bits_in_words(settings: dict[str, Any], tensors: dict[str, Any]) -> None:
    settings["config_groups"]["group_0"]["weights"]["num_bits"] = "eight"


_DAMAGED = {
    "gptq without scales": ("gptq", _without("scales"), f"lack {_Q}.scales, without which"),
    "gptq without zero points": ("gptq", _without("qzeros"), f"lack {_Q}.qzeros, without which"),
    "gptq cut": (
        "gptq",
        _shortened("qweight"),
        f"{_Q}.qweight has the shape (4, 128) in its weights and (16",
    ),
    "gptq in other groups": (
        "gptq",
        _settings(group_size=64),
        "scales has the shape (8, 128) in its weights and (4, 128)",
    ),
    "gptq said to be awq": (
        "gptq",
        _settings(quant_method="awq", version="gemm", checkpoint_format="gemm"),
        "has the shape",
    ),
    "awq said to be gptq": ("awq", _settings(quant_method="gptq"), "has the shape"),
    "awq in one group": (
        "awq",
        _settings(group_size=-1),
        "scales has the shape (8, 128) in its weights and (1, 128)",
    ),
    "bits in words": ("gptq", _settings(bits="four"), "the quantization_config of its config.json cannot be"),
    "no bits": ("gptq", _settings(bits=None), "the quantization_config of its config.json cannot be used"),
    "no groups": ("int8", _settings(config_groups=None), "cannot be used (it has no config_groups)"),
    "num_bits in words": (
        "int8",
        _bits_in_words,
        "the quantization_config of its config.json cannot be used",
    ),
    "int8 without scales": ("int8", _without("weight_scale"), f"lack {_Q}.weight_scale, without which"),
    "int8 cut": ("int8", _shortened("weight"), f"{_Q}.weight has the shape (4, 128) in its weights and (128"),
    "int4 without scales": ("int4", _without("weight_scale"), f"lack {_Q}.weight_scale, without which"),
}


@pytest.mark.parametrize("kind", _DAMAGED)
def test_damaged_parts_and_settings_are_refused_before_anything_is_measured(
    packed: Path, kind: str, tmp_path: Path
) -> None:
    name, damage, says = _DAMAGED[kind]
    folder = shutil.copytree(packed / name, tmp_path / "model")
    described = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    damage(described["quantization_config"], tensors)
    (folder / "config.json").write_text(json.dumps(described))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError) as caught:
        resolve(folder)
    assert caught.value.key == f"{KEY}.path"
    assert says in caught.value.what


@pytest.mark.parametrize("name", ["int4", "int8", "gptq", "awq"])
def test_whole_parts_are_taken(packed: Path, name: str) -> None:
    assert resolve(packed / name).quantization is not None


def test_gptq_of_old_says_where_its_settings_belong(packed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(packed / "gptq", tmp_path / "model")
    described = json.loads((folder / "config.json").read_text())
    settings = described.pop("quantization_config")
    (folder / "config.json").write_text(json.dumps(described))
    (folder / "quantize_config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"put the content of quantize_config.json, with quant_method: gptq"):
        resolve(folder)


def of(
    method: str, weights: dict[str, Any] | None = None, inputs: dict[str, Any] | None = None, **more: Any
) -> Any:
    groups = (
        {} if weights is None else {"config_groups": {"0": {"weights": weights, "input_activations": inputs}}}
    )
    return Quantization(method, {**more, **groups})


_INT8, _INT4 = {"type": "int", "num_bits": 8}, {"type": "int", "num_bits": 4}
_FP8, _STATIC = {"type": "float", "num_bits": 8}, {"num_bits": 8, "dynamic": False}
_NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("found", "engine", "dtype", "fix"),
    [
        (of("compressed-tensors", _INT4), "vllm", "float32", "dtype to bfloat16"),
        (of("gptq", bits=4), "vllm", "float32", "dtype to bfloat16"),
        (of("compressed-tensors", _INT8), "vllm", "bfloat16", "or use a machine with a GPU"),
        (of("compressed-tensors", _FP8, _STATIC), "vllm", "bfloat16", "or use a machine with a GPU"),
        (of("fp8"), "vllm", "bfloat16", "or use a machine with a GPU"),
        (of("bitsandbytes", **_NF4), "vllm", "bfloat16", "set extraction.engine to transformers"),
        (
            of("bitsandbytes", load_in_8bit=True),
            "transformers",
            "float32",
            "quantize it another way, such as NF4",
        ),
        (of("bitsandbytes", **_NF4), "transformers", "float32", "run pip install bitsandbytes"),
        (of("compressed-tensors", _INT8), "transformers", "float32", "run pip install compressed-tensors"),
        (
            of("gptq", bits=3),
            "transformers",
            "float16",
            "run pip install gptqmodel optimum, or set extraction",
        ),
        (
            of("awq", bits=3),
            "vllm",
            "float16",
            "run pip install gptqmodel, or set predictor.enabled to false",
        ),
    ],
)
def test_what_this_machine_cannot_run_is_refused_with_what_could(
    found: Any, engine: Any, dtype: str, fix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    monkeypatch.setattr(quantized, "_has_amx", lambda: False)
    told = quantized.obstacle(found, engine, dtype, scored=True, on_gpu=False)
    assert told is not None
    assert fix in told.fix


def test_a_baseline_is_read_by_transformers_though_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized, "find_spec", lambda _: None)
    found, how = of("awq", bits=3), {"scored": False, "on_gpu": True}
    assert quantized.obstacle(found, "vllm", "float16", **how) is None
    told = quantized.obstacle(found, "vllm", "float16", **how, compared=True)
    assert told is not None
    assert told.fix == "run pip install gptqmodel"


def test_what_runs_has_no_obstacle() -> None:
    runs = [
        (of("compressed-tensors", _INT8, {"num_bits": 8, "dynamic": True}), "vllm", "float32"),
        (of("compressed-tensors", _FP8, {"num_bits": 8, "dynamic": True}), "vllm", "bfloat16"),
        (of("compressed-tensors", _INT4), "vllm", "bfloat16"),
        (of("compressed-tensors", _INT8), "transformers", "float32"),
    ]
    for found, engine, dtype in runs:
        assert quantized.obstacle(found, engine, dtype, scored=True, on_gpu=False) is None
    for method in ("gptq", "awq"):
        assert quantized.obstacle(of(method, bits=4), "vllm", "bfloat16", scored=True, on_gpu=False) is None


def margin(model: Any, ids: np.ndarray) -> float:
    """The best logit behind some tokens less the second, as a share of the best less the median."""
    with torch.inference_mode():
        logits = model(torch.tensor([ids.tolist()])).logits[0, -1]
    best, second = logits.topk(2).values
    return float((best - second) / (best - logits.median()))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=needs_vllm)])
def test_gptq_and_awq_match_their_weights_written_out(packed: Path, engine: str, tmp_path: Path) -> None:
    """The numbers that went into the packing, times their scales; vLLM, in float16, but for near ties.

    Each difference must lie at one. The engine check alone would not see that both sides unpack wrongly.
    """
    model = AutoModelForCausalLM.from_pretrained(packed / "base", dtype=torch.float32)
    for name, module in model.named_modules():
        if name.endswith("proj"):
            numbers, scales = quantized_toys.rounded(module.weight.detach(), 32)
            groups = (numbers - 8).float().unflatten(0, (-1, 32)) * scales.float()[:, None]
            module.weight.data = groups.flatten(0, 1).t().contiguous()
        elif isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            module.weight.data = module.weight.detach().half().float()
    model.save_pretrained(tmp_path / "by-hand")
    for name in ("base", "gptq", "awq"):
        shutil.copytree(packed / name, tmp_path / name)
    dtype = "float32" if engine == "transformers" else "float16"
    students = [{"name": name, "path": f"./{name}", "dtype": dtype} for name in ("gptq", "awq")]
    by_hand = AutoModelForCausalLM.from_pretrained(tmp_path / "by-hand").eval()
    write_audit(tmp_path, students, {"by hand": by_hand})
    done = toys.kdaudit(
        *("run", "audit.yaml", "--out", "run", "--set", f"extraction.engine={engine}"), cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    examples = pq.read_table(tmp_path / "run" / "examples" / "part-00000.parquet")
    ids = np.stack(examples["token_ids"].to_numpy())
    np.savez(tmp_path / "in.npz", prefixes=ids[:, : toys.PREFIX], suffixes=ids[:, toys.PREFIX :])
    greedy.main(str(tmp_path / "in.npz"), str(tmp_path / "by-hand"), str(tmp_path / "out.npz"))
    oracle = np.load(tmp_path / "out.npz")["matched"]
    for name in ("gptq", "awq"):
        check = results["models"][name]["engine_check"]
        assert check["disagreeing"] == 0
        assert check["tolerance"] < 0.02
        found = matched(tmp_path / "run", name)
        different = np.flatnonzero(found != oracle)
        assert len(different) <= (0 if engine == "transformers" else len(oracle) // 6)
        for row in different:
            end = toys.PREFIX + min(found[row], oracle[row])
            assert margin(by_hand, ids[row, :end]) <= check["tolerance"], (name, row)
