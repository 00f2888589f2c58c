"""What a library's error says, short enough to stand inside one of our own sentences."""

from __future__ import annotations


def reason(error: BaseException) -> str:
    """First line of an error's message, with the next where it only announces it; its kind if it has none."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
