"""What a json file is that is not one object a line, and what to save it as, for messages.

The reader gives up at the first thing that it cannot take; what the user has to do depends on what the file
as a whole is. It is told from its beginning.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

HEAD_BYTES = 1 << 20
"""Of a file's beginning, by which it is told."""


class Shape(NamedTuple):
    """What a file is, and what to do."""

    what: str
    fix: str


_TO_LINES = "save it as json lines, one object a line, as in `jq -c {filter} FILE > NEW.jsonl`"
_PYTHON = Shape("holds Python objects as `print` shows them, not json", "write each row with `json.dumps`")
_PYTHON_OBJECT = re.compile(r"(?=[\[({])[\[({\s]*+u?'")
_KEY_OF_ROWS = re.compile(
    r'\{(?:\s*"[^"\\]*+"\s*:\s*(?:"(?:[^"\\]|\\.)*+"|[\w.+-]++)\s*,)*+\s*"([^"\\]*+)"\s*:\s*\[\s*[{\[]'
)
"""An object's first key that holds a list of objects or lists, behind keys with plain values."""
_CUT_ESCAPE = re.compile(r"u[0-9a-fA-F]{0,4}\s*")
"""What a parser complains of where a string ends within `\\u0438`, or right behind it."""


def kind_of(value: object) -> str:
    """What json calls a value, and Python's json lets pass."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN, as pandas writes a missing value"
    names: dict[type, str] = {dict: "json object", list: "list", bool: "boolean", str: "string"}
    return "null" if value is None else names.get(type(value), "number")


def explain(head: str, *, whole: bool) -> Shape | None:
    """What a file is that does not hold one json object a line; None if it looks as if it did.

    Args:
        head: its beginning.
        whole: whether that is all of it.
    """
    text = head.lstrip(" \t\r\n\ufeff")
    if text.startswith("<"):
        return Shape("holds HTML or XML, not json", "extract its text, or download the file itself")
    if _PYTHON_OBJECT.match(text):
        return _PYTHON
    if re.match(r"\[[^\n]*\][ \t\r]*\n\s*\[", text):
        return Shape(
            "holds an array in each line, and a row must be an object", 'write each as {"text": ...}'
        )
    if text.startswith("["):
        return Shape("is a json array, not one object a line", "rename it so that its name ends in .json")
    if not text.startswith("{"):
        return None
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None if whole else _of_a_beginning(text)
    return _of_first(value, text[:end], text[end:].lstrip(" \t\r\n\ufeff\0"), whole=whole)


def _of_a_beginning(text: str) -> Shape | None:
    """Of a first object that continues behind the beginning."""
    rows = _KEY_OF_ROWS.match(text)
    if rows is not None:
        return _wrapped([rows[1]])
    return _over_lines() if re.match(r"\{\s*\n", text) else None


def _of_first(value: Mapping[str, Any], text: str, rest: str, *, whole: bool) -> Shape | None:
    if not rest and whole:
        return one_object(value) or (_over_lines() if "\n" in text else None)
    if rest.startswith(","):
        return Shape(
            "holds objects with commas between them", "put [ before them and ] behind, and name it .json"
        )
    return _over_lines() if "\n" in text and rest.startswith("{") else None


def one_object(fields: Mapping[str, Any]) -> Shape | None:
    """What a file is whose one object is not a row but holds rows or columns; None if it may be a row."""
    if any(map(_is_chat, fields.values())):
        return None
    rows = _lists_of_rows(fields)
    if rows:
        return _wrapped(rows)
    inner = [
        f"{name}.{row}"
        for name, held in fields.items()
        if isinstance(held, dict)
        for row in _lists_of_rows(held)
    ]
    if inner:
        return _wrapped(inner)
    if fields and all(isinstance(held, list) for held in fields.values()):
        return _by_columns()
    if not fields or not all(isinstance(held, dict) for held in fields.values()):
        return None
    if all(key.isdecimal() for held in fields.values() for key in held):
        return _by_columns()  # as pandas writes them
    return Shape(
        "is one json object that holds the rows by key",
        "save its values as json lines, as in `jq -c '.[]' FILE > NEW.jsonl`",
    )


def _is_chat(value: object) -> bool:
    """Whether it is a list of messages."""
    return isinstance(value, list) and any(
        isinstance(one, dict) and ({"role", "content"} <= one.keys() or {"from", "value"} <= one.keys())
        for one in value
    )


def _lists_of_rows(value: Mapping[str, Any]) -> list[str]:
    """The keys of an object under which lists of objects (or of lists, as pandas writes) stand."""
    return [
        name
        for name, held in value.items()
        if isinstance(held, list) and held and all(isinstance(one, dict | list) for one in held)
    ]


def _by_columns() -> Shape:
    return Shape(
        "is one json object that holds whole columns",
        "save it row by row, as json lines (pandas: `to_json(FILE, orient='records', lines=True)`)",
    )


def _wrapped(rows: list[str]) -> Shape:
    keys = " and ".join(map(repr, rows[:5]))
    command = ""
    if re.fullmatch(r"[A-Za-z_][\w.]*", rows[0], re.ASCII):  # else jq would want it quoted
        command = f", as in `jq -c '.{rows[0]}[]' FILE > NEW.jsonl`"
    if len(rows) == 1:
        return Shape(
            f"is one json object whose key {keys} holds the rows", f"save those rows as json lines{command}"
        )
    return Shape(
        f"is one json object whose keys {keys} hold the rows", f"save one of these as json lines{command}"
    )


def _over_lines() -> Shape:
    return Shape("holds json objects that are spread over several lines", f"{_TO_LINES.format(filter='.')}")


def hint(text: str, error: json.JSONDecodeError, *, last: bool) -> str | None:
    """What a parser's complaint most likely comes from; None where its own words must do.

    Args:
        text: what was parsed.
        error: the complaint.
        last: whether nothing follows the text in its file.
    """
    at, before = text[error.pos :], text[: error.pos].rstrip()
    if at.startswith(("None", "True", "False", "'")):
        return "a Python object as `print` shows it, not json: write it with json.dumps"
    if at.startswith(("]", "}")) and before.endswith(","):
        return f"a comma stands before the closing {at[0]}"
    if error.msg == "Extra data" and at.startswith("{"):
        return "several objects stand on one line: put each on a line of its own"
    if error.msg == "Extra data" and at.strip() == ",":
        return "it ends in a comma: one object a line, without commas between them"
    if error.msg.startswith("Invalid control character") and not at.startswith("\0"):
        return "a control character stands in a string: write a tab as \\t, a line break as \\n"
    if "\0" in text:
        return "it holds NUL bytes: the file is damaged, or is not text"
    in_string = error.msg.startswith("Unterminated string") or _CUT_ESCAPE.fullmatch(at)
    if last and (not at.strip() or in_string):
        return "the file ends in the middle of a value: it was cut short"
    return None
