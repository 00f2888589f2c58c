"""What config.json makes of a model: keys that steer how it is loaded are refused or set back.

transformers takes every key of config.json as an attribute of the configuration. Some say what the model is.
The others are decided here, one by one:

| key | what it would do | here |
| --- | --- | --- |
| transformers_weights | transformers loads that file in place of model.safetensors | refused |
| configuration_files | transformers and vLLM read another configuration | refused |
| speculators_config | vLLM loads the model that it names | refused |
| quantization_config | weights are quantized | obeyed if the tensors are (`quantized`) |
| auto_map | trusted code is run | refused where the code lies in another repository |
| auto_map without trust_remote_code | nothing | transformers' own code is taken, or the model refused |
| architectures | vLLM takes its class by it, transformers by model_type | refused where they differ |
| (_)attn_implementation | another attention, or a kernel from the hub | set back, see `attention_of` |
| (_)experts_implementation | other kernels | set back |
| fusion_config | patched classes | set back |
| return_dict, output_attentions, output_hidden_states | what a forward pass returns | set back |
| use_cache, gradient_checkpointing | caching | set back |
| dtype, torch_dtype | the dtype to load in | obeyed unless the audit sets one, see `own_dtype` |
| tie_word_embeddings | head and embeddings are one | obeyed; another head beside it is refused (`fit`) |
| generation parameters (temperature, max_length ...) | defaults of generate() | transformers drops them |
| name_or_path, _name_or_path, transformers_version | nothing | ignored |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.errors import ModelError

_STEERING = {
    "transformers_weights": "makes transformers load another file than the one that vLLM loads",
    "configuration_files": "makes transformers read another configuration in place of this file",
    "speculators_config": "makes vLLM load another model in place of this one",
}
_SET_BACK: dict[str, Any] = {
    "_experts_implementation": None,
    "fusion_config": None,
    "return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
    "use_cache": True,
    "gradient_checkpointing": False,
}
_COUNTS = re.compile(r"^(num|n)_.*(layer|head|expert|block|label)|_(layers|heads|experts|blocks)$")
"""Keys of what transformers builds one by one; widths such as n_inner and n_positions are none."""
_MOST_MODULES = 20_000
"""More layers, heads, experts or labels than any model has; Doge has 16,384 experts, in one tensor."""
_SOFT_CAP = re.compile(r"att.*soft_?cap")


class Attention(NamedTuple):
    """How transformers should compute attention."""

    implementation: str | None
    """eager; None where transformers' own choice (sdpa, or eager for families without it) is right."""
    reason: str | None
    """Why it is eager."""


def refuse_steering(described: Mapping[str, Any], path: Path, trusted: bool, key: str) -> None:
    """Refuse keys that make an engine load something else than the files that are checked.

    Args:
        described: the content of config.json.
        path: of config.json.
        trusted: whether code that comes with the model may run.
        key: where the model stands in the configuration.

    Raises:
        ModelError: there is such a key, at any depth.

    """
    for part in _objects(described):
        for name, does in _STEERING.items():
            if part.get(name) is not None:
                raise ModelError(f"{path}: {name} {does}", fix="remove that key", key=f"{key}.path")
        for code in _code_references(part) if trusted else ():
            if "--" in code:
                raise ModelError(
                    f"{path}: auto_map takes code from another repository ({code}), which is not part of "
                    "the fingerprint",
                    fix="copy that code into the folder and name it without repository",
                    key=f"{key}.path",
                )


def refuse_counts(described: Mapping[str, Any], path: Path, tensors: int, key: str) -> None:
    """Refuse more layers, heads, experts or labels than the weights could hold, before they are built.

    Args:
        described: the content of config.json.
        path: of config.json.
        tensors: how many the weights hold.
        key: where the model stands in the configuration.

    Raises:
        ModelError: there is such a number.

    """
    most = max(_MOST_MODULES, tensors)
    for part in _objects(described):
        for name, value in part.items():
            if isinstance(value, int) and value > most and _COUNTS.search(name):
                raise ModelError(
                    f"{path}: {name} is {value:,}, more than the {tensors:,} tensors of the weights could "
                    "hold",
                    fix="correct it or save the model again",
                    key=f"{key}.path",
                )


def refuse_other_class(described: Mapping[str, Any], path: Path, key: str) -> None:
    """Refuse an architecture of another family than `model_type`: vLLM goes by it, transformers does not.

    Raises:
        ModelError: they differ.

    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CLASSES

    kind = described.get("model_type")
    own = CLASSES.get(kind) if isinstance(kind, str) else None
    if own is None:
        return
    others = {
        name
        for family, names in CLASSES.items()
        if family != kind
        for name in ([names] if isinstance(names, str) else names)
    }
    for name in architectures(described):
        if name in others and name not in ([own] if isinstance(own, str) else own):
            raise ModelError(
                f"{path}: architectures says {name}, and model_type {kind!r} is {own}; "
                "engines differ in which of the two they use",
                fix="correct the one that is wrong",
                key=f"{key}.path",
            )


def architectures(described: Mapping[str, Any]) -> list[str]:
    """The class names of config.json."""
    return [str(name) for name in described.get("architectures") or []]


def load_config(folder: Path, *, trust_remote_code: bool = False) -> Any:  # noqa: ANN401 - transformers is untyped
    """A model's configuration in transformers, as `settled`."""
    from transformers import AutoConfig

    return settled(AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code))


def settled(config: Any) -> Any:  # noqa: ANN401
    """The same configuration of transformers, keys of loading set back at every depth, attention chosen."""
    implementation = attention_of(config).implementation
    for part in config_parts(config):
        part._attn_implementation = implementation
        for name, value in _SET_BACK.items():
            if hasattr(part, name):
                setattr(part, name, value)
    return config


def attention_of(config: Any) -> Attention:  # noqa: ANN401
    """How transformers must compute attention so that nothing that the configuration asks for is dropped.

    In transformers 5.19 `sdpa` takes no note of a soft cap of the attention's logits (Gemma-2, VaultGemma,
    T5Gemma). It drops attention sinks too (gpt-oss and its like), but those families refuse sdpa themselves.
    Sparse indices and position biases reach it as a mask. Flash attention is never chosen.
    """
    for part in config_parts(config):
        for name, value in vars(part).items():
            if value is not None and value is not False and _SOFT_CAP.search(name):
                return Attention("eager", f"{name} is {value}, which sdpa does not apply")
    return Attention(None, None)


def config_parts(config: Any) -> Iterator[Any]:  # noqa: ANN401
    """A configuration and those nested in it."""
    from transformers import PreTrainedConfig

    yield config
    for value in vars(config).values():
        if isinstance(value, PreTrainedConfig):
            yield from config_parts(value)


def _objects(described: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield described
    for value in described.values():
        if isinstance(value, dict):
            yield from _objects(value)


def _code_references(part: Mapping[str, Any]) -> Iterator[str]:
    auto_map = part.get("auto_map")
    for value in auto_map.values() if isinstance(auto_map, dict) else ():
        yield from (str(one) for one in (value if isinstance(value, list) else [value]))
