"""Canaries in a run: their texts as examples, and how often each was planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from kdaudit.config.attacks import CanariesConfig
from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.canaries import read_canaries
from kdaudit.errors import CorpusError
from kdaudit.pipelines.stages.work import CANARY_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import PLANTED_SCHEMA

KEY = layout.SIDE_TEXTS[layout.CANARIES]
_WINDOW = 1 << 20
"""Tokens of a window: a canary is one, of which prefix and suffix are measured."""


def texts_of(asked: CanariesConfig) -> CorpusConfig:
    """The canaries as a corpus, each a document with its own id."""
    return CorpusConfig(path=asked.path, id="id", window=_WINDOW)


def write_planted(work: Work, asked: CanariesConfig) -> None:
    """Write how often each example of the canaries was planted.

    An example that several rows begin with is left out: a control may stand for a canary there.

    Raises:
        CorpusError: the file is another than the one that the examples were made from.

    """
    run = work.run
    if run.done(layout.PLANTED):
        return
    with run.stage(layout.PLANTED):
        rows = {one.id: one for one in read_canaries(Path(asked.path), KEY)}
        wanted = ["example_id", "document_id", "copies"]
        table = pa.concat_tables(run.read_table(shard, wanted) for shard in run.shards(CANARY_EXAMPLES))
        table = table.take(np.flatnonzero(table["copies"].to_numpy() == 1))
        names = table["document_id"].to_pylist()
        if not rows.keys() >= {*names}:
            raise CorpusError(f"{asked.path}: changed while it was read", fix="run again", key=f"{KEY}.path")
        columns = [
            table["example_id"],
            [rows[name].family for name in names],
            [rows[name].repetitions for name in names],
        ]
        run.write_table(layout.PLANTED, pa.table(columns, schema=PLANTED_SCHEMA))
