"""A model in transformers, in as many processes as the run has room for, and questions shared out to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from kdaudit.inference import EngineInfo
from kdaudit.inference.executors import share_out, wait_for
from kdaudit.inference.scoring import Answered, FeatureWorker, Question
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout

_K = TypeVar("_K")


class Scorers:
    """Processes that hold one model, all alike.

    What they make of a question does not depend on which of them is asked.

    Args:
        workers: the processes, loaded; those that are lost are removed.
        warn: told of them.

    """

    def __init__(self, workers: list[FeatureWorker], warn: Callable[[str], None]) -> None:
        self._workers = workers
        self._warn = warn

    @property
    def info(self) -> EngineInfo:
        """Version, device and dtype."""
        return self._workers[0].info

    def each(self, questions: Iterable[tuple[_K, Question]]) -> Iterator[tuple[_K, Answered]]:
        """What comes of each question, by its key, as it is answered; with one process in their order."""
        return self._shared(questions, in_order=False)

    def in_order(self, questions: Iterable[tuple[_K, Question]]) -> Iterator[tuple[_K, Answered]]:
        """The same in the questions' order."""
        return self._shared(questions, in_order=True)

    def _shared(
        self, questions: Iterable[tuple[_K, Question]], *, in_order: bool
    ) -> Iterator[tuple[_K, Answered]]:
        def begin(worker: FeatureWorker, asked: tuple[_K, Question]) -> None:
            worker.begin(asked[1])

        answers = share_out(
            self._workers, questions, begin, FeatureWorker.finish, self._warn, in_order=in_order
        )
        return ((key, answered) for (key, _), answered in answers)


@contextmanager
def loaded_scorers(work: Work, audited: AuditedModel, retries: int) -> Iterator[Scorers]:
    """Load a model into as many processes as are asked for and of use; they end with the block.

    Args:
        work: the run.
        audited: the model.
        retries: as in `EngineOptions`.

    """
    shards = len(work.run.shards(layout.EXAMPLES))
    with ExitStack() as stack:
        hosts = stack.enter_context(work.executor.hosts([work.hosted(audited)], shards))
        workers = []
        for start in hosts.starts:
            workers.append(FeatureWorker(*work.files(audited), retries, start))
            stack.push(workers[-1])
        wait_for(workers, work.warn)
        # All scores of a model must come from one engine: GPUs of another kind stay idle.
        yield Scorers([one for one in workers if one.info == workers[0].info], work.warn)
