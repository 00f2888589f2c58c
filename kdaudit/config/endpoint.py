"""A model behind an OpenAI-compatible completions endpoint, as a configuration names it."""

from __future__ import annotations

import re
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from kdaudit.config.paths import RESOLVED, resolve_path
from kdaudit.config.yaml.misfit import MisfitError

CONCURRENCY, TIMEOUT = 16, 120.0
"""Requests at a time, and seconds to wait for an answer, unless a configuration says otherwise."""
_METHODS = re.compile(r"/(chat/)?completions$")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


class Endpoint(NamedTuple):
    """Where a model answers, and how it is asked."""

    url: str
    """Up to `/v1`, without a slash at its end."""
    model: str
    """What the server calls it."""
    api_key_env: str | None
    """The environment variable that holds the key."""
    concurrency: int
    timeout: float
    """Seconds to wait for the next bytes of an answer."""


def is_url(value: str) -> bool:
    """Whether a model's path is an endpoint's address."""
    return value.startswith(("http://", "https://"))


def _checked_url(value: str) -> str:
    """An endpoint's address in its one form.

    Raises:
        MisfitError: it holds a key, a query or a method, or no host.

    """
    try:
        parts = urlsplit(value)
        named = parts.hostname is not None and (parts.port is None or parts.port > 0)
    except ValueError:
        named = False
    if not named:
        raise MisfitError("is not an address", fix="write it as http://HOST:PORT/v1")
    if parts.username is not None or parts.password is not None:
        raise MisfitError(
            "holds a password", fix="put it into an environment variable, and name that in api_key_env"
        )
    if parts.query or parts.fragment:
        raise MisfitError("has a query or a fragment", fix="end it at /v1")
    if _METHODS.search(parts.path.rstrip("/")):
        raise MisfitError("names a method of the server", fix="end it at /v1")
    return value.rstrip("/")


def _resolved(value: str, info: ValidationInfo) -> str:
    if is_url(value):
        return _checked_url(value)
    return resolve_path(value, (info.context or {}).get("folder"))


ModelPath = Annotated[str, Field(min_length=1), AfterValidator(_resolved), RESOLVED]
"""A local path, which becomes absolute, a hub id, or the address of an endpoint."""


def _variable(value: str) -> str:
    """Refuse what cannot be a variable's name, without repeating it: it may be the key itself."""
    if not _VARIABLE.fullmatch(value):
        raise MisfitError(
            "is not the name of an environment variable (capital letters, digits and _)",
            fix="put the key into a variable and name that variable; a key does not belong in a file",
        )
    return value


VariableName = Annotated[str, AfterValidator(_variable)]
"""The name of an environment variable."""
