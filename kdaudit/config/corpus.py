"""The section of a corpus or holdout: where text is and how it is cut into examples."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from kdaudit.config.paths import LocalFile, PathOrId
from kdaudit.config.section import Section, path_alone
from kdaudit.config.yaml.misfit import MisfitError

_OF_ANSWERS = ("prompt", "response", "messages", "template")
"""Keys of a corpus of prompts and answers."""
_MEANT = {"prompt": "prompt", "response": "answer"}

Column = Annotated[str, Field(min_length=1)]


def _in_list(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let one column stand for a list of one."""
    return [value] if isinstance(value, str) else value


ColumnList = Annotated[tuple[Column, ...], Field(min_length=1, strict=False)]
Prompts = Annotated[ColumnList, BeforeValidator(_in_list, json_schema_input_type=Column | ColumnList)]


class CorpusConfig(Section):
    """Where text comes from and how it is cut into examples."""

    path: PathOrId
    """A Hugging Face dataset id, or a local parquet, jsonl(.gz/.xz/.zst), csv or txt file, a saved
    dataset, or a folder of shards."""
    name: str | None = None
    """The dataset's configuration, for datasets that have several."""
    revision: str | None = None
    """Branch, tag or commit of a hub dataset."""
    split: Annotated[str, Field(min_length=1)] = "train"
    """The split to read."""
    text: Column = "text"
    """The column that holds the text, where rows are plain text."""
    prompt: Prompts | None = None
    """In place of `text`, for rows that ask and answer: the column of the prompt, or several, whose texts are
    joined by a line break. They may hold messages, as `messages` does."""
    response: Column | None = None
    """With `prompt`: the column of the answer."""
    messages: Column | None = None
    """In place of `text`, for chats: the column that holds a list of messages, each with role and content, or
    with from and value. Every assistant message with text is an example."""
    template: Literal["auto", "none"] | LocalFile = "auto"
    """How prompts and answers become one text. auto: the teacher's own chat template, or none where it has
    none and rows are `prompt` and `response`; none: the answer's text right behind the prompt's; or a file
    that holds a chat template in Jinja."""
    id: str | None = None
    """A column that names documents; else they are named by row number."""
    documents: Literal["file", "line"] = "line"
    """For txt: whether a document is a whole file or a line."""
    window: Annotated[int, Field(ge=2)] = 256
    """Tokens an example holds at most; documents are cut into windows, never joined. Of prompts and answers:
    tokens of the answer that an example holds at most; the prompt is whole, as far as the models can read."""
    stride: PositiveInt | None = None
    """Tokens from one window's start to the next; null means `window`, so windows do not overlap."""
    limit: PositiveInt | None = None
    """Distinct examples to audit at most: a seeded sample of the whole corpus. `kdaudit distill` trains on
    the same sample."""

    @property
    def has_answers(self) -> bool:
        """Whether its rows ask and answer, and are not plain text."""
        return self.prompt is not None or self.messages is not None

    @property
    def where(self) -> tuple[object, ...]:
        """What it reads: two sections that are equal in this are the same text."""
        return (self.path, self.name, self.revision, self.split, *self.columns)

    @property
    def columns(self) -> tuple[object, ...]:
        """What of a row it reads."""
        return (self.text, self.prompt, self.response, self.messages)

    @model_validator(mode="after")
    def _one_layout(self) -> Self:
        named = [key for key in ("text", "prompt", "messages") if self._names(key)]
        if len(named) > 1:
            raise MisfitError(
                f"cannot stand beside {named[0]}: a row is plain text, a prompt with its answer, or a chat",
                fix=f"keep {named[0]} or {named[1]}",
                key=named[1],
            )
        for key, other in (("prompt", "response"), ("response", "prompt")):
            if getattr(self, key) is not None and getattr(self, other) is None:
                raise MisfitError(
                    f"needs {other}", fix=f"name the column of the {_MEANT[other]}, too", key=key
                )
        if self.template == "none" and self.messages is not None:
            raise MisfitError(
                "is for prompt and response, and a chat takes a chat template",
                fix="set it to auto, or to a file that holds one",
                key="template",
            )
        self._every_key_has_an_effect()
        return self

    def _names(self, key: str) -> bool:
        """Whether the section names a column under this key, and does not leave it at its default."""
        return key in self.model_fields_set if key == "text" else getattr(self, key) is not None

    def _every_key_has_an_effect(self) -> None:
        idle = ("stride", "documents") if self.has_answers else ("template",)
        for key in idle:
            if getattr(self, key) != type(self).model_fields[key].default:
                kind = "prompts and answers" if self.has_answers else "plain text"
                raise MisfitError(f"has no effect on {kind}", fix="remove it", key=key)

    @model_serializer(mode="wrap")
    def _own_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys of other layouts, so that what is written can be read again."""
        values: dict[str, Any] = handler(self)
        other = ("text",) if self.has_answers else _OF_ANSWERS
        return {key: value for key, value in values.items() if key not in other}


CorpusRef = Annotated[
    CorpusConfig, BeforeValidator(path_alone, json_schema_input_type=PathOrId | CorpusConfig)
]
