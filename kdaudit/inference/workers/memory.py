"""What a process does with memory that it frees."""

from __future__ import annotations

import contextlib
import ctypes
import os

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Numbers of these settings in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let glibc keep what a batch or a step frees for the next one.

    Else the kernel takes each large tensor back and clears the same pages for the next: some 7% of an audit's
    time on a CPU, a tenth of a small model's training time. glibc keeps at most 1 GiB at the end of the heap,
    and any amount between what is in use. What the environment sets for malloc goes before; other C libraries
    do what they do.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    with contextlib.suppress(OSError, AttributeError):
        adjust = ctypes.CDLL(None).mallopt
        adjust(_MMAP_THRESHOLD, 32 << 20)
        adjust(_TRIM_THRESHOLD, 1 << 30)


def release_freed_memory() -> None:
    """Let glibc give the kernel back all that is free, wherever it lies; other libraries do what they do."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
