"""The annex for reviewers: this audit's figures by the opinion's paragraphs, what was not tested, no text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from report_page import Page, Rendered, bare, shingles
from sample_results import (
    HOSTILE_TITLE,
    LOCAL_PATH,
    bare_dict,
    hostile_dict,
    leak_row,
    sample_dict,
    write_run,
)

from kdaudit.cli import main
from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.report import render_reports
from kdaudit.runs.store import RunStore

PARAGRAPHS = ["34", "43(i)", "43(ii)", "43", "46", "55(i)", "55(i)", "55(ii)", "55(iii)", "55(iv)", "55(v)"]
PARAGRAPHS += ["55", "58"]


def rows(page: Page) -> list[list[str]]:
    return page.table("Questions, what this audit measured")[1:]


def annex(folder: Path, data: dict[str, Any] | None = None, **config: Any) -> Page:
    write_run(folder, data, config.pop("rows", None))
    render_reports(folder, ReportConfig(**config), annex=True)
    return Page((folder / "annex.html").read_text(encoding="utf-8"))


def test_the_figures_are_those_of_the_audit(tmp_path: Path) -> None:
    table = rows(annex(tmp_path))
    assert [row[0].replace(" ", "") for row in table] == PARAGRAPHS
    told = {row[0].replace(" ", ""): " ".join(row[3].split()) for row in table}
    assert "1,000,000 distinct examples (all there are in the corpus) of train.parquet" in told["34"]
    leaks = sample_dict()["leaks"]
    tagged = sum(bool(leak["tags"]) for leak in leaks)
    assert f"{len(leaks)} examples reproduced by at least one student; {tagged} of them" in told["34"]
    for words in ("701 of 1,000,000", "742 of 1,000,000"):
        assert words in told["43(i)"]
        assert words in told["55(iii)"]
    assert "of the 1,955 that the teacher memorizes and no baseline does, it reproduces 49" in told["55(iii)"]
    assert "its first 50 tokens" in told["43(ii)"]
    assert "on students: exact greedy extraction; once, on 2026-01-30, seed 0" in told["55"]


def test_what_was_not_run_is_said_to_be_untested(tmp_path: Path) -> None:
    for row in rows(annex(tmp_path)):
        untested = row[1].startswith(
            ("Membership", "Attribute", "Exfiltration", "Model inversion", "Reconstr")
        )
        assert (row[2] == "not tested") == untested
        assert (row[3] == "nothing") == untested
        assert row[4]


def test_other_attacks_are_named_where_they_ran(tmp_path: Path) -> None:
    best = {
        "score": "min_k", "auc": 0.61, "ci95": [0.5, 0.7], "minus_blind": None, "minus_blind_ci95": None
    }  # fmt: skip
    score = {"auc": 0.61, "ci95": [0.5, 0.7], "tpr_at_fpr": {"0.01": [0.04, 0.02, 0.09], "0.001": None}}
    membership = {
        "members": 1000, "nonmembers": 900, "member_documents": 500, "nonmember_documents": 450,
        "blind_auc": 0.6, "blind_ci95": [0.5, 0.7], "score": {"min_k": score}, "best": best,
        "explained_by_text": True, "against_teacher": None,
    }  # fmt: skip
    near = {
        "max_edit_distance": 0.1, "examples": 1_000_000, "exposed": 900, "rate": 0.0009,
        "ci95": [0.0008, 0.001], "distances": [701, 100, 99, 0, 0, 0],
    }  # fmt: skip
    found = rows(
        annex(tmp_path, sample_dict(attacks={"soft": {"near_verbatim": near, "membership": membership}}))
    )
    extraction, member = found[1], found[5]
    assert "0.09% (95% interval 0.08% to 0.1%)" in extraction[3]
    assert extraction[2] == "in part"
    assert "Sampling was not tried, so" in extraction[4]
    assert (member[0], member[2]) == ("55 (i)", "in part")
    assert "an AUC of 0.610 (95% interval 0.500 to 0.700; 0.5 is chance) on 1,000 training" in member[3]
    assert "It recognizes 4% of the training examples (95% interval 2% to 9%)" in member[3]
    assert "says nothing of membership" in member[3]
    assert "not taken of “hard”" in member[4]
    assert "near-verbatim extraction (not on “hard”) and membership inference (not on" in found[11][3]


def _ran_on(*names: str) -> dict[str, Any]:
    """Sampling and canaries of these models, each with figures of its own."""
    found = {}
    for place, name in enumerate(names):
        curve = [
            {"queries": queries, "p": 0.5, "rate": rate, "ci95": [0.1, 0.3], "ci95_by_document": [0.05, 0.4]}
            for queries, rate in ((10, 0.11), (100, 0.2 + place / 10))
        ]
        bits = {"median": 3.17, "low": 1.2, "high": None if place else 5.5}
        more = {"canaries": 8, "extracted": 5, "extracted_ci95": [0.24, 0.91], "exposure": bits}
        once = more | {"extracted": place, "extracted_ci95": [0.0, 0.37], "exposure": None}
        found[name] = {
            "sampled": {
                "temperature": 1.0, "top_k": 40, "examples": 10, "scored": 10, "curve": curve
            },
            "canaries": {
                "controls": 60, "controls_extracted": 1, "highest_exposure": 4.95,
                "repetitions": {"1": once, "16": more},
            },
        }  # fmt: skip
    return found


def test_canaries_and_the_most_samples_stand_in_their_rows(tmp_path: Path) -> None:
    found = rows(annex(tmp_path, sample_dict(attacks=_ran_on("soft", "hard"))))
    extraction, member, regurgitated = found[1], found[5], found[8]
    assert extraction[2] == "measured"
    assert "With 100 samples each, 20%" in extraction[3]
    assert extraction[3].count("samples each") == 2, "one point of each student"
    assert "(95% interval 5% to 40%, by document)" in extraction[3], "the wider one"
    assert "“soft” reproduces 0 of 8 planted once (95% interval 0% to 37%) and 5 of 8" in regurgitated[3]
    assert "planted 16 times (95% interval 24% to 91%), and 1 of 60 texts drawn alike" in regurgitated[3]
    assert "“soft” finds planted texts than texts drawn alike that stayed out" in member[3]
    assert "(1 is chance, 5.0 the most that could be seen): 3.2 for those planted" in member[3]
    assert "planted 16 times (95% interval 1.2 to 5.5)." in member[3]
    assert "planted 16 times (95% interval at least 1.2)." in member[3]
    assert "sampled extraction and canaries; once" in found[11][3]
    assert "take the model's probabilities too" in found[3][3].replace("\u2019", "'")


def test_what_ran_on_other_models_alone_is_not_said_of_students(tmp_path: Path) -> None:
    """The teacher's figures do not make a question measured."""
    found = rows(annex(tmp_path, sample_dict(attacks=_ran_on("teacher", "hard"))))
    extraction, member = found[1], found[5]
    assert extraction[2] == "in part"
    assert "Sampling was not tried on “soft”, so" in extraction[4]
    assert "sampled extraction (not on “soft”) and canaries (not on “soft”)" in found[11][3]
    assert member[2] == "in part"
    alone = rows(annex(tmp_path, sample_dict(attacks=_ran_on("teacher", "baseline"))))
    assert "on students: exact greedy extraction; once" in alone[11][3]
    assert "Sampling was not tried, so" in alone[1][4]
    assert (alone[5][2], alone[5][3]) == ("not tested", "nothing")
    assert "probabilities" not in alone[3][3]


