"""What is fingerprinted is what both engines load; what would be loaded otherwise is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import needs_vllm
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import VOCABULARY, save_model, tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from kdaudit.config.models import ModelConfig
from kdaudit.errors import ModelError
from kdaudit.inference import EngineOptions, Ragged, start
from kdaudit.inference.transformers import load_model
from kdaudit.models.resolving import ResolvedModel, copy_warnings, resolve_model

KEY = "models.teacher"
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    save_model(folder, 1)
    return folder


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("other") / "model"
    save_model(folder, 2)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def resolve(folder: Path, **more: Any) -> ResolvedModel:
    return resolve_model(ModelConfig(path=str(folder), **more), KEY)


def refused(folder: Path, **more: Any) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder, **more)
    told = str(caught.value)
    assert told.startswith(f"{KEY}.path: {folder}")
    assert "\n" not in told
    return told


def describe(folder: Path, **more: Any) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, **more}))


def split(folder: Path, shards: int = 2) -> dict[str, str]:
    """The model's weights in several files and an index, as save_pretrained writes them; the index."""
    tensors = load_file(folder / WHOLE)
    (folder / WHOLE).unlink()
    files: dict[str, str] = {}
    for number in range(shards):
        name = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / name, metadata={"format": "pt"})
        files |= dict.fromkeys(part, name)
    write_index(folder, files)
    return files


def write_index(folder: Path, files: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))


