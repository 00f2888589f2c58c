"""What the run directory costs as it grows: seconds to list one more file, and to open a run.

    python tests/benchmarks/store.py [--files 0 10000 50000] [--folder DIR]

Files are tiny, as a run's shards are not: what is timed is the listing. Each number of files is simulated:
they are made, and put into the manifest at once. Then five more are written as a run writes them, and the run
is opened again, as a resumed one is. Prints a line for each number.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from kdaudit.runs import layout
from kdaudit.runs.manifest import read_manifest, write_manifest
from kdaudit.runs.store import RunStore

_WRITES = 5


def make_run(folder: Path, files: int) -> None:
    """An unfinished run of so many shards, written a while ago."""
    RunStore(folder, "bench", {}).close()
    manifest = read_manifest(folder)
    assert manifest is not None
    place = folder / layout.extraction(layout.TEACHER)
    place.mkdir(parents=True)
    for number in range(files):
        name, data = layout.shard(layout.extraction(layout.TEACHER), number), str(number).encode()
        (folder / name).write_bytes(data)
        manifest.files[name] = hashlib.sha256(data).hexdigest()
        manifest.sizes[name] = len(data)
        manifest.mtimes[name] = (folder / name).stat().st_mtime_ns
    write_manifest(folder, manifest)
    later = time.time_ns() + 10**10
    os.utime(folder / layout.MANIFEST, ns=(later, later))


def measure(folder: Path, files: int) -> tuple[float, float]:
    """Median seconds to write and list a file, and seconds to open the run."""
    make_run(folder, files)
    began = time.monotonic()
    run = RunStore(folder, "bench", {})
    opened = time.monotonic() - began
    with run:
        seconds = []
        for number in range(files, files + _WRITES):
            began = time.monotonic()
            run.write_text(layout.shard(layout.extraction(layout.TEACHER), number), "text")
            seconds.append(time.monotonic() - began)
    return statistics.median(seconds), opened


def main() -> None:
    """Measure each number of files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, nargs="+", default=[0, 10_000, 50_000])
    parser.add_argument("--folder", help="where to write; else the system's temporary folder")
    args = parser.parse_args()
    for files in args.files:
        with tempfile.TemporaryDirectory(prefix="kdaudit-store-", dir=args.folder) as folder:
            listed, opened = measure(Path(folder) / "run", files)
        print(f"{files:,} files: one more {listed:.4f} s, opening {opened:.2f} s", flush=True)


if __name__ == "__main__":
    main()
