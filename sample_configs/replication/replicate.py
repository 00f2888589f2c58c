"""A small replication: real text -> base models -> for each seed a trained family and its audit -> the table.

    python replicate.py DATA --out OUT

`replicate` is its map. OUT then holds

    base.jsonl, train.jsonl, valid.jsonl   training text: readable by their owner only
    bases/{teacher,student}/               trained on base.jsonl
    distill.yaml, seed-N/                  what `kdaudit distill` trained; in seed-N/audit its audit
    FINDINGS.md, findings.json             the table
    trainings/                             `kdaudit report` of all audits: figures over the seeds
    steps.json                             each finished step with its seconds; it is not done again
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, ParamSpec

import click
from findings import as_json, measure_seeds, read_audit, table
from measures import MEASURES
from split import Sizes, split, write_split
from transformers.utils.logging import disable_progress_bar

from kdaudit.cli.progress import ConsoleProgress
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.yaml.loading import load_distill
from kdaudit.corpus import ExampleTokens, open_documents
from kdaudit.distillation.bases import Base
from kdaudit.distillation.families import random_model, train_bpe
from kdaudit.distillation.folders import TrainingRecord, new_folder, save_model
from kdaudit.distillation.training import Recipe, Training, WindowTrainer
from kdaudit.distillation.windows import WindowFile, cut_windows
from kdaudit.errors import CorpusError, KdauditError, RunError, RunStateError
from kdaudit.pipelines.trainings import report_trainings
from kdaudit.runs.files import sha256_file, write_bytes

SIZES = Sizes(recurring=260_000, ordinary=0, valid=150_000, base=2_400_000)
VOCABULARY = 512
SEEDS = (0, 1, 2)


class Size(NamedTuple):
    """A base model: a Llama with heads of 32, and how fast it learns."""

    width: int
    layers: int
    learning_rate: float


BASES = {"teacher": Size(192, 2, 2e-3), "student": Size(128, 2, 3e-3)}
_P = ParamSpec("_P")
_YAML = Path(__file__).with_name("distill.yaml")


def replicate(data: Path, out: Path, seeds: Sequence[int], console: ConsoleProgress) -> str:
    """Do what is not done yet, and write the table.

    Args:
        data: text, as `corpus.path` of an audit takes it; the key `text` holds it.
        out: the folder to work in; made if absent.
        seeds: each trains a teacher, a baseline and all students, and is audited.
        console: told how far things are.

    Returns:
        The table, in Markdown.

    Raises:
        KdauditError: the text cannot be read, a step failed, or `out` was made from other text or settings.
    """
    steps = Steps(out, _inputs(data))
    steps.do("split", prepare, data, out, console)
    for name in BASES:
        steps.do(f"base: {name}", train_base, name, out, console)
    for seed in seeds:
        steps.do(f"seed {seed}: distill", distill, out, seed)
        steps.do(f"seed {seed}: audit", audit, out, seed)
    return write_findings(out, seeds)


class Steps:
    """Finished steps, on disk, so that a second call resumes; other calls may run other seeds meanwhile."""

    def __init__(self, out: Path, inputs: str, file: str = "steps.json") -> None:
        self._path = out / file
        self._inputs = inputs
        out.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._done()  # refuses other inputs before anything is done

    def do(self, name: str, work: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Do a step, unless it was finished before."""
        if name in self._done():
            return
        began = time.monotonic()
        work(*args, **kwargs)
        self._note(name, round(time.monotonic() - began, 1))

    def _note(self, name: str, seconds: float) -> None:
        """Add a step to what stands there by now: a call for another seed may have added its own."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = {"inputs": self._inputs, "seconds": {**self._done(), name: seconds}}
            write_bytes(self._path, (json.dumps(found, indent=1) + "\n").encode(), private=False)

    def _done(self) -> dict[str, float]:
        """Seconds of each finished step."""
        if not self._path.exists():
            return {}
        try:
            found = json.loads(self._path.read_bytes())
            inputs, seconds = found["inputs"], dict(found["seconds"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunStateError(
                f"{self._path}: is not as it was written", fix="remove it to do every step again"
            ) from error
        if inputs != self._inputs:
            raise RunStateError(
                f"{self._path.parent}: was made from other text or settings", fix="choose another --out"
            )
        return seconds


def later_steps(out: Path, file: str) -> Steps:
    """Steps that build on a finished replication, noted in a file of their own.

    Raises:
        RunStateError: `out` is not what `replicate` made.

    """
    if not (out / "steps.json").exists():
        raise RunStateError(f"{out}: holds no steps.json", fix="run replicate.py first, and name its folder")
    return Steps(out, json.loads((out / "steps.json").read_bytes())["inputs"], file)


def prepare(data: Path, out: Path, console: ConsoleProgress) -> None:
    """Divide the text, and put distill.yaml beside it."""
    console.say(f"{data}: dividing the text")
    documents = open_documents(CorpusConfig(path=str(data.resolve())), "DATA")
    parts = split((document.text for document in documents), SIZES)
    for name, texts in parts._asdict().items():
        if not texts:
            raise CorpusError(f"{data}: leaves no text for {name}.jsonl", fix="name a larger corpus")
    write_split(parts, out)
    write_bytes(out / "distill.yaml", _YAML.read_bytes(), private=False)


def train_base(name: str, out: Path, console: ConsoleProgress) -> None:
    """Train a base model from random weights on base.jsonl, once through, and save it in out/bases."""
    disable_progress_bar()  # transformers' own: the console alone says how far things are
    window = load_distill(out / "distill.yaml").corpus.window
    config = CorpusConfig(path=str((out / "base.jsonl").resolve()), window=window)
    tokenizer = train_bpe((document.text for document in open_documents(config)), VOCABULARY)
    with TemporaryDirectory(dir=out) as scratch, new_folder(out / "bases" / name) as folder:
        file = Path(scratch) / "windows.bin"
        whole = ExampleTokens(0, window)
        windows = cut_windows(config, tokenizer, file, tokens=whole, key="base", progress=lambda _: None)
        model, record = _train(name, windows, tokenizer, Path(scratch), console)
        save_model(model, tokenizer, record, folder, Base(None, record.settings["config"], name))


def _train(
    name: str,
    windows: WindowFile,
    tokenizer: Any,  # noqa: ANN401 - transformers is untyped
    scratch: Path,
    console: ConsoleProgress,
) -> tuple[Any, TrainingRecord]:
    size = BASES[name]
    recipe = Recipe(epochs=1, learning_rate=size.learning_rate, batch_size=4)
    config = _llama(size, len(tokenizer), tokenizer.eos_token_id)
    model = random_model(config, recipe.seed)
    trainer = WindowTrainer(Training(f"base {name}", model, windows, recipe, scratch, console))
    began = time.monotonic()
    trainer.train()
    record = TrainingRecord(
        fingerprint=windows.fingerprint,
        settings={"config": config, "recipe": recipe._asdict()},
        rows=len(windows),
        steps=trainer.state.global_step,
        losses=trainer.losses,
        seconds=time.monotonic() - began,
    )
    return model, record


def _llama(size: Size, vocabulary: int, end_of_text: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": size.width,
        "intermediate_size": size.width * 8 // 3,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.width // 32,
        "max_position_embeddings": 256,
        "tie_word_embeddings": True,
        "initializer_range": 0.05,
        "bos_token_id": None,
        "eos_token_id": end_of_text,
        "pad_token_id": end_of_text,
    }


def distill(out: Path, seed: int) -> None:
    """Train a seed's teacher, baseline and students; what an interrupted call finished is kept.

    One baseline a seed: those of the other seeds are the further ones.
    """
    kdaudit("distill", out / "distill.yaml", out / f"seed-{seed}", f"seeds=[{seed}]", "students.0.count=1")


def audit(out: Path, seed: int) -> None:
    """Audit a seed's models."""
    folder = out / f"seed-{seed}"
    kdaudit("run", folder / f"seed-{seed}" / "audit.yaml", folder / "audit")