def change(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Put tensors into model.safetensors, `__` in a name for a dot; None takes one out."""
    there = load_file(folder / WHOLE)
    for name, tensor in tensors.items():
        there.pop(name.replace("__", "."), None)
        if tensor is not None:
            there[name.replace("__", ".")] = tensor
    save_file(there, folder / WHOLE, metadata={"format": "pt"})


# Which files


STRAYS = [
    "model_ema.safetensors",
    "model.fp16.safetensors",
    "step-100.safetensors",
    "optimizer.safetensors",
    "consolidated.safetensors",
    "model-00002-of-00002.safetensors",
    "aaa.safetensors",
]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("name", STRAYS)
def test_further_weights_are_refused_by_name(folder: Path, other: Path, name: str, sharded: bool) -> None:
    if sharded:
        split(folder, 1 if "-of-" in name else 2)
    shutil.copy(other / WHOLE, folder / name)
    told = refused(folder)
    assert f"{folder / name} lies beside the model's weights" in told
    assert "move it out of the folder" in told


def test_further_weights_that_are_links_or_broken_are_refused(folder: Path, other: Path) -> None:
    stray = folder / "best.safetensors"
    stray.symlink_to(other / WHOLE)
    assert f"{stray} lies beside" in refused(folder)
    stray.unlink()
    stray.write_bytes(b"")
    assert f"{stray} lies beside" in refused(folder)
    stray.unlink()
    stray.mkdir()
    assert f"{stray} lies beside" in refused(folder)
    stray.rmdir()
    stray.symlink_to(other / "gone")
    assert f"{stray} is a link to {other / 'gone'}, which does not exist" in refused(folder)


def test_what_no_engine_looks_at_is_harmless(folder: Path, other: Path) -> None:
    before = resolve(folder).fingerprint
    for name in ("checkpoint-5", "original", "onnx"):
        shutil.copytree(other, folder / name)
    shutil.copy(other / WHOLE, folder / "._model.safetensors")
    shutil.copy(other / WHOLE, folder / "model.safetensors.bak")
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "consolidated.safetensors.index.json").write_text('{"weight_map": {"a": "b"}}')
    assert resolve(folder).fingerprint == before
    assert resolve(folder).weights.files == (folder / WHOLE,)


def mistral_copy(folder: Path, other: Path) -> None:
    """Mistral's own form beside shards, as its hub repositories have it; here with other weights."""
    names = {"model.embed_tokens": "tok_embeddings", "lm_head": "output", "model.": ""}
    copied = {}
    for name, tensor in load_file(other / WHOLE).items():
        for old, new in names.items():
            name = name.replace(old, new)
        copied[name] = tensor
    save_file(copied, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(
        '{"dim": 64, "n_layers": 1, "head_dim": 32, "hidden_dim": 128, "n_heads": 2, "n_kv_heads": 2, '
        '"norm_eps": 1e-5, "vocab_size": 300}'
    )


def test_mistrals_own_form_beside_an_index_is_harmless(folder: Path, other: Path) -> None:
    split(folder)
    before = resolve(folder).fingerprint
    mistral_copy(folder, other)
    assert resolve(folder).fingerprint == before


def test_weights_in_other_files_alone_are_named(folder: Path) -> None:
    (folder / WHOLE).rename(folder / "consolidated.safetensors")
    assert (
        "holds no model.safetensors, and no model.safetensors.index.json that names consolidated"
        in refused(folder)
    )
    for name, says in {
        "a.gguf": "only weights in GGUF form (a.gguf)",
        "tf_model.h5": "TensorFlow form",
    }.items():
        (folder / "consolidated.safetensors").unlink(missing_ok=True)
        (folder / name).write_bytes(b"GGUF")
        assert says in refused(folder)
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("change_index", "says"),
    [
        (lambda files: {**files, "lm_head.weight": "model-00003-of-00003.safetensors"}, "lacks model-00003"),
        (lambda files: {**files, "extra.weight": "model-00001-of-00002.safetensors"}, "no shard holds it"),
        (lambda files: dict(list(files.items())[1:]), "does not name; index and shards are of different"),
        (lambda files: dict(zip(files, reversed(files.values()), strict=True)), "it lies in model-00001-of"),
        (lambda files: {**files, "lm_head.weight": "config.json"}, "config.json, which is not a safetensors"),
        (lambda files: {**files, "lm_head.weight": "../model/a.safetensors"}, "lacks ../model/a.safetensors"),
        (lambda files: {**files, "lm_head.weight": None}, "lacks None"),
    ],
)
def test_index_and_shards_of_different_saves_are_refused(folder: Path, change_index: Any, says: str) -> None:
    files = split(folder)
    resolve(folder)
    write_index(folder, change_index(files))
    assert says in refused(folder)


def test_tensor_in_two_shards_is_refused(folder: Path) -> None:
    files = split(folder)
    shard = folder / "model-00001-of-00002.safetensors"
    own = load_file(shard)
    name = next(name for name, file in files.items() if file != shard.name)
    save_file({**own, name: torch.zeros(300, 64)}, shard)
    assert f"holds the tensor {name} twice, in {shard.name} and in model-00002-of-00002" in refused(folder)


def test_snapshot_of_links_into_blobs_is_taken(folder: Path, tmp_path: Path) -> None:
    split(folder)
    before = resolve(folder)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / f"{number}")
        path.symlink_to(f"../blobs/{number}")
    assert resolve(folder).fingerprint == before.fingerprint
    load_model(folder, "auto", "cpu", False)
    target = (folder / "model-00002-of-00002.safetensors").readlink()
    (folder / target).unlink()
    assert f"model-00002-of-00002.safetensors is a link to {target}, which does not exist" in refused(folder)


def test_hub_downloads_name_the_weights_that_the_index_names(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def download(repo_id: str, **options: Any) -> str:
        asked.append(options)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    split(folder)
    resolve_model(ModelConfig(path="org/name"), KEY)
    weights = [name for name in asked[-1]["allow_patterns"] if name.endswith(".safetensors")]
    assert weights == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert asked[0]["allow_patterns"] == [INDEX, "adapter_config.json"]


# Which tensors


def test_weights_that_config_json_does_not_describe_are_refused(folder: Path) -> None:
    change(folder, model__norm__weight=None)
    assert "its weights lack 1 that its config.json asks for, such as model.norm.weight" in refused(folder)
    change(folder, model__norm__weight=torch.ones(65))
    assert "model.norm.weight has the shape (65,) in its weights and (64,) by its config.json" in refused(
        folder
    )
    change(folder, model__norm__weight=torch.ones(64))
    describe(folder, num_hidden_layers=3)
    assert "its weights lack 18 that" in refused(folder)


def test_tensors_that_no_engine_loads_are_told(folder: Path) -> None:
    assert resolve(folder).warning is None
    change(folder, model__layers__1__mlp__up_proj__weight=torch.ones(128, 64))
    warning = resolve(folder).warning
    assert warning is not None
    assert (
        "1 tensor(s) that its config.json has no place for, such as model.layers.1.mlp.up_proj.w" in warning
    )
    change(folder, model__layers__1__mlp__up_proj__weight=None, model__rotary_emb__inv_freq=torch.ones(16))
    assert resolve(folder).warning is None


def neox(tie: bool) -> Any:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
                      num_attention_heads=2, max_position_embeddings=64, tie_word_embeddings=tie)
    )  # fmt: skip


