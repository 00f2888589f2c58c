"""distill.json: what was trained, from what, and the outcome."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kdaudit.runs import layout


class TrainedModel(BaseModel):
    """One model of the family."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    """Inside the output folder."""
    method: str
    """teacher, baseline, soft or hard."""
    seed: int | None
    """Of its random choices; None for a teacher that was not trained here."""
    parameters: int
    windows: int
    tokens: int
    """Read over all epochs, padding left out."""
    steps: int
    losses: list[float]
    """Mean training loss of each epoch, in nats per target; for a soft student times T²."""
    seconds: float
    """Training alone; 0 for a teacher that was not trained here."""
    holdout_perplexity: float
    """exp of the mean negative log-likelihood over the holdout's tokens, by the model's tokenizer."""
    measured: str
    """SHA-256 of what the perplexity depends on: weights, holdout, BOS token, precision."""
    own_tokenizer: bool = False
    """Whether it has a tokenizer of its own, whose tokens perplexity and losses are over."""


class DistillRecord(BaseModel):
    """The contents of distill.json."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str = "1"
    name: str
    versions: dict[str, str]
    """Libraries and hardware."""
    corpus_windows: int
    corpus_tokens: int
    holdout_windows: int
    canary_windows: int = 0
    """Of the corpus windows: canaries, as often as each was mixed in."""
    models: list[TrainedModel]

    @property
    def audits(self) -> list[str]:
        """The audit.yaml of each seed, inside the output folder, by rising seed."""
        folders = {Path(model.folder).parent for model in self.models if model.folder.startswith("seed-")}
        seeds = sorted(int(folder.name.removeprefix("seed-")) for folder in folders)
        return [f"{layout.seed_folder(seed)}/{layout.AUDIT_FILE}" for seed in seeds]


def render(record: DistillRecord, out: Path) -> str:
    """The outcome as lines for a terminal."""
    canaries = f", {record.canary_windows:,} of them canaries" if record.canary_windows else ""
    lines = [
        f"{record.name}: {record.corpus_windows:,} windows{canaries}, {record.corpus_tokens:,} tokens",
        "",
    ]
    for model in record.models:
        # A soft student's loss is another quantity than that of the others.
        what = "KD loss" if model.method == "soft" else "loss"
        loss = f"{what} {model.losses[-1]:.3f}" if model.losses else "not trained here"
        lines.append(
            f"  {model.folder:24} perplexity of the holdout {model.holdout_perplexity:8.2f}   {loss}, "
            f"{model.steps:,} steps, {model.seconds:.0f} s"
            f"{' (over tokens of its own)' if model.own_tokenizer else ''}"
        )
    lines += ["", "audit them:", *(f"  kdaudit run {out / audit}" for audit in record.audits)]
    return "\n".join(lines)
