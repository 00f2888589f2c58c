"""Where a model's replicas run and share its work: `local` processes of this machine.

base.py    the protocol, which a cluster can serve too
local.py   worker processes of this machine
places.py  the GPUs or cores that each of them has
"""

from kdaudit.inference.executors.base import Executor, LoadedModel, ModelJob, Shard
from kdaudit.inference.executors.local import LocalExecutor
from kdaudit.inference.executors.places import check_replicas

__all__ = ["Executor", "LoadedModel", "LocalExecutor", "ModelJob", "Shard", "check_replicas"]
