"""What the commands wrote, as objects that read it: `Run`, `Screening`, `Distillation`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.attacks import ATTACKS, NearVerbatim
from kdaudit.attacks.scored import of_sample
from kdaudit.errors import RunStateError
from kdaudit.reporting.render import read_results
from kdaudit.reporting.screening import read_screen_record
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import LEAKS_SCHEMA
from kdaudit.runs.files import open_regular, read_bounded
from kdaudit.runs.finished import shards_of
from kdaudit.runs.verify import check_files

if TYPE_CHECKING:
    from kdaudit.schemas.distillation import DistillRecord
    from kdaudit.schemas.results import AuditResults
    from kdaudit.schemas.screening import ScreenRecord

_MOST_BYTES = 1 << 20
"""Of a file that counts what was cut."""


class _Folder:
    """A folder that a command wrote, read without a lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def verify(self) -> list[str]:
        """Compare every file with the manifest; a sentence for each that differs, as `kdaudit verify` says.

        Raises:
            RunStateError: there is no manifest, or it cannot be read.

        """
        return check_files(self.path)

    def _table(self, name: str, missing: str, columns: Sequence[str] | None = None) -> pa.Table:
        if not (self.path / name).exists():
            raise RunStateError(f"{self.path / name}: is missing", fix=missing)
        return _read(self.path / name, columns)


