"""`kdaudit card`: written twice it is the same, read back by huggingface_hub, and nothing else is changed."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import Future
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hub_stand_in import HEAD, StandIn, stand_in
from huggingface_hub import EvalResult, ModelCard
from safetensors.numpy import save_file
from sample_results import HOSTILE, LOCAL_PATH, hostile_dict, leak_row, sample_dict, write_run

from kdaudit.cli import main
from kdaudit.config.audit import ReportConfig
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.models import ModelConfig
from kdaudit.corpus import pin_source
from kdaudit.distillation.readers import family_readers
from kdaudit.errors import RunError
from kdaudit.models.hub import bytes_fetched, within
from kdaudit.models.resolving import resolve_model
from kdaudit.pipelines.report import render_reports
from kdaudit.runs.files import sha256_file
from kdaudit.runs.manifest import Manifest
from kdaudit.runs.store import RunStore

CARDS = sorted((Path(__file__).parent / "cards").glob("*.md"))
BEGIN, END = "<!-- kdaudit:begin", "<!-- kdaudit:end -->"
REPO = "acme/atlas-1.4b-chat"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit") / "run"
    write_run(folder)
    render_reports(folder, ReportConfig())
    return folder


def made_run(folder: Path, data: dict[str, Any]) -> Path:
    write_run(folder, data)
    render_reports(folder, ReportConfig())
    return folder


def call(*words: object) -> Result:
    return CliRunner().invoke(main, ["card", *map(str, words)])


def put(card: Path, run: Path, student: str = "soft") -> str:
    """The card after the command, read as bytes; the second call must give the same bytes."""
    done = call(run, "--student", student, "--card", card)
    assert done.exit_code == 0, done.output
    first = card.read_bytes()
    assert call(run, "--student", student, "--card", card).exit_code == 0
    assert card.read_bytes() == first
    return first.decode()


def refused(done: Result, code: int = 2) -> str:
    assert done.exit_code == code, done.output
    assert done.output.startswith("kdaudit: ")
    assert done.output.count("\n") == 1
    assert "Traceback" not in done.output
    return done.output


def ours(text: str) -> list[EvalResult]:
    return [one for one in ModelCard(text).data.eval_results if one.source_name == "kdaudit"]


def others(text: str) -> list[EvalResult]:
    return [one for one in ModelCard(text).data.eval_results or [] if one.source_name != "kdaudit"]


def without_section(text: str) -> str:
    """The text before the markers and the text behind them, with no look at what makes them."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + after


def assert_only_insertions(old: str, new: str) -> None:
    """All but the section and one stretch of the front matter is the old text, byte for byte."""
    rest = without_section(new)
    blank = rest[len(rest.rstrip("\r\n")) :]
    kept, had = rest.rstrip("\r\n"), old.rstrip("\r\n")
    assert blank.startswith(old[len(had) :])
    added = len(kept) - len(had)
    assert added > 0
    places = [at for at in range(len(had) + 1) if kept[:at] + kept[at + added :] == had]
    assert places, "something besides an insertion was changed"
    inserted = kept[places[-1] : places[-1] + added]
    assert "memorization_rate" in inserted


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)
def test_a_real_card_gets_the_audit_and_nothing_else(
    path: Path, newline: str, run: Path, tmp_path: Path
) -> None:
    old = path.read_bytes().decode().replace("\n", newline)
    card = tmp_path / "README.md"
    card.write_bytes(old.encode())
    new = put(card, run)
    assert_only_insertions(old, new)
    assert new.count(BEGIN) == new.count(END) == 1
    assert set(re.findall(r"\r?\n", new)) == {newline}
    was, now = ModelCard(old).data.to_dict(), ModelCard.load(card).data.to_dict()
    was.pop("model-index", None)
    now.pop("model-index")
    assert now == was
    assert others(new) == others(old)
    assert len(ours(new)) == 3
    assert sum(BEGIN in line for line in new.splitlines()) == 1


def test_metadata_are_the_figures_of_the_audit(run: Path, tmp_path: Path) -> None:
    text = put(tmp_path / "README.md", run)
    data = json.loads((run / "results.json").read_text())
    model, figures = data["models"]["soft"], data["comparison"]["soft"]
    found = {one.metric_type: one for one in ours(text)}
    expected = {
        "memorization_rate": (model["rate"], model["ci95"], 1_000_000),
        "inheritance_rate": (figures["inheritance_rate"], figures["inheritance_ci95"], 1955),
        "ratio_to_baseline": (figures["ratio_to_baseline"], figures["ratio_ci95"], 1_000_000),
    }
    assert list(found) == list(expected)
    for name, (value, (low, high), examples) in expected.items():
        one = found[name]
        assert one.metric_value == value
        assert one.metric_args == {
            "ci95_low": low,
            "ci95_high": high,
            "examples": examples,
            "prefix_tokens": 50,
            "suffix_tokens": 50,
        }
        assert (one.task_type, one.dataset_type, one.dataset_name) == (
            "text-generation",
            "train.parquet",
            "train.parquet",
        )
        assert one.source_url.startswith("https://")
    assert ModelCard(text).data.model_name == "acme-1.4b-release-soft"


