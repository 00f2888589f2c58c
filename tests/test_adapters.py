"""LoRA adapters: audited as what they and their base model say together, and refused where that is unknown.

The oracle merges by hand, without PEFT (`tests/oracles/lora.py`), and decodes with plain transformers.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from conftest import needs_vllm
from oracles import greedy
from oracles.lora import merge_by_hand
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.extraction import ExtractionConfig
from kdaudit.config.models import ModelConfig, ModelsConfig
from kdaudit.corpus.rendering import Template
from kdaudit.errors import EngineError, ModelError
from kdaudit.inference.merging import MergeFiles, _check_same, merge
from kdaudit.inference.transformers import load_model
from kdaudit.models.audited import AuditedModel
from kdaudit.models.audited_notes import adapter_notes
from kdaudit.models.finding import find_models
from kdaudit.models.resolving import read_tokenizer, resolve_model
from kdaudit.pipelines.stages.fit import chat_of

peft = pytest.importorskip("peft", reason="peft is not installed (kdaudit[lora])")

KEY = "models.students.0"
_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def save_adapter(base: Path, folder: Path, seed: int = 0, rows: int | None = None, **settings: Any) -> None:
    """An adapter with random weights, as large as the base's own."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if rows is not None:
        model.resize_token_embeddings(rows)
    chosen = {"r": 8, "lora_alpha": 16, "target_modules": _LINEAR, "task_type": "CAUSAL_LM", **settings}
    adapted = peft.get_peft_model(model, peft.LoraConfig(**chosen))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "base_layer" not in name:
                weight.copy_(torch.randn(weight.shape) * (0.15 if "lora_" in name else 0.3))
    adapted.save_pretrained(folder, save_embedding_layers=rows is not None)


_KINDS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8},
    "wide": {"r": 64, "lora_alpha": 64, "use_rslora": True},
    "head": {"r": 8, "modules_to_save": ["lm_head"]},
}


class Family(NamedTuple):
    folder: Path
    """audit.yaml, corpus, base and adapters; the base is the baseline."""
    merged: dict[str, Path]
    """Each adapter, merged by hand."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Adapters of three kinds, and a corpus of what each says, half of it with one token changed."""
    folder = tmp_path_factory.mktemp("adapters")
    toys.save_model(folder / "base", 1)
    random, windows, merged = np.random.default_rng(3), [], {}
    for seed, (name, settings) in enumerate(_KINDS.items()):
        save_adapter(folder / "base", folder / name, seed, **settings)
        merged[name] = folder / f"{name}-by-hand"
        merge_by_hand(folder / "base", folder / name, merged[name])
        model = AutoModelForCausalLM.from_pretrained(merged[name]).eval()
        for row in range(16):
            ids = toys.memorized_window(model, random)
            if row % 2:
                ids[-random.integers(1, toys.SUFFIX + 1)] = 2
            windows.append(ids)
    toys.write_corpus(folder / "corpus.jsonl", windows)
    students = [{"name": name, "path": f"./{name}"} for name in _KINDS]
    config = {
        "name": "adapters",
        "corpus": {"path": "./corpus.jsonl", "window": toys.PREFIX + toys.SUFFIX},
        "models": {"teacher": "./plain-by-hand", "baseline": "./base", "students": students},
        "extraction": {"prefix_tokens": toys.PREFIX, "suffix_tokens": toys.SUFFIX, "engine": "transformers"},
        "predictor": {"enabled": False},
    }
    toys.tokenizer().save_pretrained(folder / "plain-by-hand")
    with (folder / "audit.yaml").open("w") as file:
        YAML().dump(config, file)
    return Family(folder, merged)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=needs_vllm)])
def test_an_adapter_matches_what_hand_merged_weights_match(
    family: Family, engine: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = toys.kdaudit(
        *("run", "audit.yaml", "--out", out, "--set", f"extraction.engine={engine}"), cwd=family.folder
    )
    assert done.returncode == 0, done.stderr
    examples = pq.read_table(out / "examples" / "part-00000.parquet")
    ids = np.stack(examples["token_ids"].to_numpy())
    source, target = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, prefixes=ids[:, : toys.PREFIX], suffixes=ids[:, toys.PREFIX :])
    for name, folder in family.merged.items():
        greedy.main(str(source), str(folder), str(target))
        oracle = np.load(target)["matched"]
        found = pq.read_table(out / "extraction" / name / "part-00000.parquet")["matched_tokens"].to_numpy()
        assert np.array_equal(found, oracle), name
        assert (oracle == toys.SUFFIX).sum() >= 8
        assert ((oracle > 0) & (oracle < toys.SUFFIX)).any()
    results = json.loads((out / "results.json").read_text())
    assert all(results["models"][name]["engine_check"]["disagreeing"] == 0 for name in _KINDS)
    notes = {note["subject"]: note["text"] for note in results["notes"] if note["code"] == "adapter"}
    assert notes["wide"].startswith(
        "wide is an adapter (LoRA, rank 64, rank-stabilized), measured merged into"
    )
    (base,) = (note["text"] for note in results["notes"] if note["code"] == "no_base")
    assert base.endswith("Of plain, wide, head it is the base model of the adapter.")
    assert not list(out.rglob("*.safetensors"))


