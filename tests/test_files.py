"""Reading files: only regular ones, and none without a bound where it describes something."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kdaudit.files import open_regular, read_bounded, sha256_file


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
