"""Every number on the reports equals its place in results.json, or follows from it as written out here.

Each section's numbers are read from the page and must be, as precisely as they are shown, among the values
that belong into that section. The tables are compared cell by cell besides.
"""
# ruff: noqa: RUF001 - the pages have their own signs

from __future__ import annotations

import copy
import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest
from report_page import Page, Rendered, number
from sample_results import bare_dict, sample_dict

_NUMBER = re.compile(r"(?<![\w.])([−+-]?\d[\d,]*(?:\.\d+)?)(%|×|\xa0points)?")


class Value(NamedTuple):
    """A number as results.json has it, brought to the unit that it is shown in."""

    value: float
    unit: str = ""


def counts(*values: float | None) -> list[Value]:
    return [Value(value) for value in values if value is not None]


def shares(*values: float | None) -> list[Value]:
    return [Value(value * 100, "%") for value in values if value is not None]


def times(*values: float | None) -> list[Value]:
    return [Value(value, "×") for value in values if value is not None]


def points(*values: float | None) -> list[Value]:
    return [Value(value * 100, "points") for value in values if value is not None]


def ends(ci95: list[float | None] | None) -> list[float | None]:
    return ci95 or []


def p_values(value: float | None) -> list[Value]:
    return [] if value is None else counts(0.001 if value < 0.001 else value)


def of_models(results: dict[str, Any]) -> list[Value]:
    found = []
    for model in results["models"].values():
        found += counts(
            model["examples"], model["memorized"], model["windows_memorized"], model["perplexity"]
        )
        found += shares(model["rate"], *model["ci95"])
        if model["holdout"]:
            found += counts(model["holdout"]["examples"], model["holdout"]["memorized"])
            found += shares(model["holdout"]["rate"])
        for k in (1, 10, 20, 30, 40, 50):
            found += [*shares(model["survival"][k]), Value(k)]
    return found


def of_comparison(results: dict[str, Any]) -> list[Value]:
    """Figures and the seven combinations, the latter worked out from the counts of all models."""
    found, memorized = [], {model["role"]: model["memorized"] for model in results["models"].values()}
    for one in results["comparison"].values():
        found += times(one["ratio_to_baseline"], *ends(one["ratio_ci95"]))
        found += points(one["difference"], *ends(one["difference_ci95"])) + p_values(one["mcnemar_p"])
        found += shares(one["share_in_easy_core"], one["inheritance_rate"], *ends(one["inheritance_ci95"]))
        inside = [one[key] for key in ("easy_core", "inherited", "with_baseline", "student_only")]
        found += counts(*inside, one["teacher_specific"])
        if one["teacher_specific"] is not None and "baseline" in memorized:
            both = memorized["teacher"] - one["teacher_specific"]
            found += counts(both - one["easy_core"], one["teacher_specific"] - one["inherited"])
            found += counts(memorized["baseline"] - both - one["with_baseline"])
    return found


def of_pair(results: dict[str, Any]) -> list[Value]:
    pair = results["soft_vs_hard"]
    if pair is None:
        return []
    specific = results["comparison"][pair["hard"]]["teacher_specific"]
    parts = [pair["both"], pair["soft_only"], pair["hard_only"]]
    found = counts(*parts, sum(parts), specific, specific - sum(parts))
    for model in (results["models"][pair["soft"]], results["models"][pair["hard"]]):
        found += counts(model["examples"], model["memorized"], model["perplexity"])
    found += times(pair["ratio"], *ends(pair["ratio_ci95"]))
    found += points(pair["difference"], *ends(pair["difference_ci95"]))
    return found + p_values(pair["mcnemar_p"]) + shares(pair["share_of_hard_in_soft"])


def of_caught(results: dict[str, Any]) -> list[Value]:
    threshold, found = results["predictor"].get("threshold"), []
    groups = [results["leaks"], [one for one in results["leaks"] if "inherited" in one["classes"].values()]]
    groups += [[one for one in results["leaks"] if name in one["classes"]] for name in results["comparison"]]
    for group in groups if threshold is not None else []:
        flagged = sum(one["risk"] >= threshold for one in group)
        found += counts(len(group), flagged, len(group) - flagged) + shares(flagged / (len(group) or 1))
    return found


def of_guarantee(results: dict[str, Any]) -> list[Value]:
    """Rounded down: to a tenth of a percent, from 99% on to a thousandth."""
    guarantee = results["predictor"].get("promise")
    if not guarantee:
        return []
    down = [
        math.floor(value * 100 * by + 1e-6) / by
        for value in (guarantee["recall"], guarantee["confidence"])
        for by in [1000 if value >= 0.99 else 10]
    ]
    return [*[Value(value, "%") for value in down], Value(guarantee["calibration_positives"])]


