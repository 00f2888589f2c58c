"""Does an audit find the same whoever does its work? Local processes and Ray's actors, one and several.

    python tests/benchmarks/equal_results.py AUDIT.yaml [--local 1 2] [--ray 1 2] [--shard-rows 64]

The audit is run once for each number of local workers and of actors, each of these in a cluster of its own
with as many cores. Compared with the first run are results.json and every table of the run directory, row
for row, but for times and for what carries the run's own key. Shards are small, so that a small corpus has
work for several. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
_OWN = {"created", "seconds", "tokens_per_second", "suffix_hmac", "config"}
"""Keys of results.json and columns that no two runs share: times, and hashes with the run's own key."""
_COMMAND = (
    "import sys; from kdaudit.cli import main; from kdaudit.runs import store\n"
    "store.SHARD_ROWS = int(sys.argv.pop(1)); main()"
)


def main() -> int:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("audit", type=Path)
    parser.add_argument("--local", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--ray", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--shard-rows", type=int, default=64)
    asked = parser.parse_args()
    equal = True
    with tempfile.TemporaryDirectory() as scratch:
        first: Path | None = None
        for where, count in [*(("local", one) for one in asked.local), *(("Ray", one) for one in asked.ray)]:
            out = Path(scratch) / f"{where}-{count}"
            with _cluster(count if where == "Ray" else None) as words:
                began = time.monotonic()
                _run(asked.audit, out, asked.shard_rows, [f"compute.workers={count}", *words])
                seconds = time.monotonic() - began
            first = first or out
            other = differences(first, out)
            equal &= not other
            told = "the first" if out == first else "equal" if not other else f"OTHER: {', '.join(other)}"
            print(f"{where}, {count} workers: {seconds:.1f} s, {_tables(out)} tables, {told}", flush=True)
    return not equal


@contextmanager
def _cluster(cores: int | None) -> Iterator[list[str]]:
    """What to set for a cluster of one node; nothing without cores."""
    if cores is None:
        yield []
        return
    from ray.cluster_utils import Cluster

    room = {"num_cpus": cores, "object_store_memory": 160 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=room)
    try:
        yield [f"compute.ray={cluster.address}"]
    finally:
        cluster.shutdown()


def _run(audit: Path, out: Path, shard_rows: int, sets: Sequence[str]) -> None:
    command = [sys.executable, "-c", _COMMAND, str(shard_rows), "run", str(audit), "--out", str(out)]
    command += [word for one in sets for word in ("--set", one)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):  # what a gate says of models is no failure of the run
        raise SystemExit(f"exit code {done.returncode}:\n{done.stderr[-3000:]}")


def differences(one: Path, other: Path) -> list[str]:
    """Files of two run directories that do not say the same."""
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*.parquet")) for run in (one, other)]
    found = sorted({*names[0]} ^ {*names[1]})
    found += [name for name in names[0] if name in names[1] and not _same_table(one / name, other / name)]
    results = [_without_own(json.loads((run / "results.json").read_text())) for run in (one, other)]
    return found if results[0] == results[1] else [*found, "results.json"]


def _same_table(one: Path, other: Path) -> bool:
    tables = [_without_columns(pq.ParquetFile(path).read()) for path in (one, other)]
    return tables[0].equals(tables[1])


def _without_columns(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in table.column_names if name in _OWN])


def _without_own(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_own(inner) for key, inner in value.items() if key not in _OWN}
    return [_without_own(one) for one in value] if isinstance(value, list) else value


def _tables(run: Path) -> int:
    return len([*run.rglob("*.parquet")])


if __name__ == "__main__":
    raise SystemExit(main())
