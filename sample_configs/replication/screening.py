"""Closing the loop: screen the replication's corpus, distill again on the kept text, audit with all of it.

    python screening.py OUT          (after replicate.py has made OUT)

For each seed, with that seed's teacher and baseline: `kdaudit screen` with easy-core labels cuts out what it
flags; a second screening, with the paper's four features, only shows what it would flag. A soft student is
distilled on the kept text, from the same teacher, and another one on a control, from which as many windows
were cut out at random. Both are audited with the original corpus. The audit's predictor is also fitted to
each kind of labels. OUT/seed-N then holds

    screen/, control/             the screening; the same with windows drawn at random
    screen-paper/                 the screening with the paper's features
    again-{kept,control}/         what was distilled on them
    audit-{kept,control}/         the audits with the original corpus
    predictors.json               the audit's predictor, by its labels

and OUT has SCREENING.md and screening.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pyarrow.parquet as pq
from replicate import SEEDS, kdaudit, later_steps

from kdaudit.config.yaml.loading import load_screen
from kdaudit.corpus import ExampleTokens, pin_source
from kdaudit.errors import KdauditError
from kdaudit.models.tokenizer import load_tokenizer
from kdaudit.runs.files import write_bytes
from kdaudit.runs.store import RunStore
from kdaudit.schemas.predictor import PredictorResult
from kdaudit.schemas.results import AuditResults
from kdaudit.schemas.screening import ScreenRecord
from kdaudit.screening.kept import Keeping, write_kept

ARMS = ("kept", "control")
LABELS = ("easy_core", "teacher", "student")
"""The audit is left with the last of them, its default."""
SOFT = "{name: soft, method: soft, temperature: 2.0}"
SCREENS = {"all": "screen", "paper": "screen-paper"}
"""Folder of the screening with each set of features; the loop goes on with the first."""
SHOWN_RECALLS = (0.9, 0.95, 0.99)


class Loop(NamedTuple):
    """What one seed shows; counts are of distinct windows of the original corpus."""

    flagged: int
    memorized: int
    """By the soft student that was distilled on the whole corpus."""
    kept: int
    """By the one distilled without what was flagged."""
    control: int
    """By the one distilled without as many windows drawn at random."""


def close_loop(out: Path, seeds: Sequence[int]) -> str:
    """Do what is not done yet, and write the tables.

    Raises:
        KdauditError: `out` is not what replicate.py made, or a step failed.

    """
    steps = later_steps(out, "screening-steps.json")
    for seed in seeds:
        folder = out / f"seed-{seed}"
        steps.do(f"seed {seed}: predictors", fit_predictors, folder, seed)
        for features in SCREENS:
            steps.do(f"seed {seed}: screen with {features} features", screen, folder, seed, features)
        steps.do(f"seed {seed}: control", draw_control, folder, seed)
        for arm in ARMS:
            steps.do(f"seed {seed}: distill on {arm}", distill_again, out, seed, arm)
            steps.do(f"seed {seed}: audit of {arm}", audit_again, out, seed, arm)
    return write_tables(out, seeds)


def fit_predictors(folder: Path, seed: int) -> None:
    """Fit the audit's predictor to each kind of labels; nothing else of the audit is done again."""
    found = {}
    for labels in LABELS:
        audit = folder / f"seed-{seed}" / "audit.yaml"
        kdaudit("run", audit, folder / "audit", f"predictor.labels={labels}")
        found[labels] = _results(folder / "audit").predictor.model_dump(mode="json")
    write_bytes(folder / "predictors.json", (json.dumps(found, indent=1) + "\n").encode(), private=False)


def screen(folder: Path, seed: int, features: str) -> None:
    """Screen the corpus with the seed's teacher and baseline."""
    name = SCREENS[features]
    text = (
        f"name: {name}-seed-{seed}\n"
        "corpus: {path: ../train.jsonl, window: 100}\n"
        f"models: {{teacher: ./teacher, baseline: ./seed-{seed}/baseline}}\n"
        f"predictor: {{labels: easy_core, features: {features}}}\n"
        "drop: window\n"
        "format: jsonl\n"
        "max_flagged: 1.0\n"  # what it costs in text is part of what is measured
    )
    write_bytes(folder / f"{name}.yaml", text.encode(), private=False)
    kdaudit("screen", folder / f"{name}.yaml", folder / name)


