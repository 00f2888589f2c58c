"""Windows under teacher and baseline at once, in a worker process that holds both.

Each model reads each window once. All that is asked comes from these logits: perplexities, entropies, the
divergence of the two, and by teacher forcing how much of the suffix either would reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference import PRELOAD, explained
from kdaudit.inference.base import EngineInfo, Lengths, MatchedTokens, Ragged, Tokens
from kdaudit.inference.scoring.batches import Batch, Packed, batches, pack
from kdaudit.inference.scoring.broken import refuse_broken
from kdaudit.inference.scoring.forward import CausalModel, ModelFiles, Piece, logits_of, logits_room
from kdaudit.inference.scoring.softmax import Floats, Softmax
from kdaudit.inference.workers import Worker

if TYPE_CHECKING:
    import torch

_ROLES = ("teacher", "baseline")


class PairScores(NamedTuple):
    """Of each window, all (windows,). A mean is over all tokens after the first.

    Distributions are over the tokenizer's vocabulary: columns of the logits beyond it, which padded models
    have, are cut off before the softmax.
    """

    teacher_nll: Floats
    """Mean -ln p of the tokens under the teacher, in nats; exp of it is the perplexity. Means are float64."""
    baseline_nll: Floats
    kl_divergence: Floats
    """Mean of KL(teacher || baseline) = sum over the vocabulary of p_teacher ln(p_teacher / p_baseline)."""
    teacher_entropy: Floats
    """Mean entropy of the teacher's next-token distribution, in nats."""
    baseline_entropy: Floats
    teacher_matched: NDArray[np.int16]
    """Tokens of the suffix, from its first, each the argmax of the teacher's logits (of all columns, as in
    decoding) after the true tokens before it: int16."""
    baseline_matched: NDArray[np.int16]