def gpt2(tie: bool) -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=1, n_head=2, n_positions=64,
                   tie_word_embeddings=tie)
    )  # fmt: skip


def opt(tie: bool) -> Any:
    return OPTForCausalLM(
        OPTConfig(vocab_size=VOCABULARY, hidden_size=64, ffn_dim=64, num_hidden_layers=1,
                  num_attention_heads=2, max_position_embeddings=64, word_embed_proj_dim=64,
                  tie_word_embeddings=tie)
    )  # fmt: skip


def gemma3(tie: bool) -> Any:
    text = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
            "tie_word_embeddings": tie}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    return Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, tie_word_embeddings=tie)
    )


HEADS = {"gpt_neox": (neox, "embed_out.weight"), "gpt2": (gpt2, "lm_head.weight"),
         "opt": (opt, "lm_head.weight"), "gemma3": (gemma3, "lm_head.weight")}  # fmt: skip


def claim_tied(folder: Path, nested: bool = False) -> None:
    described = json.loads((folder / "config.json").read_text())
    (described["text_config"] if nested else described)["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(described))


@pytest.mark.parametrize("family", HEADS)
def test_head_that_differs_from_embeddings_it_is_tied_to_is_refused(family: str, tmp_path: Path) -> None:
    make, head = HEADS[family]
    torch.manual_seed(0)
    make(False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    resolve(tmp_path)
    claim_tied(tmp_path)
    told = refused(tmp_path)
    assert "says that output layer and embeddings are one (tie_word_embeddings)" in told
    assert head in told
    tensors = load_file(tmp_path / WHOLE)
    embeddings = next(
        name for name in tensors if name.endswith(("wte.weight", "embed_in.weight", "tokens.weight"))
    )
    save_file({**tensors, head: tensors[embeddings].clone()}, tmp_path / WHOLE, metadata={"format": "pt"})
    resolve(tmp_path)


@pytest.mark.parametrize("family", HEADS)
def test_tied_families_are_taken(family: str, tmp_path: Path) -> None:
    HEADS[family][0](True).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    assert resolve(tmp_path).warning is None


def test_nested_claim_counts_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gemma3(False).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    claim_tied(tmp_path, nested=True)
    assert "tie_word_embeddings" in refused(tmp_path)


def test_tied_head_is_compared_across_shards_and_dtypes(folder: Path) -> None:
    describe(folder, tie_word_embeddings=True)
    assert "weights hold a lm_head.weight that differs from model.embed_tokens.weight" in refused(folder)
    embeddings = load_file(folder / WHOLE)["model.embed_tokens.weight"]
    coarse = embeddings.to(torch.bfloat16)
    change(folder, model__embed_tokens__weight=coarse.float(), lm_head__weight=coarse)
    resolve(folder)  # equal numbers in another dtype
    change(folder, model__embed_tokens__weight=embeddings, lm_head__weight=coarse)
    assert "differs" in refused(folder)
    one_bit = embeddings.clone()
    one_bit[-1, -1] *= 1.001
    change(folder, lm_head__weight=one_bit)
    split(folder)
    assert "differs" in refused(folder)


def test_old_names_and_buffers_of_gpt2_are_taken(tmp_path: Path) -> None:
    """The first checkpoints have neither `transformer.` nor a head, and hold their causal masks."""
    gpt2(True).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    before = {name.removeprefix("transformer."): part for name, part in load_file(tmp_path / WHOLE).items()}
    masks = {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    save_file({**before, **masks}, tmp_path / WHOLE)
    assert resolve(tmp_path).warning is None


# Quantized models and adapters


def i32(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int32)


UP = "model__layers__0__mlp__up_proj__"
QUANTIZED: dict[str, dict[str, torch.Tensor | None]] = {
    "qweight": {UP + "weight": None, UP + "qweight": i32(8, 128), UP + "scales": torch.ones(1, 128)},
    "qzeros": {UP + "qzeros": i32(1, 16)},
    "g_idx": {UP + "g_idx": i32(64)},
    "F8_E4M3": {UP + "weight": torch.zeros(128, 64, dtype=torch.float8_e4m3fn)},
    "F8_E5M2": {UP + "weight": torch.zeros(128, 64, dtype=torch.float8_e5m2)},
    "I8": {UP + "weight": torch.zeros(128, 64, dtype=torch.int8)},
    "U8": {UP + "weight": torch.zeros(4096, 1, dtype=torch.uint8)},
    "absmax": {UP + "weight__absmax": torch.ones(64)},
    "quant_map": {UP + "weight__quant_map": torch.ones(16)},
    "quant_state": {UP + "weight__quant_state__bitsandbytes__nf4": torch.zeros(80, dtype=torch.uint8)},
    "SCB": {UP + "SCB": torch.ones(128)},
    "weight_packed": {UP + "weight": None, UP + "weight_packed": i32(128, 8)},
    "weight_scale": {UP + "weight_scale": torch.ones(128)},
    "weight_scale_inv": {UP + "weight_scale_inv": torch.ones(1, 1)},
    "U32": {UP + "weight": torch.zeros(128, 8, dtype=torch.uint32), UP + "scales": torch.ones(128, 1)},
    "biases": {UP + "scales": torch.ones(128, 1), UP + "biases": torch.ones(128, 1)},
}  # fmt: skip


@pytest.mark.parametrize("kind", QUANTIZED)
def test_quantized_tensors_are_recognized(folder: Path, kind: str) -> None:
    change(folder, **QUANTIZED[kind])
    told = refused(folder)
    assert "is quantized (the tensor model.layers.0.mlp.up_proj" in told
    assert "which is not supported; name the model before quantization" in told


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_files_of_quantizers_are_recognized(folder: Path, name: str) -> None:
    (folder / name).write_text('{"bits": 4, "w_bit": 4}')
    said = refused(folder)
    assert f"is quantized ({name}, of " in said
    assert ("into config.json as quantization_config" in said) is (name != "hf_quant_config.json")


@pytest.mark.parametrize(
    "more",
    [
        {"compression_config": {"format": "pack-quantized"}},
        {"quantization": {"group_size": 64, "bits": 4}},
        {"text_config": {"quantization_config": {"quant_method": "awq"}}},
        {"quantization_config": {"quant_method": "hqq"}},
        {"quantization_config": 4},
    ],
)
def test_quantization_that_config_json_tells_otherwise_is_recognized(
    folder: Path, more: dict[str, Any]
) -> None:
    describe(folder, **more)
    assert "is quantized (" in refused(folder)


def test_integer_buffers_are_not_quantized_weights(folder: Path) -> None:
    masks = {"model__mask__bias": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)}
    change(folder, **masks, model__position_ids=torch.arange(8))
    resolve(folder)


@pytest.mark.parametrize(
    "name",
    ["adapter_model.safetensors", "adapter_model.bin", "adapters.safetensors", "adapters.npz"],
)
def test_adapters_are_recognized_by_any_of_their_files(folder: Path, name: str) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    (folder / name).write_text("{}")
    assert f"holds an adapter ({name}); save it with PEFT, which writes adapter_config.json" in refused(
        folder
    )


def test_an_adapter_in_a_folder_of_its_own_is_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "default").mkdir()
    (folder / "default" / "adapter_config.json").write_text("{}")
    assert f"(default/adapter_config.json); name that folder: {folder / 'default'}" in refused(folder)


@pytest.mark.parametrize(
    "name", ["model__layers__0__self_attn__q_proj__lora_A__weight", "base_model__model__lm_head__weight",
             UP + "base_layer__weight"]
)  # fmt: skip
def test_unmerged_adapters_are_recognized_by_their_tensors(folder: Path, name: str) -> None:
    change(folder, **{name: torch.ones(4, 64)})
    assert f"holds an adapter (the tensor {name.replace('__', '.')})" in refused(folder)


# What config.json steers


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"transformers_weights": "other.safetensors"}, "transformers_weights makes transformers load"),
        ({"text_config": {"transformers_weights": "a.safetensors"}}, "transformers_weights makes"),
        ({"configuration_files": ["config.4.0.0.json"]}, "configuration_files makes transformers read"),
        ({"speculators_config": {"verifier": {"name_or_path": "a/b"}}}, "speculators_config makes vLLM"),
        ({"architectures": ["Qwen2ForCausalLM"]}, "model_type 'llama' is LlamaForCausalLM"),
        ({"architectures": "LlamaForCausalLM"}, "architectures in its config.json is not a list"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1,000,000,000, more than"),
        ({"num_labels": 10**10}, "num_labels is 10,000,000,000, more than"),
    ],
)  # fmt: skip
def test_keys_that_load_something_else_are_refused(folder: Path, more: dict[str, Any], says: str) -> None:
    describe(folder, **more)
    assert says in refused(folder)


