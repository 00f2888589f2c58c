"""The run directory: which files it holds, how they are written whole, and who may work there."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""How work tells what it does: progress(what, done, total)."""
