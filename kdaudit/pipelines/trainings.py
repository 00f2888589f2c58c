"""`kdaudit report RUN_DIR RUN_DIR ...`: several finished audits of one corpus become one page and one JSON.

    results.json of each run -> comparable? -> figures over the runs -> trainings.json, trainings.html

Public by construction: nothing but figures and names is taken over, and no other file of a run is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from kdaudit.analysis.trainings import over_trainings
from kdaudit.errors import RunStateError
from kdaudit.reporting.render import read_results
from kdaudit.reporting.trainings import render_trainings
from kdaudit.runs import layout
from kdaudit.runs.files import check_folders, write_file
from kdaudit.runs.verify import refuse_changed_results
from kdaudit.schemas.results import AuditResults


def report_trainings(run_dirs: Sequence[Path], out: Path) -> list[Path]:
    """Write trainings.json and trainings.html of several runs; give their paths.

    Args:
        run_dirs: finished audits of one corpus, each of another training.
        out: the folder to write to; made if absent.

    Raises:
        RunStateError: a run cannot be read, two of them cannot be compared, or `out` holds a run.
        StorageError: a file could not be written.

    """
    found = [read_results(run_dir) for run_dir in run_dirs]
    for run_dir in run_dirs:
        refuse_changed_results(run_dir)
    _refuse_unlike(run_dirs, found)
    if (out / layout.MANIFEST).exists() or (out / layout.RESULTS).exists():
        raise RunStateError(f"{out}: holds a run", fix="choose another --out")
    results = over_trainings(found)
    check_folders(out, out.parent)
    out.mkdir(parents=True, exist_ok=True)
    write_file(out, layout.TRAININGS, (results.model_dump_json(indent=1) + "\n").encode())
    write_file(out, layout.TRAININGS_REPORT, render_trainings(results))
    return [out / layout.TRAININGS, out / layout.TRAININGS_REPORT]


def _refuse_unlike(run_dirs: Sequence[Path], found: Sequence[AuditResults]) -> None:
    """Refuse runs whose figures are not of the same examples, and a training that is given twice."""
    runs = list(zip(run_dirs, found, strict=True))
    for (one_dir, one), (two_dir, two) in combinations(runs, 2):
        for key, (then, now) in _measured_on(one, two).items():
            if then != now:
                raise RunStateError(
                    f"{two_dir}: was measured with another {key} than {one_dir} ({now}; there {then})",
                    fix="name runs of one corpus, prefix and suffix, which differ by their trainings alone",
                )
        if same := _same_student(one, two):
            raise RunStateError(
                f"{two_dir}: its student {same} is that of {one_dir}, weight for weight",
                fix="name each training once",
            )


def _measured_on(one: AuditResults, two: AuditResults) -> dict[str, tuple[object, object]]:
    """What must be equal, by the words for it; a sample is the same only with the same seed."""
    then, now = _read(one), _read(two)
    return {key: (then[key], now[key]) for key in then}


def _read(run: AuditResults) -> dict[str, object]:
    answers = run.corpus.answers
    return {
        "corpus": run.corpus.fingerprint,
        "number of examples": run.corpus.examples,
        "seed of the sample": run.seed if run.corpus.sampled else None,
        "prefix": f"{run.extraction.prefix_tokens} tokens",
        "suffix": f"{run.extraction.suffix_tokens} tokens",
        "chat template": "plain text" if answers is None else answers.template,
        "shortest suffix": "plain text" if answers is None else f"{answers.min_suffix_tokens} tokens",
        "BOS token": "before each prefix" if run.extraction.bos else "none",
        "kind of each student": ", ".join(
            f"{name}: {model.kd or 'null'}"
            for name, model in sorted(run.models.items())
            if model.role == "student"
        ),
    }


def _same_student(one: AuditResults, two: AuditResults) -> str | None:
    known = {model.fingerprint for model in one.models.values() if model.role == "student"}
    students = ((name, model) for name, model in two.models.items() if model.role == "student")
    return next((name for name, model in students if model.fingerprint in known), None)
