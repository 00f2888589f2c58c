"""What dies under Ray, and what it costs: an actor, a raylet, the driver, each in the middle of a model.

    python tests/benchmarks/ray_faults.py [--windows 24000]

One toy model is audited with two actors, in a cluster of two raylets on this machine. Each run is a
`kdaudit run` of its own; what dies is killed once the first shard of extraction, or of the scoring pass, is
written. Printed are seconds, and whether results and scores are those of one local worker. Exit code 1 if any
are not.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent))
import numpy as np
import toys

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"


def main() -> int:
    """Run them all, print a line each."""
    from ray.cluster_utils import Cluster

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--windows", type=int, default=24_000)
    asked = parser.parse_args()
    room = {"num_cpus": 1, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**room, "include_dashboard": False})
    cluster.add_node(**room)
    on_ray = ["--set", f"compute.ray={cluster.address}", "--set", "compute.workers=2"]
    with tempfile.TemporaryDirectory() as name:
        audits = Audits(Path(name), asked.windows)
        audits.run("one local worker", "alone", [])
        audits.run("two actors", "ray", on_ray)
        audits.run("an actor is killed", "actor", on_ray, _kill_actor)
        audits.run("the driver is killed", "driver", on_ray, _kill_driver)
        audits.run("... and resumed in Ray", "driver", on_ray)
        audits.run("the driver is killed", "other", on_ray, _kill_driver)
        audits.run("... and resumed locally", "other", [])
        audits.run("Ctrl-C", "interrupted", on_ray, _interrupt)
        audits.run("... and resumed in Ray", "interrupted", on_ray)
        audits.run("a raylet is killed", "raylet", on_ray, lambda _: _kill_raylet(cluster))
        cluster.add_node(**room)
        audits.run("... in the scoring pass", "scoring", on_ray, lambda _: _kill_raylet(cluster), "scores")
        cluster.shutdown()
        return not audits.equal


class Audits:
    """Runs of one audit."""

    def __init__(self, folder: Path, windows: int) -> None:
        self._folder, self.equal = folder, True
        self._expected: list[Any] | None = None
        toys.write_audit(folder)
        random = np.random.default_rng(1)
        rows = random.integers(2, toys.VOCABULARY, (windows, toys.PREFIX + toys.SUFFIX)).tolist()
        toys.write_corpus(folder / "corpus.jsonl", rows)

    def run(
        self,
        what: str,
        out: str,
        words: list[str],
        kill: Callable[[int], None] | None = None,
        during: str = "extraction",
    ) -> None:
        """One run, or the next of one that was killed, once the first shard of a stage is written."""
        began = time.monotonic()
        driver = self._start(out, words)
        stage = self._folder / out / during / "soft"
        if kill is not None:
            while driver.poll() is None and not [*stage.glob("part-*.parquet")]:
                time.sleep(0.01)
            kill(driver.pid)
        said = driver.communicate()[1].decode()
        seconds = time.monotonic() - began
        if driver.returncode == 0:
            rows = self._rows(out)
            self._expected = self._expected or rows
            same = rows == self._expected
            self.equal &= same
            told = "equal results" if same else "OTHER RESULTS"
        else:
            told = f"exit code {driver.returncode}"
            if driver.returncode not in (-signal.SIGKILL, 130):
                self.equal = False
                print(said)
        left = [line for line in said.splitlines() if "are left" in line]
        print(f"{what}: {seconds:.1f} s, {told} {left[:1] or ''}", flush=True)

    def _start(self, out: str, words: list[str]) -> subprocess.Popen[bytes]:
        student = f"models.students=[{{name: soft, path: {self._folder / 'soft'}, kd: soft}}]"
        plain = ["models.teacher=null", "models.baseline=null", "predictor.enabled=false", "holdout=null"]
        command = [sys.executable, "-m", "kdaudit", "run", "audit.yaml", "--out", out, *words]
        for one in (*plain, student):
            command += ["--set", one]
        return subprocess.Popen(command, cwd=self._folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _rows(self, out: str) -> list[Any]:
        import pyarrow.parquet as pq

        run = self._folder / out
        parts = sorted(
            part for stage in ("extraction", "scores") for part in run.glob(f"{stage}/soft/part-*")
        )
        results = json.loads((run / "results.json").read_text())
        kept = {key: results["models"]["soft"][key] for key in ("examples", "memorized", "rate", "survival")}
        return [kept, *(pq.read_table(part).to_pydict() for part in parts)]


def _kill_actor(driver: int) -> None:
    actors = [
        one
        for one in psutil.process_iter(["cmdline"])
        if "ray::Replica" in " ".join(one.info["cmdline"] or [])
    ]
    actors[0].kill()


def _kill_driver(driver: int) -> None:
    os.kill(driver, signal.SIGKILL)


def _interrupt(driver: int) -> None:
    os.kill(driver, signal.SIGINT)


def _kill_raylet(cluster: Any) -> None:
    cluster.remove_node(*cluster.worker_nodes, allow_graceful=False)


if __name__ == "__main__":
    raise SystemExit(main())
