"""`kdaudit run` as a user calls it, on toy models whose memorization is known by construction."""

from __future__ import annotations

import json
import math
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from conftest import needs_vllm
from oracles import membership as slow
from toys import kdaudit
from transformers import AutoModelForCausalLM

from kdaudit.analysis.membership import plain_samples
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ModelError
from kdaudit.pipelines import audit as pipeline
from kdaudit.pipelines.audit import run_audit
from kdaudit.schemas.results import AuditResults

PRIVATE = ["report.html", "leaks.parquet", "hmac.key", "config.yaml", "results.json"]


def kdaudit_script(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """As installed: unlike `python -m`, it does not put the current folder on the path."""
    script = Path(sys.executable).with_name("kdaudit")
    return subprocess.run([script, *map(str, words)], capture_output=True, text=True, cwd=cwd)


class Toy:
    """A finished run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toys.write_audit(folder)
        self.done = kdaudit("run", "audit.yaml", cwd=folder)
        self.run = folder / "runs" / "toy"
        self.results: dict[str, Any] = json.loads((self.run / "results.json").read_text())


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    return Toy(tmp_path_factory.mktemp("toy"))


def test_ends_well_and_names_the_report(toy: Toy) -> None:
    assert toy.done.returncode == 0, toy.done.stderr
    assert "runs/toy/report.html" in toy.done.stdout


def test_documents_windows_and_distinct_examples_are_counted(toy: Toy) -> None:
    corpus = toy.results["corpus"]
    assert (corpus["documents"], corpus["windows"], corpus["examples"]) == (33, 33, 31)
    assert not corpus["sampled"]


def test_each_model_memorizes_its_own_windows(toy: Toy) -> None:
    counts = {name: model["memorized"] for name, model in toy.results["models"].items()}
    assert counts == {"teacher": 5, "baseline": 4, "soft": 5, "hard": 2}
    places = {name: model["windows_memorized"] for name, model in toy.results["models"].items()}
    assert places == {"teacher": 7, "baseline": 4, "soft": 7, "hard": 2}
    assert all(model["holdout"]["memorized"] == 0 for model in toy.results["models"].values())


def test_shards_that_the_corpus_lacks_are_told_and_noted(toy: Toy) -> None:
    data = toy.folder / "shards"
    data.mkdir()
    shutil.copy(toy.folder / "corpus.jsonl", data / "train-00001-of-00002.jsonl")
    words = ("--set", "corpus.path=./shards", "--set", "predictor.enabled=false", "--out", "lacking")
    done = kdaudit("run", "audit.yaml", *words, cwd=toy.folder)
    assert done.returncode == 0, done.stderr
    text = "The corpus lacks 1 of 2 shards of train (such as train-00000-of-00002): their text was not read."
    assert f"warning: {text}" in done.stderr
    notes = json.loads((toy.folder / "lacking" / "results.json").read_text())["notes"]
    assert [note for note in notes if note["code"] == "shards_missing"] == [
        {"code": "shards_missing", "subject": "corpus", "text": text}
    ]
    assert not any(note["code"] == "shards_missing" for note in toy.results["notes"])


def test_every_model_was_checked_against_the_reference(toy: Toy) -> None:
    """A check that cannot be made becomes a note: here it can, so a note would hide a fault of ours."""
    checks = {name: model["engine_check"] for name, model in toy.results["models"].items()}
    assert all(check is not None and check["disagreeing"] == 0 for check in checks.values()), toy.results[
        "notes"
    ]
    assert not any(note["code"] == "engine_not_checked" for note in toy.results["notes"])


def test_soft_inherits_what_the_teacher_alone_memorizes_and_hard_does_not(toy: Toy) -> None:
    soft, hard = toy.results["comparison"]["soft"], toy.results["comparison"]["hard"]
    assert (soft["teacher_specific"], soft["inherited"], soft["student_only"]) == (5, 5, 0)
    assert (hard["teacher_specific"], hard["inherited"], hard["student_only"]) == (5, 0, 2)
    versus = toy.results["soft_vs_hard"]
    assert (versus["both"], versus["soft_only"], versus["hard_only"]) == (0, 5, 0)


def last_token_model(folder: Path, seed: int) -> Any:
    """A toy model whose next token depends on the last one alone: prefixes that end alike have one suffix."""
    model = toys.save_model(folder, seed)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.save_pretrained(folder)
    return model


def test_inheritance_under_near_verbatim_extraction_is_set_logic_on_what_it_wrote(toy: Toy) -> None:
    exposed: dict[str, set[int]] = {}
    for name in ("teacher", "baseline", "soft", "hard"):
        near = pq.read_table(toy.run / "attacks" / "near_verbatim" / name).to_pylist()
        exposed[name] = {row["example_id"] for row in near if row["edit_distance"] is not None}
    specific = exposed["teacher"] - exposed["baseline"]
    assert specific
    for student in ("soft", "hard"):
        result = toy.results["attacks"][student]["near_verbatim"]["inheritance"]
        assert result["teacher_specific"] == len(specific)
        assert result["inherited"] == len(specific & exposed[student])
        assert result["inheritance_floor"] is result["excess_inheritance"] is None
    assert toy.results["attacks"]["teacher"]["near_verbatim"]["inheritance"] is None
    assert "Inherited under each attack" in (toy.run / "report.html").read_text()


def test_what_differs_behind_the_suffix_is_an_occurrence_and_one_suffix_is_one_text(tmp_path: Path) -> None:
    """40 documents under one header are one example; the same suffix behind another prefix is another."""
    toys.write_audit(tmp_path)
    model, random = last_token_model(tmp_path / "soft", 1), np.random.default_rng(5)
    header = toys.memorized_window(model, random)
    alike = [*random.integers(2, toys.VOCABULARY, toys.PREFIX - 1).tolist(), *header[toys.PREFIX - 1 :]]
    tails = [random.integers(2, toys.VOCABULARY, 6).tolist() for _ in range(40)]
    windows = [*([*header, *tail] for tail in tails), [*alike, *tails[0]], *tails[:3]]
    toys.write_corpus(tmp_path / "corpus.jsonl", windows)
    done = kdaudit("run", "audit.yaml", "--set", "corpus.window=20", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "runs" / "toy" / "results.json").read_text())
    corpus, soft = results["corpus"], results["models"]["soft"]
    assert (corpus["windows"], corpus["examples"]) == (41, 2)
    assert (soft["memorized"], soft["windows_memorized"], soft["rate"]) == (2, 41, 1.0)
    assert sorted(leak["copies"] for leak in results["leaks"] if "soft" in leak["memorized_by"]) == [1, 40]
    assert results["leak_suffixes"] == {"leaks": 1, "students": {"soft": 1, "hard": 0}}
    assert "soft: what it continues word for word is 1 distinct text" in done.stdout
    rows = pq.read_table(tmp_path / "runs" / "toy" / "leaks.parquet").to_pylist()
    assert rows[0]["text"] == toys.text_of(windows[0]), "the first occurrence stands for all"
    for page in ("report.html", "report.public.html"):
        assert "suffixes are 1 distinct text" in (tmp_path / "runs" / "toy" / page).read_text()


def test_leaks_hold_text_and_what_each_model_says(toy: Toy) -> None:
    rows = pq.read_table(toy.run / "leaks.parquet").to_pylist()
    assert [row["example_id"] for row in rows] == [leak["example_id"] for leak in toy.results["leaks"]]
    assert len(rows) == 7
    assert [row["copies"] for row in rows] == [3, 1, 1, 1, 1, 1, 1]
    for row in rows:
        words = row["text"].split()
        assert row["prefix"].split() == words[: toys.PREFIX]
        assert row["suffix"].split() == words[toys.PREFIX :]
        for said in row["models"]:
            heard = said["continuation"].split()
            assert len(heard) == toys.SUFFIX
            agree = np.cumprod([a == b for a, b in zip(heard, words[toys.PREFIX :], strict=True)])
            assert agree.sum() == said["matched_tokens"]


def test_perplexity_is_that_of_a_plain_forward_pass(toy: Toy) -> None:
    lines = (toy.folder / "holdout.jsonl").read_text().splitlines()
    windows = [[int(word[1:]) for word in json.loads(line)["text"].split()] for line in lines]
    model = AutoModelForCausalLM.from_pretrained(toy.folder / "hard").double()
    losses = []
    for window in windows:
        with torch.inference_mode():
            logits = model(torch.tensor([window])).logits[0]
        for place, token in enumerate(window[1:]):
            losses.append(-torch.log_softmax(logits[place], -1)[token].item())
    expected = math.exp(sum(losses) / len(losses))
    assert toy.results["models"]["hard"]["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_membership_is_that_of_plain_forward_passes(toy: Toy) -> None:
    """Every score of every example compared, by double-precision passes and the papers' formulas."""
    folders = [toy.run / name for name in ("examples", "holdout/examples")]
    tables = [pq.read_table([*folder.glob("*.parquet")]).sort_by("example_id") for folder in folders]
    drawn = plain_samples(*(np.ones(len(table)) for table in tables), 0)
    rows = [table.take(places) for table, places in zip(tables, drawn, strict=True)]
    assert len(rows[0]) == len(rows[1]) == 10
    read = {}
    for name in ("teacher", "baseline", "soft", "hard"):
        model = AutoModelForCausalLM.from_pretrained(toy.folder / name).double()
        read[name] = [[_tokens(model, ids) for ids in table["token_ids"].to_pylist()] for table in rows]
    texts = [[toys.text_of(ids) for ids in table["token_ids"].to_pylist()] for table in rows]
    cut = toys.PREFIX - 1  # the first token has no score
    for name, kinds in read.items():
        scores: dict[str, Any] = {
            "loss": lambda kind, n, k=kinds: slow.loss(k[kind][n], []),
            "zlib": lambda kind, n, k=kinds: slow.zlib_score(k[kind][n], [], texts[kind][n]),
            "min_k": lambda kind, n, k=kinds: slow.min_k(k[kind][n][cut:]),
            "min_k_plus_plus": lambda kind, n, k=kinds: slow.min_k_plus_plus(k[kind][n][cut:]),
        }
        for role in {"teacher", "baseline"} - {name}:
            other = read[role]
            scores[f"reference_{role}"] = lambda kind, n, k=kinds, o=other: slow.reference(
                k[kind][n], [], o[kind][n], []
            )
            if role == "baseline":
                scores["ez_baseline"] = lambda kind, n, k=kinds, o=other: slow.ez_ratio(
                    k[kind][n][cut:], o[kind][n][cut:]
                )
        found = toy.results["attacks"][name]["membership"]
        assert (found["members"], found["nonmembers"]) == (10, 10)
        expected = {
            key: slow.auc(*([of(kind, n) for n in range(10)] for kind in (0, 1)))
            for key, of in scores.items()
        }
        aucs = {key: one["auc"] for key, one in found["score"].items()}
        if name == "soft":  # the teacher's weights: the ratio is 0 but for rounding, of either sign
            del expected["reference_teacher"], aucs["reference_teacher"]
        assert aucs == pytest.approx(expected)
        assert (found["against_teacher"] is None) == (name in ("teacher", "baseline"))
    soft = toy.results["attacks"]["soft"]["membership"]["against_teacher"]
    assert soft["difference"] == 0
    assert "membership_too_few" in {note["code"] for note in toy.results["notes"]}
    assert "Membership" in (toy.run / "report.public.html").read_text()


def _tokens(model: Any, ids: list[int]) -> slow.Text:
    with torch.inference_mode():
        rows = model(torch.tensor([ids])).logits[0].softmax(-1).tolist()
    return [slow.Token(row, token) for row, token in zip(rows, ids[1:], strict=False)]


def test_what_rounding_may_decide_is_counted_where_margins_are_known(toy: Toy) -> None:
    table = pq.read_table([*(toy.run / "examples").glob("*.parquet")]).sort_by("example_id")
    for name in ("teacher", "baseline"):
        measured = toy.results["models"][name]
        flags = pq.read_table(toy.run / "extraction" / name).sort_by("example_id")["memorized"].to_pylist()
        model = AutoModelForCausalLM.from_pretrained(toy.folder / name).double()
        counts = {True: 0, False: 0}
        for tokens, memorized in zip(table["token_ids"].to_pylist(), flags, strict=True):
            with torch.inference_mode():
                logits = model(torch.tensor([tokens])).logits[0].tolist()
            leads = []
            for place in range(toys.PREFIX - 1, toys.PREFIX + toys.SUFFIX - 1):
                row, token = logits[place], tokens[place + 1]
                rising = sorted(row)
                spread = rising[-1] - rising[(len(row) - 1) // 2]
                leads.append((row[token] - max(row[:token] + row[token + 1 :]), spread))
            lead, spread = min(leads)
            counts[memorized] += abs(lead) <= measured["engine_check"]["tolerance"] * spread
        assert measured["below_rounding"] == {
            "memorized": counts[True],
            "others": counts[False],
            "share": counts[True] / measured["memorized"],
        }
    assert toy.results["models"]["hard"]["below_rounding"] is None
    notes = [note["text"] for note in toy.results["notes"] if note["code"] == "rounding_unknown"]
    assert "hard" in notes[0]
    assert "teacher," not in notes[0]


def test_files_with_text_are_for_their_owner(toy: Toy) -> None:
    private = [toy.run / name for name in PRIVATE] + list((toy.run / "examples").iterdir())
    for path in private:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_finished_run_is_shown_not_repeated(toy: Toy) -> None:
    before = {path: path.stat().st_mtime_ns for path in toy.run.rglob("*") if path.is_file()}
    again = kdaudit("run", "audit.yaml", "--json", cwd=toy.folder)
    assert again.returncode == 0
    assert json.loads(again.stdout) == toy.results
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert kdaudit("verify", toy.run, cwd=toy.folder).returncode == 0


def test_changed_extraction_is_refused_with_what_changed(toy: Toy) -> None:
    done = kdaudit("run", "audit.yaml", "--set", "extraction.suffix_tokens=7", cwd=toy.folder)
    assert done.returncode == 2
    assert "extraction.suffix_tokens: 8 then, 7 now" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["gate.max_rate=0.5"], 0),
        (["gate.max_rate=0.1"], 1),
        (["gate.max_inherited=0", "gate.students=[hard]"], 0),
        (["gate.max_inherited=0"], 1),
    ],
)
def test_changed_gate_repeats_the_last_stages_and_sets_the_exit_code(
    toy: Toy, tmp_path: Path, limits: list[str], code: int
) -> None:
    run = shutil.copytree(toy.run, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in run.rglob("part-*")}
    words = [word for limit in limits for word in ("--set", limit)]
    done = kdaudit("run", toy.folder / "audit.yaml", "--out", run, *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "perplexity" not in done.stderr, "nothing is measured, nor said to be"
    assert json.loads((run / "results.json").read_text())["gate"]["verdict"] == ["pass", "fail"][code]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert kdaudit("verify", run, cwd=tmp_path).returncode == 0


def test_a_sample_too_small_to_tell_is_inconclusive(toy: Toy, tmp_path: Path) -> None:
    words = ["--set", "corpus.limit=10", "--set", "gate.max_rate=0.3", "--set", "holdout=null"]
    done = kdaudit("run", toy.folder / "audit.yaml", "--out", "run", *words, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["corpus"]["examples"] == 10
    assert results["corpus"]["sampled"]


def test_without_baseline_and_with_one_student_the_rest_stands(toy: Toy, tmp_path: Path) -> None:
    done = kdaudit(
        "run", toy.folder / "audit.yaml", "--out", tmp_path / "run", "--set", "models.baseline=null",
        "--set", "models.students=[{name: only, path: ./hard, kd: hard}]", "--set", "holdout=null", "--json",
        cwd=toy.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["models"]["only"]["memorized"] == 2
    assert results["models"]["only"]["perplexity"] is None
    assert {*results["comparison"]["only"].values()} == {None}
    assert results["soft_vs_hard"] is None
    assert [leak["classes"] for leak in results["leaks"]] == [{"only": "unknown"}] * 2
    noted = [(note["code"], note["subject"]) for note in results["notes"]]
    for note in (
        ("no_baseline", "only"),
        ("no_holdout", "holdout"),
        ("soft_vs_hard_missing", "soft_vs_hard"),
        ("no_predictor", "predictor"),
        ("membership_not_measured", "attacks"),
    ):
        assert note in noted


def test_an_untouched_base_is_a_column_of_its_own_and_no_baseline(toy: Toy, tmp_path: Path) -> None:
    """The base has the weights of soft: it completes all that soft memorizes and nothing of hard's."""
    done = kdaudit(
        "run", toy.folder / "audit.yaml", "--out", tmp_path / "run", "--set", "models.base=./soft", "--json",
        cwd=toy.folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert {name: model["role"] for name, model in results["models"].items()} == {
        "teacher": "teacher", "baseline": "baseline", "base": "base", "soft": "student", "hard": "student",
    }  # fmt: skip
    assert results["models"]["base"]["memorized"] == 5
    also = {name: compared.pop("also_base") for name, compared in results["comparison"].items()}
    assert also == {
        "soft": {"memorized": 5, "easy_core": 0, "inherited": 5},
        "hard": {"memorized": 0, "easy_core": 0, "inherited": 0},
    }
    without = {name: {**one} for name, one in toy.results["comparison"].items()}
    assert [one.pop("also_base") for one in without.values()] == [None, None]
    assert results["comparison"] == without
    assert results["soft_vs_hard"] == toy.results["soft_vs_hard"]
    assert {leak["example_id"]: leak["classes"] for leak in results["leaks"]} == {
        leak["example_id"]: leak["classes"] for leak in toy.results["leaks"]
    }
    assert [note["code"] for note in toy.results["notes"]].count("no_base") == 1
    assert not any(note["code"] == "no_base" for note in results["notes"])
    page = (tmp_path / "run" / "report.public.html").read_text()
    assert "Base model (untouched)" in page
    assert "Completed by the untouched base model too, of what it inherits" in page
    assert "untouched base model too" not in (toy.run / "report.public.html").read_text()


def test_end_of_text_inside_a_suffix_is_a_token_like_any_other(tmp_path: Path) -> None:
    """A model that always says the end token memorizes a window of nothing else."""
    toys.write_audit(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hard")
    with torch.no_grad():
        model.lm_head.weight.zero_()  # all logits tie at 0, and the first token is the end token
    model.save_pretrained(tmp_path / "hard")
    toys.write_corpus(tmp_path / "corpus.jsonl", [[5] * toys.PREFIX + [0] * toys.SUFFIX])
    done = kdaudit("run", "audit.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    model = json.loads(done.stdout)["models"]["hard"]
    assert model["memorized"] == 1
    assert model["engine_check"]["windows"] == 1, "the check was made, and not given up"


def _kept(results: dict[str, Any]) -> dict[str, Any]:
    """All but times, and the hashes under a key of the run's own."""
    results = json.loads(json.dumps(results))
    del results["created"]
    for model in results["models"].values():
        del model["seconds"], model["tokens_per_second"], model["engine_check"]["seconds"]
    for leak in results["leaks"]:
        del leak["suffix_hmac"]
    return results


def test_an_interrupted_run_exits_130_goes_on_and_finds_the_same(toy: Toy, tmp_path: Path) -> None:
    """As a user meets it; tests/test_resume.py ends runs in every other way."""
    command = [sys.executable, "-m", "kdaudit", "run", str(toy.folder / "audit.yaml"), "--out", "run"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        while not (tmp_path / "run" / "extraction/teacher").exists():
            assert process.poll() is None, "the run ended before it could be interrupted"
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert not (tmp_path / "run" / "results.json").exists()
    done = kdaudit(*command[3:], "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert _kept(json.loads(done.stdout)) == _kept(toy.results)
    assert kdaudit("verify", "run", cwd=tmp_path).returncode == 0


def test_a_model_that_changes_after_it_was_hashed_is_refused_and_nothing_of_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toys.write_audit(tmp_path)
    weights, swapped = tmp_path / "hard" / "model.safetensors", tmp_path / "teacher" / "model.safetensors"
    own = weights.read_bytes()
    config = load_audit(tmp_path / "audit.yaml", ["predictor.enabled=false"])

    def audit() -> AuditResults:
        return run_audit(config, tmp_path / "run", fresh=False, progress=lambda *_: None, warn=print)

    write = pipeline.write_examples

    def swap(*given: Any) -> Any:
        weights.write_bytes(swapped.read_bytes())
        return write(*given)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "write_examples", swap)
        with pytest.raises(ModelError, match=r"models\.students\.1\.path: .*: changed while it was audited"):
            audit()
    weights.write_bytes(own)
    results = audit()
    assert results.models["hard"].memorized == 2
    assert results.models["hard"].engine_check is not None


def test_a_folder_of_modules_named_like_the_librarys_does_no_harm(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "queue.py").write_text("raise SystemExit('shadowed')")
    words = ["--set", "corpus.limit=5", "--set", "holdout=null"]
    done = kdaudit_script("run", toy.folder / "audit.yaml", "--out", "run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_vllm
def test_vllm_finds_the_same(toy: Toy, tmp_path: Path) -> None:
    words = ["--set", "extraction.engine=vllm", "--json"]
    done = kdaudit("run", toy.folder / "audit.yaml", "--out", tmp_path / "run", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["comparison"] == toy.results["comparison"]
    assert results["extraction"]["engine"] == "vllm"
    assert results["models"]["hard"]["survival"] == toy.results["models"]["hard"]["survival"]
