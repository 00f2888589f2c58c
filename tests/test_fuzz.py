"""The first cases of every fuzzer in tests/benchmarks, whose scripts run all of them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parent / "benchmarks"
CASES = 25
"""Of each fuzzer, unless its `CASES_IN_CI` says otherwise."""
SCRIPTS = sorted(BENCHMARKS.glob("fuzz_*.py"))


def load(script: Path) -> ModuleType:
    """A fuzzer as a module; what stands beside it can be imported, as when it runs as a script."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    spec = importlib.util.spec_from_file_location(script.stem, script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[script.stem] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_first_cases_of_a_fuzzer_find_nothing(script: Path) -> None:
    fuzzer = load(script)
    run_case = sys.modules["fuzzing"].run_case
    cases = range(getattr(fuzzer, "CASES_IN_CI", CASES))
    failures = [failure for case in cases if (failure := run_case(fuzzer.attempt, 0, case)) is not None]
    assert not failures, "\n".join(failures)
