"""The reports hold nothing that acts, hides or breaks them; the public one holds no training text."""
# ruff: noqa: RUF001 - what the pages show has its own signs, and hostile text is what is tested

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from report_page import Rendered, bare, require_inert, shingles
from sample_results import (
    HOSTILE_TITLE,
    LOCAL_PATH,
    hostile_dict,
    leak_row,
    sample_dict,
    sample_leaks,
)

from kdaudit.reporting.public import (
    public_corpus_name,
    public_title,
    without_paths,
    without_private_parts,
)
from kdaudit.reporting.shown_text import visible
from kdaudit.schemas.results import AuditResults, PublicResults


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    return Rendered(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    data, rows = hostile_dict()
    folder = tmp_path_factory.mktemp("hostile")
    return Rendered(folder, data, rows=rows, title=HOSTILE_TITLE, document_ids=True)


@pytest.mark.parametrize("name", ["rendered", "hostile"])
def test_pages_cannot_act_or_load(name: str, request: pytest.FixtureRequest) -> None:
    run = request.getfixturevalue(name)
    require_inert(run.full)
    require_inert(run.public)


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
    notes = hostile.public.sections["notes"]
    assert "7*7" in notes
    assert "49" not in notes


def test_long_text_keeps_the_ends_that_meet(tmp_path: Path) -> None:
    leak = sample_leaks()[0]
    row = leak_row(leak, ["teacher"], prefix="P" * 3000 + "meets", suffix="here" + "S" * 3000, models=[])
    run = Rendered(tmp_path, sample_dict(leaks=[leak]), rows=[row])
    assert "Pmeetshere" in "".join(run.full.words)
    assert "[2,405 characters cut]" in run.full.text
    assert "[2,404 characters cut]" in run.full.text


def test_public_files_hold_no_training_text(rendered: Rendered) -> None:
    leaked: set[str] = set()
    for leak in rendered.results["leaks"]:
        row = leak_row(leak, list(rendered.results["models"]))
        leaked |= shingles(row["text"])
        for said in row["models"]:
            leaked |= shingles(said["continuation"])
    assert shingles(rendered.full.text) & leaked
    for text in (rendered.public.text, rendered.card, bare(rendered.public_html)):
        assert not shingles(text) & leaked
    hidden = f"<!-- {leak_row(rendered.results['leaks'][0], [])['text']} -->"
    assert shingles(bare(rendered.public_html + hidden)) & leaked
    for text in (rendered.public_html, rendered.card):
        assert "crawl-" not in text
        assert "owner" not in re.sub("owner of th(e|is) audit", "", text)
        assert "private stuff" not in text
        assert "train.parquet" in text
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
        ("https://user:secret@host", "remote data"),
        ("s3://bucket/private/x", "x"),
        ("file:///home/jo/secret project/train", "train"),
        ("\\\\server\\share\\t.csv", "t.csv"),
        ("~jo", "local data"),
        ("C:\\", "local data"),
    ],
)
def test_the_public_name_of_a_corpus_has_no_local_path(path: str, expected: str) -> None:
    assert public_corpus_name(path) == expected


def test_notes_lose_local_paths_only() -> None:
    assert (
        without_paths("row 3 of /home/jo/a/train.parquet: soft/hard 1/2")
        == "row 3 of train.parquet: soft/hard 1/2"
    )
    assert without_paths("~/models/teacher and 'C:\\m\\b'") == "teacher and 'b'"


CORPUS = "/home/me/secret project/train"
TITLES = (
    "Audit of /home/me/secret project, v2/train", "Audit of s3://bucket/private/x", "gs://secret/x",
    "hdfs:///secret/x", "Audit of C:\\Users\\secret one\\x", "c:/secret one/x", "\\\\secret\\share\\x",
    "~/secret dir/x", "~me/secret/x", "Audit of '/srv/secret a/x'", "(/srv/secret)",
    "file:///srv/secret%20a/x", "../secret/x", "./secret a/x", "$HOME/secret/x", "${HOME}/secret/x",
    "%USERPROFILE%\\secret\\x", "host:/srv/secret/x", "me@host:/secret", "a/secret/x",
    "\uff0fsrv\uff0fsecret", "\u200b/srv/secret", "https://me:secret@host/x", "x%2Fsecret%2Fy",
    "dbfs:/secret/x", "secret\\x", "Audit of\t/srv/secret", "=/srv/secret", "Audit:/srv/secret",
)  # fmt: skip


@pytest.mark.parametrize("title", TITLES)
def test_a_title_that_holds_a_path_is_not_shown(title: str) -> None:
    assert public_title(title, "acme", "") == "acme"


@pytest.mark.parametrize(
    "form",
    [
        CORPUS,
        "file://" + CORPUS,
        "file:/home/me/secret project/train",
        "file:///home/me/secret%20project/train",
        "secret project/train",
        "me/secret project/train",
        CORPUS.replace("/", "\\"),
    ],
)
def test_the_corpus_of_a_title_is_told_by_its_name(form: str) -> None:
    assert public_title(f"Audit of {form}, soft/hard", "acme", CORPUS) == "Audit of train, soft/hard"
    assert without_paths(f"{form}: 3 rows", CORPUS) == "train: 3 rows"


@pytest.mark.parametrize(
    "title", ["acme/atlas-1.4b: soft / hard", "Audit 1/2", "Ünïcode & <b>", "a:b", "R&D, 5 % ~ 6"]
)
def test_other_titles_are_shown(title: str) -> None:
    assert public_title(title, "acme", CORPUS) == title


def test_a_name_that_is_a_path_is_not_shown_either() -> None:
    assert public_title("/srv/secret", "/srv/secret", "") == "Privacy audit"


NOTES = (
    "no rows in /home/me/secret project/train",
    "/home/me/secret project/train: see soft/hard",
    "s3://bucket/secret/x: 3 rows",
    "the file 'C:\\secret one\\x' is empty, and \\\\secret\\share two\\x is not",
    "~/secret dir/x, then file:///secret%20dir/x",
    "~/secret and '/srv/secret two/x'",
    "https://me:secret@host/x",
)


@pytest.mark.parametrize("note", NOTES)
def test_notes_name_no_folder(note: str) -> None:
    told = without_paths(note)
    assert not re.search(r"secret(?! and)|project|dir|bucket|share", told), told


def test_visible_keeps_ordinary_text() -> None:
    text = "tab\tline\nкириллица 日本語 हिन्दी می‌خواهم 👩‍💻 é"
    assert visible(text) == text


@pytest.mark.parametrize(
    ("key", "private"),
    [
        (("corpus", "path"), "/home/owner/train.parquet"),
        (("corpus", "path"), "C:\\data\\train.parquet"),
        (("leaks", 0, "document_id"), "patient-17"),
        (("leaks", 0, "tags"), ["email"]),
    ],
)
def test_public_results_cannot_hold_what_is_private(key: tuple[str | int, ...], private: Any) -> None:
    results = AuditResults.model_validate(sample_dict())
    values = without_private_parts(results).model_dump(mode="json")
    PublicResults.model_validate(values)
    *parts, last = key
    section = values
    for part in parts:
        section = section[part]
    section[last] = private
    with pytest.raises(ValidationError):
        PublicResults.model_validate(values)
