"""Whether weights and config.json belong together: every parameter has its tensor, every tensor its place.

transformers itself says so: the model is built without memory (on the meta device) and "loaded" from tensors
that have the shapes of the files and no content. So its own names and conversions count, for each family.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError, reason
from kdaudit.models.checkpoint.config import config_parts
from kdaudit.models.checkpoint.files import CONFIG
from kdaudit.models.checkpoint.packed import check_packed
from kdaudit.models.checkpoint.quantized import Quantization, weight_of
from kdaudit.models.checkpoint.weights import Tensor

_CHUNK_ELEMENTS = 1 << 22
_BUFFERS = ("inv_freq", "masked_bias", "attn.bias", "attention.bias", "position_ids")
"""Endings of tensors of older checkpoints that are computed today."""


class _Loaded(NamedTuple):
    """What transformers says of a loading."""

    model: Any
    missing: set[str]
    unexpected: set[str]
    mismatched: list[tuple[str, Any, Any]]


def check_fit(
    folder: Path,
    config: Any,  # noqa: ANN401
    tensors: Mapping[str, Tensor],
    key: str,
    *,
    quantization: Quantization | None = None,
) -> str | None:
    """Check that the weights are those that config.json describes, whose values are then all that is loaded.

    Models whose own code loads them are not checked.

    Args:
        folder: the model's folder.
        config: see `load_config`.
        tensors: what the weights hold.
        key: where the model stands in the configuration.
        quantization: how weights are quantized, so that their own shapes say nothing; None for whole ones.

    Returns:
        A warning of tensors that have no place in the model, None where there are none.

    Raises:
        ModelError: tensors are missing or of other shapes, or the output layer differs from the
            embeddings that it is said to be tied to.

    """
    made = _class_and_config(config)
    if made is None:
        return None
    model_class, config = made
    path, packed, there = folder / CONFIG, frozenset[str](), tensors
    if quantization is not None:
        config, tensors, packed = _unpacked(config, tensors)
    try:
        loaded = _load(model_class, config, tensors)
    except Exception as error:  # whatever the values provoke
        raise ModelError(
            f"{path}: transformers makes no model of it ({reason(error)})",
            fix="correct it or save the model again",
            key=f"{key}.path",
        ) from error
    if loaded.missing:
        name = min(loaded.missing)
        raise ModelError(
            f"{folder}: its weights lack {len(loaded.missing):,} that its {CONFIG} asks for, such as {name}",
            fix="copy or save the model again",
            key=f"{key}.path",
        )
    if mismatched := [entry for entry in loaded.mismatched if entry[0] not in packed]:
        name, there, wanted = min(mismatched, key=lambda entry: entry[0])
        raise ModelError(
            f"{folder}: {name} has the shape {tuple(there)} in its weights and {tuple(wanted)} by "
            f"its {CONFIG}",
            fix="correct the one that is wrong, or save the model again",
            key=f"{key}.path",
        )
    if quantization is not None:
        whole = {name: tuple(value.shape) for name, value in loaded.model.state_dict().items()}
        check_packed(quantization, folder, there, whole, key)
    _check_tied(folder, model_class, config, tensors, packed, key)
    return _left_out(folder, config, loaded, key)


def _unpacked(
    config: Any,  # noqa: ANN401
    tensors: Mapping[str, Tensor],
) -> tuple[Any, dict[str, Tensor], frozenset[str]]:
    """The configuration of the whole model, its tensors by their names there, and which of them are packed.

    Scales and zero points are parts of their weight.
    """
    whole = copy.deepcopy(config)
    for part in config_parts(whole):
        if hasattr(part, "quantization_config"):
            del part.quantization_config
    found = {weight_of(name): tensor for name, tensor in tensors.items()}
    parts = {name for name in map(weight_of, tensors) if name not in tensors}
    low = {name for name, tensor in tensors.items() if not tensor.dtype.startswith(("F3", "F1", "BF", "F6"))}
    return whole, found, frozenset(parts | low)


def _class_and_config(config: Any) -> tuple[Any, Any] | None:  # noqa: ANN401
    """The class that AutoModelForCausalLM takes, and the configuration that it gives it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return None
    found = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    model_class = found[0] if isinstance(found, tuple) else found
    text = type(config).sub_configs.get("text_config")
    return model_class, config.get_text_config() if text is model_class.config_class else config


