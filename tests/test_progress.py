"""What takes long is told of before it begins; then the clock of the console breaks every silence."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_preflight import family  # noqa: F401 - a fixture

from kdaudit.config.yaml.loading import load_audit, load_distill, load_screen
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.screen import run_screen

SLOW = {
    "kdaudit.pipelines.stages.preflight:open_documents": r"reading the first rows",
    "kdaudit.models.finding:resolve_model": r"models: (reading headers|hashing)",
    "kdaudit.models.fingerprint:sha256_file": r"hashing|perplexity|how near",
    "kdaudit.corpus.fingerprint:sha256_file": r"hashing|reading it again|did not change",
    "kdaudit.pipelines.stages.examples:build_examples": r"(corpus|holdout): reading documents",
    "kdaudit.pipelines.stages.examples:SuffixCounter": r"counting suffixes",
    "kdaudit.pipelines.stages.examples:check_unchanged": r"reading it again",
    "kdaudit.inference.workers.worker:Worker.__init__": (
        r"loading|engine check|perplexity|how near|features|scores|the teacher writes"
    ),
    "kdaudit.inference.workers.worker:Worker.receive": (
        r"loading|engine check|extraction/|continuing|perplexity|how near|features|scores|the teacher writes"
    ),
    "kdaudit.pipelines.stages.predicting:fit_predictor": r"predictor: trials",
    "kdaudit.pipelines.audit:build_results": r"results: comparing",
    "kdaudit.pipelines.audit:render_reports": r"reports: rendering",
    "kdaudit.pipelines.screen:check_writable": r"corpus: checking that kept/ can hold its rows",
    "kdaudit.pipelines.screen:write_flagged": r"flagged: writing",
    "kdaudit.pipelines.screen:write_kept": r"kept: reading documents",
    "kdaudit.pipelines.screen:render_screen": r"reports: rendering",
    "kdaudit.distillation.opening:cut_windows": r"reading documents",
    "kdaudit.distillation.opening:check_bases": r"can be trained",
    "kdaudit.distillation.opening:family_readers": r"tokenizer",
    "kdaudit.distillation.lab:load_base": r"loading",
    "kdaudit.distillation.lab:save_model": r"saving",
}
"""What may take minutes where corpus or models are large, and what must have been told before it begins."""


class Watch:
    """Notes what was told last, and which slow functions began while nothing fitting had been told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
        self.now = ""
        self.begun: set[str] = set()
        self.silent: list[str] = []
        for place, words in SLOW.items():
            module, _, name = place.partition(":")
            if module.startswith(modules):
                owner: Any = import_module(module)
                *path, last = name.split(".")
                for part in path:
                    owner = getattr(owner, part)
                monkeypatch.setattr(owner, last, self._watched(place, getattr(owner, last), words))

    def __call__(self, what: str, done: int, total: int) -> None:
        assert 0 <= done <= (total or done)
        self.now = what

    def _watched(self, place: str, original: Callable[..., Any], words: str) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.begun.add(place)
            if not re.search(words, self.now):
                self.silent.append(f"{place} began under {self.now!r}")
            return original(*args, **kwargs)

        return watched


def unwarned(_: str) -> None:
    """Take a warning."""


SHARED = (
    "kdaudit.pipelines.stages",
    "kdaudit.models.finding",
    "kdaudit.models.fingerprint",
    "kdaudit.corpus",
    "kdaudit.inference.workers",
)


def test_each_costly_stage_of_an_audit_is_told_of_before_it_begins(
    family: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watch(monkeypatch, *SHARED, "kdaudit.pipelines.audit")
    config = load_audit(family / "audit.yaml", ["predictor.trials=2"])
    run_audit(config, tmp_path / "run", fresh=False, progress=watch, warn=unwarned)
    assert watch.silent == []
    due = {place for place in SLOW if place.startswith((*SHARED, "kdaudit.pipelines.audit"))}
    assert watch.begun == due - {"kdaudit.pipelines.stages.predicting:fit_predictor"}  # too few are memorized


def test_each_costly_stage_of_a_screening_is_told_of_before_it_begins(
    family: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watch(monkeypatch, *SHARED, "kdaudit.pipelines.screen")
    config = load_screen(family / "screen.yaml", ["max_flagged=1.0", "predictor.trials=2"])
    run_screen(config, tmp_path / "out", fresh=False, progress=watch, warn=unwarned)
    assert watch.silent == []
    assert watch.begun >= {place for place in SLOW if place.startswith("kdaudit.pipelines.screen")}


@pytest.mark.slow
def test_each_costly_stage_of_a_distillation_is_told_of_before_it_begins(
    family: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from kdaudit.distillation.lab import run_distill

    watch = Watch(
        monkeypatch, "kdaudit.inference.workers", "kdaudit.models.fingerprint", "kdaudit.distillation"
    )
    run_distill(load_distill(family / "distill.yaml"), tmp_path / "out", progress=watch, warn=unwarned)
    assert watch.silent == []
    assert watch.begun >= {place for place in SLOW if place.startswith("kdaudit.distillation")}
