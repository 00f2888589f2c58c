"""One model on its own windows and their suffixes: the figures of `pair` that need no second model.

Where teacher and baseline read text as different tokens, each is scored by itself. Nothing that compares
their distributions, which are over different vocabularies, is defined then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kdaudit.inference.base import Lengths, MatchedTokens
from kdaudit.inference.scoring.batches import Packed, PaddedBatch, batches
from kdaudit.inference.scoring.forward import CausalModel, logits_of, logits_room
from kdaudit.inference.scoring.softmax import Floats, Softmax
from kdaudit.inference.scoring.suffix import Leads, Suffixes


class SoloScores(NamedTuple):
    """Of each window under one model: float64 (windows,), as the fields of these names in `PairScores`."""

    nll: Floats
    entropy: Floats
    matched: MatchedTokens
    suffix_nll: Floats
    suffix_entropy: Floats
    suffix_min_k: Floats
    suffix_worst: Floats
    suffix_margin: Floats
    suffix_spread: Floats


def solo_scores(
    model: CausalModel,
    packed: Packed,
    prompts: Lengths,
    targets: Lengths,
    bos: int | None,
    vocabulary: int,
    retries: int,
) -> SoloScores:
    """Score windows.

    Args:
        model: the model.
        packed: the windows, without BOS tokens, each at least as long as prompt and target.
        prompts: tokens of each window before its target, at least one: int64 (windows,).
        targets: tokens of its target.
        bos: BOS token that stands before each window, or None.
        vocabulary: columns of the logits that stand for tokens.
        retries: as in `EngineOptions`.

    """
    import torch

    room = logits_room(retries, model)
    softmax = Softmax(min(vocabulary, model.columns), model.device)
    rows, found = [], []
    for batch in batches(packed, room):
        starts = prompts[batch.rows] - 1  # the logits at position i predict token i + 1
        suffixes = Suffixes.between(starts, starts + targets[batch.rows], batch.inputs.shape[1])
        with torch.inference_mode():
            scored = _score(model, batch, bos, softmax, room, suffixes)
        rows += batch.rows
        found.append(scored)
    places = np.argsort(rows)
    return SoloScores(*(np.concatenate(one)[places] for one in zip(*found, strict=True)))


def _score(
    model: CausalModel, batch: PaddedBatch, bos: int | None, softmax: Softmax, room: int, suffixes: Suffixes
) -> SoloScores:
    import torch

    nll, entropy = np.zeros((2, *batch.inputs.shape))
    leads = Leads.empty(batch.inputs.shape)
    targets = torch.from_numpy(batch.targets).to(model.device)
    for piece, logits in logits_of(batch, room, [model], [bos]):
        leads.fill(logits[0], targets, piece, suffixes)
        there = (slice(None), slice(*piece))
        sums = softmax.single(logits[0].flatten(0, 1), targets[there].flatten())
        shape = batch.inputs[there].shape
        nll[there], entropy[there] = sums.nll.reshape(shape), sums.entropy.reshape(shape)
    return SoloScores(
        batch.means(nll),
        batch.means(entropy),
        suffixes.matched(leads.hit),
        *suffixes.scores(nll, entropy, leads),
    )
