"""What the public page leaves out of the private one: paths of the owner's machine, document ids, tags.

The cards of a public page have no text either (`leak_cards.public_cards`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from kdaudit.schemas.accepted import AcceptedResult
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.leak_counts import LeakCounts
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import AuditResults, Leak, PublicLeak, PublicResults

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_DATA_FILE = re.compile(r"\.(parquet|arrow|jsonl?|csv|txt)(\.(gz|xz|zst))?$", re.IGNORECASE)
_PATH = re.compile(
    r"(?<![\w+.-])[\w+.-]+:[/\\]"  # an address, a drive, host:/folder
    r"|(?<!\w)~[\w.-]*[/\\]|(?<![\w./])\.{1,2}[/\\]|\$\w+[/\\]|%\w+%[/\\]"
    r"|(?<![\w/)])/(?=[^\s/])|(?<!\w)\\(?=[\w\\])"
)
"""Where a path of a machine or an address begins."""
_IN_TITLE = re.compile(r"\\|[^\s/]+/[^\s/]+/[^\s/]|%2f|%5c", re.IGNORECASE)
"""What else may be a path; in notes these are ratios and lists."""
_WORD = re.compile(r"[^\s'\"`,;()<>|]+")
_QUOTES = {"'": "'", '"': '"', "`": "`", "\N{LEFT DOUBLE QUOTATION MARK}": "\N{RIGHT DOUBLE QUOTATION MARK}"}
_SLASHES = str.maketrans(
    dict.fromkeys("\u2044\u2215\u29f8\uff0f", "/") | dict.fromkeys("\u2216\u29f5\uff3c", "\\")
)
_ELIDED = "(a path)"


def without_private_parts(results: AuditResults) -> PublicResults:
    """The results without local paths and without the leaks' document ids and tags.

    The corpus path and the notes keep only the last part of a path. Models of the results carry no
    paths.
    """
    path, reason = results.corpus.path, results.predictor.reason
    cleared = None if reason is None else without_paths(reason, path)
    kept = dict(results)
    kept |= {
        "corpus": _public_corpus(results.corpus),
        "models": {
            name: model.model_copy(update={"fingerprint": model.public_fingerprint})
            for name, model in results.models.items()
        },
        "generated": _public_corpus(results.generated),
        "notes": notes_without_paths(results.notes, path),
        "predictor": results.predictor.model_copy(update={"reason": cleared}),
        "accepted": _public_accepted(results.accepted),
        "leaks": [public_leak(leak) for leak in results.leaks],
        "leak_counts": _public_counts(results.leak_counts),
    }
    return PublicResults.model_validate(kept)


def public_leak(leak: Leak) -> PublicLeak:
    """A leak without its document and what kind of data it seems to hold."""
    return PublicLeak.model_validate(dict(leak) | {"document_id": "", "tags": []})


def _public_counts(counts: LeakCounts | None) -> dict[str, Any] | None:
    return None if counts is None else dict(counts) | {"tagged": 0, "tags": {}}


def _public_accepted(accepted: AcceptedResult | None) -> dict[str, Any] | None:
    """Without reasons, which are the owner's words and may quote anything."""
    if accepted is None:
        return None
    lists = {key: getattr(accepted, key) for key in ("in_force", "expired", "unmatched")}
    return dict(accepted) | {
        key: [dict(entry) | {"reason": ""} for entry in entries] for key, entries in lists.items()
    }


def _public_corpus(corpus: CorpusResult | None) -> dict[str, Any] | None:
    return None if corpus is None else dict(corpus) | {"path": public_corpus_name(corpus.path)}


def public_corpus_name(path: str) -> str:
    """A hub id whole; of a local path or an address only the last part."""
    if _HUB_ID.fullmatch(path) and not _DATA_FILE.search(path):
        return path
    scheme, address, rest = path.partition("://")
    if address and scheme.lower() != "file":
        rest = re.split("[?#]", rest)[0].partition("/")[2]  # what comes before can hold a password
        nothing = "remote data"
    else:
        rest, nothing = path.partition("?")[0], "local data"
    parts = [part for part in _parts(rest) if part != "file:"]
    return parts[-1] if parts else nothing


