"""An audit of canaries: toy models that know some by construction, against plain forward passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import toys
from test_exposure import by_sorting

from kdaudit import open_run
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, UsageError
from kdaudit.schemas.results import AuditResults

FAMILIES = ("random_word", "random_token")
KNOWN = 3
"""Canaries of each family and number of repetitions that the teacher reproduces, of 4, where that is 5."""


class Run(NamedTuple):
    folder: Path
    rows: list[dict[str, Any]]
    results: AuditResults

    def audit(self, *words: str) -> Any:
        return toys.kdaudit("run", "audit.yaml", "--out", "run", *words, cwd=self.folder)


def write_canaries(path: Path, model: Any, controls: int = 30) -> list[dict[str, Any]]:
    draw, rows = np.random.default_rng(2), []
    for family in FAMILIES:
        for repetitions, count in ((0, controls), (2, 4), (5, 4)):
            for number in range(count):
                ids = draw.integers(2, toys.VOCABULARY, toys.PREFIX + toys.SUFFIX).tolist()
                if repetitions == 5 and number < KNOWN:
                    ids = toys.memorized_window(model, draw)
                name = f"{family}-{repetitions}-{number}"
                rows.append(
                    {"id": name, "family": family, "repetitions": repetitions, "text": toys.text_of(ids)}
                )
    alike = toys.text_of(draw.integers(2, toys.VOCABULARY, toys.PREFIX + toys.SUFFIX).tolist())
    left_out = (("a", 0, alike), ("b", 2, f"{alike} w9"), ("short", 2, "w7 w8"))
    lines = [*rows, *({**rows[0], "id": i, "repetitions": n, "text": text} for i, n, text in left_out)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("canaries")
    toys.write_audit(
        folder,
        attacks={"canaries": "./canaries.jsonl", "sampled": None, "membership": None},
        predictor={"enabled": False},
        holdout=None,
        models={
            "teacher": "./teacher",
            "students": [{"name": name, "path": f"./{name}", "kd": name} for name in ("soft", "hard")],
        },
        gate={"max_canaries_extracted": 0.3},
    )
    rows = write_canaries(folder / "canaries.jsonl", toys.save_model(folder / "again", 1))
    done = toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=folder)
    assert done.returncode == 1, done.stderr  # soft reproduces 6 of 16
    return Run(folder, rows, AuditResults.model_validate_json((folder / "run" / "results.json").read_text()))


def _forward(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[float], list[bool]]:
    """Ln p of each suffix and whether it is the argmax throughout, one plain pass a text."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    likelihoods, greedy = [], []
    for row in rows:
        ids = torch.tensor([[int(word[1:]) for word in row["text"].split()]])
        with torch.inference_mode():
            logits = model(ids).logits[0, toys.PREFIX - 1 : -1].double().log_softmax(-1)
        own = ids[0, toys.PREFIX :]
        likelihoods.append(float(logits.gather(-1, own[:, None]).sum()))
        greedy.append(bool((logits.argmax(-1) == own).all()))
    return likelihoods, greedy


@pytest.mark.parametrize("name", ["teacher", "soft", "hard"])
def test_each_model_s_exposure_and_extraction_are_those_of_plain_passes(name: str, run: Run) -> None:
    likelihoods, greedy = _forward(run.folder / name, run.rows)
    found = run.results.attacks[name].canaries
    assert found is not None
    assert (found.controls, found.planted) == (60, 16)
    assert [*found.repetitions] == ["2", "5"]
    controls = {
        family: [
            value
            for row, value in zip(run.rows, likelihoods, strict=True)
            if row["family"] == family and not row["repetitions"]
        ]
        for family in FAMILIES
    }
    for key, own in found.repetitions.items():
        chosen = [place for place, row in enumerate(run.rows) if str(row["repetitions"]) == key]
        expected = sorted(by_sorting(likelihoods[at], controls[run.rows[at]["family"]]) for at in chosen)
        assert own.canaries == len(chosen) == 8
        assert own.extracted == sum(greedy[at] for at in chosen)
        assert own.exposure is not None
        assert own.exposure.median == pytest.approx((expected[3] + expected[4]) / 2, abs=1e-9)
    assert found.controls_extracted == sum(
        hit for row, hit in zip(run.rows, greedy, strict=True) if not row["repetitions"]
    )


def test_what_a_model_reproduces_stands_above_all_controls(run: Run) -> None:
    for name, extracted in (("teacher", 2 * KNOWN), ("soft", 2 * KNOWN), ("hard", 0)):
        found = run.results.attacks[name].canaries
        assert found is not None
        five = found.repetitions["5"]
        assert five.extracted == extracted
        assert five.exposure is not None
        at_the_top = five.exposure.median == found.highest_exposure == pytest.approx(np.log2(31))
        assert at_the_top == (extracted > 0)


def test_the_gate_limits_the_share_of_planted_canaries(run: Run) -> None:
    checks = {check.student: check for check in run.results.gate.checks}
    assert (checks["soft"].value, checks["soft"].verdict) == (6 / 16, "fail")
    assert (checks["hard"].value, checks["hard"].verdict) == (0.0, "pass")
    page = (run.folder / "run" / "report.public.html").read_text()
    assert "planted canaries reproduced word for word" in page


