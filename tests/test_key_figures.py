"""What a reader is led to believe: whose each leading figure is, of how many, and which leaks come first."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from report_page import Rendered
from sample_results import bare_dict, hostile_dict, sample_dict, sample_leaks

from kdaudit.cli.summary import summarize
from kdaudit.modelcard.section import card_text
from kdaudit.reporting.figures import key_figures
from kdaudit.reporting.personal_data_counts import count_tags
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.reviewers import questions
from kdaudit.reporting.verdict import check_rows, verdict_of
from kdaudit.schemas.results import AuditResults


def like_the_demo(**changes: Any) -> dict[str, Any]:
    """A soft student whose 13 leaks are all flagged, and a hard one of whose 172 only 15 are."""
    leaks = sample_leaks([({"soft": "easy_core", "hard": "easy_core"}, 13), ({"hard": "student_only"}, 159)])
    flagged = 0
    for leak in leaks:
        risky = "soft" in leak["classes"] or flagged < 2
        flagged += risky and "soft" not in leak["classes"]
        leak["risk"] = 0.9 if risky else 0.001
    data = sample_dict(leaks=leaks, **changes)
    for name, memorized in (("soft", 13), ("hard", 172)):
        data["models"][name] |= {"memorized": memorized, "rate": memorized / 1_000_000}
    return data


def plain(text: str) -> str:
    return text.replace("\xa0", " ").replace("\\", "")


def figure(data: dict[str, Any], title: str) -> Any:
    return next(one for one in key_figures(AuditResults.model_validate(data)) if title in one.title)


def sampled(data: dict[str, Any]) -> dict[str, Any]:
    data["corpus"] |= {"sampled": True}
    return data


def one_student(data: dict[str, Any]) -> dict[str, Any]:
    del data["models"]["hard"], data["comparison"]["hard"]
    data["gate"]["checks"] = [one for one in data["gate"]["checks"] if one["student"] == "soft"]
    data["leaks"] = [one for one in data["leaks"] if "soft" in one["classes"]]
    for leak in data["leaks"]:
        leak["classes"] = {"soft": leak["classes"]["soft"]}  # the groups of the samples are shared
        leak["memorized_by"] = [name for name in leak["memorized_by"] if name != "hard"]
    return data | {"soft_vs_hard": None}


def three_students(data: dict[str, Any]) -> dict[str, Any]:
    for part in ("models", "comparison"):
        data[part]["hard-2"] = data[part]["hard"]
    return data


def no_leaks(data: dict[str, Any]) -> dict[str, Any]:
    for name in ("soft", "hard"):
        data["models"][name] |= {"memorized": 0, "rate": 0.0, "ci95": [0.0, 3.7e-6], "windows_memorized": 0}
        data["comparison"][name] |= {"ratio_to_baseline": 0.0, "ratio_ci95": [None, 0.002], "inherited": 0}
        data["comparison"][name] |= {"inheritance_rate": 0.0, "inheritance_ci95": [0.0, 0.002]}
        data["comparison"][name] |= dict.fromkeys(("easy_core", "with_baseline", "student_only"), 0)
    none = {"both": 0, "soft_only": 0, "hard_only": 0, "ratio": None, "ratio_ci95": None, "mcnemar_p": None}
    data["soft_vs_hard"] |= none | {"difference": 0.0, "share_of_hard_in_soft": None}
    return data | {"leaks": []}


AUDITS = {
    "two students": sample_dict,
    "like the demo": like_the_demo,
    "one student": lambda: one_student(sample_dict()),
    "three students": lambda: three_students(sample_dict()),
    "a sample": lambda: sampled(sample_dict()),
    "no baseline": bare_dict,
    "no leaks": lambda: no_leaks(sample_dict()),
}


@pytest.mark.parametrize("audit", AUDITS)
def test_each_key_figure_says_whose_it_is(audit: str) -> None:
    data = AUDITS[audit]()
    for one in key_figures(AuditResults.model_validate(data)):
        if one.lead is None:
            assert one.absent
            continue
        for reading in (one.lead, *one.others):
            named = [name for name in data["comparison"] if f"“{name}”" in reading.of]
            assert named or "all students" in reading.of, (one.title, reading.of)
        assert re.search(r"\d+ (against|of) [\d,]+|inherits", one.lead.counts), one.lead.counts
        if audit == "a sample":
            assert "sampled example" in one.lead.counts


def test_the_predictor_leads_with_the_student_whose_leaks_it_catches_least(tmp_path: Path) -> None:
    run = Rendered(tmp_path, like_the_demo())
    for text in (run.full.text, run.public.text, run.card):
        text = plain(text)
        assert "15 of the 172 that “hard” memorizes. It was fitted on what “soft” memorizes" in text
        assert "15 of 172 leaked examples; 1,203 of 1,000,000 examples flagged in all" in text
        assert "of what “hard” memorizes, the worst of 2 students that leak" in text
    values = re.findall(r'<p class="value">([^<]+)</p>', run.html)
    assert plain(values[-1]) == "8.7%"
    assert "**8.7%**" in plain(run.card)
    assert "**100%**" not in plain(run.card)
    others = figure(like_the_demo(), "Caught").others
    assert [(one.of, plain(one.value)) for one in others] == [
        ("all students", "8.7%"),
        ("student “soft”", "100%"),
    ]


def test_the_guarantee_is_not_lent_to_another_student() -> None:
    lead = figure(like_the_demo(), "Caught").lead
    assert plain(lead.interval) == (
        "Guarantee: with 95% confidence, at least 99% of the examples that “soft” memorizes are flagged; "
        "none for “hard”"
    )
    own = figure(one_student(sample_dict()), "Caught").lead
    assert "none for" not in own.interval
    data = like_the_demo()
    data["predictor"] |= {"labels": "easy_core", "student": None}
    assert plain(figure(data, "Caught").lead.interval).endswith(
        "of the examples that teacher and baseline both memorize are flagged; none for “hard”"
    )


def test_where_nothing_leaks_the_predictor_is_not_said_to_have_caught_it() -> None:
    one = figure(no_leaks(sample_dict()), "predictor")
    assert one.title == "How the risk predictor ranks examples"
    assert "701 of 1,000,000 examples are what “soft” memorizes" in one.lead.counts


def test_a_student_over_a_baseline_that_memorizes_nothing_is_a_figure_and_not_an_absence() -> None:
    data = sample_dict()
    data["models"]["baseline"] |= {"memorized": 0, "rate": 0.0}
    for name in ("soft", "hard"):
        data["comparison"][name] |= {"ratio_to_baseline": None, "ratio_ci95": [250.0, None]}
    one = figure(data, "against baseline")
    assert one.lead.value == "742 : 0" or one.lead.value == "701 : 0"
    assert "at least 250" in one.lead.interval
    assert "a model of its size trained without a teacher none." in one.lead.sentence
    data = no_leaks(data)
    for name in ("soft", "hard"):
        data["comparison"][name] |= {"ratio_to_baseline": None, "ratio_ci95": None}
    assert figure(data, "against baseline").lead is None


def test_several_baselines_leave_no_interval_and_the_sentence_says_so() -> None:
    data = sample_dict()
    data["models"] |= {
        "baseline-1": data["models"].pop("baseline"),
        "baseline-2": sample_dict()["models"]["baseline"],
    }
    for one in data["comparison"].values():
        one |= {"ratio_ci95": None}
    sentence = plain(figure(data, "against baseline").lead.sentence)
    assert sentence == (
        "By the counts alone, without an interval, student “hard” memorizes 56% less than the mean of 2 "
        "models of its size trained without a teacher."
    )


def test_students_that_are_equal_are_not_told_apart() -> None:
    figures = key_figures(AuditResults.model_validate(no_leaks(sample_dict())))
    for one in figures[:2]:
        assert "the same for all 2 students" in one.lead.of
        assert "worst" not in one.lead.of
    lead = figure(three_students(sample_dict()), "against baseline").lead
    assert lead.of == "student “hard” (hard KD), the worst of 3 students together with 1 other"


def test_soft_against_hard_names_the_pair_that_it_is_of() -> None:
    one = figure(three_students(sample_dict()), "soft distillation").lead
    assert one.of == "inherited by “hard” over inherited by “soft”, the first of their kinds among 3 students"
    assert one.sentence.startswith(
        "Hard student “hard” inherits 2.7 times as much from the teacher alone as soft"
    )


VERDICTS = [
    (
        "three students",
        "none",
        "The student that memorizes most, “hard” (as much as “hard-2”), reproduces 0.074% of the training "
        "examples (742 of 1,000,000) word for word; a model of its size trained without the teacher "
        "reproduces 0.17%.",
    ),
    (
        "a sample",
        "fail",
        "In this sample student “hard” reproduces 2.5% of the training examples that only the teacher had "
        "memorized (49 of 1,955), more than the 1% allowed.",
    ),
    (
        "a sample",
        "none",
        "The student that memorizes most, “hard”, reproduces 0.074% of the sampled examples (742 of "
        "1,000,000) word for word; a model of its size trained without the teacher reproduces 0.17%.",
    ),
    (
        "no leaks",
        "none",
        "None of the 2 students reproduces any of the 1,000,000 training examples word for word; a model of "
        "its size trained without the teacher reproduces 0.17%.",
    ),
]


@pytest.mark.parametrize(("audit", "verdict", "sentence"), VERDICTS)
def test_verdicts_say_of_how_many_and_that_a_sample_is_one(
    tmp_path: Path, audit: str, verdict: str, sentence: str
) -> None:
    data = AUDITS[audit]()
    if verdict == "none":
        data["gate"] = {"verdict": "none", "checks": []}
    run = Rendered(tmp_path, data)
    for text in (run.full.text, run.public.text, run.card):
        assert sentence in plain(text)
    assert "see Leaked examples" not in run.card  # which it does not hold


def test_the_extent_of_a_census_tells_what_was_left_out(tmp_path: Path) -> None:
    text = Rendered(tmp_path).public.text
    assert "all 1,000,000 distinct examples of the corpus; 31,022 documents or ends of them left out" in text
    card = Rendered(tmp_path / "card").card
    assert "left out as too short, empty or not valid text: 31,022." in card


def test_the_terminal_says_sample_rates_that_are_not_rounded_to_nothing_and_tagged_leaks() -> None:
    data = sampled(sample_dict())
    data["models"]["soft"] |= {"memorized": 2, "rate": 2e-6, "ci95": [2.4e-7, 7.2e-6]}
    text = plain(summarize(AuditResults.model_validate(data), Path("run")))
    assert "memorized 2 of 1,000,000 sampled examples (0.0002%, 95% interval 0.000024% to 0.00072%)" in text
    tagged = sum(bool(leak["tags"]) for leak in data["leaks"])
    assert f"{tagged:,} of 909 leaked examples seem to hold personal data or secrets" in text
    assert "absence of a tag is not evidence of absence" in text
    assert "0.000%" not in text


def test_the_terminal_says_what_decides_the_gate() -> None:
    data = sample_dict()
    first = summarize(AuditResults.model_validate(data), Path("run")).splitlines()[0]
    assert plain(first).endswith("the gate's verdict is fail: max_inheritance_rate of hard (2.5%; limit 1%)")
    check = data["gate"]["checks"][3] | {"verdict": "inconclusive", "ci95": [0.008, 0.031], "accepted": 2}
    data["gate"] = {"verdict": "inconclusive", "checks": [*data["gate"]["checks"][:3], check]}
    first = summarize(AuditResults.model_validate(data), Path("run")).splitlines()[0]
    assert plain(first).endswith(
        "max_inheritance_rate of hard (2.5%, 95% interval 0.8% to 3.1%, 2 accepted leaks disregarded; "
        "limit 1%)"
    )


def tagged_leaks() -> list[dict[str, Any]]:
    leaks = sample_leaks([({"hard": "inherited"}, 150), ({"soft": "student_only"}, 150)])
    for leak in leaks:
        leak["tags"] = []
    plainest = [leak for leak in leaks if "soft" in leak["classes"]][:5]
    for leak, tags in zip(
        plainest, (["email"], ["secret"], ["phone", "email"], ["payment_card"], ["x y"]), strict=True
    ):
        leak |= {"tags": tags, "risk": 0.0, "copies": 1}
    return leaks


def test_every_page_has_the_wider_interval_of_a_rate() -> None:
    data = sample_dict()
    for model in data["models"].values():
        model["ci95_by_document"] = [0.0001, 0.0231]
    curve = [{"p": p, "queries": 10, "rate": 0.01, "ci95": [0.009, 0.011]} for p in (0.1, 0.5)]
    for point in curve:
        point["ci95_by_document"] = [0.0002, 0.0345]
    sampled_by = {"temperature": 1.0, "top_k": 40, "examples": 10**6, "scored": 10**6, "curve": curve}
    results = AuditResults.model_validate({**data, "attacks": {"soft": {"sampled": sampled_by}}})
    card = card_text(without_private_parts(results))
    assert card.count("0.01% to 2.3%, by document") == 4
    reviewed = [one for asked in questions(results, count_tags(results)) for one in asked.measured]
    assert " ".join(reviewed).count("95% interval 0.02% to 3.5%, by document") == 2


def test_inheritance_in_few_documents_is_not_said_to_differ() -> None:
    """The test takes windows as independent; the interval by document holds 0."""
    data = sample_dict()
    data["soft_vs_hard"]["difference_ci95_by_document"] = [-0.01, 0.06]
    sentence = figure(data, "Hard against soft").lead.sentence
    assert sentence.startswith("The counts do not show that one of the two inherits more")


def test_what_cannot_be_cut_at_a_students_count_is_set_against_plain_chance() -> None:
    data = sample_dict()
    data["comparison"]["hard"] |= {
        "reference_inheritance": 0.3,
        "reference_examples": 90,
        "inheritance_floor": 0.25,
        "excess_inheritance": 0.05,
        "excess_ci95": [0.01, 0.09],
    }
    reading = figure(data, "Inherited beyond chance").lead
    assert plain(reading.value) == "+5 points"
    assert plain(reading.interval) == "95% interval +1 points to +9 points"
    assert "more of the teacher's own examples than chance gives" in reading.sentence
    assert reading.sentence.endswith("other baselines, which never saw the teacher, hold 25%.")
    assert reading.counts == "90 examples"
    assert (
        "hard against chance: +5 points (95% interval +1 points to +9 points) beyond the 25% that other "
        in (plain(summarize(AuditResults.model_validate(data), Path())))
    )


def test_an_interval_that_excludes_nothing_is_not_said_to_reach_anywhere() -> None:
    data = sampled(sample_dict())
    (check, *_) = [one for one in data["gate"]["checks"] if one["name"] == "max_ratio_to_baseline"]
    check |= {"ci95": [0.2, 3.0], "ci95_by_document": [0.0, None], "verdict": "inconclusive"}
    data["gate"] |= {"checks": [check], "verdict": "inconclusive"}
    results = AuditResults.model_validate(data)
    assert "; the data do not show whether that is within the" in verdict_of(results).sentence
    assert check_rows(results.gate.checks)[0].interval == "not bounded, by document"


def test_inheritance_from_one_baseline_is_never_shown_without_chance() -> None:
    data = sample_dict()
    for near in (None, 0, 7):
        for figures in data["comparison"].values():
            figures["near_misses"] = near
        sentence = figure(data, "Inherited from the teacher").lead.sentence
        assert " Chance is not measured with one baseline" in sentence
        assert ("nearly memorizes 7" in sentence) == (near == 7)
        assert sentence.endswith(".")


def test_leaks_that_hold_personal_data_come_first_and_no_cut_loses_them(tmp_path: Path) -> None:
    leaks = tagged_leaks()
    run = Rendered(tmp_path, sample_dict(leaks=leaks), max_examples=10)
    tagged = {leak["example_id"] for leak in leaks if leak["tags"]}
    inherited = {leak["example_id"] for leak in leaks if "inherited" in leak["classes"].values()}
    shown = [int(one) for one in re.findall(r'<h3 id="leak-\d+">Example (\d+)</h3>', run.html)]
    public = [int(row[0]) for row in run.public.table("Leaked examples: ")[1:]]
    for page in (shown, public):
        assert len(page) == 10
        assert set(page[:5]) == tagged
        assert set(page[5:]) <= inherited
    assert "worst first: what seems to hold personal data or secrets, then what is inherited" in run.full.text


def test_the_public_table_has_the_kind_of_tag_and_nothing_else_of_it(tmp_path: Path) -> None:
    run = Rendered(tmp_path / "kinds", sample_dict(leaks=tagged_leaks()), max_examples=6)
    head, *rows = run.public.table("Leaked examples: ")
    column = head.index("Seems to hold")
    kinds = {" ".join(row[column].split()) for row in rows}
    assert kinds == {
        "e-mail address", "key or token", "phone number e-mail address", "payment card number",
        "something else", "no tag",
    }  # fmt: skip
    data, texts = hostile_dict()
    for leak in data["leaks"]:
        leak["tags"] = [f"zebra {leak['tags'][0]}"]
    public = Rendered(tmp_path / "hostile", data, rows=texts).public_html
    assert "something else" in public
    assert "zebra" not in public


def test_absence_of_a_tag_is_said_to_be_no_evidence(tmp_path: Path) -> None:
    bare = [{**leak, "tags": []} for leak in sample_leaks()]
    for folder, leaks in (("some", sample_leaks()), ("none", bare)):
        run = Rendered(tmp_path / folder, sample_dict(leaks=leaks))
        for page in (run.full, run.public):
            assert "Absence of a tag is not evidence of absence" in page.text


def test_counts_of_the_samples_above_are_what_they_say() -> None:
    results = AuditResults.model_validate(like_the_demo())
    assert len(results.leaks) == 172
    assert sum("soft" in leak.classes for leak in results.leaks) == 13
    assert count_tags(without_private_parts(results)).leaks == 0
