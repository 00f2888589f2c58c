"""Errors that a person can act on.

A UsageError holds what is wrong, where, and what to do as data; nothing reads a sentence back. The command
line prints the sentence that `str` makes of it, without a traceback, and exits with the class's code.

    KdauditError
    ├── UsageError             exit 2: wrong use, configuration or input
    │   ├── ConfigError        a configuration file or a --set
    │   ├── CorpusError        the text to audit
    │   ├── ModelError         a model's folder, weights or tokenizer
    │   └── RunStateError      a run directory that cannot be used as asked
    └── RunError               exit 4: a failure while running; what was done is kept
        ├── DisagreementError  two engines run different models from one folder
        ├── EngineError        the inference engine failed
        │   ├── OutOfMemoryError   the device's memory does not hold model and batch
        │   ├── NoReferenceError   transformers cannot load or run the model in float32
        │   └── WorkerDiedError    its process crashed
        │       ├── WorkerKilledError  its process was killed, most likely by the OOM killer
        │       └── WorkerLostError    its process is gone with its node, and others can do its work
        └── StorageError       a file could not be written or read back
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

_MOST_CHARACTERS = 400
"""Of another library's message that is shown."""
MAX_SHOWN = 10
"""Problems that one message lists; more would scroll the first ones away."""


class KdauditError(Exception):
    """Base of all errors that kdaudit raises on purpose."""

    exit_code: ClassVar[int] = 4


class ToldElsewhere(SystemExit):
    """Another process of the same command says what failed; this one ends with its exit code, in silence."""


class UsageError(KdauditError):
    """The user's command, configuration or input is wrong; running again changes nothing.

    Attributes:
        what: what is wrong, and in which file, line or row, without the remedy.
        fix: what to do about it.
        key: the configuration's dotted key that it is about, as in `corpus.path`; None if it is about none.
        where: where that was written: `audit.yaml:12`, `--set`, or another option of the command line. The
            loader of the configuration adds it (`kdaudit.config.yaml.loading.add_place`).
        more: further problems that were found with this one.

    """

    exit_code = 2

    def __init__(
        self,
        what: str,
        fix: str,
        *,
        key: str | None = None,
        where: str | None = None,
        more: Sequence[UsageError] = (),
    ) -> None:
        super().__init__(what, fix)
        self.what = what
        self.fix = fix
        self.key = key
        self.where = where
        self.more = tuple(more)

    def __str__(self) -> str:
        """`audit.yaml:12: gate.max_rate: WHAT; FIX`, a line for each problem."""
        problems = (self, *self.more)
        lines = [problem._line() for problem in problems[:MAX_SHOWN]]
        if len(problems) > MAX_SHOWN:
            lines.append(f"and {len(problems) - MAX_SHOWN} more")
        return "\n".join(lines)

    def _line(self) -> str:
        lead = [part for part in (self.where, self.key) if part]
        place = " ".join(lead) if self.where == "--set" else ": ".join(lead)
        return f"{f'{place}: ' if place else ''}{self.what}; {self.fix}"


class ConfigError(UsageError):
    """A configuration file, or a `--set` on the command line, is wrong."""


class CorpusError(UsageError):
    """The corpus cannot be read as configured."""


class ModelError(UsageError):
    """A model cannot be used: its folder, weights, tokenizer or size."""


class RunStateError(UsageError):
    """A run directory cannot be used as asked: changed inputs, another process at work, damage."""


class RunError(KdauditError):
    """Something failed while running; finished work is kept and the same command resumes."""


class DisagreementError(RunError):
    """An engine and its reference say different things from the files of one model."""


class EngineError(RunError):
    """The inference engine or its worker process failed.

    Attributes:
        what: what failed, without the remedy.

    """

    def __init__(self, what: str, fix: str = "") -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what = what


class WorkerDiedError(EngineError):
    """The worker process that held an engine was killed or crashed."""


class WorkerKilledError(WorkerDiedError):
    """The worker process got SIGKILL, as the system sends it when memory runs out."""


class WorkerLostError(WorkerDiedError):
    """A process of a cluster is gone, alone or with its node; others that hold the same can do its work."""


class OutOfMemoryError(EngineError):
    """Model and batch do not fit the device's memory."""


class NoReferenceError(EngineError):
    """The engine check's reference is not available: transformers cannot load or run the model in float32."""


class StorageError(RunError):
    """A file of the run could not be written or read."""


def reason(error: BaseException) -> str:
    """First line of an error's message, with the next where it only announces it; its kind if it has none.

    Of a long line the beginning: some libraries quote whole files.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    shown = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    return shown if len(shown) <= _MOST_CHARACTERS else f"{shown[:_MOST_CHARACTERS]}..."
