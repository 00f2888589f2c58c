"""A finished run whose configuration changed repeats what depends on the change, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
import toys
from ruamel.yaml import YAML

from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import RunStateError
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.stages import engine_check
from kdaudit.runs import store
from kdaudit.runs.store import RunStore
from kdaudit.runs.verify import check_files

_TIMES = {"created", "seconds", "tokens_per_second"}
_LAST = ["results", "report"]
_ALL = ("soft", "hard", "teacher", "baseline")


class Family:
    """Toy models, and a finished audit of them whose runs are copied and changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toys.write_audit(folder, predictor={"trials": 5})
        toys.save_model(folder / "third", 5)
        toys.write_corpus(
            folder / "other-holdout.jsonl", [list(range(40 + row, 54 + row)) for row in range(12)]
        )
        self.config: dict[str, Any] = YAML(typ="safe").load(folder / "audit.yaml")
        self.run(folder / "finished", self.config)

    def run(self, out: Path, config: dict[str, Any]) -> list[str]:
        """Audit; the stages that ran, in their order."""
        path = self.folder / "changed.yaml"
        with path.open("w") as handle:
            YAML().dump(config, handle)
        ran: list[str] = []
        original = RunStore.stage

        @contextmanager
        def stage(run: RunStore, name: str, *values: Any, **named: Any) -> Iterator[None]:
            ran.append(name)
            with original(run, name, *values, **named):
                yield

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunStore, "stage", stage)
            patch.setattr(store, "SHARD_ROWS", 8)
            patch.setattr(os, "urandom", lambda size: b"k" * size)  # hashes of text are keyed
            run_audit(load_audit(path), out, fresh=False, progress=lambda *_: None, warn=lambda _: None)
        return ran

    def changed(self, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        config: dict[str, Any] = json.loads(json.dumps(self.config))
        change(config)
        return config

    def copy(self, out: Path) -> Path:
        return Path(shutil.copytree(self.folder / "finished", out))


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return Family(tmp_path_factory.mktemp("family"))


def results(run: Path) -> Any:
    """All that a run tells, without its times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(inner) for key, inner in value.items() if key not in _TIMES}
        return [timeless(inner) for inner in value] if isinstance(value, list) else value

    leaks = pq.ParquetFile(run / "leaks.parquet").read().to_pylist()
    return timeless(json.loads((run / "results.json").read_text())), leaks


def extracted(run: Path) -> dict[str, bytes]:
    """Shards of the corpus's extractions: they tell how long they took, so none is written twice alike."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("extraction/*/*")}


class Case(NamedTuple):
    change: Callable[[dict[str, Any]], object]
    ran: list[str]


def _students(*order: int) -> Callable[[dict[str, Any]], object]:
    def change(config: dict[str, Any]) -> None:
        models = config["models"]
        found = [*models["students"], {"name": "third", "path": "./third", "kd": "soft"}]
        models["students"] = [found[number] for number in order]

    return change


_OF_HOLDOUT = [
    "holdout",
    *(f"{attack}/{name}" for name in _ALL for attack in ("extraction", "attacks/near_verbatim")),
]
_TEXTS = ("", "holdout/")
_SAMPLES = ["scoring/sample.parquet", "holdout/scoring/sample.parquet"]


def _passes(*names: str, corpus: bool = False) -> list[str]:
    """One load of each model: what it makes of the holdout, and of the corpus if that is asked too."""
    parts = ("perplexity", *(("scores",) if corpus else ()), "holdout/scores")
    return [f"{part}/{name}" for name in names for part in parts]


_PERPLEXITIES = [_SAMPLES[1], *_passes("teacher", "baseline", "soft", "hard")]
CASES = {
    "the same": Case(lambda config: None, []),
    "an added student": Case(
        _students(0, 1, 2),
        [
            "config",
            "engine_check/third",
            "extraction/third",
            "attacks/near_verbatim/third",
            "continuations",
            *_passes("third", corpus=True),
            "entropy",
            *_LAST,
        ],
    ),
    "a base model": Case(
        lambda config: config["models"].update(base="./third"),
        [
            "config",
            "engine_check/base",
            "extraction/base",
            "attacks/near_verbatim/base",
            "continuations",
            *_passes("base", corpus=True),
            "entropy",
            *_LAST,
        ],
    ),
    "a removed student": Case(
        _students(0), ["config", "continuations", "scoring/sample.parquet", "entropy", *_LAST]
    ),
    "reordered students": Case(
        _students(1, 0), ["config", "scoring/features.parquet", "entropy", "predictor", *_LAST]
    ),
    "another holdout": Case(
        lambda config: config["holdout"].update(path="./other-holdout.jsonl"),
        ["config", *_OF_HOLDOUT, *_PERPLEXITIES, *_LAST],
    ),
    "no holdout": Case(lambda config: config.pop("holdout"), ["config", *_LAST]),
    "a nearer limit": Case(
        lambda config: config.update(attacks={"near_verbatim": {"max_edit_distance": 0.2}}),
        ["config", *(f"attacks/near_verbatim/{name}" for name in _ALL), *_LAST],
    ),
    "a nearer limit and another holdout": Case(
        lambda config: (
            config.update(attacks={"near_verbatim": {"max_edit_distance": 0.2}}),
            config["holdout"].update(path="./other-holdout.jsonl"),
        ),
        ["config", *_OF_HOLDOUT, *_PERPLEXITIES, *_LAST],
    ),
    "no other attack": Case(
        lambda config: config.update(attacks={"near_verbatim": None}), ["config", *_LAST]
    ),
    "another temperature": Case(
        lambda config: config.update(attacks={"sampled": {"temperature": 0.5}}),
        [
            "config",
            *(f"{text}scores/{name}" for name in ("teacher", "baseline", "soft", "hard") for text in _TEXTS),
            *_LAST,
        ],
    ),
    "a smaller sample": Case(
        lambda config: config.update(attacks={"sample": 5}),
        ["config", *_SAMPLES, "scoring/features.parquet", *_LAST],
    ),
    "a gate": Case(lambda config: config.update(gate={"max_rate": 0.5}), ["config", *_LAST]),
    "a title": Case(lambda config: config.update(report={"title": "Ours"}), ["config", "report"]),
    # Too few examples are memorized here for a predictor, whatever its trials: the results do not change.
    "other trials": Case(lambda config: config["predictor"].update(trials=6), ["config", "predictor"]),
    "no predictor": Case(
        lambda config: config["predictor"].update(enabled=False), ["config", "predictor", *_LAST]
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_change_repeats_what_depends_on_it(family: Family, tmp_path: Path, name: str) -> None:
    case, run = CASES[name], family.copy(tmp_path / "run")
    config, before = family.changed(case.change), extracted(run)
    assert family.run(run, config) == case.ran
    after = extracted(run)
    assert {shard: after[shard] for shard in before if shard in after} == {
        shard: before[shard] for shard in before if name != "a removed student" or "/hard/" not in shard
    }
    assert check_files(run) == []
    if case.ran:
        family.run(tmp_path / "fresh", config)
        assert results(run) == results(tmp_path / "fresh")
        files = {str(path.relative_to(run)) for path in run.rglob("*")}
        wanted = {str(path.relative_to(tmp_path / "fresh")) for path in (tmp_path / "fresh").rglob("*")}
        assert wanted <= files
        assert {one.removeprefix("holdout/").split("/")[0] for one in files - wanted} <= {
            "attacks",
            "scores",
            "scoring",
            "features",
            "entropy",
            "entropy_logprob.parquet",
        }


def test_an_added_holdout_is_measured_and_the_corpus_is_not_again(family: Family, tmp_path: Path) -> None:
    run = family.copy(tmp_path / "run")
    family.run(run, family.changed(lambda config: config.pop("holdout")))
    assert not (run / "holdout").exists()
    before = extracted(run)
    ran = family.run(run, family.config)
    assert ran == ["config", *_OF_HOLDOUT, *_PERPLEXITIES, *_LAST]
    assert extracted(run) == before
    assert results(run) == results(family.folder / "finished")


def test_a_student_put_back_is_extracted_again(family: Family, tmp_path: Path) -> None:
    run = family.copy(tmp_path / "run")
    family.run(run, family.changed(_students(0)))
    assert not list(run.rglob("*hard*"))
    ran = family.run(run, family.config)
    assert {"engine_check/hard", "extraction/hard", "perplexity/hard"} <= {*ran}
    assert results(run) == results(family.folder / "finished")


REFUSED = {
    "models.hard.path (its content)": lambda config: config["models"]["students"][1].update(path="./third"),
    "models.teacher.path (its content)": lambda config: config["models"].update(teacher="./third"),
    "models.baseline.path (its content)": lambda config: config["models"].update(baseline="./third"),
    "corpus.path (its content)": lambda config: config["corpus"].update(path="./other-holdout.jsonl"),
    "extraction.suffix_tokens": lambda config: config["extraction"].update(suffix_tokens=7),
    "seed": lambda config: config.update(seed=1),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_would_make_measurements_wrong_is_refused_by_name(
    family: Family, tmp_path: Path, key: str
) -> None:
    run = family.copy(tmp_path / "run")
    before = results(run)
    with pytest.raises(RunStateError, match="use --fresh to start again") as refused:
        family.run(run, family.changed(REFUSED[key]))
    assert f"another {key}:" in str(refused.value)
    assert results(run) == before
    assert check_files(run) == []


def test_no_shard_of_weights_that_were_there_meanwhile_is_kept(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student's weights are exchanged once they are hashed, the process dies, and they are put back."""
    folder, run = family.folder / "third", family.copy(tmp_path / "run")
    weights = folder / "model.safetensors"
    right, wrong = weights.read_bytes(), (family.folder / "soft" / "model.safetensors").read_bytes()
    config = family.changed(_students(0, 1, 2))
    written, asked = RunStore.write_table, engine_check.ask_reference

    class Killed(BaseException):
        pass

    def ask_reference(*args: Any) -> Any:
        weights.write_bytes(wrong)
        return asked(*args)

    def write_table(run: RunStore, name: str, table: Any) -> None:
        written(run, name, table)
        if name.startswith("extraction/third"):
            raise Killed

    monkeypatch.setattr(RunStore, "write_table", write_table)
    monkeypatch.setattr(engine_check, "ask_reference", ask_reference)
    try:
        with pytest.raises(Killed):
            family.run(run, config)
    finally:
        weights.write_bytes(right)
    monkeypatch.undo()
    family.run(run, config)
    family.run(tmp_path / "fresh", config)
    assert results(run) == results(tmp_path / "fresh")


def test_a_student_that_memorizes_more_has_that_alone_scored_by_the_others(
    family: Family, tmp_path: Path
) -> None:
    """Of the others no example is in a sample of none but what is memorized."""
    few = {"sample": 1}
    run = tmp_path / "run"
    family.run(run, family.changed(lambda config: (config.update(attacks=few), _students(0)(config))))

    def scored() -> dict[str, list[int]]:
        return {
            str(path.relative_to(run)): pq.read_table(path)["example_id"].to_pylist()
            for path in sorted((run / "scores").rglob("*.parquet"))
        }

    before = scored()
    ran = family.run(run, family.changed(lambda config: config.update(attacks=few)))
    assert {"scores/teacher", "scores/baseline", "scores/soft", "scores/hard"} <= {*ran}
    added = {name: ids for name, ids in scored().items() if name not in before}
    assert {name: ids for name, ids in scored().items() if name in before} == before
    only_hard = {"scores/soft", "scores/teacher", "scores/baseline"}
    assert {len(ids) for name, ids in added.items() if str(Path(name).parent) in only_hard} <= {1, 2, 3}
    family.run(tmp_path / "fresh", family.changed(lambda config: config.update(attacks=few)))
    assert results(run) == results(tmp_path / "fresh")
