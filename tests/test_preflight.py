"""What is found wrong before anything costs time: by validate alone, and by run, screen and distill first."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML
from toys import PREFIX, SUFFIX, write_audit

from kdaudit.cli import main
from kdaudit.models import fingerprint as models

KINDS = ("audit", "screen", "distill")
COMMANDS = {"audit": "run", "screen": "screen", "distill": "distill"}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models and texts, and one file of each kind that uses them."""
    folder = tmp_path_factory.mktemp("family")
    write_audit(folder)
    window = PREFIX + SUFFIX
    corpus = {"path": "./corpus.jsonl", "id": "id", "window": window}
    extraction = {"engine": "transformers", "prefix_tokens": PREFIX, "suffix_tokens": SUFFIX}
    screen = {
        "name": "toy",
        "corpus": corpus,
        "models": {"teacher": "./teacher", "baseline": "./baseline"},
        "extraction": {"prefix_tokens": PREFIX, "suffix_tokens": SUFFIX},
        "drop": "document",
    }
    distill = {
        "name": "toy",
        "corpus": corpus,
        "holdout": {"path": "./holdout.jsonl", "window": window},
        "teacher": {"base": "./teacher", "epochs": 1, "learning_rate": 1.0e-3},
        "student": {"base": "./hard", "epochs": 1, "learning_rate": 1.0e-3},
        "students": [{"name": "soft", "method": "soft"}],
        "extraction": extraction,
    }
    for name, values in (("screen", screen), ("distill", distill)):
        with (folder / f"{name}.yaml").open("w") as handle:
            YAML().dump(values, handle)
    return folder


@pytest.fixture
def copy(family: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(family, tmp_path / "family"))


def validate(folder: Path, kind: str, *overrides: str) -> Any:
    sets = [part for one in overrides for part in ("--set", one)]
    return CliRunner().invoke(main, ["validate", str(folder / f"{kind}.yaml"), *sets])


def refused(folder: Path, kind: str, *overrides: str) -> str:
    done = validate(folder, kind, *overrides)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert "is a valid" not in done.output
    return done.output


