"""A predictor that an earlier audit or screening made, used on another corpus."""

from __future__ import annotations

from collections.abc import Iterator

from kdaudit.pipelines.stages.feature_sample import scored_examples
from kdaudit.pipelines.stages.features import read_features
from kdaudit.pipelines.stages.predicting import Prediction, facts_of, write_found, write_risk
from kdaudit.pipelines.stages.screened import ScreenWork
from kdaudit.reporting.screening_words import guarantee_elsewhere
from kdaudit.risk import Predictor, family_warnings, predictor_note
from kdaudit.runs import layout
from kdaudit.schemas.notes import Note
from kdaudit.schemas.predictor import Origin, PredictorResult
from kdaudit.schemas.results import Curves


def use_given(screening: ScreenWork, given: Predictor, origin: Origin) -> None:
    """Use a predictor that an earlier audit or screening made: it is not fitted, nor tried, on this corpus.

    Args:
        screening: what every step works with.
        given: the predictor.
        origin: the models and the corpus that it is used on.

    """
    work = screening.work
    risk = write_risk(work, given, read_features(work, given.features), scored_examples(work))
    work.run.write_text(layout.PREDICTOR, given.model_dump_json(indent=1) + "\n")
    result = PredictorResult(status="ok", positives=given.positives, **facts_of(given, risk))
    notes = list(_notes(screening, given, origin))
    write_found(work, Prediction(result=result, curves=Curves(), notes=notes))


def _notes(screening: ScreenWork, given: Predictor, origin: Origin) -> Iterator[Note]:
    """What a reader should know of a predictor that comes from elsewhere."""
    for warning in family_warnings(given, origin):
        yield predictor_note("predictor_from_elsewhere", warning)
    if screening.config.predictor.model_fields_set & {"recall", "confidence", "features"}:
        text = (
            "predictor.recall, predictor.confidence and predictor.features are not used: a given "
            "predictor.json keeps the threshold and the features that it was made with."
        )
        yield predictor_note("settings_unused", text)
    if given.promise is not None:
        yield predictor_note("recall_guarantee", guarantee_elsewhere(given.promise, given.origin))
    text = (
        "The risk predictor was not evaluated on this corpus: AUC, recall and precision are not known here."
    )
    yield predictor_note("predictor_untried", text)
    text = (
        "What other recalls would flag is not known: a given predictor.json holds one threshold, and not "
        "the risks that it comes from."
    )
    yield Note(code="tradeoff_undefined", subject="tradeoff", text=text)
