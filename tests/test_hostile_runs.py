"""What lies in a run directory and is not the run's own: never written over, followed, removed, waited on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
from test_wrong_input import as_plain_user

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import kind_of
from kdaudit.runs.lock import FolderLock
from kdaudit.runs.opening import check_folder
from kdaudit.runs.store import RunStore
from kdaudit.runs.verify import check_files

TABLE = pa.table({"x": [1, 2, 3]})


def _finished(folder: Path, *tables: str) -> None:
    with RunStore(folder, "run", {"seed": "0"}) as run:
        with run.stage("one"):
            for name in ("examples/part-00000.parquet", *tables):
                run.write_table(name, TABLE)
        run.write_text("results.json", "{}\n")
        run.finish()


def _files(folder: Path) -> dict[str, str]:
    """What lies in a folder, by name: contents, or what it is."""
    kinds = {path: kind_of(path) or "" for path in folder.rglob("*")}
    return {
        str(path.relative_to(folder)): path.read_text("latin-1") if kind == "a file" else kind
        for path, kind in kinds.items()
    }


class _Killed(BaseException):
    """Stands for a SIGKILL: nothing is cleaned up behind it that a dead process could not."""


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("when", ["before it is moved", "after it is moved"])
def test_a_file_is_known_as_the_runs_own_before_it_stands_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str, old: bool
) -> None:
    name, newer = "kept/part-00000.parquet", pa.table({"x": [4]})
    run = RunStore(tmp_path / "run", "run", {})
    if old:
        run.write_table(name, TABLE)
        with suppress(ZeroDivisionError), run.rewriting(name):
            raise ZeroDivisionError
    original = Path.replace

    def replace(path: Path, target: Path) -> None:
        if Path(target).name == Path(name).name:
            if when == "after it is moved":
                original(path, target)
            raise _Killed
        original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(_Killed):
        run.write_table(name, newer)
    monkeypatch.undo()
    run.close()
    with RunStore(tmp_path / "run", "run", {}) as run:
        assert not run.shards("kept")
        assert not (tmp_path / "run" / "kept").exists(), "what it wrote is its own to remove"
        run.write_table(name, newer)
    assert [problem[:28] for problem in check_files(tmp_path / "run")] == ["manifest.sha256: is missing;"]


def test_a_kill_while_files_are_removed_leaves_them_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"kept/part-0000{number}.jsonl" for number in range(3)]
    run = RunStore(tmp_path / "run", "run", {})
    for name in names:
        run.write_text(name, name)
    original = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "part-00001.jsonl":
            raise _Killed
        original(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(_Killed):
        run.discard(*names)
    monkeypatch.undo()
    run.close()
    RunStore(tmp_path / "run", "run", {}).close()
    assert not (tmp_path / "run" / "kept").exists()


def test_a_file_of_others_where_the_run_would_write_is_refused_by_name(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run:
        mine = tmp_path / "run" / "examples" / "part-00000.parquet"
        mine.parent.mkdir()
        mine.write_text("mine")
        with pytest.raises(RunStateError, match=r"part-00000\.parquet: is there already"):
            run.write_table("examples/part-00000.parquet", TABLE)
        run.discard("examples/part-00000.parquet")
    assert mine.read_text() == "mine"


def test_fresh_refuses_what_stands_in_the_place_of_a_file(tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    _finished(run)
    (run / "examples").rename(elsewhere)
    (run / "examples").symlink_to(elsewhere)
    before = _files(run)
    with pytest.raises(RunStateError, match="examples: is a link"):
        RunStore(run, "run", {}, fresh=True)
    assert _files(run) == before
    assert (elsewhere / "part-00000.parquet").exists()


LOCKS = {
    "a link outside": lambda path: path.symlink_to(path.parent.parent / "victim"),
    "a link that leads nowhere": lambda path: path.symlink_to(path.parent.parent / "gone"),
    "a FIFO": os.mkfifo,
    "a folder": Path.mkdir,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_file_that_is_none_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    LOCKS[kind](run / ".lock")
    before = (run / ".lock").lstat()
    for refuse in (lambda: RunStore(run, "run", {}), lambda: check_folder(run)):
        with pytest.raises(RunStateError, match=r"\.lock: is a (link|FIFO|folder)"):
            refuse()
    assert (run / ".lock").lstat() == before
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "run"}
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize("open_run", [lambda path: RunStore(path, "run", {}), check_folder])
def test_a_refused_folder_keeps_no_lock_file(open_run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunStateError, match="holds no run"):
        open_run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_was_only_looked_at_stays_as_it_was(tmp_path: Path) -> None:
    check_folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("written", [False, True])
def test_a_folder_made_in_vain_is_removed(tmp_path: Path, written: bool) -> None:
    folder = tmp_path / "runs" / "a"

    def fail() -> None:
        if written:
            (folder / "work").touch()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), FolderLock(folder):
        fail()
    assert folder.exists() == (tmp_path / "runs").exists() == written
    assert not written or {path.name for path in folder.iterdir()} == {"work", ".lock"}


def test_a_second_process_leaves_the_first_ones_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path / "run"):
        with pytest.raises(RunStateError, match="another kdaudit process"):
            FolderLock(tmp_path / "run")
        assert (tmp_path / "run" / ".lock").exists()


def test_verify_names_what_was_added(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _finished(run)
    (run / "examples" / "note.txt").write_text("x")
    (run / "empty").mkdir()
    (run / "more" / "inside").mkdir(parents=True)
    (run / "more" / "inside" / "file").touch()
    os.mkfifo(run / "examples" / "fifo")
    names = ["empty", "examples/fifo", "examples/note.txt", "more", "more/inside", "more/inside/file"]
    assert check_files(run) == [f"{name}: was added; the run did not write it" for name in names]
    (run / "link").symlink_to(tmp_path)
    assert "link: is a link; the run made none" in check_files(run)


def test_verify_leaves_out_what_goes_while_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process is at work there: its files of a moment are gone when they are looked at."""
    _finished(tmp_path)
    walk = os.walk

    def listed(folder: Path) -> Iterator[tuple[str, list[str], list[str]]]:
        yield from walk(folder)
        yield str(folder), [".kdaudit-0a_b1c2d.partial"], ["gone"]

    monkeypatch.setattr(os, "walk", listed)
    assert check_files(tmp_path) == []


