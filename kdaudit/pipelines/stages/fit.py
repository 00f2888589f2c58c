"""Where examples are cut for each model, and whether its context suffices for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.extraction import ExtractionBase
from kdaudit.config.section import EngineName
from kdaudit.corpus import ChatFormat, ExampleTokens, JointCutter, Longest, template_of
from kdaudit.errors import ModelError, UsageError
from kdaudit.inference import EngineOptions, Split
from kdaudit.inference.texts import EMPTY_TOKENS
from kdaudit.models.audited import AuditedModel, AuditedModels, embedding_rows
from kdaudit.models.context import read_context_length
from kdaudit.models.tokenizer import bos_token_id, reader_of, uses_bos
from kdaudit.schemas.notes import Note


def split_of(
    extraction: ExtractionBase,
    models: AuditedModels,
    whole: Mapping[str, CorpusConfig],
    *,
    answers: bool = False,
) -> Split:
    """Where examples are cut, with the BOS token of the first model; see `split_of_model` for the others.

    Args:
        extraction: what counts as memorized.
        models: all of them.
        whole: corpora whose whole windows models will read, by configuration key.
        answers: whether the corpus is of prompts and answers, which are cut to what models can read.

    Raises:
        ModelError: `bos: always` and a tokenizer has no BOS token; a model's context is too short; or one has
            a tokenizer of its own and some text is of prompts and answers.

    """
    _check_answers(models, answers=answers or any(corpus.has_answers for corpus in whole.values()))
    for member in models.members:
        split = split_of_model(extraction, member, answers=answers)
        _check_fit(models, member, split, {} if answers else whole, prompt=_PROMPT if answers else 0)
    return split_of_model(extraction, models.cutter, answers=answers)


def _check_answers(models: AuditedModels, *, answers: bool) -> None:
    """Refuse tokenizers that differ where conversations are cut in tokens, special ones among them."""
    own = [member for member in models.members if member.name in models.by_text]
    if answers and own:
        raise ModelError(
            f"{own[0].name} has a tokenizer of its own, and prompts and answers are rendered and cut with "
            f"that of {models.cutter.name}",
            fix="name a model that shares it, or audit the answers as plain text (corpus.text)",
            key=f"{own[0].key}.path",
        )


_PROMPT = 3
"""Tokens of a prompt at least, where it is cut to what models can read: a BOS token and two more."""


def chat_of(
    corpus: CorpusConfig, extraction: ExtractionBase, models: AuditedModels, key: str = "corpus"
) -> ChatFormat:
    """How prompts and answers become token ids: with the teacher's chat template, as long as all can read.

    Args:
        corpus: its section.
        extraction: says what becomes of a BOS token.
        models: the teacher first.
        key: where the section stands in the configuration.

    Raises:
        UsageError: a model has a tokenizer of its own; or see `template_of`.

    """
    if models.by_text:
        others = ", ".join(sorted(models.by_text))
        raise UsageError(
            f"is of prompts and answers, which take models that read the same tokens; {others} reads others "
            f"than {models.cutter.name}",
            fix="name models with one tokenizer",
            key=f"{key}.path",
        )
    return ChatFormat(template_of(corpus, models.tokenizer, key), extraction.bos, _shortest_context(models))


def _shortest_context(models: AuditedModels) -> int | None:
    """Tokens that every model can read; None where nothing bounds them, or an endpoint's server alone."""
    lengths = [
        one.config.context
        if one.model.behind is not None
        else read_context_length(one.model.folder, trust_remote_code=one.config.trust_remote_code)
        for one in models.members
    ]
    return min((length for length in lengths if length is not None), default=None)


def split_of_model(extraction: ExtractionBase, member: AuditedModel, *, answers: bool = False) -> Split:
    """Where examples are cut for a model, and the BOS token that it reads before them.

    Of prompts and answers the prompt's tokens are the example's own: a BOS token is among them, if any.

    Raises:
        ModelError: `bos: always` and its tokenizer has no BOS token.

    """
    begin = extraction.bos == "always" or (
        extraction.bos == "auto" and not answers and uses_bos(member.tokenizer)
    )
    bos = bos_token_id(member.tokenizer) if begin else None
    if begin and bos is None:
        raise ModelError(
            f"the tokenizer of {member.name} has no BOS token",
            fix="set it to auto or never",
            key="extraction.bos",
        )
    return Split(extraction.prefix_tokens, extraction.suffix_tokens, None if answers else bos)


def joint_cutter(models: AuditedModels, tokens: ExampleTokens) -> JointCutter | None:
    """What cuts windows where all models' tokenizers can; None where all read the same tokens."""
    own = [member for member in models.members if member.name in models.by_text]
    readers = {member.name: reader_of(member.tokenizer) for member in own}
    return JointCutter(readers, tokens.prefix, tokens.suffix) if readers else None


def check_longest(
    extraction: ExtractionBase, models: AuditedModels, longest: Mapping[str, Longest], key: str
) -> None:
    """Check that models with tokenizers of their own can read the examples of a text.

    Raises:
        ModelError: prefix and suffix of some are longer than a model's context.

    """
    for member in models.members:
        if member.name in longest and member.model.behind is None:
            folder, trusted = member.model.folder, member.config.trust_remote_code
            most = read_context_length(folder, trust_remote_code=trusted)
            bos = split_of_model(extraction, member).bos is not None
            needed = max(longest[member.name].example, longest[member.name].window) - 1 + bos
            if most is not None and most < needed:
                raise ModelError(
                    f"{member.model.name}: its context length is {most} tokens, and by its own tokenizer "
                    f"windows of the {key} take up to {needed}",
                    fix=f"lower {key}.window, extraction.prefix_tokens or extraction.suffix_tokens",
                    key=f"{member.key}.path",
                )


