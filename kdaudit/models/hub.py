"""A bound of ours on every call of the hub: its client waits for ever for a hub that says nothing."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as StillWaiting
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import TypeVar

from kdaudit.errors import RunError

T = TypeVar("T")

LOOKUP_SECONDS = 30.0
"""For an answer of a few kilobytes."""
LISTING_SECONDS = 120.0
"""For a dataset's files to be listed and its headers to be read."""
UPLOAD_SECONDS = 90.0
"""For a card and a report, a few megabytes."""


def within(
    seconds: float, call: Callable[[], T], what: str, *, progress: Callable[[], object] | None = None
) -> T:
    """What a call of the hub's client returns or raises, if it ends in time.

    A call that does not is left behind on a thread that keeps no process alive.

    Args:
        seconds: how long it may take; with `progress`, how long nothing may come.
        call: calls the client.
        what: how the message begins, as in `models.teacher.path: org/name`.
        progress: gives what changes while data come in.

    Raises:
        RunError: the hub said nothing for so long.

    """
    from huggingface_hub import constants

    answer: Future[T] = Future()
    Thread(target=_answer, args=(answer, call), daemon=True, name="hub").start()
    seen = progress() if progress else None
    while True:
        try:
            return answer.result(seconds)
        except StillWaiting as error:
            if answer.done():  # just now; or the client's own time is up, which is the same error
                return answer.result()
            now = progress() if progress else seen
            if now == seen:
                raise RunError(
                    f"{what}: the hub at {constants.ENDPOINT} did not answer within {seconds:g} seconds; "
                    "check the network and HF_ENDPOINT, then try again"
                ) from error
            seen = now


def _answer(answer: Future[T], call: Callable[[], T]) -> None:
    try:
        answer.set_result(call())
    except BaseException as error:
        answer.set_exception(error)


def bytes_fetched(repository: str) -> int:
    """Bytes that the hub's cache holds of a model's repository, which grow while it comes in."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    total = 0
    with suppress(FileNotFoundError):  # the client renames a file once it is whole: then the sum is less
        for path in folder.rglob("*"):
            total += 0 if path.is_dir() else path.lstat().st_size
    return total
