"""Reading a corpus as an audit does, for tests of what is read and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import open_documents
from kdaudit.errors import CorpusError


def texts(path: object, **fields: object) -> list[str]:
    """The texts of a corpus's documents, in order."""
    config = CorpusConfig.model_validate({"path": str(path), **fields})
    return [document.text for document in open_documents(config)]


def refusal(path: object, **fields: object) -> str:
    """The one sentence that a corpus is refused with."""
    with pytest.raises(CorpusError) as caught:
        texts(path, **fields)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("corpus.")
    return message


def write_rows(path: Path, rows: Iterable[str]) -> Path:
    """A file of json lines, its folders made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows))
    return path
