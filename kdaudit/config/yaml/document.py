"""YAML text as data that remembers where each key was written.

YAML 1.2: `yes`, `no`, `on` and `off` are text, `1e-3` is a number and `010` is ten. Only plain data
passes: text, numbers, true and false, null, dates, lists and mappings with text keys. Keys are tuples of
names and row numbers, as in `("models", "students", 0, "name")`.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from kdaudit.config.paths import nearest_name
from kdaudit.config.yaml.bounded import MAX_NODES, PARSER_FAULTS, BoundError, bounded
from kdaudit.errors import ConfigError
from kdaudit.runs.files import read_bounded

Key = tuple[str | int, ...]

MAX_BYTES = 1 << 18
"""A configuration is a page or two; more is some other file given by mistake."""
MAX_DIGITS = 40
"""Of a whole number; Python takes quadratic time for more, or refuses."""

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = {
    _TAG + kind for kind in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq", "merge")
}


class YamlDocument(NamedTuple):
    """Parsed YAML: `data` is plain Python, `root` its nodes with their lines; both None if empty."""

    label: str
    """How messages name it: the file as the user gave it, or `--set`."""
    data: Any
    root: Node | None

    def line(self, key: Key) -> int | None:
        """The line, from 1, of `key` or of the nearest key above it; None if only the whole file is."""
        node, line = self.root, None
        for part in key:
            found = _step(node, part)
            if found is None:
                break
            node, line = found.value, found.line
        return line

    def written(self, key: Key) -> str | None:
        """A value as it was written, for numbers and dates that parsing reshapes; None for others."""
        node = self.root
        for part in key:
            found = _step(node, part)
            if found is None:
                return None
            node = found.value
        return str(node.value) if isinstance(node, ScalarNode) and not node.style else None


class _Step(NamedTuple):
    value: Node
    line: int


def _step(node: Node | None, part: str | int) -> _Step | None:
    if isinstance(node, MappingNode):
        for name, value in reversed(node.value):
            if name.value == part:
                return _Step(value, name.start_mark.line + 1)
    elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
        value = node.value[part]
        return _Step(value, value.start_mark.line + 1)
    return None


def dotted(key: Key) -> str:
    """A key as users write it: `models.students.0.name`."""
    return ".".join(str(part) for part in key)


def key_of(text: str) -> Key:
    """The key that `dotted` writes so."""
    return tuple(int(part) if part.isdecimal() else part for part in text.split("."))


def read_document(path: Path, most: int = MAX_BYTES, max_nodes: int = MAX_NODES) -> YamlDocument:
    """Read and parse a YAML file.

    Args:
        path: the file.
        most: bytes that it may hold.
        max_nodes: keys and values that it may hold.

    Raises:
        ConfigError: the file is not there, not UTF-8, far too large or not plain YAML.
    """
    try:
        raw = read_bounded(path, most)
    except IsADirectoryError:
        raise ConfigError(
            f"{path}: is a folder", fix="give a configuration file, such as audit.yaml"
        ) from None
    except FileNotFoundError:
        near = nearest_name(path)
        remedy = f"did you mean {near}?" if near else "check the name"
        raise ConfigError(f"{path}: no such file", fix=remedy) from None
    except OSError as error:
        if error.errno == errno.EFBIG:
            problem, remedy = f"is over {most >> 10:,} KiB, too large for a configuration", "give a YAML file"
        elif error.errno in (errno.EINVAL, errno.ENXIO):
            problem, remedy = "is not a regular file", "give a configuration file, such as audit.yaml"
        else:
            problem, remedy = f"cannot be read ({error.strerror})", "check its name and permissions"
        raise ConfigError(f"{path}: {problem}", fix=remedy) from None
    except ValueError:
        raise ConfigError(f"{str(path)!r}: no file can have this name", fix="check the name") from None
    return parse_document(_decode(raw, path), str(path), max_nodes)


def _decode(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"byte 0x{raw[error.start]:02x} is not UTF-8 text",
            fix="save the file as UTF-8",
            where=f"{path}:{line}",
        ) from None


def parse_document(text: str, label: str, max_nodes: int = MAX_NODES) -> YamlDocument:
    """Parse YAML text of at most so many keys and values; `label` names it in errors.

    Raises:
        ConfigError: not valid YAML, or more than plain data; with line and column.
    """
    with _explained(text, label):
        yaml = bounded(max_nodes)
        root = yaml.compose(text)
    if root is None:
        return YamlDocument(label, None, None)
    _check_plain(root, label, (), set())
    with _explained(text, label):
        # It puts merged keys before a mapping's own, which come last and hold.
        return YamlDocument(label, yaml.constructor.construct_document(root), root)


@contextmanager
def _explained(text: str, label: str) -> Iterator[None]:
    try:
        yield
    except BoundError as error:
        place = f"{label}:{error.problem_mark.line + 1}"
        raise ConfigError(error.problem, fix=error.fix, where=place) from None
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError("holds a control character", fix="remove it", where=f"{label}:{line}") from None
    except YAMLError as error:
        raise _explain(error, label) from None
    except PARSER_FAULTS as error:
        problem = str(error).partition(";")[0] or type(error).__name__
        raise ConfigError(
            f"not valid YAML ({problem})", fix="put odd values in quotes", where=label
        ) from None


def _check_plain(node: Node, label: str, key: Key, done: set[int]) -> None:
    """Refuse tags, repeated or non-text keys and endless numbers: nothing that follows meets them.

    `done` holds the nodes already checked: aliases of aliases would else take exponential time.
    """
    if id(node) in done:
        return
    wrong = partial(ConfigError, key=dotted(key) or None, where=f"{label}:{node.start_mark.line + 1}")
    if node.tag not in _PLAIN_TAGS:
        tag = str(node.tag).replace(_TAG, "!!")
        raise wrong(f"the YAML tag {tag} is not allowed", fix="remove it")
    if isinstance(node, ScalarNode) and not _is_text(node.value):
        raise wrong("holds a character that no text can hold", fix="remove it")
    if node.tag == _TAG + "int" and len(node.value) > MAX_DIGITS:
        raise wrong(f"is a number of {len(node.value):,} digits", fix="put text in quotes")
    if isinstance(node, SequenceNode):
        for row, item in enumerate(node.value):
            _check_plain(item, label, (*key, row), done)
    elif isinstance(node, MappingNode):
        _check_keys(node, label, key)
        for name, value in node.value:
            _check_plain(value, label, (*key, name.value), done)
    done.add(id(node))


def _is_text(value: str) -> bool:
    """Whether a value can be written to a file and can be in a path: no lone surrogate and no NUL."""
    return "\0" not in value and not any("\ud800" <= character <= "\udfff" for character in value)


def _check_keys(node: MappingNode, label: str, key: Key) -> None:
    lines: dict[str, int] = {}
    for name, _ in node.value:
        line = name.start_mark.line + 1
        if name.tag not in (_TAG + "str", _TAG + "merge"):
            what, fix = _no_key(node, name)
            raise ConfigError(what, fix=fix, where=f"{label}:{line}")
        if name.value in lines:
            raise ConfigError(
                f"is given twice (first on line {lines[name.value]})",
                fix="keep one",
                key=dotted((*key, name.value)),
                where=f"{label}:{line}",
            )
        lines[name.value] = line


def _no_key(section: MappingNode, name: Node) -> tuple[str, str]:
    """What is wrong with a key that is not text, and what to do."""
    remedy = "keys are names such as corpus"
    if not isinstance(name, ScalarNode):
        return "a list or mapping cannot be a key", remedy
    if section.flow_style and name.tag == _TAG + "int" and name is not section.value[0][0]:
        # {max_rate: 0,1} is the number 0 and then the key 1.
        remedy = "write a fraction with a dot, as in 0.1, not with a comma"
    return f"{name.value!r} cannot be a key", remedy


_HINTS = (
    ("'\\t'", "a tab stands where YAML takes only spaces", "indent with spaces"),
    ("mapping values are not allowed", "a second ':' in one line", "put text that holds ': ' in quotes"),
    ("found another document", "a second document begins ('---')", "keep one"),
    (
        "undefined alias",
        "a value that begins with * refers to an anchor that is not there",
        "put it in quotes",
    ),
    ("could not find expected ':'", "a key without ':' after it", "write `key: value`"),
)
"""A part of what the parser says, what is wrong then, and what to do."""


def _explain(error: YAMLError, label: str) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    place = f"{label}:{mark.line + 1}:{mark.column + 1}" if mark else label
    problem = str(getattr(error, "problem", None) or error).splitlines()[0]
    for sign, what, fix in _HINTS:
        if sign in problem:
            return ConfigError(f"not valid YAML: {what}", fix=fix, where=place)
    fix = "correct this line or the one above"
    return ConfigError(f"not valid YAML: {problem}", fix=fix, where=place)
