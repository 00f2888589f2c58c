"""The run directory: atomic files, resume, one process at a time, verify."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from kdaudit.errors import RunStateError, StorageError
from kdaudit.files import replacing
from kdaudit.manifest import check_files
from kdaudit.store import RunStore

TABLE = pa.table({"x": [1, 2, 3]})


def _finished(folder: Path, *tables: str) -> None:
    with RunStore(folder, "run", {"seed": "0"}) as run:
        with run.stage("one"):
            for name in ("examples/part-00000.parquet", *tables):
                run.write_table(name, TABLE, private=True)
        run.write_text("results.json", "{}\n", private=True)
        run.finish()


def test_finished_work_is_found_again(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        assert run.done("one")
        assert run.shards("examples") == ["examples/part-00000.parquet"]
        assert run.read_table("examples/part-00000.parquet").equals(TABLE)
    assert check_files(tmp_path / "run") == []


def test_unfinished_stage_is_not_done_but_its_shards_stand(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run, contextlib.suppress(ZeroDivisionError):
        with run.stage("one"):
            run.write_table("examples/part-00000.parquet", TABLE, private=True)
            raise ZeroDivisionError
    with RunStore(tmp_path / "run", "run", {}) as run:
        assert not run.done("one")
        assert run.has("examples/part-00000.parquet")


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    unlisted = tmp_path / "run" / "examples" / "part-00001.parquet"
    partial = tmp_path / "run" / "results.json.partial"
    for path in (unlisted, partial):
        path.write_text("half")
    RunStore(tmp_path / "run", "run", {"seed": "0"}).close()
    assert not unlisted.exists()
    assert not partial.exists()


def test_changed_inputs_are_named(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    with pytest.raises(RunStateError, match="seed: 0 then, 1 now"):
        RunStore(tmp_path / "run", "run", {"seed": "1"})
    with RunStore(tmp_path / "run", "run", {"seed": "1"}, fresh=True) as run:
        assert not run.done("one")


def test_a_mistake_corrected_before_extraction_starts_over(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    with RunStore(tmp_path / "run", "run", {"seed": "1"}) as run:
        assert not run.done("one")


@pytest.mark.parametrize("fresh", [False, True])
def test_a_manifest_of_something_else_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "manifest.json").write_text('{"manifest_version": 3}')
    (tmp_path / "config.yaml").write_text("mine")
    with pytest.raises(RunStateError, match="is no manifest of a run"):
        RunStore(tmp_path, "run", {}, fresh=fresh)
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_crash_while_a_listed_file_is_replaced_does_not_look_like_damage(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        run.forget("results.json")
        (tmp_path / "run" / "results.json").write_text("newer")  # and killed before it is listed
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        assert not run.has("results.json")


def test_a_damaged_report_is_unlisted_to_be_rendered_again(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        run.write_text("report.html", "page", private=True)
    (tmp_path / "run" / "report.html").write_text("other")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        assert not run.has("report.html")


def test_fresh_leaves_what_a_run_did_not_write(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    (tmp_path / "run" / "mine.txt").write_text("keep")
    RunStore(tmp_path / "run", "run", {}, fresh=True).close()
    assert (tmp_path / "run" / "mine.txt").read_text() == "keep"
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize("fresh", [False, True])
def test_folder_that_is_no_run_is_left_alone(tmp_path: Path, fresh: bool) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunStateError, match="holds no run"):
        RunStore(tmp_path, "run", {}, fresh=fresh)
    assert (tmp_path / "thesis.txt").exists()


def test_second_process_is_refused_and_a_dead_ones_lock_is_not(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, os, signal; from kdaudit.store import RunStore; "
        "run = RunStore(pathlib.Path(sys.argv[1]), 'run', {}); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(RunStateError, match="another kdaudit process"):
            RunStore(tmp_path / "run", "run", {})
        holder.kill()
    RunStore(tmp_path / "run", "run", {}).close()


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["examples/part-00000.parquet", "results.json", "manifest.json", "manifest.sha256"]
)
@pytest.mark.parametrize(
    "damage", [_flip, Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])]
)
def test_verify_names_damage(tmp_path: Path, name: str, damage) -> None:
    run = tmp_path / "run"
    _finished(run)
    damage(run / name)
    try:
        problems = check_files(run)
    except RunStateError as error:  # a manifest that is none any more
        problems = [str(error)]
    assert any(name.split("/")[-1].partition(".")[0] in problem for problem in problems)


def test_verify_names_an_added_file(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    (tmp_path / "run" / "examples" / "note.txt").write_text("x")
    assert check_files(tmp_path / "run") == ["examples/note.txt: was added; the run did not write it"]


def test_damaged_shard_stops_a_continued_run(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    _flip(tmp_path / "run" / "examples" / "part-00000.parquet")
    with pytest.raises(RunStateError, match=r"part-00000\.parquet: is missing or was changed"):
        RunStore(tmp_path / "run", "run", {"seed": "0"})


def test_failed_write_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(StorageError, match="No space left"), replacing(path, private=True):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
