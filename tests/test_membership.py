"""Membership inference: scores by their papers' formulas, AUC and intervals by pairs and simulation."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from oracles import membership as slow
from report_page import Page
from sample_results import sample_dict
from scipy.stats import norm, t

from kdaudit.analysis.blind import blind_scores
from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.membership import Judged, membership_notes, membership_result, plain_samples
from kdaudit.analysis.roc import Scored, Separation, auc_difference, auc_interval, tpr_at
from kdaudit.attacks.membership import (
    SuffixTokens,
    TextSizes,
    compressed_bytes,
    ez_score,
    own_scores,
    reference_score,
)
from kdaudit.reporting.formatting import percent, percent_interval
from kdaudit.reporting.membership import _against as reporting_against
from kdaudit.reporting.membership import membership_figure, membership_table, score_words
from kdaudit.reporting.personal_data_counts import count_tags
from kdaudit.reporting.render import render
from kdaudit.reporting.view import page
from kdaudit.schemas.results import AuditResults

# Scores


class Example:
    """A prefix and a suffix under two models, at random: some distributions hold one token alone."""

    def __init__(self, dice: random.Random) -> None:
        self.text = "".join(dice.choice("ab \N{SNOWMAN}") for _ in range(dice.randrange(1, 90)))
        self.prefix, self.other_prefix = self._texts(dice, dice.choice((0, 1, 5)))
        self.suffix, self.other_suffix = self._texts(dice, dice.choice((1, 4, 5, 9, 10, 23)))

    @staticmethod
    def _texts(dice: random.Random, tokens: int) -> tuple[slow.Text, slow.Text]:
        texts: tuple[slow.Text, slow.Text] = ([], [])
        for _ in range(tokens):
            token = dice.randrange(6)
            for text in texts:
                weights = [dice.random() ** 3 + 1e-9 for _ in range(6)]
                if dice.random() < 0.2:
                    weights = [float(place == token) for place in range(6)]
                total = math.fsum(weights)
                text.append(slow.Token([weight / total for weight in weights], token))
        return texts


def examples(seed: int, count: int = 200) -> list[Example]:
    dice = random.Random(seed)
    return [Example(dice) for _ in range(count)]


def reading(prefixes: list[slow.Text], suffixes: list[slow.Text]) -> SuffixTokens:
    longest = max(map(len, suffixes))

    def padded(name: str) -> NDArray[np.float64]:
        return np.array(
            [[getattr(one, name) for one in text] + [np.nan] * (longest - len(text)) for text in suffixes]
        )

    hit = [[max(one.probabilities) == one.probabilities[one.token] for one in text] for text in suffixes]
    return SuffixTokens(
        padded("ln_p"),
        padded("mean"),
        padded("variance"),
        np.array([row + [False] * (longest - len(row)) for row in hit]),
        np.array([math.fsum(one.ln_p for one in text) for text in prefixes]),
    )


def read(rows: list[Example]) -> tuple[SuffixTokens, SuffixTokens, TextSizes]:
    tokens = np.array([len(one.prefix) + len(one.suffix) for one in rows])
    sizes = TextSizes(tokens, np.array([compressed_bytes(one.text) for one in rows]))
    own = reading([one.prefix for one in rows], [one.suffix for one in rows])
    return own, reading([one.other_prefix for one in rows], [one.other_suffix for one in rows]), sizes


def test_scores_are_those_of_their_papers() -> None:
    rows = examples(0)
    own, other, sizes = read(rows)
    found = {**own_scores(own, sizes), "reference": reference_score(own, other, sizes)}
    expected = {
        "loss": [slow.loss(one.prefix, one.suffix) for one in rows],
        "zlib": [slow.zlib_score(one.prefix, one.suffix, one.text) for one in rows],
        "min_k": [slow.min_k(one.suffix) for one in rows],
        "min_k_plus_plus": [slow.min_k_plus_plus(one.suffix) for one in rows],
        "reference": [
            slow.reference(one.prefix, one.suffix, one.other_prefix, one.other_suffix) for one in rows
        ],
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-9, atol=1e-9, err_msg=name)


def test_ez_is_the_papers_ratio_as_a_share() -> None:
    rows = examples(1)
    own, other, _ = read(rows)
    ratios = [slow.ez_ratio(one.suffix, one.other_suffix) for one in rows]
    assert math.inf in ratios
    expected = [1.0 if ratio == math.inf else ratio / (1 + ratio) for ratio in ratios]
    np.testing.assert_allclose(ez_score(own, other), expected, rtol=1e-9)
    np.testing.assert_allclose(ez_score(own, own)[~own.hit.any(1)], 0.5)


# AUC


def scored(members: NDArray[np.float64], nonmembers: NDArray[np.float64], windows: int = 1) -> Scored:
    """Documents of so many windows each."""
    of_members, of_nonmembers = (np.arange(len(one)) // windows for one in (members, nonmembers))
    return Scored(members, nonmembers, Documents(of_members), Documents(of_nonmembers))


def test_auc_and_its_parts_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    for m, n in ((1, 1), (7, 4), (40, 30)):
        members, nonmembers = rng.integers(0, 9, m) + 1.0, rng.integers(0, 9, n) * 1.0
        found = Separation.of(scored(members, nonmembers))
        assert found.auc == pytest.approx(slow.auc(members, nonmembers))
        assert found.of_members == pytest.approx([slow.auc([one], nonmembers) for one in members])
        assert found.of_nonmembers == pytest.approx([slow.auc(members, [one]) for one in nonmembers])


def variance_of(interval: tuple[float | None, float | None], freedom: float) -> float:
    low, high = interval
    assert low is not None
    assert high is not None
    return float(((high - low) / 2 / t.isf(0.025, freedom)) ** 2)


def test_intervals_are_delongs_where_each_document_is_one_example() -> None:
    rng = np.random.default_rng(1)
    shared_m, shared_n = rng.normal(size=60), rng.normal(size=45)
    first, second = (
        scored(rng.integers(0, 5, 60) + shared_m + 1, rng.integers(0, 5, 45) + shared_n) for _ in range(2)
    )
    one, two = ((each.members.tolist(), each.nonmembers.tolist()) for each in (first, second))
    own = slow.delong_covariance(one, one)
    auc = slow.auc(*one)
    low, high = auc_interval(first, Separation.of(first))
    odds = [math.log(end / (1 - end)) for end in (low, high)]
    freedom = 70  # between 44 and 103; Student's quantile hardly moves there
    assert variance_of((odds[0], odds[1]), freedom) == pytest.approx(own / (auc * (1 - auc)) ** 2, rel=0.02)
    paired = own + slow.delong_covariance(two, two) - 2 * slow.delong_covariance(one, two)
    found = auc_difference(first, Separation.of(first), Separation.of(second))
    assert variance_of(found, freedom) == pytest.approx(paired, rel=0.02)
    assert sum(found) / 2 == pytest.approx(auc - slow.auc(*two))


def test_intervals_by_document_are_as_wide_as_documents_drawn_again_vary() -> None:
    rng = np.random.default_rng(2)
    windows, documents = 6, 60
    members, nonmembers = (
        np.repeat(rng.normal(shift, 1, documents), windows) + rng.normal(size=documents * windows)
        for shift in (0.6, 0.0)
    )
    values = scored(members, nonmembers, windows)
    drawn = [
        Separation.of(
            scored(
                *(
                    one.reshape(documents, windows)[rng.integers(0, documents, documents)].ravel()
                    for one in pair
                )
            )
        ).auc
        for _ in range(1500)
        for pair in [(members, nonmembers)]
    ]
    found = Separation.of(values)
    low, high = auc_interval(values, found)
    width = np.diff(np.percentile(drawn, [2.5, 97.5]))[0]
    assert high - low == pytest.approx(width, rel=0.1)
    narrow = auc_interval(scored(members, nonmembers), found)
    assert narrow[1] - narrow[0] < 0.7 * width


def test_a_perfect_score_has_an_interval_of_its_pairs() -> None:
    values = scored(np.arange(20) + 100.0, np.arange(15) * 1.0)
    low, high = auc_interval(values, Separation.of(values))
    assert (low, high) == (pytest.approx(0.025 ** (1 / 15)), 1.0)
    found = Separation.of(values)
    assert auc_difference(values, found, found) == pytest.approx((low - 1, 1 - low))
    nearly = values._replace(members=np.append(values.members[1:], 13.5))
    assert auc_interval(nearly, Separation.of(nearly))[0] <= low
    one = Scored(
        values.members, values.nonmembers, Documents(np.zeros(20, np.int64)), Documents(np.arange(15))
    )
    assert auc_interval(one, Separation.of(one)) == (None, None)
    assert tpr_at(one, 0.01)[1:] == (0.0, 1.0)


@pytest.mark.parametrize(("windows", "likeness"), [(1, 0.0), (5, 0.6)])
def test_scores_that_know_no_membership_have_chance_in_their_interval(windows: int, likeness: float) -> None:
    """An untrained model: 0.5 lies in the 95% interval in about 95 of 100 simulations, and so paired."""
    rng = np.random.default_rng(3)
    inside = paired = 0
    for _ in range(400):
        values = [
            [
                math.sqrt(likeness) * np.repeat(rng.normal(size=150 // windows), windows)
                + math.sqrt(1 - likeness) * rng.normal(size=150)
                for _ in range(2)
            ]
            for _ in range(2)
        ]
        first, second = (scored(*pair, windows=windows) for pair in values)
        one, two = Separation.of(first), Separation.of(second)
        low, high = auc_interval(first, one)
        inside += low <= 0.5 <= high
        low, high = auc_difference(first, one, two)
        paired += low <= 0 <= high
    for hits in (inside, paired):
        assert 0.925 <= hits / 400 <= 0.975


@pytest.mark.parametrize("like", [0.1, 0.5])
def test_the_auc_holds_chance_where_one_document_is_a_giant(like: float) -> None:
    rng = np.random.default_rng(13)
    codes, inside = np.repeat(np.arange(31), [300, *[4] * 30]), 0
    for _ in range(150):
        members, nonmembers = (
            math.sqrt(like) * rng.normal(size=31)[codes] + math.sqrt(1 - like) * rng.normal(size=len(codes))
            for _ in range(2)
        )
        values = Scored(members, nonmembers, Documents(codes), Documents(codes))
        low, high = auc_interval(values, Separation.of(values))
        inside += low <= 0.5 <= high
    assert inside / 150 >= 0.93


def test_degrees_of_freedom_count_documents_as_so_many_of_one_size() -> None:
    """A giant and four small ones are hardly more than two, and what varies among them is little known."""
    codes = np.repeat(np.arange(5), [8, 1, 1, 1, 1])
    values = Scored(np.zeros(12), np.zeros(12), Documents(codes), Documents(codes))
    parts = np.random.default_rng(6).normal(0, 0.01, 12)
    one, two = (Separation(0.5, of_members, np.zeros(12)) for of_members in (parts, np.zeros(12)))
    reaches = [auc_difference(values, one, two, confidence)[1] for confidence in (0.95, 0.5)]
    freedom = 12**2 / (8**2 + 4) - 1
    assert reaches[0] / reaches[1] == pytest.approx(t.isf(0.025, freedom) / t.isf(0.25, freedom))


def test_a_score_that_is_one_number_for_all_is_not_known_to_be_at_chance() -> None:
    values = scored(np.zeros(30), np.zeros(20))
    unseen = 1 - 0.025 ** (1 / 20)
    assert auc_interval(values, Separation.of(values)) == (
        pytest.approx(0.5 - unseen),
        pytest.approx(0.5 + unseen),
    )


# Few false positives


def test_the_threshold_lets_as_many_non_members_pass_as_are_allowed() -> None:
    nonmembers = np.arange(200.0)
    members = np.concatenate([np.full(30, 197.0), np.full(10, 197.5), np.full(60, 0.0)])
    rate, low, high = tpr_at(scored(members, nonmembers), 0.01)
    assert rate == 0.1  # above 197, which two of 200 exceed
    assert low < rate < high
    assert tpr_at(scored(members, np.zeros(200)), 0.01)[0] == 0.4  # all tie, and none may pass


def test_windows_that_repeat_their_document_make_the_threshold_no_better_known() -> None:
    rng = np.random.default_rng(7)
    once = scored(rng.normal(1, 1, 200), rng.normal(size=400))
    often = once._replace(
        nonmembers=np.repeat(once.nonmembers, 5), nonmember_documents=Documents(np.repeat(np.arange(400), 5))
    )
    assert tpr_at(often, 0.01) == tpr_at(once, 0.01)


@pytest.mark.parametrize(
    ("m", "n", "fpr"), [(100, 100, 0.01), (300, 3000, 0.01), (3000, 300, 0.01), (2000, 5000, 0.001)]
)
def test_intervals_of_true_positives_cover_those_at_the_true_threshold(m: int, n: int, fpr: float) -> None:
    rng = np.random.default_rng(4)
    true = norm.sf(norm.isf(fpr) - 1.5)
    inside = 0
    for _ in range(200):
        rate, low, high = tpr_at(scored(rng.normal(1.5, 1, m), rng.normal(0, 1, n)), fpr)
        assert low <= rate <= high
        inside += low <= true <= high
    assert inside / 200 >= 0.93


# Samples


def test_a_sample_of_strata_becomes_a_plain_one() -> None:
    """Of 1,000 examples, 100 were certain and one in nine of the others was drawn."""
    rng = np.random.default_rng(5)
    weights = np.repeat([1.0, 9.0], 100)
    certain = others = 0
    for seed in range(300):
        order = rng.permutation(200)
        found = plain_samples(weights[order], np.ones(500), seed)
        kinds = weights[order][found.members]
        certain, others = certain + int((kinds == 1).sum()), others + int((kinds == 9).sum())
        assert found.nonmembers.tolist() == [*range(500)]
    assert others == 300 * 100
    assert certain / 300 == pytest.approx(100 / 9, abs=1)


def test_members_are_no_more_than_non_members() -> None:
    found = plain_samples(np.ones(5000), np.ones(120), 0)
    assert len(found.members) == len(set(found.members.tolist())) == 120
    assert len(plain_samples(np.ones(20_000), np.ones(30_000), 0).nonmembers) == 10_000
    assert plain_samples(np.ones(5000), np.ones(120), 0).members.tolist() == found.members.tolist()


# The blind baseline


WORDS = [f"w{number}" for number in range(400)]


def texts(dice: random.Random, count: int, extra: str) -> list[str]:
    return [" ".join([*dice.choices(WORDS, k=30), extra * (dice.random() < 0.8)]) for _ in range(count)]


def blind(extra: str, seed: int) -> tuple[Scored, Separation]:
    dice = random.Random(seed)
    written = texts(dice, 60, extra) + texts(dice, 60, "")
    member, documents = np.arange(120) < 60, np.arange(120) // 2
    scores = blind_scores(written, member, documents, seed)
    values = scored(scores[:60], scores[60:], windows=2)
    return values, Separation.of(values)


def test_the_blind_baseline_sees_words_of_one_side_alone() -> None:
    values, found = blind("published 2031", 0)
    assert auc_interval(values, found)[0] > 0.55


def _by_form(change: Callable[[random.Random, str], str]) -> float:
    """The low end of AUC where members are such text too, changed in form alone."""
    dice = random.Random(1)
    written = [" ".join(dice.choices(WORDS, k=30)) for _ in range(120)]
    written = [change(dice, text) if place < 60 else text for place, text in enumerate(written)]
    scores = blind_scores(written, np.arange(120) < 60, np.arange(120), 0)
    values = scored(scores[:60], scores[60:])
    return auc_interval(values, Separation.of(values))[0] or 0.0


@pytest.mark.parametrize(
    "change",
    [
        lambda dice, text: " ".join(text.split()[: dice.randint(15, 25)]),
        lambda dice, text: text.replace(" ", "\n") if dice.random() < 0.7 else text,
        lambda dice, text: text.title() if dice.random() < 0.7 else text,
    ],
    ids=["shorter", "other white space", "other case"],
)
def test_the_blind_baseline_sees_form(change: Callable[[random.Random, str], str]) -> None:
    assert _by_form(change) > 0.6


def test_the_blind_baseline_sees_the_age_of_numbers_that_occur_once() -> None:
    dice = random.Random(2)
    written = [
        " ".join([*dice.choices(WORDS, k=30), str(dice.randrange(1_500_000_000, 1_530_000_000) + later)])
        for later in [180_000_000] * 60 + [0] * 60
    ]
    scores = blind_scores(written, np.arange(120) < 60, np.arange(120), 0)
    assert slow.auc(scores[:60].tolist(), scores[60:].tolist()) > 0.9


def test_documents_of_which_a_part_was_set_aside_are_not_told_apart_by_their_words() -> None:
    """Half of each document is held out: its words tell nothing, and must not seem to tell the opposite."""
    dice = random.Random(3)
    written = [" ".join([f"own{place % 60}"] * 5 + dice.choices(WORDS, k=15)) for place in range(120)]
    scores = blind_scores(written, np.arange(120) < 60, np.arange(120) % 60, 0)
    assert 0.35 < slow.auc(scores[:60].tolist(), scores[60:].tolist()) < 0.65


def test_the_blind_baseline_is_at_chance_where_texts_are_alike() -> None:
    lows = [auc_interval(*blind("", seed))[0] for seed in range(20)]
    assert sum(low <= 0.5 for low in lows) >= 18, "more would be taken for a difference"


def test_the_blind_baseline_never_scores_a_text_by_its_own_document() -> None:
    """Documents repeat a word of their own; of two halves of one document, both would know it."""
    dice = random.Random(0)
    written = [" ".join([f"own{place // 2}"] * 5 + dice.choices(WORDS, k=5)) for place in range(120)]
    scores = blind_scores(written, np.arange(120) < 60, np.arange(120) // 2, 0)
    assert slow.auc(scores[:60].tolist(), scores[60:].tolist()) < 0.7


# Results


def judged(rng: np.random.Generator, shift: float, members: int = 200, others: int = 150) -> Judged:
    return Judged.of(scored(rng.normal(shift, 1, members), rng.normal(0, 1, others)))


def test_the_best_score_has_an_interval_that_holds_for_all() -> None:
    rng = np.random.default_rng(6)
    scores = {name: judged(rng, shift) for name, shift in (("loss", 0.3), ("min_k", 0.8), ("zlib", 0.0))}
    found = membership_result(scores, None, None)
    assert found.best.score == "min_k"
    assert found.best.auc == found.score["min_k"].auc == max(one.auc for one in found.score.values())
    low, high = found.score["min_k"].ci95
    assert found.best.ci95[0] < low < found.best.auc < high < found.best.ci95[1]
    assert found.blind_auc is found.explained_by_text is found.against_teacher is None
    assert [note.code for note in membership_notes({"soft": found})] == [
        "membership_too_few",
        "membership_no_blind_baseline",
    ]


def test_the_best_of_several_scores_of_an_untrained_model_is_no_finding() -> None:
    rng = np.random.default_rng(7)
    findings = sum(
        membership_result({name: judged(rng, 0.0) for name in "abcdef"}, None, None).best.ci95[0] > 0.5
        for _ in range(200)
    )
    assert findings <= 12


def test_true_positives_are_refused_with_too_few_non_members() -> None:
    rng = np.random.default_rng(8)
    few, some, many = (
        membership_result({"loss": judged(rng, 1.0, 300, others)}, None, None).score["loss"].tpr_at_fpr
        for others in (99, 999, 1000)
    )
    assert few == {"0.01": None, "0.001": None}
    assert some["0.01"] is not None
    assert some["0.001"] is None
    assert None not in many.values()


@pytest.mark.parametrize(
    ("text", "score", "explained"),
    [(1.0, 0.9, True), (1.0, 2.5, False), (0.0, 0.0, False), (0.0, 1.0, False)],
)
def test_figures_that_the_text_explains_are_said_to_mean_nothing(
    text: float, score: float, explained: bool
) -> None:
    rng = np.random.default_rng(9)
    found = membership_result({"loss": judged(rng, score)}, judged(rng, text), None)
    assert found.explained_by_text is explained
    codes = [note.code for note in membership_notes({"soft": found})]
    assert ("membership_text_differs" in codes) is explained


def test_a_student_is_compared_with_its_teacher_example_by_example() -> None:
    rng = np.random.default_rng(10)
    base_m, base_n = rng.normal(size=400), rng.normal(size=400)

    def model(shift: float, noise: float) -> Judged:
        return Judged.of(
            scored(base_m + shift + rng.normal(0, noise, 400), base_n + rng.normal(0, noise, 400))
        )

    teacher = {"loss": model(0.5, 0.1), "min_k": model(0.4, 0.1)}
    student = {"loss": model(0.3, 0.1), "min_k": model(0.2, 0.1), "reference_teacher": model(3.0, 0.1)}
    found = membership_result(student, None, teacher).against_teacher
    assert found is not None
    assert found.score == "loss"
    assert found.difference == pytest.approx(found.auc - found.teacher_auc)
    assert found.ci95[1] < 0
    low, high = auc_interval(*student["loss"])
    assert found.ci95[1] - found.ci95[0] < 0.5 * (high - low)


def test_the_choice_of_the_score_favours_neither_student_nor_teacher() -> None:
    """Both tell equally much, under scores of which the one chosen is the best by chance."""
    rng = np.random.default_rng(12)
    inside, gaps = 0, []
    for _ in range(200):
        teacher, student = ({name: judged(rng, 0.5, 80, 80) for name in "abcde"} for _ in range(2))
        found = membership_result(student, None, teacher).against_teacher
        assert found is not None
        inside += found.ci95[0] <= 0 <= found.ci95[1]
        gaps.append(found.difference)
    assert inside >= 182
    assert abs(np.mean(gaps)) < 3 * np.std(gaps) / math.sqrt(len(gaps))


# The page


def _rendered(results: AuditResults) -> str:
    return render("report.html.j2", page=page(results, "a title", [], count_tags(results))).decode()


def _shown(results: AuditResults) -> str:
    text = _rendered(results)
    text = text[text.index('<h3 id="membership"') :]
    return " ".join(text[: text.index("</section>")].split())


def _audit(text: float, **models: float) -> AuditResults:
    """Results whose models separate members by these shifts, and text alone by another."""
    rng = np.random.default_rng(11)
    blind = judged(rng, text, 200, 1000)
    scores = {name: {"loss": judged(rng, shift, 200, 1000)} for name, shift in models.items()}
    found = {
        name: membership_result(one, blind, scores["teacher"] if name in ("soft", "hard") else None)
        for name, one in scores.items()
    }
    attacks = {name: {"membership": one.model_dump(mode="json")} for name, one in found.items()}
    return AuditResults.model_validate({**sample_dict(), "attacks": attacks})


def test_the_page_sets_students_against_the_teacher_and_the_text_alone() -> None:
    results = _audit(0.0, teacher=2.0, baseline=1.0, soft=0.5, hard=2.0)
    table = membership_table(results)
    assert table is not None
    assert [row.name for row in table.rows] == ["teacher", "baseline", "soft", "hard"]
    assert table.sentences == [
        "soft: lower than the teacher's, by loss",
        "hard: not shown to differ from the teacher's, by loss",
    ]
    section = _shown(results)
    assert "200 examples of the corpus against 1,000 examples of the holdout" in section
    assert "say nothing of membership" not in section
    assert "differ in more than membership" not in section
    assert membership_table(AuditResults.model_validate(sample_dict())) is None


def test_every_cell_of_the_tables_is_what_results_hold() -> None:
    results = _audit(0.2, teacher=2.0, baseline=1.0, soft=0.5, hard=2.0)
    shown = Page(_rendered(results))
    best, every = shown.table("The score that tells most"), shown.table("AUC of every score")
    assert every[0] == ["Score", *results.attacks]
    for cells, (name, found) in zip(best[2:-1], results.attacks.items(), strict=True):
        one = found.membership
        assert one is not None
        assert name in cells[0]
        assert cells[1:4] == ["loss", f"{one.best.auc:.3f}", _between(one.best.ci95)]
        rates = [
            percent(rate[0]) + percent_interval(rate[1:])
            for rate in one.score["loss"].tpr_at_fpr.values()
            if rate
        ]
        assert cells[4:6] == rates
        if (against := one.against_teacher) is not None:
            sign = "+" if against.difference > 0 else "\N{MINUS SIGN}"
            assert cells[6] == f"{sign}{abs(against.difference):.3f}loss"
        assert every[1][1 + [*results.attacks].index(name)] == f"{one.score['loss'].auc:.3f}"
    first = results.attacks["teacher"].membership
    assert first is not None
    assert best[-1][2:4] == [f"{first.blind_auc:.3f}", _between(first.blind_ci95)]


def _between(ends: Any) -> str:
    return f"{ends[0]:.3f} to {ends[1]:.3f}"


def test_the_page_says_where_text_alone_does_as_well() -> None:
    results = _audit(1.0, teacher=3.0, baseline=0.5, soft=0.6, hard=3.0)
    section = _shown(results)
    assert "These figures say nothing of membership for baseline and soft." in section
    figure = membership_figure(results)
    assert figure is not None
    assert figure.lead is not None
    assert "hard" in figure.lead.of
    assert "0.5 is chance" in figure.lead.sentence
    assert "says nothing of student" in figure.others[0].sentence
    section = _shown(_audit(1.0, teacher=3.0, baseline=3.0))
    assert "differ in more than membership" in section


def test_the_page_says_where_text_alone_is_not_ruled_out() -> None:
    """Text that may differ a little, and a score that is above chance and not clearly above text."""
    results = _audit(0.1, teacher=3.0, baseline=0.0, soft=0.12, hard=3.0)
    table = membership_table(results)
    assert table is not None
    assert not table.text_differs
    assert table.unclear == ["soft"]
    section = _shown(results)
    assert "It is not shown that membership makes the difference for soft." in section
    assert "does not leave out that text alone tells as much" in section


def test_an_open_interval_shows_no_difference_from_the_teacher() -> None:
    results = _audit(0.0, teacher=2.0, soft=0.5)
    found = results.attacks["soft"].membership
    assert found is not None
    assert found.against_teacher is not None
    open_ended = found.against_teacher.model_copy(update={"ci95": (None, None)})
    assert reporting_against("soft", open_ended) == "soft: not shown to differ from the teacher's, by loss"


def test_scores_have_names_for_readers() -> None:
    assert score_words("min_k_plus_plus") == "Min-K%++"
    assert score_words("reference_teacher") == "loss against the teacher"
    assert score_words("ez_base") == "EZ-MIA against the base"
