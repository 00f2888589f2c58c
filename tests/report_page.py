"""A rendered report as its tests read it: by the standard library's parser."""
# ruff: noqa: RUF001 - the pages have their own signs

from __future__ import annotations

import base64
import hashlib
import json
import re
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

from sample_results import write_run

from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.report import render_reports

VOID = {"meta", "link", "br", "img", "input", "hr"}
BLOCKS = {
    *("td", "th", "p", "dt", "dd", "li", "h1", "h2", "h3", "span", "article"),
    *("text", "tspan", "desc", "title"),
}
NOT_FIGURES = {"tick", "hash", "quote", "id"}


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
        self.sections: dict[str, str] = {}
        """Text by section, without axes, hashes and quoted text; what is outside of any is under "head"."""
        self._classes: list[set[str]] = []
        self._inside: list[str] = []
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
            self._classes.append(set((dict(attrs).get("class") or "").split()))
        if tag == "section":
            self._inside.append(dict(attrs)["aria-labelledby"] or "")
        if tag in BLOCKS:
            self._note(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"unbalanced </{tag}>"
        self._classes.pop()
        if tag == "section":
            self._inside.pop()
        if tag in BLOCKS:
            self._note(" ")

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            self.style += data
            return
        self.words.append(data)
        if not any(classes & NOT_FIGURES for classes in self._classes):
            self._note(data)
        if "caption" in self.open:
            self.captions[-1] += data
        elif {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data.replace("\xa0", " ")

    def _note(self, text: str) -> None:
        section = self._inside[0] if self._inside else "head"
        self.sections[section] = self.sections.get(section, "") + text

    def table(self, caption: str) -> list[list[str]]:
        return self.tables[next(i for i, text in enumerate(self.captions) if text.startswith(caption))]


class Rendered:
    """A run's three rendered files."""

    def __init__(self, folder: Path, results: dict[str, Any] | None = None, **config: Any) -> None:
        self.folder = folder
        rows = config.pop("rows", None)
        write_run(folder, results, rows)
        render_reports(folder, ReportConfig(**config))
        self.html = (folder / "report.html").read_text(encoding="utf-8")
        self.public_html = (folder / "report.public.html").read_text(encoding="utf-8")
        self.card = (folder / "card.md").read_text(encoding="utf-8")
        self.full, self.public = Page(self.html), Page(self.public_html)
        self.results = json.loads((folder / "results.json").read_text(encoding="utf-8"))


def number(cell: str) -> float:
    return float(re.sub(r"[^0-9.−-]", "", cell).replace("−", "-"))


def shingles(text: str) -> set[str]:
    words = re.findall(r"\w+", text.lower())
    return {" ".join(words[k : k + 5]) for k in range(len(words) - 4)}


def bare(html: str) -> str:
    """Everything that a file holds, comments and values of attributes too, as words."""
    return re.sub(r"[<>=\"']", " ", unescape(html))


FORBIDDEN = {"script", "iframe", "object", "embed", "img", "link", "base", "form", "foreignobject"}


def require_inert(page: Page) -> None:
    """A page runs and loads nothing: by its tags, and by a policy that a browser enforces."""
    assert not {tag for tag, _ in page.tags} & FORBIDDEN
    for _, attrs in page.tags:
        assert not {key for key in attrs if key in ("style", "src") or key.startswith("on")}
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


def require_accessible(page: Page) -> None:
    """Headings in order, tables with captions and scopes, named charts and scrollers, links in the page."""
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
    assert {(attrs.get("href") or "#main")[1:] for _, attrs in page.tags} <= set(ids)
