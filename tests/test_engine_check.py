"""An engine that runs another model than its folder holds is caught before it measures anything."""

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
from click.testing import CliRunner, Result
from conftest import needs_vllm
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from kdaudit.cli import main
from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ExampleTokens
from kdaudit.distillation import corpus as corpus_module
from kdaudit.distillation.corpus import DecodingSettings, TeacherEngine, write_hard_corpus
from kdaudit.distillation.windows import cut_windows
from kdaudit.errors import DisagreementError, EngineError, ModelError, NoReferenceError
from kdaudit.inference import EngineOptions, Ragged, start
from kdaudit.inference.agreement import (
    PROBED,
    WINDOWS,
    Agreement,
    Continuations,
    Probe,
    Rounding,
    ask,
    compare_outputs,
    rounding_of,
    share_of_ties,
)
from kdaudit.inference.base import Masking
from kdaudit.inference.checking import Asking, Model, ask_reference, check_engine
from kdaudit.inference.scoring import ModelFiles, PairWorker
from kdaudit.inference.transformers import TransformersEngine
from kdaudit.pipelines.stages import engine_check, extracting, features
from kdaudit.pipelines.stages.engine_options import engine_options
from kdaudit.runs.verify import check_files

_WIDTH = 50
_VOCABULARY = 512
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 256, "num_key_value_heads": 2},
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 256},
    "gemma2": {"intermediate_size": 256, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 16},
    "qwen3": {"intermediate_size": 256, "num_key_value_heads": 2, "head_dim": 32},
    "olmo2": {"intermediate_size": 256, "num_key_value_heads": 2},
    "opt": {"ffn_dim": 256, "word_embed_proj_dim": 128},
    "qwen2": {"intermediate_size": 256, "num_key_value_heads": 2},
    "mistral": {"intermediate_size": 256, "num_key_value_heads": 2, "head_dim": 32, "sliding_window": 16},
    "phi": {"intermediate_size": 256},
    "mamba": {"state_size": 8},  # no cache of keys and values
}


def _save(folder: Path, family: str, seed: int = 0, **settings: Any) -> Path:
    """A random model whose logits are far from uniform and that does not repeat one token."""
    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        vocab_size=_VOCABULARY,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.3,
        **{**_FAMILIES[family], **settings},
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.normal_(0, 0.5)
            elif family == "gemma2" and "norm" in name:
                weight.normal_(0, 0.2).add_(3.0 if "post" in name else 0.0)
    model.save_pretrained(folder)
    return folder


def _prefixes(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, _VOCABULARY, (WINDOWS, _WIDTH)).astype(np.int32)


def _prompts() -> Ragged:
    return Ragged.of(_prefixes())


def _model(folder: Path, dtype: str = "float32") -> Model:
    return Model("student", folder, dtype, False, 10**6)


def _check(folder: Path, engine: Any, engine_folder: Path, dtype: str, engine_dtype: str = "") -> Agreement:
    said = ask_reference(_model(folder, dtype), _prompts(), _WIDTH)
    with start(EngineOptions(engine, str(engine_folder), 2 * _WIDTH, engine_dtype or dtype)) as loaded:
        asking = Asking(loaded.info, loaded.match, loaded.generate)
        return check_engine(_model(folder, dtype), said, asking, np.arange(WINDOWS), 0)


# --- the comparison, on arrays made by hand


def _said(margins: float | np.ndarray = 0.5, windows: int = 4, tokens: int = 6) -> Continuations:
    said = np.arange(windows * tokens, dtype=np.int32).reshape(windows, tokens)
    return Continuations(said, np.broadcast_to(np.float32(margins), said.shape), said + 1000)


_EXACT = Rounding(0.01, 0.005)