def test_pages_show_canaries_and_none_of_their_text(run: Run) -> None:
    for name in ("report.html", "report.public.html"):
        page = (run.folder / "run" / name).read_text()
        section = page[page.index('id="canaries"') :].partition("</section>")[0]
        assert "16 texts that nobody could guess were planted" in section
        assert "Planted 2 times" in section
        assert "6 of 8 extracted" in section
        assert run.rows[-1]["text"] not in page
    assert "canaries" not in {leak.document_id for leak in run.results.leaks}


def test_python_gives_the_tables_of_canaries(run: Run) -> None:
    opened = open_run(run.folder / "run")
    planted = opened.canaries().to_pylist()
    assert [row["repetitions"] for row in planted] == [row["repetitions"] for row in run.rows]
    assert [row["family"] for row in planted] == [row["family"] for row in run.rows]
    texts = opened.examples(canaries=True)
    ids = [row["example_id"] for row in planted]
    assert texts["text"].take(ids).to_pylist() == [row["text"] for row in run.rows]
    likelihoods, greedy = _forward(run.folder / "soft", run.rows)
    assert opened.attack("greedy", "soft", canaries=True)["memorized"].take(ids).to_pylist() == greedy
    scores = opened.scores("soft", canaries=True)
    assert scores["weight"].to_pylist() == [1.0] * len(texts)
    sums = [sum(row) for row in scores["log_probabilities"].take(ids).to_pylist()]
    assert sums == pytest.approx(likelihoods, abs=1e-4)
    with pytest.raises(ValueError, match="holdout and canaries are two texts"):
        opened.scores("soft", holdout=True, canaries=True)
    with pytest.raises(UsageError, match=r"run the audit with attacks\.sampled"):
        opened.scores("soft")


def test_canaries_lie_in_the_run_like_the_holdout_and_short_ones_are_noted(run: Run) -> None:
    folder = run.folder / "run" / "canaries"
    texts = pq.read_table(folder / "examples" / "part-00000.parquet")["text"].to_pylist()
    assert texts[:-1] == [row["text"] for row in run.rows]
    planted = pq.read_table(folder / "planted.parquet")
    assert planted["repetitions"].to_pylist() == [row["repetitions"] for row in run.rows]
    assert {path.name for path in folder.iterdir()} >= {"examples", "extraction", "scores", "planted.parquet"}
    assert (folder / "examples" / "part-00000.parquet").stat().st_mode & 0o777 == 0o600
    (note,) = [note for note in run.results.notes if note.code == "canaries_left_out"]
    assert "not measured: 3 of 79" in note.text
    assert not (run.folder / "run" / "scores").exists(), "nothing else was asked of the scoring pass"


def test_other_canaries_repeat_only_what_depends_on_them(run: Run) -> None:
    before = json.loads((run.folder / "run" / "manifest.json").read_text())["files"]
    kept = (run.folder / "canaries.jsonl").read_bytes()
    try:
        write_canaries(run.folder / "canaries.jsonl", toys.save_model(run.folder / "again", 1), controls=40)
        done = run.audit()
        assert done.returncode == 1, done.stderr
        after = json.loads((run.folder / "run" / "manifest.json").read_text())["files"]
        same = {name for name in before if before[name] == after.get(name)}
        assert {name for name in before if name.startswith(("examples/", "extraction/"))} <= same
        assert not {name for name in same if name.startswith("canaries/scores/")}
        results = AuditResults.model_validate_json((run.folder / "run" / "results.json").read_text())
        found = results.attacks["soft"].canaries
        assert found is not None
        assert found.controls == 80
    finally:
        (run.folder / "canaries.jsonl").write_bytes(kept)


def test_without_canaries_nothing_of_them_is_left(run: Run) -> None:
    done = run.audit("--set", "attacks.canaries=null", "--set", "gate.max_canaries_extracted=null")
    assert done.returncode == 0, done.stderr
    assert not [*(run.folder / "run" / "canaries").rglob("*.parquet")]
    results = AuditResults.model_validate_json((run.folder / "run" / "results.json").read_text())
    assert all(one.canaries is None for one in results.attacks.values())
    opened = open_run(run.folder / "run")
    for read in (
        opened.canaries,
        lambda: opened.examples(canaries=True),
        lambda: opened.scores("soft", canaries=True),
    ):
        with pytest.raises(UsageError, match=r"attacks\.canaries"):
            read()


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("attacks.canaries=null", "gate.max_canaries_extracted: needs attacks.canaries"),
        (
            "corpus.messages=chat",
            "attacks.canaries: are plain text, and the corpus holds prompts and answers",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(override: str, says: str, run: Run) -> None:
    with pytest.raises(ConfigError) as error:
        load_audit(run.folder / "audit.yaml", (override,))
    assert says in str(error.value)


def test_validate_names_the_line_of_a_wrong_canary(run: Run, tmp_path: Path) -> None:
    (tmp_path / "wrong.jsonl").write_text('{"id": "a"}\n')
    done = toys.kdaudit(
        "validate", "audit.yaml", "--set", f"attacks.canaries={tmp_path}/wrong.jsonl", cwd=run.folder
    )
    assert done.returncode == 2
    assert "attacks.canaries" in done.stderr
    assert "wrong.jsonl:1: family: Field required" in done.stderr
