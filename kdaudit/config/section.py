"""What sections of a configuration share: their base class, and kinds of values."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
)

from kdaudit.config.yaml.misfit import MisfitError

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE | re.ASCII)


def _portable(name: str) -> str:
    """Refuse a folder's name that some systems keep for a device or cut short: runs are copied to others."""
    if _DEVICE.fullmatch(name) or name.endswith("."):
        raise MisfitError(f"{name!r} cannot name a folder on Windows", fix="choose another name")
    return name


Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN), AfterValidator(_portable)]
"""A name that becomes a folder: letters, digits, dot, underscore and dash, at most 64."""

DType = Literal["auto", "float32", "bfloat16", "float16"]
EngineName = Literal["vllm", "transformers"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """Base of every configuration section: unknown keys are errors, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        strict=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )


def path_alone(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let a bare string stand for `{path: ...}`."""
    return {"path": value} if isinstance(value, str) else value


def one_or_many(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Let one baseline stand for a list of one."""
    return value if value is None or isinstance(value, list | tuple) else [value]
