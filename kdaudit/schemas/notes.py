"""Notes of results.json and screen.json: what is not available and why, and what a reader should know.

Code asks for a note by its code and subject; its text is for people, and may hold names that users chose.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

NoteCode = Literal[
    # The audit: what was not measured, and how text was read.
    "no_holdout",
    "holdout_in_corpus",
    "no_teacher",
    "endpoint",
    "endpoint_tokenizer",
    "endpoint_text",
    "endpoint_stops",
    "no_base",
    "shards_missing",
    "chat_template",
    "template_date",
    "rows_left_out",
    "prompts_cut",
    "answers_recur",
    "tags_not_searched",
    "engine_not_checked",
    "engine_check_weak",
    "rounding_unknown",
    "bits_per_byte_unknown",
    "same_weights",
    "adapter",
    "quantized",
    "tokenizer_reading",
    "bos_tokens_differ",
    "tokenizers_differ",
    "compared_by_text",
    "text_normalized",
    "no_joint_boundary",
    "kl_undefined",
    # A student's comparison with teacher and baseline.
    "no_baseline",
    "no_examples",
    "several_baselines",
    "ratio_undefined",
    "easy_core_share_undefined",
    "inheritance_undefined",
    "chance_not_measured",
    "baselines_unlike",
    "own_rate_unknown",
    "floor_ratio_undefined",
    # Accepted leaks.
    "accepted_expired",
    "accepted_unmatched",
    "accepted_over_broad",
    # A comparison of two runs.
    "leaks_alone",
    "no_counterpart",
    "attack_not_compared",
    "other_sample",
    "same_weights_differ",
    "accepted_as_judged",
    # Other attacks than exact greedy extraction.
    "attack_not_run",
    "membership_not_measured",
    "membership_too_few",
    "membership_no_blind_baseline",
    "membership_text_differs",
    "canaries_left_out",
    "canaries_few_controls",
    "no_exposure",
    # Soft against hard KD.
    "soft_vs_hard_missing",
    "soft_vs_hard_partial",
    "soft_vs_hard_undefined",
    # The risk predictor.
    "no_predictor",
    "recall_guarantee",
    "weak_recall_guarantee",
    "guarantee_units",
    "constant_feature",
    "sampled_trials",
    "sampled_scores",
    "more_features",  # of earlier versions
    "calibration_undefined",
    "precision_undefined",
    "predictor_from_elsewhere",
    "predictor_untried",
    "settings_unused",
    "tradeoff_undefined",
    # A screening.
    "columns_replaced",
    "much_text_dropped",
    # Several runs of one corpus.
    "not_in_every_run",
    "trained_once",
    # Results of schema version 1, whose notes are text alone.
    "note",
]


class Note(BaseModel):
    """What is not available and why, or what else a reader should know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    code: NoteCode
    """What kind of note it is."""
    subject: str | None
    """The model, or the key of the results, that it is about; None if it is about none or several."""
    text: str
    """For people."""


def _of_version_1(notes: object) -> object:
    if not isinstance(notes, list):
        return notes
    return [
        {"code": "note", "subject": None, "text": each} if isinstance(each, str) else each for each in notes
    ]


Notes = Annotated[list[Note], BeforeValidator(_of_version_1)]
"""Notes as they are read: those of schema version 1, plain text, get the code `note` and no subject."""


def _as_version_2(version: object) -> object:
    return "2" if version == "1" else version


SchemaVersion = Annotated[Literal["2"], BeforeValidator(_as_version_2)]
"""Of results.json and screen.json. Version 1 is read too, and is as version 2 once it is read."""


def text_of(notes: Iterable[Note], *codes: NoteCode, subject: str | None = None) -> str | None:
    """The text of the first note with one of these codes; None if there is none.

    Args:
        notes: of the results.
        codes: what kinds of note are meant.
        subject: what the note must be about; None for anything.

    """
    return next((note.text for note in notes if note.code in codes and subject in (None, note.subject)), None)