def _parts(path: str) -> list[str]:
    return [
        part
        for part in re.split(r"[/\\]+", path)
        if part not in ("", ".", "..") and not part.startswith("~") and not re.fullmatch("[A-Za-z]:", part)
    ]


def notes_without_paths(notes: Iterable[Note], known: str) -> list[Note]:
    """Notes whose text holds no local path, see `without_paths`, and no endpoint's address."""
    return [note.model_copy(update={"text": _public_text(note, known)}) for note in notes]


def _public_text(note: Note, known: str) -> str:
    if note.code == "endpoint":
        return (
            f"{note.subject} is behind an endpoint. Its weights were not here: they cannot be verified, and "
            "what was measured holds for what answered there. Its engine was not checked, and its "
            "perplexity, entropy and margins are null."
        )
    return without_paths(note.text, known)


def without_paths(text: str, known: str = "") -> str:
    """A note with every path taken down to its last part, or taken out where its end is not sure.

    Args:
        text: a sentence of ours that may quote paths.
        known: one that it may name, in any of the forms in which it can be written.

    """
    text = _without_known(text, known)
    shown, place = [], 0
    while found := _PATH.search(text, place):
        end, name = _path_end(text, found.start())
        shown += [text[place : found.start()], name]
        place = end
    return "".join([*shown, text[place:]])


def _path_end(text: str, start: int) -> tuple[int, str]:
    """Where the path that begins at `start` ends, and what is shown for it.

    In quotes it ends with them. Else folders may hold blanks: if a slash follows in the line, the path may
    reach to it, unless a file's ending and a colon say that it is over.
    """
    closing = _QUOTES.get(text[start - 1]) if start else None
    if closing and (end := text.find(closing, start)) >= 0:
        return end, public_corpus_name(text[start:end])
    line_end = text.find("\n", start)
    line = text[start : line_end if line_end >= 0 else len(text)]
    word = _WORD.match(line)
    token = (word.group() if word else line).rstrip(".:!?") or line
    rest = line[len(token) :]
    another = next((found for found in _PATH.finditer(rest) if rest[found.start() - 1] in _QUOTES), None)
    rest = rest[: another.start()] if another else rest
    last = max(rest.rfind("/"), rest.rfind("\\"))
    if last < 0 or (re.search(r"\.\w{1,8}$", token) and rest.startswith(": ")):
        return start + len(token), public_corpus_name(token)
    tail = _WORD.match(rest, last + 1)
    return start + len(token) + (tail.end() if tail else last + 1), _ELIDED


def _without_known(text: str, known: str) -> str:
    """The text with a path that is known, and what it ends with from any folder on, by its public name."""
    parts = _parts(known.partition("://")[2] or known)
    if not known or (_HUB_ID.fullmatch(known) and not _DATA_FILE.search(known)):
        return text
    plain = ["/".join(parts[first:]) for first in range(len(parts) - 1)]
    forms = [known, *(mark + form for form in plain for mark in ("file:///", "file:/", "/", ""))]
    forms += [form.replace("/", "\\") for form in forms]
    forms += [quote(form, safe="/:\\") for form in forms]
    name = public_corpus_name(known)
    for form in sorted(set(forms), key=len, reverse=True):
        text = text.replace(form, name)
    return text


def public_title(title: str, name: str, known: str) -> str:
    """A page's title that names no path: the given one, else the audit's name.

    Where a path ends in a title cannot be told, since folders may hold blanks: so a title that holds one,
    beside the corpus's own, is not shown.

    Args:
        title: as the owner gave it.
        name: the audit's.
        known: the corpus's path.

    """
    for text in (_without_known(title, known), name):
        plain = "".join(c for c in text.translate(_SLASHES) if unicodedata.category(c) != "Cf")
        if not _PATH.search(plain) and not _IN_TITLE.search(plain):
            return text
    return "Privacy audit"
