"""The section of compute: how many replicas of a model share its work."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, PositiveInt

from kdaudit.config.section import Section
from kdaudit.config.yaml.misfit import MisfitError


def _number_or_auto(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    if value != "auto" and not (type(value) is int and value > 0):
        raise MisfitError(f"{value!r} is not a number of replicas", fix="give 1 or more, or auto")
    return value


def _address(value: str) -> str:
    """Refuse what is not the address of a cluster's head; Ray Client's (ray://) has not been tried."""
    host, _, port = value.rpartition(":")
    if value != "auto" and not (host and "/" not in host and port.isascii() and port.isdigit()):
        raise MisfitError(f"{value!r} is not the address of a Ray cluster", fix="give HOST:PORT, or auto")
    return value


class ComputeConfig(Section):
    """Where models run."""

    workers: Annotated[Literal["auto"] | PositiveInt, BeforeValidator(_number_or_auto)] = "auto"
    """Replicas of each model that share its extraction and scoring, and of teacher and baseline that share
    the predictor's features, each in a process of its own; auto: one for each GPU, or tensor_parallel group
    of GPUs, and one on a CPU."""

    ray: Annotated[str, AfterValidator(_address)] | None = None
    """A Ray cluster whose nodes hold the replicas: HOST:PORT of its head, or auto for the one that this
    machine is part of; null: this machine alone. In a cluster workers auto means one replica for each GPU, or
    tensor_parallel group of GPUs, and without GPUs one for each node."""

    @property
    def replicas(self) -> int | None:
        """How many are asked for; None leaves it to the machine."""
        return None if self.workers == "auto" else self.workers
