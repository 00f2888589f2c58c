"""The worker's side: one object whose methods answer calls until the parent closes the pipe.

The worker ends when its parent does, however the parent ends and whatever the worker is doing then.
"""

from __future__ import annotations

import importlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from kdaudit.errors import EngineError
from kdaudit.inference.workers.messages import Array, Message, read_message, write_message


def serve(service: str) -> None:
    """Answer calls that come on standard input, on standard output, until the parent is gone.

    Args:
        service: "module:Class". The first call, `__init__`, builds it from its JSON options.

    """
    calls, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)  # libraries print; the answers' pipe must stay clean
    target: Any = None
    for message in _messages(calls):
        began = time.monotonic()
        try:
            if message.head["method"] == "__init__":
                module, _, name = service.partition(":")
                target = getattr(importlib.import_module(module), name)(message.head["values"]["options"])
                answer = Message({"value": target.describe()}, [])
            else:
                found = getattr(target, message.head["method"])(*message.arrays, **message.head["values"])
                value, arrays = answered(found)
                answer = Message({"seconds": time.monotonic() - began, "value": value}, arrays)
        except Exception as error:
            import traceback

            traceback.print_exc()
            answer = Message({"error": failure(error)}, [])
        write_message(answers, answer)


def failure(error: BaseException) -> str:
    """What a service says of an error: a message of ours as it is, any other behind its kind."""
    return str(error) if isinstance(error, EngineError) else f"{type(error).__name__}: {error}"


def answered(found: Any) -> tuple[dict[str, Any] | None, list[Array]]:  # noqa: ANN401 - what a service gave
    """What a method of a service gave, as JSON or as arrays."""
    if found is None or isinstance(found, dict):
        return found, []
    return None, [found] if isinstance(found, np.ndarray) else list(found)


def _messages(calls: IO[bytes]) -> Iterator[Message]:
    """Yield calls; a thread reads them, so that the parent's end is seen in the midst of one."""
    pending: queue.Queue[Message] = queue.Queue()

    def read() -> None:
        while (message := read_message(calls)) is not None:
            pending.put(message)
        os._exit(0)  # the parent is gone or has closed us: nobody waits for an answer

    threading.Thread(target=read, daemon=True).start()
    while True:
        yield pending.get()
