"""YAML as nodes, within bounds: no text can make more of itself than a small multiple of its length.

Aliases and merges let a few hundred bytes stand for billions of values. So what a document holds is counted
while it is composed, each alias as all that it stands for, and composing stops at the bound: the cost stays
linear in the length of the text.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import Node

MAX_DEPTH = 40
"""Levels of lists and mappings; no form of configuration or card has ten."""
MAX_NODES = 20_000
"""Keys and values of a configuration, each alias counted as all that it stands for."""
MAX_CARD_NODES = 100_000
"""Likewise of a card: those of embedding models list thousands of results."""


class BoundError(MarkedYAMLError):
    """The text goes beyond a bound; `problem` says which, `fix` what to do, `problem_mark` where."""

    def __init__(self, problem: str, fix: str, event: Any) -> None:  # noqa: ANN401 - an event of ruamel.yaml
        super().__init__(problem=problem, problem_mark=event.start_mark)
        self.fix = fix


def bounded(max_nodes: int = MAX_NODES) -> YAML:
    """A safe reader of YAML 1.2 whose `compose` and `load` raise BoundError instead of growing."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = partial(_BoundedComposer, max_nodes)  # type: ignore[assignment]  # it is only called
    return yaml


class _BoundedComposer(Composer):
    """ruamel.yaml's composer, counting.

    A node's weight is the number of nodes in it once every alias is replaced by what it stands for; a merge
    (`<<: *a`) brings in no more than that.
    """

    def __init__(self, max_nodes: int, loader: Any = None) -> None:  # noqa: ANN401 - ruamel.yaml's own
        super().__init__(loader)
        self.max_nodes = max_nodes
        self.warn_double_anchors = False
        self._count = 0
        self._weights: dict[int, int] = {}
        """Of each node that has an anchor, by its identity; the anchors and the tree keep them alive."""
        self._kept: list[Node] = []

    def compose_node(self, parent: Any, index: Any) -> Any:  # noqa: ANN401 - ruamel.yaml's own
        event = self.parser.peek_event()
        before = self._count
        if not isinstance(event, AliasEvent):
            self._add(1, event)
            if self.depth >= MAX_DEPTH:
                raise BoundError("is nested too deeply", "write it out flat", event)
            node = super().compose_node(parent, index)
            if event.anchor is not None:
                self._kept.append(node)
                self._weights[id(node)] = self._count - before
            return node
        node = super().compose_node(parent, index)
        if id(node) not in self._weights:
            raise BoundError(f"*{event.anchor} stands within itself", "write out what is meant", event)
        self._add(self._weights[id(node)], event)
        return node

    def _add(self, nodes: int, event: Any) -> None:  # noqa: ANN401 - an event of ruamel.yaml
        self._count += nodes
        if self._count > self.max_nodes:
            raise BoundError(
                f"more than {self.max_nodes:,} keys and values, each alias (*name) counted as all that it "
                "stands for",
                "write less, with fewer aliases",
                event,
            )


PARSER_FAULTS = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError, ValueError)
"""What ruamel.yaml raises, beside its own errors, for text that it does not expect: a date 2024-13-45, an
escape beyond Unicode, a version of 6,000 digits."""
