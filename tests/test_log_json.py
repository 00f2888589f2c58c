"""`--log-json`: each line of standard error is one object, whatever happens."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import toys
from click.testing import CliRunner
from sample_results import sample_dict

from kdaudit.cli import main
from kdaudit.errors import RunError
from kdaudit.schemas.results import AuditResults


def events(stderr: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stderr.splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    return lines


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return toys.write_audit(tmp_path)


def run(audit: Path, monkeypatch: pytest.MonkeyPatch, does: Callable[..., Any]) -> tuple[int, str, list[Any]]:
    """`kdaudit run` with another pipeline in its place."""
    monkeypatch.setattr("kdaudit.pipelines.audit.run_audit", does)
    done = CliRunner().invoke(main, ["run", str(audit), "--log-json", "--json"])
    return done.exit_code, done.stdout, events(done.stderr)


def test_all_that_a_run_tells_is_an_event(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = AuditResults.model_validate(sample_dict())

    def work(*_: Any, progress: Any, warn: Any, **__: Any) -> AuditResults:
        progress("reading \x1b[31m", 0, 0)
        progress("soft", 10, 40)
        warn("two\nlines \u202e")
        print("a library's \x1b[0m", "hf_abcdefghijklmnopqrstuvwxyz", file=sys.stderr)
        sys.stderr.write("half a ")
        sys.stderr.write("line\rover it\x7f")
        return results

    code, out, told = run(audit, monkeypatch, work)
    assert code == 1
    assert json.loads(out)["name"] == results.name
    assert told[0] == {"event": "begin", "command": "run", "kdaudit": "0.1.0"}
    kinds = [one["event"] for one in told]
    assert kinds[1:4] == ["progress", "progress", "warning"]
    assert told[2] == {"event": "progress", "work": "soft", "done": 10, "total": 40, "seconds_left": None}
    assert told[1]["total"] is None
    assert told[3]["text"] == "two\nlines \u202e"
    texts = [one.get("text", "") for one in told[4:-1]]
    assert "a library's \x1b[0m hf_***" in texts
    assert [*texts[-2:]] == ["half a line", "over it\x7f"]
    assert told[-1].keys() == {"event", "exit_code", "seconds"}
    assert told[-1]["exit_code"] == 1


def test_no_byte_of_it_acts_on_a_terminal(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: Any, warn: Any, **__: Any) -> AuditResults:
        warn("".join(map(chr, range(160))) + "\u2028\u202e")
        raise RunError("broken\x1b]0;")

    monkeypatch.setattr("kdaudit.pipelines.audit.run_audit", work)
    done = CliRunner().invoke(main, ["run", str(audit), "--log-json"])
    assert re.fullmatch(r"[\n\x20-\x7e]*", done.stderr)
    error = events(done.stderr)[-2]
    assert error == {"event": "error", "text": "broken\x1b]0;", "exit_code": 4, "problems": []}


def test_errors_hold_their_parts(audit: Path) -> None:
    audit.write_text(audit.read_text() + "gate: {max_rat: 1}\nseed: -1\n")
    done = CliRunner().invoke(main, ["run", str(audit), "--log-json"])
    *_, error, end = events(done.stderr)
    assert (done.exit_code, end["exit_code"], error["exit_code"]) == (2, 2, 2)
    problems = {one["key"]: one for one in error["problems"]}
    assert problems.keys() == {"gate.max_rat", "seed"}
    for one in problems.values():
        assert re.fullmatch(r".*audit\.yaml:\d+", one["where"])
        assert one["fix"]


def test_interruption_and_bugs_end_with_an_event(audit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    assert run(audit, monkeypatch, interrupted)[2][-1]["exit_code"] == 130
    code, _, told = run(audit, monkeypatch, broken)
    assert (code, told[-1]["exit_code"]) == (4, 4)
    assert any("this is a bug" in one.get("text", "") for one in told)


@pytest.mark.parametrize(
    "words", ["run --log-json", "bench --log-json --examples 0 x", "screen --nothing --log-json"]
)
def test_a_wrong_command_line_is_told_in_json_too(words: str) -> None:
    done = CliRunner().invoke(main, words.split())
    told = events(done.stderr)
    assert (done.exit_code, told[-1]["exit_code"]) == (2, 2)
    assert told[0]["command"] == words.split()[0]


def test_streams_that_are_closed_end_nothing(audit: Path) -> None:
    script = (
        "import os, sys; os.close(2); from kdaudit.cli import main; main(['run', 'none.yaml', '--log-json'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, cwd=audit.parent)
    assert done.returncode == 2
    assert done.stdout == b""