def _compare(said: Continuations, matched: list[int], rounding: Rounding = _EXACT) -> Agreement:
    asked = ask(said, seed=3)
    own = np.array(matched, dtype=np.int16)
    controls = np.minimum(own[asked.windows[len(own) :]], asked.ends[len(own) :])
    return compare_outputs(said, asked, np.concatenate([own, controls]).astype(np.int16), rounding)


def test_an_engine_that_matches_all_agrees() -> None:
    found = _compare(_said(), [6, 6, 6, 6])
    assert found == Agreement(windows=4, positions=24, near_ties=0, departures=[], too_many=False)
    assert found.holds


def test_a_window_left_at_a_near_tie_agrees_and_counts_until_there() -> None:
    margins = np.full((4, 6), 0.5, np.float32)
    margins[2, 3] = 0.009
    found = _compare(_said(margins), [6, 6, 3, 6])
    assert (found.positions, found.near_ties, found.holds) == (22, 1, True)


def test_a_window_left_where_there_is_no_near_tie_is_a_departure() -> None:
    margins = np.full((4, 6), 0.001, np.float32)
    margins[2, 3] = 0.021
    found = _compare(_said(margins), [6, 6, 3, 6])
    assert [(one.window, one.position) for one in found.departures] == [(2, 3)]
    assert not found.holds


@pytest.mark.parametrize(("windows", "most"), [(4, 1), (8, 1), (24, 3)])
def test_few_windows_may_be_left_at_a_tie_twice_as_wide_and_more_are_departures(
    windows: int, most: int
) -> None:
    said = _said(0.019, windows, 50)
    for count in (most, most + 1):
        found = _compare(said, [10] * count + [50] * (windows - count))
        assert found.holds == (count == most)
        assert len(found.departures) == (0 if found.holds else count)


def test_more_near_ties_than_rounding_turns_are_refused() -> None:
    said = _said(0.001, windows=24, tokens=50)
    assert _compare(said, [10] * 6 + [50] * 18, Rounding(0.01, 0.005)).holds
    found = _compare(said, [10] * 24, Rounding(0.01, 0.005))
    assert found.too_many
    assert not found.departures
    assert _compare(said, [10] * 24, Rounding(0.01, 0.05)).holds


def test_an_engine_that_counts_a_wrong_token_as_right_is_refused() -> None:
    said = _said()
    asked = ask(said, seed=3)
    assert (asked.ends[:4] == 6).all()
    for row in range(4, 8):
        wrong = np.flatnonzero(asked.targets[row] != said.tokens[asked.windows[row]])
        assert wrong.tolist() == [asked.ends[row]]
    everything = compare_outputs(said, asked, np.full(8, 6, np.int16), _EXACT)
    assert len(everything.departures) == 4
    assert not everything.holds


def test_the_share_of_near_ties_leaves_out_what_lies_behind_a_windows_end() -> None:
    margins = np.array([[0.005, 0.5, 0.0], [0.01, 0.02, 0.5]], np.float32)
    said = _said(margins, 2, 3)._replace(lengths=np.array([2, 3]))
    assert share_of_ties(said, _EXACT) == pytest.approx(2 / 5)


def test_a_check_at_near_ties_alone_says_that_it_shows_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write_audit(tmp_path)
    monkeypatch.setattr(engine_check, "share_of_ties", lambda *_: 0.9)
    less = ("models.baseline=null", "predictor.enabled=false", "holdout=null")
    done = _run(tmp_path, "--json", *(word for one in less for word in ("--set", one)))
    assert done.exit_code == 0, done.stderr
    results = json.loads(done.stdout)
    said = "the engine check shows little. At 90% of its positions"
    notes = {one["subject"]: one["text"] for one in results["notes"] if one["code"] == "engine_check_weak"}
    assert notes.keys() == results["models"].keys()
    assert all(text.startswith(f"{name}: {said}") for name, text in notes.items())
    assert said in done.stderr
    assert said in (tmp_path / "run" / "report.public.html").read_text()


