"""What `ConsoleProgress` writes where there is no terminal."""

from __future__ import annotations

import pytest

from kdaudit.console import ConsoleProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("kdaudit.console.time.monotonic", lambda: now[0])
    return now


def test_lines_come_seldom_and_tell_the_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ConsoleProgress()
    for seconds, done in ((0, 100), (5, 200), (20, 300), (30, 310), (40, 900), (50, 1000)):
        clock[0] = seconds
        progress("soft", done, 1000)
    # 200 in 20 seconds leave 700 for 70; 800 in 40 leave 100 for 5.
    assert capsys.readouterr().err.splitlines() == [
        "soft: 100 of 1,000",
        "soft: 300 of 1,000, about 1 min left",
        "soft: 900 of 1,000, less than a minute left",
        "soft: 1,000 of 1,000",
    ]


def test_without_a_total_there_is_no_time_left(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ConsoleProgress()
    for seconds in (0, 20, 40):
        clock[0] = seconds
        progress("corpus: reading documents", 1000 + seconds, 0)
    assert capsys.readouterr().err.splitlines() == [
        "corpus: reading documents: 1,000",
        "corpus: reading documents: 1,020",
        "corpus: reading documents: 1,040",
    ]
