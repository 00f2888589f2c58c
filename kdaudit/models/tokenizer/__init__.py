"""How a model reads and writes text: its tokenizer.json as it stands, which is what training saw.

`load_tokenizer` is the one way to a model's tokenizer. transformers' AutoTokenizer is not: for some classes
that a tokenizer_config.json can name it builds another normalizer and pre-tokenizer, and the ids are then not
those of training.
"""

from __future__ import annotations

from kdaudit.models.tokenizer.encoder import EncodedText, Encoder, plain_tokenizer
from kdaudit.models.tokenizer.loading import (
    CLOCK,
    DATE,
    ModelTokenizer,
    bos_token_id,
    load_tokenizer,
    uses_bos,
)
from kdaudit.models.tokenizer.probe import habit_warning, rewriting_warning
from kdaudit.models.tokenizer.reading import Alike, compare_readings, reading_fingerprint
from kdaudit.models.tokenizer.reading_check import Other, ReadingCheck
from kdaudit.models.tokenizer.service import (
    Encode,
    EncoderService,
    PackedTexts,
    PackedTokens,
    service_options,
    versions,
)
from kdaudit.models.tokenizer.texts import Spans, TextReader, reader_of

__all__ = [
    "CLOCK",
    "DATE",
    "Alike",
    "Encode",
    "EncodedText",
    "Encoder",
    "EncoderService",
    "ModelTokenizer",
    "Other",
    "PackedTexts",
    "PackedTokens",
    "ReadingCheck",
    "Spans",
    "TextReader",
    "bos_token_id",
    "compare_readings",
    "habit_warning",
    "load_tokenizer",
    "plain_tokenizer",
    "reader_of",
    "reading_fingerprint",
    "rewriting_warning",
    "service_options",
    "uses_bos",
    "versions",
]
