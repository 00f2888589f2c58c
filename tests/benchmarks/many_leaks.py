"""What an audit's last stages and the commands on a run take in memory, by how many leaks there are.

    python tests/benchmarks/many_leaks.py [--leaks 1000 10000 100000]

The audit is a whole `kdaudit run` whose extraction is generated: a tenth more examples than leaks, two
students, no predictor. Each command runs in a fresh process; its peak is the kernel's high-water mark
(VmHWM). Of the run it is that of the stage that assembles results.json and leaks.parquet. Exit code 1 if a
command takes over 1.5 times as much at the most leaks as at the fewest.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from memory_inputs import write_audit

_MIB = 1 << 20
_BOUND = 1.5
_RUN = Path(__file__).with_name("memory_audit.py")
_COMMAND = (
    "import sys; from pathlib import Path; from kdaudit.cli import main\n"
    "try: main(sys.argv[2:])\n"
    "except SystemExit as ended: code = ended.code\n"
    "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
    "Path(sys.argv[1]).write_text(peak); sys.exit(code)"
)
_WORDS = ["--until", "2099-01-01", "--reason", "known"]
_COMMANDS = {
    "report": ["report", "run"],
    "card": ["card", "run", "--student", "soft", "--card", "card.md"],
    "compare": ["compare", "run", "other", "--out", "compared"],
    "export csv": ["export", "run", "--format", "csv"],
    "export csv --private": ["export", "run", "--format", "csv", "--private"],
    "export sarif": ["export", "run", "--format", "sarif"],
    "accept": ["accept", "run", "--class", "inherited", "--min-duplicates", "2", *_WORDS],
}


class Cost(NamedTuple):
    """Of one command."""

    peak: float
    """MiB."""
    seconds: float


def main() -> int:
    """Measure and print; 1 where a peak grows too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--leaks", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    asked = parser.parse_args()
    held = True
    found = {leaks: _measure(leaks) for leaks in asked.leaks}
    for name in found[asked.leaks[0]]:
        costs = [found[leaks][name] for leaks in asked.leaks]
        held &= costs[-1].peak < costs[0].peak * _BOUND
        print(f"{name:<28}" + "".join(f"{one.peak:9.0f} MiB {one.seconds:6.1f} s" for one in costs))
    return 0 if held else 1


def _measure(leaks: int) -> dict[str, Cost]:
    with tempfile.TemporaryDirectory(prefix="kdaudit-leaks-") as name:
        folder = Path(name)
        costs = _audit(folder, leaks)
        there = json.loads((folder / "run/results.json").read_text())["leak_counts"]["leaks"]
        sizes = ", ".join(
            f"{one} {(folder / 'run' / one).stat().st_size / _MIB:.1f} MiB"
            for one in ("results.json", "leaks.parquet", "report.html")
        )
        print(f"{there:,} leaks: {sizes}", flush=True)
        (folder / "other").symlink_to("run2")
        subprocess.run(["cp", "-r", "run", "run2"], cwd=folder, check=True)
        return costs | {title: _command(folder, words) for title, words in _COMMANDS.items()}


def _audit(folder: Path, leaks: int) -> dict[str, Cost]:
    audit = write_audit(folder, leaks + leaks // 10, "generated")
    config: dict[str, Any] = json.loads(audit.read_text()) | {"predictor": {"enabled": False}}
    del config["holdout"]
    audit.write_text(json.dumps(config))
    words = [sys.executable, str(_RUN), str(audit), str(folder / "run"), str(folder / "peaks.json")]
    began = time.monotonic()
    _call([*words, "--generated"], folder)
    stages = json.loads((folder / "peaks.json").read_text())["stages"]
    seconds = json.loads((folder / "run/manifest.json").read_text())["stages"]["results"]["seconds"]
    return {
        "run: results": Cost(stages["results"] / _MIB, seconds),
        "run: report": Cost(stages["report"] / _MIB, 0.0),
        "run: all stages": Cost(max(stages.values()) / _MIB, time.monotonic() - began),
    }


def _command(folder: Path, words: list[str]) -> Cost:
    began = time.monotonic()
    _call([sys.executable, "-c", _COMMAND, "peak", *words], folder)
    return Cost(int((folder / "peak").read_text()) / 1024, time.monotonic() - began)


def _call(words: list[str], folder: Path) -> None:
    paths = [str(_RUN.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "KDAUDIT_MOST_LEAK": "1"}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-3000:]}")


if __name__ == "__main__":
    sys.exit(main())
