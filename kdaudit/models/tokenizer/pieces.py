"""What each token of a vocabulary writes: bytes which, joined, are the text of a continuation.

A continuation's text cannot be decoded token by token: a byte-level token may be half a character, and
`decode` drops the space before a first token. The bytes of each token, as tokenizer.json's decoder makes them
of a token that follows others, can be joined. Whether they do what the decoder does is tried on the whole
vocabulary; a tokenizer whose decoder looks at several tokens at once is refused.

Special tokens write their own text, as in `decode(ids, skip_special_tokens=False)`, and nothing is cleaned up
(`clean_up_tokenization_spaces`): that is done to text for people, after decoding.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from kdaudit.errors import ModelError
from kdaudit.models.tokenizer.loading import ModelTokenizer

Pieces = Sequence[bytes | None]
"""By token id, what the token writes; None for ids that stand for no token."""
_Step = Callable[[str | bytes], str | bytes]
_BYTE_TOKEN = len("<0x00>")


def pieces_of(tokenizer: ModelTokenizer) -> Pieces:
    """What each token writes where it follows others.

    Raises:
        ModelError: the tokenizer's decoder does not write tokens one by one, or is not known.

    """
    decoder = json.loads(tokenizer.backend_tokenizer.to_str())["decoder"]
    steps = _steps(decoder)
    pieces: list[bytes | None] = [None] * len(tokenizer)
    for token, index in tokenizer.vocabulary.items():
        piece: str | bytes = token
        for step in steps:
            piece = step(piece)
        pieces[index] = piece if isinstance(piece, bytes) else piece.encode()
    _check(tokenizer, pieces)
    return pieces


def written(pieces: Pieces, ids: Sequence[int]) -> bytes:
    """What tokens write that follow others; those that stand for no token write nothing."""
    return b"".join(pieces[index] or b"" for index in ids)


def unknown_id(tokenizer: ModelTokenizer) -> int | None:
    """The token that stands for characters which the vocabulary has none for; None where there is none."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    found: int | None = model.get("unk_id")
    return tokenizer.vocabulary.get(model.get("unk_token")) if found is None else found


def _steps(decoder: Any) -> list[_Step]:  # noqa: ANN401 - a value of a JSON file
    """What a decoder does to each token that is not the first one."""
    if decoder is None:  # tokens are joined with spaces
        return [lambda token: _str(token, lambda text: f" {text}")]
    kind = decoder["type"]
    if kind == "Sequence":
        return [step for each in decoder["decoders"] for step in _steps(each)]
    if kind in ("Fuse", "Strip"):  # of the joined text, or of the first token
        return []
    if kind == "ByteLevel":
        table = _byte_level()
        return [lambda token: _from_byte_level(token, table)]
    if kind == "ByteFallback":
        return [_from_fallback]
    if kind == "Metaspace":
        return [_replacing(decoder["replacement"], " ")]
    if kind == "Replace" and "String" in decoder["pattern"]:
        return [_replacing(decoder["pattern"]["String"], decoder["content"])]
    if kind == "BPEDecoder":
        return [_replacing(decoder["suffix"], " ")]
    if kind == "WordPiece":
        return [lambda token: _str(token, lambda text: _word_piece(text, decoder))]
    raise _refuse_decoder(f"its decoder, {kind}, may look at several tokens at once")


def _replacing(old: str, new: str) -> _Step:
    return lambda token: _str(token, lambda text: text.replace(old, new))


def _str(token: str | bytes, change: Callable[[str], str]) -> str | bytes:
    """A token's text, changed; its bytes as they are."""
    return change(token) if isinstance(token, str) else token


def _from_fallback(token: str | bytes) -> str | bytes:
    """The byte that a token such as <0x0A> stands for."""
    if (
        isinstance(token, str)
        and len(token) == _BYTE_TOKEN
        and token.startswith("<0x")
        and token.endswith(">")
    ):
        try:
            return bytes([int(token[3:5], 16)])
        except ValueError:
            return token
    return token


def _byte_level() -> dict[str, int]:
    """Bytes by the characters that stand for them in byte-level vocabularies (GPT-2's encoder.py)."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    shifted = {chr(256 + place): byte for place, byte in enumerate(others)}
    return {chr(byte): byte for byte in plain} | shifted


def _from_byte_level(token: str | bytes, table: dict[str, int]) -> str | bytes:
    """The bytes that a token's characters stand for; its text where one of them stands for none."""
    if isinstance(token, bytes):
        return token
    found = [table.get(character) for character in token]
    known = [byte for byte in found if byte is not None]
    return bytes(known) if len(known) == len(found) else token.encode()


def _word_piece(text: str, decoder: dict[str, Any]) -> str:
    """See `tokenizers.decoders.WordPiece`: a space before each word, and in its clean-up fewer of them."""
    prefix = decoder["prefix"]
    text = text.replace(prefix, "", 1) if text.startswith(prefix) else f" {text}"
    if decoder["cleanup"]:
        for spaced, plain in _CLEANED:
            text = text.replace(spaced, plain)
    return text


_CLEANED = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def _check(tokenizer: ModelTokenizer, pieces: Pieces) -> None:
    """Try every token between others: the decoder must write what the pieces say."""
    backend = tokenizer.backend_tokenizer
    texts = {index: _text(piece) for index, piece in enumerate(pieces) if piece is not None}
    tried = [(index, text) for index, text in texts.items() if text is not None]
    word, around = next(
        (
            (index, text)
            for index, text in tried
            if text.strip().isalnum() and _decoded(backend, [[index]])[0].strip() == text.strip()
        ),
        (None, ""),
    )
    if word is None:
        raise _refuse_decoder("no token of it writes a word")
    # Decoders treat the first token, and some the last one, in a way of their own.
    rows = _decoded(backend, [[word, index, word, word] for index, _ in tried])
    for (index, text), row in zip(tried, rows, strict=True):
        if not row.lstrip().startswith(f"{around}{text}{around}".lstrip()):
            raise _refuse_decoder(
                f"it does not decode token {index}, {backend.id_to_token(index)!r}, by itself"
            )


def _decoded(backend: Any, rows: list[list[int]]) -> list[str]:  # noqa: ANN401 - `tokenizers` is untyped
    """Decode rows; a decoder may fail in ways that are no `Exception`."""
    try:
        found: list[str] = backend.decode_batch(rows, skip_special_tokens=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise _refuse_decoder(f"its decoder fails ({type(error).__name__})") from error
    return found


def _text(piece: bytes) -> str | None:
    """A piece as text, None where it is part of a character."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return None


def _refuse_decoder(why: str) -> ModelError:
    """An error for a tokenizer whose tokens cannot be mapped to text one by one."""
    return ModelError(
        f"its tokenizer cannot say what each token writes: {why}",
        fix="name a model that shares the teacher's tokenizer, or one with byte-level BPE, SentencePiece or "
        "WordPiece",
    )
