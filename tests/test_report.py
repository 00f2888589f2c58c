"""The reports: what they say, absent figures, order of the leaks, contrast."""
# ruff: noqa: RUF001 - what the pages show has its own signs, and hostile text is what is tested

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from report_page import Page, Rendered, require_accessible
from sample_results import (
    bare_dict,
    leak_row,
    sample_dict,
    sample_leaks,
    write_run,
)

from kdaudit.cli import main
from kdaudit.config.audit import ReportConfig
from kdaudit.errors import RunStateError
from kdaudit.pipelines.report import render_reports
from kdaudit.reporting.formatting import (
    apart,
    interval,
    p_value,
    percent,
    percent_interval,
    points,
    significant,
    times,
    times_interval,
)
from kdaudit.reporting.render import read_results


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("run"))


def test_key_figures_are_said(rendered: Rendered) -> None:
    text = rendered.full.text.replace("\xa0", " ")
    for words in (
        "742 against 1,702 of 1,000,000 examples",
        "Student “hard” memorizes 56% less than a model of its size trained without a teacher.",
        "18 of 1,955 examples that the teacher memorizes and no baseline does",
        "About 1 in 40 of the examples that only the teacher had memorized reappears in student “hard”.",
        "Hard student “hard” inherits 2.7 times as much from the teacher alone as soft student “soft”.",
        "“hard” inherits 49, “soft” 18 of 1,955 examples that are teacher-specific",
        "95% interval 1.8× to 4.1×",
        "736 of 742 leaked examples; 1,203 of 1,000,000 examples flagged in all",
        "The predictor flags 0.12% of all examples, and with them 736 of the 742 that “hard” memorizes.",
        "all students 99.3%903 of 909 leaked examples",
        "Guarantee: with 95% confidence, at least 99% of the examples that “soft” memorizes are flagged",
        "With 95% confidence, at least 99% of the examples that “soft” memorizes are flagged.",
        "The guarantee rests on 351 memorized texts, each scored by a model fitted without it",
        "A census: all 1,000,000 distinct examples of the corpus; 31,022 documents or ends of them left out",
        "909 examples memorized by at least one student, of 1,000,000 audited, worst first: what seems",
        "of 909 leaked examples of all students together seem to hold personal data or secrets",
        "Shown: the first 200. The other 709",
        "kdaudit run config.yaml --out again",
        "teacher: 41 of 3,317 memorized examples (1.2%), and 57 others; baseline: not known, see Notes;",
    ):
        assert words in text, words


def test_the_table_of_models_says_which_are_adapters_endpoints_and_quantized(tmp_path: Path) -> None:
    data = sample_dict()
    data["models"]["baseline"]["quantization"] = "GPTQ, 4 bits"
    data["notes"] += [
        {"code": "adapter", "subject": "soft", "text": "soft is an adapter, merged into /home/ann/base."},
        {"code": "endpoint", "subject": "teacher", "text": "teacher is at http://10.0.0.7:8000/v1."},
    ]
    run = Rendered(tmp_path, data)
    for page in (run.full, run.public):
        rows = [" ".join(row[0].split()) for row in page.table("Memorization of each model")]
        assert any("soft" in row and row.endswith("an adapter") for row in rows), rows
        assert any("teacher" in row and "behind an endpoint" in row for row in rows)
        assert any("baseline" in row and "quantized: GPTQ, 4 bits" in row for row in rows)
        (hard,) = (row for row in rows if "hard" in row)
        assert hard.endswith("Student (hard KD)")
    assert "/home/ann" not in run.public.text
    assert "10.0.0.7" not in run.public.text


VERDICTS = {
    "fail": "Student “hard” reproduces 2.5% of the training examples that only the teacher had memorized "
    "(49 of 1,955), more than the 1% allowed.",
    "pass": "All 5 checks pass; closest to its limit, student “soft” reproduces 0.92% of the training "
    "examples that only the teacher had memorized (18 of 1,955), within the 1% allowed.",
    "none": "The student that memorizes most, “hard”, reproduces 0.074% of the training examples "
    "(742 of 1,000,000) word for word; a model of its size trained without the teacher reproduces 0.17%.",
}


