"""Where examples are cut for each model, and whether its context suffices for them."""

from __future__ import annotations

from collections.abc import Mapping

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.extraction import ExtractionBase
from kdaudit.corpus import ChatFormat, ExampleTokens, JointCutter, Longest, template_of
from kdaudit.errors import ModelError, UsageError
from kdaudit.inference import Split
from kdaudit.inference.texts import EMPTY_TOKENS
from kdaudit.models.audited import AuditedModel, AuditedModels, embedding_rows
from kdaudit.models.context import read_context_length
from kdaudit.models.tokenizer import bos_token_id, reader_of, uses_bos


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
    for audited in models.all:
        split = split_of_model(extraction, audited, answers=answers)
        _check_fit(models, audited, split, {} if answers else whole, prompt=_PROMPT if answers else 0)
    return split_of_model(extraction, models.cutter, answers=answers)


def _check_answers(models: AuditedModels, *, answers: bool) -> None:
    """Refuse tokenizers that differ where conversations are cut in tokens, special ones among them."""
    own = [audited for audited in models.all if audited.name in models.by_text]
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
        for one in models.all
    ]
    return min((length for length in lengths if length is not None), default=None)


def split_of_model(extraction: ExtractionBase, audited: AuditedModel, *, answers: bool = False) -> Split:
    """Where examples are cut for a model, and the BOS token that it reads before them.

    Of prompts and answers the prompt's tokens are the example's own: a BOS token is among them, if any.

    Raises:
        ModelError: `bos: always` and its tokenizer has no BOS token.

    """
    begin = extraction.bos == "always" or (
        extraction.bos == "auto" and not answers and uses_bos(audited.tokenizer)
    )
    bos = bos_token_id(audited.tokenizer) if begin else None
    if begin and bos is None:
        raise ModelError(
            f"the tokenizer of {audited.name} has no BOS token",
            fix="set it to auto or never",
            key="extraction.bos",
        )
    return Split(extraction.prefix_tokens, extraction.suffix_tokens, None if answers else bos)


def joint_cutter(models: AuditedModels, tokens: ExampleTokens) -> JointCutter | None:
    """What cuts windows where all models' tokenizers can; None where all read the same tokens."""
    own = [audited for audited in models.all if audited.name in models.by_text]
    readers = {audited.name: reader_of(audited.tokenizer) for audited in own}
    return JointCutter(readers, tokens.prefix, tokens.suffix) if readers else None


def check_longest(
    extraction: ExtractionBase, models: AuditedModels, longest: Mapping[str, Longest], key: str
) -> None:
    """Check that models with tokenizers of their own can read the examples of a text.

    Raises:
        ModelError: prefix and suffix of some are longer than a model's context.

    """
    for audited in models.all:
        if audited.name in longest and audited.model.behind is None:
            folder, trusted = audited.model.folder, audited.config.trust_remote_code
            most = read_context_length(folder, trust_remote_code=trusted)
            bos = split_of_model(extraction, audited).bos is not None
            needed = max(longest[audited.name].example, longest[audited.name].window) - 1 + bos
            if most is not None and most < needed:
                raise ModelError(
                    f"{audited.model.name}: its context length is {most} tokens, and by its own tokenizer "
                    f"windows of the {key} take up to {needed}",
                    fix=f"lower {key}.window, extraction.prefix_tokens or extraction.suffix_tokens",
                    key=f"{audited.key}.path",
                )


def most_tokens(extraction: ExtractionBase, audited: AuditedModel, longest: Longest) -> int:
    """Tokens of the longest sequence that a model with its own tokenizer may make, see `TextLedger`.

    A continuation gives at least a byte a token; the model's context may hold fewer.
    """
    bos = split_of_model(extraction, audited).bos is not None
    wanted = bos + longest.prompt + longest.text + EMPTY_TOKENS
    if audited.model.behind is not None:
        return wanted
    trusted = audited.config.trust_remote_code
    most = read_context_length(audited.model.folder, trust_remote_code=trusted)
    return wanted if most is None else min(wanted, most + 1)


def _check_fit(
    models: AuditedModels,
    audited: AuditedModel,
    split: Split,
    whole: Mapping[str, CorpusConfig],
    *,
    prompt: int,
) -> None:
    """Check that a model can read what it will be given; what is behind an endpoint is asked itself.

    Args:
        models: all of them.
        audited: the model.
        split: where examples are cut.
        whole: see `split_of`.
        prompt: tokens before the prefix, at least.

    """
    if audited.model.behind is not None:
        return
    folder, trusted = audited.model.folder, audited.config.trust_remote_code
    name, place = audited.model.name, f"{audited.key}.path"
    most = read_context_length(folder, trust_remote_code=trusted)
    if audited.name in models.by_text:
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
    rows = embedding_rows(audited)
    if models.rowless(audited) is None or (rows is not None and (split.bos or 0) >= rows):
        raise ModelError(
            f"{name}: the tokenizer has {models.vocabulary_of(audited):,} tokens and the model rows for "
            f"{rows:,}",
            fix="save the model after model.resize_token_embeddings(len(tokenizer))",
            key=place,
        )
