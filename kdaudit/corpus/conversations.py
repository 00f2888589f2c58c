"""Rows that ask and answer, of whatever layout -> messages, as chat templates take them.

A prompt with its answer is a conversation of two messages. Chats are lists of messages, with role and content
or, as ShareGPT has them, with from and value. What cannot be a conversation is a `Flaw`, which is counted;
a value of another type than its column should hold is an error that names the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.readers.json_shapes import kind_of
from kdaudit.errors import CorpusError

TOOLS = "tools"
"""The column that describes the functions that a chat's assistant may call, where there is one."""

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "ipython", "environment")
"""Roles that chat templates know."""
_SENDERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
"""What `from` says in ShareGPT and its kin, and the role that it means."""

_TEXT_PARTS = ("text", "input_text", "output_text")
"""Types of parts of a message's content that are text."""

_SHOWN = 40
"""Characters of an unknown role that messages show: some rows have text there."""

Message = dict[str, Any]
Why = Literal["no_answer", "unknown_role", "not_text", "template"]
"""Why a row gives no example: no message of the assistant with text, a role that is not known, content that
is not text, such as an image, or a conversation that the chat template does not take."""


class Conversation(NamedTuple):
    """What was said, in order."""

    messages: list[Message]
    """Each with role and content, which is text, and whatever else a chat template may look at."""
    tools: list[Any] | None = None
    before: int = 0
    """How many of the messages stand in the prompt's column, where that is another than the answer's."""
    listed: bool = False
    """Whether prompt and answer are lists of messages, which take a chat template, and not texts."""

    @property
    def text(self) -> str:
        """What was said, without who said it."""
        return "\n".join(message["content"] for message in self.messages if message["content"])


class Flaw(NamedTuple):
    """Why a row is no conversation."""

    why: Why
    what: str
    """For people."""


class FlawError(Exception):
    """Raised with a Flaw, where it is found."""

    def __init__(self, why: Why, what: str) -> None:
        super().__init__(what)
        self.flaw = Flaw(why, what)


class Misplaced(NamedTuple):
    """Where a row stands, for errors about its values."""

    key: str
    """Of the corpus in the configuration."""
    where: str
    """File and line, or row."""

    def error(self, column: str, field: str, value: object, wanted: str) -> CorpusError:
        """An error about a value of a column, which the configuration names under `field`."""
        return CorpusError(
            f"{self.where}: {column!r} holds a {kind_of(value)}, not {wanted}",
            fix="correct the row, or name another column",
            key=f"{self.key}.{field}",
        )


def columns_of(config: CorpusConfig) -> dict[str, list[str]]:
    """The columns that the configuration names for what rows hold, by its key."""
    if config.messages is not None:
        return {"messages": [config.messages]}
    if config.prompt is not None and config.response is not None:
        return {"prompt": [*config.prompt], "response": [config.response]}
    return {"text": [config.text]}


def conversation_of(
    fields: Mapping[str, Any], config: CorpusConfig, place: Misplaced
) -> Conversation | Flaw | None:
    """The conversation that a row holds; None for one without any text.

    Args:
        fields: the row.
        config: the corpus section, of prompts and answers.
        place: where it stands.

    Raises:
        CorpusError: a value is of another type than its column should hold.

    """
    try:
        if config.messages is not None:
            messages = _messages(fields.get(config.messages), config.messages, "messages", place)
            found = Conversation(messages, _tools(fields.get(TOOLS)))
        else:
            found = _asked(fields, config, place)
        if not found.text.strip():
            return None
        if not any(is_answer(message) for message in found.messages):
            raise FlawError("no_answer", "no message of the assistant holds text")
    except FlawError as error:
        return error.flaw
    return found


def is_answer(message: Mapping[str, Any]) -> bool:
    """Whether a message is the assistant's and holds text."""
    return message["role"] == "assistant" and bool(message["content"].strip())


