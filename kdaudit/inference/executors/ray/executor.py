"""A model's actors: placed in the cluster, their files checked, the model loaded."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from kdaudit import __version__
from kdaudit.config.models import ModelConfig
from kdaudit.errors import EngineError, ModelError
from kdaudit.inference import explained
from kdaudit.inference.executors.base import LoadedModel, ModelJob
from kdaudit.inference.executors.local import LocalExecutor
from kdaudit.inference.executors.ray.actor import Replica, Wanted
from kdaudit.inference.executors.ray.answers import RESUME, Actor, get_each
from kdaudit.inference.executors.ray.joining import join
from kdaudit.inference.executors.ray.places import Plan, plan_replicas, rooms_of
from kdaudit.inference.executors.ray.replicas import RayReplicas
from kdaudit.inference.workers import Place
from kdaudit.models.resolving import local_fingerprint

_PLACE_SECONDS = 60.0
"""For nodes to have room: other work may hold them."""


class RayExecutor:
    """See `Executor`; a context manager that leaves the cluster at its end.

    Args:
        address: HOST:PORT of the cluster's head; auto: the cluster that this machine is part of. It is joined
            when the first model is loaded.
        workers: replicas of each model; None: as many as `plan_replicas` says.
        warn: told of actors that died.

    """

    def __init__(self, address: str, workers: int | None, warn: Callable[[str], None]) -> None:
        self._address = address
        self._workers = workers
        self._warn = warn
        self._joined = False

    @contextmanager
    def load(self, job: ModelJob) -> Iterator[LoadedModel]:
        """See `Executor.load`.

        Raises:
            UsageError: the cluster cannot be joined or has no room, or a node lacks the model.

        """
        with ExitStack() as stack:
            if job.options.engine == "endpoint":  # which needs no cluster
                yield stack.enter_context(LocalExecutor().load(job))
                return
            self._joined |= join(self._address)
            with explained(job.options.path, job.options.engine):
                model = self._loaded(job, _placed(self._plan(job), stack))
            yield model

    def places(self, folders: Sequence[Path], shards: int) -> list[Place]:
        """See `Executor.places`: the driver's machine may be in use by the cluster, so one process there."""
        del folders, shards
        return [Place()]

    def _plan(self, job: ModelJob) -> Plan:
        import ray

        together = job.options.tensor_parallel if job.options.engine == "vllm" else 1
        return plan_replicas(rooms_of(ray.nodes()), self._workers, together, job.shards)

    def _loaded(self, job: ModelJob, handles: Sequence[Any]) -> RayReplicas:
        """Check the model's files on each node, and load it."""
        wanted = _wanted(job)
        prepared = get_each([(one, one.prepare.remote(wanted, __version__)) for one in handles], self._warn)
        actors = [Actor(handle, about) for handle, about in prepared]
        _refuse_problems(wanted.path, actors)
        options = zip(actors, _options(job, actors), strict=True)
        loaded = get_each([(actor, actor.handle.load.remote(one)) for actor, one in options], self._warn)
        # All shards of a model must come from one engine: GPUs of another kind stay idle.
        kind = loaded[0][1]
        same = [actor for actor, one in loaded if one == kind]
        return RayReplicas(same, kind, job.options, self._warn)

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._joined:
            import ray

            ray.shutdown()


def _placed(plan: Plan, stack: ExitStack) -> list[Any]:
    """Actors, each in room that is reserved for it; they end with the stack.

    Raises:
        EngineError: no node had room.

    """
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    groups = [placement_group([plan.bundle], strategy="STRICT_PACK") for _ in range(plan.replicas)]
    for group in groups:
        stack.callback(_quietly, remove_placement_group, group)
    places = {group.ready(): group for group in groups}
    ready, _ = ray.wait([*places], num_returns=len(places), timeout=_PLACE_SECONDS)
    if not ready:
        raise EngineError(
            f"no node of the Ray cluster had room for a replica ({plan.bundle}) within "
            f"{_PLACE_SECONDS:.0f} s: other work holds them, see `ray status`; {RESUME}"
        )
    actors = []
    for one in ready:
        room = PlacementGroupSchedulingStrategy(places[one], placement_group_bundle_index=0)
        kind = ray.remote(Replica).options(
            num_cpus=plan.cpus, num_gpus=plan.gpus, scheduling_strategy=room, max_restarts=0
        )
        actors.append(kind.remote(plan.environment))
        stack.callback(_quietly, ray.kill, actors[-1])
    return actors


def _quietly(end: Callable[[Any], None], what: Any) -> None:  # noqa: ANN401 - Ray is untyped here
    with contextlib.suppress(Exception):  # the cluster may be gone, and ends all of a driver when it leaves
        end(what)


def _wanted(job: ModelJob) -> Wanted:
    path, trusted = job.options.path, job.options.trust_remote_code
    own = job.fingerprint or local_fingerprint(ModelConfig(path=path, trust_remote_code=trusted), "model")
    return Wanted(path, own, job.hub, trusted)


def _refuse_problems(path: str, actors: Sequence[Actor]) -> None:
    for actor in actors:
        if problem := actor.about.problem:
            raise ModelError(
                f"{path} cannot be loaded on {actor.about.node}: {problem}",
                fix="put the same folder there, under the same path, or name a hub id",
                key="compute.ray",
            )


def _options(job: ModelJob, actors: Sequence[Actor]) -> list[str]:
    """How each actor loads the model: all choose the same batch, whatever their nodes have free."""
    crowd = Counter(actor.about.node for actor in actors)
    same = job.options._replace(
        memory_share=job.options.memory_share / max(crowd.values()),
        free_memory=min(actor.about.free_memory for actor in actors),
    )
    return [json.dumps(same._replace(path=actor.about.folder)._asdict()) for actor in actors]
