"""distill.yaml: what loads, what defaults it has, how errors read, and what comes back from a dump."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kdaudit.config.audit import AuditConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.models import ModelConfig, ModelsConfig, StudentConfig
from kdaudit.config.paths import check_paths, references
from kdaudit.config.yaml.loading import distill_schema, dump_config, load_audit, load_distill
from kdaudit.distillation.audit_file import write_audit_file
from kdaudit.distillation.bases import resolve_base
from kdaudit.errors import ConfigError, ModelError

CONTRACT = Path(__file__).parent.parent.parent / "shared" / "contract.md"

FULL = """\
name: wikinews-small
corpus: {path: ./train.jsonl}
holdout: {path: ./valid.jsonl}
tokenizer: null
teacher: {base: EleutherAI/pythia-12b, epochs: 3, learning_rate: 5.0e-5}
student: {base: EleutherAI/pythia-1.4b, epochs: 4, learning_rate: 5.0e-5}
students:
  - {name: baseline, method: baseline}
  - {name: soft, method: soft, temperature: 2.0, divergence: forward_kl, alpha: 0.0}
  - {name: hard, method: hard, level: sequence, prefix_tokens: 50, decoding: greedy}
training: {batch_size: 32, schedule: cosine, warmup_ratio: 0.03, precision: auto}
seeds: [0]
"""

GOOD = """\
name: tiny
corpus: ./train.jsonl
holdout: ./valid.jsonl
teacher: {base: org/teacher, epochs: 3, learning_rate: 1e-3}
student: {base: org/student, epochs: 4, learning_rate: 1e-3}
students:
  - {name: baseline, method: baseline}
  - {name: soft, method: soft}
  - {name: hard, method: hard}
"""

SCRATCH = """\
name: scratch
corpus: {path: ./train.jsonl, window: 64}
holdout: {path: ./valid.jsonl, window: 64}
tokenizer: {train_bpe: 4096}
teacher:
  base:
    model_type: llama
    hidden_size: 128
    tie_word_embeddings: true
    rope_parameters: {rope_theta: 1.0e+4}
  epochs: 3
  learning_rate: 0.001
student: {base: {model_type: gpt2, n_embd: 64, summary_type: "2026-01-31"}, epochs: 4, learning_rate: 0.001}
students:
  - {name: soft-1, method: soft, temperature: 1, divergence: jsd, alpha: 0.5}
  - {name: soft-4, method: soft, temperature: 4, divergence: reverse_kl}
  - {name: tokens, method: hard, level: token}
  - {name: drawn, method: hard, prefix_tokens: 63, decoding: sampled, sampling_temperature: 0.7}
