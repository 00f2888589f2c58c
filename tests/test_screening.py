"""`kdaudit screen` from the command line, on toy models whose memorization is known by construction."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import toys
from click.testing import CliRunner, Result

from kdaudit.cli import main
from kdaudit.config.yaml.loading import load_screen
from kdaudit.errors import StorageError
from kdaudit.risk import FEATURES, load_predictor
from kdaudit.runs import layout, store
from kdaudit.runs.arrow_schemas import FEATURES_SCHEMA
from kdaudit.runs.verify import check_files

SHARED, OTHERS = 40, 80


class Family:
    """A teacher, a baseline of nearly the same weights, and a corpus of which both memorize a third."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        random = np.random.default_rng(3)
        teacher = toys.save_model(folder / "teacher", 1)
        own = [toys.memorized_window(teacher, random) for _ in range(SHARED)]
        with torch.no_grad():
            for weights in teacher.parameters():
                weights += 1e-3 * weights.std() * torch.randn(weights.shape)
        teacher.save_pretrained(folder / "baseline")
        toys.tokenizer().save_pretrained(folder / "baseline")
        others = random.integers(2, toys.VOCABULARY, (OTHERS, toys.PREFIX + toys.SUFFIX)).tolist()
        self.own = [toys.text_of(ids) for ids in own]
        # Documents of two windows: the first ten hold a window of the models and one of nobody.
        self.documents = [f"{self.own[row]} {toys.text_of(others[row])}" for row in range(10)]
        self.documents += self.own[10:] + [toys.text_of(ids) for ids in others[10:]]
        self.documents += [self.own[12], "w5 w6"]  # a copy, and a document too short to be scored
        rows = [
            {"id": f"d{row}", "text": text, "source": {"year": 2000 + row % 3}}
            for row, text in enumerate(self.documents)
        ]
        self.corpus = folder / "corpus.jsonl"
        self.corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / "screen.yaml").write_text(
            "name: toy\n"
            f"corpus: {{path: ./corpus.jsonl, id: id, window: {toys.PREFIX + toys.SUFFIX}}}\n"
            "models: {teacher: ./teacher, baseline: ./baseline}\n"
            f"extraction: {{prefix_tokens: {toys.PREFIX}, suffix_tokens: {toys.SUFFIX}}}\n"
            "predictor: {trials: 5}\n"
            "max_flagged: 0.6\n"
        )

    def screen(self, out: str, *sets: str) -> Result:
        words = [part for one in sets for part in ("--set", one)]
        return CliRunner().invoke(
            main,
            ["screen", str(self.folder / "screen.yaml"), "--out", str(self.folder / out), *words, "--json"],
        )


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("screen"))


@pytest.fixture(scope="module")
def record(family: Family) -> dict[str, Any]:
    before = family.corpus.read_bytes()
    done = family.screen("out")
    assert done.exit_code == 0, done.output
    assert family.corpus.read_bytes() == before
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def kept_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for part in sorted((folder / "kept").iterdir()) for row in pq.read_table(part).to_pylist()]


def memorized(family: Family, record: dict[str, Any]) -> set[str]:
    """Texts that the forward pass found both models to memorize: by construction nearly all of `own`."""
    rows = pq.read_table(family.folder / "out" / "flagged.parquet").to_pylist()
    found = {row["text"] for row in rows if row["memorized_by"] == ["teacher", "baseline"]}
    assert found <= set(family.own)
    return found


def test_what_both_models_memorize_is_flagged(family: Family, record: dict[str, Any]) -> None:
    assert record["models"]["teacher"]["memorized"] == SHARED
    both = memorized(family, record)
    assert len(both) == record["flagged"]["memorized"] >= SHARED - 5
    flagged = pq.read_table(family.folder / "out" / "flagged.parquet")
    assert flagged.num_rows == record["flagged"]["examples"]
    assert all(reason for reason in flagged["reason"].to_pylist())
    risk = pq.read_table(family.folder / "out" / "risk.parquet")
    assert risk.num_rows == record["corpus"]["examples"] == SHARED + OTHERS
    assert risk["flagged"].to_pylist().count(True) == flagged.num_rows


