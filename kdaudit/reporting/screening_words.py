"""A screening in sentences: what was found, what is guaranteed, and what is not."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.formatting import be, capitalized, count, percent, plural, quoted
from kdaudit.risk import guarantee_words
from kdaudit.schemas.predictor import Origin, RecallGuarantee
from kdaudit.schemas.screening import ScreenRecord

WHOSE = {
    "easy_core": "teacher and baseline memorize",
    "teacher": "the teacher memorizes",
    "student": "a student memorizes",
}
"""What the labels stand for, as in `examples that ...`."""

FEATURE_NAMES = {
    "zlib_entropy": "zlib entropy, in bits per byte: low if text repeats itself",
    "teacher_perplexity": "Perplexity under the teacher",
    "baseline_perplexity": "Perplexity under the baseline",
    "kl_divergence": "KL divergence of the baseline from the teacher, in nats per token",
    "teacher_entropy": "The teacher's entropy, in nats per token",
    "copies": "Occurrences in the corpus",
    "suffix_copies": "Occurrences of its suffix in the corpus, at any offset",
    "tokens": "Tokens",
    "suffix_kl_divergence": "KL divergence of the baseline from the teacher over the suffix, in nats a token",
    "teacher_suffix_nll": "The teacher's loss on the suffix, in nats a token",
    "baseline_suffix_nll": "The baseline's loss on the suffix, in nats a token",
    "teacher_suffix_entropy": "The teacher's entropy over the suffix, in nats a token",
    "baseline_suffix_entropy": "The baseline's entropy over the suffix, in nats a token",
    "teacher_suffix_min_k": "Mean ln p of the suffix's least likely 20% of tokens under the teacher (Min-K%)",
    "baseline_suffix_min_k": "The same under the baseline",
    "teacher_suffix_margin": "The teacher's smallest lead of the suffix's token over any other, in logits",
    "baseline_suffix_margin": "The baseline's",
}


_ONE_WAY_IN = (
    "Memorized means that a model, given the true first tokens, generates exactly the following ones. "
    "Paraphrase, sampling and other prompts are not covered: the kept corpus may hold personal data that a "
    "model trained on it discloses."
)
_GUARANTEED_HERE = (
    "The guarantee is about further text like what was scored here: examples of the named kind among that "
    "were observed on the models, and are flagged whatever their risk."
)
_GUARANTEED_KIND = (
    "It is about the named kind alone. Another student, another method of distillation or another training "
    "run may memorize others."
)
_SCORED_ALONE = (
    "Windows outside the sample (corpus.limit) were not scored: none of them is flagged for its risk, and "
    "the guarantee does not cover them."
)
_COPIES = (
    "All windows with the prefix and suffix of a flagged example are dropped, and its suffix wherever it "
    "stands word for word. With a word changed it is other text: it is scored separately and may stay."
)
_SAME_ANSWERS = (
    "All answers with the prompt and suffix of a flagged example are dropped. The same answer behind another "
    "prompt is another example: it is scored separately and may stay."
)
_TEACHER = (
    "A teacher that was trained on the dropped text still knows it, and can generate it in the text that a "
    "student learns from (hard distillation)."
)
_FITTED_ELSEWHERE = (
    "Here it holds only as far as corpus and models are of the same kind: the notes name the differences."
)


class Headline(NamedTuple):
    """The top of the report."""

    sentence: str
    reason: str


def withheld(record: ScreenRecord) -> Headline | None:
    """Why nothing was written, and what to do about it; None where kept/ was written."""
    kept = record.kept
    if not kept.withheld:
        return None
    flagged = record.flagged.examples / record.corpus.examples
    kind = "sampled examples" if record.corpus.sampled else "examples"
    counts = f"{count(record.flagged.examples)} of {count(record.corpus.examples)}"
    found = f"{percent(flagged)} of the {kind} would be flagged ({counts})"
    too_many = flagged > record.max_flagged
    if not too_many:
        dropped = percent(kept.documents_dropped / kept.documents_read)
        counts = f"{count(kept.documents_dropped)} of {count(kept.documents_read)}"
        found = f"{dropped} of the documents would be left out ({counts})"
    memorized, threshold = record.flagged.memorized, record.predictor.threshold
    why, remedies = "", ["set drop to window"] if record.drop == "document" and not too_many else []
    if memorized / record.corpus.examples > record.max_flagged:
        why = f"Observed, whatever predictor.recall is: {count(memorized)} that {whose(record)}. "
    elif threshold is not None and record.flagged.predicted:
        why = f"To keep its recall guarantee, the predictor flags every risk of {threshold:.2g} or more. "
        more = "screen more text: more memorized examples allow a higher threshold"
        remedies = ["lower predictor.recall", *remedies, more]
    raised = "raise max_flagged, if dropping so much is acceptable"
    advice = ", ".join([*remedies, f"or {raised}"]) if remedies else raised
    return Headline(
        f"Nothing was written to kept/: {found}, more than max_flagged ({percent(record.max_flagged)}) "
        "allows.",
        f"{why}{capitalized(advice)}; then run the same command again: the scores are kept.",
    )


def headline(record: ScreenRecord) -> Headline:
    """What is flagged, what is removed with it, and what is left."""
    refused = withheld(record)
    if refused is not None:
        return refused
    if not record.flagged.examples:
        kept = "the corpus is kept whole" if not record.kept.undecodable else "all valid text is kept"
        return Headline(f"None of {_all_examples(record)} is flagged: {kept}.", _left(record))
    flagged = record.flagged.examples
    share = percent(flagged / record.corpus.examples)
    found = f"{count(flagged)} of {_all_examples(record)} {be(flagged)} flagged ({share})"
    return Headline(f"{found}; {_removed(record)}.", f"{_made_up(record)} {_left(record)}")


def _all_examples(record: ScreenRecord) -> str:
    sampled = "sampled " if record.corpus.sampled else ""
    return f"{'' if record.flagged.examples else 'the '}{count(record.corpus.examples)} {sampled}examples"


def _removed(record: ScreenRecord) -> str:
    kept, them = record.kept, "it" if record.flagged.examples == 1 else "them"
    if record.drop == "document":
        dropped = f"{count(kept.documents_dropped)} of {plural(kept.documents_read, 'document')}"
        return f"dropping {them} removes {dropped} and {percent(removed_share(record))} of the text"
    whole = f", {count(kept.documents_dropped)} of which lose all" if kept.documents_dropped else ""
    return (
        f"cutting {them} out removes {percent(removed_share(record))} of the text, from "
        f"{plural(kept.documents_flagged, 'document')}{whole}"
    )


def whose(record: ScreenRecord) -> str:
    """What the labels that were measured on the models mean: "examples that ..."."""
    # With a predictor that was fitted on a student elsewhere, there is no student to measure.
    borrowed = record.labels == "student" and "student" not in {one.role for one in record.models.values()}
    if record.labels == "student" and not borrowed and record.predictor.student is not None:
        return f"student {quoted(record.predictor.student)} memorizes"
    return WHOSE.get("easy_core" if borrowed else record.labels, "the models memorize")


def removed_share(record: ScreenRecord) -> float:
    """The share of the corpus's text that kept/ lacks, 0 to 1, by characters."""
    before = record.kept.characters_before
    return 1 - record.kept.characters_after / before if before else 0.0


