"""What the fuzzers share: seeded cases, bounded in time and memory, each an input that a user may meet.

A fuzzer is a script beside this file with an `attempt(random, folder)`: it makes one hostile input in an
empty folder, gives it to the product, and returns what went wrong in a sentence, or None.

`python tests/benchmarks/fuzz_NAME.py --cases N --seed S` runs N of them and prints how many failed;
tests/test_fuzz.py runs the first few of each.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

Attempt = Callable[[random.Random, Path], str | None]


def run_case(attempt: Attempt, seed: int, case: int) -> str | None:
    """Run one case in a folder of its own; equal numbers make equal cases."""
    with tempfile.TemporaryDirectory(prefix="kdaudit-fuzz-") as folder:
        failure = attempt(random.Random(f"{seed}/{case}"), Path(folder))
    return None if failure is None else f"case {case} of seed {seed}: {failure}"


def main(attempt: Attempt, *, cases: int) -> None:
    """Run a fuzzer from the command line; exit code 1 if a case failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="run this case alone")
    args = parser.parse_args()
    numbers = range(args.cases) if args.only is None else [args.only]
    failures = [failure for case in numbers if (failure := run_case(attempt, args.seed, case)) is not None]
    for failure in failures:
        print(failure)
    print(f"{len(numbers)} cases, {len(failures)} failures")
    raise SystemExit(1 if failures else 0)
