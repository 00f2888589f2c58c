"""Model cards as they are found, and hostile ones: an audit is put in and nothing is lost, or it is refused.

A case joins a header, a body and line ends, and gives the card to the writer twice. The first time every
line outside our section and our result must stay, and all metadata that huggingface_hub read before; the
second time every byte. A refusal is one sentence.

    python tests/benchmarks/fuzz_cards.py --cases 50
"""

from __future__ import annotations

import random
import resource
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import fuzzing  # noqa: E402 - beside this file

CASES_IN_CI = 50
SECONDS = 2.0
"""Of the processor that a case may take."""
GROWTH = 300 << 10
"""KiB by which a case may raise the process's peak of memory."""

OTHER = """\
model-index:
- name: x
  results:
  - task: {type: text-generation}
    dataset: {name: d, type: d}
    metrics:
    - {type: acc, value: 1}
"""
FRONTS = (
    "",
    "# only a comment\n",
    "license: mit\n",
    "license: mit\ntags: [a, b]\nlanguage: no\n",
    "{license: mit}\n",
    "license: mit\nlicense: apache-2.0\n",
    "description: |\n  one\n  two\n",
    "title: 'a: b'  # why\ntags:\n- a\n",
    "tags:\n    - a\n    - b\n",
    OTHER,
    "license: mit\n" + OTHER,
    "model-index: []\nlicense: mit\n",
    "model-index:\nlicense: mit\n",
    "model-index: [{name: x, results: []}]\n",
    " license: mit\n tags: [a]\n",
    "x: &a {b: 1}\ny:\n  <<: *a\nz: *a\n",
    "license: mit\n...\n",
    "- a\n- b\n",
    "just text\n",
    "title: A: B\n",
    "tags:\n\t- a\n",
    "model-index: 3\n",
    "1: a\n",
    "a: !!python/name:os.system\n",
    "a: &a [*a]\n",
    "a: &a\n  <<: *a\n",
    "a: \a\n",
    "a: " + "9" * 5000 + "\n",
    'a: "\\U99999999"\n',
    "a: " + "[" * 3000 + "\n",
    "日本: é\n",
    "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "m0: &m0 {k: 1}\n" + "".join(f"m{n}: &m{n}\n  <<: *m{n - 1}\n  k{n}: 1\n" for n in range(1, 2000)),
)
OPENINGS = ("---\n",) * 8 + ("--- \n", "---\t\n", "----\n", "--- # x\n", "")
CLOSINGS = ("---\n",) * 8 + ("--- \n", "---\t\n", "---", "...\n", " ---\n", "----\n", "")
BEFORE = ("",) * 8 + (
    "\ufeff",
    "\n",
    "\n \n",
    "<!-- made -->\n",
    "<!--\n---\n-->\n",
    "# Title\n\n",
    "\u200b",
    "\ufeff\ufeff",
    "text\n",
)
BODIES = (
    "",
    "# Hi\n",
    "\n\n# Hi\n\ntext\n\n---\n\nmore",
    "text: more\n---\n",
    "```\n---\nlicense: x\n---\n```\n",
    "```\nnever closed\n",
    "<!-- kdaudit:begin x -->\nold\n<!-- kdaudit:end -->\nmore\n",
    "<!-- kdaudit:end -->\n",
    "a\n<!-- kdaudit:begin x -->\n<!-- kdaudit:begin x -->\n<!-- kdaudit:end -->\n",
    "é日本\u2028x\x85y\x0cz\n",
    "    ---\n    a: b\n",
    "---\n---\n",
    "\0\x1b[31m\n",
    "| a |\n| --- |\n" * 50,
    "<script>alert(1)</script>\n",
)


@cache
def _given() -> Any:
    from huggingface_hub import EvalResult

    from kdaudit.modelcard.document import Contribution
    from kdaudit.modelcard.metadata import SOURCE_NAME

    result = EvalResult(
        task_type="text-generation",
        dataset_type="private",
        dataset_name="Training corpus",
        metric_type="memorization_rate",
        metric_value=0.1,
        source_name=SOURCE_NAME,
        source_url="https://example.org",
    )
    return Contribution("Title", "acme", "## Audit\n\nA section.", [result])


def card_of(rng: random.Random) -> str:
    """A card."""
    text = "".join(rng.choice(part) for part in (BEFORE, OPENINGS, FRONTS, CLOSINGS, BODIES))
    if rng.random() < 0.1:
        text = rng.choice(BODIES)
    end = rng.choice(["\n", "\n", "\n", "\r\n", "\r\n", "\r", "mixed"])
    if end != "mixed":
        return text.replace("\n", end)
    return "".join(line + rng.choice(["\n", "\r\n"]) for line in text.split("\n"))


def attempt(rng: random.Random, folder: Path) -> str | None:
    """Make one card, put an audit in twice, and say what went wrong."""
    from kdaudit.errors import UsageError
    from kdaudit.modelcard.document import updated

    old = card_of(rng)
    given = _given()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        new = updated(old, given)
        again = updated(new, given)
    except UsageError as error:
        wrong = None if str(error).isprintable() else f"said badly: {str(error)!r}"
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        wrong = _wrong(old, new) or ("the second time differs" if again != new else None)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = time.process_time() - began
    if wrong is None and (grown > GROWTH or took > SECONDS):
        wrong = f"took {grown:,} KiB and {took:.1f} s"
    return wrong and f"{wrong:.300} in {old[:300]!r}"


def _wrong(old: str, new: str) -> str | None:
    was, now = _metadata(old), _metadata(new)
    if now is None:
        return "the Hub cannot read the new card"
    if was is not None and was != now:
        return f"metadata were {was!r:.100} and are {now!r:.100}"
    rest, had = _rest(new), _rest(old)
    return None if _holds(rest, had) else "a byte of the old card is gone"


def _metadata(card: str) -> dict[str, Any] | None:
    """All that huggingface_hub reads, but for our result; None where it reads nothing."""
    from huggingface_hub import ModelCard

    try:
        data = ModelCard(card.removeprefix("\ufeff")).data
    except Exception:  # it cannot read the card, so nothing is in force
        return None
    others = [one for one in data.eval_results or [] if one.source_name != "kdaudit"]
    rest = {key: value for key, value in data.to_dict().items() if key != "model-index"}
    return rest | {"others": others}


def _rest(card: str) -> str:
    """The card without a section of ours."""
    before, begin, after = card.rpartition("<!-- kdaudit:begin")
    return before + after.partition("<!-- kdaudit:end -->")[2] if begin and "kdaudit:end" in after else card


def _holds(new: str, old: str) -> bool:
    """Whether the old text is left when stretches are cut out of the new one, line by line."""
    lines = iter(new.removeprefix("\ufeff").splitlines())
    empty = {"", "[]", "---"}  # an empty list gives way to ours
    wanted = [line for line in old.removeprefix("\ufeff").splitlines() if line.strip() not in empty]
    return all(any(_same(line, have) for have in lines) for line in wanted)


def _same(line: str, have: str) -> bool:
    return (
        line == have
        or ("[]" in line and have.startswith(line.partition(" []")[0]))
        or ("results: []" in line and "kdaudit" in have)
    )


if __name__ == "__main__":
    fuzzing.main(attempt, cases=50)
