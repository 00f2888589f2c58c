"""The executor that a configuration asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kdaudit.config.compute import ComputeConfig
from kdaudit.inference.executors.base import Executor
from kdaudit.inference.executors.local import LocalExecutor
from kdaudit.inference.executors.ray import RayExecutor


@contextmanager
def executor_for(compute: ComputeConfig, warn: Callable[[str], None]) -> Iterator[Executor]:
    """Replicas on this machine, or in a Ray cluster, which is left when the block ends.

    Args:
        compute: the section.
        warn: told of replicas that died where others do their work.

    """
    if compute.ray is None:
        yield LocalExecutor(compute.replicas)
        return
    with RayExecutor(compute.ray, compute.replicas, warn) as executor:
        yield executor
