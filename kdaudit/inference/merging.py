"""Adapters merged into their base models by PEFT, in a worker process: whole models that any engine loads.

All is computed in float32, and rounded once to the dtype that the audit runs the model in. Whether the merged
model says what base and adapter say together is tried on some tokens before it is saved.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdaudit.errors import reason
from kdaudit.inference.making import make_in_worker, saved
from kdaudit.inference.sizing import own_dtype
from kdaudit.models.checkpoint.files import read_config

if TYPE_CHECKING:
    import torch

_TOKENS = 32
"""Length of the text of random tokens that both models read."""
_CLOSE = 1e-3
"""Largest change of a logit, as a share of the distance between the largest and the smallest: rounding in
float32 gives 1e-6."""


class MergeFiles(NamedTuple):
    """What is merged."""

    base: Path
    adapter: Path
    rows: int | None
    """Rows of the embeddings where the adapter brings its own, resized; else None."""
    dtype: str
    """auto (the base's own), float32, bfloat16 or float16: of what is saved."""


def merge(files: MergeFiles, folder: Path) -> None:
    """Merge an adapter into its base model, and save the whole model in an empty folder.

    Raises:
        EngineError: PEFT or transformers failed, or the merged model is another one.
        OutOfMemoryError: the base model does not fit in memory in float32.
        StorageError: it could not be written.

    """
    settings = {
        name: str(value) if isinstance(value, Path) else value for name, value in files._asdict().items()
    }
    options = {**settings, "folder": str(folder)}
    make_in_worker("kdaudit.inference.merging:MergeService", options, str(files.adapter))


class MergeService:
    """Runs in the worker: it merges when it is built."""

    def __init__(self, options: dict[str, Any]) -> None:
        from peft import PeftModel

        from kdaudit.inference.transformers import load_model
        from kdaudit.models.checkpoint.adapter_fit import peft_settings

        base, adapter = Path(options["base"]), Path(options["adapter"])
        model = load_model(base, "float32", "cpu", False)
        _check_finite(model, base)
        if options["rows"] is not None:
            model.resize_token_embeddings(options["rows"], mean_resizing=False)
        settings = peft_settings(adapter)
        if not settings.ensure_weight_tying:
            _untie(model, settings)
        with warnings.catch_warnings(action="ignore"):
            adapted = PeftModel.from_pretrained(model, str(adapter), config=settings).eval()
            before = _logits(adapted)
            merged = _merged(adapted)
        _check_same(before, _logits(merged))
        dtype = own_dtype(read_config(base)) if options["dtype"] == "auto" else options["dtype"]
        self._trouble = saved(lambda: _save(merged, dtype, Path(options["folder"])))

    def describe(self) -> str:
        """Why the model could not be written; empty if it was."""
        return self._trouble


def _check_finite(model: Any, base: Path) -> None:  # noqa: ANN401
    """Refuse a base model whose own weights would be taken for the adapter's fault."""
    import torch

    weights = model.named_parameters()
    broken = next((name for name, weight in weights if not torch.isfinite(weight).all()), None)
    if broken is not None:
        raise ValueError(
            f"its base model {base} holds NaN or infinite numbers in {broken}; copy or train that model again"
        )


def _merged(adapted: Any) -> Any:  # noqa: ANN401
    """The whole model. PEFT says which weights overflow, and not what to do."""
    try:
        return adapted.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise ValueError(
            f"PEFT does not merge it into its base model ({reason(error)}); train the adapter again, or "
            "merge it with the PEFT that trained it, and name the whole model"
        ) from error


def _untie(model: Any, settings: Any) -> None:  # noqa: ANN401 - of transformers and of PEFT
    """Part output layer and embeddings if either is adapted: merged into one, a change would be in both."""
    import torch
    from peft.tuners.tuners_utils import check_target_module_exists

    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is not embeddings.weight:
        return
    names = [name for name, module in model.named_modules() if module in (embeddings, head)]
    if any(check_target_module_exists(settings, name) for name in names):
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)


def _logits(model: Any) -> torch.Tensor:  # noqa: ANN401
    """What a model says of some tokens: float32 (1, tokens, columns)."""
    import torch

    rows = model.get_input_embeddings().weight.shape[0]
    ids = torch.randint(rows, (1, _TOKENS), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def _check_same(before: torch.Tensor, after: torch.Tensor) -> None:
    import torch

    change = (before - after).abs().max() / (before.max() - before.min())
    if not torch.isfinite(change) or change > _CLOSE:
        raise ValueError(
            f"merged into its base model, the adapter gives other logits (by {float(change):.2%} of their "
            "range); merge it with the PEFT that trained it, and name the whole model"
        )


def _save(model: Any, dtype: str, folder: Path) -> None:  # noqa: ANN401
    import torch
    from transformers import GenerationConfig

    model.generation_config = GenerationConfig()
    model.to(getattr(torch, dtype)).save_pretrained(folder)
