"""`--log-json`: standard error as JSON, one object a line, for programs that follow a command.

    begin     command, kdaudit (version)
    progress  work, done, total (null if it is not known), seconds_left (null if it is not known)
    warning   text
    message   text: what else a person would read, also of libraries
    error     text, exit_code, problems: [{where, key, what, fix}]
    end       exit_code, seconds; always the last line, unless the process is killed

Each object has `time` (UTC, ISO 8601) and `event`; more keys and events may come. Control characters and all
that is not ASCII are escaped, so that nothing in a line acts on a terminal.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TextIO

from kdaudit import __version__
from kdaudit.cli.printing import mute_stderr, without_tokens
from kdaudit.errors import KdauditError, UsageError

OPTION = "--log-json"


class JsonLines:
    """A text stream that writes each line it is given as the event `message`, and other events on request."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rest = ""
        self._began = time.monotonic()
        self._lock = threading.RLock()

    def event(self, kind: str, **fields: object) -> None:
        """Write one event."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = without_tokens(json.dumps({"time": now, "event": kind, **fields}))
        with self._lock:
            try:
                self._stream.write(f"{line}\n")
                self._stream.flush()
            except OSError:  # the reader has gone, which ends nothing
                mute_stderr()

    def write(self, text: str) -> int:
        """Take text that is meant for people; each whole line becomes an event."""
        with self._lock:
            *lines, self._rest = (self._rest + text).replace("\r", "\n").split("\n")
        for line in lines:
            if line.strip():
                self.event("message", text=line)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: events are flushed, and a line waits for its end."""

    def isatty(self) -> bool:
        """Say no: bars and colors are for people."""
        return False

    def error(self, error: KdauditError) -> None:
        """Write an error of ours."""
        found = (error, *error.more) if isinstance(error, UsageError) else ()
        problems = [{"where": one.where, "key": one.key, "what": one.what, "fix": one.fix} for one in found]
        self.event("error", text=str(error), exit_code=error.exit_code, problems=problems)

    def end(self, code: int) -> None:
        """Write what is left of a line, and the last event."""
        self.write("\n")
        self.event("end", exit_code=code, seconds=round(time.monotonic() - self._began, 3))

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._stream, name)


def json_lines() -> JsonLines | None:
    """Standard error, if it is written as JSON."""
    return sys.stderr if isinstance(sys.stderr, JsonLines) else None


@contextlib.contextmanager
def told_in_json(words: Sequence[str]) -> Iterator[JsonLines | None]:
    """Write standard error as JSON if the words of the command line ask for it, wrong ones too."""
    if OPTION not in words:
        yield None
        return
    stream = sys.stderr
    lines = JsonLines(stream)
    lines.event("begin", command=next((w for w in words if not w.startswith("-")), ""), kdaudit=__version__)
    sys.stderr = lines
    try:
        yield lines
    finally:
        sys.stderr = stream
