"""Where the wall time of a whole `kdaudit run` goes: inside the models' steps, and outside of them.

    python tests/benchmarks/whole_run.py --models kdaudit-demo/models --examples 20000 TEXT.jsonl...

The models are those of `kdaudit demo`. Files may be .xz; their documents are taken in turn. Exit code 1 if
more than 15% of the time is spent outside the models' steps: those of the engine, and with `--predictor` the
forward passes that give entropies and features.
"""

from __future__ import annotations

import argparse
import json
import lzma
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path

import pyarrow.parquet as pq

_BOUND = 0.15
_DOCUMENTS_AN_EXAMPLE = 0.6
"""Documents read for each example: articles of an encyclopedia or of news give about two windows each."""


def main() -> int:
    """Run, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--predictor", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_corpus(folder / "corpus.jsonl", asked.texts, int(asked.examples * _DOCUMENTS_AN_EXAMPLE))
        (folder / "audit.yaml").write_text(_audit(asked.models.resolve(), asked))
        began = time.monotonic()
        command = [sys.executable, "-m", "kdaudit", "run", "audit.yaml", "--out", "run"]
        subprocess.run(command, cwd=folder, check=True)
        return _report(folder / "run", time.monotonic() - began)


def _write_corpus(path: Path, texts: list[Path], count: int) -> None:
    with ExitStack() as stack, path.open("w") as out:
        files = [
            stack.enter_context((lzma.open if text.suffix == ".xz" else open)(text, "rt")) for text in texts
        ]
        lines: Iterator[str] = (line for lines in zip_longest(*files) for line in lines if line)
        for _, line in zip(range(count), lines, strict=False):
            out.write(json.dumps({"text": json.loads(line)["text"]}) + "\n")


def _audit(models: Path, asked: argparse.Namespace) -> str:
    seed = models / "seed-0"
    students = "".join(f"    - {{name: {kd}, path: {seed / kd}, kd: {kd}}}\n" for kd in ("soft", "hard"))
    return (
        f"name: whole\ncorpus: {{path: ./corpus.jsonl, limit: {asked.examples}}}\n"
        f"predictor: {{enabled: {str(asked.predictor).lower()}}}\nmodels:\n"
        f"  teacher: {models / 'teacher'}\n  baseline: {seed / 'baseline'}\n  students:\n{students}"
    )


def _report(run: Path, wall: float) -> int:
    manifest = json.loads((run / "manifest.json").read_text())
    stages = {name: stage["seconds"] for name, stage in manifest["stages"].items()}
    folders = ("extraction", "entropy", "features")
    shards = [shard for folder in folders for shard in (run / folder).rglob("*.parquet")]
    inside = sum(float(pq.read_schema(shard).metadata[b"seconds"]) for shard in shards)
    examples = json.loads((run / "results.json").read_text())["corpus"]["examples"]
    print(f"{examples:,} examples, {wall:.1f} s; inside the models' steps {inside:.1f} s")
    for name, seconds in stages.items():
        folder = name.replace("perplexity/", "entropy/")
        own = [shard for shard in shards if str(shard).startswith(str(run / folder))]
        steps = sum(float(pq.read_schema(shard).metadata[b"seconds"]) for shard in own)
        print(f"  {name:24} {seconds:8.1f} s, of them {steps:8.1f} s in steps")
    print(f"  {'before and between':24} {wall - sum(stages.values()):8.1f} s")
    share = 1 - inside / wall
    print(f"outside the models' steps: {share:.1%} (bound {_BOUND:.0%})")
    return int(share > _BOUND)


if __name__ == "__main__":
    sys.exit(main())
