"""What a person sees while kdaudit works: progress on standard error, a bar only on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
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

from kdaudit.cli.json_lines import JsonLines, json_lines
from kdaudit.cli.printing import bare_stderr, one_line, printable, say
from kdaudit.pipelines.stages.estimate import duration

_LINE_EVERY = 15.0
"""Seconds between two lines of the same work where there is no terminal."""
_SILENT_AT_MOST = 30.0
"""Seconds without a line, there, after which it is said that the work still runs."""
_TICK = 1.0


@dataclass
class _Steps:
    """One work's steps, by the clock."""

    began: float
    before: int
    """How far it was when it was first told of."""
    stepped: float
    """When it was last told of."""
    done: int
    total: int
    printed: float

    def seconds_left(self, now: float) -> float | None:
        """How long it will still take at its pace so far; None while that cannot be told."""
        if self.done >= self.total or self.done == self.before or self.stepped - self.began < _LINE_EVERY:
            return None
        pace = (self.stepped - self.began) / (self.done - self.before)
        seconds = pace * (self.total - self.done) - (now - self.stepped)
        return seconds if seconds > 0 else None  # slower than before: nothing is known

    def left(self, now: float) -> str:
        """The same in words."""
        seconds = self.seconds_left(now)
        return "" if seconds is None else f", {duration(seconds)} left"

    @property
    def count(self) -> str:
        """How far it is; nothing where neither a step nor a total is known."""
        if self.total:
            return f": {self.done:,} of {self.total:,}"
        return f": {self.done:,}" if self.done else ""


class ConsoleProgress:
    """Shows `progress(what, done, total)` calls.

    A total of 0 means that none is known; both numbers 0, that a work begins. Where there is no terminal,
    each work's first call gives a line at once, and while the context lasts no silence is longer than
    `_SILENT_AT_MOST` seconds, whatever the work waits for.
    """

    def __init__(self) -> None:
        self._console = Console(file=bare_stderr(), highlight=False, emoji=False)
        self._bars = _bars(self._console) if sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._works: dict[str, _Steps] = {}
        self._now = ""
        """The work that was last told of."""
        self._last_line = time.monotonic()
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take note of a step."""
        what = one_line(what)
        if self._bars is not None:
            self._show_bar(self._bars, what, done, total)
            return
        with self._lock:
            self._note(what, done, total)

    def warn(self, text: str) -> None:
        """Print something that the user should know."""
        self._print(f"kdaudit: warning: {printable(text)}")

    def say(self, text: str) -> None:
        """Print a line of its own."""
        self._print(printable(text))

    def tick(self) -> None:
        """Break a silence that has lasted too long; called by the clock."""
        with self._lock:
            now = time.monotonic()
            if self._now and now - self._last_line >= _SILENT_AT_MOST:
                steps = self._works[self._now]
                self._tell(self._now, steps, now, silent=now - steps.stepped)

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        else:
            self._ticker = threading.Thread(target=self._tick_until_ended, daemon=True)
            self._ticker.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()
        if self._ticker is not None:
            self._ended.set()
            self._ticker.join()

    def _tick_until_ended(self) -> None:
        while not self._ended.wait(_TICK):
            try:
                self.tick()
            except ValueError:  # standard error was closed in this process
                return

    def _show_bar(self, bars: Progress, what: str, done: int, total: int) -> None:
        if what != self._now and self._now in self._tasks and self._works[self._now].total == 0:
            bars.remove_task(self._tasks.pop(self._now))  # it would seem to go on for ever
        now = time.monotonic()
        self._now = what
        self._works[what] = _Steps(now, done, now, done, total, now)
        if what not in self._tasks:
            self._tasks[what] = bars.add_task(what, total=total or None)
        bars.update(self._tasks[what], completed=done, total=total or None)

    def _note(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        first = what not in self._works
        steps = self._works.setdefault(what, _Steps(now, done, now, done, total, now))
        if done < steps.done:  # it begins again
            steps.began, steps.before = now, done
        steps.stepped, steps.done, steps.total = now, done, total
        again = what != self._now
        self._now = what
        if first or again or 0 < total == done or now - steps.printed >= _LINE_EVERY:
            steps.printed = now
            self._tell(what, steps, now)

    def _tell(self, what: str, steps: _Steps, now: float, silent: float | None = None) -> None:
        """Print a line of a work.

        Args:
            what: the work.
            steps: how far it is.
            now: by the clock.
            silent: seconds since its last step, where a silence is broken.

        """
        since = "" if silent is None else f" (still working, {silent:,.0f} s since its last step)"
        self._print(f"{what}{steps.count}{steps.left(now)}{since}")

    def _print(self, text: str) -> None:
        with self._lock:
            self._last_line = time.monotonic()
            if self._bars is None:  # rich ends the process with 1 where standard error is closed
                say(text, err=True)
            else:
                self._console.print(text, markup=False, soft_wrap=True)


class JsonProgress(ConsoleProgress):
    """The same as events."""

    def __init__(self, lines: JsonLines) -> None:
        super().__init__()
        self._lines = lines

    def warn(self, text: str) -> None:
        """Write a warning."""
        self._lines.event("warning", text=text)

    def say(self, text: str) -> None:
        """Write a message."""
        self._lines.event("message", text=text)

    def _tell(self, what: str, steps: _Steps, now: float, silent: float | None = None) -> None:
        self._last_line = now
        left = steps.seconds_left(now)
        self._lines.event(
            "progress",
            work=what,
            done=steps.done,
            total=steps.total or None,
            seconds_left=None if left is None else round(left),
            **({} if silent is None else {"seconds_since_last_step": round(silent)}),
        )


def shown_progress() -> ConsoleProgress:
    """What shows progress as the command line asks: for people, or as JSON."""
    lines = json_lines()
    return ConsoleProgress() if lines is None else JsonProgress(lines)


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        redirect_stdout=False,  # what others print passes `escaping_streams`, which obeys nothing
        redirect_stderr=False,
    )