def no_weights(*_: object) -> str:
    raise AssertionError("weights must not be read")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_right_is_valid_and_no_weights_are_read(
    family: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(models, "sha256_file", no_weights)
    done = validate(family, kind)
    assert done.exit_code == 0, done.output
    assert "is a valid" in done.output
    assert "no weights were read" in done.output
    assert "not checked" not in done.output


def as_adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')


def as_quantized(folder: Path) -> None:
    described = json.loads((folder / "config.json").read_text())
    described["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(described))


def without_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


SPOILT_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "adapter": (as_adapter, "adapter"),
    "quantized": (as_quantized, "quantized"),
    "no tokenizer": (without_tokenizer, "no tokenizer"),
    "cut short": (cut_short, "model.safetensors"),
    "no weights": (without_weights, "no weights"),
}


@pytest.mark.parametrize("fault", SPOILT_MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_cannot_be_used_is_not_valid(copy: Path, kind: str, fault: str) -> None:
    spoil, words = SPOILT_MODELS[fault]
    spoil(copy / ("hard" if kind != "screen" else "baseline"))
    said = refused(copy, kind)
    assert words in said
    assert {"audit": "models.students.1", "screen": "models.baseline", "distill": "student.base"}[
        kind
    ] in said


SPOILT_TEXTS = {
    "no rows": ("", "holds no rows"),
    "blank lines": ("\n\n\n", "holds no rows"),
    "empty texts": ('{"id": 1, "text": ""}\n{"id": 2, "text": null}\n{"id": 3, "text": "  "}\n', "are empty"),
    "numbers": ('{"id": 1, "text": 5}\n', "not a string"),
    "another column": ('{"id": 1, "content": "w2 w3"}\n', "has no column 'text'"),
    "no id": ('{"text": "w2 w3"}\n', "has no column 'id'"),
    "not json": ("w2 w3 w4\n", "json"),
}


@pytest.mark.parametrize("fault", SPOILT_TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_cannot_be_read_is_not_valid(copy: Path, kind: str, fault: str) -> None:
    text, words = SPOILT_TEXTS[fault]
    (copy / "corpus.jsonl").write_text(text)
    assert words in refused(copy, kind)


@pytest.mark.parametrize("kind", ["audit", "distill"])
def test_the_holdout_is_looked_at_too(copy: Path, kind: str) -> None:
    (copy / "holdout.jsonl").write_text('{"body": "w2 w3"}\n')
    assert "holdout.text" in refused(copy, kind)


@pytest.mark.parametrize("kind", ["audit", "screen"])
def test_texts_that_are_all_too_short_are_not_valid(copy: Path, kind: str) -> None:
    (copy / "corpus.jsonl").write_text('{"id": 1, "text": "w2 w3 w4"}\n{"id": 2, "text": ""}\n')
    said = refused(copy, kind)
    assert "none of its 2 documents gives an example: 1 have fewer than 14 tokens" in said


def test_models_that_do_not_fit_each_other_or_the_windows_are_not_valid(copy: Path) -> None:
    assert "context length is 64 tokens" in refused(copy, "audit", "corpus.window=200")
    path = copy / "baseline" / "tokenizer.json"
    path.write_text(path.read_text().replace('"w250"', '"x250"'))
    assert "teacher and baseline have different tokenizers" in refused(copy, "screen")


def test_of_a_screenings_corpus_the_first_rows_alone_are_read(copy: Path) -> None:
    """It is to be written as parquet, whose types only all of its rows tell; that is for the screening."""
    corpus = copy / "corpus.jsonl"
    rows = [{**json.loads(line), "n": {}} for line in corpus.read_text().splitlines()]
    whole = "".join(json.dumps(row) + "\n" for row in rows * (1 + 3000 // len(rows)))
    corpus.write_text(whole + "not json\n")
    done = validate(copy, "screen")
    assert done.exit_code == 0, done.output
    corpus.write_text(json.dumps({**rows[0], "n": "text"}) + "\n" + whole)
    assert "from row 2 on" in refused(copy, "screen")


def test_a_screening_names_a_predictor_that_is_none(copy: Path) -> None:
    (copy / "predictor.json").write_text("{}")
    assert "predictor.json" in refused(copy, "screen", f"predictor.labels={copy / 'predictor.json'}")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_downloaded_and_what_was_not_checked_is_said(
    family: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_weights)
    key = {"audit": "models.teacher.path", "screen": "models.teacher.path", "distill": "teacher.base"}[kind]
    done = validate(family, kind, f"{key}=org/large", "corpus.path=org/data", "corpus.id=null")
    assert done.exit_code == 0, done.output
    assert "  not checked: corpus.path: org/data is on the hub and was not read" in done.output
    assert f"  not checked: {key}: org/large is on the hub and was not downloaded" in done.output


_ASKED = (
    "import sys\nfrom kdaudit.cli import main\ntry: main({words!r})\nfinally: print('torch' in sys.modules)"
)


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_column_is_told_before_torch_is_imported(family: Path, kind: str, command: str) -> None:
    words = [COMMANDS[kind] if command == "run" else command, str(family / f"{kind}.yaml")]
    words += ["--set", "corpus.text=txt"] + (["--out", str(family / "out")] if command == "run" else [])
    done = subprocess.run(
        [sys.executable, "-c", _ASKED.format(words=words)],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert "has no column 'txt' but" in done.stderr
    assert done.stdout == "False\n", done.stdout + done.stderr
    assert not (family / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_itself_begins_with_what_validate_does(
    copy: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A student at the end of the list is refused before the weights of the first model are read."""
    monkeypatch.setattr(models, "sha256_file", no_weights)
    without_tokenizer(copy / ("hard" if kind != "screen" else "baseline"))
    words = [COMMANDS[kind], str(copy / f"{kind}.yaml"), "--out", str(copy / "out")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    assert "holds no tokenizer" in done.output
