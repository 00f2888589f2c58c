"""Hostile run directories: links, FIFOs, devices, damage and forged names, given to what reads one.

A finished run is copied and spoiled in one to three ways. Then `verify`, `report`, `card` and `validate`, and
the opening that `run` begins with (to resume, and with `--fresh`), must end in time with an exit code of ours
and no traceback, print nothing that a terminal would obey, touch nothing outside the directory, and leave
what the user keeps in it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzzing import main
from sample_results import write_run

from kdaudit.cli import main as kdaudit
from kdaudit.config.audit import ReportConfig
from kdaudit.errors import KdauditError, RunStateError, StorageError
from kdaudit.pipelines.report import render_reports
from kdaudit.runs.layout import CARD, PUBLIC_REPORT, REPORT
from kdaudit.runs.store import RunStore

CASES_IN_CI = 20
_SECONDS = 20
"""Within which a command on so small a run must end."""
_MEMORY = 1 << 30
"""Bytes by which a case may raise the most that the process ever held."""
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029]")
_THEIRS = ("notes.partial", "my/part-00000.parquet", "results.json.partial", ".hidden")
"""What a user may keep in a run directory."""

Spoil = Callable[[random.Random, Path, Path], None]
"""Spoils a file of a run; the last argument is a file outside that must stay as it is."""


@functools.cache
def _finished() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="kdaudit-fuzz-run-")) / "run"
    with RunStore(folder, "sample", {}) as run:
        with run.rewriting("results.json", "leaks.parquet", REPORT, PUBLIC_REPORT, CARD):
            write_run(folder)
            render_reports(folder, ReportConfig())
            for name in ("results.json", "leaks.parquet", REPORT):
                (folder / name).chmod(0o600)
        run.write_text("config.yaml", "name: sample\ncorpus: a/b\nmodels: {teacher: a/b}\n")
        run.finish()
    return folder


def _replace(make: Callable[[Path], object]) -> Spoil:
    def spoil(chance: random.Random, path: Path, outside: Path) -> None:
        path.unlink(missing_ok=True) if not path.is_dir() else shutil.rmtree(path)
        make(path)

    return spoil


def _link(chance: random.Random, path: Path, outside: Path) -> None:
    targets = [outside, Path("/dev/zero"), Path("/dev/full"), path.parent, Path("gone"), path]
    _replace(lambda at: at.symlink_to(chance.choice(targets)))(chance, path, outside)


def _flip(chance: random.Random, path: Path, outside: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 20)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    path.write_bytes(data)


def _cut(chance: random.Random, path: Path, outside: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def _json(chance: random.Random, path: Path, outside: Path) -> None:
    odd = [
        b"[" * 200_000,
        b"\0" * 100,
        b'{"a": NaN}',
        b"null",
        b'{"schema_version": "99"}',
        "\ud800".encode("utf-8", "surrogatepass"),
        b'"' + b"\x1b[2J" * 100 + b'"',
        json.dumps({"schema_version": "1", "name": "\x1b]0;x\x07", "leaks": [{}] * 1000}).encode(),
    ]
    path.write_bytes(chance.choice(odd))


def _forged(chance: random.Random, path: Path, outside: Path) -> None:
    manifest = path.with_name("manifest.json")
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        data = json.loads(manifest.read_text())
        names = ["../outside", str(outside), "a\nb: all is well", "\x1b[8m", "x/../../y", "", "report.html/x"]
        data["files"][chance.choice(names)] = "0" * 64
        manifest.write_text(json.dumps(data))


def _name(chance: random.Random, path: Path, outside: Path) -> None:
    names = [
        b"\xff\xfe",
        b"\x1b[2J",
        b"a\nreport.html: fine",
        b"part-00000.parquet",
        b".kdaudit-",
        b"\xe2\x80\xae",
    ]
    (path.parent / os.fsdecode(chance.choice(names))).write_bytes(b"")


def _sparse(chance: random.Random, path: Path, outside: Path) -> None:
    os.truncate(path, 600 << 20)


def _mode(chance: random.Random, path: Path, outside: Path) -> None:
    path.chmod(chance.choice([0o644, 0o000, 0o777]))


_WRITING = (_flip, _cut, _json, _forged, _sparse, _mode)
"""These open what they spoil, which must be a file: they would wait for a FIFO, or write through a link."""
_SPOILS: list[Spoil] = [
    _link,
    _link,
    _replace(os.mkfifo),
    _replace(Path.mkdir),
    _replace(lambda _: None),
    _name,
    *_WRITING,
]
_NAMES = [
    *("manifest.json", "manifest.sha256", "results.json", "leaks.parquet", "report.html"),
    *("report.public.html", "card.md", "config.yaml", ".lock", ".writing"),
]


@contextlib.contextmanager
def _in_time() -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"took more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(chance: random.Random, folder: Path) -> str | None:
    """Spoil a copy of the run, and give it to the commands."""
    run, outside, card = folder / "run", folder / "outside", folder / "README.md"
    shutil.copytree(_finished(), run)
    before = _most_memory()
    outside.write_text("theirs")
    outside.chmod(0o640)
    card.write_text("---\nlicense: mit\n---\n# A model\n")
    for name in _THEIRS:
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text("mine")
    done = []
    for _ in range(chance.randrange(1, 4)):
        spoil, name = chance.choice(_SPOILS), chance.choice(_NAMES)
        target = run / ("manifest.json" if spoil is _forged else name)
        if spoil in _WRITING and (target.is_symlink() or not target.is_file()):
            continue
        done.append(f"{getattr(spoil, '__name__', 'spoil')} {name}")
        with contextlib.suppress(OSError, ValueError):
            spoil(chance, run / name, outside)
    for words in (
        ["verify", str(run)],
        ["report", str(run)],
        ["card", str(run), "--student", "soft", "--card", str(card)],
        ["validate", str(run / "config.yaml")],
        ["verify", str(run)],
    ):
        if (wrong := _wrong_with(words)) is not None:
            return f"{words[0]} after {', '.join(done)}: {wrong}"
    if (wrong := _wrong_with_opening(run)) is not None:
        return f"a run opened after {', '.join(done)}: {wrong}"
    if (outside.read_text(), outside.stat().st_mode & 0o777) != ("theirs", 0o640):
        return f"a file outside was changed after {', '.join(done)}"
    if (grown := _most_memory() - before) > _MEMORY:
        return f"memory grew by {grown >> 20} MiB after {', '.join(done)}"
    lost = [name for name in _THEIRS if not os.path.lexists(run / name)]
    return f"what the user keeps is gone after {', '.join(done)}: {lost}" if lost else None


def _most_memory() -> int:
    """The most that the process ever held, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _wrong_with(words: list[str]) -> str | None:
    with _in_time():
        result = CliRunner().invoke(kdaudit, words)
    said = result.output + result.stderr
    if result.exit_code not in ((0, 1, 2) if words[0] == "verify" else (0, 2, 4)):
        return f"exit code {result.exit_code}: {said[-300:]}"
    if "Traceback" in said or "internal error" in said:
        return said[-1500:]
    found = _OBEYED.search(said)
    return None if found is None else f"prints {found[0]!r}: {said[-300:]}"


def _wrong_with_opening(run: Path) -> str | None:
    """What `run` does first of all in its folder: resume what is there, or with `--fresh` remove it."""
    for fresh in (False, True):
        try:
            with _in_time():
                RunStore(run, "sample", {}, fresh=fresh).close()
        except KdauditError as error:
            if not isinstance(error, RunStateError | StorageError):
                return f"{type(error).__name__}: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return None


if __name__ == "__main__":
    main(attempt, cases=60)