def test_what_is_kept_is_the_rest_in_the_corpus_own_columns(family: Family, record: dict[str, Any]) -> None:
    rows = kept_rows(family.folder / "out")
    flagged = set(pq.read_table(family.folder / "out" / "flagged.parquet")["text"].to_pylist())
    expected = [
        {"id": f"d{number}", "text": text, "source": {"year": 2000 + number % 3}}
        for number, text in enumerate(family.documents)
        if not any(one in text for one in flagged)
    ]
    assert rows == expected
    assert rows[-1]["text"] == "w5 w6"
    kept = record["kept"]
    assert kept["documents_dropped"] == len(family.documents) - len(expected)
    assert kept["too_short"] == 1


def test_its_predictor_is_saved_and_guarantees_the_easy_core(family: Family, record: dict[str, Any]) -> None:
    predictor = load_predictor(family.folder / "out" / "predictor.json")
    assert predictor.labels == record["labels"] == "easy_core"
    assert record["predictor"]["status"] == "ok"
    assert record["predictor"]["auc"]["mean"] > 0.95
    assert any("teacher and baseline both memorize" in note["text"] for note in record["notes"])


def test_the_chosen_recall_stands_in_the_curve_with_the_counts_of_the_screening(
    record: dict[str, Any],
) -> None:
    points = record["tradeoff"]
    (chosen,) = (point for point in points if point["chosen"])
    assert chosen["recall"] == record["predictor"]["promise"]["recall"]
    assert chosen["threshold"] == record["predictor"]["threshold"]
    assert chosen["flagged_examples"] == record["flagged"]["examples"]
    assert chosen["flagged_windows"] == record["flagged"]["places"] == record["kept"]["windows_flagged"]
    assert chosen["flagged_documents"] == record["kept"]["documents_flagged"]
    for name in ("flagged_examples", "flagged_windows", "flagged_documents"):
        counts = [point[name] for point in points if point["reason"] is None]
        assert counts == sorted(counts)
    assert all(point["flagged_examples"] is None for point in points if point["reason"] is not None)


def test_files_are_whole_and_private_where_they_hold_text(family: Family, record: dict[str, Any]) -> None:
    out = family.folder / "out"
    assert check_files(out) == []
    for name in ("flagged.parquet", "screen.html", "kept/part-00000.parquet", "config.yaml"):
        assert (out / name).stat().st_mode & 0o077 == 0, name
    public = (out / "screen.public.html").read_text()
    assert not any(text[:30] in public for text in family.own)


def test_again_it_shows_what_is_there_and_a_changed_drop_repeats_the_last_steps(
    family: Family, record: dict[str, Any]
) -> None:
    out = family.folder / "out"
    features = (out / "features" / "part-00000.parquet").stat().st_mtime_ns
    assert json.loads(family.screen("out").stdout) == record
    changed = family.screen("out", "drop=window", "format=jsonl")
    assert changed.exit_code == 0, changed.output
    assert (out / "features" / "part-00000.parquet").stat().st_mtime_ns == features
    lines = (out / "kept" / "part-00000.jsonl").read_text().splitlines()
    assert not list((out / "kept").glob("*.parquet"))
    flagged = set(pq.read_table(out / "flagged.parquet")["text"].to_pylist())
    first = family.documents[0].split()
    rest = " ".join(first[toys.PREFIX + toys.SUFFIX :])
    texts = [json.loads(line)["text"].strip() for line in lines]
    assert (rest in texts) == (family.own[0] in flagged and rest not in flagged)
    assert not flagged & set(texts)
    assert check_files(out) == []
    assert family.screen("out", "drop=document").exit_code == 0


