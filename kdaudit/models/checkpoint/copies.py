"""Models with the same weights under two names: one is compared with itself, by mistake or by a copy.

Found where all tensors have equal names, dtypes, shapes and bytes, however they are spread over files. A copy
whose tensors were renamed, cast to another dtype or changed by so much as a bit is not found.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from kdaudit.models.checkpoint.weights import Tensor, Weights
from kdaudit.runs.files import open_regular

_CHUNK_BYTES = 1 << 23


def equal_models(models: dict[str, Weights]) -> Iterator[tuple[str, str]]:
    """Pairs of models, by name, that have the same weights; each is paired with the first it equals."""
    found: set[str] = set()
    for one, two in combinations(models, 2):
        if two not in found and one not in found and _equal(models[one], models[two]):
            found.add(two)
            yield one, two


def _equal(one: Weights, two: Weights) -> bool:
    """Whether all tensors are equal; the first difference ends it. A model behind an endpoint has none."""
    if not one.tensors or _shapes(one) != _shapes(two):
        return False
    pairs = ((tensor, two.tensors[name]) for name, tensor in sorted(one.tensors.items()))
    return all(_equal_bytes(left, right) for left, right in pairs)


def _shapes(weights: Weights) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in weights.tensors.items()}


def _equal_bytes(one: Tensor, two: Tensor) -> bool:
    if (one.file, one.start) == (two.file, two.start):
        return True
    with open_regular(one.file) as left, open_regular(two.file) as right:
        left.seek(one.start)
        right.seek(two.start)
        remaining = one.stop - one.start
        while remaining:
            step = min(_CHUNK_BYTES, remaining)
            if left.read(step) != right.read(step):
                return False
            remaining -= step
    return True
