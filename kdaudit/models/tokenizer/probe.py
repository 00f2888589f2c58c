"""Texts on which tokenizers show what they do, and what to say where transformers loads one differently."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from kdaudit.models.tokenizer.loading import CONFIG_FILE, TOKENIZER_FILE, ModelTokenizer, uses_bos

PROBE = (
    "The quick brown fox, the lazy dog. It's what they'd say: we've SEEN it.",
    "Hello world again",
    "two  spaces between; three   and a tab\tafter it",
    "def f(x):\n    return {'key': x[0] + 0x1F, \"n\": None}  # TODO\n\tpass\n\n\n",
    "In 2024, 1234567 of 3.14159 (12%), 0042, +44 20 7946 0958, $1,000,000.00",
    "line one\nline two\r\nline three\n\nparagraph",
    "naïve café — “quotes” … €5 ½ ﬁ",
    "cafe\u0301 A\u030a \u212b",  # what Unicode normalization would change
    "你好，世界。日本語のテキスト、한국어 텍스트",  # noqa: RUF001 - Chinese
    "Привет, мир! Ελληνικά עברית العربية हिन्दी ไทย",
    "emoji 😀👩\u200d👩\u200d👧\u200d👦🇩🇪 end",
    "a@b.example https://example.com/path?q=1&r=2#top C:\\dir\\file.txt",
)
"""Text of many kinds that any corpus may hold."""
_ODD = (
    " a space before, and one behind ",
    "<|endoftext|> <s>text</s> [INST] x [/INST] <pad> [PAD] <unk> <|im_start|>user\nhi<|im_end|>",
    "▁ Ġ <0x0A> \u00a0 \u200b \ufeff \u0000 \x7f",
)


def rewriting_warning(
    folder: Path, tokenizer: ModelTokenizer, texts: Iterable[str] = (), *, trust_remote_code: bool = False
) -> str | None:
    """What to say where AutoTokenizer reads text unlike the model's tokenizer.json, else None.

    The sentence holds neither paths nor text of the corpus.

    Args:
        folder: the model's.
        tokenizer: its tokenizer, as it was loaded.
        texts: some of the corpus, beside our own.
        trust_remote_code: whether code that comes with the model may run.

    """
    from transformers import AutoTokenizer

    if not (folder / TOKENIZER_FILE).is_file():
        return None  # then AutoTokenizer made what is used
    taken = "tokenizer.json is taken as it stands, since that is what training saw"
    own = [(text, json.dumps(text, ensure_ascii=False)) for text in (*PROBE, *_ODD)]
    try:
        other = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        for text, shown in [*own, *((text, "a text of the corpus") for text in texts)]:
            found, ids = other.encode(text, add_special_tokens=False), tokenizer.encode(text)
            if found != ids:
                return (
                    f"transformers' AutoTokenizer ({type(other).__name__}) reads {shown} as other "
                    f"tokens than tokenizer.json does ({len(found)} and {len(ids)}); {taken}"
                )
    except Exception as error:  # whatever the files provoke, or the model's own code
        return f"transformers' AutoTokenizer cannot use the tokenizer ({type(error).__name__}); {taken}"
    return None


def habit_warning(folder: Path, tokenizer: ModelTokenizer) -> str | None:
    """What to say where a model's two files disagree on whether a BOS token stands before a text, else None.

    transformers 4 went by tokenizer_config.json for some classes, transformers 5 goes by tokenizer.json.
    """
    try:
        said = json.loads((folder / CONFIG_FILE).read_bytes()).get("add_bos_token")
    except (OSError, ValueError, AttributeError):
        return None
    named = tokenizer.bos_token_id is not None
    if not (named and isinstance(said, bool) and (folder / TOKENIZER_FILE).is_file()):
        return None
    does_add = uses_bos(tokenizer)
    if said is does_add:
        return None
    does, other = ("puts one", "never") if does_add else ("puts none", "always")
    return (
        f"tokenizer_config.json says add_bos_token: {str(said).lower()}, and tokenizer.json {does} "
        f"before a text; extraction.bos: auto goes by tokenizer.json, as transformers 5 does. Set it to "
        f"{other} if the model was trained the other way"
    )