def test_features_of_an_earlier_version_are_measured_again(
    family: Family, record: dict[str, Any], tmp_path: Path
) -> None:
    """They had fewer columns, and their stage depended on none."""
    out = tmp_path / "out"
    shutil.copytree(family.folder / "out", out)
    with store.RunStore.reopen(out) as run:
        for shard in run.shards(layout.FEATURES):
            run.write_table(shard, run.read_table(shard, FEATURES_SCHEMA.names[:12]))
        for stage in (layout.FEATURES, "predictor"):
            with run.stage(stage):
                pass
        run.finish()
    again = family.screen(str(out))
    assert again.exit_code == 0, again.output
    assert {**json.loads(again.stdout), "created": None} == {**record, "created": None}
    assert pq.read_schema(out / "features" / "part-00000.parquet").names == FEATURES_SCHEMA.names


def test_the_paper_s_features_can_be_had(family: Family, record: dict[str, Any]) -> None:
    assert len(record["predictor"]["coefficients"]) > 4
    done = family.screen("paper", "predictor.features=paper")
    assert done.exit_code == 0, done.output
    assert tuple(json.loads(done.stdout)["predictor"]["coefficients"]) == FEATURES


def test_a_saved_predictor_screens_without_fitting(family: Family, record: dict[str, Any]) -> None:
    labels = f"predictor.labels={family.folder / 'out' / 'predictor.json'}"
    done = family.screen("again", labels)
    assert done.exit_code == 0, done.output
    again = json.loads(done.stdout)
    assert again["predictor"]["trials"] is None
    assert again["predictor"]["coefficients"] == record["predictor"]["coefficients"]
    assert again["flagged"]["examples"] == record["flagged"]["examples"]
    assert again["tradeoff"] is None
    assert any(note["code"] == "tradeoff_undefined" for note in again["notes"])


def test_students_labels_come_from_an_extraction(family: Family, record: dict[str, Any]) -> None:
    students = "models.students=[{name: soft, path: ./teacher}]"
    done = family.screen("student", "predictor.labels=student", students)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["models"]["soft"]["memorized"] == SHARED
    assert found["predictor"]["positives"] == SHARED


@pytest.mark.parametrize("text", ["{", '{"schema_version": "9"}', None])
def test_a_wrong_predictor_is_refused_and_nothing_is_written(
    family: Family, tmp_path: Path, text: str | None
) -> None:
    path = tmp_path / "predictor.json"
    if text is not None:
        path.write_text(text)
    done = family.screen("refused", f"predictor.labels={path}")
    assert done.exit_code == 2
    last = done.stderr.splitlines()[-1]
    assert last.startswith("kdaudit: ")
    assert str(path) in last
    assert "Traceback" not in done.stderr
    assert not (family.folder / "refused").exists()


def test_a_corpus_that_changed_is_refused(family: Family, record: dict[str, Any]) -> None:
    text = family.corpus.read_text()
    try:
        family.corpus.write_text(text.replace("w5 w6", "w5 w7"))
        done = family.screen("out")
        assert done.exit_code == 2
        assert "corpus.path (its content)" in done.stderr
    finally:
        family.corpus.write_text(text)


