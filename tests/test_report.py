"""The reports against results.json: figures, safety, redaction, absent figures."""
# ruff: noqa: RUF001 - what the pages show has its own signs, and hostile text is what is tested

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
import time
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sample_results import (
    HOSTILE_TITLE,
    LOCAL_PATH,
    bare_dict,
    hostile_dict,
    leak_row,
    sample_dict,
    sample_leaks,
    write_run,
)

from kdaudit.config.audit import ReportConfig
from kdaudit.errors import RunStateError
from kdaudit.report.formatting import (
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
from kdaudit.report.redaction import public_corpus_name, visible, without_paths
from kdaudit.report.render import render_reports

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, visible text, tables and nesting of a page, read by the standard library's parser."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: list[list[list[str]]] = []
        self.captions: list[str] = []
        self.style = ""
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append([])
            self.captions.append("")
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"unbalanced </{tag}>"

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.words.append(data)
        if "caption" in self.open:
            self.captions[-1] += data
        elif {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.replace("\xa0", " ")

    def table(self, caption: str) -> list[list[str]]:
        return self.tables[next(i for i, text in enumerate(self.captions) if text.startswith(caption))]


class Rendered:
    """A run's three rendered files."""

    def __init__(self, folder: Path, results: dict[str, Any] | None = None, **config: Any) -> None:
        rows = config.pop("rows", None)
        write_run(folder, results, rows)
        render_reports(folder, ReportConfig(**config))
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.public_html = (folder / "report.public.html").read_text(encoding="utf-8")
        self.card = (folder / "card.md").read_text(encoding="utf-8")
        self.full, self.public = Page(self.html), Page(self.public_html)
        self.results = json.loads((folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    data, rows = hostile_dict()
    folder = tmp_path_factory.mktemp("hostile")
    return Rendered(folder, data, rows=rows, title=HOSTILE_TITLE, document_ids=True)


def number(cell: str) -> float:
    return float(re.sub(r"[^0-9.−-]", "", cell).replace("−", "-"))


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
    assert table["Rate, relative to the baseline"] == ["0.41×0.38× to 0.44×", "0.44×0.40× to 0.47×"]
    assert table["Inheritance rate"] == ["0.92 %0.55 % to 1.5 %", "2.5 %1.9 % to 3.3 %"]
    assert table["Share of the student’s memorized examples in the easy core"] == ["95.7 %", "91.1 %"]
    assert table["Exact McNemar test of that difference"] == ["p < 0.001", "p < 0.001"]


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


def test_key_figures_are_said(rendered: Rendered) -> None:
    text = rendered.full.text.replace("\xa0", " ")
    for words in (
        "742 against 1,702 of 1,000,000 examples",
        "Student hard memorizes 56 % less than a model of its size trained without a teacher.",
        "18 of 1,955 examples that the teacher memorizes and no baseline does",
        "About 1 in 40 of the examples that only the teacher had memorized reappears in student hard.",
        "The hard student inherits 2.7 times as much from the teacher alone as the soft one.",
        "hard inherits 49, soft 18 of 1,955 teacher-specific examples",
        "95 % interval 1.8× to 4.1×",
        "0.9997",
        "With 95 % confidence at least 99 % of examples of this kind are flagged",
        "909 examples memorized by at least one student",
        "Shown: the first 200. The other 709",
        "kdaudit run audit.yaml",
    ):
        assert words in text, words


VERDICTS = {
    "fail": "Student hard reproduces 2.5 % of the training examples that only the teacher had memorized, "
    "more than the 1 % allowed.",
    "pass": "All 5 checks pass; closest to its limit, student soft reproduces 0.92 % of the training "
    "examples that only the teacher had memorized, within the 1 % allowed.",
    "none": "The student that memorizes most, hard, reproduces 0.074 % of the training examples "
    "(742 of 1,000,000) word for word; a model of its size trained without the teacher reproduces 0.17 %.",
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


def test_inconclusive_verdict_names_interval_and_limit(tmp_path: Path) -> None:
    check = {"name": "max_rate", "student": "soft", "limit": 0.001, "value": 0.0008, "ci95": [0.0005, 0.0012]}
    gate = {"verdict": "inconclusive", "checks": [{**check, "verdict": "inconclusive"}]}
    data = sample_dict(gate=gate, leaks=[])
    data["corpus"]["sampled"] = True
    text = Rendered(tmp_path, data).full.text.replace("\xa0", " ")
    assert "reproduces 0.08 % of the training examples" in text
    assert "0.05 % to 0.12 % is possible, on both sides of the 0.1 % allowed." in text
    assert "No student memorizes any example of the corpus." in text


@pytest.mark.parametrize("name", ["rendered", "hostile"])
def test_pages_cannot_act_or_load(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    for page in (run.full, run.public):
        names = {tag for tag, _ in page.tags}
        assert not names & {
            "script",
            "iframe",
            "object",
            "embed",
            "img",
            "link",
            "base",
            "form",
            "foreignobject",
        }
        for _, attrs in page.tags:
            assert not {key for key in attrs if key == "style" or key.startswith("on")}
            assert "src" not in attrs
            assert (attrs.get("href") or "#").startswith("#")
        assert page.open == []
        digest = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
        metas = [attrs for tag, attrs in page.tags if tag == "meta"]
        policy = next(m["content"] for m in metas if m.get("http-equiv") == "Content-Security-Policy") or ""
        assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'")
        assert {"name": "referrer", "content": "no-referrer"} in metas
        assert [tag for tag, _ in page.tags].count("style") == 1
        assert "url(" not in page.style
        assert "@import" not in page.style


def test_pages_are_accessible(rendered: Rendered) -> None:
    for page in (rendered.full, rendered.public):
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in pairwise(levels))
        assert all(page.captions)
        assert all("scope" in attrs for tag, attrs in page.tags if tag == "th")
        for tag, attrs in page.tags:
            if tag == "svg" and "class" in attrs:
                assert attrs.get("role") == "img" or attrs.get("aria-hidden") == "true"
            if "scroll" in (attrs.get("class") or "").split():
                assert attrs["tabindex"] == "0"
                assert attrs["aria-label"]
        ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(ids) == len(set(ids))
        targets = {(attrs.get("href") or "#main")[1:] for _, attrs in page.tags}
        assert targets <= set(ids)


def test_hostile_text_is_shown_and_harmless(hostile: Rendered) -> None:
    text = "".join(hostile.full.words)
    assert "</style><script>document.title='owned'</script>" in text
    assert "{{ 7*7 }}{% raw %}{{ config }}" in text
    assert "‹U+202E›gnp.exe‹U+202C› ‹U+2066›isolate‹U+2069›" in text
    assert "nul‹U+0000› bell‹U+0007› escape‹U+001B›[31m del‹U+007F› nel‹U+0085› line‹U+2028›" in text
    assert "\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji, שלום עולם, مرحبا بالعالم" in text
    assert "[4,400 characters cut]" in text
    for html in (hostile.html, hostile.public_html, hostile.card):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]", html)
    assert re.search(r"(?<!\\)<", hostile.card) is None
    assert "49" not in hostile.public.text.split("Notes", 1)[1].split("How to repeat")[0]


def test_long_text_keeps_the_ends_that_meet(tmp_path: Path) -> None:
    leak = sample_leaks()[0]
    row = leak_row(leak, ["teacher"], prefix="P" * 3000 + "meets", suffix="here" + "S" * 3000, models=[])
    run = Rendered(tmp_path, sample_dict(leaks=[leak]), rows=[row])
    assert "Pmeetshere" in "".join(run.full.words)
    assert "[2,405 characters cut]" in run.full.text
    assert "[2,404 characters cut]" in run.full.text


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
    assert "2 of 50 tokens, then leaves the text" in html


def test_leaks_are_worst_first(rendered: Rendered) -> None:
    shown = [int(found) for found in re.findall(r'<h3 id="leak-\d+">Example (\d+)</h3>', rendered.html)]
    assert len(shown) == 200
    by_id = {leak["example_id"]: leak for leak in rendered.results["leaks"]}
    inherited = ["inherited" in by_id[one]["classes"].values() for one in shown]
    assert inherited == [True] * 52 + [False] * 148
    for part in (shown[:52], shown[52:]):
        risks = [by_id[one]["risk"] for one in part]
        assert risks == sorted(risks, reverse=True)
    public = [int(row[0]) for row in rendered.public.table("Leaked examples")[1:]]
    assert public == shown
    hashes = [row[-1] for row in rendered.public.table("Leaked examples")[1:]]
    assert hashes == [by_id[one]["suffix_hmac"] for one in shown]


def shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[k : k + 5]) for k in range(len(words) - 4)}


def test_public_files_hold_no_training_text(rendered: Rendered) -> None:
    leaked: set[str] = set()
    for leak in rendered.results["leaks"]:
        row = leak_row(leak, list(rendered.results["models"]))
        leaked |= shingles(row["text"])
        for said in row["models"]:
            leaked |= shingles(said["continuation"])
    assert shingles(rendered.full.text) & leaked
    for text in (rendered.public.text, rendered.card):
        assert not shingles(text) & leaked
    for text in (rendered.public_html, rendered.card):
        assert "crawl-" not in text
        assert "owner" not in text.replace("owner of the audit", "")
        assert "private stuff" not in text
        assert "train.parquet" in text
        assert "e-mail address" not in text
    assert LOCAL_PATH in rendered.full.text
    assert "report.public.html" in rendered.card
    assert "report.html" not in rendered.card


def test_document_ids_are_public_only_when_allowed(tmp_path: Path) -> None:
    run = Rendered(tmp_path, document_ids=True)
    ids = {leak["document_id"] for leak in run.results["leaks"]}
    shown = {row[1] for row in run.public.table("Leaked examples")[1:]}
    assert len(shown) == 200
    assert shown <= ids


def test_only_the_owner_can_read_the_full_report(tmp_path: Path) -> None:
    Rendered(tmp_path)
    assert stat.S_IMODE((tmp_path / "report.html").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "report.public.html").stat().st_mode) == 0o644


def test_absent_figures_are_said_in_words(tmp_path: Path) -> None:
    run = Rendered(tmp_path, bare_dict())
    for text in (run.full.text, run.public.text, run.card):
        assert not re.search(r"\b(None|nan|null|Undefined)\b", text)
    text = run.full.text.replace("\xa0", " ")
    assert text.count("No baseline was audited") >= 3
    assert "It takes a soft and a hard student" in text
    assert "Too few memorized examples (4 found)" in text
    assert "it takes 59 memorized examples, 4 were found" in text
    assert "No held-out text was audited" in text
    assert "there is no baseline to compare it with" in text
    assert "risk not available" in text
    assert "class unknown" in text
    figures = run.full.table("Students against teacher and baseline")[1:]
    assert {cell for row in figures for cell in row[1:]} == {"not available"}
    assert "0 %" not in {cell.strip() for table in run.full.tables for row in table for cell in row}


def test_zeros_and_open_intervals(tmp_path: Path) -> None:
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
    assert "Nothing that only the teacher had memorized reappears in student soft." in text
    assert "Not available: the soft student inherits none." in text
    assert "95 % interval at least 13×" in text
    assert "Only the hard student inherits from the teacher alone." in text


def test_checks_without_a_value_or_a_known_name_are_said_in_words(tmp_path: Path) -> None:
    check = {"student": "soft", "limit": 0.5, "value": None, "ci95": None, "verdict": "inconclusive"}
    checks = [{**check, "name": "max_ratio_to_baseline"}, {**check, "name": "max_surprise"}]
    gate = {"verdict": "inconclusive", "checks": checks}
    run = Rendered(tmp_path, sample_dict(gate=gate))
    assert "memorization relative to the baseline could not be measured." in run.full.text
    assert "2 are inconclusive" in run.full.text
    rows = run.full.table("What each student was held against")[1:]
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


def test_leak_without_its_text_is_refused(tmp_path: Path) -> None:
    data = sample_dict()
    write_run(tmp_path, data, [leak_row(leak, []) for leak in data["leaks"][1:]])
    missing = data["leaks"][0]["example_id"]
    with pytest.raises(RunStateError, match=f"example {missing} of results.json is not in it"):
        render_reports(tmp_path, ReportConfig(max_examples=2000))


def test_large_audits_render_fast_and_small(tmp_path: Path) -> None:
    data = sample_dict(leaks=sample_leaks([({"hard": "easy_core"}, 5000)]))
    long = {"prefix": "p" * 5000, "suffix": "s" * 5000, "text": "t" * 10_000}
    said = [{"name": n, "matched_tokens": 9, "continuation": "s" * 900 + "z" * 900} for n in data["models"]]
    write_run(tmp_path, data, [leak_row(leak, [], **long, models=said) for leak in data["leaks"]])
    began = time.monotonic()
    render_reports(tmp_path, ReportConfig())
    assert time.monotonic() - began < 10
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (percent(0.0017), "0.17 %"),
        (percent(0.000012), "0.0012 %"),
        (percent(0.957), "95.7 %"),
        (percent(0.0697e-2), "0.070 %"),
        (percent(0.99996), "99.996 %"),
        (percent(1.0), "100 %"),
        (percent(0.0), "0 %"),
        (percent(0.001), "0.1 %"),
        (percent(None), "not available"),
        (percent_interval((0.0005, 0.0009)), "0.05 % to 0.09 %"),
        (percent_interval((0.0, 0.00000369)), "0 % to 0.00037 %"),
        (percent_interval((0.0016211, 0.0016219)), "0.1621 % to 0.1622 %"),
        (percent_interval(None), "not available"),
        (times(2.7222), "2.7×"),
        (times_interval((1.8, None)), "at least 1.8×"),
        (times_interval((None, 4.0)), "at most 4×"),
        (interval((None, None), times), "not available"),
        (points(-0.001001), "−0.10 points"),
        (points(0.0159), "+1.6 points"),
        (p_value(1e-9), "p < 0.001"),
        (p_value(0.0123), "p = 0.012"),
        (" ".join(apart(0.001004, 0.001, percent)), "0.1004 % 0.1 %"),
        (significant(1_955_000, 2), "1,955,000"),
    ],
)
def test_numbers(text: str, expected: str) -> None:
    assert text.replace("\xa0", " ") == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("HuggingFaceFW/fineweb", "HuggingFaceFW/fineweb"),
        ("wikitext", "wikitext"),
        ("/srv/people/jo/train.parquet", "train.parquet"),
        ("data/train.jsonl.gz", "train.jsonl.gz"),
        ("./shards/", "shards"),
        ("C:\\Users\\jo\\t.csv", "t.csv"),
        ("https://user:secret@host/x/y.csv?token=1", "y.csv"),
        ("/", "local data"),
    ],
)
def test_public_corpus_name(path: str, expected: str) -> None:
    assert public_corpus_name(path) == expected


def test_notes_lose_local_paths_only() -> None:
    assert (
        without_paths("row 3 of /home/jo/a/train.parquet: soft/hard 1/2")
        == "row 3 of train.parquet: soft/hard 1/2"
    )
    assert without_paths("~/models/teacher and 'C:\\m\\b'") == "teacher and 'b'"


def test_visible_keeps_ordinary_text() -> None:
    text = "tab\tline\nкириллица 日本語 हिन्दी می‌خواهم 👩‍💻 é"
    assert visible(text) == text


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