def _load(model_class: Any, config: Any, tensors: Mapping[str, Tensor]) -> _Loaded:  # noqa: ANN401
    import torch
    from transformers import GenerationConfig

    empty = {
        name: torch.empty(tensor.shape, dtype=torch.float32, device="meta")
        for name, tensor in tensors.items()
    }
    with quiet():
        model, told = model_class.from_pretrained(
            None,
            config=copy.deepcopy(config),
            state_dict=empty,
            dtype=torch.float32,
            device_map={"": "meta"},
            ignore_mismatched_sizes=True,
            generation_config=GenerationConfig(),
            output_loading_info=True,
        )
    return _Loaded(
        model, set(told["missing_keys"]), set(told["unexpected_keys"]), list(told["mismatched_keys"])
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bar and its table of keys away; as they were afterwards."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _left_out(folder: Path, config: Any, loaded: _Loaded, key: str) -> str | None:  # noqa: ANN401
    """A warning of tensors that are fingerprinted and that no engine loads."""
    if len(list(config_parts(config))) > 1:
        return None  # a model of several parts, of which the text's may be all that is loaded
    left = sorted(name for name in loaded.unexpected if not name.endswith(_BUFFERS))
    if not left:
        return None
    return (
        f"{key}.path: {folder}: its weights hold {len(left):,} tensor(s) that its {CONFIG} has no place for, "
        f"such as {left[0]}; they are left out: check that {CONFIG} is this model's own"
    )


def _check_tied(
    folder: Path,
    model_class: Any,  # noqa: ANN401
    config: Any,  # noqa: ANN401
    tensors: Mapping[str, Tensor],
    packed: frozenset[str],
    key: str,
) -> None:
    """Refuse an output layer that differs from the embeddings it is tied to: engines keep either.

    One of the two that is quantized, and the other not, differs.
    """
    ties = any(getattr(part, "tie_word_embeddings", False) for part in config_parts(config))
    candidates = _candidates(tensors, packed)
    if not ties or len(candidates) < 2:
        return
    untied = copy.deepcopy(config)
    for part in config_parts(untied):
        if hasattr(part, "tie_word_embeddings"):
            part.tie_word_embeddings = False
    places = _embeddings(_load(model_class, untied, {}).model)
    if places is None:
        return
    found = {}
    for name in candidates:
        missing = _load(model_class, untied, {name: tensors[name]}).missing
        found.update({place: name for place in places if place not in missing})
    if len(found) < len(places):
        return
    one, two = (found[place] for place in places)
    if not packed.isdisjoint((one, two)) or not _same(tensors[one], one, tensors[two], two):
        raise ModelError(
            f"{folder}: {CONFIG} says that output layer and embeddings are one "
            f"(tie_word_embeddings), and the weights hold a {two} that differs from {one}; "
            "engines differ in which they use",
            fix=f"set tie_word_embeddings to false if {two} is the model's own, or save the model without it",
            key=f"{key}.path",
        )


def _embeddings(model: Any) -> tuple[str, str] | None:  # noqa: ANN401
    """Names of the parameters that embed tokens and that make logits of them; None where there are no two."""
    modules = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules(remove_duplicate=False)}
    found = [f"{names[id(module)]}.weight" for module in modules if id(module) in names]
    return (found[0], found[1]) if len({*found}) == len(modules) else None


def _candidates(tensors: Mapping[str, Tensor], packed: frozenset[str]) -> list[str]:
    """Matrices outside of numbered layers that share their shape with another one; all if one is packed."""
    outside = [
        name
        for name, tensor in tensors.items()
        if (len(tensor.shape) == 2 or name in packed) and not any(part.isdigit() for part in name.split("."))
    ]
    shapes = [tensors[name].shape for name in outside]
    is_any = not packed.isdisjoint(outside)
    return [name for name in outside if is_any or shapes.count(tensors[name].shape) > 1]


def _same(one: Tensor, one_name: str, two: Tensor, two_name: str) -> bool:
    """Whether two matrices of one shape hold equal values; in different dtypes, those of the wider one."""
    import torch
    from safetensors import safe_open

    rows, width = one.shape
    step = max(1, _CHUNK_ELEMENTS // max(1, width))
    with safe_open(one.file, framework="pt") as first, safe_open(two.file, framework="pt") as second:
        parts = first.get_slice(one_name), second.get_slice(two_name)
        for start in range(0, rows, step):
            left, right = (part[start : start + step] for part in parts)
            wide = torch.promote_types(left.dtype, right.dtype)
            # NaN equals NaN here: equal bytes are equal weights.
            if not torch.equal(left.to(wide).view(torch.uint8), right.to(wide).view(torch.uint8)):
                return False
    return True