def resolve(folder: Path, **config: Any) -> Any:
    return resolve_model(ModelConfig(path=str(folder), **config), KEY)


def refused(folder: Path, **config: Any) -> str:
    with pytest.raises(ModelError) as caught:
        resolve(folder, **config)
    assert caught.value.key is not None
    assert caught.value.key.startswith(KEY)
    return str(caught.value)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    toys.save_model(folder, 1)
    return folder


@pytest.fixture(scope="module")
def saved(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    save_adapter(base, folder)
    return folder


@pytest.fixture
def adapter(saved: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(saved, tmp_path / "adapter"))


def change(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def test_a_fingerprint_is_over_base_and_adapter(adapter: Path, base: Path, tmp_path: Path) -> None:
    first = resolve(adapter).fingerprint
    assert resolve(adapter, base={"path": str(base)}).fingerprint == first
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(iter(tensors))
    save_file({**tensors, name: tensors[name] + 1}, adapter / "adapter_model.safetensors")
    second = resolve(adapter).fingerprint
    other = tmp_path / "other"
    toys.save_model(other, 2)
    assert len({first, second, resolve(adapter, base={"path": str(other)}).fingerprint}) == 3


def test_a_relative_base_is_taken_from_the_adapters_folder(adapter: Path, base: Path) -> None:
    shutil.copytree(base, adapter.parent / "beside")
    change(adapter, base_model_name_or_path="../beside")
    assert resolve(adapter).folder == adapter.parent / "beside"


def test_a_note_tells_of_another_base_than_the_adapter_names(adapter: Path, base: Path) -> None:
    """A base of the same shapes fits, and may be another model."""
    given = {"path": str(base)}
    for named, said in (("org/other", " Its adapter_config.json names 'org/other'."), (str(base), "")):
        change(adapter, base_model_name_or_path=named)
        config = ModelConfig(path=str(adapter), base=given)
        member = AuditedModel("own", "student", None, KEY, config, resolve(adapter, base=given), None)
        (note,) = adapter_notes([member])
        assert note.text.endswith(
            f"measured merged into {base}, the base model that the configuration names.{said}"
        )


def test_an_adapters_own_tokenizer_comes_first(adapter: Path, base: Path) -> None:
    assert resolve(adapter).tokenizer_folder == base
    toys.tokenizer().save_pretrained(adapter)
    assert resolve(adapter).tokenizer_folder == adapter


@pytest.mark.parametrize("form", ["file", "settings"])
def test_an_adapters_chat_template_comes_before_that_of_its_base(
    adapter: Path, base: Path, form: str, tmp_path: Path
) -> None:
    tokenizer = toys.tokenizer()
    tokenizer.chat_template = "the base's {{ messages }}"
    template, own = "the adapter's {{ messages }}", shutil.copytree(base, tmp_path / "base")
    tokenizer.save_pretrained(own)
    if form == "file":
        (adapter / "chat_template.jinja").write_text(template)
    else:
        (adapter / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    found = read_tokenizer(resolve(adapter, base={"path": str(own)}))
    assert found.chat_template == template
    assert found.encode("w5 w6") == [5, 6]
    models = {
        "teacher": {"path": str(adapter), "base": str(own)},
        "students": [{"name": "s", "path": str(own)}],
    }
    config = CorpusConfig(path="/corpus.jsonl", messages="messages")
    chat = chat_of(config, ExtractionConfig(), find_models(ModelsConfig.model_validate(models)))
    assert chat.template == Template("chat", template)


def test_an_adapters_chat_template_that_is_no_text_is_refused(adapter: Path, base: Path) -> None:
    (adapter / "chat_template.jinja").write_bytes(b"\xff\xfe")
    assert "chat_template.jinja cannot be read" in refused(adapter)


def _pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _without_a_tensor(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors.pop(next(iter(tensors)))
    save_file(tensors, path)


def _with_a_tensor(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.score.weight": torch.ones(2, 64)}, path)


def _set(**settings: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, **settings)


_REFUSED: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "IA3": (_set(peft_type="IA3"), "of the kind 'IA3'", "merge it into its base"),
    "prefix tuning": (_set(peft_type="PREFIX_TUNING"), "of the kind 'PREFIX_TUNING'", "cannot be merged"),
    "a classifier": (_set(task_type="SEQ_CLS"), "adapter for 'SEQ_CLS'", "of a causal language model"),
    "aLoRA": (_set(alora_invocation_tokens=[5]), "alora_invocation_tokens in its", "with the PEFT that"),
    "replicated layers": (_set(layer_replication=[[0, 1]]), "layer_replication in its", "merge the adapter"),
    "a key of the future": (_set(use_zora=True), "use_zora in its", "with the PEFT that trained it"),
    "PiSSA": (
        _set(init_lora_weights="pissa_niter_4"),
        "changed base weights",
        "path_initial_model_for",
    ),
    "pickled": (_pickled, "pickled adapter (adapter_model.bin)", "model.save_pretrained(FOLDER)"),
    "no base": (_set(base_model_name_or_path=None), "names no base model", f"set {KEY}.base"),
    "a base elsewhere": (_set(base_model_name_or_path="/home/ann/base"), "is not here", f"set {KEY}.base"),
    "another rank": (_set(r=4), "has the shape (8, ", "name the model that it was trained on"),
    "a tensor less": (_without_a_tensor, "it lacks 1 tensor(s)", "name the model that it was trained on"),
    "a tensor more": (
        _with_a_tensor,
        "have no place there, such as base_model.model.score",
        "name the model",
    ),
    "other modules": (
        _set(target_modules=["query"]),
        "PEFT makes no adapter",
        "correct it, or",
    ),
}


@pytest.mark.parametrize("kind", _REFUSED)
def test_what_is_not_supported_is_refused_by_name(adapter: Path, kind: str) -> None:
    spoil, says, fix = _REFUSED[kind]
    spoil(adapter)
    said = refused(adapter)
    assert says in said
    assert fix in said


@pytest.mark.parametrize("number", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused_before_the_corpus_is_read(
    adapter: Path, base: Path, number: float, tmp_path: Path
) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = load_file(path)
    name = sorted(tensors)[3]
    tensors[name][0, 1] = number
    save_file(tensors, path)
    resolve_model(ModelConfig(path=str(adapter)), KEY, hashed=False)  # no weights are read then
    toys.write_corpus(tmp_path / "corpus.jsonl", [[*range(2, 2 + toys.PREFIX + toys.SUFFIX)]])
    sizes = {"prefix_tokens": toys.PREFIX, "suffix_tokens": toys.SUFFIX, "engine": "transformers"}
    config = {
        "name": "broken",
        "corpus": {"path": "./corpus.jsonl", "window": toys.PREFIX + toys.SUFFIX},
        "models": {"teacher": str(base), "students": [{"name": "own", "path": str(adapter)}]},
        "extraction": sizes,
    }
    with (tmp_path / "audit.yaml").open("w") as file:
        YAML().dump(config, file)
    done = toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert f"{KEY}.path: {path}: 1 of its {len(tensors)} tensors hold NaN or infinite numbers" in done.stderr
    assert f"such as {name}; copy or train the adapter again" in done.stderr
    assert not (tmp_path / "run" / "examples").exists()


def test_a_base_model_that_is_not_finite_is_named(adapter: Path, base: Path, tmp_path: Path) -> None:
    """PEFT alone says that the adapter seems to be broken."""
    own = Path(shutil.copytree(base, tmp_path / "base"))
    tensors = load_file(own / "model.safetensors")
    tensors["model.layers.0.self_attn.q_proj.weight"][0, 0] = torch.nan
    save_file(tensors, own / "model.safetensors", {"format": "pt"})
    (tmp_path / "merged").mkdir()
    says = re.escape(f"its base model {own} holds NaN or infinite numbers in model.layers.0.self_attn.q_proj")
    with pytest.raises(EngineError, match=rf"{says}\S*; copy or train that model again"):
        merge(MergeFiles(own, adapter, None, "float32"), tmp_path / "merged")


def test_an_adapter_that_overflows_when_merged_is_named(adapter: Path, base: Path, tmp_path: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    save_file({name: tensor * 1e30 for name, tensor in load_file(path).items()}, path)
    (tmp_path / "merged").mkdir()
    with pytest.raises(EngineError, match=r"(?s)PEFT does not merge it .*; train the adapter again"):
        merge(MergeFiles(base, adapter, None, "float32"), tmp_path / "merged")


def test_an_adapter_of_another_width_is_refused(adapter: Path, tmp_path: Path) -> None:
    toys.save_model(tmp_path / "wide", 1, width=96)
    assert "does not fit its base model" in refused(adapter, base={"path": str(tmp_path / "wide")})


def test_a_base_of_a_whole_model_is_refused(base: Path) -> None:
    assert "only an adapter has a base" in refused(base, base={"path": str(base)})


def test_an_adapter_of_an_adapter_is_refused(adapter: Path, saved: Path) -> None:
    assert "is an adapter itself" in refused(adapter, base={"path": str(saved)})


def test_code_of_its_own_is_refused(adapter: Path) -> None:
    assert "trust_remote_code" in refused(adapter, trust_remote_code=True)


def test_without_peft_the_remedy_is_named(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdaudit.models.checkpoint.adapter_fit.find_spec", lambda _: None)
    assert "run pip install 'kdaudit[lora]'" in refused(adapter)


def test_what_lies_on_the_hub_is_fetched_and_pinned(
    adapter: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapter and base come from the hub, each at a commit, and nothing else is asked for."""
    change(adapter, base_model_name_or_path="org/base", revision="v2")
    places = {"org/adapter": tmp_path / ("a" * 40), "org/base": tmp_path / ("b" * 40)}
    shutil.copytree(adapter, places["org/adapter"])
    shutil.copytree(base, places["org/base"])
    asked: list[tuple[str, Any, list[str]]] = []

    def download(repo_id: str, revision: str | None, allow_patterns: list[str], **_: Any) -> str:
        asked.append((repo_id, revision, allow_patterns))
        return str(places[repo_id])

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = resolve_model(ModelConfig(path="org/adapter", revision="v1"), KEY)
    assert (found.commit, found.adapted.base.path, found.adapted.base.revision) == (
        "a" * 40,
        "org/base",
        "b" * 40,
    )
    assert [one[:2] for one in asked] == [
        ("org/adapter", "v1"),
        ("org/adapter", "a" * 40),
        ("org/base", "v2"),
        ("org/base", "b" * 40),
    ]
    assert all("chat_template.jinja" in asked[row][2] for row in (1, 3))
    assert "adapter_model.safetensors" in asked[1][2]
    assert "adapter_model.safetensors" not in asked[3][2]


def save_tied(folder: Path) -> None:
    """A base whose output layer is its embeddings."""
    torch.manual_seed(4)
    config = LlamaConfig(
        vocab_size=toys.VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        tie_word_embeddings=True,
        attention_bias=True,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    toys.tokenizer().save_pretrained(folder)


_RARER: dict[str, dict[str, Any]] = {
    "DoRA": {"use_dora": True},
    "ranks by layer": {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"up_proj": 3}},
    "biases": {"bias": "all"},
    "biases of its own": {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]},
    "embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "output layer": {"target_modules": ["q_proj", "lm_head"]},
    "embeddings and output layer": {"target_modules": ["embed_tokens", "lm_head"]},
    "a trained head": {"modules_to_save": ["lm_head"]},
    "trained embeddings": {"modules_to_save": ["embed_tokens"]},
    "rows of tokens": {"trainable_token_indices": {"embed_tokens": [3, 4]}},
    "more tokens": {"rows": toys.VOCABULARY + 5},
}


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("kind", _RARER)
def test_a_rarer_adapter_says_merged_what_it_says_on_its_base(kind: str, tied: bool, tmp_path: Path) -> None:
    """The oracle is PEFT itself, not merged."""
    (save_tied if tied else lambda folder: toys.save_model(folder, 1))(tmp_path / "base")
    settings = dict(_RARER[kind])
    save_adapter(tmp_path / "base", tmp_path / "adapter", 7, **settings)
    if kind == "biases of its own" and not tied:  # whose layers have no bias
        assert "(lora_bias in its adapter_config.json)" in refused(tmp_path / "adapter")
        return
    found = resolve(tmp_path / "adapter")
    assert found.embedding_rows == settings.get("rows", toys.VOCABULARY)
    (tmp_path / "merged").mkdir()
    merge(MergeFiles(found.folder, tmp_path / "adapter", found.adapted.rows, "float32"), tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    if "rows" in settings:
        base.resize_token_embeddings(settings["rows"])
    adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    whole = load_model(tmp_path / "merged", "float32", "cpu", False)
    ids = torch.randint(0, toys.VOCABULARY, (4, 14), generator=torch.Generator().manual_seed(1))
    ids[0, :2] = torch.tensor([3, 4])
    with torch.inference_mode():
        wanted, said = (one(input_ids=ids).logits for one in (adapted, whole))
    assert torch.allclose(said, wanted, atol=1e-3)
    with adapted.disable_adapter(), torch.inference_mode():
        plain = adapted(input_ids=ids).logits
    assert kind == "more tokens" or not torch.allclose(plain, wanted, atol=1e-2)  # it has an effect


def test_a_merge_that_says_something_else_is_refused() -> None:
    """As an adapter does whose effect is not in the weights."""
    before = torch.tensor([[[1.0, 2.0, 3.0]]])
    _check_same(before, before + 1e-6)
    with pytest.raises(ValueError, match=r"gives other logits \(by 5\.00% of their range\)"):
        _check_same(before, before + torch.tensor([0.1, 0.0, 0.0]))
