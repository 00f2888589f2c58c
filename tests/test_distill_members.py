"""Which baselines `kdaudit distill` trains, and which of them each audit.yaml names; nothing is trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdaudit.config.distill import DistillConfig
from kdaudit.config.yaml.loading import load_audit, load_distill
from kdaudit.distillation.audit_file import write_audit_file
from kdaudit.distillation.lab import _values
from kdaudit.distillation.members import baselines_of, members, order_of
from kdaudit.distillation.training import Recipe
from kdaudit.schemas.distillation import DistillRecord, TrainedModel, render

FAMILY = """\
name: tiny
corpus: ./train.jsonl
holdout: ./valid.jsonl
teacher: {base: org/teacher, epochs: 1, learning_rate: 0.001}
student: {base: org/student, epochs: 1, learning_rate: 0.001}
students:
  - {name: soft, method: soft}
  - {name: baseline, method: baseline}
  - {name: hard, method: hard}
"""


def family(folder: Path, *overrides: str, text: str = FAMILY) -> DistillConfig:
    path = folder / "distill.yaml"
    path.write_text(text)
    return load_distill(path, overrides)


def folders(config: DistillConfig) -> list[str]:
    return [str(member.folder) for member in members(config)]


def named(config: DistillConfig, seed: int) -> list[str]:
    return [str(member.folder) for member in baselines_of(config, seed)]


def test_one_seed_trains_three_baselines_by_default_each_by_a_seed_of_its_own(tmp_path: Path) -> None:
    config = family(tmp_path)
    baselines = ["seed-0/baseline", "seed-0/baseline-2", "seed-0/baseline-3"]
    assert folders(config) == ["seed-0/soft", *baselines, "seed-0/hard"]
    assert named(config, 0) == baselines
    draws = {member.name: member.draws for member in members(config)}
    assert (draws["soft"], draws["baseline"], draws["hard"]) == (0, 0, 0)
    assert len({0, draws["baseline-2"], draws["baseline-3"]}) == 3
    other = {member.name: member.draws for member in members(family(tmp_path, "seeds=[1]"))}
    assert other["baseline-2"] != draws["baseline-2"]


def test_the_seeds_of_further_baselines_stay_what_they_were(tmp_path: Path) -> None:
    """Another derivation would refuse every trained folder: SHA-256 of `seed/name`, its first four bytes."""
    assert [member.draws for member in members(family(tmp_path)) if member.is_baseline] == [
        0,
        0xB479E85A,
        0xBAFD5404,
    ]


def test_seeds_share_their_baselines_and_each_audit_begins_with_its_own(tmp_path: Path) -> None:
    config = family(tmp_path, "seeds=[5, 6, 7]")
    assert [one for one in folders(config) if "baseline" in one] == [
        "seed-5/baseline",
        "seed-6/baseline",
        "seed-7/baseline",
    ]
    assert named(config, 6) == ["seed-6/baseline", "seed-5/baseline", "seed-7/baseline"]


def test_where_seeds_are_too_few_the_first_has_the_missing_ones(tmp_path: Path) -> None:
    config = family(tmp_path, "seeds=[4, 9]")
    assert named(config, 9) == ["seed-9/baseline", "seed-4/baseline", "seed-4/baseline-2"]
    assert named(config, 4) == ["seed-4/baseline", "seed-9/baseline", "seed-4/baseline-2"]


@pytest.mark.parametrize(("count", "names"), [(1, ["plain"]), (3, ["plain", "plain-3", "plain-4"])])
def test_further_baselines_take_names_that_no_student_has(
    tmp_path: Path, count: int, names: list[str]
) -> None:
    text = FAMILY.replace("name: baseline", f"count: {count}, name: plain").replace("soft,", "Plain-2,")
    config = family(tmp_path, text=text)
    assert [member.name for member in baselines_of(config, 0)] == names


def test_each_seeds_audit_names_the_baselines_by_paths_from_its_folder(tmp_path: Path) -> None:
    config, out = family(tmp_path, "seeds=[0, 1]"), tmp_path / "out"
    for member in members(config):
        (out / member.folder).mkdir(parents=True)
    for seed in config.seeds:
        write_audit_file(config, out, seed, out / "teacher")
        audit = load_audit(out / f"seed-{seed}" / "audit.yaml")
        assert audit.models.baseline is not None
        assert [Path(one.path).relative_to(out) for one in audit.models.baseline] == [
            Path(one) for one in named(config, seed)
        ]
        assert [student.name for student in audit.models.students] == ["soft", "hard"]


def test_a_family_without_a_baseline_has_none_in_its_audit(tmp_path: Path) -> None:
    text = FAMILY.replace("  - {name: baseline, method: baseline}\n", "")
    config, out = family(tmp_path, text=text), tmp_path / "out"
    (out / "seed-0").mkdir(parents=True)
    write_audit_file(config, out, 0, out / "teacher")
    assert load_audit(out / "seed-0" / "audit.yaml").models.baseline is None


def test_models_share_the_order_of_their_seed_or_have_one_each(tmp_path: Path) -> None:
    shared, own = family(tmp_path), family(tmp_path, "training.order=own")
    names = ("teacher", "baseline", "soft", "hard")
    assert {order_of(shared, name, seed) for name in names for seed in (0, 1)} == {None}
    assert len({order_of(own, name, seed) for name in names for seed in (0, 1)}) == 8


def test_models_of_earlier_versions_are_told_by_the_same_values() -> None:
    """They were fingerprinted without an order: one without its own must give the same values."""
    shared, own = Recipe(2, 0.01, 4, seed=3), Recipe(2, 0.01, 4, seed=3, order=8)
    assert "order" not in _values(shared)
    assert _values(own) == {**_values(shared), "order": 8}


def test_the_outcome_names_the_audit_of_each_seed_once(tmp_path: Path) -> None:
    models = [
        TrainedModel(
            folder=folder, method=method, seed=7, parameters=1, windows=1, tokens=1, steps=1, losses=[1.0],
            seconds=1.0, holdout_perplexity=2.0, measured="",
        )
        for folder, method in (
            ("teacher", "teacher"), ("seed-9/baseline", "baseline"), ("seed-9/baseline-2", "baseline"),
            ("seed-10/baseline", "baseline"),
        )
    ]  # fmt: skip
    record = DistillRecord(
        name="tiny", versions={}, corpus_windows=1, corpus_tokens=1, holdout_windows=1, models=models
    )
    audits = [line.split()[-1] for line in render(record, tmp_path).splitlines() if "kdaudit run" in line]
    assert audits == [str(tmp_path / f"seed-{seed}" / "audit.yaml") for seed in (9, 10)]
