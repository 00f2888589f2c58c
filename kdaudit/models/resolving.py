"""Models before they are loaded: where they lie, and whether they are whole, safe and of a kind to audit.

Only safetensors weights are taken; nothing here loads a tensor, and code that comes with a model runs only
where `trust_remote_code` allows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from kdaudit.config.endpoint import Endpoint
from kdaudit.config.models import ModelConfig
from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.adapter import ADAPTER_CONFIG, Adapter, is_adapter
from kdaudit.models.checkpoint.copies import equal_models
from kdaudit.models.checkpoint.files import CONFIG, read_config, read_json
from kdaudit.models.checkpoint.quantized import Quantization, packed_numbers
from kdaudit.models.checkpoint.weights import Tensor, Weights, find_weights
from kdaudit.models.checks import check_model
from kdaudit.models.fetching import commit_of, find_folder, local_folder
from kdaudit.models.fingerprint import Stamp, fingerprint_of, stamp_of
from kdaudit.models.tokenizer import (
    Alike,
    ModelTokenizer,
    compare_readings,
    load_tokenizer,
    reading_fingerprint,
)
from kdaudit.models.tokenizer.reading import difference
from kdaudit.runs.files import read_bounded

_TEMPLATE, _TOKENIZER_CONFIG = "chat_template.jinja", "tokenizer_config.json"
_MOST_BYTES = 1 << 20
"""Of a chat template."""
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


class Adapted(NamedTuple):
    """An adapter on its base model."""

    adapter: Adapter
    base: ModelConfig
    """Where its base model is, pinned to a commit if it is on the hub."""
    rows: int | None
    """Rows of the embeddings where the adapter brings its own, resized; None for the base model's."""
    template: str | None = None
    """The chat template of an adapter that brings one, and no tokenizer."""


class ResolvedModel(NamedTuple):
    """A model that can be loaded."""

    folder: Path
    """Its files; an adapter's base model's."""
    fingerprint: str
    """`sha256:` over names and contents of config.json and the weight files, and of code that is trusted; of
    an adapter over those of its base model and its own."""
    parameters: int
    """Numbers in the weight files, packed ones each: tied ones once, buffers of causal masks left out."""
    tokenizer_fingerprint: str
    """`sha256:` over how the tokenizer reads text; equal for equal content in other formatting."""
    name: str
    """Path or hub id, as configured."""
    trust_remote_code: bool = False
    commit: str | None = None
    """The hub's commit that was fetched; None for a local folder."""
    weights: Weights = Weights((), {})
    """The files that were fingerprinted, which are those that engines load, and their tensors."""
    warning: str | None = None
    """What the user should know of them."""
    stamps: Mapping[Path, Stamp | None] = MappingProxyType({})
    """What tells that a file was written to since it was fingerprinted."""
    adapted: Adapted | None = None
    """None for a whole model."""
    behind: Endpoint | None = None
    """The endpoint that the model is behind, so that `folder` holds its tokenizer alone; else None."""
    quantization: Quantization | None = None
    """How its weights are quantized; None for whole ones."""

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer lies: an adapter's own is taken before its base model's."""
        return (
            self.folder if self.adapted is None else tokenizer_place(self.adapted.adapter.folder, self.folder)
        )

    @property
    def embedding_rows(self) -> int | None:
        """Rows of its embeddings; None where its own code, or an endpoint, does not say."""
        if self.behind is not None:
            return None
        if self.adapted is not None and self.adapted.rows is not None:
            return self.adapted.rows
        rows = read_config(self.folder).get("vocab_size")
        return rows if isinstance(rows, int) else None


def resolve_model(config: ModelConfig, key: str, *, hashed: bool = True) -> ResolvedModel:
    """Find a model's folder, fetching it from the hub if it is not local, and check its files.

    Args:
        config: the model's section, its path absolute if local.
        key: where it stands in the configuration, for messages, as in `models.teacher`.
        hashed: whether to take the fingerprint, for which all weights are read; else it is empty.

    Raises:
        ModelError: it is missing, incomplete, damaged, unsafe, or cannot be fetched.
    """
    folder = find_folder(config, key)
    if is_adapter(folder):
        from kdaudit.models.adapters import resolve_adapter

        return resolve_adapter(folder, config, key, hashed=hashed)
    if config.base is not None:
        raise ModelError(
            f"{config.path} is a whole model, and only an adapter has a base",
            fix=f"remove it, or name the folder that holds {ADAPTER_CONFIG}",
            key=f"{key}.base",
        )
    return resolve_whole(folder, config, key, hashed=hashed)


def resolve_whole(folder: Path, config: ModelConfig, key: str, *, hashed: bool) -> ResolvedModel:
    """Check the files of a model with weights of its own; see `resolve_model`."""
    weights, warning, quantization = check_model(folder, config, key)
    files = hashed_files(folder, weights, config)
    stamps = {file: stamp_of(file) for file in files}  # before they are read
    return ResolvedModel(
        folder,
        fingerprint_of(files, key) if hashed else "",
        _count_parameters(weights, quantization),
        reading_fingerprint(tokenizer_of(folder, config, key)),
        config.path,
        config.trust_remote_code,
        None if Path(config.path).is_absolute() else commit_of(folder),
        weights,
        warning,
        stamps,
        quantization=quantization,
    )


def local_fingerprint(config: ModelConfig, key: str) -> str:
    """The fingerprint of a local model as it stands; nothing else of it is checked.

    Raises:
        ModelError: its weights are missing or cannot be read.

    """
    folder = local_folder(config, key)
    if is_adapter(folder):
        return resolve_model(config, key).fingerprint
    return fingerprint_of(hashed_files(folder, find_weights(folder, key), config), key)


def hashed_files(folder: Path, weights: Weights, config: ModelConfig) -> list[Path]:
    """The files of a whole model that its fingerprint is over."""
    code = sorted(folder.glob("*.py")) if config.trust_remote_code else []
    return [folder / CONFIG, *weights.files, *code]


def check_model_unchanged(model: ResolvedModel, key: str) -> None:
    """Check that a model's files still are those that were fingerprinted, once it has been loaded and used.

    Files that the system knows to be untouched are not read again.

    Raises:
        ModelError: they changed, so that what was measured may be of other weights.

    """
    if all(stamp_of(file) == stamp for file, stamp in model.stamps.items()):
        return
    if fingerprint_of(list(model.stamps), key) != model.fingerprint:
        raise ModelError(
            f"{model.name}: changed while it was audited; what was measured of it is not kept",
            fix="run again once nothing writes to it any more",
            key=f"{key}.path",
        )


def smaller_teacher_warning(teacher: ResolvedModel, student: ResolvedModel, name: str) -> str | None:
    """A warning when a student is as large as its teacher or larger, else None."""
    if teacher.parameters > student.parameters or teacher.behind is not None:
        return None
    return (
        f"models.teacher has {teacher.parameters:,} parameters and student {name} {student.parameters:,}: "
        "a teacher is usually larger; check that the paths are not swapped"
    )


def copy_warnings(models: Mapping[str, ResolvedModel]) -> list[str]:
    """A warning for each model whose weights are those of another one; see `checkpoint.copies`."""
    weights = {name: model.weights for name, model in models.items()}
    return [
        f"{one} and {two} have the same weights, tensor for tensor ({models[one].name} and "
        f"{models[two].name}): to compare them is to compare a model with itself; check the paths"
        for one, two in equal_models(weights)
    ]


def tokenizer_of(folder: Path, config: ModelConfig, key: str) -> ModelTokenizer:
    """The tokenizer in a folder.

    Raises:
        ModelError: there is none, or it cannot be loaded.

    """
    if not _has_tokenizer(folder):
        raise ModelError(
            f"{folder} holds no tokenizer",
            fix="save that of its base model there: "
            "AutoTokenizer.from_pretrained(BASE).save_pretrained(FOLDER)",
            key=f"{key}.path",
        )
    try:
        return load_tokenizer(folder, trust_remote_code=config.trust_remote_code)
    except ModelError as error:
        error.key = f"{key}.path"
        raise


def read_tokenizer(model: ResolvedModel) -> ModelTokenizer:
    """A model's tokenizer, with the chat template that an adapter brings."""
    template = None if model.adapted is None else model.adapted.template
    return load_tokenizer(
        model.tokenizer_folder, trust_remote_code=model.trust_remote_code, template=template
    )