def test_tolerance_is_a_multiple_of_the_widest_tie_that_rounding_turned() -> None:
    margins = np.full((PROBED, 50), 0.4, np.float32)
    margins[1, 7] = 0.02
    change = np.full((PROBED, 50), 0.001, np.float32)
    change[1, 7], change[2, 2] = 0.03, 0.1  # the second is no change of a near tie
    said = _said(margins, PROBED, 50)
    turned = np.zeros((PROBED, 50), np.bool_)
    turned[1, 7] = True
    found = rounding_of(said, Probe(change, turned), "bfloat16")
    assert found.tolerance == pytest.approx(0.06)
    assert found.rate == pytest.approx(4 / 400)
    none = rounding_of(said, Probe(np.zeros_like(change), np.zeros_like(turned)), "float32")
    assert none == Rounding(1e-4, 3 / 400)


# --- honest engines


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "qwen3", "olmo2", "opt", "gemma2", "mamba"])
def test_an_honest_transformers_engine_agrees(family: str, dtype: str, tmp_path: Path) -> None:
    folder = _save(tmp_path, family)
    found = _check(folder, "transformers", folder, dtype)
    assert found.windows == (PROBED if family == "mamba" else WINDOWS)
    assert found.positions == found.windows * _WIDTH or dtype == "bfloat16"


@needs_vllm
@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "qwen3", "olmo2", "opt"])
def test_an_honest_vllm_engine_agrees(family: str, tmp_path: Path) -> None:
    folder = _save(tmp_path, family)
    for dtype in ("float32", "bfloat16"):
        found = _check(folder, "vllm", folder, dtype)
        assert found.positions == WINDOWS * _WIDTH or dtype == "bfloat16"


# --- twelve faults, each of a kind that was reported in public


class _Fault(NamedTuple):
    family: str
    settings: dict[str, Any]
    plant: Callable[[Path], None]
    """Changes the folder that the engine reads; the reference reads the one that it was copied from."""


def _in_config(**values: Any) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return plant


