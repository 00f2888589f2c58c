"""What was measured, by the questions of EDPB Opinion 28/2024 on AI models and anonymity.

Opinion 28/2024 on certain data protection aspects related to the processing of personal data in the context
of AI models, adopted on 17 December 2024. Its paragraphs are named by number and told in our own words. The
figures are this audit's; nothing here is a legal conclusion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.asked import given_words
from kdaudit.reporting.formatting import count, listed, percent, percent_interval, plural, quoted, score
from kdaudit.reporting.missing_reasons import has_teacher
from kdaudit.reporting.personal_data_counts import Tagged
from kdaudit.schemas.attacks import AttackResults
from kdaudit.schemas.results import AuditResults, ModelResult

State = Literal["measured", "in part", "not tested", "not known"]


class Question(NamedTuple):
    """A question of the opinion and what this audit has to say to it."""

    paragraph: str
    asks: str
    state: State
    measured: list[str]
    """Sentences with this audit's figures; empty if there are none."""
    limit: str
    """What they do not show."""


def questions(results: AuditResults, tagged: Tagged) -> list[Question]:
    """The questions in the opinion's order.

    Args:
        results: of the audit; public ones hold all that is needed.
        tagged: leaks that seem to hold personal data.

    """
    return [
        _case_by_case(results, tagged),
        _extraction(results),
        _queries(results),
        _means(results),
        _context(results),
        _membership(results),
        _not_run("55 (i)", "Attribute inference: can traits of a person be inferred from the model?"),
        _not_run("55 (ii)", "Exfiltration of training data by other ways than continuing its text."),
        _regurgitation(results),
        _not_run("55 (iv)", "Model inversion."),
        _not_run("55 (v)", "Reconstruction attacks."),
        _reach(results),
        _documents(results),
    ]


def _students(results: AuditResults) -> Iterator[tuple[str, ModelResult]]:
    return ((name, model) for name, model in results.models.items() if model.role == "student")


def _case_by_case(results: AuditResults, tagged: Tagged) -> Question:
    corpus = results.corpus
    drawn = "a random sample of the corpus" if corpus.sampled else "all there are in the corpus"
    leaks = leak_counts_of(results).leaks
    measured = [f"{plural(corpus.examples, 'distinct example')} ({drawn}) of {corpus.path} were audited."]
    if leaks:
        measured.append(
            f"{plural(leaks, 'example')} reproduced by at least one student; {count(tagged.leaks)} of them, "
            f"by the form of the text, "
            f"{'seems' if tagged.leaks == 1 else 'seem'} to hold personal data or secrets."
        )
    else:
        measured.append("No student reproduces any of them.")
    return Question(
        "34",
        "Whether a model trained on personal data is anonymous has to be assessed case by case.",
        "in part",
        measured,
        "The audit is evidence for such an assessment and no substitute for it. It does not know which "
        "texts are "
        "personal data: absence of a tag is not evidence of absence. Other corpora, such as that of the "
        "pre-training, were not looked at.",
    )


def _extraction(results: AuditResults) -> Question:
    measured = [
        sentence for name, model in _students(results) for sentence in _extracted(results, name, model)
    ]
    sampled = any(found.sampled is not None for found in results.attacks.values())
    more = "" if sampled else "Sampling was not tried, so probabilistic extraction is not covered. "
    return Question(
        "43 (i)",
        "How likely is direct extraction, also probabilistic, of personal data from the model?",
        "measured" if sampled else "in part",
        measured,
        f"{more}Rates are shares of the examples audited, not the likelihood for any one person; the "
        f"opinion asks "
        "that it be insignificant for each. Translated or paraphrased text is not counted.",
    )


def _extracted(results: AuditResults, name: str, model: ModelResult) -> Iterator[str]:
    yield f"Student {quoted(name)} reproduces {_rate(model)} word for word under greedy decoding."
    found = results.attacks.get(name, AttackResults())
    if (near := found.near_verbatim) is not None:
        ends = percent_interval(near.ci95, near.ci95_by_document)
        limit = percent(near.max_edit_distance)
        yield f"But for at most {limit} of the tokens: {percent(near.rate)} (95% interval {ends})."
    if found.sampled is not None and found.sampled.curve:
        most = max(one.queries for one in found.sampled.curve)
        for point in found.sampled.curve:
            if point.queries == most:
                yield (
                    f"With {plural(most, 'sample')} each, {percent(point.rate)} come out with a "
                    f"probability of at "
                    f"least {percent(point.p)} (95% interval "
                    f"{percent_interval(point.ci95, point.ci95_by_document)})."
                )


def _rate(model: ModelResult) -> str:
    counts = f"{count(model.memorized)} of {count(model.examples)}"
    ends = percent_interval(model.ci95, model.ci95_by_document)
    return f"{percent(model.rate)} of the examples ({counts}; 95% interval {ends})"


def _queries(results: AuditResults) -> Question:
    given = given_words(results.extraction, results.corpus.answers)
    return Question(
        "43 (ii)",
        "How likely is it to obtain personal data from queries, intentionally or not?",
        "in part",
        [f"Of each training example a model was given {given}, word for word, and nothing else."],
        "Queries of ordinary users, other prompts, and prompts that do not hold the true beginning were "
        "not tried.",
    )


