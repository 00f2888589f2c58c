"""Where a model's replicas run and share its work: `local` processes of this machine.

base.py   the protocol, which another place (a cluster) can serve too
local.py  worker processes: one for each GPU, or group of GPUs that shares the model
"""

from kdaudit.inference.executors.base import Executor, LoadedModel, ModelJob, Shard
from kdaudit.inference.executors.local import LocalExecutor

__all__ = ["Executor", "LoadedModel", "LocalExecutor", "ModelJob", "Shard"]
