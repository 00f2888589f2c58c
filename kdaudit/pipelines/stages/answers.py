"""What there is to say of a corpus of prompts and answers, beside its counts."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from hashlib import blake2b

import numpy as np

from kdaudit.attacks.examples import examples_of
from kdaudit.corpus import ChatFormat
from kdaudit.corpus.examples import AnswerCounts
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.models.resolving import read_tokenizer
from kdaudit.models.tokenizer import CLOCK, DATE, bos_token_id
from kdaudit.pipelines.stages.work import Work
from kdaudit.reporting.formatting import plural
from kdaudit.runs.examples import read_shard
from kdaudit.schemas.corpus import AnswersResult, CorpusResult
from kdaudit.schemas.notes import Note

_REASONS = {
    "no_answer": "without an answer that holds text",
    "unknown_role": "with a role that is not known",
    "not_text": "with content that is not text",
    "template": "that the chat template does not take",
}
_TEMPLATES = {
    "chat": "The prompts are rendered with the chat template of the model whose tokenizer cuts the text",
    "file": "The prompts are rendered with the chat template in the file that corpus.template names",
    "none": "No chat template is used: each answer stands right behind its prompt",
}


def count_answers(work: Work, counts: AnswerCounts | None, key: str, out: str) -> AnswersResult | None:
    """What a pass over prompts and answers found; None of plain text.

    Args:
        work: the run, its examples written.
        counts: of the pass.
        key: where the text stands in the configuration.
        out: folder of the examples.

    """
    if counts is None:
        return None
    for left_out in counts.left_out.values():
        work.warn(
            f"{key}: {plural(left_out.rows, 'row')} left out, such as row {left_out.first + 1}, counted from "
            f"1: {left_out.what}"
        )
    bos, hashes, begun = bos_token_id(work.models.tokenizer), [], True
    for shard in work.run.shards(out):
        batch = examples_of(read_shard(work.run, shard, ["example_id", "token_ids"]), work.split)
        hashes += [blake2b(row.tobytes(), digest_size=8).digest() for row in batch.targets]
        begun &= bool((batch.prompts.values[batch.prompts.offsets[:-1]] == bos).all())
    _, counted = np.unique(np.frombuffer(b"".join(hashes), np.uint64), return_counts=True)
    return AnswersResult(
        template=counts.template,
        bos=begun,
        left_out={why: left_out.rows for why, left_out in counts.left_out.items()},
        min_suffix_tokens=work.extraction.min_suffix_tokens or work.extraction.suffix_tokens,
        without_prompt=counts.without_prompt,
        prompts_cut=counts.prompts_cut,
        answers_cut=counts.answers_cut,
        suffixes=len(counted),
        recurring=int(counted[counted > 1].sum()),
    )


def template_notes(
    models: AuditedModels, chats: Mapping[str, ChatFormat], chosen: Collection[str] = ()
) -> list[Note]:
    """What readers should know of the chat templates: one that writes the date, models that come with others.

    Args:
        models: all of them.
        chats: how prompts and answers are rendered, by the texts' keys.
        chosen: the keys of texts whose template the configuration names: it is meant for all models.

    """
    auto = [chat for key, chat in chats.items() if key not in chosen]
    return [*_date_notes(chats), *_other_template_notes(models, auto)]


def _date_notes(chats: Mapping[str, ChatFormat]) -> Iterator[Note]:
    if any(CLOCK in (chat.template.jinja or "") for chat in chats.values()):
        text = (
            f"The chat template asks for the current date, and is given {DATE:%d %B %Y} in every run; "
            "training saw the date of its own day. corpus.template can name a copy of the template with that "
            "date."
        )
        yield _note("template_date", text)


def _other_template_notes(models: AuditedModels, chats: Sequence[ChatFormat]) -> list[Note]:
    if not chats:
        return []
    others = [
        audited.name
        for audited in models.with_weights
        if audited is not models.cutter
        and _own_template(audited) not in (None, models.tokenizer.chat_template)
    ]
    if not others:
        return []
    first, named = models.cutter.name, ", ".join(others)
    rendered = f"rendered with the chat template of {first}. Models that come with another: {named}"
    if chats[0].template.jinja is None:
        rendered = (
            f"not rendered with a chat template, as {first} has none. Models that come with one: {named}"
        )
    text = (
        f"All prompts are {rendered}. What a model learned behind prompts of another template may not come "
        "out behind these; corpus.template names the one that training used."
    )
    return [_note("chat_template", text)]


def _own_template(audited: AuditedModel) -> str | None:
    """The chat template in a model's own folder: models that read text alike share a tokenizer."""
    return read_tokenizer(audited.model).chat_template


def answer_notes(corpus: CorpusResult, beside: Mapping[str, CorpusResult | None]) -> list[Note]:
    """What readers of the results should know of prompts and answers.

    Args:
        corpus: the corpus itself.
        beside: the other texts by configuration key, None for those that are not there.

    """
    notes = []
    if (found := corpus.answers) is not None:
        begun = "Each begins with the BOS token" if found.bos else "They do not all begin with a BOS token"
        notes.append(_note("chat_template", f"{_TEMPLATES[found.template]}. {begun}."))
    for key, text in {"corpus": corpus, **beside}.items():
        if text is not None and text.answers is not None:
            notes += _left_out_notes(key, text.windows, text.answers)
    return [*notes, *_recurring_notes(corpus)]


def _left_out_notes(key: str, windows: int, found: AnswersResult) -> Iterator[Note]:
    """What of a text of prompts and answers was not audited, or not whole."""
    where = "" if key == "corpus" else f" in the {key} text" if key == "generated" else f" in the {key}"
    rows = [f"{plural(count, 'row')} {_REASONS[why]}" for why, count in found.left_out.items()]
    if found.without_prompt:
        rows.append(f"{plural(found.without_prompt, 'answer')} with nothing before them")
    if rows:
        yield _note("rows_left_out", f"Not audited{where}: {', '.join(rows)}.", key)
    if found.prompts_cut:
        text = (
            f"{plural(found.prompts_cut, 'prompt')} of {windows:,}{where} were cut from the left, to what "
            "all models can read with the answer's first tokens."
        )
        yield _note("prompts_cut", text, key)


def _recurring_notes(corpus: CorpusResult) -> Iterator[Note]:
    found = corpus.answers
    if found is not None and found.recurring:
        text = (
            f"Answers recur: {plural(found.recurring, 'example')} of {corpus.examples:,} have a suffix that "
            f"stands behind another prompt, too. Distinct suffixes: {found.suffixes:,}."
        )
        yield _note("answers_recur", text)


def _note(code: str, text: str, subject: str = "corpus") -> Note:
    return Note.model_validate({"code": code, "subject": subject, "text": text})
