"""The one way to a person's screen: text with nothing in it that a terminal would obey.

File names, architectures, remarks of a hub and everything else that is not ours may hold escape codes, line
ends that forge a line of ours, and marks that turn the reading direction. They are shown as escapes. A token
of the hub is never shown.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys

import click

_OBEYED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control codes but tab and line feed
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # reading direction
    "\u2028\u2029\ud800-\udfff]"  # line ends of Unicode; what no encoding can hold
)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def printable(text: str) -> str:
    """Text of several lines, each after the first indented: none can pass for a message of its own."""
    return _escaped(text).replace("\n", "\n  ")


def one_line(text: str) -> str:
    """Text as one line."""
    return _escaped(text).replace("\n", "\\n")


def say(text: str, *, err: bool = False) -> None:
    """Print lines that we made; to standard error with `err`, where a reader who has gone ends nothing."""
    if not err:
        click.echo(_escaped(text))
        return
    try:
        click.echo(_escaped(text), err=True)
    except OSError:
        mute_stderr()


def mute_stderr() -> None:
    """Let nothing that is written to standard error fail any more: nobody reads it."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _escaped(text: str) -> str:
    return _OBEYED.sub(_escape, _TOKEN.sub("hf_***", text))


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"  # inside a JSON string this is the character itself
