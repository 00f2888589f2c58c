"""`--set a.b=value`: changes to a configuration from the command line.

The value is YAML, so that `0.1`, `true`, `null`, `[a, b]` and `{path: x}` mean what they do in the file.
A number in the key is a row of a list, counted from 0. The data of the file is never changed in place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from kdaudit.config.yaml.document import Key, YamlDocument, dotted, parse_document
from kdaudit.config.yaml.schema import Shape, suggestion
from kdaudit.errors import ConfigError


class Override(NamedTuple):
    """One parsed `--set`: the place it changes and the value it puts there."""

    key: Key
    document: YamlDocument


def parse_override(text: str) -> Override:
    """Parse `a.b=value`.

    Raises:
        ConfigError: no `=`, an empty part in the key, a row in brackets, no value or one that is not YAML.
    """
    name, separator, value = text.partition("=")
    parts = [part.strip() for part in name.split(".")]
    if not separator or not all(parts):
        raise ConfigError(
            f"--set {text}: is not KEY=VALUE",
            fix="write it so, for example --set gate.max_rate=0.001",
        )
    if "[" in name:
        plain = re.sub(r"\[\s*(\d+)\s*\]", r".\1", name).strip()
        raise ConfigError(
            "a row is written with a dot, not in brackets",
            fix=f"write {plain}=VALUE",
            key=name,
            where="--set",
        )
    if not value.strip():  # a variable that a script did not set: null would leave out a limit of the gate
        raise ConfigError(
            "no value stands behind the =",
            fix=f"write {name}=VALUE, or {name}=null for none",
            key=name,
            where="--set",
        )
    key = tuple(int(part) if part.isdecimal() else part for part in parts)
    return Override(key, parse_document(value, f"--set {dotted(key)}"))


def apply_overrides(data: dict[str, Any], overrides: Sequence[Override], top: Shape) -> dict[str, Any]:
    """The data of a file with overrides put in, in order; sections that the schema has are made.

    Raises:
        ConfigError: a key that the schema does not have, or a row that the list does not have.
    """
    changed: Any = data
    for override in overrides:
        changed = _Put(override, top).into(changed, top, 0)
    whole: dict[str, Any] = changed
    return whole


class _Put(NamedTuple):
    """Puts one override's value in its place, from the top down."""

    override: Override
    top: Shape

    def into(self, current: Any, shape: Shape, depth: int) -> Any:  # noqa: ANN401 - raw YAML
        """`current`, which stands at the first `depth` parts of the key, with the value put below it."""
        key = self.override.key
        if depth == len(key):
            return self.override.document.data
        part = key[depth]
        if isinstance(current, list) or (isinstance(part, int) and shape.takes("array")):
            return self._into_list(current, shape, depth)
        if shape.takes("array") and not shape.takes("object"):
            raise self._wrong(depth, "is a list", f"name a row, as in {dotted(key[:depth])}.0.{part}")
        section = self._section(current, shape, depth)
        below = shape.child(part)
        if below is None:
            hint = suggestion(str(part), key[:depth], self.top) or "correct or remove it"
            allowed = f"allowed: {', '.join(shape.keys)}" if shape.keys else "it holds one value, not keys"
            raise self._wrong(depth + 1, "unknown key", f"{hint} ({allowed})")
        return {**section, str(part): self.into(section.get(str(part)), below, depth + 1)}

    def _into_list(self, current: Any, shape: Shape, depth: int) -> list[Any]:  # noqa: ANN401
        part = self.override.key[depth]
        rows = current if isinstance(current, list) else [] if current is None else [current]
        if not isinstance(part, int):
            first = f"{dotted(self.override.key[:depth])}.0.{part}"
            raise self._wrong(depth, "is a list", f"name a row, as in {first}")
        if part > len(rows):
            raise self._wrong(
                depth + 1,
                f"its list has rows up to {len(rows) - 1}",
                f"use one of them, or {len(rows)} to add a row",
            )
        below = shape.child(part) or Shape(({},), shape.root)
        old = rows[part] if part < len(rows) else None
        return [*rows[:part], self.into(old, below, depth + 1), *rows[part + 1 :]]

    def _section(self, current: Any, shape: Shape, depth: int) -> dict[str, Any]:  # noqa: ANN401
        """The keys that stand here now; a bare path is `{path: ...}`."""
        if isinstance(current, dict):
            return current
        if current is None:
            return {}
        if isinstance(current, str) and "path" in shape.keys:
            return {"path": current}
        raise self._wrong(depth, f"is {current!r} in the file, not a section", "correct it there first")

    def _wrong(self, depth: int, what: str, fix: str) -> ConfigError:
        return ConfigError(what, fix=fix, key=dotted(self.override.key[:depth]), where="--set")
