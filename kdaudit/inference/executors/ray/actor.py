"""What runs in a Ray actor: one replica of a model, in the actor's own process.

Ray pickles what goes between driver and actors, which are processes of one cluster and one user; models are
read from safetensors as everywhere.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from kdaudit import NO_USAGE_REPORTS, __version__
from kdaudit.config.models import ModelConfig
from kdaudit.errors import KdauditError, ModelError, UsageError
from kdaudit.inference.base import Loaded
from kdaudit.inference.workers.messages import Array
from kdaudit.models.fetching import find_folder
from kdaudit.models.resolving import local_fingerprint


class Wanted(NamedTuple):
    """A model, as every node must have it."""

    path: str
    """Its folder on the driver's node, where other nodes should have it too."""
    fingerprint: str
    """See `ResolvedModel.fingerprint`."""
    hub: tuple[str, str] | None
    """Its hub id and commit, so that nodes without the folder can fetch it."""
    trust_remote_code: bool


class Prepared(NamedTuple):
    """An actor that could load the model."""

    node: str
    pid: int
    folder: str
    """Where the model lies on its node."""
    free_memory: int
    """Bytes, before anything is loaded."""
    problem: str
    """Why it cannot; empty if it can."""


class Answer(NamedTuple):
    """What a method gave."""

    arrays: list[Array]
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

    def prepare(self, wanted: Wanted, version: str) -> Prepared:
        """Check that the model's files and this kdaudit are the driver's; models of the hub are fetched."""
        import psutil

        node, problem, folder = socket.gethostname(), "", wanted.path
        try:
            folder = _folder_of(wanted)
        except KdauditError as error:
            problem = error.what if isinstance(error, UsageError) else type(error).__name__
        if version != __version__:
            problem = f"kdaudit there is {__version__}, and {version} here"
        _go_offline()
        return Prepared(node, os.getpid(), folder, psutil.virtual_memory().available, problem)

    def load(self, options: str) -> Loaded:
        """Load the model, see `EngineService`; the options are JSON, as for any worker."""
        from kdaudit.inference.service import EngineService

        self._service = EngineService(json.loads(options))
        return self._service.describe()  # type: ignore[no-any-return]

    def call(self, method: str, arrays: tuple[Array, ...], values: str) -> Answer:
        """Call a method of `EngineService` with arrays and JSON values."""
        began = time.monotonic()
        own = [np.array(array) for array in arrays]  # what lies in the object store cannot be written to
        found = getattr(self._service, method)(*own, **json.loads(values))
        return Answer([found] if isinstance(found, np.ndarray) else list(found), time.monotonic() - began)


def _folder_of(wanted: Wanted) -> str:
    """Where the model lies on this node.

    Raises:
        ModelError: it is not there, or other files are.

    """
    local = ModelConfig(path=wanted.path, trust_remote_code=wanted.trust_remote_code)
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


def _check(model: ModelConfig, wanted: Wanted) -> None:
    if local_fingerprint(model, "model") != wanted.fingerprint:
        raise ModelError(f"{model.path} holds another model there than here", fix="copy it from here")


def _go_offline() -> None:
    """From here on models are local folders: libraries have nothing to ask the network for."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
