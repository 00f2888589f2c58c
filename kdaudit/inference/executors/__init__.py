"""Where a model's replicas run and share its work: processes of this machine, or actors of a Ray cluster.

base.py      the protocol
local.py     worker processes of this machine
places.py    the GPUs or cores that each of them has
sharing.py   work shared out to processes as they are free
encoding.py  texts encoded by processes of other machines
ray/         actors of a cluster
choosing.py  which of both a configuration asks for
"""

from kdaudit.inference.executors.base import Executor, HostedModel, ModelJob, Replicas, Shard
from kdaudit.inference.executors.choosing import executor_for
from kdaudit.inference.executors.local import LocalExecutor
from kdaudit.inference.executors.places import check_replicas
from kdaudit.inference.executors.ray import check_ray
from kdaudit.inference.executors.sharing import share_out, wait_for

__all__ = [
    "Executor",
    "HostedModel",
    "LocalExecutor",
    "ModelJob",
    "Replicas",
    "Shard",
    "check_ray",
    "check_replicas",
    "executor_for",
    "share_out",
    "wait_for",
]
