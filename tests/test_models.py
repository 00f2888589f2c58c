"""Model folders: what is taken, what is refused and how it is said, and when two tokenizers are one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers import models as token_models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config

from kdaudit.config.models import ModelConfig
from kdaudit.config.yaml.loading import dump_yaml, load_audit
from kdaudit.corpus import pin_source
from kdaudit.errors import ModelError
from kdaudit.models.checks import _check_kind
from kdaudit.models.finding import find_models
from kdaudit.models.resolving import ResolvedModel, compare_tokenizers, resolve_model, smaller_teacher_warning
from kdaudit.models.tokenizer import Alike, bos_token_id, load_tokenizer, reading_fingerprint, uses_bos
from kdaudit.pipelines.stages.inputs import pinned, run_inputs

KEY = "models.teacher"


def backend() -> Tokenizer:
    """A byte-level BPE with a few merges, made by hand."""
    tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th", "he", "the", "then"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(token_models.BPE(vocabulary, [("t", "h"), ("h", "e"), ("th", "e"), ("the", "n")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def save_tokenizer(folder: Path, tokenizer: Tokenizer | None = None, **special: str) -> None:
    special = special or {"bos_token": "<|end|>", "eos_token": "<|end|>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer or backend(), **special).save_pretrained(folder)


def llama(layers: int = 1) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=264, hidden_size=64, intermediate_size=64, num_hidden_layers=layers, num_attention_heads=2,
        head_dim=32, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "model"
    llama().save_pretrained(folder)
    save_tokenizer(folder)
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
    assert told.startswith(f"{KEY}.")
    assert str(folder) in told
    assert "\n" not in told
    return told


def test_whole_model_is_resolved(folder: Path) -> None:
    found = resolve(folder)
    assert found.folder == folder
    # torch counts tied weights once, as the file holds them.
    assert found.parameters == sum(part.numel() for part in llama().parameters())
    assert found.fingerprint.startswith("sha256:")
    assert found.name == str(folder)


def test_fingerprint_is_of_contents_alone(folder: Path, tmp_path: Path) -> None:
    before = resolve(folder)
    moved = Path(shutil.copytree(folder, tmp_path / "other"))
    (moved / "README.md").write_text("a card")
    assert resolve(moved)[1:4] == before[1:4]
    weights = moved / "model.safetensors"
    save_file({name: part + 1 for name, part in load_file(weights).items()}, weights)
    assert resolve(moved).fingerprint != before.fingerprint
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, "rms_norm_eps": 0.5}))
    assert resolve(folder).fingerprint != before.fingerprint


def test_sharded_model_is_counted_whole_and_a_missing_shard_named(tmp_path: Path) -> None:
    model, folder = llama(layers=2), tmp_path / "sharded"
    model.save_pretrained(folder, max_shard_size="100KB")
    save_tokenizer(folder)
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert resolve(folder).parameters == sum(part.numel() for part in model.parameters())
    shards[1].unlink()
    told = refused(folder)
    assert f"lacks {shards[1].name} (1 of {len(shards)} shards" in told
    assert "copy or fetch them again" in told


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../b"}}'])
def test_bad_index_is_refused(folder: Path, content: str) -> None:
    (folder / "model.safetensors").rename(folder / "b")
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in refused(folder)


def test_two_sets_of_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model.safetensors"}}')
    assert "holds both" in refused(folder)


def test_missing_folder_names_the_nearest(folder: Path) -> None:
    assert f"does not exist; did you mean {folder}?" in refused(folder.with_name("modle"))
    assert "is a file; name the folder" in refused(folder / "config.json")


def test_revision_of_a_folder_is_refused(folder: Path) -> None:
    told = refused(folder, revision="v1")
    assert told.startswith(f"{KEY}.revision: ")
    assert "remove the revision" in told


def test_a_missing_or_damaged_config_json_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "config.json cannot be read" in refused(folder)
    (folder / "config.json").write_text("[]")
    assert "is not a JSON object" in refused(folder)
    (folder / "config.json").unlink()
    assert "holds no config.json; name a folder written by save_pretrained" in refused(folder)


@pytest.mark.parametrize("described", [True, False])
def test_adapter_beside_whole_weights_is_refused(folder: Path, described: bool) -> None:
    """transformers would load the adapter's base model from wherever it says, vLLM the weights beside it."""
    if not described:
        (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text("{}")
    said = refused(folder)
    assert "holds an adapter (adapter_config.json) beside whole weights" in said
    assert "keep each in a folder of its own" in said


def describe(folder: Path, **more: Any) -> None:
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**described, **more}))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"architectures": ["LlamaModel"]}, "is a LlamaModel (architectures in its config.json)"),
        ({"architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM"),
        ({"architectures": ["LlamaForSequenceClassification"]}, "which does not continue a prefix; name a"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            "none of its tensors is; remove quanti",
        ),
        ({"quantization_config": 4}, "is quantized (quantization_config in its config.json)"),
        ({"model_type": "llamma"}, "is of model_type 'llamma' (in its config.json), which transformers 5."),
        ({"model_type": None}, "its config.json has no model_type; save the model again"),
        ({"num_hidden_layers": "two"}, "'num_hidden_layers' expected int, got str (value: 'two')); correct"),
        ({"hidden_size": 65}, "is not a multiple of the number of attention heads (2).); correct it or save"),
    ],
)
def test_description_that_no_engine_takes_is_refused(folder: Path, more: dict[str, Any], says: str) -> None:
    describe(folder, **more)
    assert says in refused(folder)


