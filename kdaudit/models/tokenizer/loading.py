"""A model's tokenizer, loaded from tokenizer.json as it stands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any

from kdaudit.errors import ModelError, reason

TOKENIZER_FILE, CONFIG_FILE = "tokenizer.json", "tokenizer_config.json"
CLOCK, DATE = "strftime_now", date(2024, 7, 26)
"""What a chat template calls for the current date, and the date that it is given: the one that templates of
Llama 3 take where they know none. With today's date a run would find other prompts tomorrow."""
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""Keys of tokenizer_config.json that name one special token each."""
_MORE_SPECIAL = ("extra_special_tokens", "additional_special_tokens", "model_specific_special_tokens")


class ModelTokenizer:
    """Text to token ids and back, as tokenizer.json says; special tokens as tokenizer_config.json names them.

    Calls and attributes have the names that they have in transformers.

    Args:
        backend: what reads and writes text. Truncation and padding are switched off in it.
        described: transformers' object of the same tokenizer, which knows names of special tokens, chat
            templates and how all of it is saved. It may read text otherwise: transformers adds each special
            token that is named to its vocabulary.

    """

    def __init__(self, backend: Any, described: Any) -> None:  # noqa: ANN401 - both libraries are untyped here
        self.split_special_tokens = bool(getattr(described, "split_special_tokens", False))
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = self.split_special_tokens
        self.backend_tokenizer = backend
        self._described = described

    @property
    def bos_token_id(self) -> int | None:
        """Id of the BOS token: the one that is named, else the one that tokenizer.json puts before a text.

        None where there is neither, or tokenizer.json does not hold it.
        """
        named = self._id(self._described.bos_token)
        if named is not None:
            return named
        plain, (first, *rest) = self.encode("a"), [*self._ids("a", special=True), None]
        return first if plain and rest[: len(plain)] == plain else None

    @property
    def eos_token_id(self) -> int | None:
        """Id of the EOS token, None as for BOS."""
        return self._id(self._described.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token, None as for BOS."""
        return self._id(self._described.pad_token)

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Ids by token, added tokens included."""
        found: dict[str, int] = self.backend_tokenizer.get_vocab(with_added_tokens=True)
        return found

    def __len__(self) -> int:
        """The highest id and one: how many rows a model needs, and columns of its logits stand for tokens."""
        return max(self.vocabulary.values(), default=-1) + 1

    @property
    def unused_ids(self) -> tuple[int, ...]:
        """Ids below the length that stand for no token, ascending."""
        return tuple(sorted({*range(len(self))}.difference(self.vocabulary.values())))

    def literals(self, start: int, stop: int) -> list[str] | None:
        """Added tokens with ids from `start` up to `stop`, each of which a text makes only by holding it.

        None where other text becomes such an id too.
        """
        added = self.backend_tokenizer.get_added_tokens_decoder()
        tokens = [added.get(index) for index in self.vocabulary.values() if start <= index < stop]
        if any(token is None or token.normalized for token in tokens):
            return None
        return [token.content for token in tokens]

    def get_vocab(self) -> dict[str, int]:
        """Ids by token, added tokens included."""
        return dict(self.vocabulary)

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        """`input_ids` of a text, with BOS and others where the tokenizer puts them itself."""
        return {"input_ids": self._ids(text, special=add_special_tokens)}

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone."""
        return self._ids(text, special=False)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of token ids, special tokens included."""
        text: str = self.backend_tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)
        return text

    def batch_decode(self, rows: Sequence[Iterable[int]]) -> list[str]:
        """Text of each row of token ids, special tokens included."""
        return [self.decode(row) for row in rows]

    @property
    def left_out(self) -> list[str]:
        """Special tokens that are named and are no added tokens of tokenizer.json, by name: `eos_token '.'`.

        transformers makes added tokens of them, which then are cut out of every text before anything else.
        """
        held = {token.content for token in self.backend_tokenizer.get_added_tokens_decoder().values()}
        named = [(key, getattr(self._described, key, None)) for key in _SPECIAL]
        return [f"{key} {token!r}" for key, token in named if token is not None and str(token) not in held]

    @property
    def chat_template(self) -> str | None:
        """The chat template that comes with the tokenizer, in Jinja; of several the default one."""
        found = getattr(self._described, "chat_template", None)
        return found.get("default") if isinstance(found, dict) else found

    @chat_template.setter
    def chat_template(self, template: str) -> None:
        self._described.chat_template = template

    @property
    def eos_text(self) -> str:
        """The EOS token as it is written; empty where there is none."""
        return "" if self.eos_token_id is None else str(self._described.eos_token)

    @property
    def special_texts(self) -> list[str]:
        """Added tokens that stand for no text: those that a chat template puts around messages, say."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return [token.content for token in added.values() if token.special]

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        template: str,
        *,
        tools: Sequence[Any] | None = None,
        ask: bool = False,
    ) -> str:
        """A conversation as one text, the same on every day: a template asking for the date gets `DATE`.

        Args:
            messages: each with role and content.
            template: a chat template in Jinja; transformers runs it in its sandbox.
            tools: descriptions of functions that the assistant may call.
            ask: whether the text ends where the assistant's next message begins.

        Raises:
            jinja2.TemplateError, TypeError, ValueError: the template does not take such a conversation.

        """
        text: str = self._described.apply_chat_template(
            [*messages],
            tools=tools,
            chat_template=template,
            add_generation_prompt=ask,
            tokenize=False,
            **{CLOCK: DATE.strftime},
        )
        return text

    def save_pretrained(self, folder: Path) -> None:
        """Write the tokenizer so that AutoTokenizer reads it like the file, wherever transformers lets it.

        tokenizer.json is as it was read. tokenizer_config.json names the one class that leaves it so, and no
        special tokens of `left_out`.
        """
        self._described.save_pretrained(folder)
        (folder / TOKENIZER_FILE).write_text(self.backend_tokenizer.to_str(pretty=True), encoding="utf-8")
        held = {token.content for token in self.backend_tokenizer.get_added_tokens_decoder().values()}
        path = folder / CONFIG_FILE
        saved = json.loads(path.read_text(encoding="utf-8"))
        for key in [*saved]:
            if key.endswith("_token") and _content(saved[key]) not in held | {None}:
                del saved[key]
        for key in _MORE_SPECIAL:
            if key in saved:
                saved[key] = _kept(saved[key], held)
        saved |= {"tokenizer_class": "PreTrainedTokenizerFast"}
        saved.pop("auto_map", None)
        path.write_text(json.dumps(saved, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _id(self, token: str | None) -> int | None:
        found: int | None = None if token is None else self.backend_tokenizer.token_to_id(str(token))
        return found

    def _ids(self, text: str, *, special: bool) -> list[int]:
        ids: list[int] = self.backend_tokenizer.encode(text, add_special_tokens=special).ids
        return ids


def load_tokenizer(
    folder: Path, *, trust_remote_code: bool = False, template: str | None = None
) -> ModelTokenizer:
    """Load a model's tokenizer.

    A tokenizer.json is taken as it stands, and no code runs. Only where there is none, transformers makes a
    fast tokenizer of other files, with code that comes with the model where that is trusted.

    Args:
        folder: the tokenizer's.
        trust_remote_code: whether code that comes with it may run.
        template: a chat template that is taken in place of its own.

    Raises:
        ModelError: it cannot be loaded, or has no fast form, which mapping tokens to text needs.
    """
    found = _loaded(folder, trust_remote_code)
    if template is not None:
        found.chat_template = template
    return found


def _loaded(folder: Path, trust_remote_code: bool) -> ModelTokenizer:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    file = folder / TOKENIZER_FILE
    try:
        if file.is_file():
            described = PreTrainedTokenizerFast.from_pretrained(folder)
            _take_class_defaults(folder, described)
            return ModelTokenizer(Tokenizer.from_file(str(file)), described)
        made = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    except PermissionError as error:
        raise ModelError(
            f"{error.filename or folder} cannot be read: permission denied", fix="fix its permissions"
        ) from error
    except Exception as error:  # whatever the files provoke in either library
        raise ModelError(
            f"{folder}: its tokenizer cannot be loaded ({reason(error)})", fix="save it again"
        ) from error
    if not made.is_fast:
        raise ModelError(
            f"{folder}: its tokenizer has no fast form",
            fix="save one there as tokenizer.json (transformers.convert_slow_tokenizer makes it)",
        )
    return ModelTokenizer(made.backend_tokenizer, made)


def _take_class_defaults(folder: Path, described: Any) -> None:  # noqa: ANN401 - transformers is untyped
    """Name the BOS and EOS tokens that only the tokenizer's class names, as GPT-2's does."""
    from transformers import AutoTokenizer

    lacking = [key for key in ("bos_token", "eos_token") if getattr(described, key) is None]
    if not lacking:
        return
    try:
        made = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Exception:  # the class does not fit the file, and has no say
        return
    held = {token.content for token in described.added_tokens_decoder.values()}
    for key in lacking:
        if getattr(made, key) in held:
            setattr(described, key, getattr(made, key))


def uses_bos(tokenizer: ModelTokenizer) -> bool:
    """Whether the tokenizer itself puts its BOS token before a text."""
    whole, plain = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    bos = tokenizer.bos_token_id
    return bos is not None and whole[:1] == [bos] and whole != plain


def bos_token_id(tokenizer: ModelTokenizer) -> int | None:
    """The BOS token's id, None where there is none."""
    return tokenizer.bos_token_id


def _content(token: Any) -> str | None:  # noqa: ANN401 - a value of a JSON file
    """The text of a special token, which stands in a file as itself or as an object."""
    return token.get("content") if isinstance(token, dict) else token


def _kept(tokens: Any, held: set[str]) -> Any:  # noqa: ANN401
    """A list of special tokens, or a table of them by name, without those that tokenizer.json lacks."""
    if isinstance(tokens, dict):
        return {name: token for name, token in tokens.items() if _content(token) in held}
    return [token for token in tokens if _content(token) in held]
