"""Conversations -> the text that training on a chat template sees, and where the answers stand in it.

A conversation is rendered once, whole, as trainers do; each answer is found in that text. It begins where
the template's generation prompt ends: what is rendered of the messages before it, with
`add_generation_prompt`, is the text's beginning. Where it is not, since the template writes earlier messages
otherwise once later ones follow (it leaves out their reasoning, or puts the system's message into the last
turn), or where it writes no generation prompt, the answer's words are exchanged for a marker, and the two
texts differ where they stand. What is not found so is left out and counted.

Without a template the answer follows the prompt as it stands, and the EOS token, as TRL prepares such rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.conversations import Conversation, FlawError, Message, is_answer
from kdaudit.corpus.documents import Answer, Document, Documents
from kdaudit.errors import UsageError, reason
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs.files import read_bounded

_MOST_BYTES = 1 << 20
"""Of a file that holds a chat template."""
_MARKER = "\ue000answer\ue001"
"""Takes an answer's place; it begins and ends with characters that no text should hold."""

_ENOUGH = 32
"""Characters at the end of an answer by which it is known."""

TemplateName = Literal["chat", "file", "none"]
"""The model's own chat template, that of a file, or none."""


class Template(NamedTuple):
    """How conversations become text."""

    name: TemplateName
    jinja: str | None
    """None: the answer follows the prompt."""


class ChatFormat(NamedTuple):
    """How conversations become token ids."""

    template: Template
    bos: Literal["auto", "always", "never"]
    """The BOS token before a conversation; auto: as the template writes it, or without one as the tokenizer
    itself does."""
    context: int | None = None
    """Tokens of prompt and answer that a model can read; None where nothing bounds them."""


def template_of(config: CorpusConfig, tokenizer: ModelTokenizer, key: str = "corpus") -> Template:
    """The template that a corpus of prompts and answers means.

    Args:
        config: the corpus section.
        tokenizer: the teacher's, or the family's.
        key: where the section stands in the configuration, for messages.

    Raises:
        UsageError: the tokenizer has no chat template and a chat needs one, the file cannot be read, or the
            template is not Jinja.

    """
    if config.template == "none":
        return Template("none", None)
    if config.template != "auto":
        return Template("file", _valid(_from_file(Path(config.template), key), key))
    own = tokenizer.chat_template
    if own is not None:
        return Template("chat", _valid(own, key))
    if config.messages is not None:
        raise _no_template(key)
    return Template("none", None)


def _no_template(key: str) -> UsageError:
    return UsageError(
        "the model's tokenizer has no chat template, and chats are rendered with one",
        fix=f"set {key}.template to a file that holds the one that training used",
        key=f"{key}.template",
    )


def _from_file(path: Path, key: str) -> str:
    try:
        return read_bounded(path, _MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{path}: cannot be read as a chat template ({reason(error)})",
            fix="name a file of text in Jinja",
            key=f"{key}.template",
        ) from error


def _valid(template: str, key: str) -> str:
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(template)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"the chat template is not valid Jinja (line {error.lineno}: {error.message})",
            fix="correct it, or name another file",
            key=f"{key}.template",
        ) from error
    return template


class Renderer:
    """Renders conversations; those that the template does not take are left out and counted.

    Args:
        template: how.
        tokenizer: whose special tokens the template may write.
        key: where the corpus section stands in the configuration, for messages.

    """

    def __init__(self, template: Template, tokenizer: ModelTokenizer, key: str = "corpus") -> None:
        self._key = key
        self._eos = tokenizer.eos_text
        self._jinja = None if template.jinja is None else _Jinja(template.jinja, tokenizer)

    def render(self, documents: Documents) -> Iterator[Document]:
        """The conversations as texts, with the places of their answers."""
        for document in documents:
            try:
                yield self.rendered(document)
            except FlawError as error:
                documents.leave_out(error.flaw, document.row)

    def rendered(self, document: Document) -> Document:
        """One conversation as a text.

        Raises:
            FlawError: the template does not take it.
            UsageError: its prompt and answer are lists of messages, and there is no template.

        """
        conversation = document.conversation or Conversation([])
        if self._jinja is None and conversation.listed:
            raise _no_template(self._key)
        if self._jinja is None:
            return self._plain(document, conversation)
        chat = _Chat(self._jinja, conversation)
        return document._replace(text=chat.text, answers=tuple(chat.answers()))

    def _plain(self, document: Document, conversation: Conversation) -> Document:
        prompt, answer = (message["content"] for message in conversation.messages)
        ended = answer if self._eos and answer.endswith(self._eos) else answer + self._eos
        text = prompt + ended
        return document._replace(text=text, answers=(Answer(1, len(prompt), len(text)),))