def of_predictor(results: dict[str, Any]) -> list[Value]:
    found, one = of_caught(results) + of_guarantee(results), results["predictor"]
    found += counts(*(one.get(key) for key in ("positives", "trials", "flagged", "threshold", "intercept")))
    for key in ("auc", "average_precision", "recall", "precision"):
        found += counts(*(one.get(key) or {}).values())
    found += counts(*(one.get("coefficients") or {}).values(), results["corpus"]["examples"])
    return found + of_curves(results["curves"])


def of_curves(curves: dict[str, Any]) -> list[Value]:
    found = shares(0.01, 0.9)  # where the two curves are read off
    if curves.get("roc"):
        left, right = next(two for two in pairwise(curves["roc"]) if two[1]["x"] > 0.01)
        slope = (right["y"] - left["y"]) / (right["x"] - left["x"])
        found += shares(left["y"] + slope * (0.01 - left["x"]))
        found += shares(max(one["y"] for one in curves["precision_recall"] if one["x"] >= 0.9))
    histogram = curves.get("risk_histogram") or {"edges": []}
    for name in histogram.keys() - {"edges"}:
        most = histogram[name].index(max(histogram[name]))
        found += counts(sum(histogram[name]), max(histogram[name]), *histogram["edges"][most : most + 2])
    found += counts(len(curves.get("calibration") or []))
    for cloud in (curves.get("entropy_logprob") or {}).values():
        top = sorted(cloud, key=lambda one: one["x"])[-(len(cloud) // 4) :]
        middle = [median(one[axis] for one in group) for group in (cloud, top) for axis in "xy"]
        found += counts(len(cloud), *middle)
    return found


def of_checks(results: dict[str, Any]) -> list[Value]:
    checks = results["gate"]["checks"]
    found = counts(len(checks), *(sum(one["verdict"] == word for one in checks) for word in ("pass", "fail")))
    found += counts(sum(one["verdict"] == "pass" and one["ci95"][1] > one["limit"] for one in checks))
    for check in checks:
        form = {"max_ratio_to_baseline": times, "max_inherited": counts}.get(check["name"], shares)
        found += form(check["limit"], check["value"], *ends(check["ci95"]))
    return found


def of_key_figures(results: dict[str, Any]) -> list[Value]:
    """The figures of their sections, and what the sentences make of them."""
    found = of_comparison(results) + of_pair(results) + of_caught(results) + of_guarantee(results)
    found += counts(*(model["memorized"] for model in results["models"].values()))
    found += counts(len(results["comparison"]))
    found += counts(len(results["leaks"]), sum(bool(one["tags"]) for one in results["leaks"]))
    flagged, examples = results["predictor"].get("flagged"), results["corpus"]["examples"]
    found += counts(examples, flagged, results["predictor"].get("positives"))
    found += shares(None if flagged is None else flagged / examples)
    for one in results["comparison"].values():
        if one["ratio_to_baseline"]:
            found += shares(1 - one["ratio_to_baseline"]) + counts(1, round(1 / one["inheritance_rate"]))
    if results["soft_vs_hard"]:
        pair = results["soft_vs_hard"]
        hard, soft = pair["both"] + pair["hard_only"], pair["both"] + pair["soft_only"]
        found += counts(hard, soft, hard / soft)
    return found


def of_leaks(results: dict[str, Any], texts: list[dict[str, Any]]) -> list[Value]:
    leaks = results["leaks"]
    found = counts(
        len(leaks), min(200, len(leaks)), len(leaks) - 200, sum(bool(one["tags"]) for one in leaks)
    ) + counts(results["corpus"]["examples"])
    for tag in {tag for one in leaks for tag in one["tags"]}:
        tagged = [one for one in leaks if tag in one["tags"]]
        found += counts(len(tagged), sum("inherited" in one["classes"].values() for one in tagged))
    for leak in leaks:
        found += counts(leak["example_id"], leak["copies"], leak["risk"])
    for text in texts:
        found += counts(text["offset"], *(said["matched_tokens"] for said in text["models"]))
    return found


def of_method(results: dict[str, Any]) -> list[Value]:
    corpus = results["corpus"]
    found = counts(
        *(corpus[key] for key in ("documents", "windows", "examples")), *corpus["skipped"].values()
    )
    for model in results["models"].values():
        found += counts(model["seconds"], model["tokens_per_second"])
        if near := model.get("below_rounding"):
            found += counts(near["memorized"], near["others"], model["memorized"]) + shares(near["share"])
    return found + counts(results["seed"])


def of_reviewers(results: dict[str, Any]) -> list[Value]:
    """Figures of the audit, and the opinion's number, date and paragraphs."""
    leaks = results["leaks"]
    found = of_models(results) + of_comparison(results) + of_method(results)
    found += counts(len(leaks), sum(bool(one["tags"]) for one in leaks))
    return found + counts(28, 2024, 17, 34, 43, 46, 55, 58, 256)  # SHA-256


def by_section(results: dict[str, Any], texts: list[dict[str, Any]]) -> dict[str, list[Value]]:
    tokens = [results["extraction"][key] for key in ("prefix_tokens", "suffix_tokens")]
    always = [*counts(*tokens, sum(tokens)), Value(95, "%")]
    worst = max(
        (one for one in results["models"].values() if one["role"] == "student"), key=lambda m: m["rate"]
    )
    left_out = sum(results["corpus"]["skipped"].values())
    head = counts(results["corpus"]["examples"], len(results["models"]), left_out)
    found = {
        "head": head,
        "verdict": of_checks(results)
        + counts(
            *(one[key] for one in results["comparison"].values() for key in ("inherited", "teacher_specific"))
        )
        + counts(len(results["leaks"]), worst["memorized"], worst["examples"])
        + shares(*(model["rate"] for model in results["models"].values())),
        "figures": of_key_figures(results),
        "gate": of_checks(results),
        "models": of_models(results),
        "overlap": of_comparison(results),
        "distillation": of_pair(results),
        "predictor": of_predictor(results),
        "leaks": of_leaks(results, texts),
        "method": of_method(results),
        "limits": [],
        "reviewers": of_reviewers(results),
        "notes": [],
        "repeat": [],
    }
    return {section: values + always for section, values in found.items()}


def unexplained(
    page: Page, results: dict[str, Any], texts: list[dict[str, Any]], without: str = ""
) -> list[str]:
    """Numbers of the page that are none of their section's, and the section."""
    found = []
    for section, values in by_section(results, texts).items():
        text = page.sections.get(section, "") if section != without else ""
        for words in names(results):
            text = text.replace(words, " ")
        for shown, unit in _NUMBER.findall(text):
            bare = shown.replace(",", "").replace("−", "-")
            # Percents, ratios and points have two digits, fewer only where they are exact.
            exact = unit and len(bare.lstrip("+-").replace(".", "").lstrip("0")) < 2
            slack = 1e-9 if exact else 0.5 * 10 ** -len(bare.partition(".")[2]) * (1 + 1e-6)
            nearest = (abs(float(bare) - one.value) for one in values if one.unit == unit.strip("\xa0"))
            if min(nearest, default=math.inf) > slack:
                found.append(f"{section}: {shown}{unit}")
    return found


def names(results: dict[str, Any]) -> Iterator[str]:
    """What holds digits and is no figure, as it stands on the page."""
    yield from (results["created"], results["created"][:10], results["kdaudit_version"], results["name"])
    yield from (results["extraction"]["engine_version"], results["extraction"]["device"], "HMAC-SHA256")
    for note in results["notes"]:
        yield from (note["text"], re.sub(r"/home/owner/private stuff/", "", note["text"]))
    if reason := results["predictor"].get("reason"):
        yield reason
    yield "‹U+202E›"


def distinct() -> dict[str, Any]:
    """A sample in which no two figures of one section read alike."""
    data = sample_dict()
    for place, model in enumerate(data["models"].values(), 1):
        model["survival"] = [1.0, *(0.9 * share + 7e-4 for share in model["survival"][1:-1]), model["rate"]]
        model["holdout"] = {
            "examples": 100_000 + place,
            "memorized": 3 * place,
            "rate": place * 31e-6,
            "ci95": [0, 1],
        }
    data["comparison"]["soft"] |= {"ratio_ci95": [0.381, 0.4531], "difference_ci95": [-0.00128, -0.00069]}
    data["comparison"]["hard"] |= {"mcnemar_p": 0.0213, "difference": -0.00083}
    data["comparison"]["hard"]["difference_ci95"] = [-0.00094, -0.00072]
    data["predictor"] |= {"trials": 87, "recall": {"mean": 0.9963, "low": 0.9871, "high": 0.9982}}
    data["predictor"]["promise"]["recall"] = 0.9827
    for place, check in enumerate(data["gate"]["checks"]):
        check |= {"ci95": [check["value"] * (0.9 - place / 100), check["value"] * (1.17 + place / 30)]}
    data["soft_vs_hard"]["mcnemar_p"] = 0.00471
    return data


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("run"), distinct())


def texts_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "leaks.parquet", columns=["offset", "models"]).to_pylist()