@pytest.mark.parametrize("verdict", VERDICTS)
def test_verdict_is_one_sentence_with_word_and_colour(tmp_path: Path, verdict: str) -> None:
    data = sample_dict()
    checks = [] if verdict == "none" else data["gate"]["checks"]
    if verdict == "pass":
        checks = [check for check in checks if check["verdict"] == "pass"]
    data["gate"] = {"verdict": verdict, "checks": checks}
    run = Rendered(tmp_path, data)
    for page in (run.full, run.public):
        assert VERDICTS[verdict] in page.text.replace("\xa0", " ")
        banner = next(attrs for tag, attrs in page.tags if (attrs.get("class") or "").startswith("verdict "))
        assert banner["class"] == f"verdict {verdict}"
    assert VERDICTS[verdict] in run.card
    assert ("No limit was set" in run.full.text) == (verdict == "none")


def test_where_students_fare_differently_the_banner_says_how_each_does(tmp_path: Path) -> None:
    data = sample_dict()
    checks = [{**one, "verdict": "pass"} for one in data["gate"]["checks"] if one["student"] == "soft"]
    checks += [{**one, "verdict": "fail"} for one in data["gate"]["checks"] if one["student"] == "hard"]
    data["gate"] = {"verdict": "fail", "checks": checks}
    text = Rendered(tmp_path, data).full.text
    assert "failed and" in text
    assert "passed: student “soft” passes and student “hard” fails; each" in text
    data["gate"]["checks"] = [one for one in checks if one["student"] == "hard"]
    assert "student “hard” fails" not in Rendered(tmp_path / "one", data).full.text


def test_inconclusive_verdict_names_interval_and_limit(tmp_path: Path) -> None:
    check = {"name": "max_rate", "student": "soft", "limit": 0.001, "value": 0.0008, "ci95": [0.0005, 0.0012]}
    gate = {"verdict": "inconclusive", "checks": [{**check, "verdict": "inconclusive"}]}
    data = sample_dict(gate=gate, leaks=[])
    data["corpus"]["sampled"] = True
    text = Rendered(tmp_path, data).full.text.replace("\xa0", " ")
    assert "In this sample student “soft” reproduces 0.08% of the training examples" in text
    assert "0.05% to 0.12% is possible, on both sides of the 0.1% allowed." in text
    assert "No student memorizes any example of the corpus." in text


def test_pages_are_accessible(rendered: Rendered) -> None:
    for page in (rendered.full, rendered.public):
        require_accessible(page)


def test_near_miss_is_marked_where_it_leaves_the_text(tmp_path: Path) -> None:
    leak = next(leak for leak in sample_leaks() if leak["memorized_by"] == ["teacher", "hard"])
    said = [
        {"name": "baseline", "matched_tokens": 2, "continuation": " one two X"},
        {"name": "soft", "matched_tokens": 0, "continuation": " one-off"},
    ]
    row = leak_row(leak, [], prefix="zero", suffix=" one two three", models=said)
    html = Rendered(tmp_path, sample_dict(leaks=[leak]), rows=[row]).html
    assert '<span class="given">zero</span><mark> one two three</mark>' in html
    assert '<mark> one two </mark><span class="gone">X</span>' in html
    assert '<span class="gone"> one-off</span>' in html
    assert "2 of 50 tokens, then departs from the text" in html


def test_leaks_are_worst_first(rendered: Rendered) -> None:
    shown = [int(found) for found in re.findall(r'<h3 id="leak-\d+">Example (\d+)</h3>', rendered.html)]
    assert len(shown) == 200
    by_id = {leak["example_id"]: leak for leak in rendered.results["leaks"]}
    keys = [
        (not leak["tags"], "inherited" not in leak["classes"].values(), -leak["risk"])
        for leak in (by_id[one] for one in shown)
    ]
    assert keys == sorted(keys)
    assert keys[0][:2] == (False, False)
    public = [int(row[0]) for row in rendered.public.table("Leaked examples")[1:]]
    assert public == shown
    hashes = [row[-1] for row in rendered.public.table("Leaked examples")[1:]]
    assert hashes == [by_id[one]["suffix_hmac"] for one in shown]


