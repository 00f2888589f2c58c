"""Memory that runs out: how it is recognized, and that the batch shrinks before the run gives up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import toys

from kdaudit.errors import EngineError, OutOfMemoryError, WorkerKilledError
from kdaudit.inference import EngineOptions
from kdaudit.inference.remote import explained
from kdaudit.inference.retry import ATTEMPTS, retry_on_oom
from kdaudit.inference.sizing import plan_sizes

# As torch, CUDA, Linux and vLLM 0.32 word it.
_OUT_OF_MEMORY = [
    "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 GiB",
    "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory",
    "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`",
    "ValueError: Free memory on device cuda:0 (3.2/79.1 GiB) on startup is less than desired GPU memory "
    "utilization (0.9, 71.2 GiB).",
    "ValueError: Available memory on node 0 (1.0/8.0 GiB) on kv cache allocation is less than requested "
    "memory for kv (4.0 GiB).",
    "ValueError: To serve at least one request, 1 GiB KV cache is needed, which is larger than the available "
    "KV cache memory (0.5 GiB).",
    "OSError: [Errno 12] Cannot allocate memory",
    "MemoryError: ",
]


@pytest.mark.parametrize("said", _OUT_OF_MEMORY)
def test_out_of_memory_is_recognized(said: str) -> None:
    with pytest.raises(OutOfMemoryError, match=r"^\./model: does not fit in memory"):
        with explained("./model", "vllm"):
            raise EngineError(said)


def test_another_error_is_not_taken_for_it() -> None:
    with pytest.raises(EngineError, match="cannot run this model") as told, explained("./model", "vllm"):
        raise EngineError("ValueError: Head size 8 is not supported")
    assert not isinstance(told.value, OutOfMemoryError)


@pytest.mark.parametrize("kind", [OutOfMemoryError, WorkerKilledError])
def test_work_is_tried_again_once_more_for_each_time(kind: type[EngineError]) -> None:
    tried: list[int] = []
    warnings: list[str] = []

    def work(retries: int) -> None:
        tried.append(retries)
        if retries < ATTEMPTS - 1:
            raise kind("no")

    retry_on_oom("teacher", work, warnings.append)
    assert tried == [0, 1, 2]
    assert len(warnings) == 2
    assert all(text.startswith("teacher: ") for text in warnings)


def test_the_last_time_is_an_error() -> None:
    def work(retries: int) -> None:
        raise OutOfMemoryError(f"attempt {retries}")

    with pytest.raises(OutOfMemoryError, match="attempt 2"):
        retry_on_oom("teacher", work, lambda _: None)


@pytest.mark.parametrize(
    ("sequences", "retries", "expected"), [(0, 0, 256), (0, 1, 64), (0, 2, 16), (64, 1, 16)]
)
def test_a_retry_quarters_the_batch(tmp_path: Path, sequences: int, retries: int, expected: int) -> None:
    toys.save_model(tmp_path, 1)
    options = EngineOptions("vllm", str(tmp_path), 14, max_num_seqs=sequences, retries=retries)
    sizes = plan_sizes(options, "cpu")
    assert sizes.max_num_seqs == expected
    assert sizes.batched_tokens == 16 * expected


def test_a_cpus_cache_takes_two_fifths_of_the_free_memory_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: 1 layer, keys and values of 64 numbers in 4 bytes, and a block of 128 tokens a sequence."""
    config = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 64, "dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    sequence = 2 * 64 * 4 * 128
    options = EngineOptions("vllm", str(tmp_path), max_tokens=100)
    for free, share, fit in ((100 * sequence, 1.0, 40), (100 * sequence, 0.5, 20), (sequence, 1.0, 1)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        assert plan_sizes(options._replace(memory_share=share), "cpu").max_num_seqs == fit
    before = options._replace(memory_share=0.5, free_memory=100 * sequence)
    assert plan_sizes(before, "cpu").max_num_seqs == 20, (
        "what another replica has taken meanwhile does not count"
    )