def _means(results: AuditResults) -> Question:
    extraction = results.extraction
    return Question(
        "43",
        "All means reasonably likely to be used, by the controller or by somebody else, have to be "
        "considered.",
        "in part",
        [
            "Assumed: somebody who can let the model continue a text, and who knows how the text begins "
            f"({extraction.engine}, {extraction.dtype}).",
            *(["They can also read the model's probabilities."] if _by_scores(results) else []),
        ],
        "Further training, other knowledge about a person, more attempts than are stated here and means "
        "of the "
        "future were not considered. Whether means are likely is not measured.",
    )


def _by_scores(results: AuditResults) -> bool:
    return any(one.sampled is not None or one.membership is not None for one in results.attacks.values())


def _context(results: AuditResults) -> Question:
    behind = [name for name, model in _students(results) if model.public_fingerprint == "endpoint"]
    where = (
        f"behind an endpoint: {listed([*map(quoted, behind)])}; the others from their weights"
        if behind
        else ""
    )
    return Question(
        "46",
        "The context of the release, such as a model for everybody or for employees alone, decides how much "
        "testing is needed.",
        "not known",
        [f"Students were audited {where or 'from their weights'}."],
        "The audit does not know who will get the model. Filters, limits of use and contracts around it "
        "are not "
        "part of what was measured; of released weights everybody can repeat all of this, and more.",
    )


def _membership(results: AuditResults) -> Question:
    asks = "Membership inference: can somebody tell whether a text was in the training data?"
    measured = []
    for name, _ in _students(results):
        found = results.attacks.get(name, AttackResults()).membership
        if found is not None:
            best = found.best
            sentence = (
                f"Student {quoted(name)}: the best score ({best.score}) has an AUC of {score(best.auc)} on "
                f"{count(found.members)} training examples and {count(found.nonmembers)} of the holdout "
                f"(0.5 is "
                "chance)."
            )
            if found.explained_by_text:
                sentence += " The texts alone explain it: it says nothing of membership."
            measured.append(sentence)
    if not measured:
        return _not_run("55 (i)", asks)
    limit = (
        "The result holds for these scores, and as far as the holdout is text of the same kind as the corpus."
    )
    return Question("55 (i)", asks, "measured", measured, limit)


def _regurgitation(results: AuditResults) -> Question:
    measured = [_whose(results, name, model) for name, model in _students(results)]
    floors = [
        f"Of text that no model was trained on, {quoted(name)} completes {percent(model.holdout.rate)} so."
        for name, model in _students(results)
        if model.holdout is not None
    ]
    return Question(
        "55 (iii)",
        "Regurgitation of training data.",
        "measured",
        [*measured, *floors],
        f"Reproduction of {plural(results.extraction.suffix_tokens, 'token')} at a time, from the text's own "
        "beginning. Shorter stretches that hold personal data are not counted.",
    )


def _whose(results: AuditResults, name: str, model: ModelResult) -> str:
    told = f"Student {quoted(name)}: {_rate(model)}"
    figures = results.comparison.get(name)
    if figures is None or figures.inherited is None:
        return f"{told}; how much of it comes from the teacher is not known."
    return (
        f"{told}; of the {count(figures.teacher_specific)} that the teacher memorizes and no baseline "
        f"does, it "
        f"reproduces {count(figures.inherited)}."
    )


def _reach(results: AuditResults) -> Question:
    attacks = ["exact greedy extraction"]
    found = results.attacks.values()
    kinds = (("near_verbatim", "near-verbatim extraction"), ("sampled", "sampled extraction"))
    for key, words in (*kinds, ("membership", "membership inference"), ("canaries", "canaries")):
        if any(getattr(one, key, None) is not None for one in found):
            attacks.append(words)
    return Question(
        "55",
        "Scope, frequency, quantity and quality of the tests count; passing is evidence for the attacks "
        "that were "
        "run and for no others.",
        "in part",
        [f"Attacks that were run: {listed(attacks)}; once, on {results.created[:10]}, seed {results.seed}."],
        "Attacks that were not run, or are not known yet, are not covered. Repeat the audit for each "
        "release.",
    )


def _documents(results: AuditResults) -> Question:
    teacher = "" if has_teacher(results) else " The teacher was not available."
    return Question(
        "58",
        "What was done, how and with what result has to be documented.",
        "in part",
        [
            "Method, versions, fingerprints of corpus and models, figures with intervals and notes are on "
            "this page; "
            "configuration, every measurement and a SHA-256 of each file are with the owner of this audit "
            "(kdaudit verify)." + teacher
        ],
        "Impact assessment, selection and preparation of the data, choices of training, and measures "
        "after the "
        "release are documented elsewhere, or not at all.",
    )


def _not_run(paragraph: str, asks: str) -> Question:
    return Question(
        paragraph,
        asks,
        "not tested",
        [],
        "Not tested: the audit says nothing for or against resistance to it.",
    )
