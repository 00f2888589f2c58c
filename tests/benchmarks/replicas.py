"""Speed-up of extraction by replicas: one worker against two or more, each one thread on its own core.

    python tests/benchmarks/replicas.py [--model FOLDER] [--engine vllm] [--workers 1 2] [--ray]

Windows hold random ids, which a model leaves at their first tokens, as it leaves most text. Seconds are those
in which shards are mapped, without loading. With --ray the workers are actors, each number of them in a
cluster of its own with as many cores on this machine. Without --model one of random weights is made. The
last shard bounds the speed-up: `at most` says what even work would give with these shards. Exit code 1 if
replicas match other tokens than one worker.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np

from kdaudit.attacks import GREEDY
from kdaudit.inference import Batch, EngineOptions, Ragged
from kdaudit.inference.executors import Executor, LocalExecutor, ModelJob, Shard
from kdaudit.inference.executors.places import usable_cores
from kdaudit.inference.executors.ray import RayExecutor

_PREFIX = _SUFFIX = 50
_VOCABULARY = 4096


class Timed(NamedTuple):
    """One extraction."""

    seconds: float
    matched: dict[str, list[int]]


def main() -> int:
    """Measure each number of workers in turn, so often; print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="transformers")
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=2048)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ray", action="store_true", help="workers are Ray's actors")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        model = asked.model or _random_model(Path(scratch))
        options = EngineOptions(asked.engine, str(model), _PREFIX + _SUFFIX, "float32")
        shards = [*_shards(asked.windows, asked.shard_rows)]
        runs = []
        for _, count in product(range(asked.repeats), asked.workers):
            with _executor(count, ray=asked.ray) as executor:
                runs.append((count, _extract(executor, options, shards)))
    seconds = {
        count: statistics.median(run.seconds for own, run in runs if own == count) for count in asked.workers
    }
    alone = seconds[asked.workers[0]]
    for count, took in seconds.items():
        print(f"{count} workers: {took:.1f} s, {alone / took:.2f} times; at most {_bound(shards, count):.2f}")
    equal = all(run.matched == runs[0][1].matched for _, run in runs)
    print("equal results" if equal else "OTHER RESULTS")
    return not equal


@contextmanager
def _executor(workers: int, *, ray: bool) -> Iterator[Executor]:
    if workers > len(usable_cores()):
        raise SystemExit(f"{workers} workers need as many cores")
    if not ray:
        yield LocalExecutor(workers)
        return
    from ray.cluster_utils import Cluster

    # An actor has its share of the cluster's cores: as many as there are workers make one thread for each.
    room = {"num_cpus": workers, "object_store_memory": 160 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=room)
    try:
        with RayExecutor(cluster.address, workers, print) as executor:
            yield executor
    finally:
        cluster.shutdown()


def _extract(executor: Executor, options: EngineOptions, shards: list[Shard]) -> Timed:
    with executor.load(ModelJob(options, len(shards))) as model:
        began = time.monotonic()
        found = {one.name: one.done.rows["matched_tokens"].to_pylist() for one in model.map(GREEDY, shards)}
        return Timed(time.monotonic() - began, found)


def _bound(shards: list[Shard], workers: int) -> float:
    """The speed-up if a shard took as long as it has rows: each goes to the worker that is free first."""
    busy = [0] * workers
    for shard in shards:
        busy[busy.index(min(busy))] += len(shard.examples.example_ids)
    return sum(busy) / max(busy)


def _shards(windows: int, rows: int) -> Iterator[Shard]:
    random = np.random.default_rng(0)
    for start in range(0, windows, rows):
        ids = np.arange(start, min(start + rows, windows))
        texts = random.integers(2, _VOCABULARY, (len(ids), _PREFIX + _SUFFIX))
        prompts, targets = Ragged.of(texts[:, :_PREFIX]), Ragged.of(texts[:, _PREFIX:])
        yield Shard(str(start), Batch(ids, prompts, targets))


def _random_model(folder: Path) -> Path:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    raise SystemExit(main())