def _in_weights(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def plant(folder: Path) -> None:
        path = folder / "model.safetensors"
        weights = load_file(path)
        hits = [name for name in weights if part in name]
        assert hits
        save_file({**weights, **{name: change(weights[name]) for name in hits}}, path, {"format": "pt"})

    return plant


def _tied(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    save_file(
        {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, path, {"format": "pt"}
    )


def _stale_shard(folder: Path) -> None:
    path = folder / "model.safetensors"
    torch.manual_seed(5)
    weights = load_file(path)
    drift = {name: torch.randn_like(weight) for name, weight in weights.items() if "layers.1" in name}
    parts = {
        "model-00001-of-00002.safetensors": {name: weights[name] for name in weights if name not in drift},
        "model-00002-of-00002.safetensors": {name: weights[name] + 0.1 * drift[name] for name in drift},
    }
    for name, part in parts.items():
        save_file(part, folder / name, {"format": "pt"})
    index = {tensor: name for name, part in parts.items() for tensor in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    path.unlink()


def _rope(**values: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **values}}


_PLANTED = {
    # vllm pull request 46835: a learned bias of the output layer is dropped
    "head": _Fault("phi", {}, _in_weights("lm_head.bias", torch.zeros_like)),
    # vllm issue 9490: rope_theta is not applied
    "rope theta": _Fault("llama", _rope(rope_theta=500.0), _in_config(**_rope())),
    # vllm pull request 6696: a release that did not scale rotary positions
    "rope scaling": _Fault("llama", _rope(rope_type="linear", factor=4.0), _in_config(**_rope())),
    # vllm issue 3385: a sliding window of one token more or less
    "sliding window": _Fault("mistral", {}, _in_config(sliding_window=15)),
    # linkedin/Liger-Kernel issue 74: Gemma's norms multiply by one plus the weight
    "norm offset": _Fault("gemma2", {}, _in_weights("norm", lambda weight: weight - 1)),
    # vllm pull request 3767: attention_bias of the configuration is not heeded
    "attention bias": _Fault("qwen2", {}, _in_weights("proj.bias", torch.zeros_like)),
    # vllm pull request 6758: with tie_word_embeddings a trained lm_head.weight is left out
    "tied head": _Fault("llama", {}, _tied),
    # an index and shards of which one is of an earlier step, as after a copy that was interrupted
    "stale shard": _Fault("llama", {}, _stale_shard),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", _PLANTED)
def test_a_planted_fault_is_caught(fault: str, dtype: str, tmp_path: Path) -> None:
    family, settings, plant = _PLANTED[fault]
    folder = _save(tmp_path / "model", family, **settings)
    shutil.copytree(folder, tmp_path / "other")
    plant(tmp_path / "other")
    with pytest.raises(DisagreementError) as caught:
        _check(folder, "transformers", tmp_path / "other", dtype)
    assert "student: transformers" in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_soft_cap_left_out_is_caught(tmp_path: Path) -> None:
    """transformers' sdpa drops Gemma-2's cap without a word; vllm-metal issue 665 is of the same kind."""
    folder = _save(tmp_path, "gemma2", attn_logit_softcapping=5.0)
    said = ask_reference(_model(folder), _prompts(), _WIDTH)
    engine = TransformersEngine(EngineOptions("transformers", str(folder), 2 * _WIDTH, "float32")._asdict())
    engine._model.set_attn_implementation("eager")
    asking = Asking(engine.describe().info, engine.match, engine.generate)
    assert check_engine(_model(folder), said, asking, np.arange(WINDOWS), 0).holds
    engine._model.set_attn_implementation("sdpa")
    with pytest.raises(DisagreementError):
        check_engine(_model(folder), said, asking, np.arange(WINDOWS), 0)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bos_token_added_twice_is_caught(dtype: str, tmp_path: Path) -> None:
    """Issue 27486 of vllm: a template writes the BOS token, and the engine puts another before it."""
    folder = _save(tmp_path, "gpt2")
    prefixes = _prefixes()
    prefixes[:, 0] = 0
    said = ask_reference(_model(folder, dtype), Ragged.of(prefixes), _WIDTH)
    with start(EngineOptions("transformers", str(folder), 2 * _WIDTH + 1, dtype)) as loaded:
        asking = Asking(loaded.info, lambda prompts, targets: loaded.match(prompts.after(0), targets), None)
        # In bfloat16 rounding is so wide here that each window may be left at a near tie, but not so many.
        told = "the engine another token" if dtype == "float32" else "the engine another token|at a near tie"
        with pytest.raises(DisagreementError, match=told):
            check_engine(_model(folder, dtype), said, asking, np.arange(WINDOWS), 0)


def test_a_dtype_that_overflows_is_caught(tmp_path: Path) -> None:
    """Issue 761 of QwenLM/Qwen3: a model made for bfloat16 writes exclamation marks in float16."""
    folder = _save(tmp_path, "llama")
    _in_weights("layers.0.mlp.down_proj", lambda weight: weight * 3e4)(folder)
    assert _check(folder, "transformers", folder, "float32").holds
    with pytest.raises((DisagreementError, EngineError), match="float16"):  # cast unasked
        _check(folder, "transformers", folder, "float32", engine_dtype="float16")
    with pytest.raises(
        ModelError, match="in float16 it gives NaN or infinite logits, in float32 it does not"
    ):
        ask_reference(_model(folder, "float16"), _prompts(), _WIDTH)


@needs_vllm
@pytest.mark.slow
def test_weights_that_one_engine_alone_loads_are_caught(tmp_path: Path) -> None:
    """Issue 40765 of vllm: a loader takes every *.safetensors of a folder, the last one wins."""
    folder = _save(tmp_path / "model", "llama")
    stray = _save(tmp_path / "stray", "llama", seed=1)
    shutil.copy(stray / "model.safetensors", folder / "model_ema.safetensors")
    with pytest.raises(DisagreementError, match=r"vllm 0\.\d+\.\d+ \(float32\)"):
        _check(folder, "vllm", folder, "float32")


def test_ids_that_neither_the_tokenizer_nor_the_model_has_are_left_alone(tmp_path: Path) -> None:
    said = ask_reference(
        _model(_save(tmp_path, "llama")),
        Ragged.of(_prefixes()[:2]),
        4,
        masking=Masking(600, (7, _VOCABULARY + 5)),
    )
    assert 7 not in said.continuations.tokens


# --- in the product


def _elsewhere(monkeypatch: pytest.MonkeyPatch, name: str, folder: Path) -> None:
    """Let the engine of one model load another folder."""

    def moved(*args: Any, **values: Any) -> EngineOptions:
        options = engine_options(*args, **values)
        return options._replace(path=str(folder)) if Path(options.path).name == name else options

    monkeypatch.setattr(extracting, "engine_options", moved)


def _run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(main, ["run", str(folder / "audit.yaml"), "--out", str(folder / "run"), *words])


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """An audit whose engine loads other weights for `hard` than its folder holds."""
    folder = tmp_path_factory.mktemp("toy")
    toys.write_audit(folder)
    toys.save_model(folder / "other", 9)
    with pytest.MonkeyPatch.context() as patch:
        _elsewhere(patch, "hard", folder / "other")
        return folder, _run(folder)


def test_an_audit_whose_engine_runs_another_model_stops_before_it_measures(
    stopped: tuple[Path, Result],
) -> None:
    folder, done = stopped
    assert done.exit_code == 4, done.output
    assert "kdaudit: hard: transformers 5." in done.stderr
    assert re.search(r"in \d+ of 24 windows .* example \d+ at token \d+: the reference says \d+", done.stderr)
    assert str(folder / "hard") in done.stderr
    assert "Traceback" not in done.stderr
    run = folder / "run"
    assert (run / "extraction" / "soft").exists()
    assert not (run / "extraction" / "hard").exists()
    assert not (run / "results.json").exists()


def test_a_mended_audit_goes_on_and_says_what_was_checked(stopped: tuple[Path, Result]) -> None:
    folder, _ = stopped
    run = folder / "run"
    before = {path: path.stat().st_mtime_ns for path in (run / "engine_check").glob("*.parquet")}
    done = _run(folder)
    assert done.exit_code == 0, done.stderr
    models = json.loads((run / "results.json").read_text())["models"]
    for name, model in models.items():
        check = model["engine_check"]
        assert (check["windows"], check["positions"]) == (24, 24 * toys.SUFFIX), name
        assert (check["disagreeing"], check["near_ties"]) == (0, 0)
        assert check["reference"].startswith("transformers 5.")
        assert (run / "engine_check" / f"{name}.parquet").stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mtime_ns == written for path, written in before.items()), "said once"
    assert len(before) == 2
    assert check_files(run) == []
    for report in ("report.html", "report.public.html"):
        page = (run / report).read_text()
        assert "192 greedy tokens in 24 continuations as in transformers 5." in page


def test_where_the_reference_cannot_run_a_note_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write_audit(tmp_path)

    def fail(model: Model, *_: Any) -> Any:
        raise NoReferenceError(f"{model.folder}: transformers cannot run this model: no such architecture")

    monkeypatch.setattr(engine_check, "ask_reference", fail)
    done = _run(tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    results = json.loads(done.stdout)
    for name, model in results["models"].items():
        assert model["engine_check"] is None
        start = f"{name}: what the engine says was not checked against a plain forward pass in transformers: "
        notes = [one for one in results["notes"] if one["code"] == "engine_not_checked"]
        (note,) = [one for one in notes if one["subject"] == name]
        assert note["text"].startswith(start)
        assert start in done.stderr
    assert str(tmp_path) not in (tmp_path / "run" / "report.public.html").read_text()


def test_what_transformers_alone_cannot_run_has_no_reference(tmp_path: Path) -> None:
    folder = _save(tmp_path, "llama")
    _in_weights("layers.0.mlp.up_proj", lambda weight: weight[:-1])(folder)
    with pytest.raises(NoReferenceError, match=r"transformers cannot run this model: RuntimeError: .*size"):
        ask_reference(_model(folder), Ragged.of(np.ones((2, 4))), 2)


def test_a_fault_of_the_check_itself_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a note once, under which nothing was checked for days."""
    toys.write_audit(tmp_path)

    def fail(model: Model, *_: Any) -> Any:
        raise EngineError("NameError: name 'torch' is not defined")

    monkeypatch.setattr(engine_check, "ask_reference", fail)
    done = _run(tmp_path)
    assert done.exit_code == 4
    assert "name 'torch' is not defined" in done.stderr
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_screening_by_forward_passes_of_another_model_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write_audit(tmp_path)
    toys.save_model(tmp_path / "other", 9)
    (tmp_path / "screen.yaml").write_text(
        "name: toy\n"
        f"corpus: {{path: ./corpus.jsonl, id: id, window: {toys.PREFIX + toys.SUFFIX}}}\n"
        "models: {teacher: ./teacher, baseline: ./baseline}\n"
        f"extraction: {{prefix_tokens: {toys.PREFIX}, suffix_tokens: {toys.SUFFIX}}}\n"
        "max_flagged: 1.0\n"
    )
    words = ["screen", str(tmp_path / "screen.yaml"), "--out", str(tmp_path / "out")]

    def moved(teacher: ModelFiles, baseline: ModelFiles, **options: Any) -> PairWorker:
        return PairWorker(teacher, baseline._replace(folder=tmp_path / "other"), **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "PairWorker", moved)
        stopped = CliRunner().invoke(main, words)
    assert stopped.exit_code == 4, stopped.output
    assert "kdaudit: baseline: transformers 5." in stopped.stderr
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.stderr
    for model in json.loads(done.stdout)["models"].values():
        assert model["engine_check"]["positions"] == 24 * toys.SUFFIX
    assert "192 greedy tokens in 24 continuations" in (tmp_path / "out" / "screen.public.html").read_text()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_teacher_that_writes_through_another_model_stops(
    temperature: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.save_model(tmp_path / "teacher", 1)
    toys.save_model(tmp_path / "other", 9)
    random = np.random.default_rng(0)
    toys.write_corpus(tmp_path / "corpus.jsonl", random.integers(2, toys.VOCABULARY, (30, 14)).tolist())
    corpus = CorpusConfig(path=str(tmp_path / "corpus.jsonl"), window=14)
    windows = cut_windows(
        corpus,
        toys.tokenizer(),
        tmp_path / "w.bin",
        tokens=ExampleTokens(7, 7),
        key="corpus",
        progress=lambda _: None,
    )
    teacher = TeacherEngine(EngineOptions("transformers", str(tmp_path / "teacher"), 14), "sha256:0", 10**5)
    settings = DecodingSettings(toys.PREFIX, temperature, 0, None)

    def write() -> None:
        out = tmp_path / "hard_corpus.parquet"
        write_hard_corpus(out, windows, teacher, settings, toys.tokenizer(), lambda *_: None, lambda _: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            corpus_module, "start", lambda options: start(options._replace(path=str(tmp_path / "other")))
        )
        with pytest.raises(DisagreementError, match="teacher: transformers 5"):
            write()
    assert not (tmp_path / "hard_corpus.parquet").exists()
    write()
    rows = pq.read_table(tmp_path / "hard_corpus.parquet").to_pylist()
    assert len(rows) == 30
    for row in rows:  # the column that an audit reads under `generated`
        assert row["text"] == toys.text_of([*row["prefix_token_ids"], *row["generated_token_ids"]])
