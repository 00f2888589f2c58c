"""What every stage is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from kdaudit.attacks import Attack
from kdaudit.config.extraction import ExtractionBase
from kdaudit.config.predictor import PredictorBase
from kdaudit.corpus import ChatFormat
from kdaudit.errors import ModelError
from kdaudit.inference import Sampling, Split
from kdaudit.inference.executors import Executor, HostedModel, LocalExecutor
from kdaudit.inference.merged import MergedModels
from kdaudit.inference.scoring import ModelFiles
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.models.resolving import check_model_unchanged
from kdaudit.pipelines.stages.fit import split_of_model
from kdaudit.runs import Progress, layout
from kdaudit.runs.store import RunStore
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Note

HOLDOUT_EXAMPLES, GENERATED_EXAMPLES, CANARY_EXAMPLES = (
    layout.beside_corpus(text, layout.EXAMPLES) for text in layout.SIDE_TEXTS
)
"""Folders of the examples of the texts beside the corpus."""


class Scoring(NamedTuple):
    """The scoring pass, which attacks beside greedy decoding follow from."""

    sampling: Sampling | None
    """How tokens would be drawn, where that is asked."""
    holdout: bool
    """Whether a sample of the holdout is read too."""


class Work(NamedTuple):
    """The run, its models, and how they are measured."""

    run: RunStore
    models: AuditedModels
    split: Split
    """Where examples are cut, with the BOS token of the first model; `split_of` has each model's."""
    extraction: ExtractionBase
    predictor: PredictorBase
    attacks: Sequence[Attack]
    """What is run on every model, the first of them exact greedy extraction."""
    seed: int
    notes: list[Note]
    """What readers of the results should know of texts and tokenizers."""
    progress: Progress
    warn: Callable[[str], None]
    merged: MergedModels
    """Adapters as whole models."""
    chats: Mapping[str, ChatFormat] = MappingProxyType({})
    """How the prompts and answers of each text become token ids, by its key; none of plain text."""
    executor: Executor = LocalExecutor()
    """Where models are extracted and scored."""
    scoring: Scoring | None = None
    """None where nothing that is asked for follows from it."""
    sample: int | None = None
    """Examples that are scored besides those that a model memorizes; None: all."""

    @property
    def vocabulary(self) -> int:
        """Columns of all models' logits that stand for tokens."""
        return self.models.vocabulary

    def split_of(self, audited: AuditedModel) -> Split:
        """Where examples are cut for a model, with its own BOS token."""
        return split_of_model(self.extraction, audited, answers=bool(self.chats))

    def total_examples(self, examples: str = layout.EXAMPLES) -> int:
        """How many examples a text has, by their folder."""
        return self.run.read_json(layout.summary(examples), CorpusResult).examples

    def check_unchanged(self, audited: AuditedModel, written: Callable[[], Iterable[str]]) -> None:
        """Check at the end of a stage that a model is what was fingerprinted; else discard what was written.

        Raises:
            ModelError: it is not.

        """
        try:
            check_model_unchanged(audited.model, audited.key)
        except ModelError:
            self.run.discard(*written())
            raise

    def fingerprints(self, *names: str | None) -> dict[str, list[str]]:
        """Of these models: weights and how they read text, by name."""
        return {
            one.name: [one.model.fingerprint, one.model.tokenizer_fingerprint]
            for one in self.models.all
            if one.name in names
        }

    def stamps(self, *audited_models: AuditedModel) -> dict[str, Any]:
        """What tells that models' files were not written to since an unfinished stage was begun with them."""
        return {
            str(file): stamp
            for audited in audited_models
            for file, stamp in sorted(audited.model.stamps.items())
        }

    def files(self, audited: AuditedModel) -> ModelFiles:
        """Where a model lies and how it is loaded for forward passes."""
        dtype = audited.config.dtype or self.extraction.dtype
        folder = self.merged.folder(audited.name, audited.model, dtype)
        return ModelFiles(folder, dtype, audited.config.trust_remote_code)

    def hosted(self, audited: AuditedModel, folder: Path | None = None) -> HostedModel:
        """The model as machines must have it that hold it.

        Args:
            audited: the model.
            folder: where what is loaded lies; None: where `files` says.

        """
        model, trusted = audited.model, audited.config.trust_remote_code
        loaded = folder or self.files(audited).folder
        if loaded != model.folder:  # merged or unpacked here
            return HostedModel(loaded, trust_remote_code=trusted)
        hub = None if model.commit is None else (model.name, model.commit)
        return HostedModel(loaded, model.fingerprint, hub, trusted)