def test_wide_models_are_not_taken_for_deep_ones(tmp_path: Path) -> None:
    # As StarCoder (n_inner 24,576) and Cerebras-GPT-13B (20,480) are.
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "n_inner": 24_576, "n_positions": 32_768}
    GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    resolve(tmp_path)


def test_trusted_code_of_another_repository_is_refused(folder: Path) -> None:
    describe(folder, auto_map={"AutoModelForCausalLM": "some/repo--modeling.Own"})
    assert "auto_map takes code from another repository (some/repo--modeling.Own)" in refused(
        folder, trust_remote_code=True
    )
    resolve(folder)


OBEYED_NOT = [
    {"_attn_implementation": "flash_attention_2"},
    {"attn_implementation": "someone/kernel"},
    {"_experts_implementation": "none", "experts_implementation": "none"},
    {"return_dict": False},
    {"output_attentions": True, "output_hidden_states": True},
    {"use_cache": False},
    {"fusion_config": {"patch_embeddings": True}},
    {"gradient_checkpointing": True},
    {"dtype": "float32", "torch_dtype": "float16"},
    {"temperature": 9.0, "do_sample": True, "repetition_penalty": 9.0},
    {"name_or_path": "someone/else", "_name_or_path": "someone/else"},
    {"auto_map": {"AutoModelForCausalLM": "modeling.Own"}},
]


