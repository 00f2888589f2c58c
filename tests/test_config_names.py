"""What users may call things, and that no name of theirs is taken for a key, a reason or a file of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from kdaudit.cli import main
from kdaudit.config.distill import DistillConfig
from kdaudit.config.yaml.loading import load_audit, load_distill
from kdaudit.distillation.plans import hard_corpus_name
from kdaudit.errors import ConfigError

AUDIT = """\
name: acme
corpus: ./train.jsonl
models:
  teacher: ./teacher
  students:
    - {name: NAME, path: ./soft}
"""
DISTILL = """\
name: acme
corpus: {path: ./train.jsonl}
holdout: {path: ./valid.jsonl}
teacher: {base: org/t, epochs: 1, learning_rate: 0.1}
student: {base: org/s, epochs: 1, learning_rate: 0.1}
students:
  - {name: first, method: hard, decoding: sampled}
  - {name: NAME, method: hard, decoding: sampled}
seeds: [0, 1, 23]
"""
FORM = "cannot name a folder; use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
DEVICE = "cannot name a folder on Windows; choose another name"
REFUSED = {
    "name with space": FORM,
    "<b>bold</b>": FORM,
    "*soft*": FORM,
    "[a](javascript:x)": FORM,
    "a\\nb": FORM,
    "..": FORM,
    ".hidden": FORM,
    "-rf": FORM,
    "a/b": FORM,
    "a\\\\b": FORM,
    "/etc": FORM,
    "~root": FORM,
    "": FORM,
    "étudiant": FORM,
    "a\\u202eb": FORM,
    "x" * 65: FORM,
    "CON": DEVICE,
    "nul.txt": DEVICE,
    "lpt1": DEVICE,
    "soft.": DEVICE,
}
RESERVED = ("teacher", "TEACHER", "baseline", "Baseline-1", "baseline-x", "holdout")
TAKEN = (
    *("predictor-v2", "corpus", "gate", "examples", "results.json", "report.html", "part-00000.parquet"),
    *("seed-1", "x" * 64, "0", "con-soft", "inherit", "teacher-2", "soft-vs-hard", "a..b", "config.yaml"),
)


def written(folder: Path, text: str, name: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text.replace("NAME", f'"{name}"'))
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_a_students_name_that_cannot_name_a_folder_is_refused_with_its_line(
    name: str, tmp_path: Path
) -> None:
    for load, text, place in ((load_audit, AUDIT, "6: models."), (load_distill, DISTILL, "8: ")):
        path = written(tmp_path, text, name)
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}:{place}students."), str(caught.value)
        assert str(caught.value).endswith(REFUSED[name])
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RESERVED)
def test_names_of_other_models_are_reserved(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file\.yaml:6: models\.students\.0\.name: .* is reserved"):
        load_audit(written(tmp_path, AUDIT, name))


def test_base_is_reserved_where_one_is_named_alone(tmp_path: Path) -> None:
    assert load_audit(written(tmp_path, AUDIT, "base")).models.students[0].name == "base"
    named = AUDIT.replace("  students:", "  base: org/base\n  students:")
    assert named != AUDIT
    with pytest.raises(ConfigError, match=r"students\.0\.name: 'Base' is reserved"):
        load_audit(written(tmp_path, named, "Base"))


@pytest.mark.parametrize("name", TAKEN)
def test_any_other_name_is_taken(name: str, tmp_path: Path) -> None:
    assert load_audit(written(tmp_path, AUDIT, name)).models.students[0].name == name


@pytest.mark.parametrize("name", ["seed-1", "SEED-23", "first-seed-1", "x-seed-0"])
def test_a_student_is_not_named_like_a_seeds_files(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"file\.yaml:8: students\.1\.name: .* choose another name"):
        load_distill(written(tmp_path, DISTILL, name))


def test_what_the_teacher_writes_has_a_file_of_its_own_for_each_student_and_seed(tmp_path: Path) -> None:
    for name in ("seed", "seed-", "seed-1a", "first-seed", "1", "parquet", "first.parquet", "first-1"):
        config: DistillConfig = load_distill(written(tmp_path, DISTILL, name))
        students: Any = config.students
        files = {hard_corpus_name(config, one, seed).lower() for one in students for seed in config.seeds}
        assert len(files) == len(students) * len(config.seeds)


def call(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, list(words))
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    return done.output


@pytest.mark.parametrize("key", ["corpus", "models", "name"])
def test_a_run_directory_named_like_a_key_is_not_taken_for_the_key(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    for folder in ("teacher", "soft", key):
        (tmp_path / folder).mkdir()
    (tmp_path / key / "thesis.tex").write_text("mine")
    written(tmp_path, AUDIT, "soft")
    assert call(tmp_path, monkeypatch, "run", "file.yaml", "--out", key).startswith(f"kdaudit: {key}: ")


@pytest.mark.parametrize("name", ["corpus", "models", "seed"])
def test_a_file_named_like_a_key_is_named_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_text(AUDIT.replace("corpus:", "corpse:") + "seed: 1\n")
    output = call(tmp_path, monkeypatch, "run", name)
    assert output.startswith(f"kdaudit: {name}:2: corpse: unknown key")


@pytest.mark.parametrize("value", ["text: s3://bucket/x", "a.b: ftp://x", "window: gs://x"])
def test_a_value_is_never_read_as_a_key(value: str, tmp_path: Path) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(AUDIT.replace("./train.jsonl", f'"{value}"').replace("NAME", "soft"))
    with pytest.raises(ConfigError) as caught:
        load_audit(path)
    assert str(caught.value).startswith(f"{path}:2: corpus: {value} lies on ")