def test_the_section_is_about_the_student_alone(run: Path, tmp_path: Path) -> None:
    soft, hard = put(tmp_path / "soft.md", run), put(tmp_path / "hard.md", run, "hard")
    assert "**Passed: no limit is exceeded.**" in soft  # the audit as a whole failed, for the hard student
    assert "**Failed: a limit is exceeded.**" in hard
    assert "| soft | Student (soft KD) | 701 of 1,000,000 |" in soft
    assert "| hard |" not in soft
    for words in ("| teacher |", "| baseline |", "0.07", "18 of 1,955", "2026-01-30", "kdaudit 0.1.0"):
        assert words in soft.replace("\xa0", " ")
    for words in (
        "](report.public.html)",
        "`kdaudit run config.yaml --out again`",
        "student “soft” of the audit “acme-1.4b-release”",
    ):
        assert words in soft
    assert "report.html" not in soft


def test_the_card_counts_the_distinct_suffixes_of_the_leaks(tmp_path: Path) -> None:
    """A suffix after several prefixes, as of a licence, is one text."""
    leaks = sample_dict()["leaks"]
    own = [leak for leak in leaks if "soft" in leak["memorized_by"]]
    data = sample_dict(leak_suffixes={"leaks": 7, "students": {"soft": 3, "hard": 6}})
    run = made_run(tmp_path / "run", data)
    whole = (run / "card.md").read_text().replace("\xa0", " ")
    assert (
        f"{len(leaks)} examples memorized by at least one student; their suffixes are 7 distinct texts"
        in whole
    )
    section = put(tmp_path / "soft.md", run).replace("\xa0", " ")
    assert f"{len(own)} examples memorized by this student; their suffixes are 3 distinct texts" in section
    older = made_run(tmp_path / "older", sample_dict())
    assert "suffixes" not in (older / "card.md").read_text()


def test_results_that_were_changed_by_hand_make_no_card(tmp_path: Path) -> None:
    folder, card = tmp_path / "run", tmp_path / "card.md"
    with RunStore(folder, "sample", {}) as run:
        with run.rewriting("results.json", "leaks.parquet", "report.html", "report.public.html", "card.md"):
            made_run(folder, sample_dict())
        run.finish()
    put(card, folder)
    before = card.read_bytes()
    results = folder / "results.json"
    results.write_text(results.read_text().replace('"rate": 0.', '"rate": 0.0', 1))
    refused = call(folder, "--student", "soft", "--card", card)
    assert refused.exit_code == 2
    assert f"{results}: was changed since the run wrote it" in refused.stderr
    assert card.read_bytes() == before


def test_a_new_audit_takes_the_place_of_the_old_one(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARDS[1].read_text())
    old = put(card, run)
    data = sample_dict(created="2026-03-01T00:00:00Z")
    data["models"]["soft"]["rate"] = 7e-06  # YAML 1.1 reads 7e-06 as text
    data["comparison"]["soft"] |= {"inheritance_rate": None, "inheritance_ci95": None}
    data["comparison"]["soft"]["ratio_ci95"] = [0.3, None]
    new = put(card, made_run(tmp_path / "run", data))
    assert new.count(BEGIN) == 1
    assert "2026-03-01" in new
    assert "2026-01-30" not in new
    assert without_section(new).splitlines()[:25] == without_section(old).splitlines()[:25]
    values = {one.metric_type: (one.metric_value, one.metric_args) for one in ours(new)}
    assert set(values) == {"memorization_rate", "ratio_to_baseline"}
    assert values["memorization_rate"][0] == 7e-06
    assert "ci95_high" not in values["ratio_to_baseline"][1]


