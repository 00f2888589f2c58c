"""Canaries under a student with a tokenizer of its own and under one behind an endpoint, by plain passes."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import text_models
import torch
import toys
from endpoint_stand_in import StandIn
from oracles.text_greedy import begins_with
from test_exposure import by_sorting
from test_text_audit import read_alone
from text_models import TEXTS
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit import open_run
from kdaudit.attacks import GREEDY
from kdaudit.inference import EngineInfo
from kdaudit.pipelines.stages.attacked import attack_folder
from kdaudit.pipelines.stages.canary_results import Planted, canaries_result, canary_notes, measured_canaries
from kdaudit.pipelines.stages.scores import OF_CANARIES
from kdaudit.pipelines.stages.shard_notes import shard_notes
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import PLANTED_SCHEMA, SCORES_SCHEMA
from kdaudit.runs.store import RunStore
from kdaudit.schemas.corpus import CorpusResult, Skipped
from kdaudit.schemas.results import AuditResults

LEARNED = TEXTS[:4]
"""Planted four times; the students know them, `own` the first three."""


class Run(NamedTuple):
    folder: Path
    results: AuditResults
    rows: list[dict[str, Any]]
    """Canaries and controls as examples, with their repetitions."""


def write_canaries(path: Path) -> None:
    draw, words = np.random.default_rng(0), " ".join(TEXTS).split()
    drawn = [" ".join(draw.choice(words, 14)) for _ in range(30)]
    texts = [*((text, 4) for text in LEARNED), *((text, 1) for text in drawn[:4])]
    texts += [(text, 0) for text in drawn[4:]]
    rows = [
        {"id": f"canary-{row}", "family": "random_word", "repetitions": times, "text": text}
        for row, (text, times) in enumerate(texts)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("models")
    text_models.learned(folder / "teacher", text_models.byte_level(), LEARNED)
    text_models.learned(folder / "own", text_models.sentencepiece(), LEARNED[:3], steps=90, seed=2)
    write_canaries(folder / "canaries.jsonl")
    kinds = (AutoModelForCausalLM, AutoTokenizer)
    served = StandIn(*(kind.from_pretrained(folder / "teacher") for kind in kinds))
    served.context = 512
    with served.running() as url:
        students = [
            {"name": "own", "path": "./own", "kd": "hard"},
            {"name": "served", "path": url, "model": "big", "kd": "soft"},
        ]
        text_models.write_audit(
            folder,
            {"teacher": "./teacher", "students": students},
            holdout=None,
            predictor={"enabled": False},
            attacks={"canaries": "./canaries.jsonl", "near_verbatim": None, "sampled": None},
            gate={"max_canaries_extracted": 0.3},
        )
        done = toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=folder)
        assert done.returncode == 1, done.stderr
    opened = open_run(folder / "run")
    examples = {row["example_id"]: row for row in opened.examples(canaries=True).to_pylist()}
    rows = [examples[row["example_id"]] | row for row in opened.canaries().to_pylist()]
    return Run(folder, opened.results, rows)


def _likelihood(model: Any, folder: Path, row: dict[str, Any]) -> float:
    """Ln p of the suffix's text in the model's own tokens, one plain pass."""
    prompt, whole = (read_alone(folder, row["text"], row[end]) for end in ("prompt_end", "target_end"))
    assert whole[: len(prompt)] == prompt
    with torch.inference_mode():
        logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return float(sum(logits[place - 1, whole[place]] for place in range(len(prompt), len(whole))))


def _extracted(folder: Path, rows: list[dict[str, Any]], times: int) -> int:
    """How many of those planted so often the model reproduces."""
    chosen = [row for row in rows if row["repetitions"] == times]
    prompts = [read_alone(folder, row["text"], row["prompt_end"]) for row in chosen]
    targets = [row["text"][row["prompt_end"] : row["target_end"]] for row in chosen]
    return sum(begins_with(folder, prompts, targets))


def test_a_student_that_reads_other_tokens_is_measured_by_its_own(run: Run) -> None:
    found = run.results.attacks["own"].canaries
    assert found is not None
    assert run.results.models["own"].matched_by == "text"
    folder = run.folder / "own"
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    likelihoods = [_likelihood(model, folder, row) for row in run.rows]
    controls = [one for row, one in zip(run.rows, likelihoods, strict=True) if not row["repetitions"]]
    for times in (1, 4):
        chosen = [place for place, row in enumerate(run.rows) if row["repetitions"] == times]
        own = found.repetitions[str(times)]
        assert (own.canaries, own.extracted) == (len(chosen), _extracted(folder, run.rows, times))
        assert own.exposure is not None
        expected = median(by_sorting(likelihoods[place], controls) for place in chosen)
        assert own.exposure.median == pytest.approx(expected, abs=1e-9)
    assert found.repetitions["4"].extracted >= 2, "else the test tells nothing"


def test_of_a_student_behind_an_endpoint_extraction_is_measured_and_exposure_is_null(run: Run) -> None:
    found = run.results.attacks["served"].canaries
    assert found is not None
    for times in (1, 4):
        own = found.repetitions[str(times)]
        expected = _extracted(run.folder / "teacher", run.rows, times)
        assert (own.extracted, own.exposure) == (expected, None)
    assert found.repetitions["4"].extracted >= 2
    assert found.highest_exposure is None
    (note,) = [note for note in run.results.notes if note.code == "no_exposure"]
    assert "not known of served: it takes" in note.text
    assert "exposure not known" in (run.folder / "run" / "report.public.html").read_text()
    checks = {check.student: check.value for check in run.results.gate.checks}
    assert checks["served"] == found.extracted / found.planted


def _planted(**families: list[int]) -> Planted:
    """Families with the repetitions of their rows."""
    names = [name for name, rows in families.items() for _ in rows]
    repetitions = [times for rows in families.values() for times in rows]
    return Planted(np.arange(len(names)), np.array(names, object), np.array(repetitions, np.int32))


FEW = _planted(random_word=[0] * 25 + [4, 4], fake_record=[0] * 19 + [4, 4, 4, 8])


def test_a_family_with_too_few_controls_left_has_no_exposure() -> None:
    likelihoods = np.random.default_rng(3).normal(size=len(FEW.ids))
    likelihoods[FEW.families == "fake_record"] += 100
    extracted = FEW.repetitions == 4
    found = canaries_result(FEW, extracted, likelihoods)
    four, eight = found.repetitions["4"], found.repetitions["8"]
    word = [place for place in range(27) if FEW.repetitions[place]]
    expected = median(by_sorting(likelihoods[place], likelihoods[:25].tolist()) for place in word)
    assert four.exposure is not None
    assert four.exposure.median == pytest.approx(expected)
    assert (four.canaries, four.extracted, eight.exposure) == (5, 5, None)
    assert (found.controls, found.highest_exposure) == (44, pytest.approx(np.log2(26)))
    alone = canaries_result(_planted(fake_record=[0] * 19 + [4]), np.zeros(20, bool), np.zeros(20))
    assert (alone.repetitions["4"].exposure, alone.highest_exposure) == (None, None)
    both = _planted(random_word=[0] * 25 + [4], fake_record=[0] * 30 + [4])
    most = canaries_result(both, np.zeros(57, bool), np.zeros(57)).highest_exposure
    assert most == pytest.approx(np.log2(31)), "a canary is compared within its family"


def test_what_a_model_does_with_a_canary_that_is_left_out_counts_for_no_other(tmp_path: Path) -> None:
    """Of 24 examples the second is not measured; the third is a canary, known by heart, the rest controls."""
    audited: Any = SimpleNamespace(name="soft")
    ids, third = np.arange(24), np.arange(24) == 2
    columns = dict.fromkeys(SCORES_SCHEMA.names, [None] * 24)
    columns |= {"example_id": ids, "log_probabilities": [[-1.0 if one else -9.0] * 2 for one in third]}
    planted = [np.delete(column, 1) for column in (ids, np.full(24, "random_word"), 4 * third)]
    notes = shard_notes(EngineInfo("x", "1", "cpu", "float32"), 0.0)
    with RunStore(tmp_path / "run", "run", {}) as run:

        def write(folder: str, table: pa.Table) -> None:
            run.write_table(layout.shard(folder, 0), table.replace_schema_metadata(notes))

        run.write_table(layout.PLANTED, pa.table(planted, schema=PLANTED_SCHEMA))
        run.write_table(OF_CANARIES.sample, pa.table({"example_id": ids, "weight": np.ones(24)}))
        rows = GREEDY.rows(ids, np.where(third, 4, 0), np.full(24, 4))
        write(layout.beside_corpus(layout.CANARIES, attack_folder(GREEDY, audited)), rows)
        write(OF_CANARIES.scores("soft"), pa.table(columns, schema=SCORES_SCHEMA))
        work: Any = SimpleNamespace(run=run, models=SimpleNamespace(with_weights=[audited]))
        found = measured_canaries(work, audited)
    assert found is not None
    own = found.repetitions["4"]
    assert (own.canaries, own.extracted, found.controls, found.controls_extracted) == (1, 1, 22, 0)
    assert own.exposure is not None
    assert own.exposure.median == found.highest_exposure == pytest.approx(np.log2(23))


def test_notes_say_which_families_and_models_have_no_exposure() -> None:
    table = pa.table([FEW.ids, FEW.families, FEW.repetitions], schema=PLANTED_SCHEMA)
    skipped = Skipped(too_short=2, empty=0, undecodable=0)
    counted: Any = CorpusResult(
        path="c", documents=len(FEW.ids) + 3, windows=50, examples=50, skipped=skipped, sampled=False,
        fingerprint="",
    )  # fmt: skip
    run: Any = SimpleNamespace(has=lambda _: True, read_table=lambda _: table, read_json=lambda *_: counted)
    audited = [SimpleNamespace(name=name) for name in ("teacher", "served")]
    models: Any = SimpleNamespace(all=audited, with_weights=audited[:1])
    notes = {note.code: note.text for note in canary_notes(run, models)}
    assert notes.keys() == {"canaries_left_out", "canaries_few_controls", "no_exposure"}
    assert "not measured: 3 of 53." in notes["canaries_left_out"]
    assert "fewer than 20 controls that are measured: fake_record 19." in notes["canaries_few_controls"]
    assert "not known of served:" in notes["no_exposure"]
    empty: Any = SimpleNamespace(has=lambda _: False)
    assert canary_notes(empty, models) == []
