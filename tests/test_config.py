"""Configuration files: what loads, how errors read, where paths lead, and what comes back from a dump."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from kdaudit.config.audit import AuditConfig
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.models import ModelConfig
from kdaudit.config.paths import check_paths, references, resolve_path
from kdaudit.config.yaml.loading import audit_schema, dump_config, load_audit, results_schema
from kdaudit.corpus.sources import HubDataset, find_source
from kdaudit.errors import ConfigError

ROOT = Path(__file__).parent.parent
CONTRACT = ROOT.parent / "shared" / "contract.md"

GOOD = """\
name: acme
corpus: {path: ./train.jsonl}
models:
  teacher: ./teacher
  baseline: org/base
  students:
    - {name: soft, path: ./student-soft, kd: soft}
"""

FULL = """\
name: acme-1.4b-release
corpus:
  path: ./train.parquet
  name: null
  revision: null
  split: train
  text: text
  id: null
  window: 256
  stride: null
  limit: null
holdout: null
models:
  teacher: {path: ./teacher, revision: null}
  baseline: {path: ./baseline}
  students:
    - {name: soft, path: ./student-soft, kd: soft}
    - {name: hard, path: ./student-hard, kd: hard}
extraction: {engine: vllm, prefix_tokens: 50, suffix_tokens: 50, bos: auto, dtype: auto, tensor_parallel: 1}
predictor:
  {enabled: true, labels: student, student: null, features: all, trials: 100, recall: 0.99, confidence: 0.95}
gate:
  {max_rate: 0.001, max_inheritance_rate: 0.01, max_inherited: 0, max_ratio_to_baseline: 0.5, students: null,
   max_excess_inheritance: 0.01, max_tagged: 0, accept: accepted.yaml}