class Run(_Folder):
    """A finished audit. Tables are read from disk at each call; `.to_pandas()` is one call away."""

    @cached_property
    def results(self) -> AuditResults:
        """The contents of results.json."""
        return read_results(self.path)

    @property
    def report(self) -> Path:
        """The full report: it holds training text."""
        return self.path / layout.REPORT

    @property
    def public_report(self) -> Path:
        """The report that holds no training text."""
        return self.path / layout.PUBLIC_REPORT

    def examples(self, *, holdout: bool = False, generated: bool = False, canaries: bool = False) -> pa.Table:
        """The distinct examples: example_id, document_id, offset, text, token_ids, copies and more.

        How many of the token ids are the prefix and the suffix stands in prefix_tokens and suffix_tokens; for
        models with tokenizers of their own, prompt_end and target_end say it in characters of the text. Runs
        of earlier versions have none of these four.

        Args:
            holdout: those of the holdout instead of the corpus's.
            generated: those of the text that the teacher wrote instead.
            canaries: canaries and controls instead; `canaries()` says which is which.

        Raises:
            RunStateError: there are none, or not all.

        """
        text = _side_text(holdout=holdout, generated=generated, canaries=canaries)
        return self._shards(layout.EXAMPLES, text)

    def canaries(self) -> pa.Table:
        """The canaries and controls that are measured: example_id, family, repetitions (0 for a control).

        The ids are those of `examples(canaries=True)`. Rows that no model was measured on are left out; a
        note counts them.

        Raises:
            RunStateError: the run has no canaries.

        """
        return self._table(layout.PLANTED, "run the audit with attacks.canaries")

    def attack(
        self,
        name: str,
        model: str,
        *,
        holdout: bool = False,
        generated: bool = False,
        canaries: bool = False,
    ) -> pa.Table:
        """What an attack found of each example, in the order of `examples()`.

        Args:
            name: "greedy": example_id, matched_tokens, memorized; "near_verbatim": example_id, edit_distance
                (null above the limit).
            model: "teacher", "baseline" ("baseline-1", ...) or a student's name.
            holdout: on the holdout instead of the corpus.
            generated: on the text that the teacher wrote instead.
            canaries: on canaries and controls instead.

        Raises:
            ValueError: there is no such attack or model.
            RunStateError: the run holds no such table, or not all of it.

        """
        others = [NearVerbatim.name] if self.results.attacks else []
        names = [*(attack.name for attack in ATTACKS), *others]
        if name not in names:
            raise ValueError(f"attack {name!r} is not one of this run's: {', '.join(names)}")
        self._check_model(model)
        text = _side_text(holdout=holdout, generated=generated, canaries=canaries)
        return self._shards(layout.attack(name, model), text)

    def scores(self, model: str, *, holdout: bool = False, canaries: bool = False) -> pa.Table:
        """What a model makes of each token of a sample's suffixes, by example id.

        Columns: example_id; weight, the examples that it stands for; of the suffix's tokens
        log_probabilities, means and variances of ln p over the next-token distribution, hits (the argmax);
        prefix_log_probability, the sum of ln p over the prefix; sampled_log_probability, ln of the
        probability that sampling gives the suffix.

        Args:
            model: "teacher", "baseline" ("baseline-1", ...) or a student's name.
            holdout: of the holdout instead of the corpus.
            canaries: of canaries and controls instead, all of them.

        Raises:
            ValueError: there is no such model.
            RunStateError: the run holds no such table: no attack that takes it ran on this model.

        """
        self._check_model(model)
        text = _side_text(holdout=holdout, canaries=canaries)
        folder, sample = (
            name if text is None else layout.beside_corpus(text, name)
            for name in (layout.scores(model), layout.SCORE_SAMPLE)
        )
        missing = f"run the audit with {_SCORED_FOR[text]}"
        return of_sample(self._joined(folder, missing), self._table(sample, missing))

    def leaks(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The examples that a student memorized, with their text, continuations, classes and tags.

        Args:
            columns: those to read, which takes less memory where leaks are many; None for all.

        Raises:
            ValueError: there is no such column.

        """
        known = LEAKS_SCHEMA.names
        unknown = [name for name in columns or () if name.split(".")[0] not in known]
        if unknown:
            raise ValueError(f"column {unknown[0]!r} is not one of {layout.LEAKS}'s: {', '.join(known)}")
        return self._table(layout.LEAKS, "finish the audit with kdaudit.audit or `kdaudit run`", columns)

    def risk(self) -> pa.Table:
        """The risk of what was scored, by example id: example_id, risk, flagged, and what it follows from.

        That is every example that any model memorizes, and a sample of the others (`attacks.sample`).
        `weight` says how many examples of the corpus each stands for: weighted sums estimate those over all.
        Then come document_id and the features. Without a predictor, and in runs of earlier versions, there is
        a row for every example, of the first three columns alone.

        Raises:
            RunStateError: the run has no predictor; `results.notes` says why.

        """
        return self._table(layout.RISK, "the run has no risk predictor; results.notes says why")

    def _check_model(self, model: str) -> None:
        if model not in self.results.models:
            raise ValueError(f"model {model!r} is not one of this run's: {', '.join(self.results.models)}")

    def _shards(self, folder: str, text: str | None) -> pa.Table:
        """All shards of a folder of the corpus, or of a text beside it: a row for each of its examples."""
        place = folder if text is None else layout.beside_corpus(text, folder)
        table = self._joined(place, f"finish the audit with kdaudit.audit{_with(text)}")
        wanted = self._examples(text)
        if len(table) != wanted:
            raise RunStateError(
                f"{self.path / place}: holds {len(table):,} examples, and the audit had {wanted:,}",
                fix="`kdaudit verify` says what was changed",
            )
        return table

    def _joined(self, folder: str, missing: str) -> pa.Table:
        """All shards of a folder, in their order; `missing` is the remedy where there are none."""
        place = self.path / folder
        found = shards_of(self.path, folder)
        if not found:
            raise RunStateError(f"{place}: holds no shards", fix=missing)
        try:
            return pa.concat_tables(_read(path) for path in found)
        except pa.ArrowException as error:
            raise RunStateError(
                f"{place}: its shards have different columns", fix="`kdaudit verify` says what was changed"
            ) from error

    def _examples(self, text: str | None) -> int:
        if text is None:
            return self.results.corpus.examples
        if text == layout.CANARIES:
            return _counted(self.path / layout.summary(layout.beside_corpus(text, layout.EXAMPLES)))
        measured = [getattr(model, text) for model in self.results.models.values()]
        return next((one.examples for one in measured if one is not None), 0)


_SCORED_FOR = {
    None: "attacks.sampled, or attacks.membership and a holdout",
    layout.HOLDOUT: "attacks.membership and a holdout",
    layout.CANARIES: "attacks.canaries",
}
"""What makes an audit score a text."""


def _side_text(**asked: bool) -> str | None:
    """The text beside the corpus that is asked for, by its name; None for the corpus itself.

    Raises:
        ValueError: several are.

    """
    named = [name for name, wanted in asked.items() if wanted]
    if len(named) > 1:
        raise ValueError(f"{named[0]} and {named[1]} are two texts: ask for one of them")
    return named[0] if named else None


class Screening(_Folder):
    """A finished screening."""

    @cached_property
    def record(self) -> ScreenRecord:
        """The contents of screen.json."""
        return read_screen_record(self.path)

    @property
    def report(self) -> Path:
        """The full report: it holds training text."""
        return self.path / layout.SCREEN_REPORT

    @property
    def public_report(self) -> Path:
        """The report that holds no training text."""
        return self.path / layout.PUBLIC_SCREEN_REPORT

    @property
    def kept(self) -> Path:
        """The folder of the corpus without what was dropped."""
        return self.path / layout.KEPT

    def flagged(self) -> pa.Table:
        """The flagged examples and why they are."""
        return self._table(layout.FLAGGED, "finish the screening with kdaudit.screen or `kdaudit screen`")

    def risk(self) -> pa.Table:
        """Each example's risk: example_id, risk, flagged."""
        return self._table(layout.RISK, "the screening has no risk predictor; record.notes says why")


class Distillation:
    """A trained family."""

    def __init__(self, path: Path, record: DistillRecord) -> None:
        self.path = path
        self.record = record
        """The contents of distill.json."""

    def __repr__(self) -> str:
        return f"Distillation({str(self.path)!r})"

    @property
    def audits(self) -> list[Path]:
        """The audit.yaml of each seed, by rising seed."""
        return [self.path / name for name in self.record.audits]


def _with(text: str | None) -> str:
    return "" if text is None else f", with {layout.SIDE_TEXTS[text]} named"


def _counted(path: Path) -> int:
    """How many examples were cut from a text."""
    from pydantic import ValidationError

    from kdaudit.schemas.corpus import CorpusResult

    try:
        return CorpusResult.model_validate_json(read_bounded(path, _MOST_BYTES)).examples
    except (OSError, ValidationError) as error:
        raise RunStateError(
            f"{path}: cannot be read", fix="`kdaudit verify` says what was changed"
        ) from error


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        with open_regular(path) as file:
            return pq.read_table(file, columns=None if columns is None else [*columns])
    except (OSError, pa.ArrowException) as error:
        raise RunStateError(
            f"{path}: cannot be read ({error})", fix="`kdaudit verify` says what was changed"
        ) from error
