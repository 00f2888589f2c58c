"""Examples and windows as each model reads them: the tokens of the run, or its own of the same text.

Runs hold the tokens of one model, the teacher's. A model whose tokenizer reads text differently is given the
text instead (`AuditedModels.by_text`): its own tokens of each window, cut at the joint boundaries that the
examples were cut at.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import examples_of, windows_of
from kdaudit.corpus import Longest
from kdaudit.inference import Batch, Ragged
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import reader_of
from kdaudit.models.tokenizer.texts import TextExample
from kdaudit.pipelines.stages.work import CANARY_EXAMPLES, GENERATED_EXAMPLES, HOLDOUT_EXAMPLES, Work
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import ENDS_COLUMNS
from kdaudit.runs.examples import read_shard

_TEXT = ["text", *ENDS_COLUMNS]
_LongestOf = dict[str, tuple[int, ...]]


def is_by_text(work: Work, audited: AuditedModel) -> bool:
    """Whether a model reads text, not the tokens of the run."""
    return audited.name in work.models.by_text


def read_for(work: Work, audited: AuditedModel, shard: str) -> pa.Table:
    """A shard of examples with the columns that the functions below take."""
    return read_shard(
        work.run, shard, ["example_id", "token_ids", *(_TEXT if is_by_text(work, audited) else [])]
    )


def examples_for(work: Work, audited: AuditedModel, table: pa.Table) -> Batch:
    """Prompts and targets in a model's own tokens, with its own BOS token."""
    if not is_by_text(work, audited):
        return examples_of(table, work.split_of(audited))
    read = list(_read(audited, table))
    return _batch(work, audited, table, read, Ragged.of(one.target for one in read))


def texts_for(work: Work, audited: AuditedModel, table: pa.Table) -> Batch:
    """The same with the targets' bytes, for `match_text`."""
    read = list(_read(audited, table))
    return _batch(work, audited, table, read, Ragged.of(np.frombuffer(one.text, np.uint8) for one in read))


def windows_for(work: Work, audited: AuditedModel, table: pa.Table) -> Ragged:
    """Whole windows in a model's own tokens, without BOS tokens."""
    if not is_by_text(work, audited):
        return windows_of(table)
    return Ragged.of(spans.ids for spans in reader_of(audited.tokenizer).read(table["text"].to_pylist()))


def _batch(
    work: Work, audited: AuditedModel, table: pa.Table, read: list[TextExample], targets: Ragged
) -> Batch:
    prompts = Ragged.of(one.prompt for one in read).after(work.split_of(audited).bos)
    return Batch(table["example_id"].to_numpy(), prompts, targets)


def _read(audited: AuditedModel, table: pa.Table) -> Iterator[TextExample]:
    reader, texts = reader_of(audited.tokenizer), table["text"].to_pylist()
    ends = (table[name].to_pylist() for name in ENDS_COLUMNS)
    for text, spans, prompt_end, target_end in zip(texts, reader.read(texts), *ends, strict=True):
        yield reader.example(text, spans, prompt_end, target_end)


def token_sizes(work: Work, table: pa.Table) -> Ragged:
    """Bytes that each token of the examples' targets writes, those of the run's tokenizer."""
    targets = examples_of(table, work.split).targets
    sizes: NDArray[np.int32] = reader_of(work.models.tokenizer).bytes_of[targets.values].astype(np.int32)
    return Ragged(sizes, targets.offsets)


def longest_of(work: Work, audited: AuditedModel) -> Longest:
    """The most that a model is given of all texts of the run; `is_by_text` holds for it."""
    found = Longest()
    for examples in (layout.EXAMPLES, HOLDOUT_EXAMPLES, GENERATED_EXAMPLES, CANARY_EXAMPLES):
        if work.run.shards(examples):
            read = work.run.read_json(layout.longest(examples), _LongestOf)
            found = found.and_(Longest(*read[audited.name]))
    return found
