"""What a model is trained from: base weights, or a configuration with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.config.models import ModelConfig
from kdaudit.distillation.families import random_model
from kdaudit.distillation.generation import check_savable, generation_settings
from kdaudit.distillation.teacher import Teacher
from kdaudit.errors import ModelError, reason
from kdaudit.inference.transformers import load_model
from kdaudit.models.checkpoint.config import load_config
from kdaudit.models.context import context_length, read_context_length
from kdaudit.models.resolving import ResolvedModel, resolve_model
from kdaudit.models.tokenizer import ModelTokenizer

GIVEN = "teacher.path"
"""Key of a teacher that is taken as it is."""


class Base(NamedTuple):
    """A start for training; one of `model` and `config` is there."""

    model: ResolvedModel | None
    """Existing weights."""
    config: Mapping[str, Any] | None
    """A configuration to start from random weights."""
    key: str
    """Its key in distill.yaml."""

    @property
    def fingerprint(self) -> str:
        """`sha256:` over the weights, or over the configuration."""
        if self.model is not None:
            return self.model.fingerprint
        return f"sha256:{sha256(json.dumps(dict(self.config or {}), sort_keys=True).encode()).hexdigest()}"


def resolve_base(base: str | Mapping[str, Any], key: str, *, hashed: bool = True) -> Base:
    """Find base weights, or take a configuration as it is.

    Args:
        base: a folder, a hub id, or a configuration.
        key: where it stands in the configuration.
        hashed: whether to take the fingerprint of weights.

    Raises:
        ModelError: the weights are missing, damaged or unsafe.

    """
    if isinstance(base, str):
        model = ModelConfig.model_construct(path=base)  # whether it is local was decided when it was loaded
        found = resolve_model(model, key, hashed=hashed)
        refuse_unfit_start(found, key)
        return Base(found, None, key)
    return Base(None, base, key)


def resolve_teacher(teacher: ModelConfig, *, hashed: bool = True) -> Base:
    """Find a teacher that is taken as it is: whole weights, or an adapter.

    Raises:
        ModelError: it is missing, damaged, unsafe or quantized.

    """
    found = resolve_model(teacher, "teacher", hashed=hashed)
    _refuse_quantized(found, GIVEN)
    return Base(found, None, GIVEN)


def refuse_unfit_start(model: ResolvedModel, key: str) -> None:
    """Refuse an adapter or a quantized model: a model is trained from whole weights.

    Raises:
        ModelError: it is one.

    """
    _refuse_quantized(model, key)
    if model.adapted is not None:
        raise ModelError(
            f"{model.name} is an adapter",
            fix="merge it into its base model (merge_and_unload), save the whole model, and name that one",
            key=key,
        )


def _refuse_quantized(model: ResolvedModel, key: str) -> None:
    if model.quantization is not None:
        raise ModelError(
            f"{model.name} is quantized ({model.quantization.name})",
            fix="name the model before quantization",
            key=key,
        )


def load_base(base: Base, tokenizer: ModelTokenizer, seed: int) -> Any:  # noqa: ANN401 - transformers is untyped
    """The model to train, in float32, on the CPU.

    Args:
        base: the start.
        tokenizer: the family's; a configuration takes its size and special tokens from it.
        seed: of random weights.

    Raises:
        ModelError: transformers cannot build a model from the configuration.

    """
    if base.model is None:
        return _make(base, tokenizer, seed)
    model = _load(base, base.model.folder, "float32")
    model.generation_config = generation_settings(base.model.folder, model.config).settings
    return model


def _load(base: Base, folder: Path, dtype: str) -> Any:  # noqa: ANN401
    try:
        return load_model(folder, dtype, "cpu", False)
    except ValueError as error:
        raise ModelError(f"{folder}: {reason(error)}", fix="save the model again", key=base.key) from error


def _make(base: Base, tokenizer: ModelTokenizer, seed: int) -> Any:  # noqa: ANN401 - transformers is untyped
    sizes = {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    check_architecture(base)
    with _says_what_transformers_refuses(base):
        return random_model({**sizes, **(base.config or {})}, seed)


@contextmanager
def _says_what_transformers_refuses(base: Base) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever the values provoke
        raise ModelError(
            f"transformers cannot build a model from this configuration ({reason(error)})",
            fix="correct it",
            key=base.key,
        ) from error


def check_architecture(base: Base) -> None:
    """Refuse an unknown architecture, and a misspelled key, which transformers would ignore.

    Keys that resemble none are accepted: families have more keys than their configurations declare.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    given = dict(base.config or {})
    kind = given.get("model_type")
    if kind not in CONFIG_MAPPING:
        near = get_close_matches(str(kind), list(CONFIG_MAPPING.keys()), n=1)
        remedy = f"did you mean {near[0]}?" if near else "name one, such as llama"
        raise ModelError(
            f"{kind!r} is not an architecture of transformers", fix=remedy, key=f"{base.key}.model_type"
        )
    described = CONFIG_MAPPING[kind]()
    known = {*described.to_dict(), *described.attribute_map}
    for key in given.keys() - known:
        near = get_close_matches(key, known, n=1, cutoff=0.85)
        if near:
            raise ModelError(
                f"{type(described).__name__} has no such key",
                fix=f"did you mean {near[0]}?",
                key=f"{base.key}.{key}",
            )


