"""The sizes of the demo, chosen so that it shows the whole picture in a few minutes on two cores.

`distill_yaml` is what the lab trains from them, `audit_yaml` what audits the models that it trained.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.config.section import EngineName
from kdaudit.corpus.canaries import Numbers

WRITTEN_BY = "# Written by `kdaudit demo`."
"""How the first line of its files begins: it tells a demo's folder from any other."""


class Learner(NamedTuple):
    """One size of model and how it learns; heads are 32 wide, which every attention kernel takes."""

    width: int
    layers: int
    epochs: int
    learning_rate: float


class DemoSettings(NamedTuple):
    """Everything that a demo's models and texts depend on."""

    characters: int = 75_000
    """Characters of Python's reference in the corpus."""
    holdout_characters: int = 60_000
    records: int = 15
    """Distinct planted records."""
    vocabulary: int = 2048
    teacher: Learner = Learner(192, 2, epochs=15, learning_rate=4e-3)
    student: Learner = Learner(96, 2, epochs=16, learning_rate=6e-3)
    """Three baselines and both students."""
    canaries: Numbers = Numbers(each=1, repetitions=(1, 16), controls=40)
    """Of each family: few, so that they add little to the training; more of them say more."""
    window: int = 104
    """Tokens of an example: 50 of prefix, 50 of suffix and a few to spare."""


def distill_yaml(settings: DemoSettings) -> str:
    """The distill.yaml of the demo; its models are the same whichever engine the machine has."""
    return _DISTILL.format(
        window=settings.window, teacher=_learner(settings.teacher), student=_learner(settings.student)
    )


def audit_yaml(settings: DemoSettings, engine: EngineName) -> str:
    """The audit.yaml of the demo."""
    return _AUDIT.format(window=settings.window, engine=engine)


def _learner(learner: Learner) -> str:
    return _LEARNER.format(
        width=learner.width,
        intermediate=learner.width * 8 // 3,
        layers=learner.layers,
        heads=learner.width // 32,
        epochs=learner.epochs,
        learning_rate=learner.learning_rate,
    )


_LEARNER = """\
  base: {{model_type: llama, hidden_size: {width}, intermediate_size: {intermediate},
         num_hidden_layers: {layers}, num_attention_heads: {heads}, max_position_embeddings: 256,
         tie_word_embeddings: true, initializer_range: 0.05}}
  epochs: {epochs}
  learning_rate: {learning_rate}"""
_DISTILL = """\
# Written by `kdaudit demo`. The same again: kdaudit distill distill.yaml --out models
name: demo
corpus: {{path: ./corpus.jsonl, text: text, id: id, window: {window}}}
holdout: {{path: ./holdout.jsonl, text: text, id: id, window: {window}}}
canaries: {{path: ./canaries.jsonl}}
tokenizer: ./tokenizer
teacher:
{teacher}
student:
{student}
students:
  - {{name: baseline, method: baseline, count: 3}}
  - {{name: soft, method: soft, temperature: 2.0}}
  - {{name: hard, method: hard, prefix_tokens: 50}}
training: {{batch_size: 16, order: own}}
extraction: {{engine: transformers, prefix_tokens: 50, suffix_tokens: 50}}
"""
_AUDIT = """\
# Written by `kdaudit demo`. Paths are taken from this file's folder.
name: demo
corpus: {{path: ./corpus.jsonl, text: text, id: id, window: {window}}}
holdout: {{path: ./holdout.jsonl, text: text, id: id, window: {window}}}
models:
  teacher: {{path: ./models/teacher}}
  baseline:  # the last two show what chance alone gives a student
    - {{path: ./models/seed-0/baseline}}
    - {{path: ./models/seed-0/baseline-2}}
    - {{path: ./models/seed-0/baseline-3}}
  students:
    - {{name: soft, path: ./models/seed-0/soft, kd: soft}}
    - {{name: hard, path: ./models/seed-0/hard, kd: hard}}
extraction: {{engine: {engine}, prefix_tokens: 50, suffix_tokens: 50}}
attacks: {{canaries: {{path: ./canaries.jsonl}}}}
report: {{title: The kdaudit demo}}
seed: 0
"""
