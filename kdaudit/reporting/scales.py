"""Axes: from values to SVG user units, with labelled ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from kdaudit.reporting.formatting import percent, significant


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    label: str


class Linear(NamedTuple):
    """A linear axis from `low` at `start` to `high` at `end` (user units; may run backwards)."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """Where a value stands; values off the axis are held at its ends."""
        span = (self.high - self.low) or 1.0
        share = min(1.0, max(0.0, (value - self.low) / span))
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, steps: int = 5) -> list[Tick]:
        """Ticks at round values."""
        step = round_step((self.high - self.low) or 1.0, steps)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [Tick(self.at(k * step), significant(k * step, 3)) for k in range(first, last + 1)]


class LogShares(NamedTuple):
    """A logarithmic axis of shares whose ends are powers of ten (exponents `low` and `high`)."""

    low: int
    high: int
    start: float
    end: float

    def at(self, share: float) -> float:
        """Where a share stands; shares off the axis, 0 too, are held at its ends."""
        place = (math.log10(max(share, 10.0**self.low)) - self.low) / (self.high - self.low)
        return round(self.start + min(1.0, max(0.0, place)) * (self.end - self.start), 1)

    def ticks(self) -> list[Tick]:
        """A tick at each power of ten; at every second, third, ... where there are many."""
        step = -(-(self.high - self.low) // 5)
        return [Tick(self.at(10.0**k), percent(10.0**k)) for k in range(self.high, self.low - 1, -step)]


def log_shares(shares: Iterable[float], start: float, end: float, *, top: int | None = None) -> LogShares:
    """The axis that holds all positive shares; one decade at least."""
    positive = [share for share in shares if share > 0] or [0.01]
    low = math.floor(math.log10(min(positive)) + 1e-9)
    high = top if top is not None else math.ceil(math.log10(max(positive)) - 1e-9)
    return LogShares(min(low, high - 1), high, start, end)


def round_step(span: float, steps: int) -> float:
    """The smallest round step that takes at most about `steps` of them to cover `span`."""
    raw = span / steps
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
