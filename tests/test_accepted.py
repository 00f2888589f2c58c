"""Accepted leaks: the file, its hashes, what the gate disregards, and that nothing vanishes."""

from __future__ import annotations

import hashlib
import hmac
import json
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys
from report_page import Page
from ruamel.yaml import YAML
from sample_results import HOSTILE, bare_dict, write_run

from kdaudit.analysis import accepted as accepted_module
from kdaudit.analysis.accepted import MANY_LEAKS, Acceptance, hash_of, match
from kdaudit.config.accepted import AcceptedLeak, read_accepted, with_entries
from kdaudit.config.attacks import SampledConfig
from kdaudit.errors import ConfigError
from kdaudit.pipelines import accept as accept_module
from kdaudit.pipelines.stages.judging import _sampled_without
from kdaudit.pipelines.stages.leaked import _Tally
from kdaudit.pipelines.stages.leaks import LeakRow
from kdaudit.pipelines.stages.measured import SampleProbabilities
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import LEAKS_SCHEMA
from kdaudit.schemas.results import Leak

KEY = bytes(range(32))
LATER = date(2031, 5, 6)


def entry(example: Any, until: date = LATER, reason: str = "known") -> AcceptedLeak:
    return AcceptedLeak(example=example, reason=reason, until=until)


def leaks(*rows: dict[str, Any]) -> pa.Table:
    plain = {"document_id": "d", "offset": 0, "prefix": "p", "suffix": "s", "tags": []}
    return pa.Table.from_pylist(
        [{**plain, "example_id": number, **row} for number, row in enumerate(rows)],
        schema=LEAKS_SCHEMA,
    )


def place(document: str, offset: int | None = None) -> dict[str, Any]:
    return {"document": document, "offset": offset}


def test_a_hash_is_hmac_sha256_of_both_texts_by_their_lengths() -> None:
    one, two = "pré".encode(), b"suffix"
    message = b"\0" * 7 + bytes([len(one)]) + one + b"\0" * 7 + bytes([len(two)]) + two
    assert (
        hash_of(KEY, "pré", "suffix").partition("-")[2] == hmac.new(KEY, message, hashlib.sha256).hexdigest()
    )
    assert hash_of(KEY, "ab", "c") != hash_of(KEY, "a", "bc")
    other = bytes(32)
    assert not set(hash_of(KEY, "a", "b").split("-")) & set(hash_of(other, "a", "b").split("-"))


def test_entries_name_leaks_by_hash_place_and_document() -> None:
    table = leaks(
        {"document_id": "one", "offset": 0},
        {"document_id": "one", "offset": 9, "tags": ["email"]},
        {"document_id": "two", "prefix": "other"},
    )
    listed = [
        entry(hash_of(KEY, "other", "s")),
        entry(place("one", 9)),
        entry(place("one")),
        entry(place("three")),
        entry(place("one", 9), until=date(2020, 1, 1)),
    ]
    found = match(Acceptance(listed, KEY, date(2031, 5, 6)), table.to_batches())
    assert [(one.row, one.leaks) for one in found.in_force] == [(1, [2]), (2, [1]), (3, [0, 1])]
    assert [one.row for one in found.unmatched] == [4]
    assert [(one.row, one.leaks, one.until) for one in found.expired] == [(5, [1], "2020-01-01")]
    assert (found.entries, found.matched, found.leaks) == (5, 3, 3)
    assert found.over_broad == [3], "a document with a leak that seems to hold an address"
    assert match(Acceptance(listed, KEY, LATER + timedelta(1)), table.to_batches()).leaks == 0


def test_a_document_with_many_leaks_is_over_broad() -> None:
    for number, expected in ((MANY_LEAKS, []), (MANY_LEAKS + 1, [1])):
        table = leaks(*({"offset": at} for at in range(number)))
        assert match(Acceptance([entry(place("d"))], None, LATER), table.to_batches()).over_broad == expected