def test_verify_says_where_it_may_not_look(tmp_path: Path) -> None:
    run = tmp_path / "run"
    _finished(run)
    run.chmod(0o600)
    try:
        with as_plain_user(), pytest.raises(RunStateError, match="Permission denied"):
            check_files(run)
    finally:
        run.chmod(0o700)


def _move_behind_a_link(path: Path) -> None:
    elsewhere = path.parent.parent / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("results.json", "results.json: is a link; the run wrote a file"),
        ("examples", "examples/part-00000.parquet: lies behind examples, which is a link"),
        ("manifest.json", "manifest.json: is a link"),
        ("manifest.sha256", "manifest.sha256: is a link"),
    ],
)
def test_verify_names_links_though_what_they_lead_to_is_whole(tmp_path: Path, name: str, says: str) -> None:
    run = tmp_path / "run"
    _finished(run)
    _move_behind_a_link(run / name)
    assert any(problem.startswith(says) for problem in check_files(run)), check_files(run)
    if "manifest" not in name:
        with pytest.raises(RunStateError, match="link"):
            RunStore(run, "run", {"seed": "0"})


def _replace_by(make):
    def act(path: Path) -> None:
        path.unlink()
        make(path)

    return act


STRANGE = {
    "a folder": _replace_by(Path.mkdir),
    "a FIFO": _replace_by(os.mkfifo),
    "a link to a device": _replace_by(lambda path: path.symlink_to("/dev/zero")),
    "a link that leads nowhere": _replace_by(lambda path: path.symlink_to(path.parent / "gone")),
    "a huge file": lambda path: os.truncate(path, 1 << 42),
}


@pytest.mark.parametrize("kind", STRANGE)
@pytest.mark.parametrize(
    "name", ["examples/part-00000.parquet", "results.json", "manifest.json", "manifest.sha256"]
)
def test_what_is_no_file_hangs_and_crashes_nothing(tmp_path: Path, name: str, kind: str) -> None:
    run = tmp_path / "run"
    _finished(run, "extraction/teacher/part-00000.parquet")
    STRANGE[kind](run / name)
    try:
        problems = check_files(run)
    except RunStateError as error:
        problems = [str(error)]
    assert any(name in problem for problem in problems), problems
    with pytest.raises((RunStateError, StorageError), match=r"manifest|examples|results|holds no run"):
        RunStore(run, "run", {"seed": "0"})


BAD_NAMES = [
    "/etc/passwd",
    "../outside",
    "examples/../../outside",
    "examples//part",
    "./results.json",
    "",
    ".lock",
    "a\0b",
    "a\nresults.json: all is well",
    "a\\b",
    "a\x1b[2J",
    "a\u202eb",
    "examples/",
]


@pytest.mark.parametrize("name", BAD_NAMES, ids=map(repr, BAD_NAMES))
@pytest.mark.parametrize("key", ["files", "sizes"])
def test_a_manifest_names_files_inside_its_folder_alone(tmp_path: Path, name: str, key: str) -> None:
    run = tmp_path / "run"
    _finished(run)
    (tmp_path / "outside").write_text("mine")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest.setdefault(key, {})[name] = "0" * 64 if key == "files" else 1
    (run / "manifest.json").write_text(json.dumps(manifest))
    (problem,) = check_files(run)
    assert problem.startswith("manifest.json: was damaged since the run wrote it")
    assert repr(name) in problem
    for fresh in (False, True):
        with pytest.raises(RunStateError, match="lies outside the run directory or is not a file of a run"):
            RunStore(run, "run", {"seed": "0"}, fresh=fresh)
    assert (tmp_path / "outside").read_text() == "mine"


DAMAGED = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "no key": "{}",
    "NUL": "\0",
    "deep": "[" * 100_000,
    "a list for a mapping": '{"files": []}',
    "no shards": '{"batch_plan": {"a": 0}}',
    "not UTF-8": "\xff",
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_manifest_is_said(tmp_path: Path, kind: str) -> None:
    run = tmp_path / "run"
    _finished(run)
    (run / "manifest.json").write_text(DAMAGED[kind], encoding="latin-1")
    (problem,) = check_files(run)
    assert problem.startswith("manifest.json: was damaged since the run wrote it")
    with pytest.raises(RunStateError, match="is not the manifest of a run, or a damaged one"):
        RunStore(run, "run", {"seed": "0"})


@pytest.mark.parametrize("key", ["shard_rows", "results.json"])
def test_a_finished_run_whose_manifest_was_edited_is_not_resumed(tmp_path: Path, key: str) -> None:
    run = tmp_path / "run"
    _finished(run, "extraction/teacher/part-00000.parquet")
    manifest = json.loads((run / "manifest.json").read_text())
    del manifest["batch_plan" if key == "shard_rows" else "files"][key]
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunStateError, match=r"does not fit manifest\.sha256|shard_rows is missing"):
        RunStore(run, "run", {"seed": "0"})


def test_a_stage_whose_file_the_manifest_does_not_list_is_said(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run:
        with pytest.raises(RunStateError, match=r"does not list prediction\.json"):
            run.hash_of("prediction.json")
