"""Files: only regular ones are read, none without a bound where it describes something, and none is written
over that is not ours.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kdaudit.errors import RunStateError, StorageError
from kdaudit.runs.files import (
    check_folders,
    check_place,
    open_regular,
    read_bounded,
    replacing,
    sha256_file,
    write_bytes,
)


@pytest.mark.parametrize("read", [open_regular, sha256_file, lambda path: read_bounded(path, 10)])
@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device", "directory"])
def test_what_is_not_a_regular_file_is_refused_at_once(kind: str, read, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(OSError, match="directory" if kind == "directory" else "not a regular file") as caught:
        read(path)
    assert caught.value.errno == (errno.EISDIR if kind == "directory" else errno.EINVAL)


def test_a_bounded_read_takes_as_much_as_it_may_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to(path)
    assert read_bounded(tmp_path / "link", 10) == b"0123456789"
    with pytest.raises(OSError, match="larger than 9 bytes") as caught:
        read_bounded(path, 9)
    assert caught.value.errno == errno.EFBIG


def test_a_huge_sparse_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.touch()
    os.truncate(path, 1 << 42)
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_bounded(path, 10)


def test_a_name_with_a_nul_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="NUL"):
        read_bounded(tmp_path / "a\0b", 10)


@pytest.mark.parametrize("private", [True, False])
def test_a_link_where_a_file_is_being_written_is_not_followed(tmp_path: Path, private: bool) -> None:
    """Whoever can guess the temporary name could have any file overwritten."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    victim.chmod(0o600)
    place = tmp_path / "folder" / "README.md"
    place.parent.mkdir()
    (place.parent / "README.md.partial").symlink_to(victim)
    write_bytes(place, b"new", private=private)
    assert victim.read_text() == "mine"
    assert victim.stat().st_mode & 0o777 == 0o600
    assert place.read_bytes() == b"new"
    assert place.stat().st_mode & 0o777 == (0o600 if private else 0o644)
    assert (place.parent / "README.md.partial").is_symlink()
    assert len(list(place.parent.iterdir())) == 2


IN_THE_WAY = {
    "a link": lambda path: path.symlink_to(path.parent.parent / "victim"),
    "a link that leads nowhere": lambda path: path.symlink_to(path.parent.parent / "gone"),
    "a link inside": lambda path: path.symlink_to(path.parent / "other"),
    "a folder": Path.mkdir,
    "a FIFO": os.mkfifo,
}


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_not_a_file_is_not_replaced_by_one(kind: str, tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    place = tmp_path / "folder" / "report.html"
    place.parent.mkdir()
    (place.parent / "other").write_text("mine too")
    IN_THE_WAY[kind](place)
    before = place.lstat()
    with pytest.raises(
        RunStateError, match=r"report\.html: is a (link|folder|FIFO), and will not be replaced"
    ):
        write_bytes(place, b"new", private=True)
    assert place.lstat() == before
    assert {path.name for path in tmp_path.iterdir()} == {"victim", "folder"}
    assert (tmp_path / "victim").read_text() == "mine"


def test_another_name_of_a_file_keeps_what_it_held(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_text("old")
    os.link(tmp_path / "theirs", tmp_path / "ours")
    write_bytes(tmp_path / "ours", b"new", private=False)
    assert (tmp_path / "theirs").read_text() == "old"
    assert (tmp_path / "ours").read_text() == "new"


@pytest.mark.parametrize("kind", ["a link", "a file"])
def test_folders_below_the_root_are_folders_indeed(kind: str, tmp_path: Path) -> None:
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (run / "extraction").symlink_to(elsewhere) if kind == "a link" else (run / "extraction").touch()
    with pytest.raises(RunStateError, match=f"extraction: is {kind}, not a directory"):
        check_folders(run / "extraction" / "teacher", run)
    with pytest.raises(RunStateError, match=f"extraction: is {kind}, not a directory"):
        check_place(run / "extraction" / "part-00000.parquet", run)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing_behind(error: BaseException, tmp_path: Path) -> None:
    kind = StorageError if isinstance(error, OSError) else KeyboardInterrupt

    def fail(partial: Path) -> None:
        assert partial.stat().st_mode & 0o777 == 0o600
        raise error

    with pytest.raises(kind), replacing(tmp_path / "file", private=True) as partial:
        fail(partial)
    assert not list(tmp_path.iterdir())
