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
    run_dir: Path, folder: str, schema: pa.Schema, if_there: Sequence[str] = (), null_in: Sequence[str] = ()
) -> Iterator[pa.Table]:
    """Columns of each shard, with the metadata of its schema.

    Args:
        run_dir: the run.
        folder: of the shards.
        schema: the columns, and their types.
        if_there: those of them that runs of earlier versions lack.
        null_in: those of them that may hold nulls.

    Raises:
        RunStateError: a shard cannot be read, or lacks a column or a value, or holds values of another type.

    """
    for path in shards_of(run_dir, folder):
        try:
            with open_regular(path) as file:
                names = pq.read_schema(file).names
                file.seek(0)
                if missing := [name for name in schema.names if name not in {*names, *if_there}]:
                    raise _damaged(path, f"has no column {missing[0]}")
                wanted = pa.schema([field for field in schema if field.name in names])
                table = pq.read_table(file, columns=wanted.names, use_threads=False)
                table = table.cast(wanted.with_metadata(table.schema.metadata))
        except (OSError, pa.ArrowException) as error:
            raise _damaged(path, f"cannot be read ({error})") from error
        for name in wanted.names:
            if name not in null_in and table[name].null_count:
                raise _damaged(path, f"lacks values of {name}")
        yield table


def _damaged(path: Path, what: str) -> RunStateError:
    return RunStateError(f"{path}: {what}", fix="`kdaudit verify` says what was changed; audit again")