FILES = {
    "nothing": "",
    "comments": "# who: the release team\n\n# none yet",
    "plain": "# head\n- example: HASH # why\n  reason: 'quoted: yes'\n\n  until: 2030-01-01\n# tail\n",
    "indented": "  # head\n  - example: HASH\n    until: 2030-01-01\n    reason: |\n      two\n      lines\n",
    "in one line": "[{example: {document: a, offset: 3}, reason: x, until: 2030-01-01}] # all\n",
    "empty list": "[]\n",
    "windows": "\ufeff- example: HASH\r\n  reason: a # b\r\n  until: 2030-01-01\r\n",
}


@pytest.mark.parametrize("name", FILES)
def test_adding_keeps_comments_entries_and_order(tmp_path: Path, name: str) -> None:
    path, old = tmp_path / "accepted.yaml", hash_of(KEY, "a", "b")
    text = FILES[name].replace("HASH", old)
    path.write_bytes(text.encode())
    before = read_accepted(path)
    new = [entry(hash_of(KEY, "c", str(number)), reason=": # odd'\"") for number in range(2)]
    path.write_text(with_entries(path, new))
    assert read_accepted(path) == [*before, *new]
    after = path.read_text()
    for comment in ("# head", "# why", "# tail", "# who: the release team", "# none yet", "# all", "# b"):
        assert (comment in after) == (comment in text)
    assert "&id" not in after, "no aliases"
    path.write_text(with_entries(path, [entry(old, reason="renewed")]))
    assert [one.reason for one in read_accepted(path) if one.example == old] == ["renewed"]
    assert len(read_accepted(path)) == len(before) + 2 + (old not in text)


