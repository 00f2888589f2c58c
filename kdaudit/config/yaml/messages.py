"""What is wrong in a configuration, under the key as the user wrote it, and what to write instead."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from kdaudit.config.section import NAME_PATTERN
from kdaudit.config.yaml.document import Key, dotted, key_of
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.config.yaml.schema import Shape, nearest, suggestion

Written = Callable[[Key], str | None]
"""Gives a value as the user wrote it, where that may differ from how Python shows it."""


_Told = tuple[str, str]
"""What is wrong, and what to do."""


class Problem(NamedTuple):
    """What is wrong at one key, and what to do."""

    key: Key
    what: str
    fix: str


def problems(error: ValidationError, data: Any, top: Shape, written: Written) -> list[Problem]:  # noqa: ANN401
    """One problem for each key that is wrong, with the keys as they stand in `data`, the raw YAML."""
    found: dict[Key, Problem] = {}
    kinds: dict[Key, str] = {}
    for detail in error.errors(include_url=False):
        problem = _problem(detail, data, top, written)
        found.setdefault(problem.key, problem)
        kinds.setdefault(problem.key, detail["type"])
    for key in _misspelled(kinds):
        del found[key]
    # What is wrong inside a value tells more than that the value is of none of the allowed kinds.
    return [p for p in found.values() if not any(k != p.key and k[: len(p.key)] == p.key for k in found)]


def _misspelled(kinds: dict[Key, str]) -> set[Key]:
    """Required keys that are missing because they stand there misspelled, which is told by itself."""
    missing = [key for key, kind in kinds.items() if kind == "missing"]
    meant = set()
    for key, kind in kinds.items():
        if kind == "extra_forbidden":
            beside = {str(one[-1]): one for one in missing if one[:-1] == key[:-1]}
            near = nearest(str(key[-1]), list(beside))
            meant |= set() if near is None else {beside[near]}
    return meant


def _problem(detail: ErrorDetails, data: Any, top: Shape, written: Written) -> Problem:  # noqa: ANN401
    key = _key_in(data, detail)
    if detail["type"] == "value_error":
        return _own_problem(key, detail["ctx"]["error"])
    kind, value = detail["type"], detail["input"]
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        # Told of a section; the mistake is in the key that says which kind of section it is.
        name = detail["ctx"]["discriminator"].strip("'")
        misspelled = None if name in value else nearest(name, list(value))
        kind = "extra_forbidden" if misspelled else kind
        key, value = (*key, misspelled or name), value.get(misspelled or name)
    wrong = _Wrong(key, value, detail.get("ctx", {}), top, written(key), _at(data, key[:-1]))
    explain = _EXPLAIN.get(kind)
    return Problem(key, *(explain(wrong) if explain else (f"{wrong}: {detail['msg'].lower()}", "correct it")))


def _at(data: Any, key: Key) -> Any:  # noqa: ANN401 - raw YAML
    """What stands at `key`; None if nothing does."""
    for part in key:
        if not _holds(data, part):
            return None
        data = data[part]
    return data


def _key_in(data: Any, detail: ErrorDetails) -> Key:  # noqa: ANN401
    """The error's place without the parts that name a union's branch or a row that the user did not write."""
    key: list[str | int] = []
    loc = detail["loc"]
    for position, part in enumerate(loc):
        if _holds(data, part):
            key.append(part)
            data = data[part]
        elif position == len(loc) - 1 and detail["type"] == "missing":
            key.append(part)
    return tuple(key)


def _holds(data: Any, part: str | int) -> bool:  # noqa: ANN401 - raw YAML
    if isinstance(data, list):
        return isinstance(part, int) and part < len(data)
    return isinstance(data, dict) and part in data


def _own_problem(section: Key, error: ValueError) -> Problem:
    """What one of kdaudit's own checks refuses, under its key or of the whole value."""
    if not isinstance(error, MisfitError):
        return Problem(section, str(error), "correct it")
    return Problem((*section, *(key_of(error.key) if error.key else ())), error.what, error.fix)


class _Wrong(NamedTuple):
    """A value that was refused, and what there is to explain it by."""

    key: Key
    value: Any
    limits: dict[str, Any]
    top: Shape
    written: str | None
    section: Any
    """The raw YAML of the section that it stands in."""

    @property
    def required(self) -> bool:
        section = self.top.at(self.key[:-1])
        return section is not None and self.key[-1] in section.required

    @property
    def shape(self) -> Shape:
        return self.top.at(self.key) or Shape((), self.top.root)

    def __str__(self) -> str:
        """The value in words: `the number 3`, `the text 'many'`, `a list`."""
        value = self.value
        if value is None:
            return "nothing"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return f"the number {self.written or value}"
        if isinstance(value, datetime.date):
            return f"the date {self.written or value}"
        if isinstance(value, str):
            return f"the text {_short(value)}"
        return "a list" if isinstance(value, list | tuple) else "keys"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _missing(wrong: _Wrong) -> _Told:
    section = dotted(wrong.key[:-1])
    choices = f" ({_listed(wrong.shape.choices)})" if wrong.shape.choices else ""
    empty = ", or null for none" if wrong.shape.takes("null") else ""
    return "is required and missing", f"add it{f' to {section}' if section else ''}{choices}{empty}"


def _unknown(wrong: _Wrong) -> _Told:
    name, key = str(wrong.key[-1]), wrong.key[:-1]
    every = wrong.top.at(key)
    section = every.fitting(wrong.section) if every else None
    allowed = ", ".join(section.keys) if section else "none"
    hint = suggestion(name, key, wrong.top, section)
    if every and section and name in every.keys:
        marks = every.holding(name).marks
        return f"goes with {marks}, not with {section.marks}", f"{hint or 'remove it'} (allowed: {allowed})"
    return "unknown key", f"{hint or 'correct or remove it'} (allowed: {allowed})"


