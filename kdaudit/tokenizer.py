"""How a model's tokenizer reads text: loading it, and whether two of them read alike.

Two tokenizers are one when they make the same token ids of every text. They are compared by content, so
neither the order nor the formatting of their files counts, nor do padding, truncation and chat templates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any

from kdaudit.errors import ModelError
from kdaudit.reasons import reason


def load_tokenizer(folder: Path, *, trust_remote_code: bool = False) -> Any:  # noqa: ANN401 - transformers is untyped here
    """Load a model's fast tokenizer.

    Raises:
        ModelError: it cannot be loaded, or has no fast form, which mapping tokens to text needs.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except Exception as error:  # whatever the files provoke in either library
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({reason(error)}); save it anew"
        ) from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{folder}: its tokenizer has no fast form; save one there as tokenizer.json "
            "(transformers.convert_slow_tokenizer makes it)"
        )
    return tokenizer


def uses_bos(tokenizer: Any) -> bool:  # noqa: ANN401
    """Whether the tokenizer itself puts its begin token before a text."""
    bos = tokenizer.bos_token_id
    with_special, plain = (tokenizer("a", add_special_tokens=on)["input_ids"] for on in (True, False))
    return bos is not None and with_special[:1] == [bos] and with_special != plain


def bos_token_id(tokenizer: Any) -> int | None:  # noqa: ANN401
    """The begin token's id, None where there is none."""
    return None if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)


def reading_fingerprint(tokenizer: Any) -> str:  # noqa: ANN401
    """`sha256:` over how a tokenizer reads text; equal for equal content in other formatting."""
    content = json.dumps(_reading(tokenizer), sort_keys=True)
    return f"sha256:{sha256(content.encode()).hexdigest()}"


def difference(one: Any, two: Any, first: str, second: str) -> str:  # noqa: ANN401
    """What differs between two tokenizers, in words; `first` and `second` name their models."""
    return "; ".join(_differences(_reading(one), _reading(two), first, second))


def _reading(tokenizer: Any) -> dict[str, Any]:  # noqa: ANN401
    """All that decides which token ids a text becomes, as plain JSON."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    vocabulary, merges = model.pop("vocab", {}), model.pop("merges", None) or []
    return {
        "tokens": {str(index): token for token, index in tokenizer.get_vocab().items()},
        "scores": vocabulary if isinstance(vocabulary, list) else None,
        "merges": [" ".join(merge) if isinstance(merge, list) else merge for merge in merges],
        "added tokens": {str(token["id"]): token for token in backend["added_tokens"]},
        "normalizer": backend["normalizer"],
        "pre-tokenizer": backend["pre_tokenizer"],
        "model settings": model,
        "begin token id": tokenizer.bos_token_id,
        "end token id": tokenizer.eos_token_id,
        "begin token added": uses_bos(tokenizer),
    }


def _differences(one: dict[str, Any], two: dict[str, Any], first: str, second: str) -> Iterator[str]:
    """What differs, at most the tokens in full: where they do, all that follows is bound to."""
    if one["tokens"] != two["tokens"]:
        yield _token_difference(one["tokens"], two["tokens"], first, second)
        return
    for part, value in one.items():
        if value == two[part]:
            continue
        if part == "merges":
            rows = zip_longest(value, two[part])
            row = next(at for at, pair in enumerate(rows) if pair[0] != pair[1])
            yield f"merges differ, first in row {row}"
        elif isinstance(value, dict | list) or isinstance(two[part], dict | list):
            yield f"{part} differ" if part.endswith("s") else f"the {part} differs"
        else:
            yield f"{part} is {value} in {first} and {two[part]} in {second}"


def _token_difference(one: dict[str, str], two: dict[str, str], first: str, second: str) -> str:
    unlike = sorted((index for index in {*one, *two} if one.get(index) != two.get(index)), key=int)
    at = unlike[0]
    shown = [f'"{tokens[at]}"' if at in tokens else "missing" for tokens in (one, two)]
    return (
        f"{len(unlike):,} of {max(len(one), len(two)):,} tokens differ, first: "
        f"id {at} is {shown[0]} in {first} and {shown[1]} in {second}"
    )
