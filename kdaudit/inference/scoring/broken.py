"""Models whose numbers are of no use: told by name, never passed on as features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import ModelError
from kdaudit.inference.scoring.forward import ModelFiles


def refuse_broken(files: ModelFiles, scores: Sequence[NDArray[Any]]) -> None:
    """Refuse scores that are NaN or infinite.

    Args:
        files: the model that they come from.
        scores: (windows,) each.

    Raises:
        ModelError: some window has one.

    """
    broken: NDArray[np.bool_] = ~np.isfinite(np.stack(scores)).all(axis=0)
    if broken.any():
        raise ModelError(
            f"{files.folder}: it gives NaN or infinite logits for {broken.sum():,} of "
            f"{len(broken):,} windows",
            fix="if it is loaded as float16 or bfloat16, set its dtype to float32, else its weights "
            "are damaged: copy or train it again",
        )
