"""The command line: parse, call one function, print, exit code.

Standard output holds a command's result and, with --json, one JSON document and nothing else; progress,
warnings and errors go to standard error. Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from kdaudit import NO_USAGE_REPORTS, __version__
from kdaudit.cli.ending import INTERRUPTED, Program, interruption
from kdaudit.cli.printing import OutputLostError, one_line, printable, say
from kdaudit.errors import KdauditError, ToldElsewhere, UsageError

if TYPE_CHECKING:
    from kdaudit.config.audit import AuditConfig
    from kdaudit.config.distill import DistillConfig
    from kdaudit.config.screen import ScreenConfig

EXIT_BY_VERDICT = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 3}
_INCONCLUSIVE = EXIT_BY_VERDICT["inconclusive"]
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of the system that say what it ran out of, wherever they come from."""
_P = ParamSpec("_P")


def _for_people(command: Callable[_P, int | None]) -> Callable[_P, None]:
    """Turn a command's return value, and our own errors, into an exit code and one plain sentence."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            _refuse_a_deleted_folder()
            code = command(*args, **kwargs)
        except KdauditError as error:
            _add_place(error, kwargs)
            say(f"kdaudit: {printable(str(error))}", err=True)
            code = error.exit_code
        except KeyboardInterrupt as error:
            say(f"kdaudit: {interruption(error, fresh=bool(kwargs.get('fresh')))}", err=True)
            code = INTERRUPTED
        except (click.ClickException, OutputLostError, MemoryError, ToldElsewhere):
            raise
        except SystemExit as end:  # a library's: the command itself returns, and 1 would be a failed gate
            words = end.code if isinstance(end.code, str) else f"a library ended the program ({end.code})"
            say(f"kdaudit: {one_line(words)}", err=True)
            code = KdauditError.exit_code
        except Exception as error:
            if isinstance(error, OSError) and error.errno in _MACHINE:
                where = "" if error.filename is None else f"{error.filename}: "
                say(
                    f"kdaudit: {one_line(where)}{error.strerror}; finished work is kept: free some, then run "
                    "again to resume",
                    err=True,
                )
                sys.exit(KdauditError.exit_code)
            say(printable(traceback.format_exc()), err=True)
            say(
                f"kdaudit: internal error: {type(error).__name__}: {one_line(str(error))}; this is a bug in "
                "kdaudit: please report it with the lines above; finished work is kept",
                err=True,
            )
            code = KdauditError.exit_code
        sys.exit(code or 0)

    return run


def _refuse_a_deleted_folder() -> None:
    try:
        os.getcwd()  # noqa: PTH109 - Path.cwd() does the same
    except OSError as error:
        raise UsageError(
            f"the current directory is gone ({error.strerror})",
            fix="change to one that exists, then run again",
        ) from error


def _add_place(error: KdauditError, words: Mapping[str, Any]) -> None:
    """Tell an error about keys of the command's FILE where they are written."""
    if isinstance(error, UsageError) and "overrides" in words:
        from kdaudit.config.yaml.loading import add_place

        add_place(error, words["file"], words["overrides"])


def _silent(*_: object) -> None:
    """Take a message that another process tells."""


