"""From a YAML file and `--set` to a checked, frozen configuration, and back.

Errors name the key by its full dotted path, and the file and line, or `--set`, where it was written. Relative
paths are taken from the file's folder, those of `--set` too.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from kdaudit.config.audit import AuditConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.paths import check_paths
from kdaudit.config.screen import ScreenConfig
from kdaudit.config.yaml.document import Key, YamlDocument, dotted, key_of, read_document
from kdaudit.config.yaml.messages import Problem, problems
from kdaudit.config.yaml.overrides import Override, apply_overrides, parse_override
from kdaudit.config.yaml.schema import JsonSchema, Shape, json_schema, shape_of
from kdaudit.errors import ConfigError, UsageError

__all__ = [
    "add_place",
    "audit_schema",
    "check_paths",
    "distill_schema",
    "dump_config",
    "load_audit",
    "load_config",
    "load_distill",
    "load_screen",
    "results_schema",
    "screen_schema",
]

ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_audit(path: Path, overrides: Sequence[str] = ()) -> AuditConfig:
    """Load audit.yaml; see `load_config`."""
    return load_config(path, overrides, AuditConfig)


def load_distill(path: Path, overrides: Sequence[str] = ()) -> DistillConfig:
    """Load distill.yaml; see `load_config`."""
    return load_config(path, overrides, DistillConfig)


def load_screen(path: Path, overrides: Sequence[str] = ()) -> ScreenConfig:
    """Load screen.yaml; see `load_config`."""
    return load_config(path, overrides, ScreenConfig)


def config_kind_of(path: Path) -> Literal["audit", "screen", "distill"]:
    """What a configuration file is meant as, by its content alone.

    A distill.yaml names `student` or `teacher` where the others name `models`. A key that only one of the
    other two has tells them apart; without one, an audit names students and a screening need not.

    Raises:
        ConfigError: the file cannot be read.

    """
    data = read_document(path).data
    keys = set(data) if isinstance(data, dict) else set()
    if "models" not in keys and keys & {"student", "teacher"}:
        return "distill"
    audit, screen = set(AuditConfig.model_fields), set(ScreenConfig.model_fields)
    if keys & (audit - screen):
        return "audit"
    if keys & (screen - audit):
        return "screen"
    models = data["models"] if "models" in keys else None
    whole = isinstance(models, dict) and {"teacher", "baseline"} <= set(models) and "students" not in models
    return "screen" if whole else "audit"


def load_config(path: Path, overrides: Sequence[str], model: type[ConfigT]) -> ConfigT:
    """Load a configuration file into `model`, with `KEY=VALUE` overrides put in.

    Raises:
        ConfigError: the file cannot be read, or keys or values are wrong; the problems are in the order of
            the file.
    """
    document = read_document(path)
    top = shape_of(model)
    sets = [parse_override(text) for text in overrides]
    data = apply_overrides(_keys_of(document, top), sets, top)
    origin = _Origin(document, sets)
    try:
        return model.model_validate(data, context={"folder": path.parent})
    except ValidationError as error:
        _refuse_another_kind(path, data, model)
        raise _together(problems(error, data, top, origin.written), origin) from None


def _refuse_another_kind(path: Path, data: dict[str, Any], model: type[BaseModel]) -> None:
    """A file that was written for another command is wrong in many keys: it is told what it is instead."""
    kind = config_kind_of(path)
    if "models" in data if model is DistillConfig else kind == "distill" or _is_the_others(data, model):
        command = "run" if kind == "audit" else kind
        raise ConfigError(
            f"{path}: is meant for `kdaudit {command}` by its keys", fix="give it to that command"
        )


def _is_the_others(data: dict[str, Any], model: type[BaseModel]) -> bool:
    """Whether an audit is read as a screening or the other way round: one wrong key alone is not enough."""
    other = ScreenConfig if model is AuditConfig else AuditConfig
    own, others = set(model.model_fields), set(other.model_fields)
    models = data.get("models")
    names_students = isinstance(models, dict) and "students" in models
    return (
        bool(data.keys() & (others - own))
        and not data.keys() & (own - others)
        and (names_students is (other is AuditConfig))
    )


def add_place(error: UsageError, path: Path, overrides: Sequence[str]) -> None:
    """Put the file and line, or `--set`, of each problem's key into an error that was found after loading.

    Problems without a key, with a place, or whose key is written nowhere stay as they are.
    """
    try:
        document = read_document(path)
        origin = _Origin(document, [parse_override(text) for text in overrides])
    except ConfigError:
        return
    for problem in (error, *error.more):
        if problem.where is None and problem.key is not None:
            problem.where = origin.place(key_of(problem.key))


def _keys_of(document: YamlDocument, top: Shape) -> dict[str, Any]:
    """The file's keys, which must be the outermost thing in it."""
    data = document.data
    if isinstance(data, dict):
        return data
    needs = ", ".join(top.required or top.keys)
    if data is None:
        raise ConfigError("is empty", fix=f"give it the keys {needs}", where=document.label)
    kind = "a list" if isinstance(data, list) else "a single value"
    raise ConfigError(
        f"holds {kind} instead of keys",
        fix=f"begin with {needs}, each as `key: value`",
        where=document.label,
    )


