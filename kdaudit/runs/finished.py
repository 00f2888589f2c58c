"""Tables of a finished run, read a shard at a time, without a lock and without its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.errors import RunStateError
from kdaudit.runs import layout
from kdaudit.runs.files import open_regular


def shards_of(run_dir: Path, folder: str) -> list[Path]:
    """A folder's shards in the order of their numbers; none where the run lacks it."""
    found = [path for path in (run_dir / folder).glob("*") if layout.is_shard(path.name)]
    return sorted(found, key=lambda path: layout.shard_number(path.name))


def read_shards(
    run_dir: Path, folder: str, columns: Sequence[str], if_there: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Columns of each shard, with the metadata of its schema.

    Args:
        run_dir: the run.
        folder: of the shards.
        columns: those that every shard has.
        if_there: more of them, which runs of earlier versions lack.

    Raises:
        RunStateError: a shard cannot be read, or lacks a column.

    """
    for path in shards_of(run_dir, folder):
        try:
            with open_regular(path) as file:
                schema = pq.read_schema(file)
                file.seek(0)
                wanted = [*columns, *(name for name in if_there if name in schema.names)]
                if missing := [name for name in columns if name not in schema.names]:
                    raise _damaged(path, f"has no column {missing[0]}")
                table = pq.read_table(file, columns=wanted, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, f"cannot be read ({error})") from error
        yield table


def _damaged(path: Path, what: str) -> RunStateError:
    return RunStateError(f"{path}: {what}", fix="`kdaudit verify` says what was changed; audit again")
