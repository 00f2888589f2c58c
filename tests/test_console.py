"""What `ConsoleProgress` writes where there is no terminal."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest

from kdaudit.cli.progress import ConsoleProgress
from kdaudit.pipelines.stages.estimate import duration, estimating


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("kdaudit.cli.progress.time.monotonic", lambda: now[0])
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


def test_no_silence_is_longer_than_half_a_minute(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a work waits for: the clock ticks each second, and the work says nothing for five minutes."""
    progress = ConsoleProgress()
    lines: list[tuple[float, str]] = []

    def note() -> None:
        lines.extend((clock[0], line) for line in capsys.readouterr().err.splitlines())

    progress("teacher: loading", 0, 0)
    note()
    for second in range(1, 301):
        clock[0] = second
        progress.tick()
        note()
    progress("extraction/teacher", 0, 10)
    for second in range(301, 901):
        clock[0] = second
        if second in (400, 500):  # a shard in 100 seconds
            progress("extraction/teacher", (second - 300) // 100, 10)
        progress.tick()
        note()
    times = [0.0, *(at for at, _ in lines), 900.0]
    assert max(after - before for before, after in pairwise(times)) <= 30
    said = [line for _, line in lines]
    assert said[0] == "teacher: loading"
    assert said[1] == "teacher: loading (still working, 30 s since its last step)"
    assert "extraction/teacher: 0 of 10" in said
    assert "extraction/teacher: 2 of 10, about 13 min left" in said
    assert "extraction/teacher: 2 of 10, about 13 min left (still working, 30 s since its last step)" in said
    assert len(said) < 40


def test_a_work_that_begins_is_told_at_once_even_right_after_another(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = ConsoleProgress()
    for what in ("corpus: hashing", "models: hashing", "corpus: hashing"):
        progress(what, 0, 0)
    assert capsys.readouterr().err.splitlines() == ["corpus: hashing", "models: hashing", "corpus: hashing"]


def test_while_it_is_open_a_thread_keeps_the_promise(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kdaudit.cli.progress._TICK", 0.01)
    monkeypatch.setattr("kdaudit.cli.progress._SILENT_AT_MOST", 0.03)
    with ConsoleProgress() as progress:
        progress("models: hashing", 0, 4)
        deadline = time.monotonic() + 10
        said = ""
        while "still working" not in said and time.monotonic() < deadline:
            time.sleep(0.01)  # the main thread waits for a file, a worker, a library
            said += capsys.readouterr().err
    assert "models: hashing: 0 of 4 (still working" in said
    assert capsys.readouterr().err == ""  # and ends with it


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "less than a minute"),
        (60, "about 1 min"),
        (7000, "about 117 min"),
        (7300, "about 2 h"),
        (40 * 3600, "about 40 h"),
        (80 * 3600, "about 3 days"),
    ],
)
def test_durations_are_told_in_the_unit_that_suits(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_after_the_first_shard_all_models_are_estimated_once() -> None:
    now = [0.0]
    told: list[tuple[str, int, int]] = []
    step = estimating(
        lambda *one: told.append(one), "extraction of 1,000,000 examples", [10, 10, 80], lambda: now[0]
    )
    step("extraction/soft", 0, 100)
    assert len(told) == 1
    for second, done in ((36, 1), (72, 2)):
        now[0] = second
        step("extraction/soft", done, 100)
    # 99 shards of 36 s, then 100 at the same cost and 100 at eight times that: 36 s * 999 are 10 hours.
    assert [one for one in told if one[1:] == (0, 0)] == [
        ("extraction of 1,000,000 examples by 3 models: about 10 h, by the pace of the first shard", 0, 0)
    ]


def test_what_takes_seconds_is_not_estimated() -> None:
    told: list[str] = []
    ticks = iter(range(10))
    step = estimating(lambda what, *_: told.append(what), "extraction", [1], lambda: float(next(ticks)))
    for done in range(4):
        step("extraction/soft", done, 4)
    assert told == ["extraction/soft"] * 4
