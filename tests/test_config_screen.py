"""screen.yaml: what loads, how labels and errors read, and which file is taken for which kind."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from kdaudit.config.paths import check_paths, references
from kdaudit.config.screen import ScreenConfig
from kdaudit.config.yaml.loading import (
    config_kind_of,
    dump_config,
    load_audit,
    load_screen,
    screen_schema,
)
from kdaudit.errors import ConfigError

SAMPLES = Path(__file__).parent.parent / "sample_configs"

GOOD = """\
name: corpus
corpus: ./train.jsonl
models: {teacher: ./teacher, baseline: ./baseline}
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, *overrides: str) -> ScreenConfig:
        path = tmp_path / "screen.yaml"
        path.write_text(text)
        return load_screen(path, overrides)

    return load


AUDIT = """\
name: a
corpus: ./train.jsonl
holdout: ./held-out.jsonl
models: {teacher: ./teacher, baseline: ./baseline, students: [{name: s, path: ./s, kd: soft}]}
gate: {max_rate: 0.01}
"""


def test_a_screening_and_an_audit_are_told_apart_by_their_keys(load, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"screen\.yaml: is meant for `kdaudit run` by its keys; give it to"
    ):
        load(AUDIT)
    path = tmp_path / "audit.yaml"
    path.write_text(GOOD + "drop: window\n")
    with pytest.raises(
        ConfigError, match=r"audit\.yaml: is meant for `kdaudit screen` by its keys; give it to"
    ):
        load_audit(path)


@pytest.mark.parametrize("key", ["holdout: ./held-out.jsonl\n", "gate: {max_rate: 0.01}\n"])
def test_a_screening_with_one_key_of_an_audit_is_told_of_that_key(load, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key.partition(':')[0]}: unknown key"):
        load(GOOD + key)


@pytest.mark.parametrize(
    "text", [AUDIT, AUDIT.partition("gate")[0].replace("holdout: ./held-out.jsonl\n", "")]
)
def test_an_audit_with_one_key_of_a_screening_is_told_of_that_key(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.yaml"
    path.write_text(text + "drop: window\n")
    with pytest.raises(ConfigError, match="drop: unknown key"):
        load_audit(path)


def test_what_is_left_out_has_its_default(load) -> None:
    config = load(GOOD)
    assert (config.drop, config.format, config.predictor.labels) == ("document", "parquet", "easy_core")
    assert (config.extraction.engine, config.extraction.prefix_tokens) == (None, 50)
    assert (config.predictor.recall, config.predictor.confidence, config.predictor.trials) == (
        0.99,
        0.95,
        100,
    )
    assert [one.path for one in config.models.baseline] == [
        config.models.teacher.path.replace("teacher", "baseline")
    ]


def test_processes_share_the_scoring_where_nothing_is_extracted(load) -> None:
    config = load(f"{GOOD}compute: {{workers: 2, ray: auto}}\n")
    assert (config.extraction.engine, config.compute.replicas, config.compute.ray) == (None, 2, "auto")


def test_labels_may_be_the_predictor_of_an_earlier_audit(load, tmp_path: Path) -> None:
    config = load(GOOD + "predictor: {labels: runs/a/predictor.json}\n")
    assert config.predictor.labels == str(tmp_path / "runs/a/predictor.json")
    with pytest.raises(ConfigError, match=r"predictor\.labels: .*predictor\.json does not exist"):
        check_paths(config.model_copy(update={"corpus": config.corpus.model_copy(update={"path": "hub/id"})}))
    assert "predictor.labels" in [one.key for one in references(config)]


@pytest.mark.parametrize("labels", ["easy_core", "teacher"])
def test_a_file_with_the_name_of_a_kind_does_not_hide_the_kind(load, tmp_path: Path, labels: str) -> None:
    (tmp_path / labels).mkdir()
    assert load(GOOD + f"predictor: {{labels: {labels}}}\n").predictor.labels == labels


def test_a_dump_loads_equal(load, tmp_path: Path) -> None:
    text = GOOD.replace("}", ", students: [{name: soft, path: ./soft}]}", 1) + (
        "predictor: {labels: student, student: soft}\nextraction: {engine: transformers}\n"
        "drop: window\nformat: jsonl\n"
    )
    config = load(text)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_screen(tmp_path / "again.yaml") == config


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("predictor: {labels: easy-core}", "'easy-core' is neither .*; did you mean easy_core"),
        ("predictor: {labels: 3}", "predictor.labels: the number 3 is not allowed; choose student"),
        ("predictor: {labels: student}", "predictor.labels: student needs a student in models.students"),
        ("predictor: {enabled: false}", "predictor.enabled: false is not allowed"),
        ("predictor: {student: soft}", "predictor.student: there is no student 'soft'; remove it"),
        ("drop: documents", "drop: 'documents' is not allowed; choose document or window"),
        ("format: csv", "format: 'csv' is not allowed; choose parquet or jsonl"),
        ("corpus: {path: ./train.jsonl, window: 64}", "corpus.window: 64 tokens cannot hold"),
        ("models: {teacher: ./teacher}", "models.baseline: is required and missing"),
        (
            "models: {teacher: ./t, baseline: [./a, ./b]}",
            "models.baseline: several baselines need an extraction",
        ),
        (
            "models: {teacher: ./t, baseline: ./b, students: [{name: soft, path: ./s}]}",
            "models.students: are used only with predictor.labels: student",
        ),
        ("gate: {max_rate: 0.1}", "gate: unknown key"),
    ],
)
def test_mistakes_are_named_in_one_sentence(load, line: str, said: str) -> None:
    key = line.split(":")[0]
    text = (
        "".join(row for row in GOOD.splitlines(keepends=True) if not row.startswith(f"{key}:")) + line + "\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert re.search(said, str(caught.value))
    assert str(caught.value).count("\n") == 0
    assert re.search(r"screen\.yaml:\d+: ", str(caught.value))


def test_the_schema_takes_what_loads() -> None:
    schema = screen_schema()
    sample = YAML(typ="safe").load((SAMPLES / "screen.yaml").read_text())
    jsonschema.validate(sample, schema)
    jsonschema.validate(YAML(typ="safe").load(GOOD), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**sample, "drop": "all"}, schema)


def test_the_kind_of_a_file_is_told_from_its_keys(tmp_path: Path) -> None:
    found = {path.name: config_kind_of(path) for path in SAMPLES.glob("*.yaml")}
    assert found["screen.yaml"] == "screen"
    assert {kind for name, kind in found.items() if name.startswith("audit")} == {"audit"}
    assert found["distill.yaml"] == "distill"
    (tmp_path / "corpus.yaml").write_text(GOOD + "drop: window\n")
    assert config_kind_of(tmp_path / "corpus.yaml") == "screen"
    contents = {
        GOOD: "screen",  # an audit names students
        GOOD + "max_flagged: 0.5\n": "screen",
        GOOD + "gate: {max_rate: 0.1}\n": "audit",
        GOOD + "gate: {max_rate: 0.1}\ndrop: window\n": "audit",
        GOOD.replace("}", ", students: [{name: a, path: ./a}]}"): "audit",
        GOOD.replace("}", ", students: [{name: a, path: ./a}]}") + "format: jsonl\n": "screen",
        "name: x\nmodels: {teacher: ./t}\n": "audit",
        "name: x\nmodels: 3\n": "audit",
        "[]": "audit",
    }
    for text, kind in contents.items():
        for name in ("screen-of-audits.yaml", "audit.yaml", "distill-SCREEN.yaml"):
            (tmp_path / name).write_text(text)
            assert config_kind_of(tmp_path / name) == kind, (name, text)
