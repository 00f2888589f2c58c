"""Rows of canaries.jsonl: texts that are made to be planted in training data, and controls that stay out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

CanaryFamily = Literal["random_token", "random_characters", "random_word", "fake_record"]
"""How a text was drawn; canaries are only compared with controls of their own family."""


MOST_REPETITIONS = 100_000
"""Times that training data hold a canary, at most."""


class Canary(BaseModel):
    """One row. Canaries and controls of a family are drawn alike."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)

    id: Annotated[str, Field(min_length=1, max_length=200)]
    """Names it, as a corpus names documents."""
    family: CanaryFamily
    repetitions: Annotated[int, Field(ge=0, le=MOST_REPETITIONS)]
    """Times that training data hold it; 0 for a control."""
    text: Annotated[str, Field(min_length=1)]
