"""Another attack than greedy extraction: its own file, its schema in it, and one line of a list."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import toys

from kdaudit import open_run
from kdaudit.attacks import ATTACKS, GREEDY, Flags
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import UsageError
from kdaudit.inference import Batch, Engine
from kdaudit.inference.workers import fork_server
from kdaudit.pipelines import audit
from kdaudit.pipelines.stages import extracting
from kdaudit.pipelines.stages.measured import Measurements


@dataclass(frozen=True)
class FirstTokens:
    """A target's first tokens are reproduced."""

    tokens: int

    name: ClassVar[str] = "first_tokens"
    columns: ClassVar[pa.Schema] = pa.schema([("example_id", pa.int64()), ("hits", pa.int16())])
    needs: ClassVar[frozenset[Any]] = frozenset({"match"})

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        hits = engine.match(examples.prompts, examples.targets.head(self.tokens))
        return pa.table([examples.example_ids, hits], schema=self.columns)

    def exposed(self, rows: pa.Table) -> Flags:
        return rows["hits"].to_numpy() == self.tokens


@pytest.fixture
def first_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[FirstTokens]:
    """The one line of the list, and workers that find this file."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setattr(fork_server, "_running", {})
    attack = FirstTokens(2)
    ATTACKS.append(attack)
    yield attack
    ATTACKS.remove(attack)


class Run:
    """Audits of the toy models, and what each of them gathered."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "run"
        self.gathered: list[Measurements] = []
        toys.write_audit(folder)
        self._config = load_audit(folder / "audit.yaml", ["predictor.enabled=false"])
        gather = audit.gather

        def keep(*given: Any) -> Measurements:
            self.gathered.append(gather(*given))
            return self.gathered[-1]

        monkeypatch.setattr(audit, "gather", keep)

    def __call__(self) -> Any:
        return audit.run_audit(self._config, self.folder, fresh=False, progress=lambda *_: None, warn=print)


def test_a_second_attack_runs_in_an_audit_and_its_exposure_is_counted(
    tmp_path: Path, first_two: FirstTokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(tmp_path, monkeypatch)
    results = run()
    counts = {name: model.memorized for name, model in results.models.items()}
    assert counts == {"teacher": 5, "baseline": 4, "soft": 5, "hard": 2}
    for name, found in run.gathered[0].by_model.items():
        greedy = pq.read_table(run.folder / "extraction" / name / "part-00000.parquet")
        other = pq.read_table(run.folder / "attacks" / "first_tokens" / name / "part-00000.parquet")
        assert other.schema.equals(FirstTokens.columns)
        expected = np.minimum(greedy["matched_tokens"].to_numpy(), 2)
        assert other["hits"].to_numpy().tolist() == expected.tolist()
        assert found.attacks["first_tokens"].exposed.tolist() == (expected == 2).tolist()
        assert found.attacks["first_tokens"].exposed.sum() >= found.corpus.exposed.sum() > 0
        holdout = run.folder / "holdout" / "attacks" / "first_tokens" / name / "part-00000.parquet"
        assert pq.read_table(holdout).num_rows == 10
        told = open_run(run.folder)
        assert told.attack("first_tokens", name).equals(other)
        assert told.attack("first_tokens", name, holdout=True).equals(pq.read_table(holdout))
        assert told.attack("greedy", name).equals(greedy)


def test_an_attack_that_is_added_later_repeats_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    run = Run(tmp_path, monkeypatch)
    run()
    before = {path: path.stat().st_mtime_ns for path in run.folder.glob("extraction/*/*")}
    request.getfixturevalue("first_two")
    run()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len([*run.folder.glob("attacks/first_tokens/*/part-*")]) == 4


def test_what_counts_as_memorized_is_asked_of_the_attack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results, classes, holdout, leaks and tags follow another definition without a change of theirs."""

    def even(_: Any, rows: pa.Table) -> Flags:
        flags: Flags = rows["memorized"].to_numpy() & (np.arange(len(rows)) % 2 == 0)
        return flags

    monkeypatch.setattr(type(GREEDY), "exposed", even)
    run = Run(tmp_path, monkeypatch)
    results = run()
    counts = {
        name: int(one.corpus.rows["memorized"].to_numpy()[::2].sum())
        for name, one in run.gathered[0].by_model.items()
    }
    assert counts != {"teacher": 5, "baseline": 4, "soft": 5, "hard": 2}, "else this would show nothing"
    assert {name: model.memorized for name, model in results.models.items()} == counts
    by = {name: sum(name in leak.memorized_by for leak in results.leaks) for name in ("soft", "hard")}
    assert by == {name: counts[name] for name in by}
    assert pq.read_table(run.folder / "leaks.parquet").num_rows == len(results.leaks)


def test_an_engine_that_cannot_do_what_an_attack_needs_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extracting, "ABILITIES", {"transformers": frozenset({"generate"})})
    with pytest.raises(UsageError, match="transformers cannot match, which the attack greedy needs"):
        Run(tmp_path, monkeypatch)()
