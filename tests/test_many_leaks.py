"""An audit with more leaks than results.json lists says the same as one that lists them all."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from compared_runs import Text
from compared_runs import write_run as write_compared_run
from sample_results import leak_row, sample_dict, sample_leaks, write_run

import kdaudit
from kdaudit.analysis import compared
from kdaudit.analysis.leak_counts import LeakCounter, leak_counts_of
from kdaudit.analysis.leaks import read_leaks
from kdaudit.analysis.severity import Worst, severity
from kdaudit.cli import main
from kdaudit.config.audit import ReportConfig
from kdaudit.errors import RunStateError
from kdaudit.exporting import sarif
from kdaudit.pipelines.audit import render_reports
from kdaudit.runs import layout
from kdaudit.schemas.results import AuditResults, Leak

LISTED = 60


def worst(leaks: list[dict[str, Any]], limit: int) -> list[dict[str, Any]]:
    """The first leaks of the report's order, by id; an oracle of its own words."""

    def order(leak: dict[str, Any]) -> tuple[object, ...]:
        inherited = "inherited" in leak["classes"].values()
        return (not leak["tags"], not inherited, -leak["risk"], -leak["copies"], leak["example_id"])

    return sorted(sorted(leaks, key=order)[:limit], key=lambda leak: int(leak["example_id"]))


