"""How the program ends: one exit code for each kind of end, and a sentence in place of a traceback.

0 done, 1 a failed gate or a damaged file, 2 wrong use, 3 inconclusive, 4 a failure while running, 130
interrupted. Whatever else a library or the system makes of an end (1 for a closed pipe, 120 for an output
that could not be flushed) becomes one of these.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import click

from kdaudit.cli.json_lines import told_in_json
from kdaudit.cli.printing import OutputLostError, escaping_streams, say
from kdaudit.errors import KdauditError, UsageError

INTERRUPTED = 130


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: the system, a scheduler or a closed terminal ends the process."""


class Program(click.Group):
    """A group of commands that ends in one of our exit codes, however it ends."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,  # noqa: ANN401 - click's
    ) -> Any:  # noqa: ANN401 - what a command returns
        """As `click.Group.main`, which itself ends with 1 where a pipe is closed."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        name = prog_name or "kdaudit"

        words = list(sys.argv[1:] if args is None else args)

        def call() -> Any:  # noqa: ANN401
            self._main_shell_completion(extra, name, complete_var)
            with self.make_context(name, words, **extra) as context:
                return self.invoke(context)

        with _stopped_by_signals():
            _open_streams()
            with told_in_json(words) as lines:
                code = _code_of(call)
                if lines is not None:
                    lines.end(code)
        sys.exit(code)


def _code_of(call: Callable[[], Any]) -> int:
    try:
        with escaping_streams():
            code = _called(call)
            sys.stdout.flush()
    except click.ClickException as error:
        with escaping_streams():
            error.show()
        return UsageError.exit_code
    except (click.Abort, KeyboardInterrupt) as error:
        say(f"kdaudit: {interruption(error)}", err=True)
        return INTERRUPTED
    except MemoryError:
        say("kdaudit: out of memory; finished work is kept: free memory, then run again to resume", err=True)
        return KdauditError.exit_code
    except OutputLostError as error:
        _drop_output()
        if isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, BrokenPipeError):
            reason = error.__cause__.strerror
            say(f"kdaudit: the result could not be printed ({reason}); finished work is kept", err=True)
        return KdauditError.exit_code
    return code


def interruption(error: BaseException, *, fresh: bool = False) -> str:
    """What to tell of an interruption.

    Args:
        error: what ended the command.
        fresh: whether the command began with `--fresh`, which would forget what is kept.

    """
    how = f"terminated ({error})" if isinstance(error, Terminated) else "interrupted"
    again = ", without --fresh," if fresh else ""
    return f"{how}; finished work is kept: run the same command again{again} to resume"


def _called(call: Callable[[], Any]) -> int:
    try:
        code = call()
    except click.exceptions.Exit as end:
        code = end.exit_code
    except SystemExit as end:
        code = end.code
    return code if isinstance(code, int) else 0


def _open_streams() -> None:
    """Closed standard streams lead nowhere: a file that is opened later must not take their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - for the rest of the process
    with contextlib.suppress(AttributeError):  # a test's stream
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _drop_output() -> None:
    """Let the interpreter's last flush succeed: it would end the process with a code of its own."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as Ctrl-C does: workers end, and what is kept is told."""
    own = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is signal.SIG_DFL]
    try:
        for one in own:
            signal.signal(one, _terminate)
    except ValueError:  # not in the main thread: its owner handles signals
        own = []
    try:
        yield
    finally:
        for one in own:
            signal.signal(one, signal.SIG_DFL)


def _terminate(number: int, frame: FrameType | None) -> None:
    del frame
    raise Terminated(signal.Signals(number).name)
