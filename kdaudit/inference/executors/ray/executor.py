"""The actors for a model or two: placed in the cluster, the models' files checked on each node."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from kdaudit import __version__
from kdaudit.config.models import ModelConfig
from kdaudit.errors import EngineError, ModelError
from kdaudit.inference.executors.base import Executor, HostedModel, Hosts
from kdaudit.inference.executors.encoding import encoding_elsewhere
from kdaudit.inference.executors.places import usable_cores
from kdaudit.inference.executors.ray.actor import Replica
from kdaudit.inference.executors.ray.answers import Actor, get_each
from kdaudit.inference.executors.ray.joining import join
from kdaudit.inference.executors.ray.places import Plan, Room, plan_encoders, plan_replicas, rooms_of
from kdaudit.inference.executors.ray.process import RayProcess
from kdaudit.inference.executors.sharing import RESUME
from kdaudit.inference.workers import Start
from kdaudit.models.resolving import local_fingerprint
from kdaudit.models.tokenizer import Encode

_PLACE_SECONDS = 60.0
"""For nodes to have room: other work may hold them."""
_ENCODER_SECONDS = 15.0
"""The same for encoders, whose work the driver can do."""


class RayExecutor(Executor):
    """See `Executor`; a context manager that leaves the cluster at its end.

    Args:
        address: HOST:PORT of the cluster's head; auto: the cluster that this machine is part of. It is joined
            when the first model is loaded.
        workers: replicas of each model; None: as many as `plan_replicas` says.
        warn: told of actors that died.

    """

    def __init__(self, address: str, workers: int | None, warn: Callable[[str], None]) -> None:
        super().__init__(warn)
        self._address = address
        self._workers = workers
        self._joined = False

    @contextmanager
    def hosts(self, models: Sequence[HostedModel], shards: int, tensor_parallel: int = 1) -> Iterator[Hosts]:
        """See `Executor.hosts`.

        Raises:
            UsageError: the cluster cannot be joined or has no room, or a node lacks a model.
            EngineError: no node has room, or all actors died.

        """
        rooms = self._rooms()
        wanted = [_with_fingerprint(model) for model in models]
        with ExitStack() as stack:
            plan = plan_replicas(rooms, self._workers, tensor_parallel, shards)
            actors = self._actors(_placed(plan, stack), wanted)
            crowd = Counter(actor.about.node for actor in actors)
            yield Hosts(
                [partial(RayProcess, actor) for actor in actors],
                # All choose the same batch, whatever their nodes have free.
                1 / max(crowd.values()),
                min(actor.about.free_memory for actor in actors),
            )

    def encoding(self, tokenizer: Any) -> Encode:  # noqa: ANN401 - `tokenizers` is untyped
        """See `Executor.encoding`: by nodes of the cluster, where there is much to do."""
        return encoding_elsewhere(tokenizer, self._encoders, self.warn)

    @contextmanager
    def _encoders(self) -> Iterator[Sequence[Start]]:
        """Make room for processes that hold no model, or none; see `encoding_elsewhere`.

        Raises:
            UsageError: the cluster cannot be joined.
            EngineError: no node has room, or all actors died.

        """
        plan = plan_encoders(self._rooms(), self._workers, len(usable_cores()))
        if plan is None:
            yield []
            return
        with ExitStack() as stack:
            threads = {"RAYON_NUM_THREADS": str(plan.cpus), "TOKENIZERS_PARALLELISM": "true"}
            actors = self._actors(_placed(plan, stack, threads, _ENCODER_SECONDS), [])
            yield [partial(RayProcess, actor) for actor in actors]

    def _rooms(self) -> list[Room]:
        """The nodes of the cluster, which is joined."""
        self._joined |= join(self._address)
        import ray

        return rooms_of(ray.nodes())

    def _actors(self, handles: Sequence[Any], models: Sequence[HostedModel]) -> list[Actor]:
        """Those that live and have the models' files."""
        begun = [(one, one.prepare.remote(models, __version__)) for one in handles]
        actors = [Actor(handle, about) for handle, about in get_each(begun, self.warn)]
        _refuse_problems(actors)
        return actors

    def __enter__(self) -> RayExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._joined:
            import ray

            ray.shutdown()


def _placed(
    plan: Plan,
    stack: ExitStack,
    more: Mapping[str, str] = MappingProxyType({}),
    seconds: float = _PLACE_SECONDS,
) -> list[Any]:
    """Actors, each in room that is reserved for it; they end with the stack.

    Args:
        plan: how many, and their room.
        stack: ends them.
        more: variables of their environment.
        seconds: for nodes to have room.

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
    ready, _ = ray.wait([*places], num_returns=len(places), timeout=seconds)
    if not ready:
        raise EngineError(
            f"no node of the Ray cluster had room for a replica ({plan.bundle}) within "
            f"{seconds:.0f} s: other work holds them, see `ray status`",
            RESUME,
        )
    actors = []
    for one in ready:
        room = PlacementGroupSchedulingStrategy(places[one], placement_group_bundle_index=0)
        kind = ray.remote(Replica).options(
            num_cpus=plan.cpus, num_gpus=plan.gpus, scheduling_strategy=room, max_restarts=0
        )
        actors.append(kind.remote({**plan.environment, **more}))
        stack.callback(_quietly, ray.kill, actors[-1])
    return actors


def _quietly(end: Callable[[Any], None], what: Any) -> None:  # noqa: ANN401 - Ray is untyped here
    with contextlib.suppress(Exception):  # the cluster may be gone, and ends all of a driver when it leaves
        end(what)


def _with_fingerprint(model: HostedModel) -> HostedModel:
    own = ModelConfig(path=str(model.path), trust_remote_code=model.trust_remote_code)
    return model._replace(fingerprint=model.fingerprint or local_fingerprint(own, "model"))


def _refuse_problems(actors: Sequence[Actor]) -> None:
    for actor in actors:
        for path, problem in actor.about.problems.items():
            raise ModelError(
                f"{path} cannot be loaded on {actor.about.node}: {problem}",
                fix="put the same folder there, under the same path, or name a hub id",
                key="compute.ray",
            )
