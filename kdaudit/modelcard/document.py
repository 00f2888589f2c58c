"""A whole model card: our result in its front matter, our section between markers, the rest unchanged.

The section stands between two HTML comments, which readers do not see. It is added at the end of a card that
has none yet; an existing section is replaced in its place. The changed card is read back with
huggingface_hub's own ModelCard before it is returned, so that a card in an unexpected form is refused and not
damaged.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from huggingface_hub.repocard_data import eval_results_to_model_index

from kdaudit.errors import UsageError, reason
from kdaudit.modelcard.front_matter import is_mapping, is_text, with_result
from kdaudit.modelcard.lookalike import refuse_lookalike
from kdaudit.modelcard.metadata import SOURCE_NAME

BEGIN = "<!-- kdaudit:begin - written by `kdaudit card`, which replaces all up to kdaudit:end -->"
END = "<!-- kdaudit:end -->"

_BEGIN = re.compile(r"^<!-- kdaudit:begin\b.*-->[ \t]*$", re.MULTILINE)
_END = re.compile(r"^<!-- kdaudit:end\b.*?-->", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}(?!.*`)|~{3,})(.*)")
_BARE_FENCES = re.compile(r"\s*---(?:\r\n|\r|\n)---[ \t]*(?:\r\n|\n|$)")
_BREAK = re.compile(r"\r\n|\r|\n")
_BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"


class Contribution(NamedTuple):
    """What an audit puts into a card."""

    title: str
    """Of a card that is made new, in Markdown."""
    model: str
    """Name for the model-index, where the card has none yet."""
    section: str
    """Markdown, with line feeds."""
    evaluation: list[EvalResult]


class _Parts(NamedTuple):
    before: str
    """Byte order mark and opening fence."""
    front: str
    """YAML, empty or with a line break at its end."""
    after: str
    """Closing fence."""
    body: str


def updated(card: str, given: Contribution) -> str:
    """The card with the audit in it; the same audit gives the same text again.

    Args:
        card: the whole text of a card; empty to make a new one.
        given: what to put in.

    Raises:
        UsageError: front matter or markers are damaged; the message continues the card's name.

    """
    newline = _newline(card)
    parts = _split(card, newline)
    body = parts.body if card.strip(_BOM).strip() else f"{newline}# {given.title}{newline}"
    index = eval_results_to_model_index(given.model, given.evaluation)
    changed = parts._replace(
        front=with_result(parts.front, index, newline, len(_BREAK.findall(parts.before))),
        body=_with_section(body or newline, given.section, newline),
    )
    _check(parts, changed, given)
    return "".join(changed)


def _newline(card: str) -> str:
    found = _BREAK.search(card)
    return found.group() if found else "\n"


def _split(card: str, newline: str) -> _Parts:
    bom = _BOM if card.startswith(_BOM) else ""
    text = card[len(bom) :]
    found = REGEX_YAML_BLOCK.search(text)
    bare = _BARE_FENCES.match(text)
    if found is not None and not (is_text(found.group(2)) or (bare and not is_mapping(found.group(2)))):
        # The pattern leaves the last line break to the closing fence.
        ending = _newline(found.group(3))
        after = found.group(3).removeprefix(ending)
        whole = after if _BREAK.search(after) else after + newline
        return _Parts(bom + found.group(1), found.group(2) + ending, whole, text[found.end() :])
    if bare is not None:
        blank = bare.group().partition("---")[0]
        return _Parts(f"{bom}{blank}---{newline}", "", f"---{newline}", text[bare.end() :])
    if found is None:
        refuse_lookalike(text, _prose(text).text)
    return _Parts(f"{bom}---{newline}", "", f"---{newline}", text)


def _with_section(body: str, section: str, newline: str) -> str:
    text = f"{BEGIN}\n{section.strip()}\n{END}".replace("\n", newline)
    prose, closed = _prose(body)
    begins, ends = list(_BEGIN.finditer(prose)), list(_END.finditer(prose))
    if len(begins) == len(ends) == 1 and begins[0].end() <= ends[0].start():
        return body[: begins[0].start()] + text + body[ends[0].end() :]
    if begins or ends:
        raise UsageError(
            f"has {len(begins)} kdaudit:begin and {len(ends)} kdaudit:end lines where one of "
            "each, in this order, is expected",
            fix="remove them with what kdaudit wrote between them, then try again",
        )
    if not closed:
        raise UsageError("has a code block that is not closed", fix="close it, then try again")
    trailing = _BREAK.findall(body[len(body.rstrip("\r\n")) :])
    wanted = 2 if body.strip() else 1
    return body + newline * max(0, wanted - len(trailing)) + text + newline


class _Prose(NamedTuple):
    text: str
    closed: bool
    """Whether every block of code ends."""


def _prose(body: str) -> _Prose:
    """The body, place for place, with line breaks that `^` and `$` know, and blanks for fenced code.

    Fences are those of CommonMark 0.31, section 4.5: what stands between two is text that a reader sees.
    """
    fence, lines = "", []
    for line in body.replace("\r\n", " \n").replace("\r", "\n").split("\n"):
        found = _FENCE.match(line)
        inside = bool(fence) or found is not None
        if found is not None and not fence:
            fence = found[1]
        elif found is not None and found[1].startswith(fence) and not found[2].strip():
            fence = ""
        lines.append(" " * len(line) if inside else line)
    return _Prose("\n".join(lines), not fence)


def _check(before: _Parts, after: _Parts, given: Contribution) -> None:
    """Refuse what huggingface_hub does not read as the metadata that were there, and ours."""
    was = _metadata("".join(before).removeprefix(_BOM)) if before.front else None
    unusable = UsageError(
        "its front matter has a form that cannot be changed safely",
        fix="write model-index and its results as plain lists, one key a line, then try again",
    )
    try:
        now = _metadata("".join(after).removeprefix(_BOM))
    except UsageError as error:
        raise unusable from error
    ours = [one for one in now.eval_results or [] if one.source_name == SOURCE_NAME]
    if _others(was) != _others(now) or ours != given.evaluation:
        raise unusable


def _metadata(card: str) -> ModelCardData:
    try:
        data = ModelCard(card).data
    except Exception as error:  # of the YAML library, or for a form that it does not expect
        raise UsageError(
            f"huggingface_hub cannot read its front matter ({reason(error)})",
            fix="fix it, then try again",
        ) from error
    assert isinstance(data, ModelCardData)  # noqa: S101 - what a ModelCard holds
    return data


def _others(data: ModelCardData | None) -> tuple[dict[str, Any], list[EvalResult]]:
    """All metadata but ours."""
    if data is None:
        return {}, []
    rest = {key: value for key, value in data.__dict__.items() if key not in ("model_name", "eval_results")}
    others = [one for one in data.eval_results or [] if one.source_name != SOURCE_NAME]
    return {key: value for key, value in rest.items() if value is not None}, others
