"""The keys of prompts and answers: defaults, what goes together, and what is refused with which remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdaudit.config.paths import check_paths
from kdaudit.config.yaml.loading import dump_config, load_audit, load_distill, load_screen
from kdaudit.corpus import ExampleTokens
from kdaudit.errors import ConfigError

MODELS = "models: {teacher: ./m, baseline: ./m, students: [{name: s, path: ./m}]}\n"
DISTILL = (
    "teacher: {base: ./m, epochs: 1, learning_rate: 1.0e-3}\n"
    "student: {base: ./m, epochs: 1, learning_rate: 1.0e-3}\n"
    "students: [{name: baseline, method: baseline}, {name: hard, method: hard%s}]\n"
)


def audit(tmp_path: Path, corpus: str, more: str = "") -> Any:
    return load_audit(written(tmp_path, corpus, MODELS + more))


def written(tmp_path: Path, corpus: str, more: str) -> Path:
    (tmp_path / "m").mkdir(exist_ok=True)
    for name in ("c.jsonl", "h.jsonl", "t.jinja"):
        (tmp_path / name).write_text("")
    path = tmp_path / "config.yaml"
    path.write_text(f"name: a\ncorpus: {{path: ./c.jsonl, {corpus}}}\n{more}")
    return path


def test_defaults_differ_between_text_and_answers(tmp_path: Path) -> None:
    assert audit(tmp_path, "text: text").extraction.prefix_tokens == 50
    assert audit(tmp_path, "messages: m").extraction.prefix_tokens == 0
    set_ = audit(tmp_path, "messages: m", "extraction: {prefix_tokens: 50}\n")
    assert set_.extraction.prefix_tokens == 50
    assert ExampleTokens.of(audit(tmp_path, "messages: m").extraction).least == 50
    short = audit(tmp_path, "messages: m", "extraction: {prefix_tokens: 2, min_suffix_tokens: 5}\n")
    assert ExampleTokens.of(short.extraction).least == 7


def test_one_column_or_several_and_a_file_for_a_template(tmp_path: Path) -> None:
    corpus = audit(tmp_path, "prompt: q, response: a, template: t.jinja").corpus
    assert (corpus.prompt, corpus.response) == (("q",), "a")
    assert corpus.template == str(tmp_path / "t.jinja")
    assert audit(tmp_path, "prompt: [q, i], response: a, template: none").corpus.prompt == ("q", "i")


@pytest.mark.parametrize("corpus", ["messages: m", "prompt: [q, i], response: a, template: none", "text: t"])
def test_what_a_run_records_can_be_read_again(corpus: str, tmp_path: Path) -> None:
    config = audit(tmp_path, corpus)
    recorded = tmp_path / "recorded.yaml"
    recorded.write_text(dump_config(config))
    assert load_audit(recorded).model_dump() == config.model_dump()
    assert load_audit(recorded).extraction.prefix_tokens == config.extraction.prefix_tokens
    assert ("  text:" in recorded.read_text()) == corpus.startswith("text")


@pytest.mark.parametrize(
    ("corpus", "more", "key", "message"),
    [
        ("text: text, messages: m", "", "corpus.messages", "keep text or messages"),
        ("prompt: q, response: a, messages: m", "", "corpus.messages", "keep prompt or messages"),
        ("text: t, prompt: q, response: a", "", "corpus.prompt", "keep text or prompt"),
        ("prompt: q", "", "corpus.prompt", "name the column of the answer, too"),
        ("response: a", "", "corpus.response", "name the column of the prompt, too"),
        ("messages: m, template: none", "", "corpus.template", "set it to auto, or to a file"),
        ("messages: m, template: gone.jinja", "", "corpus.template", "does not exist"),
        ("template: none", "", "corpus.template", "has no effect on plain text"),
        ("messages: m, stride: 5", "", "corpus.stride", "has no effect on prompts and answers"),
        ("messages: m, documents: file", "", "corpus.documents", "has no effect on prompts and answers"),
        ("messages: m, window: 20", "", "corpus.window", "20 tokens cannot hold"),
        ("prompt: [], response: a", "", "corpus.prompt", "is an empty list"),
        ("text: t", "extraction: {prefix_tokens: 0}\n", "extraction.prefix_tokens", "give 1 or more"),
        ("text: t", "extraction: {min_suffix_tokens: 5}\n", "extraction.min_suffix_tokens", "no effect on"),
        (
            "messages: m",
            "extraction: {min_suffix_tokens: 51}\n",
            "extraction.min_suffix_tokens",
            "lower it, or raise that",
        ),
        ("messages: m", "holdout: {path: ./h.jsonl}\n", "holdout.path", "is plain text, and the corpus"),
        ("messages: m", "holdout: {path: ./c.jsonl, messages: m}\n", "holdout.path", "is the corpus itself"),
    ],
)
def test_wrong_keys_of_prompts_and_answers_are_refused_by_name(
    corpus: str, more: str, key: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_paths(audit(tmp_path, corpus, more))
    assert caught.value.key == key
    assert message in str(caught.value)


def test_another_column_of_the_same_file_is_another_text(tmp_path: Path) -> None:
    audit(tmp_path, "messages: m", "holdout: {path: ./c.jsonl, messages: n}\n")


def test_screening_and_distillation_take_them_too(tmp_path: Path) -> None:
    models = "models: {teacher: ./m, baseline: ./m}\n"
    screened = load_screen(written(tmp_path, "messages: m", models))
    assert screened.extraction.prefix_tokens == 0
    held = "holdout: {path: ./h.jsonl, messages: m}\n"
    trained = load_distill(written(tmp_path, "messages: m", held + DISTILL % ""))
    assert trained.extraction.prefix_tokens == 0
    (tmp_path / "again.yaml").write_text(dump_config(trained))
    assert load_distill(tmp_path / "again.yaml") == trained
    with pytest.raises(ConfigError, match="the teacher answers the prompt") as caught:
        load_distill(written(tmp_path, "messages: m", held + DISTILL % ", prefix_tokens: 5"))
    assert caught.value.key == "students.1.prefix_tokens"
