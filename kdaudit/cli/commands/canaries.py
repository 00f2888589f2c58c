"""`kdaudit canaries`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import say


@click.command("canaries")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The file to write, such as canaries.jsonl."
)
@click.option(
    "--count",
    type=click.IntRange(1, 10_000),
    default=10,
    show_default=True,
    help="Canaries of each family for each number of repetitions.",
)
@click.option(
    "--repetitions",
    default="1,4,16,64",
    show_default=True,
    metavar="LIST",
    help="How often training data hold a canary: numbers of 1 or more, separated by commas.",
)
@click.option(
    "--controls",
    type=click.IntRange(20, 100_000),
    default=200,
    show_default=True,
    help="Controls of each family, which stay out of training data: with N of them exposure is at most "
    "log2(N + 1) bits.",
)
@click.option(
    "--tokens",
    type=click.IntRange(2, 4096),
    default=100,
    show_default=True,
    help="Tokens of a text, at least: extraction.prefix_tokens + extraction.suffix_tokens of the audit.",
)
@click.option(
    "--tokenizer",
    metavar="PATH",
    help="The models' tokenizer, a folder or hub id: it counts tokens, and random tokens are drawn from it. "
    "Without one words are counted, and random characters take the place of random tokens.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Equal seeds give equal texts; random unless given.")
@for_people
def command(
    out: Path,
    count: int,
    repetitions: str,
    controls: int,
    tokens: int,
    tokenizer: str | None,
    seed: int | None,
) -> None:
    """Write canaries to mix into training data, and controls that stay out of it.

    `canaries` in distill.yaml mixes them in; `attacks.canaries` in audit.yaml measures how well models know
    them.
    """
    from kdaudit.pipelines.canaries import Order, run_canaries

    say(run_canaries(out, Order(count, repetitions, controls, tokens, tokenizer, seed)))
