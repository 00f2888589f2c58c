"""Windows under teacher and baseline at once, in a worker process that holds both.

Each model reads each window once. All that is asked comes from these logits: perplexities, entropies and the
divergence of the two, over the window and over its suffix, and by teacher forcing how much of the suffix
either would reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import EngineInfo, Lengths, Ragged, Tokens
from kdaudit.inference.remote import PRELOAD, explained
from kdaudit.inference.scoring.batches import Packed, PaddedBatch, batches, pack
from kdaudit.inference.scoring.broken import refuse_broken
from kdaudit.inference.scoring.forward import CausalModel, ModelFiles, logits_of, logits_room
from kdaudit.inference.scoring.softmax import Floats, Softmax
from kdaudit.inference.scoring.suffix import Leads, Suffixes
from kdaudit.inference.workers import HoldsWorker, Start, begin_worker

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
    suffix_kl_divergence: Floats
    """As `kl_divergence`, over the suffix alone."""
    teacher_suffix_nll: Floats
    """This and all below: see `SuffixScores`."""
    teacher_suffix_entropy: Floats
    teacher_suffix_min_k: Floats
    teacher_suffix_worst: Floats
    teacher_suffix_margin: Floats
    teacher_suffix_spread: Floats
    baseline_suffix_nll: Floats
    baseline_suffix_entropy: Floats
    baseline_suffix_min_k: Floats
    baseline_suffix_worst: Floats
    baseline_suffix_margin: Floats
    baseline_suffix_spread: Floats


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
        rows, found = [], []
        for batch in batches(Packed(flat, ends), room):
            starts = prompts[batch.rows] - 1  # the logits at position i predict token i + 1
            suffixes = Suffixes.between(starts, starts + targets[batch.rows], batch.inputs.shape[1])
            with torch.inference_mode():
                scored = self._score(batch, models, softmax, room, suffixes)
            rows += batch.rows
            found.append(_scores(batch, suffixes, *scored))
        places = np.argsort(rows)
        return PairScores(*(np.concatenate(one)[places] for one in zip(*found, strict=True)))

    def _score(
        self,
        batch: PaddedBatch,
        models: Sequence[CausalModel],
        softmax: Softmax,
        room: int,
        suffixes: Suffixes,
    ) -> tuple[Floats, list[Leads]]:
        """The first five of `PairScores` at each position, (5, rows, positions), and both models' leads."""
        import torch

        values = np.zeros((5, *batch.inputs.shape))
        leads = [Leads.empty(batch.inputs.shape) for _ in models]
        targets = torch.from_numpy(batch.targets).to(models[0].device)
        for piece, logits in logits_of(batch, room, models, self._bos):
            for lead, one in zip(leads, logits, strict=True):
                lead.fill(one, targets, piece, suffixes)
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
        return values, leads


def _scores(batch: PaddedBatch, suffixes: Suffixes, values: Floats, leads: list[Leads]) -> PairScores:
    """Scores of a batch's windows, all (rows,)."""
    teacher_nll, baseline_nll, divergence, teacher_entropy, baseline_entropy = values
    teacher, baseline = leads
    means = [batch.means(value) for value in values]
    return PairScores(
        means[0],
        means[1],
        means[2],
        means[3],
        means[4],
        suffixes.matched(teacher.hit),
        suffixes.matched(baseline.hit),
        suffixes.mean(divergence),
        *suffixes.scores(teacher_nll, teacher_entropy, teacher),
        *suffixes.scores(baseline_nll, baseline_entropy, baseline),
    )


class PairDone(NamedTuple):
    """What came of some windows, and what it took."""

    scores: PairScores
    seconds: float
    """Time inside the worker."""


class PairWorker(HoldsWorker):
    """Teacher and baseline in a process of their own; a context manager that ends the process.

    They begin to load with the object; `wait` waits for it.

    Args:
        teacher: the teacher's files.
        baseline: the baseline's files.
        vocabulary: columns of both models' logits that stand for tokens.
        teacher_bos: BOS token that the teacher reads before each window, or None.
        baseline_bos: the same of the baseline.
        retries: as in `EngineOptions`.
        start: begins the process.

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
        start: Start = begin_worker,
    ) -> None:
        self._files = (teacher, baseline)
        self._both = f"{teacher.folder} and {baseline.folder}"
        options = {
            "vocabulary": vocabulary,
            "teacher_bos": teacher_bos,
            "baseline_bos": baseline_bos,
            "retries": retries,
        }
        with explained(self._both, "transformers"):
            self._worker = start(
                "kdaudit.inference.scoring.pair:PairService", options, PRELOAD["transformers"]
            )
        try:
            for role, files in zip(_ROLES, self._files, strict=True):
                self._worker.send("load", role=role, **files.options())
        except BaseException:
            self._worker.close()
            raise

    def wait(self) -> Self:
        """Wait until both models are loaded; the process ends if they cannot be."""
        infos = []
        try:
            self._worker.wait()
            for files in self._files:
                with explained(str(files.folder), "transformers"):
                    infos.append(EngineInfo(**self._worker.receive().head["value"]))
        except BaseException:
            self._worker.close()
            raise
        self.info = infos[0]
        """Version, device and dtype, of the teacher."""
        return self

    def fileno(self) -> int:
        """What can be read from once windows that were begun are done, or the process has ended."""
        return self._worker.fileno()

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
        self.begin(windows, prompts, targets)
        return self.finish().scores

    def begin(self, windows: Ragged, prompts: Lengths, targets: Lengths) -> None:
        """Begin to score windows, as `scores` does."""
        packed = pack(list(windows), prompts + targets)
        with explained(self._both, "transformers"):
            self._worker.send("scores", *packed, prompts, targets)

    def finish(self) -> PairDone:
        """Wait for the oldest windows begun."""
        with explained(self._both, "transformers"):
            answer = self._worker.receive()
        found = PairScores(*answer.arrays)
        teacher, baseline = self._files
        refuse_broken(teacher, [found.teacher_nll, found.teacher_entropy])
        refuse_broken(baseline, [found.baseline_nll, found.baseline_entropy])
        return PairDone(found, float(answer.head["seconds"]))