def test_absent_figures_are_said_in_words(tmp_path: Path) -> None:
    run = Rendered(tmp_path, bare_dict())
    for text in (run.full.text, run.public.text, run.card):
        assert not re.search(r"\b(None|nan|null|Undefined)\b", text)
    text = run.full.text.replace("\xa0", " ")
    assert text.count("No baseline was audited") == 1
    assert "Student against baseline and Inherited from the teacher: not available." in text
    assert "It takes a soft and a hard student" in text
    assert "Too few memorized examples (4 found)" in text
    assert "It takes 59 memorized examples, 4 were found." in text
    assert "No held-out text was audited" in text
    assert "there is no baseline to compare it with" in text
    assert "risk not available" in text
    assert "class unknown" in text
    assert not {"overlap", "distillation", "predictor"} & {attrs.get("id") for _, attrs in run.full.tags}
    assert "0%" not in {cell.strip() for table in run.full.tables for row in table for cell in row}


def test_zeros_and_open_intervals_are_shown_as_such(tmp_path: Path) -> None:
    data = sample_dict()
    data["models"]["soft"] |= {"memorized": 0, "rate": 0.0, "ci95": [0.0, 3.7e-6]}
    data["models"]["soft"]["survival"] = [1.0, *[0.001] * 10, *[0.0] * 40]
    data["comparison"]["soft"] |= {
        "inherited": 0,
        "inheritance_rate": 0.0,
        "inheritance_ci95": [0.0, 0.00188],
    }
    data["comparison"]["hard"] |= {"inheritance_rate": None, "inheritance_ci95": None}
    data["soft_vs_hard"] |= {
        "both": 0,
        "soft_only": 0,
        "hard_only": 49,
        "ratio": None,
        "ratio_ci95": [12.6, None],
    }
    run = Rendered(tmp_path, data)
    text = run.full.text.replace("\xa0", " ")
    assert "No example that only the teacher had memorized reappears in student “soft”." in text
    assert "No ratio: the soft student inherits none. 95% interval at least 13×" in text
    assert "95% interval at least 13×" in text
    assert "Of the two only hard student “hard” inherits from the teacher alone." in text


def test_checks_without_a_value_or_a_known_name_are_said_in_words(tmp_path: Path) -> None:
    check = {"student": "soft", "limit": 0.5, "value": None, "ci95": None, "verdict": "inconclusive"}
    checks = [{**check, "name": "max_ratio_to_baseline"}, {**check, "name": "max_surprise"}]
    gate = {"verdict": "inconclusive", "checks": checks}
    run = Rendered(tmp_path, sample_dict(gate=gate))
    assert "memorization relative to the baseline could not be measured." in run.full.text
    assert "2 are inconclusive" in run.full.text
    rows = run.full.table("Each student against the limits")[1:]
    assert [row[2:] for row in rows] == [
        ["Memorization relative to the baseline", "0.5×", "not available", "not available"],
        ["max surprise", "0.5", "not available", "not available"],
    ]


def test_several_baselines_are_compared_by_their_mean(tmp_path: Path) -> None:
    data = sample_dict()
    baseline = data["models"].pop("baseline")
    data["models"] |= {
        "baseline-1": baseline,
        "baseline-2": {**baseline, "memorized": 1802, "rate": 0.001802},
    }
    run = Rendered(tmp_path, data)
    assert "742 against 1,752 (mean of 2 baselines) of 1,000,000 examples" in run.full.text
    rows = {row[0]: row for row in run.full.table("Examples by who memorizes them")[1:]}
    assert rows["Baseline onlyonly the baseline memorizes it"][4] == "not available"


CHANCE = {
    "reference_inheritance": 0.31,
    "inheritance_floor": 0.28,
    "excess_inheritance": 0.03,
    "ratio_to_floor": 1.11,
    "floor_at_own_rate": 0.2,
    "excess_at_own_rate": 0.11,
}


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([0.01, 0.05], "has more of the teacher’s own examples than chance gives"),
        ([-0.01, 0.07], "may be chance"),
        ([-0.5, -0.4], "has fewer of the teacher’s own examples than chance gives"),
    ],
)
def test_inheritance_is_told_beside_what_chance_gives(tmp_path: Path, ends: list[float], words: str) -> None:
    data = sample_dict()
    for figures in data["comparison"].values():
        figures |= {**CHANCE, "excess_ci95": ends, "excess_at_own_rate_ci95": ends, "near_misses": None}
    text = Rendered(tmp_path, data).full.text.replace("'", "’")
    assert words in text
    assert (
        "the student holds 31%; other baselines, which never saw the teacher, hold 20% if each is cut at"
        in text
    )
    assert "Inherited beyond chance" in text
    assert "Excess over chance, in percentage points" in text
    assert "+3 points" in text
    assert "+11 points" in text
    assert "without that cut they hold 28%" in text