class Audited:
    """A toy audit: soft memorizes 5 examples of 31, hard 2; no leak of one is the other's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toys.write_audit(folder, predictor={"enabled": False}, gate={"max_rate": 0.0, "max_tagged": 0})
        self.said = toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=folder)
        self.results = self.read()

    def read(self, run: str = "run") -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / run / "results.json").read_text())
        return found

    def accept(self, *words: str | Path, run: str = "run") -> Any:
        told = ("--reason", "made for a test", "--until", "2031-05-06")
        return toys.kdaudit("accept", run, *told, *words, cwd=self.folder)

    def again(self, **gate: Any) -> Any:
        path = self.folder / "audit.yaml"
        config = YAML(typ="safe").load(path)
        config["gate"] |= {"accept": "accepted.yaml", **gate}
        with path.open("w") as handle:
            YAML().dump(config, handle)
        return toys.kdaudit("run", "audit.yaml", "--out", "run", cwd=self.folder)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Audited:
    return Audited(tmp_path_factory.mktemp("audited"))


def test_the_gate_alone_disregards_accepted_leaks(audited: Audited, monkeypatch: pytest.MonkeyPatch) -> None:
    assert audited.said.returncode == 1, audited.said.stderr
    before = audited.results
    own = {
        name: [leak["example_id"] for leak in before["leaks"] if name in leak["memorized_by"]]
        for name in ("soft", "hard")
    }
    assert {name: len(ids) for name, ids in own.items()} == {"soft": 5, "hard": 2}
    done = audited.accept("--leak", ",".join(map(str, own["hard"])), "--leak", str(own["soft"][0]))
    assert done.returncode == 0, done.stderr
    key = audited.folder / "accepted.key"
    assert (
        stat.S_IMODE(key.stat().st_mode)
        == stat.S_IMODE((audited.folder / "accepted.yaml").stat().st_mode)
        == 0o600
    )

    files = {path: path.stat().st_mtime_ns for path in (audited.folder / "run").rglob("part-*.parquet")}
    again = audited.again(max_ratio_to_baseline=9.0, max_near_verbatim_rate=0.0)
    assert again.returncode == 1, again.stderr
    after = audited.read()
    assert files == {path: path.stat().st_mtime_ns for path in files}, "the last stages alone"
    for part in ("models", "comparison", "corpus", "attacks"):
        assert after[part] == before[part], "every other figure counts them"
    checks = {(one["name"], one["student"]): one for one in after["gate"]["checks"]}
    assert [checks["max_rate", name]["value"] for name in ("soft", "hard")] == [4 / 31, 0.0]
    assert [checks["max_rate", name]["verdict"] for name in ("soft", "hard")] == ["fail", "pass"]
    assert [checks["max_near_verbatim_rate", name]["value"] for name in ("soft", "hard")] == [4 / 31, 0.0]
    assert [checks["max_ratio_to_baseline", name]["value"] for name in ("soft", "hard")] == [1.0, 0.0]
    assert [checks["max_rate", name]["accepted"] for name in ("soft", "hard")] == [1, 2]
    accepted = [leak["example_id"] for leak in after["leaks"] if leak["accepted"]]
    assert accepted == sorted([*own["hard"], own["soft"][0]])
    assert (after["accepted"]["entries"], after["accepted"]["matched"], after["accepted"]["leaks"]) == (
        3,
        3,
        3,
    )

    rest = audited.accept("--class", "inherited")
    assert rest.returncode == 0, rest.stderr
    assert audited.again().returncode == 0
    assert "7 of 7 leaks are accepted" in audited.again().stdout
    silent = toys.kdaudit("report", "run", cwd=audited.folder)
    assert (silent.returncode, silent.stderr) == (0, "")
    monkeypatch.setattr(accepted_module, "today", lambda: LATER + timedelta(1))
    assert "the accepted leaks changed" in toys.kdaudit("report", "run", cwd=audited.folder).stderr
    late = audited.again()
    assert late.returncode == 1, "a finished run is judged again once an entry has expired"
    assert "expired" in late.stdout
    assert [one["value"] for one in audited.read()["gate"]["checks"] if one["name"] == "max_rate"] == [
        5 / 31,
        2 / 31,
    ]
    assert audited.read()["accepted"]["leaks"] == 0
    assert not any(leak["accepted"] for leak in audited.read()["leaks"])


def test_pages_list_entries_and_the_public_one_without_reasons(audited: Audited, tmp_path: Path) -> None:
    values = bare_dict()
    words = [HOSTILE[0], "plain words of the owner", HOSTILE[2]]
    rows = [
        {"row": row, "reason": reason, "until": "2031-05-06", "leaks": [row]}
        for row, reason in enumerate(words, 1)
    ]
    values["accepted"] = {
        **{"day": "2026-02-03", "entries": 3, "matched": 1, "leaks": 1, "over_broad": [1]},
        **{"in_force": rows[:1], "expired": rows[1:2], "unmatched": rows[2:]},
    }
    write_run(tmp_path, values)
    done = toys.kdaudit("report", tmp_path, "--annex", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    full, public, annex = (
        (tmp_path / name).read_text() for name in (layout.REPORT, layout.PUBLIC_REPORT, layout.ANNEX)
    )
    assert "plain words of the owner" in Page(full).sections["accepted"]
    assert "<script>" not in full
    for text in ("plain words", "owned", "onerror"):
        assert text not in public
        assert text not in annex
    for part in ("expired: counts again", "accepted, over-broad", "names no leak"):
        assert part in Page(full).sections["accepted"]
        assert part in Page(public).sections["accepted"]
        assert part in Page(annex).sections["accepted"]


def _broken(change: str) -> str:
    return f"- example: {hash_of(KEY, 'a', 'b')}\n  reason: known\n  until: 2031-05-06\n".replace(
        *change.split(" => ")
    )


WRONG_FILES = {
    "keys": ("example: a\n", "list"),
    "not yaml": ("- [\n", "not valid YAML"),
    "no reason": (_broken("  reason: known\n => "), "entry 1.reason"),
    "empty reason": (_broken("known => ' '"), "entry 1.reason"),
    "no until": (_broken("until => til"), "unknown key"),
    "no date": (_broken("2031-05-06 => soon"), "not a date"),
    "a hash cut short": (_broken("- example: "[2:] + " => example: x"), "not a hash"),
    "a negative offset": (_broken(hash_of(KEY, "a", "b") + " => {document: a, offset: -1}"), "out of range"),
    "no document": (_broken(hash_of(KEY, "a", "b") + " => {offset: 1}"), "document"),
    "an unknown key": (_broken("known => known\n  owner: me"), "unknown key"),
    "a tag": (_broken("known => !!python/name:os.system x"), "tag"),
    "a lost key": (_broken("x => x"), "accepted.key"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_FILES)
def test_a_wrong_file_is_refused_with_its_line_before_anything_runs(tmp_path: Path, name: str) -> None:
    text, expected = WRONG_FILES[name]
    path = tmp_path / "accepted.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as error:
        accepted_module.acceptance(path)
    assert error.value.fix
    assert path.read_text() == text


def test_another_key_is_told_from_no_match(tmp_path: Path) -> None:
    (tmp_path / "accepted.yaml").write_text(_broken("x => x"))
    (tmp_path / "accepted.key").write_text("ab" * 32)
    with pytest.raises(ConfigError, match="another key"):
        accepted_module.acceptance(tmp_path / "accepted.yaml")
    for text in ("not hex", "ab" * 31, "ab" * 33):
        (tmp_path / "accepted.key").write_text(text)
        with pytest.raises(ConfigError, match="is not a key"):
            accepted_module.acceptance(tmp_path / "accepted.yaml")


WRONG_WORDS = {
    "no leak named": [],
    "not a leak": ["--leak", "99999"],
    "no number": ["--leak", "-3"],
    "a name": ["--leak", "one"],
    "an empty number": ["--leak", "1,,2"],
    "no such class": ["--class", "harmless"],
    "no such document": ["--document", "nowhere"],
    "no duplicates": ["--min-duplicates", "0"],
    "too many asked": ["--min-duplicates", "400"],
    "over": ["--leak", "0", "--until", "2020-02-02"],
    "no date": ["--leak", "0", "--until", "next year"],
    "a 31st of February": ["--leak", "0", "--until", "2031-02-31"],
    "an empty reason": ["--leak", "0", "--reason", "  "],
    "a reason of many lines": ["--leak", "0", "--reason", "a\x1b[31m"],
    "a reason with an address": ["--leak", "0", "--reason", "mail to jane.roe@example.org"],
    "in the run": ["--leak", "0", "--out", "run/accepted.yaml"],
    "no yaml": ["--leak", "0", "--out", "accepted.key"],
    "no folder": ["--leak", "0", "--out", "nowhere/accepted.yaml"],
    "a folder": ["--leak", "0", "--out", "folder.yaml"],
    "a damaged file": ["--leak", "0", "--out", "damaged.yaml"],
    "a lost key": ["--leak", "0", "--out", "keyless.yaml"],
    "a link": ["--leak", "0", "--out", "link.yaml"],
}  # fmt: skip


@pytest.fixture(scope="module")
def wrong(audited: Audited) -> Audited:
    folder = audited.folder
    (folder / "folder.yaml").mkdir()
    (folder / "damaged.yaml").write_text("- example: [\n")
    (folder / "keyless.yaml").write_text(_broken("x => x"))
    (folder / "link.yaml").symlink_to(folder / "corpus.jsonl")
    return audited


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", WRONG_WORDS)
def test_a_wrong_call_of_accept_changes_nothing_and_says_what_to_do(wrong: Audited, name: str) -> None:
    before = _contents(wrong.folder)
    done = wrong.accept(*WRONG_WORDS[name])
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert ";" in done.stderr or "Error: Invalid value" in done.stderr
    assert _contents(wrong.folder) == before


def test_leaks_of_changed_results_are_not_accepted(audited: Audited, tmp_path: Path) -> None:
    run = shutil.copytree(audited.folder / "run", tmp_path / "run")
    (run / layout.RESULTS).write_text((run / layout.RESULTS).read_text() + " ")
    done = audited.accept("--leak", "0", "--out", tmp_path / "accepted.yaml", run=str(run))
    assert done.returncode == 2
    assert "results.json: was changed since the run wrote it; `kdaudit verify` says" in done.stderr
    assert not (tmp_path / "accepted.yaml").exists()


def test_a_reason_that_quotes_the_leak_is_refused(audited: Audited) -> None:
    table = pq.read_table(audited.folder / "run" / layout.LEAKS)
    row = table.to_pylist()[0]
    done = audited.accept("--leak", str(row["example_id"]), "--reason", f"it says {row['suffix']}")
    assert done.returncode == 2
    assert "quotes the leak" in done.stderr


def test_writers_wait_for_one_another(audited: Audited, tmp_path: Path) -> None:
    """Each reads what the one before wrote: the folder is locked from reading to writing."""
    ids = [str(leak["example_id"]) for leak in audited.results["leaks"]]
    out = tmp_path / "accepted.yaml"
    with ThreadPoolExecutor(4) as pool:
        run_dir, words = audited.folder / "run", accept_module.EntryWords("known", "2031-05-06")
        wanted = [accept_module.LeakFilter(frozenset({int(number)})) for number in ids]
        done = [*pool.map(lambda one: accept_module.accept(run_dir, one, words, out), wanted)]
    assert len(read_accepted(out)) == len(ids)
    assert sum(one.new_key for one in done) == 1


def test_an_old_run_has_no_accepted_leaks_and_reports(tmp_path: Path) -> None:
    write_run(tmp_path / "run", bare_dict())
    assert toys.kdaudit("report", "run", cwd=tmp_path).returncode == 0
    assert 'id="accepted"' not in (tmp_path / "run" / layout.REPORT).read_text()


def test_an_entry_can_end_today(audited: Audited, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_module, "today", lambda: LATER)
    leak = str(audited.results["leaks"][0]["example_id"])
    done = audited.accept("--leak", leak, "--out", tmp_path / "accepted.yaml")
    assert done.returncode == 0, done.stderr


def test_sampling_is_judged_without_accepted_leaks() -> None:
    drawn = SampleProbabilities(np.array([1, 3, 4]), np.ones(3), np.log([0.9, 0.9, 1e-9]))
    one: Any = SimpleNamespace(drawn=drawn)
    family: Any = SimpleNamespace(documents=SimpleNamespace(rate=lambda flags: None))
    config: Any = SimpleNamespace(attacks=SimpleNamespace(sampled=SampledConfig(queries=(1,))))
    measurements: Any = SimpleNamespace(config=config, by_model={"soft": one}, family=family)
    rates = []
    for accepted in ([], [3], [1, 3]):
        flags = np.isin(np.arange(6), accepted)
        found = _sampled_without(measurements, "soft", flags)
        assert found is not None
        rates.append(found.curve[0].rate)
    assert rates == [2 / 3, 1 / 3, 0.0]


def test_accepted_leaks_are_not_counted_among_those_that_seem_to_hold_personal_data(tmp_path: Path) -> None:
    path = tmp_path / "accepted.yaml"
    path.write_text("- {example: {document: d, offset: 0}, reason: known, until: 2031-05-06}\n")
    measurements: Any = SimpleNamespace(
        models=SimpleNamespace(students=[SimpleNamespace(name="soft")]),
        prediction=SimpleNamespace(result=SimpleNamespace(threshold=None)),
        config=SimpleNamespace(
            report=SimpleNamespace(max_examples=9), gate=SimpleNamespace(accept=str(path))
        ),
    )
    tally = _Tally(measurements)
    for number, tags in enumerate((["email"], ["email"], [])):
        leak = Leak(
            example_id=number, document_id="d", memorized_by=["soft"], classes={"soft": "unknown"}, copies=1,
            risk=None, tags=tags, suffix_hmac=f"{number:064x}",
        )  # fmt: skip
        tally.add(LeakRow(leak, {"offset": number, "prefix": "p", "suffix": "s"}))
    assert tally.leaked().tagged == {"soft": 1}
