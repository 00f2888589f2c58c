"""predictor.json: the fitted predictor as plain numbers, with what it was fitted on.

The risk of an example is 1 / (1 + exp(-z)) with z = intercept + sum over features of
coefficient * (term - mean) / scale, where a term is the feature, or its natural logarithm if `logarithms`
names it. It is the probability of being memorized in a corpus where positives are as rare as in the corpus of
the fit. A risk equal to their share there means that the features say nothing either way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, ValidationError, model_validator
from pydantic_core import ErrorDetails

from kdaudit.errors import UsageError
from kdaudit.risk.logistic import Logistic
from kdaudit.risk.terms import KNOWN_FEATURES, LOGARITHMS, Floats, to_terms
from kdaudit.runs.files import read_bounded
from kdaudit.schemas.predictor import Labels, Origin, RecallGuarantee
from kdaudit.schemas.result import Result

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Scale = Annotated[float, Field(gt=0.0)]

_MOST_BYTES = 16 << 20
"""Of a predictor.json."""


class Predictor(Result):
    """The contents of predictor.json."""

    schema_version: Literal["1"]
    kdaudit_version: str
    features: Annotated[tuple[str, ...], Field(min_length=1)]
    """The columns of a table to score, in this order; the keys of the three below."""
    logarithms: tuple[str, ...]
    """Features that enter as natural logarithms."""
    means: dict[str, float]
    """Of the terms, over the examples fitted on."""
    scales: dict[str, Scale]
    """Standard deviations of the terms there; 1 for a constant one."""
    coefficients: dict[str, float]
    """Of the standardized terms."""
    intercept: float
    """Log odds of an average example, for positives as rare as in the corpus fitted on."""
    threshold: Share
    """An example with this risk or more is flagged."""
    promise: RecallGuarantee | None
    """The recall guarantee for the positives' kind; None if too few positives allow any."""
    positives: PositiveInt
    """Positive examples in the corpus."""
    examples: PositiveInt
    """All examples of it."""
    origin: Origin

    @model_validator(mode="after")
    def _check_features(self) -> Self:
        unknown = set(self.features) - {*KNOWN_FEATURES}
        if unknown or len(set(self.features)) < len(self.features):
            raise ValueError(f"features names {', '.join(sorted(unknown)) or 'a feature twice'}")
        for key, values in self._numbers().items():
            if set(values) != set(self.features):
                raise ValueError(f"{key} has not one number for each of the features")
        if set(self.logarithms) != LOGARITHMS & set(self.features):
            raise ValueError(f"logarithms must name those of {', '.join(sorted(LOGARITHMS))} that are used")
        return self

    def _numbers(self) -> dict[str, dict[str, float]]:
        return {"means": self.means, "scales": self.scales, "coefficients": self.coefficients}

    @property
    def labels(self) -> Labels:
        """What counts as a positive."""
        return self.origin.labels

    @property
    def logistic(self) -> Logistic:
        """The formula."""
        means, scales, coefficients = (
            np.array([one[name] for name in self.features]) for one in self._numbers().values()
        )
        return Logistic(means, scales, coefficients, self.intercept)

    def risk(self, features: Floats) -> Floats:
        """Each example's risk, 0 to 1: float64 (n,).

        Args:
            features: float64 (n, k), columns as in `features`.

        Raises:
            UsageError: a feature is NaN, infinite, or not positive where its logarithm is taken.

        """
        from scipy.special import expit

        risk: Floats = expit(self.logistic.logit(to_terms(features, self.features)))
        return risk

    def flagged(self, risk: Floats) -> NDArray[np.bool_]:
        """Which examples are flagged, bool (n,), by their risk (n,)."""
        flags: NDArray[np.bool_] = risk >= self.threshold
        return flags


def load_predictor(path: Path) -> Predictor:
    """Read a predictor.json.

    Raises:
        UsageError: there is none, it cannot be read, or it is not one of this schema.

    """
    try:
        return Predictor.model_validate_json(read_bounded(path, _MOST_BYTES))
    except OSError as error:
        reason = error.strerror or str(error)
        raise UsageError(
            f"{path}: cannot be read ({reason})",
            fix="name the predictor.json that an audit or a screening wrote",
        ) from error
    except ValidationError as error:
        what, fix = _what_is_wrong(error.errors(include_url=False))
        raise UsageError(f"{path}: {what}", fix=fix) from error


def _what_is_wrong(details: list[ErrorDetails]) -> tuple[str, str]:
    """What is wrong and what to do; a foreign schema version explains all other errors."""
    whole = next((one for one in details if not one["loc"]), None)
    if whole and whole["type"] in ("json_invalid", "model_type"):
        return "is not a predictor's JSON", "name the predictor.json that an audit or a screening wrote"
    version = next((one for one in details if one["loc"] == ("schema_version",)), None)
    if version:
        return (
            "has another schema version than '1', the one that this version of kdaudit reads",
            "use the version of kdaudit that wrote it, or fit the predictor again",
        )
    detail = details[0]
    key = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    what = f"{f'{key}: ' if key else ''}{message[0].lower()}{message[1:]}"
    return f"{what}; the file was changed", "fit the predictor again"