def most_tokens(extraction: ExtractionBase, member: AuditedModel, longest: Longest) -> int:
    """Tokens of the longest sequence that a model with its own tokenizer may make, see `TextLedger`.

    A continuation gives at least a byte a token; the model's context may hold fewer.
    """
    bos = split_of_model(extraction, member).bos is not None
    wanted = bos + longest.prompt + longest.text + EMPTY_TOKENS
    if member.model.behind is not None:
        return wanted
    trusted = member.config.trust_remote_code
    most = read_context_length(member.model.folder, trust_remote_code=trusted)
    return wanted if most is None else min(wanted, most + 1)


def tokenizer_notes(
    extraction: ExtractionBase, models: AuditedModels, *, answers: bool = False
) -> list[Note]:
    """What a reader of the results should know where the models' tokenizers differ."""
    notes = list(models.notes)
    begun = {
        member.name: split_of_model(extraction, member, answers=answers).bos is not None
        for member in models.members
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
    own = [member for member in models.members if member.name in models.by_text]
    names = ", ".join(member.name for member in own)
    text = (
        f"Compared by text: {names}. Each has a tokenizer of its own, reads the text of a prefix with it, "
        "and memorizes an example if the text of its greedy continuation begins with the text of the suffix. "
        "Prefix and suffix end where the tokenizers of all models have a boundary, so their lengths vary a "
        f"little; windows without such boundaries are left out. Matched tokens are the {_whose(models)}."
    )
    yield Note(code="compared_by_text", subject=own[0].name if len(own) == 1 else None, text=text)
    changing = [member.name for member in own if reader_of(member.tokenizer).changed]
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


def _check_fit(
    models: AuditedModels,
    member: AuditedModel,
    split: Split,
    whole: Mapping[str, CorpusConfig],
    *,
    prompt: int,
) -> None:
    """Check that a model can read what it will be given; what is behind an endpoint is asked itself.

    Args:
        models: all of them.
        member: the model.
        split: where examples are cut.
        whole: see `split_of`.
        prompt: tokens before the prefix, at least.

    """
    if member.model.behind is not None:
        return
    folder, trusted = member.model.folder, member.config.trust_remote_code
    name, place = member.model.name, f"{member.key}.path"
    most = read_context_length(folder, trust_remote_code=trusted)
    if member.name in models.by_text:
        most = None  # how many of its own tokens a text has is known once it is read
    needed = prompt + split.tokens - 1  # the last token is predicted, not read
    if most is not None and most < needed:
        raise ModelError(
            f"{name}: its context length is {most} tokens, prefix and suffix take {needed}"
            f"{' with their BOS token' if split.bos is not None else ''} (the last one is not read)",
            fix="lower extraction.prefix_tokens or extraction.suffix_tokens",
            key=place,
        )
    for key, corpus in whole.items():
        wanted = corpus.window - 1 + (split.bos is not None)
        if most is not None and most < wanted:
            raise ModelError(
                f"{name}: its context length is {most} tokens, and perplexities are taken over whole "
                f"windows of the {key}, {wanted} of their tokens",
                fix=f"lower {key}.window"
                + (" or, in an audit, set predictor.enabled to false" if key == "corpus" else ""),
                key=place,
            )
    rows = embedding_rows(member)
    if models.rowless(member) is None or (rows is not None and (split.bos or 0) >= rows):
        raise ModelError(
            f"{name}: the tokenizer has {models.vocabulary_of(member):,} tokens and the model rows for "
            f"{rows:,}",
            fix="save the model after model.resize_token_embeddings(len(tokenizer))",
            key=place,
        )


def engine_options(
    extraction: ExtractionBase,
    engine: EngineName,
    member: AuditedModel,
    tokens: int,
    examples: int,
    sequences: int = 0,
    *,
    by_text: bool = False,
) -> EngineOptions:
    """How to load a model for extraction; a model's own settings come before the audit's.

    An adapter's path is its base model's: the caller puts the merged model's in its place.

    Args:
        extraction: what counts as memorized.
        engine: what runs it.
        member: the model.
        tokens: of the longest sequence to come, as `EngineOptions.max_tokens`.
        examples: how many will come.
        sequences: as in `EngineOptions`.
        by_text: whether the engine is asked to `match_text`.

    """
    behind = member.model.behind
    return EngineOptions(
        engine=engine if behind is None else "endpoint",
        endpoint=None if behind is None else tuple(behind),
        path=str(member.model.folder),
        max_tokens=tokens,
        dtype=member.config.dtype or extraction.dtype,
        tensor_parallel=member.config.tensor_parallel or extraction.tensor_parallel,
        trust_remote_code=member.config.trust_remote_code,
        expected_examples=examples,
        sequences=sequences,
        vocabulary=len(member.tokenizer),
        unused_ids=member.tokenizer.unused_ids,
        pieces=_pieces(member) if by_text else (),
    )


def _pieces(member: AuditedModel) -> list[str | None]:
    """What each token writes, see `EngineOptions.pieces`."""
    pieces = reader_of(member.tokenizer).pieces
    return [None if piece is None else piece.decode("latin-1") for piece in pieces]