@pytest.mark.parametrize("more", OBEYED_NOT, ids=lambda more: next(iter(more)))
def test_keys_of_loading_change_nothing(folder: Path, more: dict[str, Any]) -> None:
    ids = torch.arange(2, 34).reshape(2, 16)
    before = load_model(folder, "auto", "cpu", False)(ids).logits
    describe(folder, **more)
    resolve(folder)
    model = load_model(folder, "auto", "cpu", False)
    assert torch.equal(model(ids).logits, before)
    assert model(ids).past_key_values is not None


def test_broken_logits_are_an_error_not_a_rate_of_zero(folder: Path) -> None:
    change(folder, model__norm__weight=torch.full((64,), torch.nan))
    rows = Ragged.of(np.full((2, 4), 5))
    with (
        start(EngineOptions("transformers", str(folder), 8)) as engine,
        pytest.raises(Exception, match="NaN or infinite logits"),
    ):
        engine.match(rows, rows)


# vLLM loads the same


def continued(path: Path, engine: Any) -> np.ndarray:
    prefixes = np.random.default_rng(0).integers(2, VOCABULARY, (4, 6)).astype(np.int32)
    with start(EngineOptions(engine, str(path), 16, "float32")) as loaded:
        return loaded.generate(Ragged.of(prefixes), 8).matrix()