def test_every_class_that_transformers_loads_as_a_causal_language_model_is_taken(folder: Path) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    classes = [name for names in NAMES.values() for name in ([names] if isinstance(names, str) else names)]
    assert len(classes) > 100
    for name in classes:
        _check_kind({"architectures": [name]}, ModelConfig(path=str(folder)), KEY)


def test_a_real_encoder_decoder_is_told_by_what_it_says_of_itself(folder: Path) -> None:
    T5Config().save_pretrained(folder)
    assert "is an encoder-decoder" in refused(folder)


def test_encoder_decoder_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "t5", "is_encoder_decoder": true}')
    assert "does not continue a prefix; name a causal language model" in refused(folder)


def test_pickled_weights_are_refused_and_never_opened(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no weights; it needs model.safetensors" in refused(folder)
    (folder / "pytorch_model.bin").write_bytes(b"not even a pickle")
    told = refused(folder)
    assert "only pickled weights (pytorch_model.bin)" in told
    assert "model.save_pretrained(FOLDER)" in told


@pytest.mark.parametrize("keep", [0, 4, 8, 200, -1, -4096])
def test_truncated_weights_are_named(folder: Path, keep: int) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    told = refused(folder)
    assert f"{weights} is damaged or was not copied whole" in told
    assert "copy or save it again" in told


@pytest.mark.parametrize("content", [b"\xff" * 64, b"version https://git-lfs.github.com/spec/v1\n" * 3])
def test_weights_that_are_something_else_are_named(folder: Path, content: bytes) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(content)
    assert f"{weights} is damaged" in refused(folder)


def test_too_long_weights_are_named(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert f"{weights} is damaged" in refused(folder)


def test_causal_mask_buffers_are_not_parameters(folder: Path) -> None:
    weights = folder / "model.safetensors"
    before = resolve(folder).parameters
    masks = {
        "h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "h.0.attention.bias": torch.ones(8, 8, dtype=torch.bool),
    }
    save_file({**load_file(weights), **masks, "h.0.attn.c.bias": torch.ones(8)}, weights)
    assert resolve(folder).parameters == before + 8


def test_a_missing_or_damaged_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    assert "its tokenizer cannot be loaded" in refused(folder)
    (folder / "tokenizer.json").unlink()
    told = refused(folder)
    assert "holds no tokenizer" in told
    assert "AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)" in told


def add_code(folder: Path, model_type: str) -> None:
    described = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**described, "model_type": model_type, "auto_map": auto}))
    (folder / "own.py").write_text("raise SystemExit('code of the model ran')\n")


def test_code_of_the_model_is_refused_unless_trusted(folder: Path) -> None:
    add_code(folder, "no-such-type")
    assert "needs code of its own" in refused(folder)
    assert f"{KEY}.trust_remote_code to true" in refused(folder)


def test_built_in_model_that_also_brings_code_is_taken_without_it(folder: Path) -> None:
    add_code(folder, "llama")
    assert resolve(folder).parameters > 0


def test_trusted_code_is_part_of_the_fingerprint(folder: Path) -> None:
    (folder / "own.py").write_text("A = 1\n")
    one = resolve(folder, trust_remote_code=True).fingerprint
    (folder / "own.py").write_text("A = 2\n")
    assert resolve(folder, trust_remote_code=True).fingerprint != one
    assert resolve(folder).fingerprint not in (one, "")


def http(kind: type[errors.HfHubHTTPError], status: int) -> Exception:
    request = httpx2.Request("GET", "https://huggingface.co/api/models/org/name")
    return kind(f"{status} of the hub", response=httpx2.Response(status, request=request))


