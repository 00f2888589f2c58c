"""Configurations that are bombs, loops, damage or merely odd: each is read right or refused in sentences.

A case writes one file, of any of the three kinds, and loads it: the configuration must be the one that is
meant, or a ConfigError that begins with the file; never another exception, within bounded time and memory.

    python tests/benchmarks/fuzz_yaml.py --cases 30
"""

from __future__ import annotations

import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path[:0] = [str(Path(__file__).parent)]

import fuzzing  # noqa: E402 - beside this file

CASES_IN_CI = 30
SECONDS = 2.0
"""Of the processor that a case may take."""
GROWTH = 300 << 10
"""KiB by which a case may raise the process's peak of memory."""

GOOD = {
    "audit": """\
name: acme
corpus: org/texts
models:
  teacher: org/teacher
  students: [{name: a, path: org/a}, {name: b, path: org/b}]
predictor: {enabled: false}
""",
    "screen": """\
name: acme
corpus: org/texts
models:
  teacher: org/teacher
  baseline: {path: org/b}
predictor: {labels: easy_core}
""",
    "distill": """\
name: acme
corpus: org/texts
teacher: {base: org/teacher, epochs: 1, learning_rate: 0.1}
student: {base: org/a, epochs: 1, learning_rate: 0.1}
students: [{name: a, method: soft}, {name: b, method: hard}]
holdout: {path: org/b}
""",
}
"""A file of each kind, by the name of its kind."""


class Case(NamedTuple):
    """A file, and what may come of it."""

    content: bytes
    right: str | None = None
    """Plain YAML that means the same; None if it must be refused."""


def bomb(rng: random.Random, good: str) -> Case:
    """Aliases of aliases, in lists, mappings or merges."""
    width, levels = rng.randrange(2, 20), rng.randrange(12, 200)
    opened, closed, inner = rng.choice(
        [("[", "]", "{}"), ("{", "}", "k{n}: {}"), ("{", "}", "k{n}: [{}, {}]")]
    )
    lines = ["a0: &a0 {x: 1}"]
    for level in range(1, levels):
        items = (inner.replace("{n}", str(n)).replace("{}", f"*a{level - 1}") for n in range(width))
        lines.append(f"a{level}: &a{level} {opened}{', '.join(items)}{closed}")
    return Case((good + "\n".join(lines)).encode())


def merges(rng: random.Random, good: str) -> Case:
    """A chain of merges, each of the last and more."""
    chain = "".join(f"m{n}: &m{n}\n  <<: *m{n - 1}\n  k{n}: 1\n" for n in range(1, rng.randrange(300, 3000)))
    return Case((good + "m0: &m0 {k0: 1}\n" + chain).encode())


def loop(rng: random.Random, good: str) -> Case:
    """An anchor within itself."""
    text = rng.choice(
        ["&a [*a]", "&a {x: *a}", "&a\n  <<: *a\n", "&a\n  <<: [*a]\n", "&a {? *a : 1}", "&a [[{x: *a}]]"]
    )
    return Case((good + f"report: {text}\n").encode())


def deep(rng: random.Random, good: str) -> Case:
    """Nesting beyond all reason."""
    levels = rng.choice([50, 1000, 20_000])
    text = rng.choice(
        ["[" * levels, "[" * levels + "]" * levels, "{a: " * levels, "- " * levels, "? " * levels]
    )
    block = "\n".join(" " * level + "a:" for level in range(300))
    return Case((good + "report: " + rng.choice([text, "\n " + block.replace("\n", "\n ")])).encode())


def tag(rng: random.Random, good: str) -> Case:
    """A tag that is not plain data, or only looks so."""
    text = rng.choice(
        [
            "!!python/object/apply:os.system [ls]",
            "!!python/name:os.system",
            "!!binary xx",
            "!own 1",
            "!!set {a}",
            "!!omap [a: 1]",
            "!<tag:yaml.org,2002:nothing> x",
            "!!int x",
            "!!float x",
            "!!timestamp x",
            "!!map [a]",
        ]
    )
    return Case((good + f"seed: {text}\n").encode())


def number(rng: random.Random, good: str) -> Case:
    """A number without end, or a value that no type takes."""
    many = rng.choice([50, 5000, 200_000])
    text = rng.choice(
        [
            "9" * many,
            "0x" + "f" * many,
            "-" + "1" * many,
            "1e" + "9" * many,
            "1_" * many + "1",
            ".nan",
            ".inf",
            "2024-13-45",
            "2024-01-01T99:99:99Z",
            "0o9",
            "0b" + "1" * many,
            '"\\U99999999"',
            '"\\ud800"',
            "=",
            "<<",
        ]
    )
    return Case((good + f"seed: {text}\n").encode())