def test_one_baseline_says_how_far_chance_could_carry(tmp_path: Path) -> None:
    data = sample_dict()
    for figures in data["comparison"].values():
        figures |= {"near_misses": 7}
    run = Rendered(tmp_path, data)
    assert "Chance is not measured with one baseline: it nearly memorizes 7 of these" in run.full.text


def test_the_wider_interval_is_shown_and_named(tmp_path: Path) -> None:
    data = sample_dict()
    data["comparison"]["soft"] |= {
        "inheritance_ci95": [0.001, 0.002],
        "inheritance_ci95_by_document": [0.0001, 0.03],
        "difference_ci95": [-0.5, 0.5],
        "difference_ci95_by_document": [-0.1, 0.1],
    }
    text = Rendered(tmp_path, data).full.text
    assert "0.01% to 3%, by document" in text
    assert "\N{MINUS SIGN}50 points to +50 points" in text


def test_no_leak_shown_and_empty_run(tmp_path: Path) -> None:
    run = Rendered(tmp_path, max_examples=0)
    assert "The other 909 are in" in run.full.text
    assert "<article" not in run.html


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "results.json").unlink(), "results.json: cannot be read"),
        (lambda folder: (folder / "results.json").write_text('{"name": 3}'), "does not follow the schema"),
        (lambda folder: (folder / "leaks.parquet").unlink(), "leaks.parquet: cannot be read"),
        (lambda folder: (folder / "leaks.parquet").write_bytes(b"PAR1"), "leaks.parquet: cannot be read"),
    ],
)
def test_damaged_runs_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    write_run(tmp_path)
    spoil(tmp_path)
    with pytest.raises(RunStateError, match=message):
        render_reports(tmp_path, ReportConfig())


def _of_one_student(data: dict[str, Any]) -> None:
    del data["comparison"]["soft"]


def _of_unknown_students(data: dict[str, Any]) -> None:
    data["leak_suffixes"] = {"leaks": 3, "students": {}}


def _of_nothing(data: dict[str, Any]) -> None:
    data["corpus"]["examples"] = 0


def _of_negative_length(data: dict[str, Any]) -> None:
    data["extraction"]["suffix_tokens"] = -1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_of_one_student, "comparison and models name different students"),
        (_of_unknown_students, "leak_suffixes and models name different students"),
        (_of_nothing, "corpus.examples does not follow the schema"),
        (_of_negative_length, "extraction.suffix_tokens does not follow the schema"),
    ],
)
def test_results_that_do_not_fit_together_are_refused(tmp_path: Path, spoil: Any, message: str) -> None:
    data = sample_dict()
    write_run(tmp_path)
    spoil(data)
    (tmp_path / "results.json").write_text(json.dumps(data))
    words = [["report", str(tmp_path)], ["card", str(tmp_path), "--student", "soft", "--card", "new.md"]]
    for command in words:
        done = CliRunner().invoke(main, command)
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(
    ("column", "values"),
    [("suffix", pa.array([7])), ("prefix", pa.nulls(1, pa.string())), ("models", None)],
    ids=["numbers", "nulls", "null lists"],
)
def test_leaks_of_other_types_are_refused(tmp_path: Path, column: str, values: pa.Array | None) -> None:
    data = sample_dict(leaks=sample_leaks()[:1])
    write_run(tmp_path, data)
    table = pq.read_table(tmp_path / "leaks.parquet")
    place = table.schema.get_field_index(column)
    values = pa.nulls(1, table.schema.field(column).type) if values is None else values
    pq.write_table(table.set_column(place, column, values), tmp_path / "leaks.parquet")
    with pytest.raises(RunStateError, match=rf"leaks\.parquet: cannot be read \(column {column}: "):
        render_reports(tmp_path, ReportConfig())


def test_leak_without_its_text_is_refused(tmp_path: Path) -> None:
    data = sample_dict()
    write_run(tmp_path, data, [leak_row(leak, []) for leak in data["leaks"][1:]])
    missing = data["leaks"][0]["example_id"]
    with pytest.raises(RunStateError, match=f"example {missing} of results.json is not in it"):
        render_reports(tmp_path, ReportConfig(max_examples=2000))


