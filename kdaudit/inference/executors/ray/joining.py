"""Joining a Ray cluster as its driver."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from kdaudit import NO_USAGE_REPORTS
from kdaudit.errors import UsageError, reason

_KEY = "compute.ray"
_REACH_SECONDS = 10.0
"""For something to answer at an address."""
_TRY_SECONDS = 60.0
"""For a cluster's head to answer, once Ray is imported."""
_TRY = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"


def check_ray(address: str) -> None:
    """Refuse a cluster at once that cannot be joined.

    Args:
        address: HOST:PORT of the cluster's head; auto: the cluster that this machine is part of.

    Raises:
        UsageError: Ray is not installed, or nothing answers at the address.

    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError(
            "Ray is not installed", fix="run pip install 'kdaudit[ray]', or remove compute.ray", key=_KEY
        )
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_SECONDS):
            pass
    except OSError as error:
        raise UsageError(
            f"nothing answers at {address} ({error.strerror or reason(error)})",
            fix="give the address that `ray start --head` printed, or remove compute.ray",
            key=_KEY,
        ) from None


def join(address: str) -> bool:
    """Become a driver of the cluster, unless this process is one; say whether it was not.

    Raises:
        UsageError: the cluster cannot be joined.

    """
    check_ray(address)
    import ray

    if ray.is_initialized():
        return False
    _try(address)
    with _own_handler():
        ray.init(address=address, log_to_driver=True, logging_level="WARNING")
    return True


def _try(address: str) -> None:
    """Join the cluster from a process that can be ended: Ray tries for minutes where another service answers.

    Raises:
        UsageError: that failed.

    """
    command = [sys.executable, "-P", "-c", _TRY, address]
    environment = {**os.environ, **NO_USAGE_REPORTS}
    try:
        tried = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_TRY_SECONDS)  # noqa: S603
        lines = [line for line in tried.stderr.splitlines() if line.strip()]
        trouble = lines[-1] if tried.returncode and lines else tried.returncode
    except subprocess.TimeoutExpired:
        trouble = f"it did not answer within {_TRY_SECONDS:.0f} s"
    if trouble:
        raise UsageError(
            f"the Ray cluster at {address} cannot be joined ({trouble})",
            fix="give the address that `ray start --head` printed, or remove compute.ray",
            key=_KEY,
        )


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep this process's handling of SIGTERM, which `ray.init` replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
