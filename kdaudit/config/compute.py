"""The section of compute: how many replicas of a model share its work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PositiveInt

from kdaudit.config.section import Section
from kdaudit.config.yaml.misfit import MisfitError


def _number_or_auto(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    if value != "auto" and not (type(value) is int and value > 0):
        raise MisfitError(f"{value!r} is not a number of replicas", fix="give 1 or more, or auto")
    return value


class ComputeConfig(Section):
    """Where models run."""

    workers: Annotated[Literal["auto"] | PositiveInt, BeforeValidator(_number_or_auto)] = "auto"
    """Replicas of each model that share its extraction, each in a process of its own; auto: one for each GPU,
    or tensor_parallel group of GPUs, and one on a CPU."""

    @property
    def replicas(self) -> int | None:
        """How many are asked for; None leaves it to the machine."""
        return None if self.workers == "auto" else self.workers
