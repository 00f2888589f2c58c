"""What every command shares: its options, and how its errors become one plain sentence and an exit code."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec

import click

from kdaudit.cli.ending import INTERRUPTED, interruption
from kdaudit.cli.json_lines import OPTION, json_lines
from kdaudit.cli.printing import OutputLostError, one_line, printable, say
from kdaudit.errors import KdauditError, ToldElsewhere, UsageError

EXIT_BY_VERDICT = {"pass": 0, "none": 0, "fail": 1, "inconclusive": 3}
_MACHINE = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""Errors of the system that say what it ran out of, wherever they come from."""
_PLACE = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "read-only file system",
    errno.ENAMETOOLONG: "file name too long",
    errno.ELOOP: "a link that leads to itself",
}
"""Those that say why a path cannot be used: whatever looks at it first raises them."""
_P = ParamSpec("_P")


def for_people(command: Callable[_P, int | None]) -> Callable[_P, None]:
    """Turn a command's return value, and our own errors, into an exit code and one plain sentence."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            _refuse_a_deleted_folder()
            code = command(*args, **kwargs)
        except KdauditError as error:
            _add_place(error, kwargs)
            _tell(error)
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
                    "the same command again to resume",
                    err=True,
                )
                sys.exit(KdauditError.exit_code)
            if isinstance(error, OSError) and error.errno in _PLACE and error.filename is not None:
                unusable = UsageError(
                    f"{os.fsdecode(error.filename)}: {_PLACE[error.errno]}",
                    fix="fix the permissions of it and its folders, or name another path",
                )
                _tell(unusable)
                sys.exit(unusable.exit_code)
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


def _tell(error: KdauditError) -> None:
    if (lines := json_lines()) is not None:
        lines.error(error)
    else:
        say(f"kdaudit: {printable(str(error))}", err=True)


def _add_place(error: KdauditError, words: Mapping[str, Any]) -> None:
    """Tell an error about keys of the command's FILE where they are written."""
    if isinstance(error, UsageError) and "overrides" in words:
        from kdaudit.config.yaml.loading import add_place

        add_place(error, words["file"], words["overrides"])


FILE = click.argument("file", type=click.Path(path_type=Path))
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override a key, as in gate.max_rate=0.001.",
)
FRESH = click.option("--fresh", is_flag=True, help="Start again: forget an earlier run in the directory.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on standard output.")
LOG_JSON = click.option(
    OPTION,
    is_flag=True,
    expose_value=False,
    help="Write progress, warnings and errors as JSON, one object a line, to standard error.",
)
"""For commands that take long; `Program` acts on it, before words are parsed."""
