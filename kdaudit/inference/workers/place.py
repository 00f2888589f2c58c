"""What of the machine a worker may use: GPUs or cores of its own, or all there is."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """What a worker may use; by default all there is."""

    gpus: tuple[str, ...] = ()
    """As CUDA_VISIBLE_DEVICES names them."""
    cores: tuple[int, ...] = ()
    """Logical cores, by the system's number."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables that tell libraries so before they are imported."""
        if self.gpus:
            return {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}
        if self.cores:
            bound = ",".join(map(str, self.cores))
            return {"OMP_NUM_THREADS": str(len(self.cores)), "VLLM_CPU_OMP_THREADS_BIND": bound}
        return {}


def bind(cores: Sequence[int]) -> None:
    """Keep this process on these cores, as many threads as cores; torch may be imported already."""
    if not cores:
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(len(cores))