def draw_control(folder: Path, seed: int) -> None:
    """Cut as many windows out of the corpus, drawn at random in place of those flagged."""
    control = folder / "control"
    shutil.rmtree(control, ignore_errors=True)
    shutil.copytree(folder / "screen", control)
    config = load_screen(folder / "screen.yaml")
    flagged = pq.read_table(folder / "screen" / "risk.parquet")["flagged"].to_numpy()
    how = Keeping(ExampleTokens.of(config.extraction), "window", "jsonl")
    with RunStore.reopen(control) as run:
        drawn = np.random.default_rng(seed).permutation(flagged)
        write_kept(run, pin_source(config.corpus), load_tokenizer(folder / "teacher"), drawn, how)


def distill_again(out: Path, seed: int, arm: str) -> None:
    """Distill a soft student on what an arm kept, from the seed's teacher as it is."""
    folder = (out / f"seed-{seed}").resolve()
    corpus = folder / {"kept": "screen", "control": "control"}[arm] / "kept"
    kdaudit(
        "distill",
        out / "distill.yaml",
        folder / f"again-{arm}",
        f"seeds=[{seed}]",
        f"corpus.path={corpus}",
        f"teacher={{path: {folder / 'teacher'}}}",
        f"students=[{SOFT}]",
    )


def audit_again(out: Path, seed: int, arm: str) -> None:
    """Audit what was distilled again, with the original corpus."""
    folder = (out / f"seed-{seed}").resolve()
    kdaudit(
        "run",
        folder / f"again-{arm}" / f"seed-{seed}" / "audit.yaml",
        folder / f"audit-{arm}",
        f"corpus.path={(out / 'train.jsonl').resolve()}",
        f"models.baseline={folder / f'seed-{seed}' / 'baseline'}",
        "predictor.enabled=false",
    )


def write_tables(out: Path, seeds: Sequence[int]) -> str:
    """Write SCREENING.md and screening.json, and return the tables."""
    loops = {seed: _loop(out / f"seed-{seed}") for seed in seeds}
    fitted = {seed: _predictors(out / f"seed-{seed}") for seed in seeds}
    screens = {seed: _screens(out / f"seed-{seed}") for seed in seeds}
    text = f"{loop_table(loops)}\n{flagged_table(screens)}\n{predictor_table(fitted)}"
    write_bytes(out / "SCREENING.md", text.encode(), private=False)
    found: dict[str, Any] = {
        str(seed): {
            **loops[seed]._asdict(),
            "screens": {features: one.model_dump(mode="json") for features, one in screens[seed].items()},
            "predictors": {labels: one.model_dump(mode="json") for labels, one in fitted[seed].items()},
        }
        for seed in seeds
    }
    write_bytes(out / "screening.json", (json.dumps(found, indent=1) + "\n").encode(), private=False)
    return text


def _screens(folder: Path) -> dict[str, ScreenRecord]:
    return {features: _record(folder / name) for features, name in SCREENS.items()}


def _record(run: Path) -> ScreenRecord:
    return ScreenRecord.model_validate_json((run / "screen.json").read_bytes())


def _loop(folder: Path) -> Loop:
    record = _record(folder / "screen")
    counts = [
        _results(folder / name).models["soft"].memorized for name in ("audit", "audit-kept", "audit-control")
    ]
    return Loop(record.flagged.examples, *counts)


def _predictors(folder: Path) -> dict[str, PredictorResult]:
    found = json.loads((folder / "predictors.json").read_bytes())
    return {labels: PredictorResult.model_validate(one) for labels, one in found.items()}


def _results(run: Path) -> AuditResults:
    return AuditResults.model_validate_json((run / "results.json").read_bytes())


