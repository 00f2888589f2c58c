"""Where the replicas of a model run on this machine: each on GPUs, or on cores, of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from kdaudit.errors import UsageError
from kdaudit.inference.workers import Place

_KEY = "compute.workers"


def places_for(replicas: int | None, tensor_parallel: int, shards: int) -> list[Place]:
    """Places of the replicas of one model: no more than there are shards.

    Args:
        replicas: how many are asked for; None: one for each group of GPUs, and one on a CPU.
        tensor_parallel: GPUs that share a replica.
        shards: how many are to come.

    Raises:
        UsageError: the machine has no room for so many, see `check_replicas`.

    """
    check_replicas(replicas, tensor_parallel)
    groups = gpu_groups(tensor_parallel)
    count = min(len(groups) if replicas is None else replicas, shards)
    if count < 2:
        return [Place()]
    if groups:
        return [Place(gpus=tuple(group)) for group in groups[:count]]
    return [Place(cores=own) for own in core_groups(usable_cores(), count)]


def check_replicas(replicas: int | None, tensor_parallel: int) -> None:
    """Refuse more replicas than GPUs, or groups of them, or on a CPU cores.

    Raises:
        UsageError: two would share a GPU, whose memory each takes for itself, or a core.

    """
    if replicas is None or replicas == 1:
        return
    groups = len(gpu_groups(tensor_parallel))
    if not groups and _has_other_gpu():
        raise UsageError(
            f"asks for {replicas} replicas, which run on NVIDIA GPUs or CPU cores only; this machine has a "
            "GPU of another kind",
            fix="set it to auto",
            key=_KEY,
        )
    each = f" of {tensor_parallel} GPUs each" if tensor_parallel > 1 else ""
    if groups and replicas > groups:
        raise UsageError(
            f"asks for {replicas} replicas{each}, and the GPUs of this machine hold {groups}",
            fix=f"set it to {groups} or to auto",
            key=_KEY,
        )
    if not groups and replicas > (cores := len(usable_cores())):
        raise UsageError(
            f"asks for {replicas} replicas, and this process may use {cores} CPU core{'s'[: cores != 1]}",
            fix=f"set it to {cores} or fewer, or to auto",
            key=_KEY,
        )


def _has_other_gpu() -> bool:
    """Whether engines run on a GPU that replicas would have to share: Apple's, AMD's, or one through WSL."""
    return sys.platform == "darwin" or any(Path("/dev", name).exists() for name in ("kfd", "dxg"))


def gpu_groups(tensor_parallel: int) -> list[list[str]]:
    """NVIDIA GPUs that this process may use, in groups of so many; those that are left over stay idle."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        found = [path for path in Path("/dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
        gpus = [str(number) for number in range(len(found))]
    else:
        gpus = [one.strip() for one in named.split(",") if one.strip() not in ("", "-1")]
    whole = len(gpus) // tensor_parallel * tensor_parallel
    return [gpus[start : start + tensor_parallel] for start in range(0, whole, tensor_parallel)]


def usable_cores() -> list[int]:
    """Logical cores that this process may run on, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [*range(os.cpu_count() or 1)]


def core_groups(cores: Sequence[int], count: int) -> list[tuple[int, ...]]:
    """Equally many neighboring cores for each of `count`; those that are left over stay idle."""
    each = len(cores) // count
    return [tuple(cores[number * each : (number + 1) * each]) for number in range(count)]
