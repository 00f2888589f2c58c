"""Does an audit's memory stay as it is while its corpus grows? `python tests/benchmarks/memory.py`

Part `audit`: one whole `kdaudit run` on a small and on a large corpus (10,000 and 200,000 examples). The
extraction's shards come from a generator in place of a model; all else is the real thing. Part
`extraction`: a real extraction of tiny models from 2,000 and 20,000 examples, by each engine installed.

Each audit runs in a fresh process. A peak is the kernel's high-water mark of resident memory (VmHWM, Linux
only), of the command's own process for each stage, and of its workers until they end. The exit code is 1
when a process grows by 10% or more from the small corpus to the large one.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from memory_inputs import write_audit

BOUND = 0.10
_MIB = 1 << 20
_COMMAND = Path(__file__).with_name("memory_audit.py")


class Peaks(NamedTuple):
    """High-water marks of one audit, in bytes."""

    stages: dict[str, int]
    """Of the command's process, by stage, in order."""
    workers: dict[str, int]
    """Of the largest worker of each service."""
    seconds: dict[str, float] = {}  # noqa: RUF012 - a tuple's
    """That each stage took."""

    @property
    def parent(self) -> int:
        """Of the command's process, over all stages."""
        return max(self.stages.values())


def measure(folder: Path, examples: int, engine: Literal["generated", "vllm", "transformers"]) -> Peaks:
    """Audit a corpus of so many distinct windows in a fresh process."""
    audit = write_audit(folder, examples, engine)
    peaks = folder / "peaks.json"
    command = [sys.executable, str(_COMMAND), str(audit), str(folder / "run"), str(peaks)]
    command += ["--generated"] if engine == "generated" else []
    # Workers do not look for modules beside the script, so they are told where memory_services.py lies.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_COMMAND.parent), *_search_path()])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode:
        raise SystemExit(f"the audit of {examples:,} examples failed:\n{done.stderr[-3000:]}")
    audited = json.loads((folder / "run" / "results.json").read_text())["corpus"]["examples"]
    if audited != examples:
        raise SystemExit(f"{audited:,} examples were audited, not {examples:,}")
    stages = json.loads((folder / "run" / "manifest.json").read_text())["stages"]
    seconds = {name: stage["seconds"] for name, stage in stages.items()}
    return Peaks(**json.loads(peaks.read_text()), seconds=seconds)


def _search_path() -> list[str]:
    return [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []


def compare(title: str, engine: Literal["generated", "vllm", "transformers"], sizes: list[int]) -> bool:
    """Measure both sizes and print them side by side; whether every process stays within the bound."""
    found = []
    for examples in sizes:
        with tempfile.TemporaryDirectory(prefix="kdaudit-memory-") as folder:
            found.append(measure(Path(folder), examples, engine))
    small, large = found
    print(f"\n{title}: peak MiB at {sizes[0]:,} and {sizes[1]:,} examples, and milliseconds an example")
    for stage in large.stages:
        each = [
            1000 * one.seconds[stage] / size
            for one, size in zip(found, sizes, strict=True)
            if stage in one.seconds
        ]
        _row(stage, small.stages.get(stage, 0), large.stages[stage], each)
    grown = {"PARENT, all stages": (small.parent, large.parent)}
    grown |= {f"WORKER {name}": (small.workers[name], large.workers[name]) for name in large.workers}
    for name, (before, after) in grown.items():
        _row(name, before, after)
    return all(after < before * (1 + BOUND) for before, after in grown.values())


def _row(name: str, before: int, after: int, each: Sequence[float] = ()) -> None:
    growth = f"{after / before - 1:+7.1%}" if before else ""
    times = "".join(f"{one:9.3f}" for one in each)
    print(f"  {name:<48} {before / _MIB:8.1f} {after / _MIB:8.1f} {growth} {times}", flush=True)


def main() -> int:
    """Measure what is asked for; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=["audit", "extraction"], help="one part alone")
    parser.add_argument("--audit", nargs=2, type=int, default=[10_000, 200_000], metavar="EXAMPLES")
    parser.add_argument("--extraction", nargs=2, type=int, default=[2_000, 20_000], metavar="EXAMPLES")
    asked = parser.parse_args()
    if not Path("/proc/self/clear_refs").exists():
        raise SystemExit("the benchmark reads the kernel's high-water marks, which takes Linux")
    held = True
    if asked.part != "extraction":
        held &= compare("Whole audit, generated extraction", "generated", asked.audit)
    if asked.part != "audit":
        if importlib.util.find_spec("vllm") is not None:
            held &= compare("Real extraction, vllm", "vllm", asked.extraction)
        else:
            print("\nReal extraction, vllm: not measured, it is not installed")
        held &= compare("Real extraction, transformers", "transformers", asked.extraction)
    print(f"\n{'within' if held else 'BEYOND'} the bound of {BOUND:.0%}")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