def _choice(wrong: _Wrong) -> _Told:
    choices = wrong.shape.choices
    near = nearest(wrong.value, choices) if isinstance(wrong.value, str) else None
    shown = _short(wrong.value) if isinstance(wrong.value, str) else str(wrong)
    hint = f" (did you mean {near}?)" if near else ""
    return f"{shown} is not allowed", f"choose {_listed(choices)}{hint}"


def _listed(choices: list[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}" if len(choices) > 1 else "".join(choices)


def _text(wrong: _Wrong) -> _Told:
    if isinstance(wrong.value, bool | int | float | datetime.date):
        return f"expected text, got {wrong}", "put it in quotes"
    if isinstance(wrong.value, dict):
        return f"expected text, got {wrong}", "put text that holds ': ' in quotes"
    return f"expected text, got {wrong}", _fill_or_remove(wrong)


def _whole(wrong: _Wrong) -> _Told:
    value = wrong.value
    if isinstance(value, float) and value.is_integer():
        return f"expected a whole number, got {wrong}", f"write {int(value)}"
    return f"expected a whole number, got {wrong}", _unquote(wrong)


def _number(wrong: _Wrong) -> _Told:
    return f"expected a number, got {wrong}", _unquote(wrong)


def _unquote(wrong: _Wrong) -> str:
    value = wrong.value.strip() if isinstance(wrong.value, str) else None
    if value is not None:
        if re.fullmatch(r"[-+]?(\d[\d_]*)?\.?\d+(e[-+]?\d+)?", value, re.IGNORECASE):
            return "remove the quotes"
        if re.fullmatch(r"\d+([.,]\d+)?\s*%", value):
            return "write a share, as 0.05 for 5%"
        if re.fullmatch(r"\d{1,3}([., '_]\d{3})+", value) and wrong.shape.takes("integer"):
            return f"write {re.sub('[^0-9]', '', value)}, without separators"
        if re.fullmatch(r"[-+]?\d*,\d+", value) and wrong.shape.takes("number"):
            return f"write {value.replace(',', '.')}, with a dot"
    return _fill_or_remove(wrong)


def _fill_or_remove(wrong: _Wrong) -> str:
    if wrong.value is not None:
        return "correct the value"
    return "give a value" if wrong.required else "give a value or remove the key"


def _truth(wrong: _Wrong) -> _Told:
    return f"expected true or false, got {wrong}", "write true or false, without quotes"


def _section(wrong: _Wrong) -> _Told:
    path = "a path, or " if wrong.shape.takes("string") else ""
    more = ", ..." if wrong.shape.takes_free_keys else ""
    keys = f"keys ({', '.join(wrong.shape.keys)}{more})"
    if wrong.value is None:
        remove = "" if wrong.required else ", or remove it"
        return "is empty", f"give it {path}{keys}{remove}"
    if isinstance(wrong.value, str) and "path" in wrong.shape.keys:
        return f"expected keys, got {wrong}", f"write it as {{name: NAME, path: {wrong.value}}}"
    return f"expected {path}{keys}, got {wrong}", f"write {'keys' if path else 'them'} as `key: value`"


def _list(wrong: _Wrong) -> _Told:
    if wrong.value is None:
        return "is empty", "give a list" if wrong.required else "give a list, or remove it"
    return f"expected a list, got {wrong}", "begin each entry with '- ', or write [...]"


def _empty_list(wrong: _Wrong) -> _Told:
    remedy = ", or null for none" if wrong.shape.takes("null") else ""
    return "is an empty list", f"give at least one entry{remedy}"


def _pattern(wrong: _Wrong) -> _Told:
    if wrong.limits["pattern"] == NAME_PATTERN:
        return (
            f"{_short(wrong.value)} cannot name a folder",
            "use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    return f"{_short(wrong.value)} does not have the form {wrong.limits['pattern']}", "correct it"


def _bound(words: str, limit: str) -> Callable[[_Wrong], _Told]:
    def explain(wrong: _Wrong) -> _Told:
        bound = wrong.limits[limit]
        share = "; it is a share, as 0.05 for 5%" if limit in ("le", "lt") and bound == 1 else ""
        return f"{wrong.written or wrong.value} is out of range", f"give {words} {bound:g}{share}"

    return explain


_EXPLAIN: dict[str, Callable[[_Wrong], _Told]] = {
    "missing": _missing,
    "extra_forbidden": _unknown,
    "literal_error": _choice,
    "union_tag_invalid": _choice,
    "union_tag_not_found": _missing,
    "string_type": _text,
    "string_too_short": lambda _: ("is empty text", "give a value"),
    "string_pattern_mismatch": _pattern,
    "invalid-json-value": _text,
    "int_type": _whole,
    "int_from_float": _whole,
    "int_parsing_size": lambda _: ("is too large a number", "give a smaller one"),
    "float_type": _number,
    "finite_number": lambda wrong: (
        f"{wrong.written or wrong.value} is not a finite number",
        "give one, or null",
    ),
    "bool_type": _truth,
    "model_type": _section,
    "model_attributes_type": _section,
    "dict_type": _section,
    "tuple_type": _list,
    "list_type": _list,
    "too_short": _empty_list,
    "greater_than_equal": _bound("at least", "ge"),
    "greater_than": _bound("more than", "gt"),
    "less_than_equal": _bound("at most", "le"),
    "less_than": _bound("less than", "lt"),
}