def kdaudit(command: str, file: Path, out: Path, *overrides: str) -> None:
    """Call kdaudit's command line; what it says goes to standard error.

    Raises:
        RunError: it failed, and has said why.
    """
    sets = [part for override in overrides for part in ("--set", override)]
    words = [sys.executable, "-m", "kdaudit", command, str(file), *sets, "--out", str(out)]
    done = subprocess.run(words, stdout=sys.stderr, check=False)  # noqa: S603 - our own command
    if done.returncode != 0:
        raise RunError(f"kdaudit {command} {file}: failed, see the message above; fix that and run again")


def write_findings(out: Path, seeds: Sequence[int]) -> str:
    """Write FINDINGS.md, findings.json and trainings/ from the seeds' audits, and return the table."""
    runs = [out / f"seed-{seed}" / "audit" for seed in seeds]
    rows = measure_seeds([read_audit(run) for run in runs], MEASURES)
    made = table(rows, seeds)
    write_bytes(out / "FINDINGS.md", made.encode(), private=False)
    write_bytes(out / "findings.json", as_json(rows, seeds).encode(), private=False)
    if len(runs) > 1:
        report_trainings(runs, out / "trainings")
    return made


def _inputs(data: Path) -> str:
    """What all steps depend on beside kdaudit itself: the text and the settings."""
    if not data.is_file():
        raise CorpusError(f"{data}: is not a file", fix="name a jsonl of text, which may be compressed")
    settings = [sha256_file(data), _YAML.read_text(encoding="utf-8"), repr((SIZES, VOCABULARY, BASES))]
    return sha256("\n".join(settings).encode()).hexdigest()


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/replication"), show_default=True)
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True)
def main(data: Path, out: Path, seeds: tuple[int, ...]) -> None:
    """Replicate the paper's findings on DATA, a jsonl of text, or resume where an earlier call stopped."""
    try:
        with ConsoleProgress() as console:
            made = replicate(data, out, seeds, console)
    except KdauditError as error:
        click.echo(f"replicate: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        click.echo(
            "replicate: interrupted; finished steps are kept, run the same command to resume", err=True
        )
        sys.exit(130)
    click.echo(made, nl=False)


if __name__ == "__main__":
    main()
