"""runs/layout.py alone spells what the files of our folders are called, and which of them are private."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest
from conftest import ROOT

from kdaudit.runs import layout

PACKAGE = ROOT / "kdaudit"
NAMES = {value for key, value in vars(layout).items() if key.isupper() and isinstance(value, str)}
FILES = sorted(name for name in NAMES if "." in name)
FOLDERS = sorted({*NAMES, "holdout"} - {*FILES, layout.TEACHER, layout.WINDOWS})
SPELLED = re.compile(
    rf"(.*/)?({'|'.join(map(re.escape, FILES))})|(.*/)?({'|'.join(FOLDERS)}|seed-\{{\}})/.*|.*part-.*"
    r"|(.*/)?(summary\.json|hard_corpus.*)"
)
OF_OTHERS = {("corpus/dataset_card.py", "README.md")}
"""A dataset's card, which kdaudit reads and does not write."""


def _docstrings(tree: ast.AST) -> set[ast.AST]:
    """Texts that stand as statements: docstrings of modules, functions and constants."""
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def _texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every text of a module but docstrings, with its line; `{}` stands for what an f-string fills in."""
    skipped = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {*node.values}
            parts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in skipped:
            yield node.lineno, node.value


def test_no_other_module_spells_a_name() -> None:
    """Prose may: a text with a blank in it is read by people, not opened."""
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        for line, text in _texts(ast.parse(path.read_text(encoding="utf-8"))):
            if " " not in text and SPELLED.fullmatch(text) and (name, text) not in OF_OTHERS:
                wrong.append(f"{name}:{line}: {text}")
    assert [one for one in wrong if not one.startswith("runs/layout.py:")] == []
    assert len(wrong) > len(FILES), "the search finds them where they are"


def test_arrow_schemas_are_in_their_module_alone() -> None:
    spelled = [
        path.name for path in PACKAGE.rglob("*.py") if re.search(r"^\w+_SCHEMA = pa", path.read_text(), re.M)
    ]
    assert sorted(spelled) == [
        "arrow_schemas.py",
        "spool.py",
    ]  # the spool's is that of the examples, shortened


PRIVATE = [
    layout.CONFIG,
    layout.HMAC_KEY,
    layout.RESULTS,
    layout.LEAKS,
    layout.REPORT,
    layout.SCREEN,
    layout.SCREEN_REPORT,
    layout.FLAGGED,
    layout.RISK,
    layout.DISTILL_RECORD,
    layout.hard_corpus(None, None),
    layout.hard_corpus("hard", 1),
    layout.shard(layout.EXAMPLES, 0),
    layout.summary(layout.EXAMPLES),
    layout.shard(layout.holdout(layout.EXAMPLES), 100_000),
    layout.shard(layout.KEPT, 0),
    layout.shard(layout.KEPT, 0, "jsonl"),
    layout.continuations("a.student"),
    layout.reference("teacher"),
]
PUBLIC = [
    layout.PUBLIC_REPORT,
    layout.PUBLIC_SCREEN_REPORT,
    layout.CARD,
    layout.MANIFEST,
    layout.SEAL,
    layout.PREDICTOR,
    layout.PREDICTION,
    layout.SUFFIX_COPIES,
    layout.ENTROPY_LOGPROB,
    layout.KEPT_COUNTS,
    layout.AUDIT_FILE,
    layout.MODEL_CARD,
    layout.engine_check("teacher"),
    layout.perplexity("teacher"),
    layout.entropy("teacher"),
    layout.shard(layout.FEATURES, 0),
    layout.shard(layout.extraction("teacher"), 0),
    layout.shard(layout.holdout(layout.extraction("teacher")), 0),
]


@pytest.mark.parametrize("name", PRIVATE)
def test_what_holds_training_text_is_private(name: str) -> None:
    assert layout.is_private(name)


@pytest.mark.parametrize("name", PUBLIC)
def test_what_holds_no_training_text_is_not_private(name: str) -> None:
    assert not layout.is_private(name)
