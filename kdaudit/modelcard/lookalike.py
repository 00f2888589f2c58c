"""Refuses headers that look like one and that the Hub does not read, so that no second one is put before.

The Hub reads metadata only between a line `---` that is the first thing of a card, with nothing behind the
dashes, and the next line `---` (huggingface_hub's REGEX_YAML_BLOCK, the Hub's own pattern).
"""

from __future__ import annotations

import re

from kdaudit.errors import UsageError

_BREAK = re.compile(r"\r\n|\r|\n")
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_UNSEEN = "\ufeff\u200b\u200c\u200d\u2060\0"
"""Invisible characters that editors and web pages leave at the top of a file."""
_KEY = re.compile(r"""[{\s]*["']?\w[\w .-]*["']?\s*:(?:\s|$)""")
_CARD_KEY = re.compile(
    r"""[{\s]*["']?(?:license|license_name|license_link|tags|language|datasets|library_name|pipeline_tag"""
    r"""|base_model|base_model_relation|metrics|model-index|model_name|widget|thumbnail|inference"""
    r"""|co2_eq_emissions|new_version|extra_gated_\w+)["']?\s*:(?:\s|$)"""
)


def refuse_lookalike(text: str, prose: str) -> None:
    """Refuse a card that begins with something like a header, which the Hub does not read.

    Args:
        text: a card in which the Hub finds no header.
        prose: the same, line for line, without blocks of code.

    Raises:
        UsageError: there is one; the message names the line and what to do.

    """
    lines = [line.strip().strip(_UNSEEN).strip() for line in _BREAK.split(_without_comments(prose))]
    first = next((row for row, line in enumerate(lines) if line), None)
    if first is None:
        return
    for row, line in enumerate(lines):
        if line.startswith("---") and _opens(lines[row + 1 :], top=row == first):
            raise _refusal(text, row)
    if _CARD_KEY.match(lines[first]) and any(line.startswith("---") for line in lines[first:]):
        raise UsageError(
            f"line {first + 1} looks like the first key of a header, but no line --- stands above "
            "it, so that the Hub reads none of it",
            fix="put a line --- at the very top, then try again",
        )


def _without_comments(prose: str) -> str:
    return _COMMENT.sub(lambda found: "\n" * len(_BREAK.findall(found.group())), prose)


def _opens(below: list[str], *, top: bool) -> bool:
    """Whether keys follow a line of dashes; deeper in a card only keys that model cards know count."""
    texts = [line for line in below if line]
    keys = [line for line in texts if not line.startswith("#")]
    return bool(top and texts and _KEY.match(texts[0])) or bool(keys and _CARD_KEY.match(keys[0]))


def _refusal(text: str, row: int) -> UsageError:
    raw = _BREAK.split(text)
    begins = f"line {row + 1} looks like the beginning of a header, but the Hub reads none there: "
    if "".join(raw[:row]).strip() or raw[row].lstrip() != raw[row].lstrip().lstrip(_UNSEEN):
        why, fix = "something stands before it", "move it to the very top"
    elif raw[row].lstrip() != "---":
        why, fix = "its line holds more than ---, if only blanks", "write --- alone"
    elif any(re.fullmatch(r"---[ \t]*", line) for line in raw[row + 1 :]):
        why, fix = "its lines end in CR alone", "save the card with LF line ends"
    else:
        why, fix = "no line --- closes it", "write one below its last key, with no blank before it"
    return UsageError(f"{begins}{why}", fix=f"{fix}, then try again")