def control(rng: random.Random, good: str) -> Case:
    """A character that no text file holds, or bytes of another encoding."""
    mark = rng.choice(["\0", "\a", "\x1b", "\x7f", "\ufffe", "\x85\0"])
    other = rng.choice(["utf-16", "utf-32", "utf-16-le"])
    damage = [good.replace("acme", f"ac{mark}me").encode(), good.encode(other), good.encode() + b"# \xff\n"]
    return Case(rng.choice(damage))


def double(rng: random.Random, good: str) -> Case:
    """A key, a merge or a document that is there twice, or a key that is none."""
    more = [
        "name: b\n",
        "---\nname: b\n",
        "<<: {seed: 1}\n<<: {seed: 2}\n",
        "? [a]\n: 1\n",
        "1: 2\n",
        "null: 1\n",
    ]
    return Case((good + rng.choice([*more, "<<: 1\n", "<<: [1]\n", "*x : 1\n", "seed: *x\n"])).encode())


def large(rng: random.Random, good: str) -> Case:
    """Much of one thing."""
    many = rng.choice([30_000, 250_000, 4_000_000])
    text = rng.choice(
        ["#\n", "seed:\n", "[a, ", "a: ", "\t", "- x\n", '"', "'\n", "|\n", "%TAG ! x\n", ":", "&a "]
    )
    begins = rng.choice([good, ""])
    content = (begins + text * (many // len(text))).encode()
    return Case(content, good if begins and text == "#\n" and many < 4_000_000 else None)


def odd(rng: random.Random, good: str) -> Case:
    """Right, in a form that is seldom seen."""
    form = rng.choice(
        [
            good.replace("\n", "\r\n"),
            "\ufeff" + good,
            "%YAML 1.2\n---\n" + good + "...\n",
            "# é日本\n" + good.replace("name: acme", '"name": !!str acme'),
            good.replace("org/teacher", "&t org/teacher").replace("path: org/b", "path: *t"),
            good.replace("{name: a,", "&s {name: a,").replace("{name: b,", "{<<: *s, name: b,"),
            good.replace("acme", "'acme'") + "\n" * 5000,
        ]
    )
    right = good.replace("path: org/b", "path: org/teacher") if "*t" in form else good
    return Case(form.encode(), right)


SHAPES: tuple[Callable[[random.Random, str], Case], ...] = (
    bomb,
    bomb,
    merges,
    loop,
    loop,
    deep,
    tag,
    number,
    number,
    control,
    double,
    large,
    odd,
    odd,
)


def attempt(rng: random.Random, folder: Path) -> str | None:
    """Make one configuration, load it, and say what went wrong."""
    from kdaudit.config.yaml.loading import load_audit, load_distill, load_screen
    from kdaudit.errors import ConfigError

    shape, kind = rng.choice(SHAPES), rng.choice(sorted(GOOD))
    load = {"audit": load_audit, "screen": load_screen, "distill": load_distill}[kind]
    case = shape(rng, GOOD[kind])
    path, plain = folder / f"{kind}.yaml", folder / "plain.yaml"
    path.write_bytes(case.content)
    plain.write_text(case.right or GOOD[kind])
    right = load(plain)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        found = load(path)
    except ConfigError as error:
        wrong = f"refused: {error}" if case.right else _badly_said(str(error), path)
    except Exception as error:
        wrong = f"{type(error).__name__}: {error}"
    else:
        same = found.model_dump() == right.model_dump()
        wrong = None if case.right and same else f"was read as {found!r:.200}"
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    took = time.process_time() - began
    if wrong is None and (grown > GROWTH or took > SECONDS):
        wrong = f"took {grown:,} KiB and {took:.1f} s"
    return wrong and f"{kind}, {shape.__name__}: {wrong:.300} in {case.content[:300]!r}"


def _badly_said(message: str, path: Path) -> str | None:
    lines = [line for line in message.splitlines() if line]
    if lines and lines[0].startswith(str(path)) and all(line.isprintable() for line in lines):
        return None
    return f"said badly: {message!r}"


if __name__ == "__main__":
    fuzzing.main(attempt, cases=30)