def _asked(fields: Mapping[str, Any], config: CorpusConfig, place: Misplaced) -> Conversation:
    """A prompt and its answer; either may be a list of messages."""
    prompts, response = config.prompt or (), config.response or ""
    answer = fields.get(response)
    asked = [fields.get(name) for name in prompts]
    if len(asked) == 1 and isinstance(asked[0], list) and isinstance(answer, list):
        if config.template == "none":
            raise place.error(prompts[0], "prompt", asked[0], "a text, which template: none takes")
        before = _messages(asked[0], prompts[0], "prompt", place)
        messages = [*before, *_messages(answer, response, "response", place)]
        return Conversation(messages, _tools(fields.get(TOOLS)), len(before), listed=True)
    for field, column, value in (
        *(("prompt", name, value) for name, value in zip(prompts, asked, strict=True)),
        ("response", response, answer),
    ):
        if value is not None and not isinstance(value, str):
            raise place.error(column, field, value, "a text")
    prompt = "\n".join(text for text in asked if text)
    if not prompt.strip() or not (answer or "").strip():
        return Conversation([])
    messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer or ""}]
    return Conversation(messages, before=1)


def _messages(value: object, column: str, field: str, place: Misplaced) -> list[Message]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise place.error(column, field, value, "a list of messages")
    return [_message(one, column, field, place) for one in value]


def _message(value: object, column: str, field: str, place: Misplaced) -> Message:
    """One message with role and content; keys without a value are left out, as tables have them."""
    if not isinstance(value, dict):
        raise place.error(column, field, value, "messages, which are objects with role and content")
    given = {key: part for key, part in value.items() if part is not None}
    sender, told = ("role", "content") if "role" in given else ("from", "value")
    who = given.pop(sender, None)
    if not isinstance(who, str):
        raise CorpusError(
            f"{place.where}: a message in {column!r} has neither role and content nor from and value",
            fix="correct the row, or name another column",
            key=f"{place.key}.{field}",
        )
    role = (who if who in ROLES else None) if sender == "role" else _SENDERS.get(who)
    if role is None:
        raise FlawError("unknown_role", f"{sender} {who[:_SHOWN]!r} is not known")
    return {"role": role, "content": _content(given.pop(told, None), column, field, place), **given}


def _content(value: object, column: str, field: str, place: Misplaced) -> str:
    """The text of a message, whose parts are joined."""
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, list):
        raise place.error(column, field, value, "messages whose content is text, or a list of parts")
    return "".join(_part(part) for part in value)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    held = part if isinstance(part, dict) else {}
    text, kind = held.get("text"), held.get("type")
    if isinstance(text, str) and kind in (None, *_TEXT_PARTS):
        return text
    if text is None and kind in _TEXT_PARTS:
        return ""
    raise FlawError("not_text", f"a part of the content, of type {kind or kind_of(part)}, is not text")


def _tools(value: object) -> list[Any] | None:
    """Descriptions of functions, which tables often hold as JSON.

    Raises:
        FlawError: it is something else, so that the conversation would be rendered without them.

    """
    if isinstance(value, str) and value.strip():
        with suppress(ValueError):
            value = json.loads(value)
    if not value:
        return None
    if not isinstance(value, list):
        raise FlawError("template", f"the column {TOOLS!r} holds a {kind_of(value)}, not a list of functions")
    return value


_LAYOUTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("instruction", "input", "output"), "prompt: [instruction, input]` and `response: output"),
    (("instruction", "output"), "prompt: instruction` and `response: output"),
    (("instruction", "response"), "prompt: instruction` and `response: response"),
    (("prompt", "completion"), "prompt: prompt` and `response: completion"),
    (("prompt", "response"), "prompt: prompt` and `response: response"),
    (("question", "answer"), "prompt: question` and `response: answer"),
    (("query", "response"), "prompt: query` and `response: response"),
    (("messages",), "messages: messages"),
    (("conversations",), "messages: conversations"),
    (("conversation",), "messages: conversation"),
)
"""Columns by which a layout is known, and the keys for it; one that is a part of another comes behind it."""


def layouts_in(columns: Sequence[str]) -> list[str]:
    """The keys to write for each layout of prompts and answers that columns look like."""
    found: list[tuple[set[str], str]] = []
    for names, keys in _LAYOUTS:
        if set(names) <= {*columns} and not any(set(names) < before for before, _ in found):
            found.append((set(names), f"`{keys}`"))
    return [keys for _, keys in found]