_FILE = click.argument("file", type=click.Path(path_type=Path))
_SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, as in gate.max_rate=0.001.",
)
_FRESH = click.option("--fresh", is_flag=True, help="Start again: forget an earlier run in the directory.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdaudit")
def main() -> None:
    """Audit a distilled language model: what it memorized, and what it inherited from its teacher."""
    os.environ.update(NO_USAGE_REPORTS)
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@main.command()
@_FILE
@_SET
@click.option("--out", type=click.Path(path_type=Path), help="The run directory; runs/NAME unless given.")
@_FRESH
@_JSON
@_for_people
def run(file: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool, as_json: bool) -> int:
    """Run the audit in FILE, or go on where an earlier call stopped.

    Exit codes: 0 passed or no gate, 1 the gate failed, 2 wrong use or input, 3 the gate is
    inconclusive, 4 a failure while running, 130 interrupted.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.cli.summary import summarize
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_audit
    from kdaudit.pipelines.audit import run_audit

    config = load_audit(file, overrides)
    check_paths(config)
    folder = out or Path("runs") / config.name
    with ConsoleProgress() as console:
        results = run_audit(config, folder, fresh=fresh, progress=console, warn=console.warn)
    say(results.model_dump_json() if as_json else summarize(results, folder))
    return EXIT_BY_VERDICT[results.gate.verdict]


@main.command()
@_FILE
@_SET
@click.option("--out", type=click.Path(path_type=Path), help="The output folder; screened/NAME unless given.")
@_FRESH
@_JSON
@_for_people
def screen(file: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool, as_json: bool) -> int:
    """Score the corpus of FILE before distillation, and write it again without its risky examples.

    The corpus itself is left as it is. The output holds the kept corpus, what was flagged and why, and a
    report of both.

    Exit codes: 0 done, 2 wrong use or input, 3 more would be flagged than max_flagged allows and no kept
    corpus was written, 4 a failure while running, 130 interrupted.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.cli.summary import summarize_screen
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_screen
    from kdaudit.pipelines.screen import run_screen

    config = load_screen(file, overrides)
    check_paths(config)
    folder = out or Path("screened") / config.name
    with ConsoleProgress() as console:
        record = run_screen(config, folder, fresh=fresh, progress=console, warn=console.warn)
    say(record.model_dump_json() if as_json else summarize_screen(record, folder))
    return _INCONCLUSIVE if record.kept.withheld else 0


