"""How an engine loads a model for extraction."""

from __future__ import annotations

from kdaudit.config.extraction import ExtractionBase
from kdaudit.config.section import EngineName
from kdaudit.inference import EngineOptions
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import reader_of


def engine_options(
    extraction: ExtractionBase,
    engine: EngineName,
    audited: AuditedModel,
    tokens: int,
    examples: int,
    max_num_seqs: int = 0,
    *,
    by_text: bool = False,
) -> EngineOptions:
    """How to load a model for extraction; a model's own settings come before the audit's.

    An adapter's path is its base model's: the caller puts the merged model's in its place.

    Args:
        extraction: what counts as memorized.
        engine: what runs it.
        audited: the model.
        tokens: of the longest sequence to come, as `EngineOptions.max_tokens`.
        examples: how many will come.
        max_num_seqs: as in `EngineOptions`.
        by_text: whether the engine is asked to `match_text`.

    """
    behind = audited.model.behind
    return EngineOptions(
        engine=engine if behind is None else "endpoint",
        endpoint=None if behind is None else tuple(behind),
        path=str(audited.model.folder),
        max_tokens=tokens,
        dtype=audited.config.dtype or extraction.dtype,
        tensor_parallel=audited.config.tensor_parallel or extraction.tensor_parallel,
        trust_remote_code=audited.config.trust_remote_code,
        expected_examples=examples,
        max_num_seqs=max_num_seqs,
        vocabulary=len(audited.tokenizer),
        unused_ids=audited.tokenizer.unused_ids,
        pieces=_pieces(audited) if by_text else (),
    )


def _pieces(audited: AuditedModel) -> list[str | None]:
    """What each token writes, see `EngineOptions.pieces`."""
    pieces = reader_of(audited.tokenizer).pieces
    return [None if piece is None else piece.decode("latin-1") for piece in pieces]
