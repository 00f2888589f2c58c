"""Generation settings of models that are trained: the base's own, as far as transformers saves them.

transformers loads settings that it refuses to save, such as a temperature without sampling, as Llama-2 and
Vicuna have it; they would end a training at its first checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError, reason

_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class GenerationSettings(NamedTuple):
    """The generation settings that a trained model is saved with."""

    settings: Any
    """A GenerationConfig of transformers, which it saves."""
    left_out: str | None
    """Why only the special tokens of the base's own settings are used, if that is so."""


def generation_settings(folder: Path, config: Any) -> GenerationSettings:  # noqa: ANN401 - transformers is untyped
    """The generation settings of a model that is trained from `folder`.

    Args:
        folder: the base's.
        config: its configuration.

    """
    from transformers import GenerationConfig

    own = (folder / "generation_config.json").exists()
    found = GenerationConfig.from_pretrained(folder) if own else GenerationConfig.from_model_config(config)
    try:
        found.validate(strict=True)
    except ValueError as error:
        tokens = {name: _token(name, found, config) for name in _TOKENS}
        return GenerationSettings(GenerationConfig(**tokens), reason(error))
    return GenerationSettings(found, None)


def _token(name: str, *settings: Any) -> int | list[int] | None:  # noqa: ANN401 - configurations of transformers
    """A special token, of the first settings that name one."""
    for value in (getattr(each, name, None) for each in settings):
        tokens = value if isinstance(value, list) and value else [value]
        if all(isinstance(token, int) and token >= 0 for token in tokens):
            return value
    return None


def check_savable(key: str, config: Any, settings: Any) -> None:  # noqa: ANN401
    """Before any training, refuse what cannot be saved afterwards: everything but the weights is tried.

    Args:
        key: of the base in distill.yaml.
        config: its configuration.
        settings: see `GenerationSettings`.

    Raises:
        ModelError: transformers refuses.

    """
    with tempfile.TemporaryDirectory(prefix="kdaudit-") as folder:
        for part in (config, settings):
            try:
                part.save_pretrained(folder)
            except OSError:
                raise  # the disk failed, not the model
            except Exception as error:  # whatever the values provoke
                raise ModelError(
                    f"transformers would not save a model trained from it ({reason(error)})",
                    fix="correct its configuration",
                    key=key,
                ) from error
