"""Windows under one model: log-likelihood, perplexity and token entropy, in a worker process.

Perplexity is exp of the mean negative log-likelihood over all tokens after the first of each window.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import EngineInfo, Lengths, Ragged, Sampling, Scores, Tokens
from kdaudit.inference.remote import PRELOAD, explained
from kdaudit.inference.scoring.batches import Packed, PaddedBatch, batches, pack
from kdaudit.inference.scoring.broken import refuse_broken
from kdaudit.inference.scoring.forward import CausalModel, ModelFiles, logits_of, logits_room
from kdaudit.inference.scoring.softmax import Floats, Softmax
from kdaudit.inference.scoring.solo import SoloScores, solo_scores
from kdaudit.inference.workers import HoldsWorker, Start, begin_worker


class EntropyScores(NamedTuple):
    """Of each window under one model, float64 (windows,), over all tokens after the first."""

    entropy: Floats
    """Mean entropy of the next-token distribution, in nats."""
    log_probability: Floats
    """Mean ln p of the tokens, in nats."""


class _Scored(NamedTuple):
    batch: PaddedBatch
    nll: Floats
    """(rows, positions)"""
    entropy: Floats
    """(rows, positions)"""


class FeatureService:
    """Runs in the worker: forward passes of one model."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._retries = int(options.pop("retries"))
        self._model = CausalModel.load(**options)

    def describe(self) -> EngineInfo:
        """What the worker reports once it is ready."""
        return self._model.info

    def log_likelihood(self, flat: Tokens, ends: NDArray[np.int64], *, bos: int | None) -> Floats:
        """Sum of ln p(token | tokens before it) over each window, its first token left out.

        Args:
            flat: see `Packed`.
            ends: see `Packed`.
            bos: BOS token that stands before each window, or None.

        Returns:
            float64 (windows,), in nats; p is over all columns of the logits.

        """
        totals = np.zeros(len(ends))
        for batch, nll, _ in self._scored(Packed(flat, ends), bos, self._model.columns):
            totals[batch.rows] = -np.where(batch.counted, nll, 0.0).sum(1)
        return totals

    def entropy(
        self, flat: Tokens, ends: NDArray[np.int64], *, bos: int | None, vocabulary: int
    ) -> EntropyScores:
        """See `EntropyScores` and `log_likelihood`; p is over the first `vocabulary` columns."""
        means = np.zeros((2, len(ends)))
        width = min(vocabulary, self._model.columns)
        for batch, nll, entropy in self._scored(Packed(flat, ends), bos, width):
            means[:, batch.rows] = batch.means(entropy), -batch.means(nll)
        return EntropyScores(*means)

    def solo(
        self,
        flat: Tokens,
        ends: Lengths,
        prompts: Lengths,
        targets: Lengths,
        *,
        bos: int | None,
        vocabulary: int,
    ) -> SoloScores:
        """See `solo_scores`."""
        packed = Packed(flat, ends)
        return solo_scores(self._model, packed, prompts, targets, bos, vocabulary, self._retries)

    def scores(self, flat: Tokens, ends: Lengths, *, vocabulary: int, sampling: list[Any] | None) -> Scores:
        """See `score_tokens`."""
        windows = Ragged(flat, np.concatenate([np.zeros(1, np.int64), ends]))
        drawn = None if sampling is None else Sampling(*sampling)
        return score_tokens(self._model, windows, vocabulary, self._retries, drawn)

    def nearness(
        self, flat: Tokens, ends: Lengths, targets: Lengths, *, vocabulary: int
    ) -> tuple[Lengths, Floats]:
        """See `nearness_of`; `targets` are the tokens of each window's target."""
        windows = Ragged(flat, np.concatenate([np.zeros(1, np.int64), ends]))
        scores = score_tokens(self._model, windows, vocabulary, self._retries)
        stops = scores.offsets[1:]
        parts = np.stack([stops - targets, stops], axis=1).ravel()
        # Each second sum, from one end to the next start, is dropped; a 0 stands behind the last end.
        wrong, log_probability = (
            np.add.reduceat(np.append(values, 0), parts)[::2]
            for values in (~scores.hit, scores.log_probability)
        )
        return wrong.astype(np.int64), log_probability / targets

    def _scored(self, packed: Packed, bos: int | None, width: int) -> Iterator[_Scored]:
        import torch

        softmax = Softmax(width, self._model.device)
        room = logits_room(self._retries, self._model)
        for batch in batches(packed, room):
            with torch.inference_mode():
                scored = self._score(batch, bos, softmax, room)
            yield scored

    def _score(self, batch: PaddedBatch, bos: int | None, softmax: Softmax, room: int) -> _Scored:
        import torch

        scored = _Scored(batch, np.zeros(batch.inputs.shape), np.zeros(batch.inputs.shape))
        targets = torch.from_numpy(batch.targets).to(self._model.device)
        for piece, logits in logits_of(batch, room, [self._model], [bos]):
            there = (slice(None), slice(*piece))
            sums = softmax.single(logits[0].flatten(0, 1), targets[there].flatten())
            shape = batch.inputs[there].shape
            scored.nll[there], scored.entropy[there] = sums.nll.reshape(shape), sums.entropy.reshape(shape)
        return scored