report: {title: null, max_examples: 200, document_ids: false}
seed: 0
"""


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str | bytes, *overrides: str) -> AuditConfig:
        path = tmp_path / "audit.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_audit(path, overrides)

    return load


def message(load, tmp_path: Path, text: str | bytes, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


def models(students: str = "[{name: soft, path: s}]", baseline: str = "org/base") -> str:
    return (
        f"name: acme\ncorpus: ./c.jsonl\n"
        f"models: {{teacher: org/t, baseline: {baseline}, students: {students}}}\n"
    )


# Each: the file; how its message begins (file, line and key); what it says; what it tells to do.
WRONG = {
    "section key misspelled": (
        GOOD + "gate: {max_rat: 0.1}",
        "audit.yaml:8: gate.max_rat: ",
        "unknown key",
        "did you mean max_rate? (allowed: max_rate, max_inheritance_rate, max_excess_inheritance, "
        "max_inherited, max_ratio_to_baseline, max_near_verbatim_rate, max_tagged, "
        "max_extractable, max_membership_tpr, max_canaries_extracted, students, accept)",
    ),
    "top key misspelled": (GOOD + "sed: 1", "audit.yaml:8: sed: ", "unknown key", "did you mean seed?"),
    "dash for underscore": (
        GOOD + "extraction: {prefix-tokens: 1}",
        "audit.yaml:8: extraction.prefix-tokens: ",
        "unknown key",
        "did you mean prefix_tokens?",
    ),
    "key in the wrong section": (
        GOOD + "prefix_tokens: 50",
        "audit.yaml:8: prefix_tokens: ",
        "unknown key",
        "did you mean extraction.prefix_tokens?",
    ),
    "key like none": (GOOD + "zzz: 1", "audit.yaml:8: zzz: ", "unknown key", "(allowed: name, corpus,"),
    "choice misspelled": (
        GOOD + "extraction:\n  bos: auto\n  engine: vlm",
        "audit.yaml:10: extraction.engine: ",
        "'vlm' is not allowed",
        "choose vllm or transformers (did you mean vllm?)",
    ),
    "features misspelled": (
        GOOD + "predictor: {features: four}",
        "audit.yaml:8: predictor.features: ",
        "'four' is not allowed",
        "choose all or paper",
    ),
    "choice of the wrong type": (
        models("[{name: a, path: s, kd: 1}]"),
        "audit.yaml:3: models.students.0.kd: ",
        "the number 1 is not allowed",
        "choose soft or hard",
    ),
    "text for a whole number": (
        GOOD + "holdout: {path: x, limit: many}",
        "audit.yaml:8: holdout.limit: ",
        "expected a whole number, got the text 'many'",
        "correct the value",
    ),
    "quoted whole number": (
        GOOD + 'seed: "5"',
        "audit.yaml:8: seed: ",
        "expected a whole number, got the text '5'",
        "remove the quotes",
    ),
    "fraction for a whole number": (
        GOOD + "seed: 1.0",
        "audit.yaml:8: seed: ",
        "expected a whole number, got the number 1.0",
        "write 1",
    ),
    "exponent for a whole number": (
        GOOD + "predictor: {trials: 1e2}",
        "audit.yaml:8: predictor.trials: ",
        "got the number 1e2",
        "write 100",
    ),
    "truth for a whole number": (
        GOOD + "seed: true",
        "audit.yaml:8: seed: ",
        "expected a whole number, got true",
        "correct the value",
    ),
    "quoted number": (
        GOOD + 'gate: {max_rate: "0.1"}',
        "audit.yaml:8: gate.max_rate: ",
        "expected a number, got the text '0.1'",
        "remove the quotes",
    ),
    "percentage": (
        GOOD + "gate: {max_rate: 5%}",
        "audit.yaml:8: gate.max_rate: ",
        "got the text '5%'",
        "write a share, as 0.05 for 5%",
    ),
    "share above one": (
        GOOD + "gate: {max_rate: 5}",
        "audit.yaml:8: gate.max_rate: ",
        "5 is out of range",
        "give at most 1; it is a share, as 0.05 for 5%",
    ),
    "share below zero": (
        GOOD + "gate: {max_inheritance_rate: -0.5}",
        "audit.yaml:8: gate.max_inheritance_rate: ",
        "-0.5 is out of range",
        "give at least 0",
    ),
    "count below zero": (
        GOOD + "gate: {max_inherited: -1}",
        "audit.yaml:8: gate.max_inherited: ",
        "-1 is out of range",
        "give at least 0",
    ),
    "decimal comma": (
        GOOD + "gate:\n  max_rate: 0,05",
        "audit.yaml:9: gate.max_rate: ",
        "got the text '0,05'",
        "write 0.05, with a dot",
    ),
    "decimal comma in braces": (
        GOOD + "gate: {max_rate: 0,1}",
        "audit.yaml:8: ",
        "'1' cannot be a key",
        "write a fraction with a dot, as in 0.1",
    ),
    "percentage with a comma": (
        GOOD + "gate:\n  max_rate: 0,5 %",
        "audit.yaml:9: gate.max_rate: ",
        "got the text '0,5 %'",
        "write a share",
    ),
    "thousands": (
        GOOD + "holdout:\n  path: x\n  limit: 1,000,000",
        "audit.yaml:10: holdout.limit: ",
        "got the text '1,000,000'",
        "write 1000000, without separators",
    ),
    "lone surrogate": (
        GOOD + 'report: {title: "a\\ud800"}',
        "audit.yaml:8: report.title: ",
        "holds a character that no text can hold",
        "remove it",
    ),
    "NUL written as an escape": (
        GOOD + 'holdout: {path: "a\\0"}',
        "audit.yaml:8: holdout.path: ",
        "holds a character that no text can hold",
        "remove it",
    ),
    "holdout is the corpus": (
        GOOD + "holdout: {path: ././train.jsonl, stride: 7}",
        "audit.yaml:8: holdout.path: ",
        "is the corpus itself",
        "name text that no model has seen, or remove holdout",
    ),
    "GPUs for the transformers engine": (
        models(baseline="[a, {path: b, tensor_parallel: 2}]") + "extraction: {engine: transformers}",
        "audit.yaml:3: models.baseline.1.tensor_parallel: ",
        "the transformers engine runs a model on one device",
        "set it to 1, or extraction.engine to vllm",
    ),
    "Ray Client": (
        GOOD + "compute: {ray: ray://head:10001}",
        "audit.yaml:8: compute.ray: ",
        "'ray://head:10001' is not the address of a Ray cluster",
        "give HOST:PORT, or auto",
    ),
    "no replica": (
        GOOD + "compute: {workers: 0}",
        "audit.yaml:8: compute.workers: ",
        "0 is not a number of replicas",
        "give 1 or more, or auto",
    ),
    "recall of one": (
        GOOD + "predictor: {recall: 1}",
        "audit.yaml:8: predictor.recall: ",
        "1 is out of range",
        "give less than 1",
    ),
    "nothing to read": (
        GOOD + "extraction: {prefix_tokens: 0}",
        "audit.yaml:8: extraction.prefix_tokens: ",
        "0 is out of range",
        "give 1 or more",
    ),
    "not a number": (
        GOOD + "gate: {max_rate: .nan}",
        "audit.yaml:8: gate.max_rate: ",
        ".nan is not a finite number",
        "give one, or null",
    ),
    "infinite": (
        GOOD + "gate: {max_ratio_to_baseline: .inf}",
        "audit.yaml:8: gate.max_ratio_to_baseline: ",
        ".inf is not a finite number",
        "give one, or null",
    ),
    "seed too large": (
        GOOD + "seed: 99999999999999999999999",
        "audit.yaml:8: seed: ",
        "is out of range",
        "give at most",
    ),
    "yes for true": (
        GOOD + "predictor: {enabled: yes}",
        "audit.yaml:8: predictor.enabled: ",
        "expected true or false, got the text 'yes'",
        "write true or false, without quotes",
    ),
    "quoted true": (
        GOOD + 'report: {document_ids: "true"}',
        "audit.yaml:8: report.document_ids: ",
        "expected true or false, got the text 'true'",
        "write true or false, without quotes",
    ),
    "number for text": (
        GOOD + "report: {title: 010}",
        "audit.yaml:8: report.title: ",
        "expected text, got the number 010",
        "put it in quotes",
    ),
    "commit that looks like a number": (
        GOOD + "holdout: {path: x, revision: 12e4567}",
        "audit.yaml:8: holdout.revision: ",
        "expected text, got the number 12e4567",
        "put it in quotes",
    ),
    "date for text": (
        GOOD + "report: {title: 2026-01-31}",
        "audit.yaml:8: report.title: ",
        "expected text, got the date 2026-01-31",
        "put it in quotes",
    ),
    "empty section": (
        GOOD + "gate:",
        "audit.yaml:8: gate: ",
        "is empty",
        "give it keys (max_rate, max_inheritance_rate, max_excess_inheritance, max_inherited, "
        "max_ratio_to_baseline, max_near_verbatim_rate, max_tagged, "
        "max_extractable, max_membership_tpr, max_canaries_extracted, students, accept), or remove it",
    ),
    "text for a section": (
        GOOD + "gate: strict",
        "audit.yaml:8: gate: ",
        "expected keys (max_rate,",
        "write them as `key: value`",
    ),
    "empty path": (
        GOOD + "holdout: {path: ''}",
        "audit.yaml:8: holdout.path: ",
        "is empty text",
        "give a value",
    ),
    "name with a slash": (
        GOOD.replace("acme", "a/b"),
        "audit.yaml:1: name: ",
        "'a/b' cannot name a folder",
        "use 1 to 64 letters, digits, '.', '_' and '-', beginning with a letter or digit",
    ),
    "null name": (
        GOOD.replace("acme", ""),
        "audit.yaml:1: name: ",
        "expected text, got nothing",
        "give a value",
    ),
    "null corpus": (
        GOOD.replace("{path: ./train.jsonl}", "null"),
        "audit.yaml:2: corpus: ",
        "is empty",
        "give it a path, or keys (path,",
    ),
    "no models": (
        "name: acme\ncorpus: x\n",
        "audit.yaml: models: ",
        "is required and missing",
        "add it",
    ),
    "no teacher": (
        "name: acme\ncorpus: x\nmodels:\n  students: [{name: a, path: b}]\n",
        "audit.yaml:3: models.teacher: ",
        "is required and missing",
        "add it to models",
    ),
    "student without name": (
        models("[{path: s}]"),
        "audit.yaml:3: models.students.0.name: ",
        "is required and missing",
        "add it to models.students.0",
    ),
    "student name with a slash": (
        models("[{name: ../x, path: s}]"),
        "audit.yaml:3: models.students.0.name: ",
        "'../x' cannot name a folder",
        "use 1 to 64 letters",
    ),
    "student name reserved": (
        models("[{name: Teacher, path: s}]"),
        "audit.yaml:3: models.students.0.name: ",
        "'Teacher' is reserved",
        "choose a name other than teacher, baseline, holdout and baseline-N",
    ),
    "student name of a baseline": (
        models("[{name: baseline-2, path: s}]"),
        "audit.yaml:3: models.students.0.name: ",
        "'baseline-2' is reserved",
        "choose a name other",
    ),
    "student name twice": (
        GOOD + "    - {name: Soft, path: x}",
        "audit.yaml:8: models.students.1.name: ",
        "'Soft' is used twice",
        "give each student its own name",
    ),
    "students a mapping": (
        models("{soft: s}"),
        "audit.yaml:3: models.students: ",
        "expected a list, got keys",
        "begin each entry with '- '",
    ),
    "students a text": (
        models("./s"),
        "audit.yaml:3: models.students: ",
        "expected a list, got the text './s'",
        "begin each entry with '- '",
    ),
    "student a text": (
        models("[./s]"),
        "audit.yaml:3: models.students.0: ",
        "expected keys, got the text './s'",
        "write it as {name: NAME, path: ./s}",
    ),
    "no students": (
        models("[]"),
        "audit.yaml:3: models.students: ",
        "is an empty list",
        "give at least one entry",
    ),
    "no baselines": (
        models(baseline="[]"),
        "audit.yaml:3: models.baseline: ",
        "is an empty list",
        "give at least one entry, or null for none",
    ),
    "key of the one baseline": (
        models(baseline="{pth: x, path: y}"),
        "audit.yaml:3: models.baseline.pth: ",
        "unknown key",
        "did you mean path?",
    ),
    "key of a second baseline": (
        models(baseline="[x, {pth: x, path: y}]"),
        "audit.yaml:3: models.baseline.1.pth: ",
        "unknown key",
        "did you mean path?",
    ),
    "window too short": (
        GOOD + "extraction: {prefix_tokens: 300}",
        "audit.yaml:2: corpus.window: ",
        "256 tokens cannot hold extraction.prefix_tokens + extraction.suffix_tokens = 350",
        "raise the window or lower those",
    ),
    "holdout window too short": (
        GOOD + "holdout: {path: x, window: 99}",
        "audit.yaml:8: holdout.window: ",
        "99 tokens cannot hold",
        "raise the window",
    ),
    "count on a sample": (
        GOOD.replace("jsonl}", "jsonl, limit: 9}") + "gate: {max_inherited: 0}",
        "audit.yaml:8: gate.max_inherited: ",
        "cannot be judged on a sample",
        "use gate.max_inheritance_rate",
    ),
    "excess without a baseline": (
        models(baseline="null") + "gate: {max_excess_inheritance: 0.01}",
        "audit.yaml:4: gate.max_excess_inheritance: ",
        "needs models.baseline",
        "name a baseline",
    ),
    "limit without a baseline": (
        models(baseline="null") + "gate: {max_ratio_to_baseline: 0.5}",
        "audit.yaml:4: gate.max_ratio_to_baseline: ",
        "needs models.baseline",
        "name a baseline or remove this limit",
    ),
    "gate of no student": (
        GOOD + "gate: {students: [soft, hrd]}",
        "audit.yaml:8: gate.students.1: ",
        "there is no student 'hrd'",
        "choose from soft",
    ),
    "labels of no student": (
        GOOD + "predictor: {student: hard}",
        "audit.yaml:8: predictor.student: ",
        "there is no student 'hard'",
        "choose from soft",
    ),
    "empty file": ("", "audit.yaml: ", "is empty", "give it the keys name, corpus, models"),
    "comments alone": ("# nothing\n", "audit.yaml: ", "is empty", "give it the keys name, corpus, models"),
    "a list": ("- a\n", "audit.yaml: ", "holds a list instead of keys", "begin with name, corpus, models"),
    "a scalar": ("audit", "audit.yaml: ", "holds a single value instead of keys", "begin with name,"),
    "tab": (GOOD + "gate:\n\tmax_rate: 0", "audit.yaml:9:1: ", "a tab stands", "indent with spaces"),
    "unclosed list": (
        "name: [a,\nb: c",
        "audit.yaml:2:",
        "not valid YAML",
        "correct this line or the one above",
    ),
    "second colon": ("name: a: b", "audit.yaml:1:8: ", "a second ':'", "put text that holds ': ' in quotes"),
    "second document": (GOOD + "---\na: 1", "audit.yaml:8:1: ", "a second document begins", "keep one"),
    "key given twice": (
        GOOD + "gate: {max_rate: 0, max_rate: 1}",
        "audit.yaml:8: gate.max_rate: ",
        "is given twice (first on line 8)",
        "keep one",
    ),
    "section given twice": (GOOD + "corpus: x", "audit.yaml:8: corpus: ", "(first on line 2)", "keep one"),
    "number for a key": (GOOD + "1: 2", "audit.yaml:8: ", "'1' cannot be a key", "keys are names"),
    "tag": (
        GOOD + "report: {title: !!python/name:os.system x}",
        "audit.yaml:8: report.title: ",
        "the YAML tag !!python/name:os.system is not allowed",
        "remove it",
    ),
    "loop": (
        GOOD + "report: &a {title: *a}",
        "audit.yaml:8: ",
        "within itself",
        "write out",
    ),
    "depth": (
        GOOD + "seed: " + "[" * 99 + "]" * 99,
        "audit.yaml:8: ",
        "nested too deeply",
        "write it out flat",
    ),
    "great depth": ("[" * 9999, "audit.yaml:1: ", "nested too deeply", "write it out flat"),
    "self in a list": ("&a [*a]", "audit.yaml:1: ", "*a stands within itself", "write out"),
    "self as a key": (GOOD + "report: &a {*a : 1}", "audit.yaml:8: ", "*a stands within itself", "write out"),
    "self merged": (
        GOOD + "report: &a\n  <<: *a\n",
        "audit.yaml:9: ",
        "*a stands within itself",
        "write out",
    ),
    "self in merges": (
        GOOD + "report: &a\n  <<: [{title: x}, *a]\n",
        "audit.yaml:9: ",
        "*a stands within itself",
        "write out",
    ),
    "number without end": (
        GOOD + "seed: 0x" + "f" * 9999,
        "audit.yaml:8: seed: ",
        "a number of 10,001 digits",
        "put text in quotes",
    ),
    "escape beyond Unicode": (
        GOOD + 'report: {title: "\\U99999999"}',
        "audit.yaml: ",
        "not valid YAML",
        "quotes",
    ),
    "unknown anchor": (GOOD + "seed: *x", "audit.yaml:8:7: ", "anchor that is not there", "put it in quotes"),
    "impossible date": (
        GOOD + "name2: 2026-13-45",
        "audit.yaml: ",
        "not valid YAML",
        "put odd values in quotes",
    ),
    "control character": (GOOD + 'name2: "\x07"', "audit.yaml:8: ", "holds a control character", "remove it"),
    "latin-1": (
        "# fine\nname: caf\xe9".encode("latin-1"),
        "audit.yaml:2: ",
        "byte 0xe9 is not UTF-8",
        "save",
    ),
    "utf-16": (GOOD.encode("utf-16"), "audit.yaml:1: ", "is not UTF-8", "save the file as UTF-8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_file_is_explained_in_one_sentence(case: str, load, tmp_path: Path) -> None:
    text, begins, says, remedy = WRONG[case]
    told = message(load, tmp_path, text)
    assert told.startswith(begins)
    assert says in told
    assert remedy in told
    assert "\n" not in told
    assert not re.search("pydantic|validation error|Input should|Traceback", told)


# Each: the overrides; how the message begins; what it says.
WRONG_SET = {
    "misspelled": (["gate.max_rat=1"], "--set gate.max_rat: unknown key; did you mean max_rate?"),
    "misspelled at the top": (["gat.max_rate=1"], "--set gat: unknown key; did you mean gate?"),
    "wrong section": (["max_rate=1"], "--set max_rate: unknown key; did you mean gate.max_rate?"),
    "student's key": (
        ["models.students.0.kdd=x"],
        "--set models.students.0.kdd: unknown key; did you mean kd?",
    ),
    "value in brackets": (["seed=[0]"], "--set seed: expected a whole number, got a list"),
    "no equals sign": (
        ["gate.max_rate"],
        "--set gate.max_rate: is not KEY=VALUE; write it so",
    ),
    "no key": (["=1"], "--set =1: is not KEY=VALUE; write it so"),
    "empty part": (
        ["gate..max_rate=1"],
        "--set gate..max_rate=1: is not KEY=VALUE; write it so",
    ),
    "out of range": (["gate.max_rate=7"], "--set gate.max_rate: 7 is out of range"),
    "last one counts": (["gate.max_rate=0.1", "gate.max_rate=7"], "--set gate.max_rate: 7 is out of range"),
    "row in brackets": (
        ["models.students[0].kd=x"],
        "--set models.students[0].kd: a row is written with a dot, not in brackets; write "
        "models.students.0.kd=VALUE",
    ),
    "row left out": (["models.students.kd=hard"], "--set models.students: is a list; name a row"),
    "row too far": (["models.students.5.name=x"], "--set models.students.5: its list has rows up to 0"),
    "below a value": (["name.x=1"], "--set name: is 'acme' in the file, not a section"),
    "below a number": (
        ["seed.x=1"],
        "--set seed.x: unknown key; correct or remove it (it holds one value",
    ),
    "not YAML": (["seed=[1"], "--set seed:1:"),
    "keys for text": (["report.title=Acme: 1"], "--set report.title: expected text, got keys; put text that"),
    "empty": (["seed="], "--set seed: no value stands behind the =; write seed=VALUE, or seed=null for none"),
    "a limit of an unset variable": (
        ["gate.max_rate= "],
        "--set gate.max_rate: no value stands behind the =",
    ),
    "as written": (
        ["models.teacher.revision=12e4567"],
        "--set models.teacher.revision: expected text, got the ",
    ),
    "inside a section": (["models.teacher={pth: 1, path: x}"], "--set models.teacher.pth: unknown key"),
    "section without its path": (["holdout.limit=5"], "audit.yaml: holdout.path: is required and missing"),
}


@pytest.mark.parametrize("case", WRONG_SET)
def test_wrong_override_is_explained(case: str, load, tmp_path: Path) -> None:
    overrides, begins = WRONG_SET[case]
    told = message(load, tmp_path, GOOD, *overrides)
    assert told.startswith(begins)
    assert "\n" not in told


def test_several_errors_stand_one_a_line_in_the_order_of_the_file(load, tmp_path: Path) -> None:
    told = message(load, tmp_path, GOOD + "seed: x\ngate: {max_rate: 2}\nholdout: {pth: x}\n")
    assert [line.split(": ")[:2] for line in told.splitlines()] == [
        ["audit.yaml:8", "seed"],
        ["audit.yaml:9", "gate.max_rate"],
        ["audit.yaml:10", "holdout.pth"],
    ]


def test_very_many_errors_are_counted(load, tmp_path: Path) -> None:
    told = message(load, tmp_path, GOOD + "".join(f"zz{row}: 1\n" for row in range(14)))
    assert len(told.splitlines()) == 11
    assert told.endswith("\nand 4 more")


def test_a_file_that_cannot_be_read_is_named_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "audit.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"audit\.yml: no such file; did you mean .*audit\.yaml\?"):
        load_audit(tmp_path / "audit.yml", [])
    with pytest.raises(ConfigError, match="no such file; check the name"):
        load_audit(tmp_path / "none" / "x.yaml", [])
    with pytest.raises(ConfigError, match="is a folder; give a configuration file"):
        load_audit(tmp_path, [])
    (tmp_path / "big.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ConfigError, match="over 256 KiB"):
        load_audit(tmp_path / "big.yaml", [])
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file; give a configuration file"):
        load_audit(tmp_path / "pipe.yaml", [])
    (tmp_path / "endless.yaml").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="not a regular file; give a configuration file"):
        load_audit(tmp_path / "endless.yaml", [])


def aliases_of_aliases(open_: str, close: str, join: str, width: int = 9) -> str:
    """A few hundred bytes that stand for 9^9 values."""
    lines = [f"a0: &a0 {open_}{'x' if open_ == '[' else 'x: 1'}{close}"]
    for level in range(1, 10):
        inside = ", ".join(join.format(n=n, below=f"*a{level - 1}") for n in range(width))
        lines.append(f"a{level}: &a{level} {open_}{inside}{close}")
    return "\n".join(lines)


BOMBS = {
    "lists": aliases_of_aliases("[", "]", "{below}"),
    "mappings": aliases_of_aliases("{", "}", "k{n}: {below}"),
    "merges": "a0: &a0 {k0: 1}\n"
    + "".join(f"a{n}: &a{n}\n  <<: *a{n - 1}\n  k{n}: 1\n" for n in range(1, 3000)),
    "lists of merges": aliases_of_aliases("{", "}", "{below}", 1).replace("*a", "<<: *a")
    + "\nb: {<<: ["
    + ", ".join(["*a9"] * 6000)
    + "]}",
    "values": "a: &a " + "x" * 1000 + "\nb: [" + "*a, " * 30_000 + "]",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_aliases_and_merges_cannot_make_much_of_little(bomb: str, load) -> None:
    began = time.process_time()
    with pytest.raises(ConfigError, match=r"audit\.yaml:\d+: more than 20,000 keys and values, each alias"):
        load(BOMBS[bomb])
    with pytest.raises(ConfigError, match=r"^--set report\.title:\d+: more than 20,000 keys and values"):
        load(GOOD, f"report.title={BOMBS[bomb]}")
    assert time.process_time() - began < 6


def test_merged_keys_are_read_and_the_own_ones_hold_with_their_lines() -> None:
    from kdaudit.config.yaml.document import parse_document

    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3}\nc:\n  <<: [*a, *b]\n  x: 9\n"
    document = parse_document(text, "x")
    assert document.data["c"] == {"x": 9, "y": 2}
    assert document.line(("c", "x")) == 5
    assert document.written(("c", "x")) == "9"
    assert document.line(("c", "y")) == 1


# What a plain scalar means in YAML 1.2 (its core schema, yaml.org/spec/1.2.2, section 10.3).
SCALARS = {
    "yes": "yes", "no": "no", "on": "on", "off": "off", "true": True, "False": False, "~": None, "null": None,
    "1e-3": 0.001, "5.0e-5": 5e-5, "1E3": 1000.0, ".5": 0.5, "010": 10, "0o10": 8, "0x1F": 31, "+1": 1,
    "1:30": "1:30",
}  # fmt: skip


@pytest.mark.parametrize("written", SCALARS)
def test_scalars_follow_yaml_1_2(written: str) -> None:
    from kdaudit.config.yaml.document import parse_document

    value = parse_document(f"x: {written}", "x").data["x"]
    assert (value, type(value)) == (SCALARS[written], type(SCALARS[written]))


def test_whole_numbers_stand_for_fractions_but_not_the_other_way(load) -> None:
    config = load(GOOD + "gate: {max_rate: 0, max_ratio_to_baseline: 2}")
    assert (config.gate.max_rate, config.gate.max_ratio_to_baseline) == (0.0, 2.0)
    assert load(GOOD + "gate: {max_rate: 1e-3}").gate.max_rate == 0.001


def test_byte_order_mark_and_windows_lines_are_read(load) -> None:
    assert load(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode()).name == "acme"


def test_overrides_change_make_and_remove(load, tmp_path: Path) -> None:
    config = load(
        GOOD,
        "gate.max_rate=1e-3",
        "models.students.0.kd=hard",
        "models.students.1={name: b, path: org/b}",
        "models.teacher.revision=v1",
        "models.baseline.dtype=float32",
        "holdout=./valid.jsonl",
        "report.title='Acme: 1=1'",
        "predictor.enabled=false",
    )
    assert config.gate.max_rate == 0.001
    assert [(s.name, s.kd) for s in config.models.students] == [("soft", "hard"), ("b", None)]
    assert config.models.teacher.path == str(tmp_path / "teacher")
    assert config.models.teacher.revision == "v1"
    assert config.models.baseline is not None
    assert [(b.path, b.dtype) for b in config.models.baseline] == [("org/base", "float32")]
    assert config.holdout is not None
    assert config.holdout.path == str(tmp_path / "valid.jsonl")
    assert config.report.title == "Acme: 1=1"
    assert not config.predictor.enabled
    assert load(GOOD, "models.baseline=null").models.baseline is None
    assert load(GOOD, "models.baseline.1=org/two").models.baseline[1].path == "org/two"


def test_local_paths_and_hub_ids_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "here" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "org" / "here")
    monkeypatch.setenv("HOME", "/home/someone")
    expected = {
        "org/name": "org/name",
        "name": "name",
        "./org/here": f"{tmp_path}/org/here",
        "org/here/": f"{tmp_path}/org/here",
        "org/here/deep": f"{tmp_path}/org/here/deep",
        "org/my model": f"{tmp_path}/org/my model",
        "hf://org/here": "org/here",
        "hf://datasets/link": "link",
        "./link": f"{tmp_path}/link",
        "./gone": f"{tmp_path}/gone",
        "../gone": f"{tmp_path.parent}/gone",
        "~/models/a": "/home/someone/models/a",
        "/abs/a": "/abs/a",
        "gone.parquet": f"{tmp_path}/gone.parquet",
        "data/gone.jsonl.zst": f"{tmp_path}/data/gone.jsonl.zst",
        "Gone.CSV": f"{tmp_path}/Gone.CSV",
        "org/name.v1": "org/name.v1",
        "link/../x.txt": f"{tmp_path}/link/../x.txt",  # not tmp_path/x.txt: the link leads elsewhere
    }
    assert {value: resolve_path(value, tmp_path) for value in expected} == expected


@pytest.mark.parametrize(
    "key", ["corpus.path", "holdout.path", "models.teacher.path", "models.students.0.path"]
)
@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_a_hub_id_with_a_namesake_beside_the_file_is_refused_with_both_spellings(
    key: str, kind: str, load, tmp_path: Path
) -> None:
    place = tmp_path / "gpt2"
    if kind == "folder":
        place.mkdir()
    elif kind == "file":
        place.touch()
    else:
        place.symlink_to(tmp_path / "gone")
    text = GOOD + "holdout: {path: ./valid.jsonl}\n"
    told = message(load, tmp_path, text, f"{key}=gpt2")
    assert told.startswith(f"--set {key}: gpt2 could be the local gpt2 or a ")
    assert "write ./gpt2 for the first, hf://gpt2 for the second" in told
    assert dict(references(load(text, f"{key}=./gpt2")))[key] == str(place)
    assert dict(references(load(text, f"{key}=hf://gpt2")))[key] == "gpt2"


def test_a_folder_of_the_working_directory_is_not_a_hub_id_of_a_file_elsewhere(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "wikitext").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    (elsewhere / "wikitext" / "a.txt").write_text("not this\n")
    config = load(GOOD, "corpus.path=wikitext").corpus
    assert config.path == "wikitext"
    assert find_source(config) == HubDataset("wikitext", None, None, "train")


def test_paths_of_a_configuration_built_in_python_are_taken_from_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    assert ModelConfig(path="./teacher").path == f"{tmp_path}/teacher"
    assert ModelConfig(path="../student/").path == f"{tmp_path.parent}/student"
    assert CorpusConfig(path="train.jsonl").path == f"{tmp_path}/train.jsonl"
    assert ModelConfig(path="org/teacher").path == "org/teacher"
    assert ModelConfig(path="hf://teacher").path == "teacher"
    with pytest.raises(ValidationError, match=r"write \./teacher for the first, hf://teacher for the second"):
        ModelConfig(path="teacher")


@pytest.mark.parametrize(
    "value", ["https://example.org/a.csv", "s3://bucket/train.jsonl", "hf://a/b/c.jsonl"]
)
def test_urls_of_other_places_are_refused(value: str, load, tmp_path: Path) -> None:
    told = message(load, tmp_path, GOOD, f"corpus.path={value}")
    assert told.startswith(f"--set corpus.path: {value} ")
    assert "download it and name its path" in told or "write hf://OWNER/NAME" in told


def test_relative_configuration_path_gives_absolute_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "audit.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    assert load_audit(Path("sub/audit.yaml"), []).corpus.path == str(tmp_path / "sub" / "train.jsonl")


def test_check_paths_names_the_nearest(load, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").touch()
    (tmp_path / "teachers").mkdir()
    with pytest.raises(ConfigError) as caught:
        check_paths(load(GOOD))
    told = str(caught.value).splitlines()
    assert told == [
        f"models.teacher.path: {tmp_path}/teacher does not exist; did you mean {tmp_path}/teachers?",
        f"models.students.0.path: {tmp_path}/student-soft does not exist; {tmp_path} holds no such name; "
        "correct the path",
    ]
    (tmp_path / "teacher").mkdir()
    (tmp_path / "student-soft").symlink_to(tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"it is a link to .*gone, which is gone"):
        check_paths(load(GOOD))
    (tmp_path / "gone").mkdir()
    check_paths(load(GOOD))


def test_references_are_all_paths(load) -> None:
    config = load(FULL.replace("{path: ./baseline}", "[org/a, org/b]"))
    assert [key for key, _ in references(config)] == [
        "corpus.path",
        "models.teacher.path",
        "models.baseline.0.path",
        "models.baseline.1.path",
        "models.students.0.path",
        "models.students.1.path",
        "gate.accept",
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "sample_configs").glob("audit*.yaml")), ids=lambda p: p.name)
def test_sample_configurations_load(path: Path) -> None:
    load_audit(path, [])


def test_sample_shows_the_defaults(load) -> None:
    """The local sample says that what it does not set is as shown, so what it shows must be the default."""
    shown = load_audit(ROOT / "sample_configs" / "audit-local.yaml", [])
    plain = load(GOOD)
    assert (shown.extraction, shown.predictor, shown.report) == (
        plain.extraction,
        plain.predictor,
        plain.report,
    )
    assert shown.seed == plain.seed
    assert shown.corpus.model_copy(update={"path": ""}) == plain.corpus.model_copy(update={"path": ""})


def test_contract_sample_loads(tmp_path: Path) -> None:
    if not CONTRACT.exists():
        pytest.skip("the contract is not beside this checkout")
    (sample,) = re.findall(r"## audit.yaml\n```yaml\n(.*?)```", CONTRACT.read_text(), re.DOTALL)
    (tmp_path / "audit.yaml").write_text(sample)
    (tmp_path / "full.yaml").write_text(FULL)
    assert load_audit(tmp_path / "audit.yaml", []) == load_audit(tmp_path / "full.yaml", [])


NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}(?<!\.)", fullmatch=True)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)
IDS = st.from_regex(r"[a-z]{3,8}/[a-z]{3,8}", fullmatch=True)
SHARES = st.none() | st.floats(0, 1)


def sections(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


CONFIGS = st.fixed_dictionaries(
    {
        "name": NAMES,
        "corpus": st.fixed_dictionaries(
            {"path": IDS}, optional={"text": TEXTS, "id": TEXTS, "limit": st.integers(1)}
        ),
        "models": st.fixed_dictionaries(
            {
                "teacher": st.fixed_dictionaries({"path": IDS}, optional={"revision": TEXTS}),
                "baseline": st.lists(st.fixed_dictionaries({"path": IDS}), min_size=1, max_size=3),
                "students": st.just([{"name": "a", "path": "org/a"}, {"name": "no", "path": "org/b"}]),
            }
        ),
    },
    optional={
        "gate": sections(max_rate=SHARES, max_inheritance_rate=SHARES, students=st.just(["no"])),
        "report": sections(title=st.none() | TEXTS, max_examples=st.integers(0), document_ids=st.booleans()),
        "predictor": sections(
            recall=st.floats(0, 1, exclude_min=True, exclude_max=True), student=st.just("no")
        ),
        "seed": st.integers(0, 2**32 - 1),
    },
)


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=CONFIGS)
def test_dump_loads_back_equal(data: dict[str, Any], tmp_path: Path) -> None:
    config = AuditConfig.model_validate(data)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_audit(path, []) == config


@pytest.mark.parametrize("text", ["\x85", "a\x85b", "\u2028", "a\xa0", "\ufeff", "'\"", "a: b", "- #", "\t"])
def test_dump_of_odd_text_loads_back_equal(text: str, load) -> None:
    config = AuditConfig.model_validate(load(GOOD).model_dump() | {"report": {"title": text}})
    assert load(dump_config(config)).report.title == text


def test_dump_of_local_paths_does_not_depend_on_its_folder(load, tmp_path: Path) -> None:
    config = load(FULL)
    elsewhere = tmp_path / "runs" / "acme" / "config.yaml"
    elsewhere.parent.mkdir(parents=True)
    elsewhere.write_text(dump_config(config))
    assert load_audit(elsewhere, []) == config


def test_schema_takes_what_the_loader_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

    validator = jsonschema.Draft202012Validator(audit_schema())
    validator.check_schema(audit_schema())
    validator.check_schema(results_schema())
    samples = [path.read_text() for path in sorted((ROOT / "sample_configs").glob("audit*.yaml"))]
    for text in [FULL, GOOD, models(), models(baseline="[a, {path: b}]"), models(baseline="null"), *samples]:
        assert not list(validator.iter_errors(YAML(typ="safe", pure=True).load(text)))
    for text in [models("[./s]"), models("[]"), models(baseline="[]"), GOOD + "sed: 1", GOOD + "seed: -1"]:
        assert list(validator.iter_errors(YAML(typ="safe", pure=True).load(text)))


def test_every_key_is_described_in_the_schema() -> None:
    schema = audit_schema()
    for name, section in {"AuditConfig": schema, **schema["$defs"]}.items():
        assert section["description"], name
        bare = [key for key, field in section["properties"].items() if not field.get("description")]
        assert not bare, name
