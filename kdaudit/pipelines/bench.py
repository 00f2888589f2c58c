"""How long extraction takes on the user's own teacher, corpus and machine, four ways.

Each way has a worker process of its own; all are loaded before the first is timed, each warms up, and
then they take turns, so that a machine that slows down slows them all. A way's time is the median of its
turns; loading and the corpus's tokenization are left out. Each engine has all cores, as it takes them by
itself, and the memory must hold the model four times. Generation in vLLM is driven by the same loop as early
exit, and does what `LLM.generate` does: all requests go in, and all their tokens come out.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table

from kdaudit.attacks.examples import examples_of
from kdaudit.config.audit import AuditConfig
from kdaudit.config.section import EngineName
from kdaudit.corpus import ExampleTokens, build_examples
from kdaudit.inference import Batch, EngineOptions, Ragged, RemoteEngine, Split, require, start
from kdaudit.inference.merged import MergedModels
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.models.finding import lone_cutter
from kdaudit.pipelines.stages.engine_options import engine_options
from kdaudit.pipelines.stages.fit import chat_of, split_of
from kdaudit.runs import Progress

REPEATS = 3
_WARM_UP = 128
"""Examples that each way meets before it is timed."""


class BenchResult(BaseModel):
    """What `kdaudit bench --json` prints."""

    model_config = ConfigDict(frozen=True)

    examples: int
    repeats: int
    seconds: dict[str, float]
    """Median seconds of early_exit, generate, prefill and transformers."""
    ratios: dict[str, float]
    """Each other way's median over early_exit's."""
    decoded_share: float
    """Share of the suffix tokens that early exit had to decode: near 1 where the teacher memorizes most."""
    corpus_seconds: float
    """What early exit would take for all windows that the audit would read, copies counted."""


class _Way(NamedTuple):
    """A way to do the work, or a part of it."""

    name: str
    engine: EngineName
    words: str
    run: Callable[[RemoteEngine, Batch], object]


_WAYS = (
    _Way(
        "early_exit",
        "vllm",
        "early exit (kdaudit)",
        lambda engine, rows: engine.match(rows.prompts, rows.targets),
    ),
    _Way("generate", "vllm", "vLLM, all suffix tokens", lambda engine, rows: _generate(engine, rows)),
    _Way("prefill", "vllm", "vLLM, prefixes alone", lambda engine, rows: engine.generate(rows.prompts, 1)),
    _Way(
        "transformers", "transformers", "transformers generate", lambda engine, rows: _generate(engine, rows)
    ),
)


def run_bench(config: AuditConfig, *, examples: int, progress: Progress) -> BenchResult:
    """Time the four ways with the audit's teacher, without one its first model, on a sample of its corpus.

    Args:
        config: the audit; `extraction.engine` is not heeded.
        examples: distinct examples to time, at most what the corpus has.
        progress: told of every turn.

    Raises:
        UsageError: vLLM, model or corpus are not as they must be.
        EngineError: an engine failed.

    """
    require("vllm")
    progress("model: reading headers and hashing", 0, 0)
    models = lone_cutter(config.models)
    split = split_of(config.extraction, models, {}, answers=config.corpus.has_answers)
    progress("corpus: reading documents", 0, 0)
    rows, windows = _sample(config, models, split, examples, progress)
    count = len(rows.prompts)
    seconds: dict[str, list[float]] = {way.name: [] for way in _WAYS}
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        merged = stack.enter_context(MergedModels(_folder, progress))
        engines = []
        for way, waiting in zip(_WAYS, range(len(_WAYS), 0, -1), strict=True):
            progress(f"bench: loading, {way.words}", 0, 0)
            model = models.cutter
            options = _options(config, model, rows, way, waiting)
            packed = way.engine == "vllm"
            path = str(merged.folder(model.name, model.model, options.dtype, packed=packed))
            engines.append(stack.enter_context(start(options._replace(path=path))))
        for way, engine in zip(_WAYS, engines, strict=True):
            progress(f"bench: warming up, {way.words}", 0, 0)
            way.run(engine, rows.take(np.arange(min(count, _WARM_UP))))
        for turn in range(REPEATS):
            for place, (way, engine) in enumerate(zip(_WAYS, engines, strict=True)):
                progress("bench", turn * len(_WAYS) + place, REPEATS * len(_WAYS))
                before = engine.seconds
                found[way.name] = way.run(engine, rows)
                seconds[way.name].append(engine.seconds - before)
    suffixes = rows.targets.lengths
    decoded = (np.minimum(found["early_exit"] + 1, suffixes) / suffixes).mean()
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    return _result(count, medians, float(decoded), windows)


def render(result: BenchResult) -> str:
    """The result as a table for a terminal."""
    table = Table(
        "way",
        "seconds",
        "times early exit",
        title=f"{result.examples:,} examples, median of {result.repeats}",
    )
    for way in _WAYS:
        ratio = result.ratios.get(way.name)
        table.add_row(way.words, f"{result.seconds[way.name]:.2f}", "1" if ratio is None else f"{ratio:.2f}")
    console = Console(width=80, color_system=None, force_terminal=False)  # plain text, on a terminal too
    with console.capture() as capture:
        console.print(table)
    share = (
        f"Early exit decoded {result.decoded_share:.0%} of the suffix tokens; the fewer, the more it saves.\n"
    )
    whole = (
        f"The whole corpus would take {result.corpus_seconds:,.0f} seconds with this model, loading apart."
    )
    return capture.get() + share + whole


def _sample(
    config: AuditConfig, models: AuditedModels, split: Split, examples: int, progress: Progress
) -> tuple[Batch, int]:
    """The examples to time, and how many windows the audit would read."""
    sampled = config.corpus.model_copy(update={"limit": examples})
    chat = chat_of(config.corpus, config.extraction, models) if sampled.has_answers else None
    with tempfile.TemporaryDirectory() as scratch:
        found = build_examples(
            sampled,
            models.tokenizer,
            tokens=ExampleTokens.of(config.extraction),
            seed=config.seed,
            scratch=Path(scratch),
            chat=chat,
            progress=lambda read: progress("corpus: reading documents", read, 0),
        )
        (table,) = found.tables(examples)
    windows = found.counts.windows
    return examples_of(table, split), min(windows, config.corpus.limit or windows)


@contextmanager
def _folder() -> Iterator[Path]:
    """An empty folder, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="kdaudit-") as folder:
        yield Path(folder)


def _options(config: AuditConfig, model: AuditedModel, rows: Batch, way: _Way, waiting: int) -> EngineOptions:
    """A quarter of the memory for each way: of what is left, an equal share for all that still wait."""
    longest = int((rows.prompts.lengths + rows.targets.lengths).max())
    options = engine_options(config.extraction, way.engine, model, longest, len(rows.prompts))
    return options._replace(memory_share=1 / waiting)


def _generate(engine: RemoteEngine, rows: Batch) -> Ragged:
    return engine.generate(rows.prompts, rows.targets.lengths)


def _result(examples: int, seconds: dict[str, float], decoded: float, windows: int) -> BenchResult:
    own = seconds["early_exit"]
    return BenchResult(
        examples=examples,
        repeats=REPEATS,
        seconds=seconds,
        ratios={name: taken / own for name, taken in seconds.items() if name != "early_exit"},
        decoded_share=decoded,
        corpus_seconds=own / examples * windows,
    )