@pytest.mark.parametrize("text", ["p ", "&<", "\u202e ", "漢字", "\U0001f600'"])
def test_large_audits_stay_small_and_name_the_cut(tmp_path: Path, text: str) -> None:
    data = sample_dict(leaks=sample_leaks([({"hard": "easy_core"}, 300)]))
    data["models"] |= {f"extra-{k}": data["models"]["teacher"] for k in range(3)}
    long = {"prefix": text * 5000, "suffix": text * 5000, "text": ""}
    said = [
        {"name": name, "matched_tokens": 9, "continuation": text * 900 + "z" + text * 900}
        for name in data["models"]
    ]
    run = Rendered(tmp_path, data, rows=[leak_row(leak, [], **long, models=said) for leak in data["leaks"]])
    for name, page in (("report.html", run.full), ("report.public.html", run.public)):
        assert (tmp_path / name).stat().st_size < 1_000_000
        assert "Shown: the first 200. The other 100 are in the audit’s leaks.parquet" in page.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.0017), "0.17%"),
        (percent(0.000012), "0.0012%"),
        (percent(0.957), "95.7%"),
        (percent(0.0697e-2), "0.070%"),
        (percent(0.99996), "99.996%"),
        (percent(1.0), "100%"),
        (percent(0.0), "0%"),
        (percent(0.001), "0.1%"),
        (percent(None), "not available"),
        (percent_interval((0.0005, 0.0009)), "0.05% to 0.09%"),
        (percent_interval((0.0, 0.00000369)), "0% to 0.00037%"),
        (percent_interval((0.0016211, 0.0016219)), "0.1621% to 0.1622%"),
        (percent_interval(None), "not available"),
        (times(2.7222), "2.7×"),
        (times_interval((1.8, None)), "at least 1.8×"),
        (times_interval((0.0, None)), "not bounded"),
        (times_interval((0.5, 2.0), (0.0, None)), "not bounded, by document"),
        (times_interval((None, 4.0)), "at most 4×"),
        (interval((None, None), times), "not available"),
        (points(-0.001001), "−0.10 points"),
        (points(0.0159), "+1.6 points"),
        (p_value(1e-9), "p < 0.001"),
        (p_value(0.0123), "p = 0.012"),
        (" ".join(apart(0.001004, 0.001, percent)), "0.1004% 0.1%"),
        (significant(1_955_000, 2), "1,955,000"),
    ],
)
def test_numbers_are_written_for_readers(text: str, expected: str) -> None:
    assert text.replace("\xa0", " ") == expected


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2.2 defines it."""
    digits = colour.lstrip("#")
    digits = "".join(c * 2 for c in digits) if len(digits) == 3 else digits
    parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


TEXT_PAIRS = [
    *[
        (ink, ground)
        for ink in ("ink", "soft-ink")
        for ground in ("page", "sheet", "sunk", "inconclusive-bg")
    ],
    *[("accent", "page"), ("mark-ink", "mark")],
    *[(verdict, f"{verdict}-bg") for verdict in ("pass", "fail", "inconclusive", "none")],
    *[("ink", f"{verdict}-bg") for verdict in ("pass", "fail", "inconclusive", "none")],
]


GRAPHIC_PAIRS = [
    (name, "sheet") for name in ("teacher", "baseline", "soft", "hard", "student", "both", "accent")
]


def test_contrast_meets_wcag_aa_in_light_dark_and_print(rendered: Rendered) -> None:
    blocks = re.findall(r":root \{(.*?)\}", rendered.full.style, re.DOTALL)
    assert len(blocks) == 3
    for block in blocks:
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]+)", block))
        for pairs, least in ((TEXT_PAIRS, 4.5), (GRAPHIC_PAIRS, 3.0)):
            for ink, ground in pairs:
                light, dark = sorted((luminance(colours[ink]), luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= least, (ink, ground)


def test_a_sample_is_told_from_a_census_at_the_top(tmp_path: Path) -> None:
    data = sample_dict(leaks=[])
    data["corpus"] |= {"sampled": True, "examples": 20_000}
    head = Rendered(tmp_path, data).public.text.split("Key figures")[0]
    assert (
        "A sample: 20,000 examples drawn at random from a corpus of 1,062,310 windows of text; 31,022 "
        in head
    )


def test_leaks_without_risk_or_tags_are_not_said_to_be_harmless(tmp_path: Path) -> None:
    leaks = [{**leak, "risk": None, "tags": []} for leak in sample_leaks()[:4]]
    run = Rendered(tmp_path, sample_dict(leaks=leaks))
    assert "Absence of a tag is not evidence of absence" in run.full.text
    assert "AUC for what “soft” memorizes, mean of 100 trials" in run.full.text
    assert "What it would have caught" not in run.full.text


def test_tags_are_counted_for_all_leaks_and_shown_on_each(tmp_path: Path) -> None:
    leaks = sample_leaks()[:5]
    for leak, tags in zip(
        leaks, (["email"], ["email", "secret"], [], ["secret"], ["zebra_one"]), strict=True
    ):
        leak |= {"tags": tags, "classes": {"hard": "inherited" if "secret" in tags else "easy_core"}}
    run = Rendered(tmp_path, sample_dict(leaks=leaks), max_examples=3)
    for page in (run.full, run.public):
        assert "4 leaks of 5 seem to hold personal data or secrets" in page.text
        assert page.table("Leaks by what they seem to hold")[1:] == [
            ["e-mail address", "2", "1"],
            ["key or token", "2", "2"],
            ["something else", "1", "0"],
        ]
    shown = [part.split("from token")[0] for part in run.full.text.split("Example ")[1:]]
    assert sum("key or token" in part for part in shown) == 2
    assert run.html.count('<article class="leak inherited"') == 2
    assert "zebra" not in run.public_html


def test_rounding_never_strengthens_the_guarantee(tmp_path: Path) -> None:
    data = sample_dict()
    data["predictor"]["promise"] = {"recall": 0.65199, "confidence": 0.95, "calibration_positives": 7}
    text = Rendered(tmp_path, data).full.text.replace("\xa0", " ")
    assert "at least 65.1% of the examples that “soft” memorizes" in text
    assert "65.2" not in text


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("easy_core", "It does not cover what a student inherits from the teacher alone."),
        ("teacher", "at least 99% of the examples that the teacher memorizes are flagged"),
    ],
)
def test_labels_bound_the_guarantee(tmp_path: Path, labels: str, words: str) -> None:
    data = sample_dict()
    data["predictor"]["labels"] = labels
    assert words in Rendered(tmp_path, data).public.text.replace("\xa0", " ")


def test_the_inherited_are_seen_beside_those_that_nobody_inherits(rendered: Rendered) -> None:
    html = rendered.html
    assert "All 1,955 teacher-specific examples" in html
    assert "soft only: 3. both: 15. hard only: 34. neither: 1,903." in html
    assert "soft only: 3. both: 15. hard only: 34. </desc>" in html
    bars = re.findall(r'<svg class="stacked".*?</svg>', html, re.DOTALL)
    for bar in bars:
        widths = [
            float(width) for width in re.findall(r'"fill [a-z]+" x="[\d.]+" y="0" width="([\d.]+)"', bar)
        ]
        assert sum(widths) == pytest.approx(100, abs=0.3)
        assert min(widths) > 0.7
    assert widths == pytest.approx([3 / 52 * 100, 15 / 52 * 100, 34 / 52 * 100], abs=0.06)


def test_entropy_clouds_are_drawn_point_by_point_on_shared_axes(rendered: Rendered) -> None:
    clouds = rendered.results["curves"]["entropy_logprob"]
    paths = re.findall(r'<path class="dots s [a-z]+" d="([^"]*)"', rendered.html.partition('id="entropy"')[2])
    assert len(paths) == len(clouds)
    every = [point for points in clouds.values() for point in points]
    xs, ys = [point["x"] for point in every], [point["y"] for point in every]
    for path, cloud in zip(paths, clouds.values(), strict=True):
        drawn = [tuple(map(float, dot.split())) for dot in re.findall(r"M([\d. ]+)h0", path)]
        places = [
            (
                60 + 266 * (p["x"] - min(xs)) / (max(xs) - min(xs)),
                240 - 210 * (p["y"] - min(ys)) / (max(ys) - min(ys)),
            )
            for p in cloud
        ]
        assert [x for dot in drawn for x in dot] == pytest.approx(
            [x for dot in places for x in dot], abs=0.06
        )


@pytest.mark.parametrize("status", ["disabled", "underpowered", "ok"])
def test_no_note_about_a_student_gives_a_reason(status: str) -> None:
    """Names are the user's: predictor-v2 must not answer for the predictor."""
    from kdaudit.reporting import missing_reasons
    from kdaudit.schemas.results import AuditResults

    data = bare_dict()
    data["predictor"] = {"status": status, "reason": None if status == "ok" else "It takes 59, 4 were found."}
    notes: list[Any] = []
    for name in ("predictor-v2", "predictor", "baseline", "inherit-teacher-specific", "soft-hard"):
        text = f"Student {name}: its ratio is undefined, since it memorizes nothing."
        notes += [text, {"code": "several_baselines", "subject": name, "text": text}]
    results = AuditResults.model_validate({**data, "notes": []})
    with_notes = AuditResults.model_validate({**data, "notes": notes})
    for why in (
        missing_reasons.why_no_predictor,
        missing_reasons.why_no_comparison,
        missing_reasons.why_no_inheritance,
        missing_reasons.why_no_soft_vs_hard,
    ):
        assert why(with_notes) == why(results)
    assert status == "ok" or "It takes 59, 4 were found." in missing_reasons.why_no_predictor(results)