def check_bases(
    bases: Mapping[str, Base],
    tokenizer: ModelTokenizer,
    vocabulary: int,
    longest: int,
    warn: Callable[[str], None],
    *,
    answers: bool = False,
) -> None:
    """Before any training, refuse what cannot be trained, and warn if the teacher is not larger.

    Args:
        bases: teacher's and student's start, in this order.
        tokenizer: the family's.
        vocabulary: rows that a model needs at least.
        longest: tokens of the longest sequence to come.
        warn: receives warnings of the sizes, and of settings that are left out.
        answers: whether these are of prompts and answers, which are cut to what models can read: then
            `longest` is what is left at least.

    Raises:
        ModelError: as `load_base`; or a model has too few rows, or reads fewer tokens.

    """
    for base in bases.values():
        _check_positions(base, longest, answers=answers)
    sizes = [_parameters(base, tokenizer, vocabulary, warn) for base in bases.values()]
    if sizes[0] <= sizes[1]:
        warn(
            f"{' and '.join(bases)}: have {sizes[0]:,} and {sizes[1]:,} parameters, and a teacher is usually "
            f"larger than its students{'' if sizes[0] == sizes[1] else '; check that they are not swapped'}"
        )


def check_logits(
    base: Base, folder: Path | None, tokenizer: ModelTokenizer, vocabulary: int, dtype: str
) -> None:
    """Before any training, refuse a teacher whose logits students cannot learn.

    Args:
        base: the teacher, or its start.
        folder: where its weights are; None for random ones.
        tokenizer: the family's.
        vocabulary: rows that a model needs at least.
        dtype: of a teacher that is taken as it is.

    Raises:
        ModelError: as `Teacher`.

    """
    model = load_base(base, tokenizer, 0) if folder is None else _load(base, folder, dtype)
    Teacher(model, vocabulary, model.device)


def _parameters(base: Base, tokenizer: ModelTokenizer, vocabulary: int, warn: Callable[[str], None]) -> int:
    """Parameters of a base, after a check that models trained from it can be saved."""
    if base.model is None:
        model = load_base(base, tokenizer, 0)
        count, rows = int(model.num_parameters()), int(model.get_input_embeddings().num_embeddings)
        config, settings = model.config, model.generation_config
    else:
        folder = base.model.folder
        count, rows = base.model.parameters, base.model.embedding_rows or vocabulary
        config = load_config(folder)
        settings, left_out = generation_settings(folder, config)
        if left_out is not None:
            warn(
                f"{base.key}: transformers does not save its generation settings ({left_out}); models "
                "trained from it get their special tokens alone"
            )
        if base.model.warning:
            warn(base.model.warning)
    if rows < vocabulary:
        raise _too_few_rows(base, rows, vocabulary)
    check_savable(base.key, config, settings)
    return count


def shortest_context(bases: Mapping[str, Base]) -> int | None:
    """Tokens that models trained from all bases can read; None where nothing bounds them."""
    lengths = [context_of(base) for base in bases.values()]
    return min((length for length in lengths if length is not None), default=None)


def context_of(base: Base) -> int | None:
    """Tokens that a model trained from a base can read; None where nothing bounds them."""
    return read_context_length(base.model.folder) if base.model is not None else _context_of(base)


def _check_positions(base: Base, longest: int, *, answers: bool) -> None:
    most = context_of(base)
    if most is not None and most < longest:
        needed, settings = f"windows have {longest} with their BOS token", "corpus.window and holdout.window"
        if answers:
            needed = f"prefix and suffix of an answer take {longest} behind the shortest prompt"
            settings = "extraction.prefix_tokens or extraction.suffix_tokens"
        raise ModelError(
            f"its context length is {most} tokens, and {needed}", fix=f"lower {settings}", key=base.key
        )


def _context_of(base: Base) -> int | None:
    """Context length of a model that is made of a configuration."""
    from transformers import AutoConfig

    check_architecture(base)
    with _says_what_transformers_refuses(base):
        return context_length(AutoConfig.for_model(**(base.config or {})))


def _too_few_rows(base: Base, rows: int, vocabulary: int) -> ModelError:
    if base.model is None:
        return ModelError(
            f"{rows:,} is less than the tokenizer's {vocabulary:,} tokens",
            fix="remove it to use the tokenizer's length",
            key=f"{base.key}.vocab_size",
        )
    return ModelError(
        f"the model has rows for {rows:,} tokens and the tokenizer has {vocabulary:,}",
        fix="name weights that fit the tokenizer",
        key=base.key,
    )
