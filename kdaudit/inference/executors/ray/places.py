"""How many replicas of a model a Ray cluster holds, and what each of them asks of its node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kdaudit.errors import UsageError

_ENCODER_CORES = 4
"""Of a process that encodes texts: more are of less use, as what it gives is made by one."""
_ENCODING_CORES = 16
"""Of all of them: to cut and write what more of them encode takes longer than to encode it."""


class Room(NamedTuple):
    """What a node has."""

    cpus: int
    gpus: int


class Plan(NamedTuple):
    """Replicas that are alike."""

    replicas: int
    cpus: int
    """Cores of each."""
    gpus: int
    """GPUs of each, all on one node."""

    @property
    def bundle(self) -> dict[str, float]:
        """What each reserves, in Ray's terms."""
        asked = {"CPU": float(self.cpus), "GPU": float(self.gpus)}
        return {name: amount for name, amount in asked.items() if amount}

    @property
    def environment(self) -> dict[str, str]:
        """Variables that libraries read when an actor imports them."""
        if self.gpus:  # which Ray names in CUDA_VISIBLE_DEVICES
            return {}
        return {"OMP_NUM_THREADS": str(self.cpus), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def rooms_of(nodes: Sequence[Mapping[str, object]]) -> list[Room]:
    """What the live nodes have, of what `ray.nodes()` gives."""
    found = [node["Resources"] for node in nodes if node["Alive"]]
    return [Room(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in found if isinstance(one, Mapping)]


def plan_replicas(rooms: Sequence[Room], replicas: int | None, tensor_parallel: int, shards: int) -> Plan:
    """Share out a cluster: its GPUs if it has any, else its cores.

    Args:
        rooms: its nodes.
        replicas: how many are asked for; None: one for each GPU, or group of GPUs; without GPUs one for each
            node.
        tensor_parallel: GPUs that share a replica.
        shards: how many are to come: more replicas are of no use.

    Raises:
        UsageError: the cluster has no room for so many.

    """
    on_gpus = any(room.gpus for room in rooms)
    each = tensor_parallel if on_gpus else 0
    most = sum(room.gpus // each for room in rooms) if on_gpus else sum(room.cpus for room in rooms)
    nodes = [room for room in rooms if room.cpus]
    wanted = replicas or (most if on_gpus else len(nodes))
    if not 0 < wanted <= most:
        raise UsageError(_lack(wanted, most, each), fix=_remedy(most), key="compute.workers")
    count = min(wanted, shards)
    return Plan(count, 1 if on_gpus else cores_each(nodes, count), each)


def plan_encoders(rooms: Sequence[Room], workers: int | None, own_cores: int) -> Plan | None:
    """Processes that encode texts, on cores alone; None where the driver is faster without them.

    Args:
        rooms: the cluster's nodes.
        workers: the most of them; None: as many as are of use.
        own_cores: what the driver would encode with.

    """

    def sharing(each: int) -> Plan:
        most = min(sum(room.cpus // each for room in rooms), -(-_ENCODING_CORES // each))
        return Plan(min(most, workers or most), each, 0)

    plans = map(sharing, range(1, _ENCODER_CORES + 1))
    best = max(plans, key=lambda plan: (min(plan.replicas * plan.cpus, _ENCODING_CORES), plan.cpus))
    return best if best.replicas * best.cpus >= min(own_cores, _ENCODING_CORES) else None


def cores_each(rooms: Sequence[Room], count: int) -> int:
    """The most cores that each of `count` replicas can have, each on one node."""
    most = max(room.cpus for room in rooms)
    return next(
        each for each in range(most, 0, -1) if sum(room.cpus // each for room in rooms) >= count or each == 1
    )


def _lack(wanted: int, most: int, each: int) -> str:
    what = f"asks for {wanted} replicas" if wanted else "has no room"
    of = f" of {each} GPUs each" if each > 1 else ""
    return f"{what}{of}, and the Ray cluster holds {most}"


def _remedy(most: int) -> str:
    return (
        f"set it to {most} or fewer, or to auto" if most else "add nodes, or lower extraction.tensor_parallel"
    )