def test_a_run_with_next_to_nothing_has_an_annex(tmp_path: Path) -> None:
    found = rows(annex(tmp_path, bare_dict(leaks=[])))
    assert "No student reproduces any of them" in found[0][3]
    assert "is not known" in found[8][3]


def test_reports_hold_the_same_section(tmp_path: Path) -> None:
    run = Rendered(tmp_path)
    render_reports(tmp_path, ReportConfig(), annex=True)
    alone = Page((tmp_path / "annex.html").read_text(encoding="utf-8"))
    assert rows(run.public) == rows(alone)
    limits = "Each student against the limits"
    assert run.public.table(limits) == alone.table(limits)
    assert LOCAL_PATH in rows(run.full)[0][3]


@pytest.mark.parametrize("hostile", [False, True])
def test_the_annex_is_public(hostile: bool, tmp_path: Path) -> None:
    data, texts = hostile_dict() if hostile else (sample_dict(), None)
    title = HOSTILE_TITLE if hostile else f"Audit of {LOCAL_PATH}"
    annex(tmp_path, data, rows=texts, title=title, document_ids=True)
    html = (tmp_path / "annex.html").read_text(encoding="utf-8")
    told = bare(html)
    assert "/home/owner" not in told
    for leak in data["leaks"]:
        if not hostile:  # there notes hold the same words
            assert leak["document_id"] not in told
            assert not shingles(told) & shingles(leak_row(leak, [])["text"])
    assert "<script" not in html
    assert "private stuff" not in told
    assert "Nothing here is a legal conclusion" in told


def report(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["report", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made, folder = tmp_path / "made", tmp_path / "run"
    write_run(made)
    render_reports(made, ReportConfig())
    with RunStore(folder, "run", {}) as store:
        for path in made.iterdir():
            with store.writing(path.name) as place:
                place.write_bytes(path.read_bytes())
        store.finish()
    return folder


def test_the_annex_is_a_file_of_the_run(run: Path) -> None:
    code, out, _ = report(run, "--annex")
    assert (code, out.splitlines()[-1]) == (0, str(run / "annex.html"))
    assert CliRunner().invoke(main, ["verify", str(run)]).exit_code == 0
    (run / "annex.html").write_text("changed")
    code, out, _ = report(run)
    assert code == 0
    assert "Nothing here is a legal conclusion" in (run / "annex.html").read_text()
    assert json.loads((run / "manifest.json").read_text())["files"]["annex.html"]


def test_the_annex_is_of_one_run(run: Path, tmp_path: Path) -> None:
    code, _, err = report(run, run, "--annex")
    assert code == 2
    assert "name one run" in err
    assert report(tmp_path, "--annex")[0] == 2
