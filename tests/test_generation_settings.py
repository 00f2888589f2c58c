"""A base whose generation settings transformers loads and does not save can be trained and saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from toys import save_model, tokenizer
from transformers import GenerationConfig

from kdaudit.distillation.bases import Base, check_bases, load_base, resolve_base
from kdaudit.errors import ModelError

KEY = "teacher.base"
UNSAVABLE: list[dict[str, Any]] = [
    {"do_sample": False, "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.31.0.dev0"},
    {"temperature": 0.7, "eos_token_id": [3, 4], "pad_token_id": 5},
    {"top_k": 5, "eos_token_id": 7},
    {"pad_token_id": -1},
    {"typical_p": 0.5, "num_beams": 1, "length_penalty": 2.0},
]


def base(folder: Path, settings: dict[str, Any] | None, **described: Any) -> Base:
    """A base model with this generation_config.json and these keys of config.json."""
    save_model(folder, 1)
    (folder / "generation_config.json").unlink()
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **described}))
    return resolve_base(str(folder), KEY)


def saved(start: Base, folder: Path) -> GenerationConfig:
    """The settings that a model is saved with that was trained from this base."""
    model = load_base(start, tokenizer(), 0)
    model.save_pretrained(folder)
    return GenerationConfig.from_pretrained(folder)


@pytest.mark.parametrize("settings", UNSAVABLE)
def test_models_with_settings_that_are_not_saved_are_saved(settings: dict[str, Any], tmp_path: Path) -> None:
    found = saved(base(tmp_path / "base", settings), tmp_path / "trained")
    assert found.temperature is None
    assert found.eos_token_id == settings.get("eos_token_id", 0)  # else config.json's
    expected = settings.get("pad_token_id")
    assert found.pad_token_id == (None if expected == -1 else expected)


def test_tokens_of_config_json_that_are_none_kill_no_save(tmp_path: Path) -> None:
    assert saved(base(tmp_path / "base", None, pad_token_id=-1), tmp_path / "trained").pad_token_id is None


@pytest.mark.parametrize(
    "left", [{"temperature": 0.6}, {"max_length": 20, "do_sample": True}, {"suppress_tokens": [1]}]
)
def test_generation_parameters_left_in_config_json_kill_no_save(left: dict[str, Any], tmp_path: Path) -> None:
    found = saved(base(tmp_path / "base", None, **left), tmp_path / "trained")
    assert (found.temperature, found.max_length) == (None, None)


def test_settings_that_are_saved_are_kept(tmp_path: Path) -> None:
    own = {"do_sample": True, "temperature": 0.6, "eos_token_id": [0, 3]}
    found = saved(base(tmp_path / "base", own), tmp_path / "trained")
    assert (found.do_sample, found.temperature, found.eos_token_id) == (True, 0.6, [0, 3])


def test_what_is_left_out_is_told_once_before_training(tmp_path: Path) -> None:
    told: list[str] = []
    start = base(tmp_path / "base", UNSAVABLE[0])
    check_bases(
        {KEY: start, "student.base": start._replace(key="student.base")}, tokenizer(), 300, 64, told.append
    )
    (first,) = (warning for warning in told if warning.startswith(f"{KEY}: transformers does not save"))
    assert "`temperature`: `do_sample` is not set to `True`" in first
    assert first.endswith("models trained from it get their special tokens alone")


def test_a_configuration_that_cannot_be_saved_is_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = base(tmp_path / "base", None)

    def refuse(*args: Any, **options: Any) -> None:
        raise ValueError("not like this")

    monkeypatch.setattr("transformers.LlamaConfig.save_pretrained", refuse)
    with pytest.raises(
        ModelError, match=r"teacher.base: transformers would not save a model trained from it \(not"
    ):
        check_bases({KEY: start, "student.base": start}, tokenizer(), 300, 64, lambda warning: None)
