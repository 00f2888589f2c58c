"""Whether the machine can run the models as they are asked for: engine, GPUs, quantized weights."""

from __future__ import annotations

from collections.abc import Mapping

from kdaudit.config.audit import AuditConfig
from kdaudit.config.extraction import ExtractionBase, tensor_parallel_by_key
from kdaudit.config.screen import ScreenConfig
from kdaudit.errors import ModelError, UsageError
from kdaudit.inference import require
from kdaudit.inference.executors import check_ray, check_replicas
from kdaudit.inference.quantized import obstacle
from kdaudit.inference.sizing import own_dtype
from kdaudit.models.audited import AuditedModels
from kdaudit.models.checkpoint.files import read_config
from kdaudit.schemas.notes import Note


def check_machine(config: AuditConfig | ScreenConfig) -> None:
    """Refuse at once what would fail only when the first model is loaded, after the whole corpus was read.

    Raises:
        UsageError: the engine is not installed, or there are fewer GPUs or cores than are asked for; or
            nothing answers where a Ray cluster should be, whose machines are another matter.

    """
    if config.compute.ray is not None:
        check_ray(config.compute.ray)
        return
    together = 1
    if config.extraction.engine == "vllm":
        require("vllm")
        together = _check_tensor_parallel(tensor_parallel_by_key(config.models, config.extraction))
    check_replicas(config.compute.replicas, together)


def _check_tensor_parallel(by_key: Mapping[str, int]) -> int:
    """Check that the machine has the GPUs that share a model; give how many share the largest."""
    for key, wanted in by_key.items():
        found = _accelerators() if wanted > 1 else wanted
        if wanted > found:
            there = {0: "none", 1: "one"}.get(found, f"only {found}")
            raise UsageError(
                f"asks for {wanted} GPUs and this machine has {there}",
                fix=f"set it to {max(1, found)}",
                key=key,
            )
    return max(by_key.values())


def _accelerators() -> int:
    import torch

    return torch.accelerator.device_count() if torch.accelerator.is_available() else 0


def check_quantized(extraction: ExtractionBase, models: AuditedModels, *, scored: bool) -> None:
    """Refuse quantized models that an engine cannot run on this machine.

    Args:
        extraction: how models are run.
        models: all of them.
        scored: whether models are scored, too, beside the extraction.

    Raises:
        ModelError: one cannot be run; the message says what could.

    """
    for audited in models.all:
        if (found := audited.model.quantization) is None:
            continue
        wanted = audited.config.dtype or extraction.dtype
        dtype = own_dtype(read_config(audited.model.folder)) if wanted == "auto" else wanted
        engine = extraction.engine or "transformers"
        compared = audited.role == "baseline" and models.teacher is not None
        lacking = obstacle(found, engine, dtype, scored=scored, on_gpu=_accelerators() > 0, compared=compared)
        if lacking is not None:
            raise ModelError(
                f"{audited.model.name} is quantized ({found.name}), and {lacking.what}",
                fix=lacking.fix,
                key=f"{audited.key}.path",
            )


def quantization_notes(models: AuditedModels) -> list[Note]:
    """What a reader of the results should know of quantized models."""
    notes = []
    for audited in models.all:
        if (found := audited.model.quantization) is None:
            continue
        counts = ", and the engine check counts such places as near ties"
        rounds = (
            " It rounds activations too, which engines do each in its own way: what extraction and scores "
            f"find may differ where that decides{counts if found.method == 'compressed-tensors' else ''}."
        )
        text = f"{audited.name} is measured as it is released, quantized ({found.name})."
        text += rounds if found.rounds_activations else ""
        notes.append(Note(code="quantized", subject=audited.name, text=text))
    return notes
