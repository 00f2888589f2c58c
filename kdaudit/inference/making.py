"""Models that are made in a worker process: loaded, changed and saved, whose memory is free afterwards."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kdaudit.errors import StorageError, reason
from kdaudit.inference.remote import PRELOAD, explained
from kdaudit.inference.workers import Worker


def make_in_worker(service: str, options: dict[str, Any], path: str) -> None:
    """Let a service make a model, which it does when it is built.

    Args:
        service: "module:Class", of which `describe` gives what `saved` says.
        options: JSON values for it; `folder` is where it writes.
        path: the model that is changed, for messages.

    Raises:
        EngineError: transformers or PEFT failed.
        StorageError: the model could not be written.

    """
    with explained(path, "transformers"), Worker(service, options, PRELOAD["transformers"]) as worker:
        trouble = worker.ready
    if trouble:
        raise StorageError(
            f"{options['folder']}: {path} could not be written there as a whole model ({trouble}); free "
            "space, then run again"
        )


def saved(write: Callable[[], None]) -> str:
    """Why a model could not be written; empty if it was."""
    from safetensors import SafetensorError

    try:
        write()
    except (OSError, SafetensorError) as error:
        return reason(error)
    return ""