def counted(leaks: list[dict[str, Any]], threshold: float, students: list[str]) -> dict[str, Any]:
    """`leak_counts`, each number by a sum of its own."""

    def group(some: list[dict[str, Any]], students: list[str]) -> dict[str, int]:
        own = [one for one in some if any(one["classes"].get(name) == "inherited" for name in students)]
        return {
            "leaks": len(some),
            "flagged": sum(one["risk"] >= threshold for one in some),
            "inherited": len(own),
            "inherited_flagged": sum(one["risk"] >= threshold for one in own),
        }

    tags = sorted({tag for leak in leaks for tag in leak["tags"]})
    return {
        **group(leaks, students),
        "tagged": sum(bool(leak["tags"]) for leak in leaks),
        "tags": {
            tag: {
                "leaks": sum(tag in leak["tags"] for leak in leaks),
                "inherited": sum(
                    tag in one["tags"] and "inherited" in one["classes"].values() for one in leaks
                ),
            }
            for tag in tags
        },
        "students": {
            name: group([one for one in leaks if name in one["classes"]], [name]) for name in students
        },
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`all` lists all of its leaks, as earlier versions did; `first` is the same audit and lists some."""
    folder, data = tmp_path_factory.mktemp("many"), sample_dict()
    data["predictor"]["threshold"] = 0.85
    leaks = sorted(data["leaks"], key=lambda leak: int(leak["example_id"]))
    for leak in leaks[::7]:
        leak["accepted"] = True
    rows = [leak_row(leak, list(data["models"])) for leak in leaks]
    write_run(folder / "all", data | {"leaks": leaks}, rows)
    counts = counted(leaks, data["predictor"]["threshold"], ["soft", "hard"])
    write_run(folder / "first", data | {"leaks": worst(leaks, LISTED), "leak_counts": counts}, rows)
    for name in ("all", "first"):
        (folder / name / "hmac.key").write_text("ab" * 32 + "\n")
    return folder


def results_of(run_dir: Path) -> AuditResults:
    return AuditResults.model_validate_json((run_dir / "results.json").read_text())


def test_counts_are_sums_over_all_leaks(runs: Path) -> None:
    full = results_of(runs / "all")
    assert full.leak_counts is None
    counts = leak_counts_of(full)
    assert counts == results_of(runs / "first").leak_counts
    assert counts.leaks > 10 * LISTED
    assert 0 < counts.inherited_flagged < counts.inherited  # type: ignore[operator]


def test_a_missing_risk_or_threshold_makes_what_is_flagged_unknown(runs: Path) -> None:
    leaks = results_of(runs / "all").leaks
    for threshold, risks in ((None, [0.9, 0.9]), (0.5, [0.9, None])):
        counter = LeakCounter(["soft", "hard"], threshold)
        for leak, risk in zip(leaks, risks, strict=False):
            counter.add(leak.model_copy(update={"risk": risk}))
        found = counter.counts()
        assert (found.leaks, found.flagged, found.inherited_flagged) == (2, None, None)
        assert {one.flagged for one in found.students.values()} == {None}


def test_tags_of_others_are_counted_without_their_names(runs: Path) -> None:
    leak = results_of(runs / "all").leaks[0]
    counter = LeakCounter(["soft", "hard"], None)
    counter.add(leak.model_copy(update={"tags": ["patient John", "of ward 3", "email"]}))
    assert {name: one.leaks for name, one in counter.counts().tags.items()} == {"email": 1, "other": 1}


def test_the_worst_are_kept_whatever_their_order() -> None:
    rng = random.Random(3)
    leaks = [Leak.model_validate(leak) for leak in sample_leaks([({"hard": "inherited"}, 4000)])]
    for limit in (0, 1, 70, 9999):
        kept = Worst(limit, severity)
        for leak in rng.sample(leaks, len(leaks)):
            kept.add(leak)
        assert kept.kept() == sorted(leaks, key=severity)[:limit]


def test_all_leaks_are_read_from_the_file_where_results_list_some(runs: Path) -> None:
    found = [[*read_leaks(runs / name, results_of(runs / name))] for name in ("all", "first")]
    assert found[0] == found[1]
    assert len(found[0]) == len({leak.example_id for leak in found[0]}) > 10 * LISTED
    assert any(leak.accepted for leak in found[0])


def test_a_file_that_does_not_hold_what_results_count_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "first", tmp_path / "run")
    path = tmp_path / "run" / layout.LEAKS
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(RunStateError, match=r"holds [\d,]+ leaks, and results.json counts"):
        [*read_leaks(tmp_path / "run", results_of(tmp_path / "run"))]
    pq.write_table(table.drop_columns("memorized_by"), path)
    with pytest.raises(RunStateError, match="has no column memorized_by"):
        [*read_leaks(tmp_path / "run", results_of(tmp_path / "run"))]


@pytest.mark.parametrize(
    ("column", "values"),
    [("classes", None), ("classes", "inherited"), ("classes", [{"student": "soft"}]), ("copies", "many")],
)
def test_a_damaged_row_is_refused(runs: Path, tmp_path: Path, column: str, values: object) -> None:
    shutil.copytree(runs / "first", tmp_path / "run")
    path = tmp_path / "run" / layout.LEAKS
    table = pq.read_table(path)
    place = table.column_names.index(column)
    pq.write_table(table.set_column(place, column, pa.array([values] * len(table))), path)
    with pytest.raises(RunStateError, match=r"leaks\.parquet: cannot be read \(.*(class|copies)"):
        [*read_leaks(tmp_path / "run", results_of(tmp_path / "run"))]


def test_counts_below_the_list_are_refused() -> None:
    data = sample_dict()
    counts = counted(data["leaks"], 0.5, ["soft", "hard"])
    with pytest.raises(ValueError, match="counts fewer leaks than are listed"):
        AuditResults.model_validate(data | {"leak_counts": counts | {"leaks": 3}})
    with pytest.raises(ValueError, match="leak_counts and models name different students"):
        AuditResults.model_validate(data | {"leak_counts": counts | {"students": {}}})


@pytest.mark.parametrize("page", ["report.html", "report.public.html", "card.md", "annex.html"])
def test_pages_say_the_same(runs: Path, page: str) -> None:
    for name in ("all", "first"):
        if not (runs / name / "annex.html").exists():
            render_reports(runs / name, ReportConfig(max_examples=LISTED), annex=True)
    assert (runs / "all" / page).read_text() == (runs / "first" / page).read_text()


@pytest.mark.parametrize("student", ["soft", "hard"])
def test_cards_of_students_say_the_same(runs: Path, student: str, tmp_path: Path) -> None:
    cards = []
    for name in ("all", "first"):
        out = tmp_path / f"{name}.md"
        done = CliRunner().invoke(main, ["card", str(runs / name), "--student", student, "--card", str(out)])
        assert done.exit_code == 0, done.output
        cards.append(out.read_text().replace(f"{name}.md", ""))
    assert cards[0] == cards[1]


@pytest.mark.parametrize(
    "words", ["sarif", "sarif --private", "csv", "csv --private", "junit"], ids=lambda words: words
)
def test_exports_hold_all_leaks(
    runs: Path, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sarif, "MOST_RESULTS", 300)
    made = []
    for name in ("all", "first"):
        done = CliRunner().invoke(
            main, ["export", str(runs / name), "--format", *words.split(), "--out", name]
        )
        assert done.exit_code == 0, done.output
        made.append(Path(name).read_bytes())
    assert made[0] == made[1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "first"], "nothing else stays behind"
    if words.startswith("sarif"):
        log = json.loads(made[0])
        assert made[0].decode() == json.dumps(log, indent=1) + "\n", "written in parts, read as one"
        assert len(log["runs"][0]["results"]) == 300


def test_leaks_that_are_not_listed_can_be_accepted(runs: Path, tmp_path: Path) -> None:
    listed = {leak.example_id for leak in results_of(runs / "first").leaks}
    other = next(
        leak for leak in results_of(runs / "all").leaks if leak.example_id not in listed and not leak.tags
    )
    words = ["--reason", "known", "--until", "2099-01-01", "--out", str(tmp_path / "accepted.yaml")]
    done = CliRunner().invoke(main, ["accept", str(runs / "first"), "--leak", str(other.example_id), *words])
    assert done.exit_code == 0, done.output
    assert "example" in (tmp_path / "accepted.yaml").read_text()


def test_the_api_reads_the_columns_that_are_asked_for(runs: Path) -> None:
    run = kdaudit.open_run(runs / "first")
    table = run.leaks(["example_id", "suffix_hmac"])
    assert table.column_names == ["example_id", "suffix_hmac"]
    assert len(table) == len(run.leaks())
    with pytest.raises(ValueError, match=r"column 'exampleid' is not one of leaks\.parquet's: example_id, "):
        run.leaks(["exampleid"])


TEXTS = [Text(number) for number in range(40)]


def test_comparisons_count_all_and_list_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memorized = ({"soft": {*range(20)}}, {"soft": {*range(12, 40)}})
    old, new = (
        write_compared_run(
            tmp_path / name, TEXTS, {"teacher": set(), "baseline": set(), **who}, tags={30: ["email"]}
        )
        for name, who in zip(("old", "new"), memorized, strict=True)
    )
    full = kdaudit.compare(old, new)
    assert full.leak_totals == {"new": 20, "gone": 12, "remaining": 8}
    for folder in (old, new):
        _list_first(folder, 3)
    assert kdaudit.compare(old, new) == full, "whatever results.json lists"
    monkeypatch.setattr(compared, "MOST_LISTED", 4)
    some = kdaudit.compare(old, new, out=tmp_path / "out")
    assert (some.leak_totals, some.counts, some.new_leaks) == (full.leak_totals, full.counts, full.new_leaks)
    assert [one.change for one in some.leaks] == ["new"] * 4 + ["gone"] * 4 + ["remaining"] * 4
    assert 30 in {one.example_id for one in some.leaks if one.change == "new"}, "what is tagged comes first"
    assert "Shown: the first 4." in (tmp_path / "out" / "compare.html").read_text()


def _list_first(folder: Path, limit: int) -> None:
    """Cut the list of a run's leaks in results.json."""
    path = folder / layout.RESULTS
    results = results_of(folder)
    data = json.loads(path.read_text())
    data["leak_counts"] = leak_counts_of(results).model_dump(mode="json")
    data["leaks"] = data["leaks"][:limit]
    path.write_text(json.dumps(data))
