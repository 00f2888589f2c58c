"""One `kdaudit run` that notes its peaks: what the memory benchmark starts in a fresh process.

    python memory_audit.py AUDIT_YAML RUN_DIR PEAKS_JSON [--generated]

With --generated, workers hold the services of memory_services.py in the place of models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdaudit.__main__ import main
from kdaudit.inference import remote
from kdaudit.inference.workers import Worker
from kdaudit.pipelines.stages import extracting
from kdaudit.runs.store import RunStore


class Meter:
    """Peaks of this process by stage, and of its workers by service."""

    def __init__(self, *, generated: bool) -> None:
        self.stages: dict[str, int] = {}
        self.workers: dict[str, int] = {}
        self._generated = generated

    def take(self, stage: str) -> None:
        """Note the high-water mark since the last call under a name, and lower it to the present use."""
        self.stages[stage] = max(self.stages.get(stage, 0), high_water("self"))
        Path("/proc/self/clear_refs").write_text("5")

    def watch_stages(self) -> None:
        """Take the mark wherever a stage begins and ends."""
        original = RunStore.stage

        @contextmanager
        def stage(store: RunStore, name: str, *rest: Any, **named: Any) -> Iterator[None]:
            self.take("between stages" if self.stages else "start: imports, tokenizer")
            with original(store, name, *rest, **named):
                yield
            self.take(name)

        RunStore.stage = stage  # type: ignore[method-assign, assignment]

    def watch_workers(self) -> None:
        """Take each worker's mark before it is ended."""
        begin, close = Worker.__init__, Worker.close
        services: dict[int, str] = {}

        def note(worker: Worker, service: str, *given: Any, **named: Any) -> None:
            services[id(worker)] = service.rpartition(":")[2]
            begin(worker, _generated(service) if self._generated else service, *given, **named)

        def end(worker: Worker) -> None:
            name, mark = services[id(worker)], high_water(str(worker.pid))
            self.workers[name] = max(self.workers.get(name, 0), mark)
            close(worker)

        Worker.__init__, Worker.close = note, end  # type: ignore[method-assign, assignment]


def _generated(service: str) -> str:
    names = {"FeatureService": "GeneratedFeatures", "PairService": "GeneratedPair"}
    return f"memory_services:{names.get(service.rpartition(':')[2], 'GeneratedEngine')}"


def high_water(process: str) -> int:
    """Highest resident memory of a process so far, in bytes."""
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def run(audit: Path, folder: Path, peaks: Path, *, generated: bool) -> None:
    """Run the command and write its peaks."""
    meter = Meter(generated=generated)
    meter.watch_stages()
    meter.watch_workers()
    if generated:
        remote.PRELOAD.update(dict.fromkeys(remote.PRELOAD, ()))
        extracting.write_reference = lambda *_: None  # what is generated agrees with no model
    sys.argv[1:] = ["run", str(audit), "--out", str(folder)]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
    meter.take("result for the terminal")
    workers = {} if generated else meter.workers
    peaks.write_text(json.dumps({"stages": meter.stages, "workers": workers}))


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:4]), generated="--generated" in sys.argv[4:])