def test_a_screening_that_flags_too_much_ends_with_3_and_writes_no_corpus(
    family: Family, record: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(family.folder / "out", out)
    features = (out / "features" / "part-00000.parquet").stat().st_mtime_ns
    for _ in range(2):
        held = family.screen(str(out), "max_flagged=0.25")
        assert held.exit_code == 3, held.output
        told = json.loads(held.stdout)
        assert told["kept"] == {**record["kept"], "withheld": True, "rows_written": 0}
        assert not (out / "kept").exists()
    assert (out / "features" / "part-00000.parquet").stat().st_mtime_ns == features
    said = CliRunner().invoke(
        main, ["screen", str(family.folder / "screen.yaml"), "--out", str(out), "--set", "max_flagged=0.25"]
    )
    assert said.exit_code == 3
    assert re.match(
        r"toy: Nothing was written to kept/: [0-9.]+\s?% of the examples would be flagged", said.stdout
    )
    assert str(out / "kept") not in said.stdout
    assert "Nothing was written to kept/" in (out / "screen.public.html").read_text()
    assert check_files(out) == []
    again = family.screen(str(out))
    assert again.exit_code == 0, again.output
    assert {**json.loads(again.stdout), "created": None} == {**record, "created": None}


def test_by_default_a_quarter_may_be_flagged(family: Family, record: dict[str, Any]) -> None:
    text = (family.folder / "screen.yaml").read_text()
    bare = family.folder / "bare.yaml"
    bare.write_text(text.replace("max_flagged: 0.6\n", ""))
    assert load_screen(bare).max_flagged == 0.25


@pytest.mark.parametrize("moment", ["examples", "kept"])
def test_a_corpus_that_changes_while_it_is_read_is_refused(
    family: Family, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines are appended after the first batch was read, as by a job that still writes."""
    corpus, out = tmp_path / "corpus.jsonl", tmp_path / "out"
    whole = family.corpus.read_text()
    corpus.write_text(whole)
    module, name = {
        "examples": ("kdaudit.pipelines.stages.examples", "build_examples"),
        "kept": ("kdaudit.pipelines.screen", "write_kept"),
    }[moment]
    reading = getattr(importlib.import_module(module), name)

    def changing(*args: Any, **kwargs: Any) -> Any:
        done = reading(*args, **kwargs)
        corpus.write_text(whole + json.dumps({"id": "late", "text": "w7 " * 14}) + "\n")
        return done

    with monkeypatch.context() as patch:
        patch.setattr(module + "." + name, changing)
        refused = family.screen(str(out), f"corpus.path={corpus}")
    assert refused.exit_code == 2, refused.output
    assert "corpus.path: " in refused.stderr
    assert "changed while it was read" in refused.stderr
    assert not list((out / "kept").glob("*"))
    if moment == "examples":
        done = family.screen(str(out), f"corpus.path={corpus}")  # nothing was measured: it begins again
        assert json.loads(done.stdout)["corpus"]["documents"] == len(family.documents) + 1
    corpus.write_text(whole)
    if moment == "kept":
        done = family.screen(str(out), f"corpus.path={corpus}")
        assert done.exit_code == 0, done.output
        assert len(kept_rows(out)) == json.loads(done.stdout)["kept"]["rows_written"]


def test_a_record_that_was_damaged_in_place_is_told(
    family: Family, record: dict[str, Any], tmp_path: Path
) -> None:
    """Its size and time are as they were, as after a fault of the disk: no resumed run reads it again."""
    out = Path(shutil.copytree(family.folder / "out", tmp_path / "out"))
    path, later = out / "screen.json", (out / "manifest.json").stat().st_mtime_ns + 10**10
    before = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes().replace(b'"models"', b'"modelz"'))
    os.utime(path, ns=(before, before))
    os.utime(out / "manifest.json", ns=(later, later))
    done = family.screen(str(out))
    assert done.exit_code == 2, done.output
    assert "screen.json: models does not follow the schema (Field required)" in done.stderr


def test_how_tokenizers_are_taken_is_noted(family: Family, tmp_path: Path) -> None:
    models = []
    for name in ("teacher", "baseline"):
        config = Path(shutil.copytree(family.folder / name, tmp_path / name)) / "tokenizer_config.json"
        values = json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizerFast"}
        config.write_text(json.dumps(values))
        models.append(f"models.{name}={tmp_path / name}")
    done = family.screen(str(tmp_path / "out"), *models)
    assert done.exit_code == 0, done.output
    notes = [note["text"] for note in json.loads(done.stdout)["notes"] if note["code"] == "tokenizer_reading"]
    assert [note.partition(":")[0] for note in notes] == ["teacher, baseline"]


def test_a_finished_screening_is_shown_on_a_machine_that_could_not_run_it(
    family: Family, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = "kdaudit.pipelines.stages.opening"
    monkeypatch.setattr(f"{opening}.check_machine", lambda *_: pytest.fail("the engine was looked for"))
    done = family.screen("out")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == record


def test_what_cannot_be_written_is_told_before_anything_is_scored(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [json.loads(line) for line in family.corpus.read_text().splitlines()]
    lines[100]["source"] = "not an object"
    odd = tmp_path / "odd.jsonl"
    odd.write_text("".join(json.dumps(row) + "\n" for row in lines))
    monkeypatch.setattr("kdaudit.pipelines.screen.write_features", lambda *_: pytest.fail("scored first"))
    done = family.screen(str(tmp_path / "out"), f"corpus.path={odd}")
    assert done.exit_code == 2
    assert "row 101" in done.stderr
    assert "format to jsonl" in done.stderr


def test_without_enough_positives_only_what_is_memorized_is_flagged(family: Family, tmp_path: Path) -> None:
    lines = family.corpus.read_text().splitlines(keepends=True)
    few = tmp_path / "few.jsonl"
    few.write_text("".join(lines[10:15] + lines[40:70]))
    done = family.screen("few", f"corpus.path={few}")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["predictor"]["status"] == "underpowered"
    assert found["flagged"]["predicted"] == 0
    assert found["flagged"]["examples"] == found["flagged"]["memorized"]
    assert any(note["code"] == "no_predictor" for note in found["notes"])
    assert not (family.folder / "few" / "predictor.json").exists()
    risk = pq.read_table(family.folder / "few" / "risk.parquet")["risk"]
    assert risk.null_count == len(risk)


@pytest.mark.parametrize("moment", range(12))
def test_a_screening_that_stops_between_any_two_writes_ends_as_an_undisturbed_one(
    family: Family, record: dict[str, Any], moment: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the predictor on, a write of the store fails as on a full disk, after its file was unlisted."""
    out = tmp_path / "out"
    shutil.copytree(family.folder / "out", out)
    assert family.screen(str(out), "predictor.trials=3").exit_code == 0
    reference = screened(out)
    assert family.screen(str(out), "predictor.trials=4").exit_code == 0
    writes = 0
    writing = store.replacing

    @contextmanager
    def failing(path: Path, *, private: bool) -> Iterator[Path]:
        nonlocal writes
        writes += 1
        if writes == moment + 1:
            raise StorageError(f"{path}: the disk is full")
        with writing(path, private=private) as partial:
            yield partial

    monkeypatch.setattr(store, "replacing", failing)
    stopped = family.screen(str(out), "predictor.trials=3")
    monkeypatch.undo()
    assert stopped.exit_code == (4 if moment < writes else 0), stopped.output
    done = family.screen(str(out), "predictor.trials=3")
    assert done.exit_code == 0, done.output
    assert screened(out) == reference
    assert check_files(out) == []


def screened(out: Path) -> tuple[Any, ...]:
    told = json.loads((out / "screen.json").read_text())
    tables = [pq.read_table(out / name).to_pylist() for name in ("risk.parquet", "flagged.parquet")]
    return {**told, "created": None}, tables, kept_rows(out)


def test_another_format_is_told_in_the_record(family: Family, record: dict[str, Any], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(family.folder / "out", out)
    assert json.loads(family.screen(str(out), "format=jsonl").stdout)["format"] == "jsonl"
    assert "jsonl" in (out / "screen.html").read_text()


@pytest.mark.parametrize("command", ["report", "card"])
def test_a_screening_has_no_audits_reports(family: Family, record: dict[str, Any], command: str) -> None:
    done = CliRunner().invoke(main, [command, str(family.folder / "out")])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "kdaudit screen" in done.stderr


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_neither_takes_the_others_folder(
    family: Family, record: dict[str, Any], tmp_path: Path, fresh: tuple[str, ...]
) -> None:
    audit = toys.write_audit(tmp_path)
    screening = tmp_path / "screening"
    shutil.copytree(family.folder / "out", screening)
    done = toys.kdaudit("run", audit, "--out", screening, *fresh, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"kdaudit: {screening}: holds a screening, not an audit; choose another --out\n"
    assert (screening / "screen.json").exists()
    (screening / "screen.json").rename(screening / "results.json")
    done = toys.kdaudit("screen", family.folder / "screen.yaml", "--out", screening, *fresh, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == f"kdaudit: {screening}: holds an audit, not a screening; choose another --out\n"
    assert (screening / "results.json").exists()
