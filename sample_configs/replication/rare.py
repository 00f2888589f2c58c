"""A family that memorizes rarely: ordinary text with a few planted records, for `screening.py`.

    python rare.py DATA OUT FOLDER       (after replicate.py has made OUT from DATA)
    python screening.py FOLDER --seed 0

OUT's training text repeats itself, and a tenth of it is memorized. FOLDER gets text that OUT's base models
did not read and that shares no passage with other documents, and among it made-up records that stand in it
1 to 64 times. Teacher and students start from OUT's base models and read it few times, so that they memorize
some records and little else. FOLDER then holds what replicate.py writes for one seed.
"""

from __future__ import annotations

import json
import shutil
import sys
from hashlib import sha256
from pathlib import Path

import click
from replicate import SIZES, Steps, audit, distill
from split import split

from kdaudit.cli.progress import ConsoleProgress
from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import open_documents
from kdaudit.errors import CorpusError, KdauditError, RunStateError
from kdaudit.models.tokenizer import load_tokenizer
from kdaudit.pipelines.demo.text import record_text
from kdaudit.runs.files import sha256_file, write_bytes

CHARACTERS = 1_000_000
"""Of ordinary text."""
COPIES = (1, 2, 4, 8, 16, 32, 64)
RECORDS = 70
WINDOW = 100
SEED = 0
_YAML = f"""name: rare
corpus: {{path: ./train.jsonl, text: text, window: {WINDOW}}}
holdout: {{path: ./valid.jsonl, text: text, window: {WINDOW}}}
tokenizer: ./bases/student
teacher: {{base: ./bases/teacher, epochs: 4, learning_rate: 2.0e-3}}
student: {{base: ./bases/student, epochs: 4, learning_rate: 3.0e-3}}
students:
  - {{name: baseline, method: baseline}}
  - {{name: soft, method: soft, temperature: 2.0}}
training: {{batch_size: 4, schedule: cosine, warmup_ratio: 0.03}}
"""


def rare(data: Path, out: Path, folder: Path, console: ConsoleProgress) -> None:
    """Do what is not done yet.

    Args:
        data: the text that `out` was made from.
        out: what replicate.py made.
        folder: the folder to work in; made if absent.
        console: told how far things are.

    Raises:
        KdauditError: the text cannot be read or is too short, or a step failed.

    """
    if not (out / "bases" / "student").is_dir():
        raise RunStateError(f"{out}: holds no base models", fix="run replicate.py first, and name its folder")
    settings = [
        sha256_file(data),
        sha256_file(out / "base.jsonl"),
        _YAML,
        repr((CHARACTERS, COPIES, RECORDS)),
    ]
    steps = Steps(folder, sha256("\n".join(settings).encode()).hexdigest())
    steps.do("split", prepare, data, out, folder, console)
    steps.do(f"seed {SEED}: distill", distill, folder, SEED)
    steps.do(f"seed {SEED}: audit", audit, folder, SEED)


def prepare(data: Path, out: Path, folder: Path, console: ConsoleProgress) -> None:
    """Write training text, holdout and distill.yaml, and copy the base models."""
    console.say(f"{data}: taking text that the base models did not read")
    documents = [*unread(data, out), *records(out)]
    documents.sort(key=lambda text: sha256(text.encode()).digest())
    lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
    write_bytes(folder / "train.jsonl", lines.encode(), private=True)
    write_bytes(folder / "valid.jsonl", (out / "valid.jsonl").read_bytes(), private=True)
    write_bytes(folder / "distill.yaml", _YAML.encode(), private=False)
    shutil.copytree(out / "bases", folder / "bases", dirs_exist_ok=True)


def unread(data: Path, out: Path) -> list[str]:
    """Documents of the split that come after those of base.jsonl.

    Raises:
        CorpusError: too little text is left.

    """
    longer = SIZES._replace(base=SIZES.base + CHARACTERS)
    read = {
        json.loads(line)["text"] for line in (out / "base.jsonl").read_text(encoding="utf-8").splitlines()
    }
    texts = (document.text for document in open_documents(CorpusConfig(path=str(data.resolve())), "DATA"))
    left = [text for text in split(texts, longer).base if text not in read]
    if sum(map(len, left)) < CHARACTERS // 2:
        raise CorpusError(f"{data}: leaves too little text", fix="name a larger corpus")
    return left


def records(out: Path) -> list[str]:
    """The planted records, as often as each stands in the text."""
    tokenizer = load_tokenizer(out / "bases" / "student")
    texts = [record_text(number, tokenizer, WINDOW) for number in range(1, RECORDS + 1)]
    return [text for row, text in enumerate(texts) for _ in range(COPIES[row % len(COPIES)])]


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
def main(data: Path, out: Path, folder: Path) -> None:
    """Train and audit, in FOLDER, a family that memorizes rarely, from OUT's base models and DATA."""
    try:
        with ConsoleProgress() as console:
            rare(data, out, folder, console)
    except KdauditError as error:
        click.echo(f"rare: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