def _made_up(record: ScreenRecord) -> str:
    memorized, predicted = record.flagged.memorized, record.flagged.predicted
    kind = whose(record)
    if not predicted:
        return f"All flagged examples are ones that {kind}."
    if not memorized:
        return f"All are flagged for their risk alone; none of them is one that {kind}."
    more = f"{count(predicted)} more {be(predicted)} flagged for their risk"
    return f"{plural(memorized, 'is one', 'are ones')} that {kind}; {more}."


def _left(record: ScreenRecord) -> str:
    kept = record.kept
    return (
        f"The kept corpus has {plural(kept.rows_written, 'row')} from {count(kept.documents_kept)} of "
        f"{plural(kept.documents_read, 'document')}, with {percent(1 - removed_share(record))} of the text."
    )


def guarantee(record: ScreenRecord) -> str:
    """The recall guarantee in plain words, or why there is none."""
    predictor = record.predictor
    if predictor.promise is not None and record.origin is not None:
        if _fitted_elsewhere(record, record.origin):
            return f"{guarantee_elsewhere(predictor.promise, record.origin)} {_FITTED_ELSEWHERE}"
        words = guarantee_words(predictor.promise, record.origin.labels, record.origin.student)
        return f"{words} {_SCORED_ALONE}" if record.corpus.sampled else words
    if predictor.status == "ok":
        return "There is no recall guarantee: too few examples are memorized to base one on."
    found = "" if predictor.positives is None else f" ({count(predictor.positives)} found)"
    return (
        f"There is no recall guarantee, and no risk: too few examples are memorized{found} to fit a "
        f"predictor on. Only examples that {whose(record)} are flagged."
    )


def guarantee_elsewhere(guarantee: RecallGuarantee, origin: Origin) -> str:
    """The recall guarantee of a given predictor, which was made for its own corpus and models."""
    lead = "On the corpus and models that the predictor was fitted on"
    return guarantee_words(guarantee, origin.labels, origin.student, lead=lead)


def is_fitted_elsewhere(record: ScreenRecord) -> bool:
    """Whether there is a predictor, of another corpus or other models than were screened here."""
    return record.origin is not None and _fitted_elsewhere(record, record.origin)


def _fitted_elsewhere(record: ScreenRecord, origin: Origin) -> bool:
    """Whether the predictor was fitted on another corpus, or with other models, than were screened here."""
    teacher, *baselines = (one.fingerprint for one in record.models.values() if one.role != "student")
    here = (teacher, tuple(baselines), record.corpus.fingerprint)
    return here != (origin.teacher, origin.baselines, origin.corpus)


def _guaranteed(record: ScreenRecord) -> list[str]:
    """What the guarantee is about, where there is one."""
    if record.predictor.promise is None:
        return []
    return [_GUARANTEED_KIND if is_fitted_elsewhere(record) else f"{_GUARANTEED_HERE} {_GUARANTEED_KIND}"]


def not_covered(record: ScreenRecord) -> list[str]:
    """What the guarantee and the screening do not cover, most important first."""
    kept, copies = record.kept, _COPIES if record.corpus.answers is None else _SAME_ANSWERS
    found = [_ONE_WAY_IN, *_guaranteed(record), copies, _TEACHER]
    if kept.windows_unscored:
        found.append(
            f"{plural(kept.windows_unscored, 'window')} outside the sample (corpus.limit) were not scored, "
            "and stay in the corpus. Without a limit all are scored."
        )
    if kept.too_short:
        many = plural(kept.too_short, "document or tail", "documents and tails")
        if record.corpus.answers is not None:
            many = plural(kept.too_short, "answer")
        found.append(f"{many} too short to be scored stay in the corpus.")
    if kept.rows_unread:
        rows = plural(kept.rows_unread, "row that gives", "rows that give")
        found.append(f"{rows} no example, for the reasons in the notes, stay in the corpus.")
    return found
