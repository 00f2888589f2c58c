"""The run directory: atomic files, resume, one process at a time, verify."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import replacing
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


def test_finished_work_is_found_again(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        assert run.done("one")
        assert run.shards("examples") == ["examples/part-00000.parquet"]
        assert run.read_table("examples/part-00000.parquet").equals(TABLE)
    assert check_files(tmp_path / "run") == []


def test_a_damaged_file_of_a_stage_is_told_when_it_is_read(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run:
        run.write_text("prediction.json", "[1.5]")
        run.write_table("examples/part-00000.parquet", TABLE)
        assert run.read_json("prediction.json", list[float]) == [1.5]
        for name in ("prediction.json", "examples/part-00000.parquet"):
            (tmp_path / "run" / name).write_text("half")
        with pytest.raises(StorageError, match=r"prediction\.json: cannot be read .*; use --fresh"):
            run.read_json("prediction.json", list[float])
        with pytest.raises(StorageError, match=r"part-00000\.parquet: cannot be read .*; use --fresh"):
            run.read_table("examples/part-00000.parquet")


def test_unfinished_stage_is_not_done_but_its_shards_stand(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "run", {}) as run, contextlib.suppress(ZeroDivisionError):
        with run.stage("one"):
            run.write_table("examples/part-00000.parquet", TABLE)
            raise ZeroDivisionError
    with RunStore(tmp_path / "run", "run", {}) as run:
        assert not run.done("one")
        assert run.has("examples/part-00000.parquet")


def test_another_holdout_does_not_hide_that_an_unfinished_stage_was_begun_otherwise(tmp_path: Path) -> None:
    """What was written of a model may be of weights that were there meanwhile."""
    inputs = {"seed": "0", "holdout.path (its content)": "one"}
    with RunStore(tmp_path, "run", inputs) as run:
        with run.stage("extraction/soft", with_="some weights"):
            pass
        with contextlib.suppress(ZeroDivisionError), run.stage("extraction/hard", with_="other weights"):
            run.write_table("extraction/hard/part-00000.parquet", TABLE)
            raise ZeroDivisionError
    with RunStore(tmp_path, "run", {**inputs, "holdout.path (its content)": "two"}) as run:
        assert not run.done("extraction/soft")
        assert not run.begun_otherwise("extraction/soft", "some weights")
        assert run.begun_otherwise("extraction/hard", "some weights")


def test_leftovers_of_a_killed_process_are_swept(tmp_path: Path) -> None:
    _finished(tmp_path / "run")
    announced = tmp_path / "run" / "examples" / "part-00001.parquet"
    partial = tmp_path / "run" / "examples" / ".kdaudit-0a_b1c2d.partial"
    scratch = tmp_path / "run" / ".kdaudit-zzzzzzzz.partial" / "spool-0.parquet"
    scratch.parent.mkdir()
    theirs = [
        tmp_path / "run" / name for name in ("notes.partial", "part-00000.parquet", "examples/part-2.parquet")
    ]
    for path in (announced, partial, scratch, *theirs):
        path.write_text("half")
    (tmp_path / "run" / ".writing").write_text(
        "examples/part-00000.parquet\nexamples/part-00001.parquet\nexam"
    )
    RunStore(tmp_path / "run", "run", {"seed": "0"}).close()
    assert not announced.exists()
    assert not partial.exists()
    assert not scratch.parent.exists()
    assert all(path.exists() for path in theirs), "what is not ours stays"
    assert (tmp_path / "run" / "examples" / "part-00000.parquet").exists(), "a listed file stays"


def test_fresh_keeps_what_is_not_the_runs(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    theirs = tmp_path / "run" / "examples" / "my-notes.parquet"
    theirs.write_text("mine")
    with RunStore(tmp_path / "run", "run", {"seed": "1"}, fresh=True) as run:
        assert not run.shards("examples")
    assert theirs.read_text() == "mine"
    assert not (tmp_path / "run" / "extraction").exists()


@pytest.mark.parametrize("name", ["examples", "extraction"])
def test_a_folder_of_the_run_that_is_a_link_is_refused(tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with RunStore(tmp_path / "run", "run", {}) as run:
        (tmp_path / "run" / name).symlink_to(elsewhere)
        with pytest.raises(RunStateError, match=f"{name}: is a link"):
            run.write_table(f"{name}/teacher/part-00000.parquet", TABLE)
    assert not list(elsewhere.iterdir())


def test_shards_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    numbers = [0, 7, 9_999, 99_999, 100_000, 100_001, 1_000_000]
    with RunStore(tmp_path / "run", "run", {}) as run:
        for number in (100_000, 7, 1_000_000, 0, 99_999, 100_001, 9_999):
            run.write_table(f"examples/part-{number:05d}.parquet", TABLE)
        assert run.shards("examples") == [f"examples/part-{number:05d}.parquet" for number in numbers]


def test_private_files_are_known_by_name_as_they_are_by_mode_and_a_loosened_mode_is_told(
    tmp_path: Path,
) -> None:
    _finished(tmp_path / "run")
    assert check_files(tmp_path / "run") == []
    examples = tmp_path / "run" / "examples" / "part-00000.parquet"
    examples.chmod(0o644)
    assert check_files(tmp_path / "run") == [
        "examples/part-00000.parquet: holds training text and can be read by others than its owner"
    ]


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
    with pytest.raises(RunStateError, match="is not the manifest of a run"):
        RunStore(tmp_path, "run", {}, fresh=fresh)
    assert (tmp_path / "config.yaml").read_text() == "mine"


def test_a_crash_while_a_listed_file_is_replaced_does_not_look_like_damage(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        with contextlib.suppress(ZeroDivisionError), run.rewriting("results.json"):
            (tmp_path / "run" / "results.json").write_text("newer")
            raise ZeroDivisionError  # killed before it is listed
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        assert not run.has("results.json")


def test_a_damaged_report_is_unlisted_to_be_rendered_again(tmp_path: Path) -> None:
    _finished(tmp_path / "run", "extraction/teacher/part-00000.parquet")
    with RunStore(tmp_path / "run", "run", {"seed": "0"}) as run:
        run.write_text("report.html", "page")
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
        "import sys, pathlib, os, signal; from kdaudit.runs.store import RunStore; "
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
    with pytest.raises(RunStateError, match=r"part-00000\.parquet: was changed since the run wrote it"):
        RunStore(tmp_path / "run", "run", {"seed": "0"})


def test_failed_write_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(StorageError, match="No space left"), replacing(path, private=True):
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