@needs_vllm
@pytest.mark.slow
def test_vllm_reads_neither_mistrals_form_nor_the_folder_that_a_name_matches(
    folder: Path, other: Path, tmp_path: Path
) -> None:
    """`model[1]` is a pattern that fits `model1`, and beside params.json vLLM prefers Mistral's own form."""
    expected = continued(folder, "transformers")
    split(folder)
    mistral_copy(folder, other)
    odd = folder.rename(tmp_path / "model[1]")
    shutil.copytree(other, tmp_path / "model1")
    assert resolve(odd).fingerprint
    assert (continued(odd, "transformers") == expected).all()
    assert (continued(odd, "vllm") == expected).all()


# Copies


def test_copies_are_told_whatever_their_files_are_called(folder: Path, other: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    split(copy, 3)
    describe(copy, rms_norm_eps=1e-5)
    models = {"teacher": resolve(folder), "baseline": resolve(other), "soft": resolve(copy)}
    (warning,) = copy_warnings(models)
    assert warning.startswith(
        f"teacher and soft have the same weights, tensor for tensor ({folder} and {copy})"
    )
    assert len(copy_warnings({"a": models["teacher"], "b": models["teacher"]})) == 1
    change(folder, model__norm__weight=torch.full((64,), 1.001))
    assert copy_warnings({**models, "teacher": resolve(folder)}) == []


def test_an_audit_warns_of_a_copy(folder: Path, other: Path) -> None:
    from kdaudit.config.models import ModelSet
    from kdaudit.models.finding import find_models

    student = {"name": "soft", "path": str(other), "kd": "soft"}
    models = find_models(ModelSet(teacher=str(folder), baseline=str(other), students=[student]))  # type: ignore[arg-type]
    assert any(warning.startswith("baseline and soft have the same weights") for warning in models.warnings)


# Files that are none


SPECIAL = [
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "model.safetensors", INDEX,
    "ema.safetensors", "adapter_config.json", "quantize_config.json", "params.json", "merges.txt",
    "tokenizer.model", "additional_chat_templates/rag.jinja",
]  # fmt: skip


@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.parametrize("kind", ["FIFO", "/dev/zero", "socket"])
def test_only_regular_files_are_opened(folder: Path, name: str, kind: str, tmp_path: Path) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(tmp_path / "s"))
        path.symlink_to(tmp_path / "s")
    else:
        path.symlink_to(kind)
    word = {"FIFO": "a FIFO", "/dev/zero": "a device", "socket": "a socket"}[kind]
    assert f"{path} is not a regular file but {word}, and is not opened" in refused(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", INDEX]
)
def test_sizes_are_bounded(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as handle:
        handle.truncate(1 << 40)
    assert f"{folder / name} holds 1,099,511,627,776 bytes, and such a file at most" in refused(folder)


def test_header_of_weights_is_bounded(folder: Path) -> None:
    (folder / WHOLE).write_bytes((1 << 33).to_bytes(8, "little"))
    os.truncate(folder / WHOLE, 1 << 34)
    assert "a header of 8,589,934,592 bytes" in refused(folder)


def test_links_that_go_nowhere_are_named(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("config.json")
    assert f"{folder / 'config.json'} cannot be opened (Too many levels of symbolic links)" in refused(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "generation_config.json cannot be read"),
        ("[1]", "generation_config.json is not a JSON object"),
        (
            '{"early_stopping": 5}',
            "generation_config.json cannot be used (`early_stopping` must be a boolean",
        ),
        ('{"watermarking_config": {"a": 1}}', "correct it, or remove it: an audit uses nothing of it"),
    ],
)
def test_generation_settings_that_no_engine_reads_are_refused(folder: Path, content: str, says: str) -> None:
    (folder / "generation_config.json").write_text(content)
    assert says in refused(folder)


def test_headers_are_read_as_safetensors_reads_them(folder: Path) -> None:
    found = resolve(folder).weights.tensors
    with safe_open(folder / WHOLE, "pt") as handle:
        assert found.keys() == {*handle.keys()}
        for name, tensor in found.items():
            data = (folder / WHOLE).read_bytes()[tensor.start : tensor.stop]
            assert data == handle.get_tensor(name).numpy().tobytes()
            assert list(tensor.shape) == handle.get_slice(name).get_shape()
