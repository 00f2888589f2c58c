"""What the corpus stage costs.

    python tests/benchmarks/corpus.py TOKENIZER TEXT.jsonl(.xz)... [--windows N] [--ray N]

Documents are repeated until there are so many windows; in each repetition of one its words are shuffled
within stretches of a few, so that tokens stay natural and windows distinct. One document in twenty is
repeated as it is. The stage then runs in a fresh process: read, tokenize, cut, make distinct, write, count
suffixes, read again. Prints seconds of each part, this process's CPU seconds in them and its high-water mark
of memory (VmHWM), and a hash of the examples. With `--ray` the text is encoded in a Ray cluster of so many
nodes of one core on this machine; what the driver's CPU seconds are less by is what more nodes can gain.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kdaudit.inference.executors import Executor, LocalExecutor
from kdaudit.inference.executors.ray import RayExecutor
from kdaudit.inference.executors.ray import executor as ray_executor

_STRETCH = 6
"""Words that are shuffled together."""


def main() -> None:
    """Write the corpus, run the stage, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--windows", type=int, default=100_000)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--ray", type=int, default=0, metavar="N")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdaudit-corpus-") as name:
        corpus = Path(name, "corpus.jsonl")
        written = _write_corpus(corpus, asked.texts, asked.windows * asked.window)
        print(f"{written:,} documents, {corpus.stat().st_size / 1e6:.0f} MB of JSON", flush=True)
        pid = os.fork()
        if not pid:
            with _cluster(asked.ray) as executor:
                _stage(Path(name, "run"), corpus, asked.tokenizer, asked.window, executor)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        sys.exit(os.waitstatus_to_exitcode(status))


def _write_corpus(path: Path, texts: list[Path], tokens: int) -> int:
    """Write documents of about so many tokens of four and a half characters; give how many."""
    rng, documents, left, count = random.Random(0), [*_texts(texts)], tokens * 4.5, 0
    with path.open("w") as file:
        while left > 0:
            text = rng.choice(documents)
            if count >= len(documents) and rng.random() > 0.05:
                text = _shuffled(text, rng)
            file.write(json.dumps({"id": count, "text": text}) + "\n")
            left, count = left - len(text), count + 1
    return count


def _texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open() as file:
            yield from (json.loads(line)["text"] for line in file)


def _shuffled(text: str, rng: random.Random) -> str:
    words = text.split(" ")
    for start in range(0, len(words), _STRETCH):
        some = words[start : start + _STRETCH]
        rng.shuffle(some)
        words[start : start + _STRETCH] = some
    return " ".join(words)


class _Clock:
    """Seconds and CPU seconds of each part, by what progress says."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self._part, self._last = "start", self._now()

    @staticmethod
    def _now() -> tuple[float, float]:
        times = os.times()
        return time.monotonic(), times.user + times.system

    def progress(self, what: str, *_: int) -> None:
        now = self._now()
        part = self.parts.setdefault(self._part, [0.0, 0.0])
        for place in range(2):
            part[place] += now[place] - self._last[place]
        self._part, self._last = what.split(",")[0], now


@contextmanager
def _cluster(nodes: int) -> Iterator[Executor]:
    """What encodes: this process, or a cluster of so many nodes."""
    if not nodes:
        yield LocalExecutor()
        return
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray_executor.usable_cores = lambda: [0]  # few nodes are measured too, where this machine would do without
    from ray.cluster_utils import Cluster

    room = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
    for _ in range(nodes - 1):
        cluster.add_node(**room)
    try:
        with RayExecutor(cluster.address, None, print) as executor:
            yield executor
    finally:
        cluster.shutdown()


def _stage(folder: Path, corpus: Path, tokenizer: Path, window: int, executor: Executor) -> None:
    from transformers import AutoTokenizer

    from kdaudit.config.corpus import CorpusRef
    from kdaudit.config.extraction import ExtractionConfig
    from kdaudit.corpus import pin_source
    from kdaudit.inference import Split
    from kdaudit.pipelines.stages.examples import write_examples
    from kdaudit.runs.store import RunStore

    clock = _Clock()
    check = SimpleNamespace(look=lambda _: None, finish=lambda: None)
    models = SimpleNamespace(
        all=[],
        by_text=(),
        differences=dict,
        reading_check=lambda *_: check,
        tokenizer=AutoTokenizer.from_pretrained(tokenizer),
    )
    source = pin_source(CorpusRef(path=str(corpus), id="id", window=window))
    with RunStore(folder, "corpus", {}) as run:
        work: Any = SimpleNamespace(
            run=run,
            models=models,
            executor=executor,
            extraction=ExtractionConfig(),
            split=Split(50, 50, None),
            chats={},
            seed=0,
            progress=clock.progress,
        )
        print(f"before: {_peak():.0f} MiB", flush=True)
        Path("/proc/self/clear_refs").write_text("5")
        clock.progress("rest")
        found = write_examples(work, source, "corpus", "examples")
        clock.progress("end")
    for part, (seconds, used) in clock.parts.items():
        print(f"{part:<70} {seconds:8.1f} s {used:8.1f} s of CPU")
    total = sum(seconds for seconds, _ in clock.parts.values())
    print(f"{found.windows:,} windows, {found.examples:,} examples, {total:.1f} s")
    print(f"peak: {_peak():.0f} MiB")
    parts = hashlib.sha256()
    for part in sorted((folder / "examples").glob("part-*")):
        parts.update(part.read_bytes())
    print(f"examples: {parts.hexdigest()[:16]}")


def _peak() -> float:
    """High-water mark, in MiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