HUB = {
    "not found": (http(errors.RepositoryNotFoundError, 404), "nor a model on the hub; correct it"),
    "gated": (http(errors.GatedRepoError, 403), "is gated on the hub; ask for access"),
    "revision": (http(errors.RevisionNotFoundError, 404), "has no revision v9 on the hub; correct models"),
    "offline": (errors.LocalEntryNotFoundError("no"), "the hub cannot be reached (or HF_HUB_OFFLINE is set)"),
    "bad id": (errors.HFValidationError("no"), "is neither a folder nor a hub id; write it as ./folder"),
    "server": (http(errors.HfHubHTTPError, 500), "cannot be fetched from the hub (500 of the hub); try"),
    "proxy": (httpx2.ProxyError("bad proxy"), "cannot be fetched from the hub (bad proxy); check network"),
    "disk": (OSError(28, "No space left on device"), "No space left on device); check network and disk"),
}  # fmt: skip


@pytest.mark.parametrize("case", HUB)
def test_hub_errors_say_what_to_do(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    error, says = HUB[case]

    def fail(*args: Any, **options: Any) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelError) as caught:
        resolve_model(ModelConfig(path="org/name", revision="v9"), KEY)
    assert str(caught.value).startswith("models.teacher.path: org/name ")
    assert says in str(caught.value)


def test_real_hub_client_offline_and_with_a_bad_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        resolve_model(ModelConfig(path="org/name"), KEY)
    with pytest.raises(ModelError, match="is neither a folder nor a hub id"):
        resolve_model(ModelConfig(path="models/a--b"), KEY)
    with pytest.raises(ModelError, match=f"{Path.cwd()}/models/a/b does not exist"):  # no hub id at all
        resolve_model(ModelConfig(path="models/a/b"), KEY)


def test_the_written_configuration_names_the_commits_that_were_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later push must not change what `kdaudit run config.yaml --out again` reads."""
    commits = {f"org/m{row}": f"{row}" * 40 for row in range(1, 5)}

    def download(repo_id: str, *, revision: str | None, **_: Any) -> str:
        place = tmp_path / "hub" / repo_id / "snapshots" / commits[repo_id]
        assert revision in (None, "v1", commits[repo_id])
        shutil.copytree(folder, place, dirs_exist_ok=True)
        return str(place)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr(
        "huggingface_hub.HfApi.dataset_info", lambda *_, **__: SimpleNamespace(sha="d" * 40), raising=True
    )
    local = str(folder)
    (tmp_path / "audit.yaml").write_text(
        "name: acme\ncorpus: org/texts\nmodels:\n  teacher: {path: org/m1, revision: v1}\n"
        f"  baseline: [org/m2, {local}]\n"
        f"  students: [{{name: a, path: {local}}}, {{name: b, path: org/m4}}]\n"
    )
    config = load_audit(tmp_path / "audit.yaml")
    for _ in range(2):
        sources = {"corpus": pin_source(config.corpus)}
        values = pinned(config, sources, find_models(config.models))
        (tmp_path / "config.yaml").write_text(dump_yaml(values))
        again = load_audit(tmp_path / "config.yaml")
        assert again.corpus.revision == "d" * 40
        assert {key: model.revision for key, model in again.models.by_key().items()} == {
            "models.teacher": "1" * 40,
            "models.baseline.0": "2" * 40,
            "models.baseline.1": None,
            "models.students.0": None,
            "models.students.1": "4" * 40,
        }
        assert run_inputs(0, sources, config.extraction, find_models(again.models)) == run_inputs(
            0, sources, again.extraction, find_models(config.models)
        )
        config = again


@pytest.mark.parametrize("trusted", [False, True])
def test_only_safe_files_are_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    asked: dict[str, Any] = {}

    def download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = resolve_model(ModelConfig(path="org/name", revision="v1", trust_remote_code=trusted), KEY)
    assert (asked["repo_id"], asked["revision"], found.name) == ("org/name", "v1", "org/name")

    from huggingface_hub.utils import filter_repo_objects

    wanted = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "merges.txt",
        "vocab.txt",
        "tokenizer.json",
        "tokenizer.model",
        "spiece.model",
        "generation_config.json",
    ]
    unwanted = [
        "pytorch_model.bin",
        "model.pt",
        "weights.pth",
        "training_args.bin",
        "tokenizer.pkl",
        "tf_model.h5",
        "README.md",
        "onnx/config.json",
        "original/model.safetensors",
        "consolidated.safetensors",
    ]
    kept = filter_repo_objects(
        [*wanted, *unwanted, "own.py", "tokenizer.py"],
        allow_patterns=asked["allow_patterns"],
        ignore_patterns=asked["ignore_patterns"],
    )
    assert list(kept) == wanted + (["own.py", "tokenizer.py"] if trusted else [])


def resolved(folder: Path) -> ResolvedModel:
    """A model of which only the tokenizer matters."""
    return ResolvedModel(folder, "", 0, reading_fingerprint(load_tokenizer(folder)), str(folder))


def changed(change: str) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer that reads text unlike `backend()` in one respect, and its special tokens."""
    special = {"bos_token": "<|end|>", "eos_token": "<|end|>"}
    described = json.loads(backend().to_str())
    vocabulary, merges = described["model"]["vocab"], described["model"]["merges"]
    if change == "tokens swapped":
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    if change == "merges":
        merges[0], merges[1] = merges[1], merges[0]
    if change == "model settings":
        described["model"]["ignore_merges"] = True
    if change == "split":
        described["pre_tokenizer"]["add_prefix_space"] = True
    tokenizer = Tokenizer.from_str(json.dumps(described))
    if change == "normalizer":
        tokenizer.normalizer = normalizers.NFC()
    if change == "pad":
        tokenizer.add_special_tokens(["<|pad|>"])
    if change == "special":
        special["eos_token"] = "z"  # a token there already
    if change == "begin token":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", 0)]
        )
    return tokenizer, special