training: {batch_size: 8, schedule: constant, warmup_ratio: 0, precision: float32}
seeds: [2, 0, 1]
extraction: {engine: transformers, prefix_tokens: 32, suffix_tokens: 32}
"""

TAKEN = re.sub("teacher: .*", "teacher: {path: ./teacher, dtype: float32}", GOOD)
"""The teacher is there already."""

VALID = {"full": FULL, "good": GOOD, "scratch": SCRATCH, "taken": TAKEN}


@pytest.fixture
def load(tmp_path: Path):
    def load(text: str, *overrides: str) -> DistillConfig:
        path = tmp_path / "distill.yaml"
        path.write_text(text)
        return load_distill(path, overrides)

    return load


def message(load, tmp_path: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text, *overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


def put(key: str, value: str, text: str = GOOD) -> str:
    """The file with the one line of a top key written anew."""
    changed, count = re.subn(f"(?m)^{key}: .*$", lambda _: f"{key}: {value}", text)
    assert count == 1
    return changed


def base(value: str, text: str = GOOD) -> str:
    """The file with another base of the students, which stands in line 5."""
    return put("student", f"{{base: {value}, epochs: 4, learning_rate: 1e-3}}", text)


def added(student: str, text: str = GOOD) -> str:
    """The file with one more student, which stands in line 10 as row 3."""
    return f"{text}  - {student}\n"


def test_contract_sample_loads(tmp_path: Path) -> None:
    if not CONTRACT.exists():
        pytest.skip("the contract is not beside this checkout")
    (sample,) = re.findall(r"## distill.yaml\n```yaml\n(.*?)```", CONTRACT.read_text(), re.DOTALL)
    (tmp_path / "distill.yaml").write_text(sample)
    (tmp_path / "full.yaml").write_text(FULL)
    assert load_distill(tmp_path / "distill.yaml") == load_distill(tmp_path / "full.yaml")


def test_defaults_are_what_the_contract_shows(load) -> None:
    full, plain = load(FULL), load(GOOD)
    assert plain.students == full.students
    assert (plain.training, plain.seeds, plain.tokenizer) == (full.training, full.seeds, full.tokenizer)
    assert plain.extraction == AuditConfig.model_fields["extraction"].default
    assert plain.students[2].model_dump() == {
        "name": "hard",
        "method": "hard",
        "level": "sequence",
        "prefix_tokens": 50,
        "decoding": "greedy",
        "sampling_temperature": 1.0,
        "tokenizer": None,
    }


def test_family_from_scratch_keeps_its_configuration_as_written(load) -> None:
    config = load(SCRATCH)
    assert config.teacher.base.model_dump() == {
        "model_type": "llama",
        "hidden_size": 128,
        "tie_word_embeddings": True,
        "rope_parameters": {"rope_theta": 1e4},
    }
    assert config.student.base.model_dump() == {
        "model_type": "gpt2",
        "n_embd": 64,
        "summary_type": "2026-01-31",
    }
    assert config.tokenizer.train_bpe == 4096
    assert config.seeds == (2, 0, 1)
    assert [type(student).__name__ for student in config.students] == [
        "SoftStudent",
        "SoftStudent",
        "HardStudent",
        "HardStudent",
    ]


def test_existing_teacher_is_a_model_as_in_audit_yaml(load, tmp_path: Path) -> None:
    teacher = ModelConfig(path=str(tmp_path / "teacher"), dtype="float32")
    assert load(TAKEN).teacher == teacher
    assert load(put("teacher", "./teacher")).teacher == ModelConfig(path=teacher.path)


def test_paths_are_found_and_taken_from_the_files_folder(load, tmp_path: Path) -> None:
    text = "tokenizer: ./tokens\n" + base("../student", put("teacher", "{path: teachers/a}"))
    assert [tuple(each) for each in references(load(text))] == [
        ("corpus.path", f"{tmp_path}/train.jsonl"),
        ("holdout.path", f"{tmp_path}/valid.jsonl"),
        ("tokenizer", f"{tmp_path}/tokens"),
        ("teacher.path", "teachers/a"),
        ("student.base", f"{tmp_path.parent}/student"),
    ]
    (tmp_path / "teachers" / "a").mkdir(parents=True)
    with pytest.raises(
        ConfigError, match=r"teacher\.path: teachers/a could be .* write \./teachers/a for the"
    ):
        load(text)
    text = text.replace("path: teachers/a", "path: ./teachers/a")
    assert load(text).teacher.path == f"{tmp_path}/teachers/a"
    with pytest.raises(ConfigError, match=r"(?m)^student\.base: .*/student does not exist"):
        check_paths(load(text))
    assert [each.key for each in references(load(SCRATCH))] == ["corpus.path", "holdout.path"]


@pytest.mark.parametrize("case", VALID)
def test_dump_loads_back_equal(case: str, load, tmp_path: Path) -> None:
    config = load(VALID[case])
    elsewhere = tmp_path / "out" / "config.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(dump_config(config))
    assert load_distill(elsewhere) == config


def test_overrides_reach_into_unions(load) -> None:
    config = load(
        SCRATCH,
        "teacher.base.hidden_size=256",
        "teacher.base.rope_parameters.rope_type=linear",
        "student.base.layers=[1, 2]",
        "student.base.layers.0=3",
        "students.0.temperature=3",
        "students.4={name: baseline, method: baseline}",
        "tokenizer.train_bpe=300",
        "seeds.3=7",
    )
    assert config.teacher.base.model_dump()["hidden_size"] == 256
    assert config.teacher.base.model_dump()["rope_parameters"] == {"rope_theta": 1e4, "rope_type": "linear"}
    assert config.student.base.model_dump()["layers"] == [3, 2]
    assert config.students[0].temperature == 3.0
    assert config.students[4].method == "baseline"
    assert config.tokenizer.train_bpe == 300
    assert config.seeds == (2, 0, 1, 7)
    assert load(GOOD, "teacher={path: org/t}").teacher.path == "org/t"
    assert load(TAKEN, "teacher.dtype=null").teacher.dtype is None


# Each: the file; how its message begins (file, line and key); what it says; what it tells to do.
WRONG = {
    "no holdout": (
        re.sub("holdout: .*\n", "", GOOD),
        "distill.yaml: holdout: ",
        "is required and missing",
        "add it",
    ),
    "holdout is the corpus": (
        put("holdout", "{path: ././train.jsonl, stride: 7}"),
        "distill.yaml:3: holdout.path: ",
        "is the corpus itself",
        "name text that no model is trained on",
    ),
    "teacher of both kinds": (
        put("teacher", "{path: ./t, base: org/t, epochs: 3}"),
        "distill.yaml:4: teacher.base: ",
        "cannot stand beside path",
        "keep base to train a teacher from it, or path to take a teacher as it is",
    ),
    "existing teacher with epochs": (
        put("teacher", "{path: ./t, epochs: 3}"),
        "distill.yaml:4: teacher.epochs: ",
        "is for a teacher that is trained",
        "remove it, or write base instead of path",
    ),
    "existing teacher with a learning rate": (
        put("teacher", "{path: ./t, learning_rate: 1e-3}"),
        "distill.yaml:4: teacher.learning_rate: ",
        "is for a teacher that is trained",
        "remove it",
    ),
    "trained teacher with a key of an existing one": (
        put("teacher", "{base: org/t, epochs: 3, learning_rate: 1e-3, revision: main}"),
        "distill.yaml:4: teacher.revision: ",
        "goes with path, not with base",
        "remove it (allowed: base, epochs, learning_rate)",
    ),
    "key of an existing teacher misspelled": (
        put("teacher", "{path: org/t, dtpe: float32}"),
        "distill.yaml:4: teacher.dtpe: ",
        "unknown key; did you mean dtype?",
        "(allowed: path, revision, base, ",
    ),
    "teacher empty": (put("teacher", ""), "distill.yaml:4: teacher: ", "is empty", "give it a path, or keys"),
    "teacher a list": (
        put("teacher", "[org/t]"),
        "distill.yaml:4: teacher: ",
        "expected a path, or keys (base, epochs, learning_rate, path,",
        "got a list; write keys as `key: value`",
    ),
    "no epochs": (
        put("student", "{base: org/s, learning_rate: 1e-3}"),
        "distill.yaml:5: student.epochs: ",
        "is required and missing",
        "add it to student",
    ),
    "epochs a fraction": (
        put("student", "{base: org/s, epochs: 1.5, learning_rate: 1e-3}"),
        "distill.yaml:5: student.epochs: ",
        "expected a whole number, got the number 1.5",
        "correct the value",
    ),
    "learning rate of nothing": (
        put("student", "{base: org/s, epochs: 1, learning_rate: 0}"),
        "distill.yaml:5: student.learning_rate: ",
        "0 is out of range",
        "give more than 0",
    ),
    "existing student": (
        put("student", "{base: org/s, epochs: 1, learning_rate: 1e-3, path: ./s}"),
        "distill.yaml:5: student.path: ",
        "unknown key",
        "(allowed: base, epochs, learning_rate, lora)",
    ),
    "base's model_type misspelled": (
        base("{model_typ: llama, hidden_size: 128}"),
        "distill.yaml:5: student.base.model_typ: ",
        "unknown key",
        "did you mean model_type?",
    ),
    "base without model_type": (
        base("{path: ./s}"),
        "distill.yaml:5: student.base.model_type: ",
        "is required and missing in a model's configuration",
        "as in {model_type: llama, ...}, or give a folder or hub id as plain text",
    ),
    "base's model_type no text": (
        base("{model_type: 2}"),
        "distill.yaml:5: student.base.model_type: ",
        "expected text, got the number 2",
        "put it in quotes",
    ),
    "base a number": (
        base("7"),
        "distill.yaml:5: student.base: ",
        "expected a path, or keys (model_type, ...), got the number 7",
        "write keys as `key: value`",
    ),
    "base a list": (
        base("[a]"),
        "distill.yaml:5: student.base: ",
        "got a list",
        "write keys as `key: value`",
    ),
    "base null": (base("null"), "distill.yaml:5: student.base: ", "is empty", "give it a path, or keys"),
    "base empty text": (base("''"), "distill.yaml:5: student.base: ", "is empty text", "give a value"),
    "date in a base": (
        base("{model_type: llama, a: [{b: 2026-01-31}]}"),
        "distill.yaml:5: student.base.a.0.b: ",
        "expected text, got the date 2026-01-31",
        "put it in quotes",
    ),
    "infinity in a base": (
        base("{model_type: llama, a: .inf}"),
        "distill.yaml:5: student.base.a: ",
        ".inf is not a finite number",
        "give one, or null",
    ),
    "configuration without a tokenizer": (
        put("tokenizer", "null", SCRATCH),
        "distill.yaml:6: teacher.base: ",
        "a configuration brings no tokenizer",
        "set tokenizer to a folder or hub id, or to {train_bpe: 4096}",
    ),
    "one configuration without a tokenizer": (
        base("{model_type: llama}"),
        "distill.yaml:5: student.base: ",
        "a configuration brings no tokenizer",
        "set tokenizer to a folder or hub id, such as org/teacher",
    ),
    "new tokenizer for models that have one": (
        GOOD + "tokenizer: {train_bpe: 4096}",
        "distill.yaml:10: tokenizer.train_bpe: ",
        "teacher.base brings its own tokenizer",
        "remove tokenizer",
    ),
    "new tokenizer for an existing teacher": (
        base("{model_type: llama}", put("teacher", "org/t")) + "tokenizer: {train_bpe: 4096}",
        "distill.yaml:10: tokenizer.train_bpe: ",
        "teacher.path brings its own tokenizer",
        "set tokenizer to org/t",
    ),
    "tokenizer too small": (
        put("tokenizer", "{train_bpe: 256}", SCRATCH),
        "distill.yaml:4: tokenizer.train_bpe: ",
        "256 is out of range",
        "give at least 257",
    ),
    "tokenizer a number": (
        put("tokenizer", "4096", SCRATCH),
        "distill.yaml:4: tokenizer: ",
        "expected a path, or keys (train_bpe), got the number 4096",
        "write keys as `key: value`",
    ),
    "method misspelled": (
        added("{name: a, method: sofd}"),
        "distill.yaml:10: students.3.method: ",
        "'sofd' is not allowed",
        "choose baseline, soft or hard (did you mean soft?)",
    ),
    "method of the wrong type": (
        added("{name: a, method: [soft]}"),
        "distill.yaml:10: students.3.method: ",
        "a list is not allowed",
        "choose baseline, soft or hard",
    ),
    "no method": (
        added("{name: a, kd: soft}"),
        "distill.yaml:10: students.3.method: ",
        "is required and missing",
        "add it to students.3 (baseline, soft or hard)",
    ),
    "method's key misspelled": (
        added("{name: a, metod: soft}"),
        "distill.yaml:10: students.3.metod: ",
        "unknown key",
        "did you mean method?",
    ),
    "student a text": (
        added("soft"),
        "distill.yaml:10: students.3: ",
        "expected keys (name, method,",
        "got the text 'soft'; write them as `key: value`",
    ),
    "student's key misspelled": (
        added("{name: a, method: soft, temprature: 2}"),
        "distill.yaml:10: students.3.temprature: ",
        "unknown key; did you mean temperature?",
        "(allowed: name, method, temperature, divergence, alpha)",
    ),
    "key of another method": (
        added("{name: a, method: soft, level: token}"),
        "distill.yaml:10: students.3.level: ",
        "goes with method: hard, not with method: soft",
        "remove it (allowed: name, method, temperature, divergence, alpha)",
    ),
    "temperature of a hard student": (
        added("{name: a, method: hard, temperature: 2}"),
        "distill.yaml:10: students.3.temperature: ",
        "goes with method: soft, not with method: hard",
        "did you mean sampling_temperature?",
    ),
    "baseline with a loss": (
        added("{name: a, method: baseline, alpha: 0}"),
        "distill.yaml:10: students.3.alpha: ",
        "goes with method: soft, not with method: baseline",
        "(allowed: name, method, count)",
    ),
    "temperature of zero": (
        added("{name: a, method: soft, temperature: 0}"),
        "distill.yaml:10: students.3.temperature: ",
        "0 is out of range",
        "give more than 0",
    ),
    "divergence misspelled": (
        added("{name: a, method: soft, divergence: foward_kl}"),
        "distill.yaml:10: students.3.divergence: ",
        "'foward_kl' is not allowed",
        "choose forward_kl, reverse_kl or jsd (did you mean forward_kl?)",
    ),
    "alpha above one": (
        added("{name: a, method: soft, alpha: 1.5}"),
        "distill.yaml:10: students.3.alpha: ",
        "1.5 is out of range",
        "give at most 1",
    ),
    "prefix of a whole window": (
        added("{name: a, method: hard, prefix_tokens: 256}"),
        "distill.yaml:10: students.3.prefix_tokens: ",
        "256 tokens leave nothing to continue of a window of 256 tokens",
        "lower it, or raise corpus.window",
    ),
    "sampling without sampled": (
        added("{name: a, method: hard, sampling_temperature: 0.7}"),
        "distill.yaml:10: students.3.sampling_temperature: ",
        "has no effect with decoding: greedy",
        "remove it, or set decoding to sampled",
    ),
    "decoding of single tokens": (
        added("{name: a, method: hard, level: token, decoding: sampled}"),
        "distill.yaml:10: students.3.decoding: ",
        "has no effect with level: token",
        "remove it, or set level to sequence",
    ),
    "name with a slash": (
        added("{name: a/b, method: soft}"),
        "distill.yaml:10: students.3.name: ",
        "'a/b' cannot name a folder",
        "use 1 to 64 letters",
    ),
    "name reserved": (
        added("{name: Teacher, method: soft}"),
        "distill.yaml:10: students.3.name: ",
        "'Teacher' is reserved",
        "choose a name other than teacher, holdout, audit.yaml and baseline-N",
    ),
    "name of a numbered baseline": (
        added("{name: baseline-2, method: soft}"),
        "distill.yaml:10: students.3.name: ",
        "'baseline-2' is reserved",
        "choose a name",
    ),
    "name of the file beside": (
        added("{name: Audit.yaml, method: soft}"),
        "distill.yaml:10: students.3.name: ",
        "is reserved",
        "choose a name",
    ),
    "name of the baseline": (
        GOOD.replace("method: baseline", "method: soft"),
        "distill.yaml:7: students.0.name: ",
        "'baseline' is kept for method: baseline",
        "choose another name",
    ),
    "name twice": (
        added("{name: Soft, method: hard}"),
        "distill.yaml:10: students.3.name: ",
        "'Soft' is used twice",
        "give each student its own name",
    ),
    "two baselines": (
        added("{name: plain, method: baseline}"),
        "distill.yaml:10: students.3.method: ",
        "is a second baseline",
        "keep one, and set its count",
    ),
    "a baseline alone": (
        re.sub("(?m)^  - .*(soft|hard).*\n", "", GOOD),
        "distill.yaml:6: students: ",
        "holds a baseline alone",
        "add a soft or hard one",
    ),
    "no students": (
        re.sub("(?s)students:.*", "students: []", GOOD),
        "distill.yaml:6: students: ",
        "is an empty list",
        "give at least one entry",
    ),
    "seed twice": (GOOD + "seeds: [0, 1, 0]", "distill.yaml:10: seeds.2: ", "0 is given twice", "keep one"),
    "no seeds": (GOOD + "seeds: []", "distill.yaml:10: seeds: ", "is an empty list", "at least one entry"),
    "one seed": (GOOD + "seeds: 3", "distill.yaml:10: seeds: ", "expected a list, got the number 3", "[...]"),
    "seed below zero": (GOOD + "seeds: [-1]", "distill.yaml:10: seeds.0: ", "-1 is out of range", "give at "),
    "schedule misspelled": (
        GOOD + "training: {schedule: cosin}",
        "distill.yaml:10: training.schedule: ",
        "'cosin' is not allowed",
        "choose cosine, linear or constant (did you mean cosine?)",
    ),
    "precision unknown": (
        GOOD + "training: {precision: fp16}",
        "distill.yaml:10: training.precision: ",
        "'fp16' is not allowed",
        "choose auto, float32, bfloat16 or float16",
    ),
    "warm-up without end": (
        GOOD + "training: {warmup_ratio: 1}",
        "distill.yaml:10: training.warmup_ratio: ",
        "1 is out of range",
        "give less than 1",
    ),
    "batch of nothing": (
        GOOD + "training: {batch_size: 0}",
        "distill.yaml:10: training.batch_size: ",
        "0 is out of range",
        "give more than 0",
    ),
    "name too long for its audits": (
        put("name", "x" * 57) + "seeds: [0, 10]",
        "distill.yaml:1: name: ",
        f"its audit's name, {'x' * 57}-seed-10, is longer than 64 characters",
        "shorten it",
    ),
    "window that cannot be audited": (
        put("corpus", "{path: ./train.jsonl, window: 64}"),
        "distill.yaml:2: corpus.window: ",
        "64 tokens cannot hold extraction.prefix_tokens + extraction.suffix_tokens = 100",
        "raise the window or lower those",
    ),
    "GPUs for the transformers engine": (
        put("teacher", "{path: org/t, tensor_parallel: 2}") + "extraction: {engine: transformers}",
        "distill.yaml:4: teacher.tensor_parallel: ",
        "the transformers engine runs a model on one device",
        "set it to 1",
    ),
    "key of audit.yaml": (
        GOOD + "seed: 1",
        "distill.yaml:10: seed: ",
        "unknown key; did you mean seeds?",
        "(allowed: name, corpus, holdout,",
    ),
    "empty file": ("", "distill.yaml: ", "is empty", "give it the keys name, corpus, holdout, teacher, stu"),
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


# Each: the override; how the message begins.
WRONG_SET = {
    "key of another method": (
        "students.1.level=token",
        "--set students.1.level: goes with method: hard, not with method: soft",
    ),
    "method that the keys do not fit": ("students.1.method=hrd", "--set students.1.method: 'hrd' is not all"),
    "key below a path": (
        "student.base.hidden_size=64",
        "--set student.base: is 'org/student' in the file, not a section",
    ),
    "misspelled": (
        "students.1.temprature=1",
        "--set students.1.temprature: unknown key; did you mean temper",
    ),
}


@pytest.mark.parametrize("case", WRONG_SET)
def test_wrong_override_is_explained(case: str, load, tmp_path: Path) -> None:
    override, begins = WRONG_SET[case]
    told = message(load, tmp_path, GOOD, override)
    assert told.startswith(begins)
    assert "\n" not in told


def test_several_errors_are_each_told_once_in_the_order_of_the_file(load, tmp_path: Path) -> None:
    text = added("{name: a, method: soft, alpha: 2}", base("{model_type: 1, x: .nan}")) + "seeds: [x]\n"
    assert [line.split(": ")[:2] for line in message(load, tmp_path, text).splitlines()] == [
        ["distill.yaml:5", "student.base.model_type"],
        ["distill.yaml:5", "student.base.x"],
        ["distill.yaml:10", "students.3.alpha"],
        ["distill.yaml:11", "seeds.0"],
    ]


@pytest.mark.parametrize("case", VALID)
def test_whatever_loads_can_be_audited(case: str, load) -> None:
    config = load(VALID[case])
    AuditConfig(
        name=config.name,
        corpus=config.corpus,
        holdout=config.holdout,
        models=ModelsConfig(
            teacher=ModelConfig(path="teacher"),
            students=tuple(
                StudentConfig(name=student.name, path=student.name, kd=student.method)
                for student in config.students
                if student.method != "baseline"
            ),
        ),
        extraction=config.extraction,
    )


# What the schema alone can tell; the rest of WRONG takes the loader.
WRONG_FOR_SCHEMA = [
    "no holdout",
    "teacher of both kinds",
    "existing teacher with epochs",
    "trained teacher with a key of an existing one",
    "teacher empty",
    "existing student",
    "base without model_type",
    "base a number",
    "tokenizer too small",
    "method misspelled",
    "no method",
    "key of another method",
    "baseline with a loss",
    "no seeds",
    "seed below zero",
]


def test_schema_takes_what_the_loader_takes() -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    from ruamel.yaml import YAML

    def errors(text: str) -> list[Any]:
        return list(validator.iter_errors(YAML(typ="safe", pure=True).load(text)))

    schema = distill_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for text in [*VALID.values(), put("teacher", "./teacher"), put("tokenizer", "./tokens", FULL)]:
        assert not errors(text)
    for case in WRONG_FOR_SCHEMA:
        assert errors(WRONG[case][0]), case


def test_every_key_is_described_in_the_schema() -> None:
    schema = distill_schema()
    assert schema["$defs"].pop("JsonValue") == {}  # under the free keys of a base anything may stand
    for name, section in {"DistillConfig": schema, **schema["$defs"]}.items():
        assert section["description"], name
        bare = [key for key, field in section["properties"].items() if not field.get("description")]
        assert not bare, name


def test_the_sample_loads_and_shows_every_key() -> None:
    path = Path(__file__).parent.parent / "sample_configs" / "distill.yaml"
    config = load_distill(path)
    assert [student.method for student in config.students] == ["baseline", "soft", "hard"]
    text = path.read_text()
    for key in (
        *DistillConfig.model_fields,
        *(key for one in config.students for key in type(one).model_fields),
    ):
        assert f"{key}" in text, key


def test_a_file_of_another_command_is_told_as_one(load, tmp_path: Path) -> None:
    audit = "name: a\ncorpus: {path: c.jsonl}\nmodels: {teacher: ./t, students: [{name: s, path: ./s}]}\n"
    assert message(load, tmp_path, audit).endswith(
        "is meant for `kdaudit run` by its keys; give it to that command"
    )
    (tmp_path / "family.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match="is meant for `kdaudit distill` by its keys"):
        load_audit(tmp_path / "family.yaml")
    # With neither's keys it is no other command's file: what is missing is told.
    assert "student: is required and missing" in message(load, tmp_path, "name: a\n")


def test_hub_ids_stay_hub_ids_beside_folders_of_their_names(
    load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the working directory, and of students in the folder of the audit that is written for them."""
    config = load(GOOD.replace("corpus: ./train.jsonl", "corpus: soft").replace("org/student", "hard"))
    seed = tmp_path / "out" / "seed-0"
    for name in ("soft", "hard", "baseline"):
        (seed / name).mkdir(parents=True)
    write_audit_file(config, tmp_path / "out", 0, tmp_path / "out" / "teacher")
    assert load_audit(seed / "audit.yaml").corpus.path == "soft"
    assert load_audit(seed / "audit.yaml").models.base == ModelConfig(path="hard")
    fetched: list[str] = []

    def fetch(repository: str, **options: object) -> str:
        fetched.append(repository)
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(seed)
    with pytest.raises(ModelError, match=r"student\.base\.path: hard "):
        resolve_base(str(config.student.base), "student.base")
    assert fetched == ["hard"]
