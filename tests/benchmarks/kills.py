"""SIGKILL at seeded moments of every command that writes, and of its workers alone: the results are equal.

    python tests/benchmarks/kills.py [--moments 100] [--seed 0]

Each command runs undisturbed first, which gives its results and its duration. Then it is killed at a random
moment of that duration and run again in the same folder: its results must be those of the undisturbed run,
and the run directory must be whole. One moment of three of `run` kills the worker alone, which the run has to
survive or to report.

Commands run in forked children of this process, which has imported the heavy libraries, so that the moments
fall into the work. Prints a line for each command; exit code 1 if a moment failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

import toys

from kdaudit.cli import main as kdaudit
from kdaudit.inference import prepare
from kdaudit.inference.workers import fork_server
from kdaudit.runs import store
from kdaudit.runs.verify import check_files

_SHARES = {"run": 0.36, "screen": 0.24, "distill": 0.2, "report": 0.1, "card": 0.1}
"""Share of the moments that each command gets."""
_WORKER_EVERY = 3
"""Of so many moments of `run`, one kills its worker."""
_UNEQUAL = {"created", "seconds", "tokens_per_second", "suffix_hmac", "steps_per_second"}
"""Keys whose values differ between two runs that find the same."""
_PATIENCE = 120.0
"""Seconds after which a command is taken to hang."""


class Command(NamedTuple):
    """A command, and what it leaves."""

    name: str
    words: Callable[[Path], list[str]]
    """Its command line, for an output folder."""
    results: Callable[[Path], Any]
    """What must be equal, of an output folder."""
    start: Path | None = None
    """The folder that a copy of is worked on; None where the command makes it."""


def equal_parts(value: Any) -> Any:
    """A JSON value without what differs between two runs that find the same."""
    if isinstance(value, dict):
        return {key: equal_parts(inner) for key, inner in value.items() if key not in _UNEQUAL}
    return [equal_parts(inner) for inner in value] if isinstance(value, list) else value


def tables(folder: Path, *names: str) -> list[Any]:
    """Rows of parquet files, where they are."""
    files = [file for name in names for file in sorted(folder.glob(name))]
    return [
        (file.name, equal_parts(pq.ParquetFile(file).read(use_threads=False).to_pylist())) for file in files
    ]


def audited(out: Path) -> Any:
    """What an audit found."""
    found = equal_parts(json.loads((out / "results.json").read_text()))
    return found, tables(
        out, "risk.parquet", "leaks.parquet", "examples/part-*", "extraction/*/part-*", "features/part-*"
    )


def screened(out: Path) -> Any:
    """What a screening found and kept."""
    found = equal_parts(json.loads((out / "screen.json").read_text()))
    return (
        found,
        tables(out, "risk.parquet", "flagged.parquet"),
        {file.name: file.read_bytes() for file in sorted((out / "kept").iterdir())},
    )


def distilled(out: Path) -> Any:
    """Weights, the teacher's text, losses."""
    weights = {
        str(file.relative_to(out)): sha256(file.read_bytes()).hexdigest()
        for file in sorted(out.rglob("model.safetensors"))
    }
    record = json.loads((out / "distill.json").read_text())
    return weights, tables(out, "hard_corpus.parquet"), [model["folder"] for model in record["models"]]


def pages(out: Path) -> Any:
    """Reports and cards, byte by byte."""
    names = ("report.html", "report.public.html", "card.md", "README.md")
    return {name: (out / name).read_bytes() for name in names if (out / name).exists()}


def make_family(folder: Path) -> dict[str, Path]:
    """Toy inputs for all commands; paths by name."""
    audit = toys.write_audit(folder)
    draw = np.random.default_rng(3)
    teacher = toys.save_model(folder / "screen-teacher", 1)
    own = [toys.memorized_window(teacher, draw) for _ in range(40)]
    with torch.no_grad():
        for weights in teacher.parameters():
            weights += 1e-3 * weights.std() * torch.randn(weights.shape)
    teacher.save_pretrained(folder / "screen-baseline")
    toys.tokenizer().save_pretrained(folder / "screen-baseline")
    others = draw.integers(2, toys.VOCABULARY, (80, toys.PREFIX + toys.SUFFIX)).tolist()
    toys.write_corpus(folder / "screen.jsonl", [*own, *others])
    length = toys.PREFIX + toys.SUFFIX
    extraction = f"extraction: {{prefix_tokens: {toys.PREFIX}, suffix_tokens: {toys.SUFFIX}"
    screen = folder / "screen.yaml"
    screen.write_text(
        f"name: toy\ncorpus: {{path: ./screen.jsonl, window: {length}}}\n"
        "models: {teacher: ./screen-teacher, baseline: ./screen-baseline}\n"
        f"{extraction}}}\npredictor: {{trials: 5}}\nmax_flagged: 1.0\nformat: jsonl\n"
    )
    model = (
        "{{model_type: llama, hidden_size: {0}, intermediate_size: {0}, num_hidden_layers: 1, "
        "num_attention_heads: 1, max_position_embeddings: 64}}"
    )
    distill = folder / "distill.yaml"
    distill.write_text(
        f"name: toy\ncorpus: {{path: ./screen.jsonl, window: {length}}}\n"
        f"holdout: {{path: ./holdout.jsonl, window: {length}}}\n"
        "tokenizer: {train_bpe: 300}\n"
        f"teacher: {{base: {model.format(64)}, epochs: 3, learning_rate: 1.0e-2}}\n"
        f"student: {{base: {model.format(32)}, epochs: 3, learning_rate: 1.0e-2}}\n"
        "students:\n  - {name: baseline, method: baseline, count: 1}\n  - {name: soft, method: soft}\n"
        f"  - {{name: hard, method: hard, prefix_tokens: {toys.PREFIX}}}\n"
        f"training: {{batch_size: 8}}\n{extraction}, engine: transformers}}\n"
    )
    return {"audit": audit, "screen": screen, "distill": distill}


