"""What runs in a Ray actor: a service that holds models, in the actor's own process.

Ray pickles what goes between driver and actors, which are processes of one cluster and one user; models are
read from safetensors as everywhere.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kdaudit import NO_USAGE_REPORTS, __version__
from kdaudit.config.models import ModelConfig
from kdaudit.errors import KdauditError, ModelError, UsageError
from kdaudit.inference.executors.base import HostedModel
from kdaudit.inference.workers.messages import Array
from kdaudit.inference.workers.serving import answered
from kdaudit.models.fetching import find_folder
from kdaudit.models.resolving import local_fingerprint


class Prepared(NamedTuple):
    """An actor that has looked for its models."""

    node: str
    pid: int
    free_memory: int
    """Bytes, before anything is loaded."""
    problems: dict[str, str]
    """Why it cannot hold a model, by the model's folder on the driver's node; empty if it can hold all."""


class Answer(NamedTuple):
    """What a method gave."""

    arrays: list[Array]
    value: Any
    """What it gave in place of arrays: plain JSON."""
    seconds: float
    """Time inside the actor."""


class Replica:
    """A replica; its methods are called by the driver, one at a time.

    Args:
        environment: variables that libraries read when they are imported.

    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        os.environ.update({**NO_USAGE_REPORTS, "TOKENIZERS_PARALLELISM": "false", **environment})
        os.dup2(2, 1)  # Ray prints the actor's output on the driver's: standard output is for results
        self._service: Any = None
        self._folders: dict[str, str] = {}

    def prepare(self, models: Sequence[HostedModel], version: str) -> Prepared:
        """Check that the models' files and this kdaudit are the driver's; models of the hub are fetched."""
        import psutil

        problems = {}
        for model in models:
            try:
                self._folders[str(model.path)] = _folder_of(model)
            except KdauditError as error:
                problem = error.what if isinstance(error, UsageError) else type(error).__name__
                problems[str(model.path)] = problem
            if version != __version__:
                problems[str(model.path)] = f"kdaudit there is {__version__}, and {version} here"
        _go_offline()
        return Prepared(socket.gethostname(), os.getpid(), psutil.virtual_memory().available, problems)

    def load(self, service: str, options: str) -> Answer:
        """Build a service, see `serve`; the options are JSON, as for any worker."""
        began = time.monotonic()
        module, _, name = service.partition(":")
        self._service = getattr(importlib.import_module(module), name)(self._values(options))
        return Answer([], self._service.describe(), time.monotonic() - began)

    def call(self, method: str, values: str, *arrays: Array) -> Answer:
        """Call a method of the service with arrays and JSON values."""
        began = time.monotonic()
        own = [np.array(array) for array in arrays]  # what lies in the object store cannot be written to
        found = getattr(self._service, method)(*own, **self._values(values))
        value, given = answered(found)
        return Answer(given, value, time.monotonic() - began)

    def _values(self, text: str) -> dict[str, Any]:
        """JSON values, with the models' folders on this node."""
        return {
            key: self._folders.get(value, value) if isinstance(value, str) else value
            for key, value in json.loads(text).items()
        }


def _folder_of(wanted: HostedModel) -> str:
    """Where the model lies on this node.

    Raises:
        ModelError: it is not there, or other files are.

    """
    local = ModelConfig(path=str(wanted.path), trust_remote_code=wanted.trust_remote_code)
    try:
        _check(local, wanted)
    except ModelError:
        if wanted.hub is None:
            raise
        path, revision = wanted.hub
        fetched = local.model_copy(update={"path": path, "revision": revision})
        local = local.model_copy(update={"path": str(find_folder(fetched, "model"))})
        _check(local, wanted)
    return local.path


def _check(model: ModelConfig, wanted: HostedModel) -> None:
    if local_fingerprint(model, "model") != wanted.fingerprint:
        raise ModelError(f"{model.path} holds another model there than here", fix="copy it from here")


def _go_offline() -> None:
    """From here on models are local folders: libraries have nothing to ask the network for."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
