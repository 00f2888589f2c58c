"""The model card of a trained model: its data, its training, its results, and how to audit it.

A card is meant to be published: it names a local folder only by its last part.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit import __version__
from kdaudit.config.yaml.loading import dump_yaml
from kdaudit.distillation.folders import TrainingRecord


class About(NamedTuple):
    """The contents of a card besides the training record."""

    name: str
    """The model's, in its family."""
    base: str | None
    """Path or hub id of what it was trained from; None for random weights."""
    teacher: str | None
    """Path or hub id of the teacher; None for a model that had none."""
    corpus: str
    """Path or hub id of the text."""
    perplexity: float
    """Of the holdout."""
    own_tokenizer: bool = False
    """Whether it has another tokenizer than its teacher."""
    answers: bool = False
    """Whether the corpus is of prompts and answers."""


def model_card(about: About, record: TrainingRecord) -> str:
    """The text of README.md: front matter as the hub reads it, then what a reader should know."""
    adapter = "lora" in record.settings["settings"]
    front: dict[str, Any] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
    }
    if about.base is not None:
        relation = "adapter" if adapter else "finetune"
        front |= {"base_model": _shown(about.base), "base_model_relation": relation}
    front["tags"] = ["knowledge-distillation", "kdaudit"]
    rows = "\n".join(f"| {what} | {value} |" for what, value in _rows(about, record))
    settings = json.dumps(record.settings, indent=2)
    return (
        f"---\n{dump_yaml(front)}---\n\n# {about.name}\n\nTrained by kdaudit {__version__}.\n\n"
        f"| | |\n| --- | --- |\n{rows}\n\n## What it memorized\n\n"
        "A model can reproduce its training text word for word, and a distilled model also some text that "
        "only its teacher memorized. `kdaudit run audit.yaml` measures how much, with the audit.yaml that "
        "`kdaudit distill` wrote beside the students, and `kdaudit card` puts the result into this "
        f"card.\n\n## What its weights depend on\n\n```json\n{settings}\n```\n"
    )


def _rows(about: About, record: TrainingRecord) -> Iterator[tuple[str, str]]:
    recipe, settings = record.settings["recipe"], record.settings["settings"]
    yield "trained from", "random weights" if about.base is None else _shown(about.base)
    yield "method", _method(settings, answers=about.answers)
    if lora := settings.get("lora"):
        yield (
            "adapter",
            f"LoRA, rank {lora['r']}, alpha {lora['alpha']}; it needs the model it was trained from",
        )
    if about.teacher is not None:
        yield "teacher", _shown(about.teacher)
    yield "corpus", f"{_shown(about.corpus)}, {record.rows:,} windows"
    yield (
        "training",
        f"{recipe['epochs']} epochs of {recipe['batch_size']} windows per step, {record.steps:,} steps, "
        f"learning rate {recipe['learning_rate']:g}, {recipe['schedule']}, seed {recipe['seed']}",
    )
    kind = "distillation loss" if settings["method"] == "soft" else "loss"
    yield f"mean {kind} of each epoch", ", ".join(f"{loss:.4f}" for loss in record.losses)
    own = ", over the tokens of its own tokenizer" if about.own_tokenizer else ""
    yield "perplexity of the holdout", f"{about.perplexity:.2f}{own}"


def _method(settings: dict[str, Any], *, answers: bool) -> str:
    """How it was trained, in words."""
    match settings["method"]:
        case "soft":
            mixed = f", {settings['alpha']:g} of cross-entropy mixed in" if settings["alpha"] else ""
            return (
                f"soft (logit-level) distillation: {settings['divergence']} at temperature "
                f"{settings['temperature']:g}{mixed}"
            )
        case "hard" if settings["level"] == "token":
            return "hard distillation: the teacher's most likely token at each position"
        case "hard":
            decoding = settings["decoding"]
            at = f" at temperature {settings['sampling_temperature']:g}" if decoding == "sampled" else ""
            what = f"text that the teacher generated after {settings['prefix_tokens']} tokens of each window"
            if answers:
                what = "answers that the teacher generated to each prompt"
            return f"hard (sequence-level) distillation: {what}, {decoding}{at}"
        case "baseline":
            return "cross-entropy on the corpus, no teacher: the baseline of an audit"
        case _:
            return "cross-entropy on the corpus: the teacher of an audit"


def _shown(named: str) -> str:
    """A hub id as it is, a local folder or file by its name."""
    return Path(named).name if Path(named).is_absolute() else named
