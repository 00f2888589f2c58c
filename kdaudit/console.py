"""What a person sees while kdaudit works: progress on standard error, a bar only on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kdaudit.cli.printing import one_line, printable, say

_LINE_EVERY = 15.0
"""Seconds between two lines of the same work where there is no terminal."""
_MINUTE = 60


class ConsoleProgress:
    """Shows `progress(what, done, total)` calls; a total of 0 means that none is known."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars = _bars(self._console) if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._first: dict[str, tuple[float, int]] = {}
        """When each work was first told of, and how far it was."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note of a step."""
        what = one_line(what)
        if self._bars is not None:
            self._show_bar(self._bars, what, done, total)
        else:
            self._print_line(what, done, total)

    def warn(self, text: str) -> None:
        """Print something that the user should know."""
        self._print(f"kdaudit: warning: {printable(text)}")

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._print(printable(text))

    def _print(self, text: str) -> None:
        if self._bars is None:  # rich ends the process with 1 where standard error is closed
            say(text, err=True)
        else:
            self._console.print(text, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def _show_bar(self, bars: Progress, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = bars.add_task(what, total=total or None)
        bars.update(self._tasks[what], completed=done, total=total or None)

    def _print_line(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        first, last = what not in self._printed, 0 < total == done
        if first or last or now - self._printed[what] >= _LINE_EVERY:
            self._printed[what] = now
            count = f"{done:,} of {total:,}" if total else f"{done:,}"
            say(f"{what}: {count}{self._left(what, done, total, now)}", err=True)

    def _left(self, what: str, done: int, total: int, now: float) -> str:
        """How long a work will still take at its pace so far, once that can be told."""
        began, before = self._first.setdefault(what, (now, done))
        if done >= total or done == before or now - began < _LINE_EVERY:
            return ""
        seconds = (now - began) / (done - before) * (total - done)
        return f", about {seconds / 60:.0f} min left" if seconds >= _MINUTE else ", less than a minute left"


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
