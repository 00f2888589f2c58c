"""Work is shared out to whichever process has too little, and what is done is used as it comes."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator

import pytest

from kdaudit.errors import WorkerDiedError, WorkerLostError
from kdaudit.inference.executors.sharing import share_out, wait_for


class Fake:
    """A process that answers when it is told to, by a pipe."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()
        self.begun: list[int] = []
        self.lost = False

    def wait(self) -> None:
        if self.lost:
            raise WorkerLostError("the node is gone")

    def fileno(self) -> int:
        return self._reads

    def begin(self, piece: int) -> None:
        self.begun.append(piece)

    def answer(self) -> None:
        os.write(self._writes, b".")

    def end(self) -> None:
        os.close(self._writes)

    def finish(self) -> str:
        if not os.read(self._reads, 1):
            raise EOFError("the process ended")
        if self.lost:
            raise WorkerLostError("the node is gone")
        return "done"


def shared(
    processes: list[Fake], todo: Iterator[int], warn: Callable[[str], None] = pytest.fail
) -> Iterator[int]:
    found = share_out(processes, todo, Fake.begin, Fake.finish, warn)
    return (piece for piece, done in found if done == "done")


def test_one_process_does_all_in_order_with_one_waiting() -> None:
    process = Fake()
    found = shared([process], iter(range(1, 5)))
    for number in range(1, 5):
        process.answer()
        assert next(found) == number
        assert process.begun == [*range(1, min(number + 1, 4) + 1)]
    assert next(found, None) is None


def test_each_has_one_before_any_has_two_and_who_is_done_gets_the_next() -> None:
    first, second = Fake(), Fake()
    found = shared([first, second], iter(range(1, 8)))
    second.answer()
    assert next(found) == 2, "whatever is done first"
    assert (first.begun, second.begun) == ([1, 3], [2, 4])
    second.answer()
    assert next(found) == 4
    assert second.begun == [2, 4, 5], "the first has two and gets no more"
    for process in (first, first, second, second, first):
        process.answer()
    assert sorted(found) == [1, 3, 5, 6, 7], "each once"


def test_a_process_that_ends_while_it_waits_for_work_ends_all() -> None:
    busy, idle = Fake(), Fake()
    found = shared([busy, idle], iter([1]))
    idle.end()
    with pytest.raises(EOFError, match="the process ended"):
        next(found)


def test_nothing_to_do_is_no_wait() -> None:
    assert [*shared([Fake(), Fake()], iter([]))] == []


def test_what_a_lost_process_had_is_done_by_the_others_and_before_all_else() -> None:
    first, second, warned = Fake(), Fake(), []
    processes = [first, second]
    found = shared(processes, iter(range(1, 7)), warned.append)
    second.answer()
    assert next(found) == 2
    assert (first.begun, second.begun) == ([1, 3], [2, 4])
    second.lost = True
    second.answer()
    for _ in range(5):
        first.answer()
    assert [*found] == [1, 3, 4, 5, 6]
    assert first.begun == [1, 3, 4, 5, 6]
    assert second.begun == [2, 4, 5], "the piece that waited there is done again too"
    assert processes == [first]
    assert warned == ["the node is gone; its work is done by those that are left: 1"]


def test_the_last_process_that_is_lost_ends_all() -> None:
    processes, warned = [Fake(), Fake()], []
    for process in processes:
        process.lost = True
        process.answer()
    with pytest.raises(WorkerDiedError, match=r"the node is gone; no replica is left.*run again to resume"):
        next(shared(processes, iter([1, 2]), warned.append))
    assert len(warned) == 1


def test_a_process_that_is_lost_while_it_loads_gets_no_work() -> None:
    first, second, warned = Fake(), Fake(), []
    first.lost, processes = True, [first, second]
    wait_for(processes, warned.append)
    assert processes == [second]
    assert len(warned) == 1


class Prompt(Fake):
    """A process that answers at once, or once it is released."""

    def __init__(self, *, released: bool = True) -> None:
        super().__init__()
        self._released = released

    def begin(self, piece: int) -> None:
        super().begin(piece)
        if self._released:
            self.answer()

    def release(self) -> None:
        self._released = True
        for _ in self.begun:
            self.answer()


def ordered(processes: list[Fake], todo: Iterator[int]) -> Iterator[int]:
    found = share_out(
        processes,
        todo,
        lambda process, piece: process.begin(piece),
        Fake.finish,
        lambda _: None,
        in_order=True,
    )
    return (piece for piece, done in found if done == "done")


def after_a_while(then: Callable[[], None]) -> None:
    threading.Timer(0.3, then).start()


def test_answers_that_come_early_wait_for_those_before_them() -> None:
    """Rows of entropies, of nearness and of the corpus stand in the order in which they were asked for."""
    slow, fast = Prompt(released=False), Prompt()
    found = ordered([slow, fast], iter(range(1, 6)))
    after_a_while(slow.release)
    assert [*found] == [1, 2, 3, 4, 5]
    assert (slow.begun, fast.begun) == ([1, 3], [2, 4, 5])


def test_no_more_than_some_answers_wait_for_a_slow_process() -> None:
    slow, fast, ahead, read = Prompt(released=False), Prompt(), [], []
    found = ordered([slow, fast], (read.append(piece) or piece for piece in range(1, 101)))
    after_a_while(lambda: (ahead.append(len(read)), slow.release()))
    assert [*found] == [*range(1, 101)]
    assert 8 < ahead[0] < 16, "the others worked on, and not on all"


def test_what_a_lost_process_had_is_done_though_much_waits_for_it() -> None:
    slow, fast = Prompt(released=False), Prompt()
    found = ordered([slow, fast], iter(range(1, 101)))
    slow.lost = True
    after_a_while(slow.release)
    assert [*found] == [*range(1, 101)]
