"""What a reader of the results should know where the models' tokenizers differ."""

from __future__ import annotations

from collections.abc import Iterator

from kdaudit.config.extraction import ExtractionBase
from kdaudit.models.audited import AuditedModels
from kdaudit.models.tokenizer import reader_of
from kdaudit.pipelines.stages.fit import split_of_model
from kdaudit.schemas.notes import Note


def tokenizer_notes(
    extraction: ExtractionBase, models: AuditedModels, *, answers: bool = False
) -> list[Note]:
    """Notes of all tokenizers, of their BOS tokens, and of what it means to compare models by text."""
    notes = list(models.notes)
    begun = {
        audited.name: split_of_model(extraction, audited, answers=answers).bos is not None
        for audited in models.all
    }
    if len({*begun.values()}) > 1:
        with_bos, without = (
            ", ".join(name for name, does in begun.items() if does is kind) for kind in (True, False)
        )
        text = (
            "A BOS token stands before each prefix where a model's own tokenizer puts one: it does for "
            f"{with_bos}, not for {without}. extraction.bos is the {_whose(models)}."
        )
        notes.append(Note(code="bos_tokens_differ", subject=None, text=text))
    if models.by_text:
        notes += _text_notes(models)
    if models.alike:
        text = (
            f"Tokenizers that differ from the {_whose(models)} and read every text as the same tokens: "
            f"those of {', '.join(models.alike)}."
        )
        notes.append(Note(code="tokenizers_differ", subject=None, text=text))
    return notes


def _text_notes(models: AuditedModels) -> Iterator[Note]:
    """What it means that models are compared by text."""
    own = [audited for audited in models.all if audited.name in models.by_text]
    names = ", ".join(audited.name for audited in own)
    text = (
        f"Compared by text: {names}. Each has a tokenizer of its own, reads the text of a prefix with it, "
        "and memorizes an example if the text of its greedy continuation begins with the text of the suffix. "
        "Prefix and suffix end where the tokenizers of all models have a boundary, so their lengths vary a "
        f"little; windows without such boundaries are left out. Matched tokens are the {_whose(models)}."
    )
    yield Note(code="compared_by_text", subject=own[0].name if len(own) == 1 else None, text=text)
    changing = [audited.name for audited in own if reader_of(audited.tokenizer).changed]
    if changing:
        yield Note(
            code="text_normalized",
            subject=changing[0] if len(changing) == 1 else None,
            text=f"Tokenizers that change text, as by Unicode normalization or unknown characters: those of "
            f"{', '.join(changing)}. What these models write is compared with the text as their tokenizer "
            "would write it; text with characters that it does not know is never reproduced.",
        )


def _whose(models: AuditedModels) -> str:
    """Whose tokenizer cuts the texts."""
    return "teacher's" if models.teacher is not None else f"first model's ({models.cutter.name})"
