"""Worker processes: they hold the models, so that the parent stays small and survives them.

`Worker` is the parent's end; `messages` is what goes over its pipes; `serving` is the worker's loop; a
`fork server` imports the heavy libraries once and forks the workers.
"""

from kdaudit.inference.workers.worker import Worker

__all__ = ["Worker"]