def score_tokens(
    model: CausalModel, windows: Ragged, vocabulary: int, retries: int, sampling: Sampling | None = None
) -> Scores:
    """See `Engine.score`.

    Args:
        model: the model.
        windows: at least two tokens each.
        vocabulary: columns of the logits that stand for tokens.
        retries: as in `EngineOptions`.
        sampling: how tokens would be drawn, where that is asked.

    Raises:
        ValueError: the model gives numbers that are not finite.

    """
    import torch

    from kdaudit.inference.transformers import BROKEN

    packed, room = pack(list(windows)), logits_room(retries, model)
    offsets = windows.offsets - np.arange(len(windows) + 1)  # the first token of each has no score
    log_probability, mean, variance = np.zeros((3, offsets[-1]))
    hit = np.zeros(offsets[-1], np.bool_)
    sampled = np.zeros(0 if sampling is None else offsets[-1])
    scores = Scores(offsets, log_probability, mean, variance, hit, sampled)
    softmax = Softmax(min(vocabulary, model.columns), model.device)
    for batch in batches(packed, room):
        targets = torch.from_numpy(batch.targets).to(model.device)
        with torch.inference_mode():
            for piece, logits in logits_of(batch, room, [model], [None]):
                there = (slice(None), slice(*piece))
                rows, own = logits[0].flatten(0, 1), targets[there].flatten()
                found = softmax.details(rows, own)
                sums, counted = found.sums, batch.counted[there]
                # Places in the arrays of what counts, row by row as the positions are.
                first = offsets[batch.rows, None] + np.arange(*piece)
                places, inside = first[counted], counted.ravel()
                scores.log_probability[places] = -sums.nll[inside]
                scores.mean[places] = -sums.entropy[inside]
                scores.variance[places] = found.variance[inside]
                scores.hit[places] = found.hit[inside]
                if sampling is not None:
                    scores.sampled[places] = softmax.sampled(rows, own, sampling)[inside]
    if not np.isfinite(scores.log_probability + scores.variance).all():
        raise ValueError(BROKEN)
    return scores


class Question(NamedTuple):
    """A call of `FeatureService`; `log_likelihood_of` and the like make them."""

    method: str
    arrays: tuple[NDArray[Any], ...]
    values: dict[str, Any]


class Answered(NamedTuple):
    """What a process made of a question."""

    arrays: list[NDArray[Any]]
    seconds: float
    """Time inside the process."""


def log_likelihood_of(windows: Sequence[Tokens], bos: int | None) -> Question:
    """See `FeatureService.log_likelihood`; each window has at least two tokens."""
    return Question("log_likelihood", pack(windows), {"bos": bos})


def entropy_of(windows: Sequence[Tokens], bos: int | None, vocabulary: int) -> Question:
    """The arrays of `EntropyScores`.

    Args:
        windows: int32 (tokens,) each, at least two tokens.
        bos: BOS token that stands before each window, or None.
        vocabulary: tokens of the tokenizer; columns of the logits beyond it are left out.

    """
    return Question("entropy", pack(windows), {"bos": bos, "vocabulary": vocabulary})