def test_a_reason_is_asked_for_by_its_code() -> None:
    from kdaudit.reporting import missing_reasons
    from kdaudit.schemas.results import AuditResults

    def note(code: str, subject: str | None) -> dict[str, Any]:
        return {"code": code, "subject": subject, "text": f"The reason of {code}."}

    data = sample_dict(soft_vs_hard=None)
    data["predictor"] = {"status": "disabled"}
    codes = [
        ("no_predictor", "predictor", missing_reasons.why_no_predictor),
        ("ratio_undefined", "soft", missing_reasons.why_no_comparison),
        ("inheritance_undefined", "soft", missing_reasons.why_no_inheritance),
        ("inheritance_undefined", "soft", missing_reasons.why_no_soft_vs_hard),
    ]
    for code, subject, why in codes:
        results = AuditResults.model_validate(
            {**data, "notes": [note("no_holdout", None), note(code, subject)]}
        )
        assert why(results) == f"The reason of {code}."


def test_results_of_schema_version_1_are_read_and_rendered(tmp_path: Path) -> None:
    """Their notes are plain text; nothing else of them was otherwise."""
    told = ["Student soft: its ratio to the baseline is undefined.", "Without a holdout there is no floor."]
    write_run(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(sample_dict(schema_version="1", notes=told)))
    results = read_results(tmp_path)
    assert results.schema_version == "2"
    assert [(note.code, note.subject, note.text) for note in results.notes] == [
        ("note", None, text) for text in told
    ]
    card = tmp_path.with_name("card.md")
    for command in (
        ["report", str(tmp_path)],
        ["card", str(tmp_path), "--student", "soft", "--card", str(card)],
    ):
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.stderr
    assert all(text in Page((tmp_path / "report.html").read_text()).text for text in told)
    assert "kdaudit:begin" in card.read_text()


def test_results_of_another_schema_version_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps(sample_dict(schema_version="3")))
    with pytest.raises(RunStateError, match="schema_version does not follow the schema"):
        read_results(tmp_path)


def test_results_of_an_older_version_still_render(tmp_path: Path) -> None:
    """Before there was a predictor: no risk, no tags, no curves, no average precision."""
    data = sample_dict(predictor={"status": "disabled"}, curves={})
    for leak in data["leaks"]:
        leak |= {"risk": None, "tags": []}
    run = Rendered(tmp_path, data)
    assert "Caught by the risk predictor: not available." in run.public.text
    assert "inherited from the teacher, then by copies" in run.full.text


def test_a_configuration_that_cannot_be_read_any_more_keeps_no_report_back(tmp_path: Path) -> None:
    Rendered(tmp_path)
    (tmp_path / "config.yaml").write_text(
        "name: x\nkey_of_another_version: 1\nreport: {document_ids: true}\n"
    )
    (tmp_path / "report.html").unlink()
    done = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert done.stderr.startswith("kdaudit: warning: the report is rendered with default settings: ")
    assert (tmp_path / "report.html").exists()
    assert "crawl-" not in (tmp_path / "report.public.html").read_text()
