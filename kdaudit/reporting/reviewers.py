"""What was measured, by the questions of EDPB Opinion 28/2024 on AI models and anonymity.

Opinion 28/2024 on certain data protection aspects related to the processing of personal data in the context
of AI models, adopted on 17 December 2024. Its paragraphs are named by number and told in our own words. The
figures are this audit's; nothing here is a legal conclusion.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.asked import given_words
from kdaudit.reporting.formatting import count, listed, percent, plural, quoted
from kdaudit.reporting.missing_reasons import has_teacher
from kdaudit.reporting.personal_data_counts import Tagged
from kdaudit.reporting.reviewed_attacks import (
    attacks_run,
    exposed,
    extracted,
    names,
    planted,
    rate_words,
    reach,
    recognized,
    students,
)
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
        "The audit is evidence for such an assessment and does not replace it. It does not know which texts "
        "are personal data: absence of a tag is not evidence of absence. Other corpora, such as that of the "
        "pre-training, were not looked at.",
    )


def _extraction(results: AuditResults) -> Question:
    measured = [sentence for name, model in students(results) for sentence in extracted(results, name, model)]
    tried, untried = reach(results, "sampled")
    more = ""
    if untried:
        of = f" on {names(untried)}" if tried else ""
        more = f"Sampling was not tried{of}, so probabilistic extraction is not covered there. "
    return Question(
        "43 (i)",
        "How likely is direct extraction, also probabilistic, of personal data from the model?",
        "in part" if untried else "measured",
        measured,
        f"{more}Rates are shares of the examples audited, not the likelihood for any one person; the opinion "
        "asks that it be insignificant for each. Translated or paraphrased text is not counted.",
    )


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
    given = given_words(extraction, results.corpus.answers)
    read = reach(results, "membership").tried or reach(results, "canaries").tried
    return Question(
        "43",
        "All means reasonably likely to be used, by the controller or by somebody else, have to be "
        "considered, and unintended use or disclosure of the model.",
        "in part",
        [
            f"Assumed: somebody who can let the model continue a text, and who knows {given} "
            f"({extraction.engine}, {extraction.dtype}).",
            *(["Membership inference and exposure take the model's probabilities too."] if read else []),
        ],
        "Further training, other knowledge about a person, more attempts than are stated here and means of "
        "the future were not considered. Whether means are likely is not measured.",
    )


def _context(results: AuditResults) -> Question:
    behind = [name for name, model in students(results) if model.public_fingerprint == "endpoint"]
    here = [name for name, _ in students(results) if name not in behind]
    ways = (("from their weights", here), ("behind an endpoint", behind))
    where = [f"{way}: {names(some)}" for way, some in ways if some]
    return Question(
        "46",
        "The context of the release, such as a model for everybody or for employees alone, decides how much "
        "testing is needed.",
        "not known",
        [f"Students were audited {'; '.join(where)}."],
        "The audit does not know who will get the model. Filters, limits of use and contracts around it are "
        "not part of what was measured; of released weights everybody can repeat all of this, and more.",
    )


def _membership(results: AuditResults) -> Question:
    asks = "Membership inference: can somebody tell whether a text was in the training data?"
    measured, explained = [], False
    for name, _ in students(results):
        found = results.attacks.get(name, AttackResults())
        if found.membership is not None:
            measured.append(recognized(name, found.membership))
            explained = explained or found.membership.explained_by_text is True
        if found.canaries is not None:
            measured += exposed(name, found.canaries)
    if not measured:
        return _not_run("55 (i)", asks)
    untried = reach(results, "membership").untried
    limit = (
        "The result holds for these scores, and as far as the holdout is text of the same kind as the "
        "corpus. It is an average over texts: single ones can be recognized with more certainty."
    )
    if untried:
        limit = f"Scores of training text were not taken of {names(untried)}. {limit}"
    return Question("55 (i)", asks, "in part" if untried or explained else "measured", measured, limit)


def _regurgitation(results: AuditResults) -> Question:
    measured = [_whose(results, name, model) for name, model in students(results)]
    measured += [
        f"Of text that no model was trained on, {quoted(name)} continues {percent(model.holdout.rate)} word "
        "for word."
        for name, model in students(results)
        if model.holdout is not None
    ]
    for name, _ in students(results):
        found = results.attacks.get(name, AttackResults()).canaries
        measured += [] if found is None else planted(name, found)
    where = "its prompt" if results.corpus.answers else "the text's own beginning"
    return Question(
        "55 (iii)",
        "Regurgitation of training data.",
        "measured",
        measured,
        f"Reproduction of {plural(results.extraction.suffix_tokens, 'token')} at a time, from {where}. "
        "Shorter stretches that hold personal data are not counted.",
    )


def _whose(results: AuditResults, name: str, model: ModelResult) -> str:
    rates = f"Student {quoted(name)}: {rate_words(model)}"
    figures = results.comparison.get(name)
    if figures is None or figures.inherited is None:
        return f"{rates}; how much of it comes from the teacher is not known."
    return (
        f"{rates}; of the {count(figures.teacher_specific)} that the teacher memorizes and no baseline does, "
        f"it reproduces {count(figures.inherited)}."
    )


def _reach(results: AuditResults) -> Question:
    return Question(
        "55",
        "Scope, frequency, quantity and quality of the tests count; passing is evidence for the attacks that "
        "were run and for no others.",
        "in part",
        [
            f"Attacks that were run on students: {listed(attacks_run(results))}; once, on "
            f"{results.created[:10]}, seed {results.seed}."
        ],
        "Attacks that were not run, or are not known yet, are not covered. Repeat the audit for each "
        "release.",
    )


def _documents(results: AuditResults) -> Question:
    teacher = "" if has_teacher(results) else " The teacher was not available."
    return Question(
        "58",
        "The controller's documentation: measures against identification, and how well the main attacks "
        "succeed.",
        "in part",
        [
            "Method, versions, fingerprints of corpus and models, figures with intervals and notes are on "
            "this page; configuration, every measurement and a SHA-256 of each file are with the owner of "
            "this audit (kdaudit verify)." + teacher
        ],
        "Impact assessment, threat model, selection and preparation of the data, choices of training, and "
        "measures after the release are documented elsewhere, or not at all.",
    )


def _not_run(paragraph: str, asks: str) -> Question:
    return Question(
        paragraph,
        asks,
        "not tested",
        [],
        "Not tested: the audit says nothing for or against resistance to it.",
    )
