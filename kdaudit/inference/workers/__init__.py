"""Worker processes: they hold the models, so that the parent stays small and survives them.

Written by hand beside the standard library's multiprocessing, whose forkserver also preloads and sees its
parent's end, but cannot do what is needed here. A child imports the caller's `__main__` again: a script that
calls kdaudit without an `if __name__` guard would run itself. There is one server in a process, shared with
whatever else the caller does with it, its preload fixed by who comes first; it takes its environment from
the caller's own, which is not ours to change. Its cause of death is unknown: a server that is killed gives
its children the exit code 255, and their output goes to the caller's. And its connections pickle.

`Worker` is the parent's end; `messages` is what goes over its pipes; `serving` is the worker's loop; a
`fork server` imports the heavy libraries once and forks the workers, each to its `place`.
"""

from kdaudit.inference.workers.place import Place
from kdaudit.inference.workers.worker import HoldsWorker, Process, Start, Worker, begin_worker

__all__ = ["HoldsWorker", "Place", "Process", "Start", "Worker", "begin_worker"]
