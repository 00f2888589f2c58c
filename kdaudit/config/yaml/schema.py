"""What users may write, as JSON Schema, and questions asked of it.

The schema is made from the pydantic models, in the form that files take: where a bare string stands for
`{path: ...}` or one entry for a list, it says so. Error messages and `--set` read it to know which keys
there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel

from kdaudit.config.yaml.document import Key, dotted

JsonSchema = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(model: type[BaseModel], mode: Literal["validation", "serialization"]) -> JsonSchema:
    """The JSON Schema of what is read into (`validation`) or written from (`serialization`) a model."""
    return {"$schema": DIALECT, **model.model_json_schema(mode=mode)}


class Shape(NamedTuple):
    """What may stand at one place of a configuration: any of `options`, whose references are in `root`."""

    options: tuple[JsonSchema, ...]
    root: JsonSchema

    @property
    def keys(self) -> list[str]:
        """Names of the keys that may stand here, in the order of the schema; empty if none may."""
        return list(dict.fromkeys(name for option in self.options for name in option.get("properties", ())))

    @property
    def required(self) -> list[str]:
        """Names of the keys that must stand here."""
        return [name for option in self.options for name in option.get("required", ())]

    @property
    def choices(self) -> list[str]:
        """The texts that may stand here, where the schema lists them."""
        listed = [
            option.get("enum", [option["const"]] if "const" in option else []) for option in self.options
        ]
        return [str(value) for values in listed for value in values if value is not None]

    def fitting(self, section: object) -> Shape:
        """The options that a section, as it was written, is meant as; all if that cannot be told.

        An option is out if a key of it that has one fixed value has another in the section, or if the
        section has none of the keys that it requires.
        """
        if not isinstance(section, dict):
            return self
        fit = tuple(option for option in self.options if _fits(option, section))
        return Shape(fit, self.root) if fit else self

    def holding(self, name: str) -> Shape:
        """The options that have a key of this name."""
        return Shape(
            tuple(option for option in self.options if name in option.get("properties", ())), self.root
        )

    @property
    def marks(self) -> str:
        """What tells these sections from others: `method: soft`, or the key that each requires first."""
        fixed = [[f"{name}: {value}" for name, value in _fixed(option)] for option in self.options]
        told = [one or option.get("required", []) for one, option in zip(fixed, self.options, strict=True)]
        return " or ".join(names[0] for names in told if names)

    def takes(self, kind: str) -> bool:
        """Whether a value of this JSON type (`array`, `object`, `string`, ...) may stand here."""
        return any(option.get("type") == kind for option in self.options)

    @property
    def takes_free_keys(self) -> bool:
        """Whether keys may stand here beside those that have names."""
        return any(option.get("additionalProperties") for option in self.options)

    def child(self, part: str | int) -> Shape | None:
        """What may stand below this place, under a key or in a row; None if nothing may."""
        found = [_below(option, part) for option in self.options]
        options = [option for below in found if below is not None for option in _flat(below, self.root)]
        return Shape(tuple(options), self.root) if options else None

    def at(self, key: Key) -> Shape | None:
        """What may stand at `key` below this place; None if nothing may."""
        shape: Shape | None = self
        for part in key:
            shape = shape.child(part) if shape else None
        return shape


def shape_of(model: type[BaseModel]) -> Shape:
    """The shape of a whole configuration file."""
    root = json_schema(model, "validation")
    return Shape(tuple(_flat(root, root)), root)


def _flat(schema: JsonSchema, root: JsonSchema) -> Iterator[JsonSchema]:
    """The alternatives of a schema, with references followed."""
    if "$ref" in schema:
        yield from _flat(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from _flat(choice, root)
    if not {"$ref", "anyOf", "oneOf"} & schema.keys():
        yield schema


def _fits(option: JsonSchema, section: dict[Any, Any]) -> bool:
    if any(name in section and section[name] != value for name, value in _fixed(option)):
        return False
    required = option.get("required", [])
    return "properties" in option and (not required or any(name in section for name in required))


def _fixed(option: JsonSchema) -> list[tuple[str, Any]]:
    """The keys of an option that have one fixed value."""
    properties = option.get("properties", {})
    return [(name, field["const"]) for name, field in properties.items() if "const" in field]


def _below(option: JsonSchema, part: str | int) -> JsonSchema | None:
    if not option:  # anything may stand here, and so below it
        return option
    if isinstance(part, int):
        items: JsonSchema | None = option.get("items")
        return items
    found = option.get("properties", {}).get(part, option.get("additionalProperties"))
    if found is True:  # any value may stand there
        return {}
    return found if isinstance(found, dict) else None


def suggestion(name: str, key: Key, top: Shape, section: Shape | None = None) -> str | None:
    """`did you mean ...?` for an unknown `name` in section `key`; None if no key is like it.

    A key of the section that is spelled nearly so comes first; else the places elsewhere that have
    exactly this key, if they are few. `section` may tell the section's shape more closely than `top` does.
    """
    section = section or top.at(key)
    near = nearest(name, section.keys if section else [])
    if near:
        return f"did you mean {near}?"
    places = [dotted(place) for place in _places(name, top, ())]
    return f"did you mean {' or '.join(places)}?" if 0 < len(places) <= 2 else None


def nearest(text: str, names: list[str]) -> str | None:
    """The name most like `text`, upper and lower case and dashes not counted; None if none is near."""
    plain = {name.lower().replace("-", "_"): name for name in names}
    near = get_close_matches(text.lower().replace("-", "_"), list(plain), n=1, cutoff=0.6)
    return plain[near[0]] if near else None


def _places(name: str, shape: Shape, key: Key) -> Iterator[Key]:
    for known in shape.keys:
        if known == name:
            yield (*key, known)
        below = shape.child(known)
        if below is not None and len(key) < 3:  # rows are left out: a key of students.0 is too special
            yield from _places(name, below, (*key, known))
