"""Processes that hold models in the actors of a Ray cluster.

    joining.py   whether a cluster can be reached, and becoming its driver
    places.py    how many replicas it holds, and what each asks of its node
    actor.py     what runs in an actor
    answers.py   what actors answer, or that they are gone
    process.py   a service in an actor, called as one in a worker process is
    executor.py  the actors for a model or two: placed and checked

The driver is the only writer: shards go to the actors, and results come back, through Ray's object store. An
actor that dies, alone or with its node, is not replaced: its shards are done again by the others.

Ray itself is imported by the functions that need it, once a cluster is asked for.
"""

from kdaudit.inference.executors.ray.executor import RayExecutor
from kdaudit.inference.executors.ray.joining import check_ray

__all__ = ["RayExecutor", "check_ray"]
