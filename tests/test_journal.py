"""The journal of a run: what a process that dies at any moment leaves, and what the next one makes of it."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs import journal, verify
from kdaudit.runs.files import write_file
from kdaudit.runs.layout import JOURNAL, MANIFEST, SEAL
from kdaudit.runs.store import RunStore
from kdaudit.runs.verify import check_files

EMPTY = re.compile(r"(extraction(/teacher)?|.*\.partial): was added")
"""A folder that was made for a file, and a file that was being written: nothing was listed yet."""
NAMES = [f"extraction/teacher/part-0000{number}.parquet" for number in range(3)]


def work(folder: Path) -> None:
    """A run that does everything that is journalled; it resumes where it was ended."""
    with RunStore(folder, "run", {"seed": "0"}) as run:
        if not run.done("first"):
            with run.stage("first"):
                run.plan("teacher.sequences", 8)
                for name in NAMES:
                    if not run.has(name):
                        run.write_text(name, f"what {name} holds")
        if not run.done("second", "newer"):
            with run.stage("second", "newer"):
                run.write_text("results.json", "older")
                run.discard("predictor.json")
                run.write_text("predictor.json", "fitted")
                run.write_text("results.json", "newer, and longer")
                run.discard("predictor.json")
                run.plan("teacher.sequences", 0)
                with run.rewriting("report.html", "card.md"):
                    write_file(folder, "report.html", b"page")
                    write_file(folder, "card.md", b"card")
        run.finish()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but those whose times differ from run to run."""
    skipped = {MANIFEST, SEAL, ".lock"}
    files = {path for path in folder.rglob("*") if path.is_file() and path.name not in skipped}
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class _Killer:
    """Ends this process before its n-th call that reaches the disk, or with half of its n-th line written."""

    def __init__(self, number: int, how_far: str) -> None:
        self._left, self._half = number, how_far == "half"

    def patch(self) -> None:
        calls = [(os, "write")]
        if not self._half:
            calls += [(os, "fsync"), (os, "ftruncate"), (Path, "replace"), (Path, "unlink")]
            calls += [(Path, "write_text"), (Path, "write_bytes")]
        for owner, name in calls:
            setattr(owner, name, self._meet(getattr(owner, name)))

    def _meet(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def met(*args: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                if self._half:
                    descriptor, data = args
                    call(descriptor, data[: len(data) // 2])
                os._exit(9)
            return call(*args, **named)

        return met


def killed(folder: Path, number: int, how_far: str) -> bool:
    """Work in a child that is ended at that moment; whether there was such a moment."""
    pid = os.fork()
    if pid == 0:
        try:
            _Killer(number, how_far).patch()
            work(folder)
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), "the work itself failed"
    return code == 9


@pytest.mark.parametrize("how_far", ["before", "half"])
def test_a_kill_at_every_write_leaves_a_run_that_goes_on_to_the_same_files(
    tmp_path: Path, how_far: str
) -> None:
    work(tmp_path / "undisturbed")
    wanted = contents(tmp_path / "undisturbed")
    assert {*wanted} == {*NAMES, "results.json", "report.html", "card.md"}
    moments = 0
    while killed(folder := tmp_path / str(moments), moments + 1, how_far):
        moments += 1
        unlisted = []
        if (folder / MANIFEST).exists():
            unlisted = [one for one in check_files(folder) if not EMPTY.match(one)]
        assert all(one.startswith(f"{SEAL}: is missing") for one in unlisted), (moments, unlisted)
        (folder / "mine.txt").write_text("mine") if unlisted else None
        assert not killed(folder, 10_000, how_far)
        if unlisted:
            assert (folder / "mine.txt").read_text() == "mine"
            (folder / "mine.txt").unlink()
        assert contents(folder) == wanted, moments
        assert check_files(folder) == []
        shutil.rmtree(folder)
    assert moments > (80 if how_far == "before" else 12)


def test_a_file_is_listed_by_one_line_and_the_manifest_is_left_alone(tmp_path: Path) -> None:
    with RunStore(tmp_path, "run", {}) as run:
        before = (tmp_path / MANIFEST).stat()
        for name in NAMES:
            run.write_text(name, "text")
        after = (tmp_path / MANIFEST).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    lines = [json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines()]
    assert [line["file"] for line in lines] == NAMES
    with RunStore(tmp_path, "run", {}) as run:
        assert run.shards("extraction/teacher") == NAMES
    assert not (tmp_path / JOURNAL).exists(), "it stands in the manifest now"
    assert [*json.loads((tmp_path / MANIFEST).read_text())["files"]] == NAMES


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read to be compared."""
    found: list[str] = []
    original = verify.sha256_file

    def spy(path: Path) -> str:
        found.append(path.name)
        return original(path)

    monkeypatch.setattr(verify, "sha256_file", spy)
    return found


def _settle(folder: Path) -> None:
    """As if the manifest had been written long after all files."""
    later = (folder / MANIFEST).stat().st_mtime_ns + 10**10
    os.utime(folder / MANIFEST, ns=(later, later))


def test_a_resumed_run_reads_only_files_of_another_size_or_time(tmp_path: Path, hashed: list[str]) -> None:
    folder = tmp_path / "run"
    work(folder)
    _settle(folder)
    work(folder)
    assert hashed == []
    touched = folder / NAMES[1]
    os.utime(touched, ns=(1, 1))
    work(folder)
    assert hashed == ["part-00001.parquet"]
    touched.write_text("other" * 9)
    with pytest.raises(RunStateError, match=r"part-00001\.parquet: was changed since the run wrote it"):
        work(folder)
    assert len(hashed) == 1, "its size tells"


def test_a_copied_run_whose_files_have_new_times_opens(tmp_path: Path, hashed: list[str]) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run:
        for name in NAMES:
            run.write_text(name, "text")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "run", copy, copy_function=shutil.copy)
    for name in NAMES:
        os.utime(copy / name, ns=(1, 1))
    RunStore(copy, "run", {}).close()
    assert len(hashed) == len(NAMES)
    _settle(copy)
    with RunStore(copy, "run", {}) as run:
        assert run.shards("extraction/teacher") == NAMES
    assert len(hashed) == len(NAMES), "their times are known now"


def test_what_was_written_with_the_manifest_is_read_whatever_its_time_says(
    tmp_path: Path, hashed: list[str]
) -> None:
    """A file system's clock may not have moved since."""
    work(tmp_path / "run")
    hashed.clear()
    work(tmp_path / "run")
    assert len(hashed) == len(NAMES) + 3


def test_a_half_written_last_line_is_dropped(tmp_path: Path) -> None:
    with RunStore(tmp_path, "run", {}) as run:
        for name in NAMES:
            run.write_text(name, "text")
    whole = (tmp_path / JOURNAL).read_bytes()
    (tmp_path / JOURNAL).write_bytes(whole[:-9])
    (tmp_path / NAMES[-1]).unlink()
    with RunStore(tmp_path, "run", {}) as run:
        assert run.shards("extraction/teacher") == NAMES[:-1]
        run.write_text(NAMES[-1], "text")


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_the_last_file_of_a_finished_stage_is_missed_as_any_other(tmp_path: Path, damage: str) -> None:
    """A later entry of the journal says that it stood in its place; the stage is not repeated."""
    with RunStore(tmp_path, "run", {}) as run, run.stage("first"):
        for name in NAMES:
            run.write_text(name, "text")
    path = tmp_path / NAMES[-1]
    path.unlink() if damage == "gone" else path.write_text("else")
    says = "is missing" if damage == "gone" else "was changed since the run wrote it"
    assert f"{NAMES[-1]}: {says}" in check_files(tmp_path)
    with pytest.raises(RunStateError, match=says):
        RunStore(tmp_path, "run", {})


DAMAGED = {
    "text": b"hello\n",
    "a list": b"[]\n",
    "another entry": b'{"removed": "results.json"}\n',
    "deep": b"[" * 100_000 + b"\n",
    "not UTF-8": b"\xff\n",
    "a way up": b'{"unlisted": ["../outside"]}\n',
    "a root": b'{"unlisted": ["/etc/passwd"]}\n',
    "the lock": b'{"unlisted": [".lock"]}\n',
    "a listed way up": b'{"file": "../outside", "sha256": "", "size": 4, "mtime_ns": 1}\n',
}


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_journal_that_is_none_is_refused_and_removes_nothing(
    tmp_path: Path, kind: str, fresh: bool
) -> None:
    (tmp_path / "outside").write_text("mine")
    run = tmp_path / "run"
    RunStore(run, "run", {}).close()
    (run / JOURNAL).write_bytes(DAMAGED[kind])
    with pytest.raises(RunStateError, match="is not the journal of a run, or a damaged one"):
        RunStore(run, "run", {}, fresh=fresh)
    with pytest.raises(RunStateError, match="is not the journal of a run, or a damaged one"):
        check_files(run)
    assert (tmp_path / "outside").read_text() == "mine"


STRANGE = {
    "a link": lambda path: path.symlink_to(path.parent.parent / "victim"),
    "a link that leads nowhere": lambda path: path.symlink_to(path.parent.parent / "gone"),
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_journal_that_is_no_file_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    (tmp_path / "victim").write_text("")
    run = tmp_path / "run"
    RunStore(run, "run", {}).close()
    STRANGE[kind](run / JOURNAL)
    with pytest.raises(RunStateError, match=r"journal\.jsonl: is a (link|FIFO|folder)"):
        RunStore(run, "run", {})
    (run / JOURNAL).rmdir() if kind == "a folder" else (run / JOURNAL).unlink()
    with RunStore(run, "run", {}) as store:
        STRANGE[kind](run / JOURNAL)
        with pytest.raises(StorageError, match=r"journal\.jsonl: could not be written"):
            store.write_text("results.json", "{}")
    assert (tmp_path / "victim").read_text() == ""
    assert not (tmp_path / "gone").exists()


def test_a_journal_beside_a_seal_is_not_the_runs(tmp_path: Path) -> None:
    work(tmp_path)
    forged = journal.Unlisted(unlisted=("results.json",)).model_dump_json() + "\n"
    (tmp_path / JOURNAL).write_text(forged)
    assert check_files(tmp_path) == [f"{JOURNAL}: was added; the run was finished without it"]
    with pytest.raises(RunStateError, match=r"journal\.jsonl: was added"):
        work(tmp_path)
    assert (tmp_path / "results.json").exists()


def test_a_run_of_an_earlier_version_opens(tmp_path: Path, hashed: list[str]) -> None:
    """Its manifest has no times, and names of files under way lie in `.writing`."""
    with RunStore(tmp_path, "run", {"seed": "0"}) as run:
        for name in NAMES:
            run.write_text(name, f"what {name} holds")
    RunStore(tmp_path, "run", {"seed": "0"}).close()
    manifest = json.loads((tmp_path / MANIFEST).read_text())
    for key in ("mtimes", "begun"):
        del manifest[key]
    (tmp_path / MANIFEST).write_text(json.dumps(manifest))
    (tmp_path / ".writing").write_text("results.json\nextraction/teacher/part-00000.parquet\nkept/pa")
    (tmp_path / "results.json").write_text("half")
    _settle(tmp_path)
    hashed.clear()
    RunStore(tmp_path, "run", {"seed": "0"}).close()
    assert len(hashed) == len(NAMES)
    assert not (tmp_path / "results.json").exists()
    assert not (tmp_path / ".writing").exists()
    work(tmp_path)
    assert check_files(tmp_path) == []


def test_a_line_that_could_not_be_written_whole_spoils_none_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RunStore(tmp_path, "run", {}) as run:
        run.write_text(NAMES[0], "text")
        original = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: original(fd, data[:7]))
        with pytest.raises(StorageError, match="No space left"):
            run.write_text(NAMES[1], "text")
        monkeypatch.undo()
        assert not run.has(NAMES[1])
        run.write_text(NAMES[2], "text")
    assert [one[:28] for one in check_files(tmp_path)] == ["manifest.sha256: is missing;"]
    with RunStore(tmp_path, "run", {}) as run:
        assert run.shards("extraction/teacher") == [NAMES[0], NAMES[2]]


def test_a_file_that_could_not_be_moved_is_not_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with RunStore(tmp_path, "run", {}) as run:
        monkeypatch.setattr(Path, "replace", fail)
        with pytest.raises(StorageError, match="No space left"):
            run.write_text(NAMES[0], "text")
        monkeypatch.undo()
        assert not run.shards("extraction/teacher")
        run.write_text(NAMES[1], "text")
    with RunStore(tmp_path, "run", {}) as run:
        assert run.shards("extraction/teacher") == NAMES[1:2]
