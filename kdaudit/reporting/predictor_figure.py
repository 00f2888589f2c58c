"""The key figure of the risk predictor: how many of the leaks it would have caught.

The predictor is fitted on one kind of example and catches that kind best; of another student's leaks it may
catch almost none. So the figure leads with the student whose leaks are caught least, and shows the recall
guarantee separately.
"""

from __future__ import annotations

from kdaudit.reporting.formatting import count, percent, plural, quoted, score
from kdaudit.reporting.key_figure import KeyFigure, Reading, examples_in, worst_of
from kdaudit.reporting.missing_reasons import why_no_predictor
from kdaudit.reporting.predictor_recall import Caught, caught, guarantee_of, kind_predicted
from kdaudit.schemas.predictor import Trials
from kdaudit.schemas.results import AuditResults


def predictor_figure(results: AuditResults) -> KeyFigure:
    """What the risk predictor would have caught, of the student whose leaks it catches least."""
    title, found = "Caught by the risk predictor", results.predictor
    if found.status != "ok":
        return KeyFigure(title, None, (), why_no_predictor(results))
    kinds = caught(results)
    if kinds:
        every, _, *students = kinds
        leaky = [one for one in students if one.leaks]
        lead = min(leaky, key=lambda one: (one.share or 0.0, -one.leaks), default=every)
        rest = [one for one in (every, *leaky) if one is not lead]
        others = [_caught_by(one) for one in rest] if len(students) > 1 else []
        equals = sum(one.share == lead.share for one in leaky)
        which = worst_of(len(leaky), equals, "students that leak")
        return KeyFigure(title, _caught_reading(results, lead, which), others, None)
    if found.auc is None:
        return KeyFigure(title, None, (), why_no_predictor(results))
    return KeyFigure("How the risk predictor ranks examples", _auc_reading(results, found.auc), (), None)


def _caught_reading(results: AuditResults, lead: Caught, which: str) -> Reading:
    found, examples = results.predictor, results.corpus.examples
    flagged = found.flagged or 0  # known where `caught` is
    name = "the students" if lead.student is None else quoted(lead.student)
    verb = "memorize" if lead.student is None else "memorizes"
    counts = f"{count(lead.flagged)} of {plural(lead.leaks, 'leaked example')}; "
    about = "" if found.sample is None else "about "
    counts += f"{about}{count(flagged)} of {examples_in(results, examples)} flagged in all"
    whole = "sampled" if results.corpus.sampled else "all"
    sentence = (
        f"The predictor flags {about}{percent(flagged / examples)} of {whole} examples, and with them "
        f"{count(lead.flagged)} of the {count(lead.leaks)} that {name} {verb}. It was fitted on "
        f"{kind_predicted(results)}."
    )
    return Reading(
        f"of what {name} {verb}{which}", percent(lead.share), _guarantee(results, lead), counts, sentence
    )


def _guarantee(results: AuditResults, lead: Caught) -> str:
    """The recall guarantee, which may be about other examples than the value above it."""
    found = results.predictor
    words = f"Guarantee: {guarantee_of(results).clause}"
    alone = lead.student if len(results.comparison) == 1 else None  # older runs do not name the student
    covered = lead.student is not None and lead.student == (found.student or alone)
    if found.promise is None or (found.labels == "student" and covered):
        return words
    return f"{words}; none for {'all students together' if lead.student is None else quoted(lead.student)}"


def _caught_by(one: Caught) -> Reading:
    of = f"{one.of[0].lower()}{one.of[1:]}"
    return Reading(
        of, percent(one.share), f"{count(one.flagged)} of {plural(one.leaks, 'leaked example')}", "", ""
    )


def _auc_reading(results: AuditResults, auc: Trials) -> Reading:
    found, kind = results.predictor, kind_predicted(results)
    of = f"AUC for {kind}, mean of {plural(found.trials or 0, 'trial')}"
    counts = f"{count(found.positives)} of {examples_in(results, results.corpus.examples)} are {kind}"
    about = "" if found.sample is None else "about "
    counts += "" if found.flagged is None else f"; {about}{count(found.flagged)} flagged as risky"
    sentence = (
        f"Shown one example of {kind} and one that is not, the predictor rates the first as riskier "
        f"{percent(auc.mean)} of the time."
    )
    return Reading(of, score(auc.mean), _trial_range(auc), counts, sentence)


def _trial_range(trials: Trials) -> str:
    return f"95% of trials: {score(trials.low)} to {score(trials.high)}"