class PairService:
    """Runs in the worker: forward passes of two models, one after the other is loaded."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._models: dict[str, CausalModel] = {}
        self._retries = int(options["retries"])
        self._vocabulary = int(options["vocabulary"])
        self._bos: tuple[int | None, int | None] = (options["teacher_bos"], options["baseline_bos"])

    def describe(self) -> None:
        """Nothing to report before the models are there."""

    def load(self, *, role: str, **files: Any) -> dict[str, str]:  # noqa: ANN401 - as `ModelFiles.options`
        """Load the teacher or the baseline."""
        self._models[role] = CausalModel.load(**files)
        return self._models[role].info._asdict()

    def scores(self, flat: Tokens, ends: Lengths, prompts: Lengths, targets: Lengths) -> PairScores:
        """Score windows.

        Args:
            flat: see `Packed`.
            ends: see `Packed`.
            prompts: tokens of each window before its target, at least one: int64 (windows,).
            targets: tokens of its target.

        """
        import torch

        models = [self._models[role] for role in _ROLES]
        room = logits_room(self._retries, *models)
        softmax = Softmax(min(self._vocabulary, *(model.columns for model in models)), models[0].device)
        means, matched = np.zeros((5, len(ends))), np.zeros((2, len(ends)), np.int16)
        for batch in batches(Packed(flat, ends), room):
            starts = prompts[batch.rows] - 1  # the logits at position i predict token i + 1
            stops = starts + targets[batch.rows]
            asked = Piece(int(starts.min()), int(stops.max()))
            with torch.inference_mode():
                values, hits = self._score(batch, models, softmax, room, asked)
            means[:, batch.rows] = [batch.means(value) for value in values]
            matched[:, batch.rows] = [_leading(hit, asked, starts, stops) for hit in hits]
        return PairScores(*means, *matched)

    def _score(
        self, batch: Batch, models: Sequence[CausalModel], softmax: Softmax, room: int, asked: Piece
    ) -> tuple[Floats, NDArray[np.bool_]]:
        """Scores of each position (5, rows, positions), and hits (2, rows, asked positions)."""
        import torch

        values = np.zeros((5, *batch.inputs.shape))
        hits = np.zeros((2, len(batch.rows), asked.stop - asked.start), np.bool_)
        targets = torch.from_numpy(batch.targets).to(models[0].device)
        for piece, logits in logits_of(batch, room, models, self._bos):
            for hit, one in zip(hits, logits, strict=True):
                _compare(hit, one, targets, piece, asked)
            there = targets[:, slice(*piece)]
            teacher_logits, baseline_logits = (one.flatten(0, 1) for one in logits)
            sums = softmax.pair(teacher_logits, baseline_logits, there.flatten())
            teacher, baseline = sums.teacher, sums.baseline
            measures = (
                teacher.nll,
                baseline.nll,
                sums.kl_divergence,
                teacher.entropy,
                baseline.entropy,
            )
            values[:, :, slice(*piece)] = np.reshape(measures, (5, *there.shape))
            del one, teacher_logits, baseline_logits  # before the next piece's are made
        return values, hits


def _compare(
    hits: NDArray[np.bool_], logits: torch.Tensor, targets: torch.Tensor, piece: Piece, asked: Piece
) -> None:
    """Fill in which asked tokens within the piece are the argmax."""
    start, stop = max(piece.start, asked.start), min(piece.stop, asked.stop)
    if start < stop:
        found = logits[:, start - piece.start : stop - piece.start].argmax(-1)
        right = (found == targets[:, start:stop]).cpu().numpy()
        hits[:, start - asked.start : stop - asked.start] = right


def _leading(hits: NDArray[np.bool_], asked: Piece, starts: Lengths, stops: Lengths) -> MatchedTokens:
    """Hits of each row from its start to the first miss, or its stop: int16 (rows,)."""
    places = np.arange(*asked)
    before, inside = places < starts[:, None], places < stops[:, None]
    run = np.cumprod(hits | before, axis=1) * (inside & ~before)
    matched: MatchedTokens = run.sum(axis=1).astype(np.int16)
    return matched


class PairWorker:
    """Teacher and baseline in a process of their own; a context manager that ends the process.

    Args:
        teacher: the teacher's files.
        baseline: the baseline's files.
        vocabulary: columns of both models' logits that stand for tokens.
        teacher_bos: BOS token that the teacher reads before each window, or None.
        baseline_bos: the same of the baseline.
        retries: as in `EngineOptions`.

    Raises:
        EngineError: as `explained`.

    """

    def __init__(
        self,
        teacher: ModelFiles,
        baseline: ModelFiles,
        *,
        vocabulary: int,
        teacher_bos: int | None,
        baseline_bos: int | None,
        retries: int,
    ) -> None:
        self._files = (teacher, baseline)
        self._both = f"{teacher.folder} and {baseline.folder}"
        self.seconds = 0.0
        """Time inside the worker, over all windows scored."""
        options = {
            "vocabulary": vocabulary,
            "teacher_bos": teacher_bos,
            "baseline_bos": baseline_bos,
            "retries": retries,
        }
        with explained(self._both, "transformers"):
            self._worker = Worker(
                "kdaudit.inference.scoring.pair:PairService", options, PRELOAD["transformers"]
            )
        try:
            self._load()
        except BaseException:
            self._worker.close()
            raise

    def _load(self) -> None:
        infos = []
        for role, files in zip(_ROLES, self._files, strict=True):
            with explained(str(files.folder), "transformers"):
                told = self._worker.call("load", role=role, **files.options()).head["value"]
            infos.append(EngineInfo(**told))
        self.info = infos[0]
        """Version, device and dtype, of the teacher."""

    def scores(self, windows: Ragged, prompts: Lengths, targets: Lengths) -> PairScores:
        """Score windows.

        Args:
            windows: without BOS tokens, each at least as long as prompt and target.
            prompts: tokens of each window before its target, at least one: int64 (windows,).
            targets: tokens of its target.

        Raises:
            EngineError: as `explained`.
            ModelError: a model gives numbers that are not finite.
            ValueError: a window is too short.

        """
        packed = pack(list(windows), prompts + targets)
        with explained(self._both, "transformers"):
            answer = self._worker.call("scores", *packed, prompts, targets)
        self.seconds += float(answer.head["seconds"])
        found = PairScores(*answer.arrays)
        teacher, baseline = self._files
        refuse_broken(teacher, [found.teacher_nll, found.teacher_entropy])
        refuse_broken(baseline, [found.baseline_nll, found.baseline_entropy])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.close()