@pytest.fixture(scope="module")
def texts(rendered: Rendered) -> list[dict[str, Any]]:
    return texts_of(rendered.folder)


@pytest.mark.parametrize("kind", ["full", "public"])
def test_no_number_is_on_a_page_that_results_do_not_hold(
    rendered: Rendered, texts: list[dict[str, Any]], kind: str
) -> None:
    page = getattr(rendered, kind)
    assert unexplained(page, rendered.results, texts) == []
    assert page.sections.keys() == by_section(rendered.results, texts).keys()
    assert len(_NUMBER.findall(" ".join(page.sections.values()))) > 600


def test_no_number_is_unexplained_on_a_page_with_little_in_it(tmp_path: Path) -> None:
    run = Rendered(tmp_path, bare_dict())
    for page in (run.full, run.public):
        assert unexplained(page, run.results, texts_of(tmp_path)) == []


def leaves(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(part, dict | list):
        for key, inner in part.items() if isinstance(part, dict) else enumerate(part):
            yield from leaves(inner, (*path, key))
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield path


def value_at(results: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        results = results[key]
    return results


def without_value(results: dict[str, Any], value: float) -> dict[str, Any]:
    """The results with another number wherever this one stands: a rate is the survival curve's end, too."""
    changed = copy.deepcopy(results)
    for path in leaves(results):
        if value_at(results, path) == value:
            value_at(changed, path[:-1])[path[-1]] = value * 1.73 + 7
    return changed


SHOWN = ("corpus", "models", "comparison", "soft_vs_hard", "predictor", "gate")
UNSHOWN = {("holdout", "ci95"), ("survival",), ("mcnemar_p",), ("seed",), ("examples",), ("confidence",)}
"""Not on the page in this form, or there as a bound only, or equal for all models."""


def test_a_number_changed_in_results_is_missed_on_the_page(
    rendered: Rendered,
) -> None:
    """Each figure of results.json is on the page, and the comparison above would see it differ."""
    blind = []
    for top in SHOWN:
        for path in leaves(rendered.results[top], (top,)):
            if any(set(keys) <= set(path) for keys in UNSHOWN):
                continue
            changed = without_value(rendered.results, value_at(rendered.results, path))
            if not unexplained(rendered.full, changed, [], without="leaks"):
                blind.append(".".join(map(str, path)))
    assert not blind, " ".join(blind)


@pytest.mark.parametrize("kind", ["full", "public"])
def test_models_table_agrees_with_results(rendered: Rendered, kind: str) -> None:
    rows = getattr(rendered, kind).table("Memorization of each model")[1:]
    assert len(rows) == len(rendered.results["models"])
    for cells, (name, model) in zip(rows, rendered.results["models"].items(), strict=True):
        assert cells[0].strip().startswith(name)
        assert number(cells[1]) == model["examples"]
        assert number(cells[2]) == model["memorized"]
        assert number(cells[3]) / 100 == pytest.approx(model["rate"], rel=0.01)
        low, high = cells[4].split(" to ")
        assert [number(low) / 100, number(high) / 100] == pytest.approx(model["ci95"], rel=0.04)
        assert number(cells[5]) == model["windows_memorized"]
        assert number(cells[7]) == pytest.approx(model["perplexity"])


def test_students_table_agrees_with_results(rendered: Rendered) -> None:
    table = {row[0]: row[1:] for row in rendered.full.table("Students against teacher and baseline")}
    figures = rendered.results["comparison"]
    for column, name in enumerate(("soft", "hard")):
        one = figures[name]
        for row, key in [
            ("Memorized by teacher and baseline too (easy core)", "easy_core"),
            ("Teacher-specific examples", "teacher_specific"),
            ("Inherited of these", "inherited"),
            ("Memorized with a baseline, not by the teacher", "with_baseline"),
            ("Memorized by the student only", "student_only"),
        ]:
            assert number(table[row][column]) == one[key]
    assert table["Rate, relative to the baseline"] == ["0.41×0.38× to 0.45×", "0.44×0.40× to 0.47×"]
    assert table["Inheritance rate"] == ["0.92%0.55% to 1.5%", "2.5%1.9% to 3.3%"]
    assert table["Share of the student’s memorized examples in the easy core"] == ["95.7%", "91.1%"]
    assert table["Exact McNemar test of that difference"] == ["p < 0.001", "p = 0.021"]


def test_overlap_adds_up_to_each_model(rendered: Rendered) -> None:
    rows = rendered.full.table("Examples by who memorizes them")[1:]
    models = rendered.results["models"]
    for column, student in ((4, "soft"), (6, "hard")):
        for position, name in ((1, "teacher"), (2, "baseline"), (3, student)):
            counted = sum(number(row[column]) for row in rows if "yes" in row[position])
            assert counted == models[name]["memorized"]


def test_survival_table_and_soft_against_hard(rendered: Rendered) -> None:
    head, *rows = rendered.full.table("Share of examples with at least")
    for cells in rows:
        survival = rendered.results["models"][cells[0]]["survival"]
        for k, cell in zip(head[1:], cells[1:], strict=True):
            assert number(cell) / 100 == pytest.approx(survival[int(k)], rel=0.05)
    table = rendered.full.table("Teacher-specific examples by who inherits them")
    assert [[number(cell) for cell in row[1:]] for row in table[1:]] == [[15, 3], [34, 1903]]
    soft, hard = (rendered.results["models"][name] for name in ("soft", "hard"))
    section = rendered.full.sections["distillation"].replace("\xa0", " ")
    assert f"hard {hard['memorized']:,}, soft {soft['memorized']:,} of 1,000,000 examples" in section
    assert f"hard {hard['perplexity']}, soft {soft['perplexity']}" in section
    assert (
        f"“soft” in place of “hard”: 18 inherited in place of 49, and {soft['memorized']:,} "
        f"memorized in all in place of {hard['memorized']:,}."
    ) in rendered.full.text.replace("\xa0", " ")


def test_what_was_caught_follows_from_the_leaks(rendered: Rendered) -> None:
    leaks, threshold = rendered.results["leaks"], rendered.results["predictor"]["threshold"]
    kinds = {
        "All students": leaks,
        "Inherited from the teacher": [one for one in leaks if "inherited" in one["classes"].values()],
        **{
            f"Student “{name}”": [one for one in leaks if name in one["classes"]] for name in ("soft", "hard")
        },
    }
    for page in (rendered.full, rendered.public):
        rows = page.table("What it would have caught")[1:]
        assert [row[0] for row in rows] == list(kinds)
        for row, group in zip(rows, kinds.values(), strict=True):
            flagged = sum(one["risk"] >= threshold for one in group)
            assert [number(cell) for cell in row[1:4]] == [len(group), flagged, len(group) - flagged]
            assert number(row[4]) == pytest.approx(100 * flagged / len(group), abs=0.05)


@pytest.mark.parametrize("kind", ["full", "public"])
def test_coefficients_and_entropies_cell_by_cell(rendered: Rendered, kind: str) -> None:
    page = getattr(rendered, kind)
    predictor = rendered.results["predictor"]
    shown = {row[0]: number(row[1]) for row in page.table("Coefficients on standardized")[1:]}
    wanted = {
        name.replace("_", " ").replace("kl", "KL"): value for name, value in predictor["coefficients"].items()
    }
    assert shown == pytest.approx({**wanted, "intercept": predictor["intercept"]})
    rows = page.table("The same in figures")[2:]
    for cells, (name, cloud) in zip(rows, rendered.results["curves"]["entropy_logprob"].items(), strict=True):
        top = sorted(cloud, key=lambda one: one["x"])[-(len(cloud) // 4) :]
        medians = [median(one[axis] for one in group) for group in (cloud, top) for axis in "xy"]
        assert cells[0] == name
        assert [number(cell) for cell in cells[1:]] == pytest.approx([len(cloud), *medians], rel=0.006)


def test_each_leak_carries_its_own_figures(rendered: Rendered) -> None:
    by_id = {leak["example_id"]: leak for leak in rendered.results["leaks"]}
    rows = rendered.public.table("Leaked examples")[1:]
    assert len(rows) == 200
    for example, kinds, classes, risk, copies, tokens, digest in rows:
        leak = by_id[int(example)]
        words = {"email": "e-mail address", "phone": "phone number"}
        assert " ".join(kinds.split()) == (" ".join(words[tag] for tag in leak["tags"]) or "no tag")
        assert (
            classes.split()
            == " ".join(
                f"{student}: {word.replace('_', ' ')}" for student, word in leak["classes"].items()
            ).split()
        )
        assert float(risk) == pytest.approx(leak["risk"], abs=0.0005)
        assert (number(copies), tokens, digest) == (leak["copies"], "50, 50", leak["suffix_hmac"])
    cards = re.findall(
        r"Example (\d+)</h3>.*?; ([\d,]+) cop(?:y|ies) in the corpus; risk ([\d.]+)", rendered.html, re.S
    )
    assert len(cards) == 200
    for example, copies, risk in cards:
        assert number(copies) == by_id[int(example)]["copies"]
        assert float(risk) == pytest.approx(by_id[int(example)]["risk"], abs=0.0005)
