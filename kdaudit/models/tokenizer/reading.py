"""What decides which token ids a text becomes, compared by content.

Neither the order nor the formatting of tokenizer.json counts, nor do padding, truncation, chat templates and
special tokens that stand in no text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import zip_longest
from typing import Any, NamedTuple

from kdaudit.models.tokenizer.loading import ModelTokenizer, uses_bos
from kdaudit.models.tokenizer.probe import PROBE

_Content = dict[str, Any]
_RULES = ("type", "ignore_merges")
"""Settings by which any word may become other tokens. What others do, as for unknown letters, texts show."""


class Alike(NamedTuple):
    """Of two tokenizers that read ordinary text alike: for which texts that is known without reading them."""

    literals: tuple[str, ...] | None
    """Every text that holds none of these is read alike: added tokens that only one of the two has, or that
    they treat differently. None where the two differ in more, so that each text has to be read by both."""


def reading_fingerprint(tokenizer: ModelTokenizer) -> str:
    """`sha256:` over how a tokenizer reads text, its BOS and EOS tokens and whether it adds the former."""
    content = {
        **_reading(tokenizer),
        "begin token id": tokenizer.bos_token_id,
        "end token id": tokenizer.eos_token_id,
        "begin token added": uses_bos(tokenizer),
    }
    return f"sha256:{sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}"


def compare_readings(one: ModelTokenizer, two: ModelTokenizer) -> Alike | None:
    """How alike two tokenizers read text; None where they read it differently.

    They do where one id stands for two tokens, where tokens follow other rules, or where a probe shows it.
    """
    first, second = _reading(one), _reading(two)
    if _conflict(first, second) or any(one.encode(text) != two.encode(text) for text in PROBE):
        return None
    added = [_added(first), _added(second)]
    unlike = {
        content: [each[content] for each in added if content in each]
        for content in {**added[0], **added[1]}
        if added[0].get(content) != added[1].get(content)
    }
    # The normalizer comes before such a token is looked for: the text need not hold it as it is written.
    hidden = first["normalizer"] is not None and any(
        token["normalized"] for tokens in unlike.values() for token in tokens
    )
    return Alike(tuple(unlike) if _same_but_for_added_tokens(first, second) and not hidden else None)


def _added(content: _Content) -> dict[str, _Content]:
    """Added tokens by what they look like in text."""
    return {token["content"]: token for token in content["added tokens"].values()}


def _same_but_for_added_tokens(one: _Content, two: _Content) -> bool:
    """Whether two tokenizers make the same tokens of text that holds no added token."""
    if any(one[part] != two[part] for part in one if part not in ("tokens", "added tokens", "vocabulary")):
        return False
    mine, yours = one["vocabulary"], two["vocabulary"]
    unlike = {token for token in {**mine, **yours} if mine.get(token) != yours.get(token)}
    settings = one["model settings"]
    # Whole words are not looked up in a BPE's vocabulary: what no merge makes is met as an added token alone.
    spelled_out = settings.get("type") == "BPE" and not settings.get("ignore_merges")
    return all(
        spelled_out and len(token) > 1 and (token not in each["vocabulary"] or token in _added(each))
        for token in unlike
        for each in (one, two)
    )


def _conflict(one: _Content, two: _Content) -> bool:
    """Whether two tokenizers make different tokens of the same letters, whatever the text."""
    mine, yours = (
        {index: token for token, index in each["vocabulary"].items() if token not in _added(each)}
        for each in (one, two)
    )
    shorter = min(len(one["merges"]), len(two["merges"]))
    scores = [each["scores"] or [] for each in (one, two)]
    common = min(len(each) for each in scores)
    return (
        any(token != yours.get(index, token) for index, token in mine.items())
        or one["merges"][:shorter] != two["merges"][:shorter]
        or scores[0][:common] != scores[1][:common]
        or any(one["model settings"].get(key) != two["model settings"].get(key) for key in _RULES)
        or one["split_special_tokens"] != two["split_special_tokens"]
    )


def difference(one: ModelTokenizer, two: ModelTokenizer, first: str, second: str) -> str:
    """What differs in how two tokenizers read text; `first` and `second` name their models."""
    return "; ".join(_differences(_reading(one), _reading(two), first, second))


def _reading(tokenizer: ModelTokenizer) -> _Content:
    """All that decides which token ids a text becomes, as plain JSON."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    vocabulary, merges = model.pop("vocab", {}), model.pop("merges", None) or []
    return {
        "tokens": {str(index): token for token, index in tokenizer.vocabulary.items()},
        "vocabulary": vocabulary
        if isinstance(vocabulary, dict)
        else {token: index for index, (token, _) in enumerate(vocabulary)},
        "scores": vocabulary if isinstance(vocabulary, list) else None,
        "merges": [" ".join(merge) if isinstance(merge, list) else merge for merge in merges],
        "added tokens": {str(token["id"]): token for token in backend["added_tokens"]},
        "normalizer": backend["normalizer"],
        "pre-tokenizer": backend["pre_tokenizer"],
        "model settings": _settings(model),
        "split_special_tokens": tokenizer.split_special_tokens,
    }


def _settings(model: _Content) -> _Content:
    """How tokens are made of letters, without settings that do nothing."""
    inert = {"fuse_unk"} if model.get("unk_token") is None else set()
    return {key: value for key, value in model.items() if value and key not in inert}


def _differences(one: _Content, two: _Content, first: str, second: str) -> Iterator[str]:
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
