"""kdaudit: privacy audit for distilled language models.

    import kdaudit

    run = kdaudit.audit("audit.yaml")
    run.results.models["student"].rate
    run.leaks().to_pandas()

What `__all__` names is the public API. Everything is imported when it is first asked for: `import kdaudit`
loads no library and changes nothing in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdaudit.config.audit import AuditConfig
    from kdaudit.config.distill import DistillConfig
    from kdaudit.config.screen import ScreenConfig
    from kdaudit.errors import KdauditError, RunError, UsageError
    from kdaudit.pipelines.api import audit, compare, distill, open_run, screen
    from kdaudit.pipelines.written import Distillation, Run, Screening

__all__ = [
    "AuditConfig",
    "DistillConfig",
    "Distillation",
    "KdauditError",
    "Run",
    "RunError",
    "ScreenConfig",
    "Screening",
    "UsageError",
    "__version__",
    "audit",
    "compare",
    "distill",
    "open_run",
    "screen",
]

__version__ = "0.1.0"

_HOMES = {
    "AuditConfig": "config.audit",
    "DistillConfig": "config.distill",
    "ScreenConfig": "config.screen",
    "KdauditError": "errors",
    "RunError": "errors",
    "UsageError": "errors",
    "Run": "pipelines.written",
    "Screening": "pipelines.written",
    "Distillation": "pipelines.written",
}
"""Modules of what does not stand in `kdaudit.pipelines.api`."""

NO_USAGE_REPORTS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_UPDATE_DOWNLOAD_COUNTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "WANDB_ERROR_REPORTING": "false",
}
"""Environment variables that keep libraries from reporting what is audited. The command line and every worker
process set them; a program that imports kdaudit decides for itself."""


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
    if name not in __all__:
        raise AttributeError(f"module 'kdaudit' has no attribute {name!r}")
    return getattr(importlib.import_module(f"kdaudit.{_HOMES.get(name, 'pipelines.api')}"), name)


def __dir__() -> list[str]:
    return __all__
