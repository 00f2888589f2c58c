"""A rendered report as its tests read it: by the standard library's parser."""
# ruff: noqa: RUF001 - the pages have their own signs

from __future__ import annotations

import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from sample_results import (
    write_run,
)

from kdaudit.config.audit import ReportConfig
from kdaudit.pipelines.audit import render_reports

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
