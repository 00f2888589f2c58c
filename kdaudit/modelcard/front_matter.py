"""Puts the audit's result into a card's front matter, and keeps every other byte of it.

huggingface_hub can write metadata, but rewrites all of it: comments go, quotes and indentation change.
So ruamel.yaml locates the model-index in the text, and the result is inserted there. It is found
again by the name of its source.

    model-index:
    - name: ...
      results:
      - {another's result}
      - {ours}
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import CollectionNode, MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from kdaudit.config.yaml.bounded import MAX_CARD_NODES, PARSER_FAULTS, BoundError, bounded
from kdaudit.errors import UsageError, reason
from kdaudit.modelcard.metadata import SOURCE_NAME

_INDEX = "model-index"
_ENDLESS = 2**31


class _Cut(NamedTuple):
    """Text to put in place of a stretch of the front matter."""

    start: int
    end: int
    text: str


class _Entry(NamedTuple):
    """A key and its value in the text."""

    key: Node
    value: Node


def with_result(front: str, index: list[dict[str, Any]], newline: str, above: int = 1) -> str:
    """The front matter with our result added, or in place of an earlier one.

    Args:
        front: YAML between the lines of three dashes, without them; empty or ending with a line break.
        index: a whole model-index that holds our result alone.
        newline: the card's line break.
        above: lines of the card above the front matter, for messages.

    Raises:
        UsageError: the YAML is damaged, or has a form that cannot be changed.

    """
    root = _compose(front, above)
    if ends := re.search(r"^\.\.\.[ \t]*\r?$", front, re.MULTILINE):
        line = front.count("\n", 0, ends.start()) + above + 1
        raise UsageError(
            f"its front matter ends with `...` in line {line}", fix="remove that line, then try again"
        )
    cut = _cut(front, root, index)
    return front[: cut.start] + cut.text.replace("\n", newline) + front[cut.end :]


def is_mapping(front: str) -> bool:
    """Whether text is YAML that lists keys."""
    try:
        return isinstance(_compose(front, 1), MappingNode)
    except UsageError:
        return False


def is_text(front: str) -> bool:
    """Whether what stands between two lines of dashes, which are horizontal rules then, is prose."""
    if re.search(r":(?:\s|$)|\A\s*-\s", front) or is_mapping(front):
        return False
    return any(line.strip() and not line.lstrip().startswith("#") for line in front.splitlines())


def _compose(front: str, above: int) -> Node | None:
    try:
        return bounded(MAX_CARD_NODES).compose(front)  # type: ignore[no-any-return]
    except BoundError as error:
        line = error.problem_mark.line + above + 1
        raise UsageError(
            f"its front matter, line {line}: {error.problem}", fix=f"{error.fix}, then try again"
        ) from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        line = "" if mark is None else f", line {mark.line + above + 1}"
        raise UsageError(
            f"its front matter is not valid YAML ({error.problem or reason(error)}{line})",
            fix="fix it, then try again",
        ) from error
    except ReaderError as error:
        line = front.count("\n", 0, error.position) + above + 1
        raise UsageError(
            f"its front matter holds a control character in line {line}", fix="remove it, then try again"
        ) from error
    except (YAMLError, *PARSER_FAULTS) as error:
        raise UsageError(
            f"its front matter is not valid YAML ({reason(error)})", fix="fix it, then try again"
        ) from error


def _cut(front: str, root: Node | None, index: list[dict[str, Any]]) -> _Cut:
    if root is None:
        return _Cut(len(front), len(front), _block({_INDEX: index}))
    if not isinstance(root, MappingNode) or _in_brackets(root):
        raise UsageError(
            "its front matter is not a list of keys, one a line", fix="write it so, then try again"
        )
    held = _entry(root, _INDEX)
    if held is None and _ends_with_block(root):
        # Below it ours would add a line break, since the Hub's pattern takes the last one from the YAML.
        return _Cut(0, 0, _block({_INDEX: index}))
    if held is None:
        text = _indented(_block({_INDEX: index}), root.start_mark.column)
        return _Cut(len(front), len(front), " " * root.start_mark.column + text)
    if _is_empty(held.value):
        return _filled(front, held, index, root.start_mark.column)
    return _in_index(front, held.value, index[0]["results"][0])


def _in_index(front: str, held: Node, result: dict[str, Any]) -> _Cut:
    models = held.value if isinstance(held, SequenceNode) else []
    entries = [_entry(model, "results") for model in models]
    lists = [entry.value for entry in entries if entry and isinstance(entry.value, SequenceNode)]
    if not models or len(lists) < len(models):
        raise UsageError("its model-index is not a list of models with results", fix="fix it, then try again")
    ours = [item for one in lists for item in one.value if _is_ours(item)]
    if len(ours) > 1:
        raise UsageError(
            f"its model-index holds {len(ours)} results whose source is {SOURCE_NAME}",
            fix="leave one of them, then try again",
        )
    if ours:
        return _replaced(front, ours[0], result)
    if entries[0] and not lists[0].value:
        return _filled(front, entries[0], [result], models[0].start_mark.column)
    return _appended(front, lists[0], result)


def _filled(front: str, empty: _Entry, items: list[dict[str, Any]], column: int) -> _Cut:
    """In place of an empty list or of nothing; a comment on its line stays there."""
    start, end = empty.value.start_mark.index, empty.value.end_mark.index
    if start == end:  # nothing stands there, and its mark is that of what follows
        start = end = front.index(":", empty.key.end_mark.index) + 1
    line_end = _line_end(front, end)
    rest = front[end:line_end].rstrip()
    if rest.strip() and not rest.strip().startswith("#"):  # it lies inside another list in brackets
        return _Cut(start, end, _flow(items))
    block = "\n" + " " * column + _indented(_block(items), column).rstrip("\n")
    return _Cut(len(front[:start].rstrip(" ")), line_end, rest + block)


def _replaced(front: str, item: Node, result: dict[str, Any]) -> _Cut:
    start, end = item.start_mark.index, _leaf_end(front, item)
    if _in_brackets(item):
        return _Cut(start, end, _flow(result))
    text = _indented(_block(result), item.start_mark.column)
    return _Cut(start, end, text if _is_line_start(front, end) else text.rstrip("\n"))


def _appended(front: str, results: SequenceNode, result: dict[str, Any]) -> _Cut:
    """After the last result; in a list in brackets before the closing one."""
    end = _leaf_end(front, results.value[-1])
    if _in_brackets(results):
        return _Cut(end, end, f", {_flow(result)}")
    column = results.start_mark.column
    text = " " * column + "- " + _indented(_block(result), column + 2)
    if _is_line_start(front, end):
        return _Cut(end, end, text)
    end = _line_end(front, end)
    return _Cut(end, end, "\n" + text.rstrip("\n"))


def _block(value: Any) -> str:  # noqa: ANN401 - JSON values
    """YAML, one key a line, as huggingface_hub writes it."""
    return yaml_dump(value, sort_keys=False, width=_ENDLESS)


def _flow(value: Any) -> str:  # noqa: ANN401 - JSON values
    """YAML in brackets, on one line."""
    return yaml_dump(value, sort_keys=False, width=_ENDLESS, default_flow_style=True).rstrip("\n")


def _indented(text: str, column: int) -> str:
    """All lines but the first moved right."""
    return text.replace("\n", "\n" + " " * column).rstrip(" ")


def _entry(node: Node | None, key: str) -> _Entry | None:
    if not isinstance(node, MappingNode):
        return None
    return next((_Entry(*pair) for pair in node.value if pair[0].value == key), None)


def _is_empty(node: Node) -> bool:
    if isinstance(node, ScalarNode):
        return node.tag == "tag:yaml.org,2002:null"
    return not node.value


def _is_ours(item: Node) -> bool:
    source = _entry(item, "source")
    name = source and _entry(source.value, "name")
    return name is not None and bool(name.value.value == SOURCE_NAME)


def _ends_with_block(node: Node) -> bool:
    """Whether the last text of a mapping in column 0 is a block, as in `key: |`."""
    last = node
    while isinstance(last, CollectionNode) and last.value:
        last = last.value[-1][1] if isinstance(last, MappingNode) else last.value[-1]
    return bool(node.start_mark.column == 0 and isinstance(last, ScalarNode) and last.style in ("|", ">"))


def _in_brackets(node: Node) -> bool:
    return isinstance(node, CollectionNode) and bool(node.flow_style)


def _leaf_end(front: str, node: Node) -> int:
    """Where a node's own text ends; the end mark of a block lies behind the comments that follow it."""
    if not isinstance(node, CollectionNode) or _in_brackets(node):
        return int(node.end_mark.index)
    if not isinstance(node, MappingNode):
        return _leaf_end(front, node.value[-1])
    key, value = node.value[-1]
    if value.start_mark.index == value.end_mark.index:  # nothing stands there, and its marks lie further on
        return front.index(":", key.end_mark.index) + 1
    return _leaf_end(front, value)


def _is_line_start(front: str, place: int) -> bool:
    """Whether a line break stands before; a block of text ends with its own."""
    return front[place - 1] in "\r\n"


def _line_end(front: str, start: int) -> int:
    """Where the line ends, before its line break."""
    ends = (front.find(mark, start) for mark in "\r\n")
    return min((end for end in ends if end >= 0), default=len(front))