class _Origin:
    """Where each key's value came from: the file, or the last `--set` that put it there."""

    def __init__(self, document: YamlDocument, sets: Sequence[Override]) -> None:
        self._document = document
        self._sets = sets

    def _set(self, key: Key) -> Override | None:
        matching = [override for override in self._sets if key[: len(override.key)] == override.key]
        return matching[-1] if matching else None

    def written(self, key: Key) -> str | None:
        override = self._set(key)
        if override is None:
            return self._document.written(key)
        return override.document.written(key[len(override.key) :])

    def line(self, key: Key) -> int:
        """For sorting: 0 where there is none."""
        return self._document.line(key) or 0

    def place(self, key: Key) -> str | None:
        """Where a key or the nearest one above it was written: `audit.yaml:12`, `--set`, or None."""
        if self._set(key) is not None:
            return "--set"
        line = self._document.line(key)
        return None if line is None else f"{self._document.label}:{line}"

    @property
    def label(self) -> str:
        """The file as the user named it."""
        return self._document.label


def _together(found: Sequence[Problem], origin: _Origin) -> ConfigError:
    """One error of all problems, in the order of the file."""
    first, *more = (
        ConfigError(
            problem.what,
            fix=problem.fix,
            key=dotted(problem.key) or None,
            where=origin.place(problem.key) or origin.label,
        )
        for problem in sorted(found, key=lambda problem: origin.line(problem.key))
    )
    first.more = tuple(more)
    return first


class _Representer(SafeRepresenter):
    """Quotes a next-line character, which ruamel.yaml leaves bare though a reader takes it for a space."""

    def represent_text(self, text: str) -> ScalarNode:
        style = '"' if "\x85" in text else None
        node: ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", text, style=style)
        return node


_Representer.add_representer(str, _Representer.represent_text)


def dump_config(config: BaseModel) -> str:
    """The configuration as YAML, every key written out; loading it gives an equal configuration."""
    return dump_yaml(config.model_dump(mode="json"))


def dump_yaml(values: dict[str, Any]) -> str:
    """JSON values as YAML that is read back equal, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # declared as None alone
    yaml.width = 1 << 20  # never fold a long text
    text = StringIO()
    yaml.dump(values, text)
    return text.getvalue()


def audit_schema() -> JsonSchema:
    """JSON Schema of audit.yaml as users may write it."""
    return json_schema(AuditConfig, "validation")


def distill_schema() -> JsonSchema:
    """JSON Schema of distill.yaml as users may write it."""
    return json_schema(DistillConfig, "validation")


def screen_schema() -> JsonSchema:
    """JSON Schema of screen.yaml as users may write it."""
    return json_schema(ScreenConfig, "validation")


def results_schema() -> JsonSchema:
    """JSON Schema of results.json."""
    # Read here: only `kdaudit schema results` needs it.
    from kdaudit.schemas.results import AuditResults

    return json_schema(AuditResults, "serialization")