def scores_of(windows: Ragged, vocabulary: int, sampling: Sampling | None = None) -> Question:
    """The arrays of `Scores`, see `Engine.score`; `vocabulary` as in `entropy_of`."""
    return Question("scores", pack(list(windows)), {"vocabulary": vocabulary, "sampling": sampling})


def nearness_of(prompts: Ragged, targets: Ragged, vocabulary: int) -> Question:
    """How near the model is to reproducing targets, given the true tokens before each token.

    Of each target, its tokens that are not the argmax, int64 (targets,), and the mean ln p of its tokens,
    float64 (targets,).

    Args:
        prompts: with the BOS token, where there is one.
        targets: what follows.
        vocabulary: as in `entropy_of`.

    """
    windows = list(prompts.followed_by(targets))
    return Question("nearness", (*pack(windows), targets.lengths), {"vocabulary": vocabulary})


class FeatureWorker(HoldsWorker):
    """Features under one model, from a process of its own; a context manager that ends the process.

    The model begins to load with the object; `wait`, or to enter the block, waits for it.

    Args:
        path: the model's folder.
        dtype: as in `ModelFiles`.
        trust_remote_code: whether to run code that comes with the model.
        retries: as in `EngineOptions`.
        start: begins the process.

    Raises:
        EngineError: as `explained`; so do all methods.
        ModelError: the model gives numbers that are not finite.

    """

    def __init__(
        self, path: Path, dtype: str, trust_remote_code: bool, retries: int, start: Start = begin_worker
    ) -> None:
        self._files = ModelFiles(path, dtype, trust_remote_code)
        self._begun = deque[Question]()
        self.seconds = 0.0
        """Time inside the worker, over all windows met."""
        options = {**self._files.options(), "retries": retries}
        with explained(str(path), "transformers"):
            self._worker = start(
                "kdaudit.inference.scoring.single:FeatureService", options, PRELOAD["transformers"]
            )

    def wait(self) -> Self:
        """Wait until the model is loaded; the process ends if it cannot be."""
        with explained(str(self._files.folder), "transformers"):
            ready = self._worker.wait()
        self.info = EngineInfo(*ready)
        """Version, device and dtype."""
        return self

    def fileno(self) -> int:
        """What can be read from once the oldest question is answered, or the process has ended."""
        return self._worker.fileno()

    def begin(self, question: Question) -> None:
        """Ask, so that the caller can prepare the next question meanwhile."""
        with explained(str(self._files.folder), "transformers"):
            self._worker.send(question.method, *question.arrays, **question.values)
        self._begun.append(question)

    def finish(self) -> Answered:
        """Wait for the answer to the oldest question."""
        with explained(str(self._files.folder), "transformers"):
            answer = self._worker.receive()
        found = Answered(answer.arrays, float(answer.head["seconds"]))
        self.seconds += found.seconds
        if self._begun.popleft().method != "scores":  # which are of tokens, and refused in the process
            refuse_broken(self._files, found.arrays)
        return found

    def ask(self, question: Question) -> list[NDArray[Any]]:
        """Ask and wait for the answer."""
        self.begin(question)
        return self.finish().arrays

    def perplexity(self, batches: Iterable[Sequence[Tokens]], bos: int | None) -> float:
        """The exp of the mean negative log-likelihood over all tokens after the first of each window."""
        total, tokens = 0.0, 0
        for windows in batches:
            total += float(self.ask(log_likelihood_of(windows, bos))[0].sum())
            tokens += sum(len(window) - 1 for window in windows)
        return float(np.exp(-total / tokens))

    def solo(
        self, windows: Ragged, prompts: Lengths, targets: Lengths, bos: int | None, vocabulary: int
    ) -> SoloScores:
        """Score windows and their suffixes, see `solo_scores`."""
        values = {"bos": bos, "vocabulary": vocabulary}
        return SoloScores(*self.ask(Question("solo", (*pack(list(windows)), prompts, targets), values)))

    def __enter__(self) -> Self:
        try:
            return self.wait()
        except BaseException:
            self._worker.close()
            raise