FLOW = "{task: {type: t}, dataset: {type: d, name: D}, metrics: [{type: m, value: 1}]}"
OURS = FLOW.replace("type: m", "type: old").removesuffix("}") + ", source: {name: kdaudit, url: u}}"
BLOCK = "task: {type: t}\n    dataset: {type: d, name: D}\n    metrics: [{type: m, value: 1}]\n"
INDEX = f"model-index:\n- name: x\n  results:\n  - {BLOCK}"
SHAPES = {
    "none": "# Title\n",
    "empty file": "",
    "blank file": "\n\n",
    "no body": "---\nlicense: mit\n---",
    "bare fences": "---\n---\n# T\n",
    "empty front matter": "---\n\n---\n# T\n",
    "comments alone": "---\n# nothing yet\n---\n# T\n",
    "leading blank lines": "\n\n---\nlicense: mit\n---\ntext",
    "indented keys": "---\n  license: mit\n  tags: [a]\n---\ntext\n",
    "ends with a block of text": "---\nnote: |\n  one\n\n  two\n---\ntext\n",
    "folded keeping its end": "---\nnote: >+\n  one\n\n---\ntext\n",
    "index empty": "---\nmodel-index: []   # to come\nlicense: mit\n---\ntext\n",
    "index null": "---\nmodel-index:   # to come\nlicense: mit\n---\ntext\n",
    "index null in words": "---\nmodel-index: ~   # to come\nlicense: mit\n---\ntext\n",
    "index null at the end": "---\nlicense: mit\nmodel-index:\n---\ntext\n",
    "index quoted": "---\n'model-index' :\nlicense: mit\n---\ntext\n",
    "results empty": "---\nmodel-index:\n- name: x\n  results: []  # none\nlicense: mit\n---\ntext\n",
    "results empty in brackets": "---\nmodel-index: [{name: x, results: []}]\nlicense: mit\n---\ntext\n",
    "results in brackets": f"---\nmodel-index:\n- name: x\n  results: [{FLOW}]\n---\ntext\n",
    "all in brackets": f"---\nmodel-index: [{{results: [{FLOW}, ], name: x}}]  # c\nb: 1\n---\n",
    "brackets over lines": "---\nmodel-index:\n- name: x\n  results: [\n"
    f"    {FLOW}, # c\n    {FLOW}\n  ]\nb: 1\n---\n",
    "one in brackets": f"---\nmodel-index:\n- name: x\n  results:\n  - {FLOW} # c\n  # d\nb: 1\n---\n",
    "two models": f"---\n{INDEX}- name: y\n  results: []\n---\n",
    "wide dashes": "---\nmodel-index:\n  -   name: x\n      results:\n        -   task: {type: t}\n"
    "            dataset: {type: d, name: D}\n            metrics: [{type: m, value: 1}]\n---\n",
    "comments between": f"---\n{INDEX}  # of the last\n\n# of the next\nb: 1\n---\n",
    "a result ends with text": f"---\n{INDEX}    z: |\n      a\n\nb: 1\n---\n",
    "text at the very end": f"---\n{INDEX}    z: |\n      a\n---\n",
    "name after results": f"---\nmodel-index:\n- results:\n  - {BLOCK}  name: x\nb: 1\n---\n",
    "anchors": f"---\na: &a {{type: t}}\n{INDEX.replace('{type: t}', '*a')}---\n",
    "emoji before": f"---\nt: \U0001f468\u200d\U0001f469 é\n{INDEX}---\n",
    "byte order mark": "\ufeff---\nlicense: mit\n---\ntext\n",
    "three dashes in the body": "---\nlicense: mit\n---\na\n\n---\n\nb\n---\n",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_front_matter(shape: str, newline: str, run: Path, tmp_path: Path) -> None:
    old = SHAPES[shape].replace("\n", newline)
    card = tmp_path / "README.md"
    card.write_bytes(old.encode())
    new = put(card, run)
    plain = new.removeprefix("\ufeff")
    assert len(ours(plain)) == 3
    assert others(plain) == others(old.removeprefix("\ufeff"))
    rest = iter(without_section(new))
    assert all(sign in rest for sign in re.sub(r" *(\[\]|~)", "", old))  # all of it, in its order
    for comment in re.findall(r" # .*", old):
        assert comment in new
    if newline == "\r\n" and old:
        assert not re.search(r"(?<!\r)\n", new)


EARLIER = {
    "between others": f"- name: x\n  results:\n  - {FLOW}\n  - {OURS}  # by hand\n  - {FLOW}\nb: 1\n",
    "in brackets": f"- {{name: x, results: [{OURS}, {FLOW}]}}\n",
    "in the second model": f"- name: x\n  results:\n  - {FLOW}\n- name: y\n  results:\n  - {OURS}\n",
    "source first": "- name: x\n  results:\n  - source:\n      name: kdaudit\n      url: u\n    "
    f"{BLOCK}  # next\n  - {FLOW}\nb: 1\n",
    "with a text": f"- name: x\n  results:\n  - {BLOCK}    source:\n      name: kdaudit\n"
    f"      url: |\n        u\n  - {FLOW}\n",
}


@pytest.mark.parametrize("case", EARLIER)
def test_our_earlier_result_is_replaced_where_it_stands(case: str, run: Path, tmp_path: Path) -> None:
    held = f"---\nmodel-index:\n{EARLIER[case]}---\n"
    card = tmp_path / "README.md"
    card.write_text(held)
    new = put(card, run)
    assert len(ours(new)) == 3
    assert others(new) == others(held)
    assert re.findall("# .*", held) == re.findall("# (?:by hand|next).*", new)


def test_a_comment_stays_above_its_key(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    index = f"model-index:\n- name: x\n  results:\n  - {BLOCK}    source:\n      url: u\n      name:\n"
    card.write_text(f"---\n{index}# about the license\nlicense: mit\n---\n")
    assert "# about the license\nlicense: mit\n" in put(card, run)


def test_a_section_is_replaced_where_it_stands(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    new = put(card, run)
    before, _, rest = new.partition(BEGIN)
    section = BEGIN + rest.partition(END)[0] + END
    moved = f"{before}First.\n\n{section}\n\nLast, without a line break"
    card.write_text(moved.replace("Passed", "Edited by hand"))
    assert put(card, run) == moved


IN_CODE = f"```html\n{BEGIN} - sample -->\nsample\n{END}\n```\n"


@pytest.mark.parametrize(
    "code",
    [IN_CODE, IN_CODE.replace("```", "~~~~"), f" ````\n```\n{BEGIN} -->\n````\n"],
    ids=["html", "~", "nested"],
)
def test_markers_in_a_block_of_code_are_text(code: str, run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"# T\n\n{code}\nAfter ```a``` it.\n")
    new = put(card, run)
    assert f"# T\n\n{code}\nAfter ```a``` it.\n" in new
    assert new.index("## Privacy audit") > new.index("After")


def test_a_card_that_is_a_link_stays_one(run: Path, tmp_path: Path) -> None:
    (tmp_path / "blob").write_text("# T\n")
    card = tmp_path / "README.md"
    card.symlink_to(tmp_path / "blob")
    put(card, run)
    assert card.is_symlink()
    assert "## Privacy audit" in (tmp_path / "blob").read_text()


def test_a_sample_is_said_to_be_one(run: Path, tmp_path: Path) -> None:
    assert "All 1,000,000 distinct training examples" in put(tmp_path / "README.md", run)
    data = sample_dict()
    data["corpus"] |= {"sampled": True, "windows": 900_000_000}
    sampled = put(tmp_path / "SAMPLE.md", made_run(tmp_path / "sampled", data))
    assert "A random sample of 1,000,000 training examples, of 900,000,000 windows" in sampled


BROKEN = {
    "open code": ("# T\n\n```sh\nkdaudit\n", "code block that is not closed"),
    "begin alone": (f"# T\n{BEGIN} x -->\ntext\n", "1 kdaudit:begin and 0 kdaudit:end"),
    "end alone": (f"# T\n{END}\n", "0 kdaudit:begin and 1 kdaudit:end"),
    "half a begin": (f"# T\n{BEGIN}\ntext\n{END}\n", "0 kdaudit:begin and 1 kdaudit:end"),
    "twice": (f"{BEGIN} -->\n{END}\n{BEGIN} -->\n{END}\n", "2 kdaudit:begin and 2 kdaudit:end"),
    "backwards": (f"{END}\n{BEGIN} -->\n", "in this order"),
    "no yaml": ("---\nlicense: [mit\n---\n", "is not valid YAML"),
    "no yaml in line 3": ("---\nlicense: mit\na: b: c\n---\n", "line 3"),
    "tabs": ("---\na:\n\t- b\n---\n", "is not valid YAML"),
    "control character": ("---\na: \x07\n---\n", "a control character in line 2"),
    "a list": ("---\n- a\n- b\n---\n", "front matter"),
    "one line of braces": ("---\n{license: mit}\n---\n", "one a line"),
    "index is text": ("---\nmodel-index: x\n---\n", "model-index"),
    "index without results": ("---\nmodel-index:\n- name: x\n---\n", "not a list of models with results"),
    "result without a dataset": (
        "---\nmodel-index:\n- name: x\n  results:\n  - task: {type: t}\n---\n",
        "huggingface_hub cannot read",
    ),
    "ours twice": (
        f"---\nmodel-index:\n- name: x\n  results:\n  - {OURS}\n  - {OURS}\n---\n",
        "2 results whose source is kdaudit",
    ),
    "index twice": (
        f"---\n{INDEX}model-index:\n- name: y\n  results: []\n---\n",
        "safely",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_card_is_refused_and_left_as_it_was(case: str, run: Path, tmp_path: Path) -> None:
    text, says = BROKEN[case]
    card = tmp_path / "README.md"
    card.write_text(text)
    output = refused(call(run, "--student", "soft", "--card", card))
    assert says in output
    assert str(card) in output
    assert card.read_text() == text


KEYS = "license: mit\ntags: [a]\n"
LOOKALIKES = {
    "blank behind the dashes": ("--- \n" + KEYS + "---\n# Hi\n", "line 1 .* write --- alone"),
    "tab behind the dashes": ("---\t\n" + KEYS + "---\n# Hi\n", "line 1 .* write --- alone"),
    "comment behind the dashes": ("--- # ours\n" + KEYS + "---\n# Hi\n", "line 1 .* write --- alone"),
    "four dashes": ("\n----\n" + KEYS + "----\n# Hi\n", "line 2 .* write --- alone"),
    "comment before": ("<!-- made -->\n---\n" + KEYS + "---\nb\n", "line 2 .* move it to the very top"),
    "long comment before": ("<!--\nmade\n-->\n\n---\n" + KEYS + "---\nb\n", "line 5 .* move it"),
    "title before": ("# Hi\n\n---\n" + KEYS + "---\nb\n", "line 3 .* move it to the very top"),
    "two marks": ("\ufeff\ufeff---\n" + KEYS + "---\nb\n", "line 1 .* something stands before it"),
    "zero width": ("\u200b---\n" + KEYS + "---\nb\n", "line 1 .* something stands before it"),
    "old line ends": (("---\n" + KEYS + "---\n# Hi").replace("\n", "\r"), "line 1 .* save the card with LF"),
    "dots for dashes": ("---\n" + KEYS + "...\n# Hi\n", "line 1 .* no line --- closes it"),
    "not closed": ("---\n" + KEYS + "\n# Hi\n", "line 1 .* no line --- closes it"),
    "closed further right": ("---\n" + KEYS + " ---\n# Hi\n", "line 1 .* no line --- closes it"),
    "not opened": (KEYS + "---\n# Hi\n", "line 1 .* put a line --- at the very top"),
    "dots before the dashes": ("---\n" + KEYS + "...\n---\nb\n", r"`\.\.\.` in line 4; remove that line"),
    "bomb": (
        "---\na0: &a0 [x]\n"
        + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
        + "---\n",
        "line [78]: more than 100,000 keys and values",
    ),
    "self": ("---\na: &a [*a]\n---\n", r"line 2: \*a stands within itself; write out"),
    "self merged": ("\n---\na: &a\n  <<: *a\n---\n", r"line 4: \*a stands within itself; write out"),
    "control character": ("\n---\na: \a\n---\n", "a control character in line 3; remove it"),
    "escape": ('---\na: "\\U99999999"\n---\n', "not valid YAML .* fix it"),
    "python": ("---\na: !!python/name:os.system\n---\n", "fix it"),
    "number": ("---\na: " + "9" * 5000 + "\n---\n", "fix it"),
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("case", LOOKALIKES)
def test_a_header_that_is_none_for_the_hub_is_refused(
    case: str, newline: str, run: Path, tmp_path: Path
) -> None:
    text, says = LOOKALIKES[case]
    card = tmp_path / "README.md"
    old = text.replace("\n", newline).encode()
    card.write_bytes(old)
    told = refused(call(run, "--student", "soft", "--card", card))
    assert re.search(says, told), told
    assert "then try again" in told
    assert card.read_bytes() == old


KEPT = {
    "rules around a sentence": "---\njust words\n---\n",
    "block of text at the end": "---\nlicense: mit\ndescription: |\n  one\n  two\n---\n# Hi\n",
    "folded text at the end": "---\ntags:\n- >\n  one\n  two\n---\n",
    "blank behind the closing dashes": "---\n" + KEYS + "--- \n# Hi\n",
    "blank lines before": "\n \n---\n" + KEYS + "---\n# Hi\n",
    "mark before": "\ufeff---\n" + KEYS + "---\n# Hi\n",
    "blanks before": "  ---\n" + KEYS + "---\n# Hi\n",
    "no last newline": "---\n" + KEYS + "---",
    "twice": "---\nlicense: mit\nlicense: apache-2.0\n---\n# Hi\n",
    "empty, then another": "---\n---\nlicense: mit\n---\n# Hi\n",
    "rule": "---\n\n# Title\n\ntext\n",
    "rules": "---\n\n# Title\n\ntext\n\n---\n\nmore\n",
    "rule and prose": "---\nonly text here\n",
    "in a comment": "<!--\n---\n" + KEYS + "---\n-->\n# Hi\n",
    "in code": "```\n---\n" + KEYS + "---\n```\n",
    "merged": "---\nx: &a {b: 1}\ny:\n  <<: *a\n---\n# Hi\n",
}


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("case", KEPT)
def test_metadata_in_force_stay_in_force(case: str, newline: str, run: Path, tmp_path: Path) -> None:
    old = KEPT[case].replace("\n", newline)
    card = tmp_path / "README.md"
    card.write_bytes(old.encode())
    new = put(card, run)
    try:
        was = ModelCard(old.removeprefix("\ufeff")).data.to_dict()
    except ValueError:  # prose between two rules, which the Hub does not read either
        was = {}
    now = ModelCard(new.removeprefix("\ufeff")).data.to_dict()
    assert ours(new.removeprefix("\ufeff"))
    now.pop("model-index")
    assert now == was


def test_a_card_that_never_ends_is_refused(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.md")
    (tmp_path / "endless.md").symlink_to("/dev/zero")
    assert "not a regular file" in refused(call(run, "--student", "soft", "--card", tmp_path / "pipe.md"))
    assert "outside its folder" in refused(call(run, "--student", "soft", "--card", tmp_path / "endless.md"))


def test_a_missing_card_is_made(run: Path, tmp_path: Path) -> None:
    text = put(tmp_path / "README.md", run)
    assert re.fullmatch(
        r"---\nmodel-index:\n.*\n---\n\n# acme-1.4b-release-soft\n\n<!-- .*-->\n", text, re.DOTALL
    )


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
def test_permissions_of_a_card_are_kept_and_never_wider(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    card = tmp_path / "README.md"
    card.write_text("# T\n")
    card.chmod(mode)
    moved, original = [], Path.replace

    def replace(path: Path, target: Path) -> Path:
        moved.append(stat.S_IMODE(path.stat().st_mode))
        return original(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    put(card, run)
    assert moved == [mode], "before it takes the card's place"
    assert stat.S_IMODE(card.stat().st_mode) == mode
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


def test_wrong_use_is_told_in_one_sentence(run: Path, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    assert "has the students soft and hard" in refused(call(run, "--card", card))
    assert "has the students soft and hard" in refused(call(run, "--card", card, "--student", "teacher"))
    assert "no folder here" in refused(call(run, "--student", "soft"))
    assert "kdaudit run" in refused(call(tmp_path, "--card", card))
    assert "make it" in refused(call(run, "--student", "soft", "--card", tmp_path / "none" / "README.md"))
    assert "name a Markdown file" in refused(call(run, "--student", "soft", "--card", tmp_path))
    assert "run directory" in refused(call(run, "--student", "soft", "--card", run / "card.md"))
    card.write_bytes(b"caf\xe9\n")
    assert "is not UTF-8" in refused(call(run, "--student", "soft", "--card", card))
    assert card.read_bytes() == b"caf\xe9\n"


def test_a_file_that_is_not_markdown_is_left_as_it_is(run: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "train.jsonl"
    corpus.write_text('{"text": "a"}\n')
    assert "name a Markdown file" in refused(call(run, "--student", "soft", "--card", corpus))
    assert corpus.read_text() == '{"text": "a"}\n'


def test_the_only_student_needs_no_name(tmp_path: Path) -> None:
    data = sample_dict(soft_vs_hard=None)
    for part in ("models", "comparison"):
        del data[part]["hard"]
    data["gate"] = {"verdict": "none", "checks": []}
    data["leaks"] = [leak for leak in data["leaks"] if "hard" not in leak["memorized_by"]]
    done = call(made_run(tmp_path / "run", data), "--card", tmp_path / "README.md")
    assert done.exit_code == 0, done.output
    assert "**No limit was set.**" in (tmp_path / "README.md").read_text()


def test_a_student_of_the_hub_is_not_a_folder_of_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, clone = made_run(tmp_path / "run", sample_dict()), tmp_path / "acme" / "soft"
    clone.mkdir(parents=True)
    (run / "config.yaml").write_text(
        "name: a\ncorpus: acme/corpus\npredictor: {enabled: false}\n"
        "models: {teacher: acme/teacher, students: [{name: soft, path: acme/soft}]}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert "no folder here" in refused(call(run, "--student", "soft"))
    assert not list(clone.iterdir())


def test_the_students_own_card_is_the_default_if_it_is_the_model_that_was_audited(tmp_path: Path) -> None:
    for name in ("teacher", "soft", "hard"):
        (tmp_path / name).mkdir()
    weights = tmp_path / "hard" / "model.safetensors"
    (tmp_path / "hard" / "config.json").write_text("{}")
    save_file({"lm_head.weight": np.zeros((2, 2), np.float32)}, weights)
    parts = (f"{one}\0{sha256_file(tmp_path / 'hard' / one)}\n" for one in ("config.json", weights.name))
    data = sample_dict()
    data["models"]["hard"]["fingerprint"] = f"sha256:{sha256(''.join(parts).encode()).hexdigest()}"
    run = made_run(tmp_path / "run", data)
    (tmp_path / "corpus.txt").write_text("text")
    config = {
        "name": "acme-1.4b-release",
        "corpus": str(tmp_path / "corpus.txt"),
        "models": {
            "teacher": str(tmp_path / "teacher"),
            "students": [{"name": name, "path": str(tmp_path / name)} for name in ("soft", "hard")],
        },
        "predictor": {"enabled": False},
    }
    (run / "config.yaml").write_text(json.dumps(config))
    done = call(run, "--student", "hard")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'hard' / 'README.md'}\n"
    assert "student “hard”" in (tmp_path / "hard" / "README.md").read_text()
    assert not list((tmp_path / "soft").iterdir())
    before = (tmp_path / "hard" / "README.md").read_bytes()
    save_file({"lm_head.weight": np.ones((2, 2), np.float32)}, weights)
    assert "not the one that was audited as hard; audit it again" in refused(call(run, "--student", "hard"))
    weights.unlink()
    refused(call(run, "--student", "hard"))
    assert (tmp_path / "hard" / "README.md").read_bytes() == before


def test_hostile_names_do_nothing(tmp_path: Path) -> None:
    data, _ = hostile_dict()
    evil = next(name for name in data["models"] if name not in ("teacher", "baseline", "soft", "hard"))
    data["name"] = "[x](javascript:alert(1)) ---\n<!-- kdaudit:end --> | `a` $b$ " + HOSTILE[2]
    data["corpus"]["path"] = "/home/owner/{a: [b]} # c\n- d: &e *f\U0001f468<img src=x>.jsonl"
    for check in data["gate"]["checks"]:
        check["student"] = evil
    text = put(tmp_path / "README.md", made_run(tmp_path / "run", data), evil)
    body = text.partition("\n---\n")[2]
    assert body.count(BEGIN) == body.count(END) == 1
    assert re.findall(r"(?<!\\)<(?!!-- kdaudit)", body) == []
    assert re.findall(r"(?<!\\)\[", body) == ["["]  # the link to the public report
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]", text)
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in body.splitlines() if row.startswith("|")}) == 1
    assert "owner" not in text
    assert ours(text)[0].dataset_name == "{a: [b]} # c - d: &e *f\U0001f468<img src=x>.jsonl"
    assert re.fullmatch(r"[A-Za-z0-9_./-]+", ours(text)[0].dataset_type)


def test_a_card_holds_no_training_text_no_document_and_no_path(run: Path, tmp_path: Path) -> None:
    text = put(tmp_path / "README.md", run)
    data = json.loads((run / "results.json").read_text())

    def shingles(words: str) -> set[str]:
        found = re.findall(r"\w+", words.lower())
        return {" ".join(found[k : k + 5]) for k in range(len(found) - 4)}

    for leak in data["leaks"][:200]:
        assert not shingles(text) & shingles(leak_row(leak, list(data["models"]))["text"])
        assert leak["suffix_hmac"] not in text
    assert "crawl-" not in text
    for part in Path(LOCAL_PATH).parent.parts[1:]:
        assert part not in text


# With a push.


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    with stand_in(REPO, {}) as server:
        use(monkeypatch, server.url, tmp_path)
        yield server


def use(monkeypatch: pytest.MonkeyPatch, url: str, folder: Path) -> None:
    """Point huggingface_hub at an address, with a token of its own."""
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)  # kdaudit sees to it
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(folder / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "hf_stand_in")


def test_card_and_public_report_go_into_one_pull_request(run: Path, hub: StandIn, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(CARDS[0].read_text())
    done = call(run, "--student", "soft", "--card", card, "--push", REPO)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{card}\n{hub.url}/{REPO}/discussions/1\n"
    [commit] = hub.commits
    assert commit["pull"]
    assert commit["files"] == {
        "README.md": card.read_bytes(),
        "report.public.html": (run / "report.public.html").read_bytes(),
    }
    assert "parentCommit" not in commit["header"]
    assert hub.tokens == {"Bearer hf_stand_in"}
    assert "report.html" not in str(hub.calls)


def test_no_create_pr_commits_to_main_once(run: Path, hub: StandIn, tmp_path: Path) -> None:
    words = (run, "--student", "soft", "--card", tmp_path / "README.md", "--push", REPO, "--no-create-pr")
    done = call(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"/{REPO}/commit/{'b' * 40}\n")
    assert not hub.commits[0]["pull"]
    again = call(*words)
    assert again.exit_code == 0, again.output
    assert again.stdout.endswith(f"{REPO} holds this audit already\n")
    assert len(hub.commits) == 1


def test_another_card_of_the_repository_is_not_replaced_unseen(
    run: Path, hub: StandIn, tmp_path: Path
) -> None:
    hub.files["README.md"] = b"# Remote card with much text\n"
    card = tmp_path / "README.md"
    card.write_text("# Mine\n")
    words = (run, "--student", "soft", "--card", card, "--push", REPO)
    assert "is not the card of" in refused(call(*words, "--no-create-pr"))
    assert hub.commits == []
    assert card.read_text() == "# Mine\n"
    assert call(*words).exit_code == 0
    card.write_bytes(hub.files["README.md"])
    assert call(*words, "--no-create-pr").exit_code == 0
    assert hub.commits[-1]["header"]["parentCommit"] == HEAD


def test_without_a_card_the_repositorys_own_is_changed(run: Path, hub: StandIn, tmp_path: Path) -> None:
    old = CARDS[1].read_bytes().replace(b"\n", b"\r\n")
    hub.files["README.md"] = old
    done = call(run, "--student", "soft", "--push", REPO)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{hub.url}/{REPO}/discussions/1\n"
    [commit] = hub.commits
    assert_only_insertions(old.decode(), commit["files"]["README.md"].decode())
    assert commit["header"]["parentCommit"] == HEAD  # else a change in between would be lost


def test_a_repository_without_a_card_gets_one(run: Path, hub: StandIn) -> None:
    done = call(run, "--student", "soft", "--push", REPO)
    assert done.exit_code == 0, done.output
    text = hub.commits[0]["files"]["README.md"].decode()
    assert ModelCard(text).data.model_name == REPO
    assert len(ours(text)) == 3


REFUSALS = [
    ("/api/validate-yaml", 401, {}, "does not let you write"),
    ("/preupload/", 403, {}, "does not let you write"),
    ("/commit/", 403, {}, "does not let you write"),
    ("/preupload/", 401, {"X-Error-Code": "RepoNotFound"}, "does not let you write"),
    ("/preupload/", 404, {"X-Error-Code": "RepoNotFound"}, "has no model"),
    ("/commit/", 412, {}, "was changed meanwhile"),
    ("/commit/", 418, {}, "refuses (418"),
]


@pytest.mark.parametrize(("place", "status", "headers", "says"), REFUSALS)
def test_what_the_hub_refuses_is_told_and_local_files_are_intact(
    place: str, status: int, headers: dict[str, str], says: str, run: Path, hub: StandIn, tmp_path: Path
) -> None:
    hub.refusals[place] = (status, headers)
    card = tmp_path / "README.md"
    card.write_text("# T\n")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    output = refused(call(run, "--student", "soft", "--card", card, "--push", REPO), code=4)
    assert says in output
    assert "nothing was uploaded or written" in output
    assert "hf_stand_in" not in output
    assert card.read_text() == "# T\n"
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    assert hub.commits == []


@pytest.mark.parametrize(("status", "says"), [(401, "does not let you"), (404, "has no model")])
def test_a_card_that_cannot_be_fetched_is_told(status: int, says: str, run: Path, hub: StandIn) -> None:
    hub.refusals["/api/models/"] = (status, {"X-Error-Code": "RepoNotFound"})
    assert says in refused(call(run, "--student", "soft", "--push", REPO), code=4)


def test_what_the_hub_says_of_the_metadata_is_passed_on(run: Path, hub: StandIn, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    hub.yaml_answer = (200, {"warnings": [{"message": "empty or missing\nlicense"}]})
    done = call(run, "--student", "soft", "--card", card, "--push", REPO)
    assert done.exit_code == 0, done.output
    assert "missing license" in " ".join(done.stderr.split())
    hub.yaml_answer = (400, {"errors": [{"message": '"license" must be a string'}]})
    output = refused(call(run, "--student", "soft", "--card", card, "--push", REPO))
    assert '"license" must be a string' in output
    assert len(hub.commits) == 1


def test_a_hub_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch, run: Path, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        use(monkeypatch, url, tmp_path)
        card = tmp_path / "README.md"
        card.write_text("# T\n")
        for words in (["--card", card], []):
            output = refused(call(run, "--student", "soft", *words, "--push", REPO), code=4)
            assert f"{url} cannot be reached" in output
        assert card.read_text() == "# T\n"


def test_a_silent_hub_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, run: Path, hub: StandIn, tmp_path: Path
) -> None:
    monkeypatch.setattr("kdaudit.modelcard.hub.LOOKUP_SECONDS", 0.3)
    monkeypatch.setattr("kdaudit.modelcard.hub.UPLOAD_SECONDS", 0.3)
    card = tmp_path / "README.md"
    card.write_text("# T\n")
    for place in ("/api/models/", "/resolve/", "/api/validate-yaml", "/preupload/", "/commit/"):
        hub.silent = place
        words = [] if place in ("/api/models/", "/resolve/") else ["--card", card]
        told = refused(call(run, "--student", "soft", *words, "--push", REPO), code=4)
        assert f"the hub at {hub.url} did not answer within 0.3 seconds" in told
        assert card.read_text() == "# T\n"
    assert hub.commits == []


def test_a_silent_hub_is_not_waited_for_by_lookups(
    monkeypatch: pytest.MonkeyPatch, hub: StandIn, tmp_path: Path
) -> None:
    hub.silent = "/"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for place in ("corpus.fingerprint", "models.fetching"):
        monkeypatch.setattr(f"kdaudit.{place}.LOOKUP_SECONDS", 0.3)
    with pytest.raises(
        RunError, match=r"^models.teacher.path: org/name: the hub at .* did not answer within"
    ):
        resolve_model(ModelConfig(path="org/name"), "models.teacher")
    with pytest.raises(RunError, match=r"^corpus.path: org/texts: the hub at .* did not answer within"):
        pin_source(CorpusConfig(path="org/texts"))
    config = DistillConfig.model_validate(
        {
            "name": "a",
            "corpus": "org/texts",
            "holdout": "org/held",
            "tokenizer": "org/tokens",
            "teacher": {"base": {"model_type": "llama"}, "epochs": 1, "learning_rate": 1e-3},
            "student": {"base": {"model_type": "llama"}, "epochs": 1, "learning_rate": 1e-3},
            "students": [{"name": "soft", "method": "soft"}],
        }
    )
    with pytest.raises(RunError, match=r"^tokenizer: org/tokens: the hub at .* did not answer within"):
        family_readers(config, {})


def test_what_comes_in_slowly_is_waited_for() -> None:
    rows: list[int] = []

    def slow() -> int:
        for row in range(6):
            time.sleep(0.1)
            rows.append(row)
        return len(rows)

    assert within(0.25, slow, "x", progress=lambda: len(rows)) == 6
    with pytest.raises(RunError, match=r"did not answer within 0\.25 seconds"):
        within(0.25, slow, "x")
    with pytest.raises(TimeoutError, match="its own"):
        within(0.25, lambda: (_ for _ in ()).throw(TimeoutError("its own")), "x")


def test_an_answer_that_comes_as_the_time_is_up_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Late(Future[int]):
        def result(self, timeout: float | None = None) -> int:
            if timeout is None:
                return super().result()
            super().result()
            raise TimeoutError

    monkeypatch.setattr("kdaudit.models.hub.Future", Late)
    assert within(0.25, lambda: 7, "x") == 7


def test_files_that_go_while_they_are_counted_are_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client renames each file once it is whole."""
    (tmp_path / "a").write_bytes(b"123")
    listed = [tmp_path / "a", tmp_path / "gone.incomplete"]
    monkeypatch.setattr(Path, "rglob", lambda *_: iter(listed))
    assert bytes_fetched("org/name") == 3


def test_a_wrong_repository_id_is_wrong_use(run: Path, hub: StandIn, tmp_path: Path) -> None:
    for words in (["--card", tmp_path / "README.md"], []):
        assert "not a repository id" in refused(call(run, "--student", "soft", *words, "--push", "a/b/c"))
    assert not (tmp_path / "README.md").exists()
    assert hub.calls == []


def test_a_report_that_was_changed_is_not_uploaded(hub: StandIn, tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", sample_dict())
    files = {"results.json": sha256_file(run / "results.json"), "report.public.html": "0" * 64}
    manifest = Manifest(
        name="a", created="c", environment={}, inputs={}, batch_plan={"shard_rows": 1}, files=files
    )
    (run / "manifest.json").write_text(manifest.model_dump_json())
    words = (run, "--student", "soft", "--card", tmp_path / "README.md", "--push", REPO)
    assert "was changed since the run wrote it" in refused(call(*words))
    (run / "manifest.json").unlink()
    (run / "report.public.html").unlink()
    assert "render it again" in refused(call(*words))
    assert hub.calls == []


def test_the_whole_command_with_hf_endpoint(run: Path, tmp_path: Path) -> None:
    with stand_in(REPO, {"README.md": CARDS[0].read_bytes()}) as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_TOKEN": "hf_stand_in",
            "HF_HUB_OFFLINE": "0",
        }
        words = [sys.executable, "-m", "kdaudit", "card", str(run), "--student", "soft", "--push", REPO]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{hub.url}/{REPO}/discussions/1\n"
        assert set(hub.commits[0]["files"]) == {"README.md", "report.public.html"}
        assert list(dict.fromkeys(hub.calls)) == [  # and nothing else is told to anyone
            f"GET /api/models/{REPO}",
            f"HEAD /{REPO}/resolve/{HEAD}/README.md",
            f"GET /{REPO}/resolve/{HEAD}/README.md",
            "POST /api/validate-yaml",
            f"POST /api/models/{REPO}/preupload/main",
            f"POST /api/models/{REPO}/commit/main",
        ]
    assert list(tmp_path.rglob("*.md")) == []