class Child:
    """A command in a forked child."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        self.pid = os.fork()
        if self.pid == 0:
            self._become(words)

    def _become(self, words: list[str]) -> None:
        code = 99
        try:
            with self._log.open("ab") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            kdaudit(words, prog_name="kdaudit")
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float = _PATIENCE) -> int | None:
        """Its exit code, negative for a signal; None if it still runs after so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        return None

    def kill(self) -> None:
        """Kill it, and wait for its end."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def drain() -> None:
    """Take the answers that a killed child had asked its fork server for: it outlives no command but here."""
    for found in fork_server._running.values():
        found._socket.settimeout(0.5)
        with suppress(TimeoutError):
            while found._socket.recv(4096):
                pass
        found._socket.settimeout(None)


def workers() -> list[psutil.Process]:
    """Worker processes of the fork server: one a model that is loaded."""
    found = [psutil.Process(running._process.pid) for running in fork_server._running.values()]
    return [
        child for process in found for child in process.children() if child.status() != psutil.STATUS_ZOMBIE
    ]


class Bench:
    """One command, its undisturbed run, and moments at which it is killed."""

    def __init__(self, command: Command, folder: Path) -> None:
        self.command = command
        self._folder = folder
        self._log = folder / f"{command.name}.log"
        for _ in range(2):  # the first may wait for the libraries that workers share
            out = self._fresh("undisturbed")
            began = time.monotonic()
            code = Child(command.words(out), self._log).wait()
            self.seconds = time.monotonic() - began
            if code != 0:
                raise SystemExit(f"{command.name}: undisturbed it ends with {code}: {self._log.read_text()}")
        self._reference = command.results(out)

    def _fresh(self, name: str) -> Path:
        out = self._folder / f"{self.command.name}-{name}"
        shutil.rmtree(out, ignore_errors=True)
        if self.command.start is not None:
            shutil.copytree(self.command.start, out)
        return out

    def attempt(self, moment: int, chance: random.Random) -> str | None:
        """Kill it once, run it again, compare; what went wrong, or None."""
        out = self._fresh("killed")
        worker = self.command.name == "run" and moment % _WORKER_EVERY == 0
        child = Child(self.command.words(out), self._log)
        code = child.wait(chance.uniform(0, self.seconds))
        if code is None and worker:
            for process in workers()[:1]:
                process.kill()
            code = child.wait()
            if code not in (0, 4):
                child.kill()
                return f"ends with {code} after its worker was killed"
        elif code is None:
            child.kill()
            drain()
            if (left := self._orphans()) is not None:
                return left
        again = Child(self.command.words(out), self._log)
        code = again.wait()
        if code != 0:
            again.kill()
            return f"ends with {code} when run again: {self._log.read_text()[-600:]}"
        if self.command.results(out) != self._reference:
            return "finds something else when run again"
        damaged = check_files(out) if (out / "manifest.json").exists() else []
        return f"leaves a damaged folder: {damaged}" if damaged else None

    def _orphans(self) -> str | None:
        """Workers must end with the command, however that ends."""
        end = time.monotonic() + 15
        while workers():
            if time.monotonic() > end:
                return "leaves a worker behind"
            time.sleep(0.05)
        return None


def commands(folder: Path) -> Iterator[Command]:
    """Every command that writes; the last two work on the first one's output."""
    family = make_family(folder / "family")

    def file_command(name: str, file: Path, results: Callable[[Path], Any]) -> Command:
        return Command(name, lambda out: [name, str(file), "--out", str(out)], results)

    yield file_command("run", family["audit"], audited)
    yield file_command("screen", family["screen"], screened)
    yield file_command("distill", family["distill"], distilled)
    done = folder / "run-undisturbed"
    card = folder / "card-start"
    shutil.copytree(done, card / "run")
    (card / "README.md").write_text("---\nlicence: mit\n---\n# A model\n")
    yield Command("report", lambda out: ["report", str(out)], pages, done)
    words = ["--student", "soft", "--card"]
    yield Command("card", lambda out: ["card", str(out / "run"), *words, str(out / "README.md")], pages, card)


def main() -> None:
    """Run all moments; exit code 1 if one failed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--moments", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(_SHARES), help="moments of this command alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store.SHARD_ROWS = 8  # several shards, so that moments fall between them
    prepare("transformers")
    failures = 0
    with tempfile.TemporaryDirectory(prefix="kdaudit-kills-") as folder:
        for command in commands(Path(folder)):
            bench = Bench(command, Path(folder))
            count = round(_SHARES[command.name] * args.moments) if args.only in (None, command.name) else 0
            chance = random.Random(f"{args.seed}/{command.name}")
            failed = 0
            for moment in range(count):
                if (failure := bench.attempt(moment, chance)) is not None:
                    failed += 1
                    print(f"{command.name}, moment {moment}: {failure}", flush=True)
            print(
                f"{command.name}: {bench.seconds:.1f} s undisturbed, {count} moments, {failed} failed",
                flush=True,
            )
            failures += failed
    raise SystemExit(1 if failures else 0)


if __name__ == "__main__":
    main()
