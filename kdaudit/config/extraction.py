"""The section of extraction: how models are asked to continue prefixes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.models import ModelSet
from kdaudit.config.section import DType, EngineName, Section
from kdaudit.config.yaml.misfit import MisfitError


class ExtractionBase(Section):
    """How models are asked to continue prefixes."""

    engine: EngineName | None = None
    """What runs the models."""
    prefix_tokens: NonNegativeInt = 50
    """Tokens of an example that the model is given: 50 where it is not set. Of prompts and answers: tokens of
    the answer that it is given behind the prompt, 0 where it is not set."""
    suffix_tokens: Annotated[int, Field(ge=1, le=32767)] = 50
    """Tokens that greedy decoding must reproduce for an example to count as memorized."""
    min_suffix_tokens: PositiveInt | None = None
    """For prompts and answers: a shorter answer is reproduced as far as it goes, if it has so many tokens;
    null means `suffix_tokens`."""
    bos: Literal["auto", "always", "never"] = "auto"
    """BOS token before the prefix; auto does what each model's own tokenizer does."""
    dtype: DType = "auto"
    """dtype of the weights while extracting; auto takes the model's own."""
    tensor_parallel: PositiveInt = 1
    """GPUs that share one model."""

    def of(self, corpus: CorpusConfig) -> Self:
        """The same for a kind of corpus, whose defaults differ.

        Raises:
            MisfitError: a setting has no effect on it, or cannot be.

        """
        if not corpus.has_answers:
            self._fits_text()
            return self
        if (self.min_suffix_tokens or 1) > self.suffix_tokens:
            raise MisfitError(
                f"is above extraction.suffix_tokens = {self.suffix_tokens}",
                fix="lower it, or raise that",
                key="extraction.min_suffix_tokens",
            )
        is_set = "prefix_tokens" in self.model_fields_set
        return self if is_set else self.model_copy(update={"prefix_tokens": 0})

    def _fits_text(self) -> None:
        if self.prefix_tokens == 0:
            raise MisfitError(
                "0 is out of range",
                fix="give 1 or more: with plain text a model needs a prefix to continue",
                key="extraction.prefix_tokens",
            )
        if self.min_suffix_tokens is not None:
            raise MisfitError(
                "has no effect on plain text", fix="remove it", key="extraction.min_suffix_tokens"
            )

    @model_serializer(mode="wrap")
    def _own_keys(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is not set and earlier versions did not have."""
        values: dict[str, Any] = handler(self)
        if self.min_suffix_tokens is None:
            values.pop("min_suffix_tokens", None)
        return values


_KINDS = {True: "prompts and answers", False: "plain text"}


def fit_extraction(
    config: BaseModel,
    extraction: ExtractionBase,
    corpus: CorpusConfig,
    others: Mapping[str, CorpusConfig | None],
) -> None:
    """Give a configuration the extraction's defaults for its kind of corpus, and check that windows hold it.

    Args:
        config: takes it.
        extraction: its section.
        corpus: its corpus.
        others: the texts beside the corpus, by key.

    Raises:
        MisfitError: they do not, a setting does not fit the corpus, or a text is of another kind.

    """
    extraction = extraction.of(corpus)
    object.__setattr__(config, "extraction", extraction)  # a frozen model, which is still being made
    need = extraction.prefix_tokens + extraction.suffix_tokens
    for key, one in {"corpus": corpus, **others}.items():
        if one is not None and one.has_answers != corpus.has_answers:
            raise MisfitError(
                f"is {_KINDS[one.has_answers]}, and the corpus is {_KINDS[corpus.has_answers]}",
                fix="name a text whose rows are of the corpus's kind",
                key=f"{key}.path",
            )
        if one is not None and one.window < need:
            raise MisfitError(
                f"{one.window} tokens cannot hold extraction.prefix_tokens + "
                f"extraction.suffix_tokens = {need}",
                fix="raise the window or lower those",
                key=f"{key}.window",
            )


class ExtractionConfig(ExtractionBase):
    """How models are asked to continue prefixes in an audit."""

    engine: EngineName = "vllm"
    """vllm is the fast one; transformers is the slower reference that runs anywhere."""


def tensor_parallel_by_key(models: ModelSet, extraction: ExtractionBase) -> dict[str, int]:
    """GPUs that share one model, wherever the configuration says so."""
    asked = {"extraction.tensor_parallel": extraction.tensor_parallel}
    own = {f"{key}.tensor_parallel": model.tensor_parallel for key, model in models.by_key().items()}
    return asked | {key: count for key, count in own.items() if count is not None}
