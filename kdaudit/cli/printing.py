"""The one way to a person's screen: text with nothing in it that a terminal would obey.

File names, architectures, remarks of a hub and everything else that is not ours may hold escape codes, line
ends that forge a line of ours, and marks that turn the reading direction. They are shown as escapes. A token
of the hub is never shown. `escaping_streams` does so to all that reaches the standard streams while a command
runs, whoever prints it: warnings and logs of libraries too.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control codes but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # reading direction
    "\u2028\u2029\ud800-\udfff]"  # line ends of Unicode; what no encoding can hold
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")
"""A token has 34; a folder called hf_checkpoints is none."""


def printable(text: str) -> str:
    """Text of several lines, each after the first indented: none can pass for a message of its own."""
    return _escaped(text).replace("\n", "\n  ")


def one_line(text: str) -> str:
    """Text as one line."""
    return _escaped(text).replace("\n", "\\n")


def without_tokens(text: str) -> str:
    """Text without tokens of the hub."""
    return _TOKEN.sub("hf_***", text)


def say(text: str, *, err: bool = False) -> None:
    """Print lines that we made; to standard error with `err`, where a reader who has gone ends nothing."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.write(f"{text if hasattr(stream, 'event') else _escaped(text)}\n")
        stream.flush()
    except OSError:
        if not err:
            raise
        mute_stderr()


class OutputLostError(Exception):
    """Standard output cannot be written; its cause is the system's error."""


class _Escaping:
    """A text stream that shows as escapes what its terminal would obey; all else is that of `inner`.

    Where it is `lossy`, a reader who has gone ends nothing; else a failure is an OutputLostError.
    """

    def __init__(self, inner: TextIO, *, lossy: bool) -> None:
        self.inner = inner
        self._lossy = lossy

    def write(self, text: str) -> int:
        """Write text."""
        with self._failing():
            self.inner.write(_escaped(text))
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """As `write`."""
        with self._failing():
            self.inner.flush()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._lossy:
                raise OutputLostError from error
            mute_stderr()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self.inner, name)


@contextlib.contextmanager
def escaping_streams() -> Iterator[None]:
    """Let nothing reach standard output and standard error that a terminal would obey."""
    out, err = sys.stdout, sys.stderr
    sys.stdout = _Escaping(out, lossy=False)
    if not hasattr(err, "event"):  # lines of JSON are escaped by themselves
        sys.stderr = _Escaping(err, lossy=True)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = out, err


def bare_stderr() -> TextIO:
    """Standard error as it is, for a progress bar's own codes: its texts must have passed `printable`."""
    stream: TextIO = getattr(sys.stderr, "inner", sys.stderr)
    return stream


def mute_stderr() -> None:
    """Let nothing that is written to standard error fail any more: nobody reads it."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _escaped(text: str) -> str:
    return _OBEYED.sub(_escape, without_tokens(text))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"  # inside a JSON string this is the character itself