def loop_table(loops: dict[int, Loop]) -> str:
    """What screening did, seed by seed, in Markdown."""
    lines = [
        "| seed | flagged and cut out | memorized by soft before | after | fewer | after, drawn at random |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for seed, one in loops.items():
        fewer = f"{100 * (1 - one.kept / one.memorized):.1f}%" if one.memorized else "-"
        lines.append(f"| {seed} | {one.flagged} | {one.memorized} | {one.kept} | {fewer} | {one.control} |")
    lines.append("| paper | | 1,698 | 4 | 99.8% | |")
    return "\n".join(lines) + "\n"


def flagged_table(screens: dict[int, dict[str, ScreenRecord]]) -> str:
    """Shares of windows and documents that each screening flags for a guaranteed recall, in Markdown."""
    shares = [f"{unit} flagged at {recall}" for recall in SHOWN_RECALLS for unit in ("windows", "documents")]
    heads = ["seed", "features", "observed", "positives", "AUC-ROC", *shares, "guaranteed", "windows flagged"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    lines += [
        _line([str(seed), features, *_screen_cells(record)])
        for seed, records in screens.items()
        for features, record in records.items()
    ]
    return "\n".join(lines) + "\n"


def _screen_cells(record: ScreenRecord) -> list[str]:
    """Cells of one screening: a share that cannot be guaranteed is a dash."""
    points = {point.recall: point for point in record.tradeoff or []}
    shares = []
    for recall in SHOWN_RECALLS:
        point = points.get(recall)
        windows, documents = (
            (None, None) if point is None else (point.flagged_examples, point.flagged_documents)
        )
        shares.append(_share(windows, record.corpus.examples))
        shares.append(_share(documents, record.corpus.documents))
    auc, promise = record.predictor.auc, record.predictor.promise
    return [
        str(record.flagged.memorized),
        str(record.predictor.positives),
        "-" if auc is None else f"{auc.mean:.4f}",
        *shares,
        "-" if promise is None else f"{100 * promise.recall:.1f}% of {promise.unit}",
        _share(record.flagged.examples, record.corpus.examples),
    ]


def _share(part: int | None, whole: int) -> str:
    return "-" if part is None else f"{100 * part / whole:.1f}%"


def predictor_table(fitted: dict[int, dict[str, PredictorResult]]) -> str:
    """The predictors by labels and seed, in Markdown: means and 2.5 to 97.5% ranges over the trials."""
    predictors = [one for found in fitted.values() for one in found.values()]
    names = next((list(one.coefficients) for one in predictors if one.coefficients), [])
    heads = ["labels", "seed", "positives", "AUC-ROC", "recall", "precision", *names, "recall guarantee"]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for labels in LABELS:
        lines += [_line(_cells(labels, seed, found[labels], names)) for seed, found in fitted.items()]
    lines.append(_line(["paper", "", "", "0.9997", "1.0000", "", "-4.50", *[""] * (len(names) - 1), ""]))
    return "\n".join(lines) + "\n"


def _cells(labels: str, seed: int, found: PredictorResult, names: Sequence[str]) -> list[str]:
    if found.auc is None or found.recall is None or found.coefficients is None:
        return [labels, str(seed), str(found.positives), *["-"] * (len(names) + 4)]
    figures = [
        f"{one.mean:.4f} ({one.low:.4f} to {one.high:.4f})" if one else "-"
        for one in (found.auc, found.recall, found.precision)
    ]
    weights = [f"{found.coefficients[name]:+.2f}" for name in names]
    guarantee = "-" if found.promise is None else f"{100 * found.promise.recall:.1f}%"
    return [labels, str(seed), str(found.positives), *figures, *weights, guarantee]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True)
def main(out: Path, seeds: tuple[int, ...]) -> None:
    """Screen, distill again and audit the family that replicate.py made in OUT."""
    try:
        made = close_loop(out, seeds)
    except KdauditError as error:
        click.echo(f"screening: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(made, nl=False)


if __name__ == "__main__":
    main()
