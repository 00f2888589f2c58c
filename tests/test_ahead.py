"""A step done ahead keeps order, takes one item more than the caller has, and fails where it would have."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kdaudit.corpus.ahead import ahead


def counted(taken: list[int], count: int = 5) -> Iterator[int]:
    for number in range(count):
        taken.append(number)
        yield number


def test_items_come_in_order_each_with_its_own_result() -> None:
    assert [*ahead(range(5), lambda number: number * number)] == [(n, n * n) for n in range(5)]
    assert [*ahead([], str)] == []
    assert [*ahead([7], str)] == [(7, "7")]


def test_the_next_one_is_begun_while_the_caller_has_one_and_no_further() -> None:
    taken: list[int] = []
    begun = [threading.Event() for _ in range(5)]
    for seen, (number, _) in enumerate(ahead(counted(taken), lambda number: begun[number].set()), 1):
        if number < 4:
            assert begun[number + 1].wait(5), "its step runs while this one is in hand"
        assert len(taken) == min(seen + 1, 5)


def test_a_step_that_fails_fails_at_its_item() -> None:
    found: list[int] = []
    with pytest.raises(ZeroDivisionError):
        found.extend(number for number, _ in ahead([2, 1, 0, 4], lambda number: 1 / number))
    assert found == [2, 1]


def test_items_that_fail_fail_and_nothing_hangs() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the disk")

    with pytest.raises(OSError, match="the disk"):
        [*ahead(broken(), str)]
