"""`kdaudit distill` on a tiny family from scratch: what it writes, that it goes on, that its audit runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
import torch
import toys
from click.testing import CliRunner
from ruamel.yaml import YAML
from safetensors.torch import load_file
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit.cli import main
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.yaml.loading import load_distill
from kdaudit.corpus import ExampleTokens, build_examples
from kdaudit.distillation import lab, outcome, plans, training
from kdaudit.distillation.windows import SAMPLE_SEED, cut_windows, open_windows
from kdaudit.errors import ModelError
from kdaudit.schemas.distillation import DistillRecord

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


def _write_texts(folder: Path) -> None:
    draw = np.random.default_rng(3)
    words = ["red", "green", "blue", "stone", "river", "cloud", "seven", "north", "glass", "winter"]
    for name, count in (("train", 30), ("valid", 8)):
        texts = [" ".join(draw.choice(words, 40)) for _ in range(count)]
        lines = [json.dumps({"id": f"{name}-{row}", "text": text}) for row, text in enumerate(texts)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def _write_family(folder: Path, texts: bool = True) -> Path:
    if texts:
        _write_texts(folder)
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
        return toys.kdaudit("distill", self.config, *words, cwd=self.folder)


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def test_every_model_lies_in_its_folder_and_in_the_record(family: Family) -> None:
    names = ["baseline", "soft", "jsd", "hard", "token", "drawn"]
    folders = ["teacher", *(f"seed-{seed}/{name}" for seed in (0, 1) for name in names)]
    folders.insert(2, "seed-0/baseline-2")  # the third that an audit names, beside those of two seeds
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


def test_finished_models_are_neither_trained_nor_measured_again(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shutil.copytree(family.out, out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")}
    with monkeypatch.context() as patch:
        patch.setattr(outcome, "FeatureWorker", None)
        again = _in_process(family.config, out)
        assert again.model_dump()["models"] == family.record["models"]
        # Of another holdout no perplexity is known.
        with pytest.raises(TypeError):
            _in_process(family.config, out, "holdout.limit=3")
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.safetensors")} == before


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_weights(
    family: Family, tmp_path: Path
) -> None:
    """Ended in the midst of the teacher, then of a student; then every weight is that of the undisturbed."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "kdaudit", "distill", str(family.config), "--out", str(out)]
    for beside in ("teacher", "seed-0/baseline"):
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            while not list((out / beside).parent.glob(".kdaudit-*.partial")) or not list(
                out.glob("checkpoints/*/checkpoint-*/seconds")  # written last: a whole one is there
            ):
                assert process.poll() is None, process.communicate()[1]
                time.sleep(0.005)
            process.kill()
        assert not (out / beside).exists()
        for checkpoint in out.glob("checkpoints/*/checkpoint-*"):
            (checkpoint / "seconds").write_text("1000\n")
    done = family.distill("--out", str(out), "--set", "seeds=[0]")
    assert done.returncode == 0, done.stderr
    # Time counts from the first start on, as the checkpoint tells.
    told = json.loads((out / "seed-0" / "baseline" / "training.json").read_text())["seconds"]
    assert 1000 < told < 2000
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
    assert (
        "was trained from other text or settings (recipe.seed was 0 and is 1); choose another" in done.stderr
    )
    assert {path: path.stat().st_mtime_ns for path in family.out.rglob("*.safetensors")} == before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("student.base.hiden_size=64", "hiden_size: LlamaConfig has no such key; did you mean hidden_size?"),
        (
            "student.base.model_type=lama",
            "'lama' is not an architecture of transformers; did you mean llama?",
        ),
        ("teacher.base.vocab_size=7", "teacher.base.vocab_size: 7 is less than the tokenizer's"),
        ("corpus.path=./trian.jsonl", "did you mean"),
        ("student.base=./no-model", "student.base: "),
    ],
)
def test_a_misspelled_start_is_told_before_anything_is_trained(
    family: Family, tmp_path: Path, override: str, told: str
) -> None:
    words = ["distill", str(family.config), "--out", str(tmp_path / "out"), "--set", override]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("kdaudit: ")]
    assert told in line
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_run_directory_is_no_place_to_train_in(family: Family, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("{}")
    done = CliRunner().invoke(main, ["distill", str(family.config), "--out", str(tmp_path)])
    assert done.exit_code == 2
    assert "holds an audit or a screening; choose another --out" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["manifest.json"]


def test_a_base_with_a_wrong_value_is_told_with_its_key(family: Family, tmp_path: Path) -> None:
    done = family.distill("--out", str(tmp_path / "out"), "--set", "student.base.num_attention_heads=five")
    assert done.returncode == 2
    assert "student.base" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_audit_that_it_writes_runs_and_names_its_baselines(family: Family) -> None:
    audit = family.out / "seed-0" / "audit.yaml"
    done = toys.kdaudit("run", audit, "--out", "run", "--json", cwd=family.folder)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    baselines = ["baseline-1", "baseline-2", "baseline-3"]
    assert [*results["models"]] == ["teacher", *baselines, "soft", "jsd", "hard", "token", "drawn"]
    folders = ["seed-0/baseline", "seed-1/baseline", "seed-0/baseline-2"]
    for name, folder in zip(baselines, folders, strict=True):
        (trained,) = [one for one in family.record["models"] if one["folder"] == folder]
        assert results["models"][name]["perplexity"] == pytest.approx(trained["holdout_perplexity"], rel=1e-5)
    assert len({results["models"][name]["fingerprint"] for name in baselines}) == 3
    assert results["models"]["jsd"]["kd"] == "soft"
    for name in ("soft", "hard"):
        (trained,) = [one for one in family.record["models"] if one["folder"] == f"seed-0/{name}"]
        assert results["models"][name]["perplexity"] == pytest.approx(trained["holdout_perplexity"], rel=1e-5)


def _in_process(config: Path, out: Path, *overrides: str) -> DistillRecord:
    def silent(*_: object) -> None:
        pass

    return lab.run_distill(load_distill(config, overrides), out, progress=silent, warn=silent)


_BASELINE = "{name: baseline, method: baseline, count: 1}"
_SOFT, _TOKEN = "{name: soft, method: soft}", "{name: token, method: hard, level: token}"
_HARD = f"{{name: hard, method: hard, prefix_tokens: {_PREFIX}}}"


def test_a_finished_hard_corpus_is_not_written_again(family: Family, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(family.out, out)
    shutil.rmtree(out / "seed-0" / "hard")
    before = (out / "hard_corpus.parquet").stat().st_mtime_ns
    _in_process(family.config, out, "seeds=[0]", f"students=[{_BASELINE}, {_HARD}]")
    assert (out / "hard_corpus.parquet").stat().st_mtime_ns == before
    own, first = (load_file(at / "seed-0" / "hard" / "model.safetensors") for at in (out, family.out))
    assert all(torch.equal(own[name], first[name]) for name in first)


def test_a_begin_token_stands_before_every_window_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = toys.tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    begin = tokenizer.bos_token_id
    template = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    tokenizer.backend_tokenizer.post_processor = template
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    draw = np.random.default_rng(0)
    for name, count in (("train", 9), ("valid", 3)):
        toys.write_corpus(tmp_path / f"{name}.jsonl", draw.integers(2, toys.VOCABULARY, (count, 16)).tolist())
    read: list[Tensor] = []

    def collate(rows: list[training.Row]) -> dict[str, Tensor]:
        read.extend(row.token_ids for row in rows)
        return training.padded(rows)._asdict()

    monkeypatch.setattr(training, "collate", collate)
    config = _write_family(tmp_path, texts=False)
    sets = ["tokenizer=./tokenizer", "corpus.window=16", "holdout.window=16", "seeds=[0]"]
    sets += ["teacher.epochs=1", "student.epochs=1", f"students=[{_BASELINE}, {_SOFT}, {_TOKEN}, {_HARD}]"]
    record = _in_process(config, tmp_path / "out", *sets)
    windows = [row.tolist() for row in open_windows(tmp_path / "out" / "windows" / "corpus.bin")]
    assert record.corpus_windows == len(windows) == 9
    assert len(read) == 5 * 9
    assert {row[0].item() for row in read} == {begin}
    for of_model in range(4):  # the last reads what the teacher wrote after each prefix
        assert sorted(row[1:].tolist() for row in read[9 * of_model :][:9]) == sorted(windows)
    prefixes = sorted(window[:_PREFIX] for window in windows)
    assert sorted(row[1 : _PREFIX + 1].tolist() for row in read[36:]) == prefixes


def test_a_given_teacher_is_loaded_as_its_dtype_says(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teachers: list[Any] = []
    load = plans.load_model
    monkeypatch.setattr(plans, "load_model", lambda *how: teachers.append(load(*how)) or teachers[-1])
    given = f"teacher={{path: {family.out / 'teacher'}, dtype: bfloat16}}"
    sets = [given, "tokenizer=null", f"student.base={family.out / 'seed-0' / 'baseline'}", "seeds=[0]"]
    record = _in_process(family.config, tmp_path / "out", *sets, f"students=[{_BASELINE}, {_SOFT}]")
    assert [teacher.dtype for teacher in teachers] == [torch.bfloat16]
    assert record.models[0].losses == []
    audit = YAML(typ="safe").load((tmp_path / "out" / "seed-0" / "audit.yaml").read_text())
    assert audit["models"]["teacher"]["dtype"] == "bfloat16"
    card = (tmp_path / "out" / "seed-0" / "soft" / "README.md").read_text()
    front = YAML(typ="safe").load(card.split("---\n")[1])
    assert front["base_model"] == "baseline"
    assert "| method | soft (logit-level) distillation: forward_kl at temperature 2 |" in card
    assert f"| perplexity of the holdout | {record.models[2].holdout_perplexity:.2f} |" in card
    assert str(tmp_path) not in card
    assert str(family.folder) not in card


def test_a_teacher_whose_logits_are_scaled_is_refused_before_any_training(
    family: Family, tmp_path: Path
) -> None:
    scaled = (
        "teacher.base={model_type: granite, hidden_size: 64, intermediate_size: 64, num_hidden_layers: 1, "
    )
    scaled += (
        "num_attention_heads: 2, num_key_value_heads: 2, max_position_embeddings: 64, logits_scaling: 8.0}"
    )
    with pytest.raises(ModelError, match=r"teacher: .* changes its logits after the output layer"):
        _in_process(family.config, tmp_path / "out", scaled)
    assert not (tmp_path / "out" / "teacher").exists()
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_limit_takes_the_windows_that_the_audit_takes_in_all_their_places(tmp_path: Path) -> None:
    draw = np.random.default_rng(1)
    windows = draw.integers(2, toys.VOCABULARY, (40, 14)).tolist()
    windows += windows[:20] + windows[:5]
    toys.write_corpus(tmp_path / "corpus.jsonl", windows)
    config = CorpusConfig(path=str(tmp_path / "corpus.jsonl"), window=14, limit=11)
    (tmp_path / "scratch").mkdir()
    examples = build_examples(
        config, toys.tokenizer(), tokens=ExampleTokens(7, 7), seed=SAMPLE_SEED, scratch=tmp_path / "scratch"
    )
    (table,) = examples.tables(100)
    audited = table["token_ids"].to_pylist()
    assert len(audited) == 11
    cut = cut_windows(
        config,
        toys.tokenizer(),
        tmp_path / "corpus.bin",
        tokens=ExampleTokens(7, 7),
        key="corpus",
        progress=lambda rows: None,
    )
    assert [row.tolist() for row in cut] == [window for window in windows if window in audited]
    again = open_windows(tmp_path / "corpus.bin")
    assert [row.tolist() for row in again] == [row.tolist() for row in cut]
    assert (again.fingerprint, [*again.document_ids]) == (cut.fingerprint, [*cut.document_ids])
    assert (tmp_path / "corpus.parquet").stat().st_mode & 0o777 == 0o600


def test_what_a_training_freed_is_not_kept_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is small and stays between large tensors kept a teacher's memory while its students trained."""
    stays, used, train = [], [], lab._trained
    memory = psutil.Process().memory_info

    def trained(*given: Any) -> Any:
        record = train(*given)
        tensors = []
        for _ in range(60):
            tensors.append(np.ones(1 << 19))  # 4 MiB
            stays.append(bytes(2000))
        used.append(memory().rss)
        return record

    monkeypatch.setattr(lab, "_trained", trained)
    _in_process(_write_family(tmp_path), tmp_path / "out", "seeds=[0]", f"students=[{_BASELINE}, {_TOKEN}]")
    assert len(used) > 1
    assert used[-1] - memory().rss > 200 << 20