class _Jinja:
    """A chat template with the special tokens that it may write."""

    def __init__(self, template: str, tokenizer: ModelTokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        marks = sorted(tokenizer.special_texts, key=len, reverse=True)
        self.end_mark = re.compile(rf"\s*(?:{'|'.join(map(re.escape, marks))})" if marks else r"(?!)")
        """What may end a message."""
        self.has_generation_prompt = self._writes_one()

    def render(self, messages: Sequence[Message], tools: list[Any] | None, *, ask: bool) -> str:
        """Messages as text.

        Raises:
            FlawError: the template does not take them.

        """
        try:
            text = self._tokenizer.render(messages, self._template, tools=tools, ask=ask)
            text.encode()
        except Exception as error:  # a template may raise anything
            raise FlawError("template", f"the chat template does not take it ({reason(error)})") from error
        return text

    def _writes_one(self) -> bool:
        asking: list[Message] = [{"role": "user", "content": "a"}]
        try:
            return self.render(asking, None, ask=True) != self.render(asking, None, ask=False)
        except FlawError:
            return True


class _Chat:
    """One conversation under a chat template.

    Raises:
        FlawError: the template does not take it.

    """

    def __init__(self, jinja: _Jinja, conversation: Conversation) -> None:
        self._jinja = jinja
        self._messages = conversation.messages
        self._tools = conversation.tools
        self.text = jinja.render(self._messages, self._tools, ask=False)

    def answers(self) -> Iterator[Answer]:
        """Where each answer with text stands, in order.

        Raises:
            FlawError: one is not found.

        """
        for turn, message in enumerate(self._messages):
            if is_answer(message):
                yield Answer(turn, *self._place(turn))

    def _place(self, turn: int) -> tuple[int, int]:
        asked = self._beginning(turn, ask=True) if self._jinja.has_generation_prompt else None
        told = self._beginning(turn + 1, ask=False)
        if asked is not None and told is not None and self._tells(turn, asked, told):
            return asked, told
        start, end = self._found(turn)
        mark = self._jinja.end_mark.match(self.text, end)
        behind = told if told is not None and told >= end else mark.end() if mark else end
        return start if asked is None or asked > start else asked, behind

    def _beginning(self, messages: int, *, ask: bool) -> int | None:
        """Characters of the text that so many messages make; None if it does not begin with them alone."""
        try:
            begun = self._jinja.render(self._messages[:messages], self._tools, ask=ask)
        except FlawError:  # such as no message at all
            return None
        return len(begun) if self.text.startswith(begun) else None

    def _tells(self, turn: int, start: int, end: int) -> bool:
        """Whether this stretch holds the answer: at least the end of its words, which no template changes."""
        return self._messages[turn]["content"].strip()[-_ENOUGH:] in self.text[start:end]

    def _found(self, turn: int) -> tuple[int, int]:
        """Where the words of an answer stand, by exchanging them."""
        content = self._messages[turn]["content"]
        thought, _, rest = content.rpartition("</think>")
        for kept in dict.fromkeys(["", f"{thought}</think>" if thought and rest.strip() else ""]):
            found = self._exchanged(turn, kept)
            if found is not None and self.text[slice(*found)].strip() in content:
                return found
        raise FlawError("template", f"the answer in message {turn + 1} cannot be found in what it renders")

    def _exchanged(self, turn: int, kept: str) -> tuple[int, int] | None:
        """Where the text differs once an answer, but for what is kept of its beginning, is a marker."""
        changed = [*self._messages]
        changed[turn] = {**changed[turn], "content": f"{kept}{_MARKER}"}
        other = self._jinja.render(changed, self._tools, ask=False)
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(self.text, other, strict=False))
        start = sum(1 for _ in alike)
        behind = other[start + len(_MARKER) :]
        end = len(self.text) - len(behind)
        is_there = other.startswith(_MARKER, start) and other.count(_MARKER) == 1
        return (start, end) if is_there and start < end and self.text.endswith(behind) else None