DIFFERENCES = {
    "tokens swapped": '2 of 261 tokens differ, first: id 65 is "a" in teacher and "b" in hard',
    "merges": "merges differ, first in row 0",
    "model settings": "model settings differ",
    "split": "the pre-tokenizer differs",
    "normalizer": "the normalizer differs",
}


@pytest.mark.parametrize("change", DIFFERENCES)
def test_different_tokenizers_are_told_apart(tmp_path: Path, change: str) -> None:
    tokenizer, special = changed(change)
    save_tokenizer(tmp_path / "one")
    save_tokenizer(tmp_path / "two", tokenizer, **special)
    one, two = resolved(tmp_path / "one"), resolved(tmp_path / "two")
    with pytest.raises(ModelError) as caught:
        compare_tokenizers({"teacher": one, "soft": one, "hard": two}, one=True)
    assert compare_tokenizers({"teacher": one, "hard": two}, one=False) == {"hard": None}
    told = str(caught.value)
    assert told.startswith("models: teacher and hard have different tokenizers (")
    assert DIFFERENCES[change] in told
    assert "\n" not in told


@pytest.mark.parametrize("change", ["pad", "special", "begin token"])
def test_special_tokens_alone_do_not_make_another_tokenizer(tmp_path: Path, change: str) -> None:
    tokenizer, special = changed(change)
    save_tokenizer(tmp_path / "one")
    save_tokenizer(tmp_path / "two", tokenizer, **special)
    one, two = resolved(tmp_path / "one"), resolved(tmp_path / "two")
    literals = {"pad": ("<|pad|>",), "special": ("z",)}.get(change, ())  # saving makes an added token of each
    assert compare_tokenizers({"teacher": one, "soft": one, "hard": two}, one=True) == {
        "hard": Alike(literals)
    }


def test_equal_content_in_other_files_passes(tmp_path: Path) -> None:
    save_tokenizer(tmp_path / "one")
    other = tmp_path / "two"
    save_tokenizer(other)
    described = json.loads((other / "tokenizer.json").read_text())
    model = described["model"]
    model["vocab"] = dict(reversed(model["vocab"].items()))
    model["merges"] = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    described["truncation"] = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    (other / "tokenizer.json").write_text(json.dumps(described, indent=7))
    settings = json.loads((other / "tokenizer_config.json").read_text())
    settings.update(
        chat_template="{{ messages }}", model_max_length=9, padding_side="left", pad_token="<|end|>"
    )
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    one, two = resolved(tmp_path / "one"), resolved(other)
    assert compare_tokenizers({"teacher": one, "soft": two}, one=True) == {}
    assert one.tokenizer_fingerprint == two.tokenizer_fingerprint


def test_begin_token_is_what_the_tokenizer_itself_does(tmp_path: Path) -> None:
    for change, expected in {"none": False, "begin token": True}.items():
        tokenizer, special = changed(change)
        save_tokenizer(tmp_path / change, tokenizer, **special)
        found = load_tokenizer(tmp_path / change)
        assert uses_bos(found) is expected
        assert bos_token_id(found) == 0
    # A token that also stands for unknown text is met at the front without being put there.
    words = Tokenizer(token_models.WordLevel({"<|end|>": 0, "b": 1}, unk_token="<|end|>"))
    save_tokenizer(tmp_path / "words", words)
    assert uses_bos(load_tokenizer(tmp_path / "words")) is False
    save_tokenizer(tmp_path / "bare", eos_token="<|end|>")
    bare = load_tokenizer(tmp_path / "bare")
    assert (uses_bos(bare), bos_token_id(bare)) == (False, None)


def test_teacher_that_is_not_larger_is_warned_about(folder: Path) -> None:
    small = resolve(folder)
    large = small._replace(parameters=small.parameters + 1)
    assert smaller_teacher_warning(large, small, "soft") is None
    for teacher, student in ((small, small), (small, large)):
        warning = smaller_teacher_warning(teacher, student, "soft")
        assert warning is not None
        assert f"student soft {student.parameters:,}" in warning