@main.command()
@_FILE
@_SET
@click.option(
    "--out", type=click.Path(path_type=Path), help="The output folder; distilled/NAME unless given."
)
@_JSON
@_for_people
def distill(file: Path, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Train teacher, baseline and students of FILE, and write the audit.yaml that audits them.

    A model that is trained already is kept; one that was being trained goes on from its last checkpoint.
    Several processes: torchrun --nproc-per-node 2 -m kdaudit distill FILE, or accelerate launch.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_distill
    from kdaudit.distillation.processes import together
    from kdaudit.pipelines.stages.preflight import preflight
    from kdaudit.schemas.distillation import render

    with together() as processes:
        config = load_distill(file, overrides)
        check_paths(config)
        folder = out or Path("distilled") / config.name
        if not processes.first:  # it trains along and leaves the talking to the first
            from kdaudit.distillation.lab import run_distill

            run_distill(config, folder, progress=_silent, warn=_silent, processes=processes)
            return
        with ConsoleProgress() as console:
            preflight(config, hub=True, progress=console)
            console("distill: loading libraries", 0, 0)
            from kdaudit.distillation.lab import run_distill  # seconds, which a wrong file need not cost

            record = run_distill(config, folder, progress=console, warn=console.warn, processes=processes)
        say(record.model_dump_json() if as_json else render(record, folder))


@main.command()
@_FILE
@_SET
@_for_people
def validate(file: Path, overrides: tuple[str, ...]) -> None:
    """Check a configuration, the first rows of its texts and the headers of its models, without running it.

    No weights are read, and nothing is downloaded.
    """
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import kind_of, load_audit, load_distill, load_screen
    from kdaudit.pipelines.stages.preflight import preflight

    kind = kind_of(file)
    config: AuditConfig | ScreenConfig | DistillConfig
    if kind == "distill":
        config = load_distill(file, overrides)
    else:
        config = load_screen(file, overrides) if kind == "screen" else load_audit(file, overrides)
    check_paths(config)
    skipped = preflight(config, hub=False)
    say(one_line(f"{file}: is a valid {_what(config)}, named {config.name}"))
    say("  checked: keys, values, the texts' first rows, the models' headers; no weights were read")
    for what in skipped:
        say(f"  {one_line(f'not checked: {what}')}")


def _what(config: AuditConfig | ScreenConfig | DistillConfig) -> str:
    """What a configuration asks for, in a few words."""
    from kdaudit.config.distill import DistillConfig
    from kdaudit.config.screen import ScreenConfig

    if isinstance(config, DistillConfig):
        return f"distillation of {len(config.students)} model(s)"
    if isinstance(config, ScreenConfig):
        return f"screening by {config.predictor.labels}"
    return f"audit of {len(config.models.students)} student(s)"


@main.command()
@click.argument("kind", type=click.Choice(["audit", "screen", "distill", "results"]))
@_for_people
def schema(kind: str) -> None:
    """Print the JSON Schema of a configuration file or of results.json."""
    import json

    from kdaudit.config.yaml.loading import audit_schema, distill_schema, results_schema, screen_schema

    made = {
        "audit": audit_schema,
        "screen": screen_schema,
        "distill": distill_schema,
        "results": results_schema,
    }
    say(json.dumps(made[kind](), indent=2))


@main.command()
@_JSON
@_for_people
def doctor(as_json: bool) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    import dataclasses
    import json

    from kdaudit.cli.doctor import diagnose, render

    found = diagnose()
    say(json.dumps(dataclasses.asdict(found)) if as_json else render(found))


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@_for_people
def verify(run_dir: Path) -> int:
    """Check every file of a run against its manifest; exit 1 if one is not as it was written."""
    from kdaudit.runs.manifest import SEAL_FILE, check_files

    problems = check_files(run_dir)
    for problem in problems:
        say(one_line(problem))
    if not problems:
        say(
            f"{one_line(str(run_dir))}: every file is as the run wrote it. Who can write there can forge "
            f"file, manifest and seal together, which is not detected: keep a copy of {SEAL_FILE} elsewhere"
        )
    return 1 if problems else 0


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@_for_people
def report(run_dir: Path) -> None:
    """Render the reports and the card of a run again."""
    from kdaudit.pipelines.audit import rerender

    for path in rerender(run_dir, lambda text: say(f"kdaudit: warning: {printable(text)}", err=True)):
        say(one_line(str(path)))


@main.command()
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--student", metavar="NAME", help="Whose card it is; needed where there are several.")
@click.option(
    "--card",
    "card_file",
    type=click.Path(path_type=Path),
    help="The card; else README.md in the student's folder, or with --push the repository's own.",
)
@click.option("--push", "repo", metavar="REPO_ID", help="Upload card and public report to this model.")
@click.option(
    "--create-pr/--no-create-pr", default=True, show_default=True, help="Push as a pull request, or to main."
)
@_for_people
def card(
    run_dir: Path, student: str | None, card_file: Path | None, repo: str | None, create_pr: bool
) -> None:
    """Put the audit of a student into its model card, and on the hub if asked to.

    A section between markers and evaluation metadata are written, in place of those of an earlier call;
    nothing else in the card changes. No training text goes into it.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.modelcard.writing import Upload, write_card

    upload = None if repo is None else Upload(repo, create_pr)
    with ConsoleProgress() as console:
        done = write_card(run_dir, student=student, card=card_file, upload=upload, warn=console.warn)
    if done.card is not None:
        say(one_line(str(done.card)))
    if repo is None:
        public = run_dir / "report.public.html"
        say(f"kdaudit: it links to report.public.html: publish {one_line(str(public))} beside it", err=True)
    else:
        say(one_line(done.url) if done.url else f"{repo} holds this audit already")


@main.command()
@_FILE
@_SET
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=600,
    show_default=True,
    help="Examples to time: a sample of the corpus.",
)
@_JSON
@_for_people
def bench(file: Path, overrides: tuple[str, ...], examples: int, as_json: bool) -> None:
    """Measure extraction on the teacher and the corpus of the audit in FILE.

    Early exit against plain vLLM generate, the transformers engine's generate, and the limit, which is to
    read the prefixes alone. The memory must hold the teacher four times.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_audit
    from kdaudit.pipelines.bench import render, run_bench

    config = load_audit(file, overrides)
    check_paths(config)
    with ConsoleProgress() as console:
        result = run_bench(config, examples=examples, progress=console)
    say(result.model_dump_json() if as_json else render(result))


@main.command()
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("kdaudit-demo"),
    show_default=True,
    help="Folder for the demo's texts, models and run.",
)
@_for_people
def demo(out: Path) -> None:
    """Train a tiny teacher, baseline and two students on text that Python carries, and audit them."""
    from kdaudit.cli.progress import ConsoleProgress

    with ConsoleProgress() as console:
        console("demo: loading libraries", 0, 0)
        from kdaudit.cli.summary import summarize
        from kdaudit.pipelines.demo.run import run_demo

        results = run_demo(out, progress=console, say=console.say)
    say(summarize(results, out / "run"))