def template_beside(adapter: Path, key: str) -> str | None:
    """The chat template in the folder of an adapter without a tokenizer; None where there is none.

    Raises:
        ModelError: it cannot be read.

    """
    if _has_tokenizer(adapter):
        return None
    path = adapter / _TEMPLATE
    if path.exists():
        try:
            return read_bounded(path, _MOST_BYTES).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(
                f"{path} cannot be read ({reason(error)})", fix="save it again", key=f"{key}.path"
            ) from error
    described = adapter / _TOKENIZER_CONFIG
    found = read_json(described, key).get("chat_template") if described.exists() else None
    return found if isinstance(found, str) else None


def tokenizer_place(adapter: Path, base: Path) -> Path:
    """The folder whose tokenizer an adapter has: its own, else its base model's."""
    return adapter if _has_tokenizer(adapter) else base


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).exists() for name in _TOKENIZER_FILES)


def _count_parameters(weights: Weights, quantization: Quantization | None) -> int:
    if quantization is not None:
        packed = (packed_numbers(name, one, quantization) for name, one in weights.tensors.items())
        return sum(packed)
    return sum(
        math.prod(tensor.shape) for name, tensor in weights.tensors.items() if _is_parameter(name, tensor)
    )


def _is_parameter(name: str, tensor: Tensor) -> bool:
    # Older GPT-2 and GPT-NeoX files keep their causal masks, as `attn.bias` of four dimensions.
    is_mask = name.endswith("bias") and len(tensor.shape) > 2
    return tensor.dtype.startswith(("F", "BF")) and not is_mask


def compare_tokenizers(models: Mapping[str, ResolvedModel], *, one: bool) -> dict[str, Alike | None]:
    """How the models read text beside the first of them, as far as that can be known without the text.

    Compared by content: vocabulary, merges, how text is split and normalized. BOS and EOS tokens, padding,
    truncation and chat templates do not count, nor do added tokens that no text holds.

    Args:
        models: by name.
        one: whether all have to read text alike.

    Returns:
        For each model whose tokenizer is not the first one's: which texts both read alike; None where they
        read text differently.

    Raises:
        ModelError: two read text differently and must not; the message names them and what differs.

    """
    (first, model), *others = models.items()
    found: dict[str, Alike | None] = {}
    for name, other in others:
        if other.tokenizer_fingerprint == model.tokenizer_fingerprint:
            continue
        own, theirs = (
            load_tokenizer(each.tokenizer_folder, trust_remote_code=each.trust_remote_code)
            for each in (model, other)
        )
        found[name] = compare_readings(own, theirs)
        if one and found[name] is None:
            differ = difference(own, theirs, first, name)
            raise ModelError(
                f"{first} and {name} have different tokenizers ({differ}); "
                "a screening needs one, so that both models score the same tokens",
                fix="name models that share theirs",
                key="models",
            )
    return found
