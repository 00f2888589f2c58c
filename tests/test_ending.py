"""How the program ends, as a shell sees it: exit code, no traceback, nothing that a terminal would obey."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import toys
from click.testing import CliRunner, Result

from kdaudit.cli import main
from kdaudit.cli.diagnosis import diagnose
from kdaudit.cli.ending import interruption
from kdaudit.cli.printing import one_line, printable
from kdaudit.errors import UsageError

KDAUDIT = [sys.executable, "-m", "kdaudit"]


def run(words: list[str], **how: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*KDAUDIT, *words], timeout=120, **how)


def test_a_full_output_ends_with_4_and_a_sentence() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run(["schema", "audit"], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 4
    assert b"No space left" in done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("words", [["schema", "audit"], ["--help"], ["validate", "none.yaml"]])
@pytest.mark.parametrize("closed", ["stdout", "stderr", "both"])
def test_closed_streams_never_end_with_1(words: list[str], closed: str) -> None:
    redirect = {"stdout": ">&-", "stderr": "2>&-", "both": ">&- 2>&-"}[closed]
    line = f'"$@" {redirect}'
    done = subprocess.run(["bash", "-c", line, "-", *KDAUDIT, *words], capture_output=True, timeout=120)
    assert done.returncode == (2 if words[0] == "validate" else 0), done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_ends_with_4_and_quietly() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = run(["schema", "audit"], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (4, b"")


def test_progress_that_nobody_reads_does_not_end_the_audit(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    reader, writer = os.pipe()
    os.close(reader)
    done = run(["run", "audit.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=writer)
    os.close(writer)
    assert done.returncode == 0
    assert b"toy: " in done.stdout


def test_a_deleted_working_directory_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = 'rmdir "$PWD"; "$@"'
    done = subprocess.run(
        ["bash", "-c", line, "-", *KDAUDIT, "run", "audit.yaml"], cwd=gone, capture_output=True, timeout=120
    )
    assert done.returncode == 2
    assert b"current directory is gone" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_130_and_says_how_to_resume(sent: signal.Signals, tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    with subprocess.Popen(
        [*KDAUDIT, "run", "audit.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        end = time.monotonic() + 100
        while not (tmp_path / "runs/toy/manifest.json").exists():
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(sent)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"finished work is kept: run the same command again to resume" in told
    assert b"Traceback" not in told


def test_an_early_ctrl_c_is_no_failed_gate(tmp_path: Path) -> None:
    """While modules are imported the process dies of the signal itself, which a shell calls 130."""
    toys.write_audit(tmp_path)
    for delay in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8):
        with subprocess.Popen(
            [*KDAUDIT, "run", "audit.yaml"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        if b"Fatal Python error" in told or b"<frozen " in told:
            continue  # the interpreter itself was being started
        assert process.returncode in (130, -signal.SIGINT), (delay, told)
        assert b"Traceback" not in told, (delay, told.decode())


@pytest.mark.parametrize(
    ("handler", "code"), [("default_int_handler", -signal.SIGINT), ("SIG_IGN", 0)], ids=["plain", "ignored"]
)
def test_a_late_ctrl_c_prints_no_traceback(handler: str, code: int) -> None:
    """An impatient second one falls into the second or so in which libraries end, which is after `main`."""
    script = (
        "import atexit, os, signal, sys; from kdaudit.__main__ import main\n"
        f"signal.signal(signal.SIGINT, signal.{handler})\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['kdaudit', '--version']; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, b"")


def test_no_locale_and_odd_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"audit-\xff-\xc3\xa9\x1b[31m\n.yaml")
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = run(["validate", name], cwd=tmp_path, capture_output=True, env=environment)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert b"\x1b" not in done.stderr
    assert not any(line.startswith(b".yaml") for line in done.stderr.splitlines())


def test_what_a_terminal_would_obey_is_shown_as_an_escape() -> None:
    hostile = "a\x1b[2Jb\rc\x9bd\u202ee\u2028f\ud800 hf_abcdefgh12345678"
    shown = "a\\u001b[2Jb\\u000dc\\u009bd\\u202ee\\u2028f\\ud800 hf_***"
    assert one_line(hostile + "\nkdaudit: forged") == shown + "\\nkdaudit: forged"
    assert printable(hostile + "\nkdaudit: forged") == shown + "\n  kdaudit: forged"
    assert one_line("./hf_checkpoints/hf_transfer") == "./hf_checkpoints/hf_transfer"
    assert json.loads(f'"{one_line(chr(0x7F) + chr(0x200E))}"') == "\x7f\u200e"


def test_verify_prints_one_line_a_problem_whatever_names_hold(tmp_path: Path) -> None:
    from kdaudit.runs.store import RunStore

    with RunStore(tmp_path / "run", "run", {}) as run:
        run.finish()
    (tmp_path / "run" / "x\nresults.json: all is well\x1b[8m").write_text("")
    done = CliRunner().invoke(main, ["verify", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert done.output.splitlines() == [
        "x\\nresults.json: all is well\\u001b[8m: was added; the run did not write it"
    ]


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], Result]:
    """Runs a command that does something of our choice."""

    def run(act: Callable[[], object]) -> Result:
        monkeypatch.setattr("kdaudit.cli.diagnosis.diagnose", act)
        return CliRunner().invoke(main, ["doctor"])

    return run


def test_what_libraries_print_passes_the_same_place(doing: Any) -> None:
    def noisy() -> None:
        print("out \x1b[2J hf_abcdefghij0123456789")
        sys.stderr.writelines(["err \u202e\x9b\n", "more\r\n"])
        raise UsageError("wrong", fix="right it")

    done = doing(noisy)
    assert done.stdout == "out \\u001b[2J hf_***\n"
    assert done.stderr == "err \\u202e\\u009b\nmore\\u000d\nkdaudit: wrong; right it\n"


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
def test_what_ended_the_command_is_said(doing: Any, sent: signal.Signals) -> None:
    before = signal.signal(sent, signal.SIG_DFL)  # under nohup the tests ignore a hangup
    try:
        done = doing(lambda: os.kill(os.getpid(), sent))
        assert done.exit_code == 130
        assert f"terminated ({sent.name}); finished work is kept" in done.stderr
        assert signal.getsignal(sent) is signal.SIG_DFL
    finally:
        signal.signal(sent, before)


def test_an_ignored_hangup_stays_ignored(doing: Any) -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        done = doing(lambda: (os.kill(os.getpid(), signal.SIGHUP), diagnose())[1])
    finally:
        signal.signal(signal.SIGHUP, before)
    assert done.exit_code == 0


def test_who_began_with_fresh_resumes_without() -> None:
    assert "run the same command again, without --fresh, to resume" in interruption(
        KeyboardInterrupt(), fresh=True
    )


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "a\n\x1bb"), OSError(24, "Too many")]
)
def test_a_machine_that_ran_out_of_something_is_said(doing: Any, error: OSError) -> None:
    def fail() -> None:
        raise error

    done = doing(fail)
    assert done.exit_code == 4
    assert done.stderr.startswith("kdaudit: ")
    assert f"{error.strerror}; finished work is kept" in done.stderr
    assert "could not be printed" not in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("error", [MemoryError(), RecursionError("deep"), ValueError("a\nkdaudit: forged")])
def test_every_failure_ends_with_4(doing: Any, error: Exception) -> None:
    def fail() -> None:
        raise error

    done = doing(fail)
    assert done.exit_code == 4
    assert not any(line == "kdaudit: forged" for line in done.stderr.splitlines())


def test_a_library_that_ends_the_program_with_a_sentence_is_no_success(doing: Any) -> None:
    done = doing(lambda: sys.exit("no device"))
    assert (done.exit_code, done.stderr) == (4, "kdaudit: no device\n")
    for code in (0, 1, None):
        assert doing(lambda code=code: sys.exit(code)).exit_code == 4


@pytest.mark.parametrize(
    "error", [click.FileError("x"), click.ClickException("x"), click.Abort(), EOFError()]
)
def test_nothing_of_click_ends_with_1(doing: Any, error: Exception) -> None:
    def fail() -> None:
        raise error

    assert doing(fail).exit_code in (2, 4, 130)
