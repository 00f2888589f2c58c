"""The replication against chance: which baselines each audit names, and the table; nothing is trained."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sample_results import sample_dict

FOLDER = Path(__file__).parent.parent / "sample_configs" / "replication"
sys.path.insert(0, str(FOLDER))

import attacks  # noqa: E402
import chance  # noqa: E402

FIGURES = {
    "soft": {
        "reference_inheritance": 0.06,
        "inheritance_floor": 0.05,
        "excess_inheritance": 0.01,
        "ratio_to_floor": 1.2,
        "excess_at_own_rate": 0.02,
    },
    "hard": {
        "reference_inheritance": 0.11,
        "inheritance_floor": 0.05,
        "excess_inheritance": 0.06,
        "ratio_to_floor": 2.2,
        "excess_at_own_rate": 0.04,
    },
}


def test_each_seed_is_audited_beside_all_baselines_its_own_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Any, ...]] = []
    monkeypatch.setattr(chance, "kdaudit", lambda *words: called.append(words))
    chance.audit(tmp_path, 1, (0, 1, 2))
    ((command, file, out, baselines, predictor),) = called
    assert (command, predictor) == ("run", "predictor.enabled=false")
    assert file == tmp_path / "seed-1" / "seed-1" / "audit.yaml"
    assert out == tmp_path / "seed-1" / "chance"
    key, _, named = baselines.partition("=")
    assert key == "models.baseline"
    assert json.loads(named) == [
        str(tmp_path / f"seed-{seed}" / f"seed-{seed}" / "baseline") for seed in (1, 0, 2)
    ]


def test_the_table_holds_what_each_audit_found_beyond_chance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "steps.json").write_text('{"inputs": "these", "seconds": {}}')
    monkeypatch.setattr(chance, "audit", _finish)
    made = chance.against_chance(tmp_path, (0, 1))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines()]
    told = {(row[0], row[1]): row[3:] for row in rows[2:]}
    assert told["3", "soft beyond chance"][:3] == ["1.00%", "2.00%", "1.50%"]
    assert told["3", "soft / chance"][:2] == ["1.20", "1.20"]
    assert told["6", "inherited by hard, against one baseline"][0] == "11.00%"
    assert told["6", "beyond chance, hard - soft"][:3] == ["5.00%", "4.00%", "4.50%"]
    assert (tmp_path / "CHANCE.md").read_text() == made
    assert json.loads((tmp_path / "chance.json").read_text())[2]["seeds"] == {"0": 0.01, "1": 0.02}
    figures = json.loads((tmp_path / "chance" / "trainings.json").read_text())["figures"]
    (excess,) = [one for one in figures if (one["about"], one["key"]) == ("soft", "excess_inheritance")]
    assert excess["values"] == [0.01, 0.02]


def _finish(out: Path, seed: int, seeds: tuple[int, ...]) -> None:
    """A finished audit whose soft student holds seed points more beyond chance."""
    run = out / f"seed-{seed}" / "chance"
    sample = sample_dict(name=f"seed-{seed}")
    for name, figures in FIGURES.items():
        sample["comparison"][name] |= figures
        sample["models"][name]["fingerprint"] = f"{name}{seed}"
    sample["comparison"]["soft"]["excess_inheritance"] += 0.01 * seed
    sample["soft_vs_hard"]["excess_difference"] = 0.05 - 0.01 * seed
    for name in sample["models"]:
        folder = run / "extraction" / name
        folder.mkdir(parents=True)
        rows = {"example_id": [0, 1], "memorized": [True, False]}
        pq.write_table(pa.table(rows), folder / "part-00000.parquet")
    (run / "results.json").write_text(json.dumps(sample))


def test_without_a_replication_it_says_what_to_run_first(tmp_path: Path) -> None:
    done = CliRunner().invoke(chance.main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "run replicate.py first" in done.stderr


INHERITED = {
    "teacher_specific": 40,
    "inherited": 4,
    "inheritance_rate": 0.1,
    "inheritance_ci95": [0.03, 0.24],
    "inheritance_floor": 0.08,
    "excess_inheritance": 0.02,
    "excess_ci95": [-0.1, 0.1],
}


def test_other_attacks_stand_beside_exact_extraction(tmp_path: Path) -> None:
    for seed in (0, 1):
        _finish(tmp_path, seed, (0, 1))
        path = tmp_path / f"seed-{seed}" / "chance" / "results.json"
        sample = json.loads(path.read_text())
        sample["models"]["baseline-1"] = sample["models"].pop("baseline")
        sample["attacks"] = {
            "teacher": _attacked(0.4, 0.5),
            "baseline-1": _attacked(0.3, 0.2),
            "soft": _attacked(0.1 + 0.02 * seed, 0.1, INHERITED),
            "hard": _attacked(0.3, 0.2, INHERITED | {"inheritance_rate": 0.25}),
        }
        (path.parent / "extraction" / "baseline").rename(path.parent / "extraction" / "baseline-1")
        path.write_text(json.dumps(sample))
    made = attacks.under_attacks(tmp_path, (0, 1))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in made.splitlines()]
    told = {(row[0], row[1]): row[3:] for row in rows[2:]}
    assert told["1", "near-verbatim: soft"][:3] == ["10.00%", "12.00%", "11.00%"]
    assert told["1", "near-verbatim: soft / baseline"][0] == "0.33"
    assert told["1", "sampled: teacher"][0] == "50.00%", "not that of the fewest queries"
    assert told["3", "sampled: soft beyond chance"][0] == "2.00%"
    assert told["6", "near-verbatim: inherited, hard - soft"][:2] == ["15.00%", "15.00%"]
    assert told["1", "membership: soft"][0] == "-", "no holdout"
    assert (tmp_path / "ATTACKS.md").read_text() == made


def _attacked(near: float, sampled: float, inheritance: dict[str, Any] | None = None) -> dict[str, Any]:
    few, many = (
        {"queries": queries, "p": 0.5, "rate": rate, "ci95": [0, 1]}
        for queries, rate in ((1, sampled / 10), (1000, sampled))
    )
    lucky = many | {"p": 0.1, "rate": 0.9}
    return {
        "near_verbatim": {
            "max_edit_distance": 0.1,
            "examples": 100,
            "exposed": round(100 * near),
            "rate": near,
            "ci95": [0, 1],
            "distances": [1],
            "inheritance": inheritance,
        },
        "sampled": {
            "temperature": 1.0,
            "top_k": 40,
            "examples": 100,
            "scored": 100,
            "curve": [lucky, few, many],
            "inheritance": inheritance,
        },
    }


def test_without_the_audits_it_says_what_makes_them(tmp_path: Path) -> None:
    done = CliRunner().invoke(attacks.main, [str(tmp_path)])
    assert done.exit_code == 2
    assert "run chance.py first" in done.stderr
