"""Adapters and packed weights as whole models: made when one is to be loaded, removed with the run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from kdaudit.inference.merging import MergeFiles, merge
from kdaudit.inference.unpacking import unpack, unpacks
from kdaudit.models.resolving import ResolvedModel

_KEPT = 2
"""Merged models on disk at once: features read two models together."""


class MergedModels:
    """Folders that models are loaded from; a context manager that removes those that it made.

    Args:
        scratch: an empty folder that is gone when its block ends.
        progress: told of each model that is made.

    """

    def __init__(
        self, scratch: Callable[[], AbstractContextManager[Path]], progress: Callable[[str, int, int], None]
    ) -> None:
        self._scratch = scratch
        self._progress = progress
        self._made: OrderedDict[tuple[str, str], tuple[Path, ExitStack]] = OrderedDict()
        """By name and dtype; the last one used stands last."""

    def folder(self, name: str, model: ResolvedModel, dtype: str, *, packed: bool = False) -> Path:
        """Where a model's weights lie, as an engine can load them.

        Args:
            name: the model's, for progress.
            model: the model.
            dtype: auto, float32, bfloat16 or float16: what it will be run in.
            packed: whether the engine reads weights that GPTQ or AWQ packed.

        Raises:
            EngineError: an adapter could not be merged, or weights not be unpacked.

        """
        if model.adapted is None and (packed or not unpacks(model.quantization)):
            return model.folder
        if (name, dtype) not in self._made:
            while len(self._made) >= _KEPT:
                _, oldest = self._made.popitem(last=False)
                oldest[1].close()
            self._make(name, model, dtype)
        self._made.move_to_end((name, dtype))
        return self._made[name, dtype][0]

    def _make(self, name: str, model: ResolvedModel, dtype: str) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(self._scratch()).absolute() / name  # a worker may stand elsewhere
            folder.mkdir()
            if (adapted := model.adapted) is None:
                self._progress(f"{name}: unpacking its weights", 0, 0)
                unpack(model.folder, dtype, folder)
            else:
                self._progress(f"{name}: merging the adapter into its base model", 0, 0)
                merge(MergeFiles(model.folder, adapted.adapter.folder, adapted.rows, dtype), folder)
            self._made[name, dtype] = folder, stack.pop_all()

    def __enter__(self) -> MergedModels:
        return self

    def __exit__(self, *_: object) -> None:
        for _folder, made in self._made.values():
            made.close()
        self._made.clear()
