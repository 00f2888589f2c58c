"""A tokenizer that is named by a local folder or a hub id, without a model."""

from __future__ import annotations

from pathlib import Path

from kdaudit.errors import KdauditError, ModelError, reason
from kdaudit.models.fetching import TOKENIZER_FILES
from kdaudit.models.hub import LOOKUP_SECONDS, bytes_fetched, within


def tokenizer_folder(path: str, key: str) -> Path:
    """The folder of a tokenizer.

    Args:
        path: absolute, or a hub id.
        key: what named it, for messages.

    Raises:
        ModelError: it cannot be fetched.
        RunError: the hub does not answer.

    """
    folder = Path(path)
    if folder.is_absolute():
        return folder
    from huggingface_hub import snapshot_download

    try:
        found = within(
            LOOKUP_SECONDS,
            lambda: snapshot_download(path, allow_patterns=TOKENIZER_FILES),
            f"{key}: {path}",
            progress=lambda: bytes_fetched(path),
        )
        return Path(found)
    except KdauditError:
        raise
    except Exception as error:  # the hub's client raises errors of four unrelated families
        raise ModelError(
            f"{path} cannot be fetched from the hub ({reason(error)})",
            fix="check the name and the network",
            key=key,
        ) from error
