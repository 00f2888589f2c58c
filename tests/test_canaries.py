"""Canaries: how they are drawn, written and read, and how training mixes them in."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import toys
from test_distill_members import FAMILY, family

from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.yaml.loading import load_audit
from kdaudit.corpus import ExampleTokens
from kdaudit.corpus.canaries import Numbers, made_canaries, read_canaries, write_canaries
from kdaudit.corpus.canary_texts import Drawing, _whole_words, drawing
from kdaudit.distillation.audit_file import write_audit_file
from kdaudit.distillation.planting import planted_in
from kdaudit.distillation.windows import WindowFile, cut_windows
from kdaudit.errors import ConfigError, CorpusError
from kdaudit.models.tokenizer import load_tokenizer
from kdaudit.schemas.canaries import Canary
from kdaudit.schemas.distillation import DistillRecord, render

WORDS = ("canaries", "--count", "2", "--repetitions", "4,1", "--controls", "20", "--tokens", "30")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    toys.tokenizer().save_pretrained(folder)
    return folder


def test_the_command_writes_families_at_each_number_of_repetitions_with_controls(tmp_path: Path) -> None:
    done = toys.kdaudit(*WORDS, "--out", "c.jsonl", "--seed", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "4 canaries (10 rows of training data), 20 controls" in done.stdout
    found = read_canaries(tmp_path / "c.jsonl", "attacks.canaries")
    kinds = Counter((one.family, one.repetitions) for one in found)
    families = ("random_characters", "random_word", "fake_record")
    assert kinds == {(name, k): n for name in families for k, n in ((0, 20), (1, 2), (4, 2))}
    assert len({one.id for one in found}) == len({one.text for one in found}) == 72
    assert all(len(one.text.split()) >= 30 for one in found)
    assert (tmp_path / "c.jsonl").stat().st_mode & 0o777 == 0o600
    rows = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert all([*row] == ["id", "family", "repetitions", "text"] for row in rows)


def test_equal_seeds_give_equal_texts_and_no_seed_another_draw(tmp_path: Path) -> None:
    for name, seed in (("a", ["--seed", "7"]), ("b", ["--seed", "7"]), ("c", []), ("d", [])):
        toys.kdaudit(*WORDS, "--out", f"{name}.jsonl", *seed, cwd=tmp_path)
    a, b, c, d = ((tmp_path / f"{name}.jsonl").read_text() for name in "abcd")
    assert a == b
    assert len({a, c, d}) == 3


def test_a_text_does_not_depend_on_how_often_it_is_planted() -> None:
    one, two = (
        [*made_canaries(drawing(1, 30, None), Numbers(3, repetitions, 20))]
        for repetitions in ([1, 2], [8, 9])
    )
    assert [canary.text for canary in one] == [canary.text for canary in two]
    assert {canary.repetitions for canary in one} == {0, 1, 2}


def test_random_tokens_are_read_as_drawn_and_texts_have_the_tokens_asked(tokenizer: Path) -> None:
    reader = load_tokenizer(tokenizer)
    found = [*made_canaries(drawing(0, 40, reader), Numbers(2, [1], 20))]
    assert {one.family for one in found} == {"random_token", "random_word", "fake_record"}
    for one in found:
        ids = reader.encode(one.text)
        assert len(ids) >= 40
        if one.family == "random_token":
            assert len(ids) == 40
            assert reader.vocabulary["<unk>"] not in ids
    drawn = Counter(
        token for one in found if one.family == "random_token" for token in reader.encode(one.text)
    )
    assert len(drawn) > 250, "of 298 words, 880 were drawn"


def test_words_that_a_tokenizer_splits_are_not_drawn() -> None:
    """A text would have more tokens than were drawn."""
    split = {"halves": 2, "thirds": 3}
    reader: Any = SimpleNamespace(
        vocabulary=dict.fromkeys(
            ["a", "\N{LOWER ONE EIGHTH BLOCK}whole", "halves", "thirds", "##", "\xe9"], 0
        ),
        encode=lambda text: [0] * sum(split.get(word, 1) for word in text.split()),
    )
    assert _whole_words(reader) == ["a", "whole"]


def test_a_record_names_nobody(tmp_path: Path) -> None:
    text = drawing(3, 60, None).text("fake_record", 5)
    assert re.match(r"Customer \d{4} \d{4} \d{4} \(fictitious\)\nName: ", text)
    assert "@example.com\nPhone: (" in text
    assert ") 555-01" in text
    assert drawing(3, 5, None).text("fake_record", 5).endswith("\nNotes:"), "a short one is whole"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--out", "c.txt"], "c.txt: does not end in .jsonl; write --out NAME.jsonl"),
        (["--out", "none/c.jsonl"], "none: is not a directory"),
        (
            ["--out", "c.jsonl", "--repetitions", "0,1"],
            "--repetitions: '0,1' is not a list of numbers from 1",
        ),
        (["--out", "c.jsonl", "--repetitions", "4,x"], "--repetitions: '4,x' is not a list"),
        (["--out", "c.jsonl", "--repetitions", "4,4"], "--repetitions: '4,4' holds a number twice"),
        (["--out", "c.jsonl", "--count", "0"], "--count"),
        (["--out", "c.jsonl", "--controls", "3"], "--controls"),
        (["--out", "c.jsonl", "--tokenizer", "./none"], "none does not exist; name a model's folder or a"),
        (["--out", "c.jsonl", "--tokenizer", "s3://a/b"], "--tokenizer: s3://a/b lies on s3://"),
        ([], "--out"),
    ],
)
def test_wrong_options_exit_2_and_write_nothing(words: list[str], says: str, tmp_path: Path) -> None:
    done = toys.kdaudit("canaries", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_words_is_refused(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "b": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(tmp_path / "tokenizer")
    done = toys.kdaudit("canaries", "--out", "c.jsonl", "--tokenizer", "./tokenizer", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--tokenizer: the tokenizer has 2 tokens that are whole words" in done.stderr


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").symlink_to(tmp_path / "elsewhere")
    done = toys.kdaudit(*WORDS, "--out", "c.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert "c.jsonl: exists already, and models may be trained on what it holds" in done.stderr
    assert not (tmp_path / "elsewhere").exists()


def canary(name: str, repetitions: int, text: str) -> Canary:
    return Canary(id=name, family="random_word", repetitions=repetitions, text=text)


def _row(**changed: Any) -> dict[str, Any]:
    return {"id": "x", "family": "random_word", "repetitions": 1, "text": "a text", **changed}


CONTROLS = [_row(id=f"c{n}", repetitions=0, text=f"control {n}") for n in range(20)]
WRONG = {
    "no object": (["[1]"], "c.jsonl:1: the line: "),
    "unknown family": ([_row(family="birds")], "c.jsonl:1: family: "),
    "negative": ([*CONTROLS, _row(repetitions=-1)], "c.jsonl:21: repetitions: "),
    "more than training could hold": ([*CONTROLS, _row(repetitions=2**31)], "c.jsonl:21: repetitions: "),
    "another corpus": ([{"text": "a text"}], "c.jsonl:1: id: "),
    "equal ids": ([*CONTROLS, _row(), _row(text="another")], "two rows have the same id, 'x'"),
    "equal texts": ([*CONTROLS, _row(), _row(id="y")], "two rows have the same text, 'a text'"),
    "controls alone": (CONTROLS, "holds no row with repetitions above 0"),
    "too few controls": (
        [*CONTROLS[1:], _row()],
        "has 19 controls (repetitions 0) of the family random_word",
    ),
    "empty": ([], "holds no row with repetitions above 0"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_file_that_cannot_be_measured_is_refused_by_line(case: str, tmp_path: Path) -> None:
    rows, says = WRONG[case]
    path = tmp_path / "c.jsonl"
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    with pytest.raises(CorpusError) as error:
        read_canaries(path, "attacks.canaries")
    assert says in error.value.what
    assert error.value.key == "attacks.canaries.path"


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    rows = [Canary.model_validate(row) for row in (*CONTROLS, _row(text="a\u2028b \u202e\n"))]
    write_canaries(tmp_path / "c.jsonl", rows)
    assert read_canaries(tmp_path / "c.jsonl", "canaries") == rows


def _cut(folder: Path, canaries: list[Canary]) -> WindowFile:
    windows = [[5 + row] * 20 for row in range(6)]
    toys.write_corpus(folder / "corpus.jsonl", windows)
    return cut_windows(
        CorpusConfig(path=str(folder / "corpus.jsonl"), window=20),
        load_tokenizer(folder / "tokenizer"),
        folder / "corpus.bin",
        tokens=ExampleTokens(7, 7),
        key="corpus",
        progress=lambda rows: None,
        canaries=canaries,
    )


def test_each_canary_is_mixed_in_as_often_as_it_says_after_the_corpus(
    tokenizer: Path, tmp_path: Path
) -> None:
    (tmp_path / "tokenizer").symlink_to(tokenizer)
    texts = {"once": [40] * 30, "thrice": [41] * 14}
    planted = [
        canary("once", 1, toys.text_of(texts["once"])),
        canary("thrice", 3, toys.text_of(texts["thrice"])),
    ]
    bare, mixed = _cut(tmp_path, []), _cut(tmp_path, planted)
    rows = [row.tolist() for row in mixed]
    assert rows[:6] == [row.tolist() for row in bare]
    assert rows[6:] == [texts["once"][:20], *[texts["thrice"]] * 3]
    assert mixed.document_ids[6:] == ["once", "thrice", "thrice", "thrice"]
    assert mixed.fingerprint != bare.fingerprint
    with pytest.raises(CorpusError, match=r"short has fewer than 14 tokens \(prefix \+ suffix\)"):
        _cut(tmp_path, [canary("short", 1, toys.text_of([9] * 13))])


def test_controls_stay_out_of_training(tmp_path: Path) -> None:
    rows = [
        Canary.model_validate(row) for row in (*CONTROLS, _row(), _row(id="y", text="another", repetitions=4))
    ]
    write_canaries(tmp_path / "c.jsonl", rows)
    config = family(tmp_path, "canaries=./c.jsonl")
    assert [one.id for one in planted_in(config)] == ["x", "y"]
    assert planted_in(family(tmp_path)) == []


def test_the_audit_that_is_written_measures_the_canaries_that_were_mixed_in(tmp_path: Path) -> None:
    config, out = family(tmp_path, "canaries=./c.jsonl"), tmp_path / "out"
    (out / "seed-0").mkdir(parents=True)
    write_audit_file(config, out, 0, out / "teacher")
    audit = load_audit(out / "seed-0" / "audit.yaml")
    assert audit.attacks.canaries is not None
    assert Path(audit.attacks.canaries.path) == tmp_path / "c.jsonl"
    write_audit_file(family(tmp_path), out, 0, out / "teacher")
    assert load_audit(out / "seed-0" / "audit.yaml").attacks.canaries is None


def test_canaries_beside_prompts_and_answers_are_refused(tmp_path: Path) -> None:
    text = FAMILY.replace("corpus: ./train.jsonl", "corpus: {path: ./train.jsonl, messages: messages}")
    text = text.replace("holdout: ./valid.jsonl", "holdout: {path: ./valid.jsonl, messages: messages}")
    with pytest.raises(ConfigError) as error:
        family(tmp_path, "canaries=./c.jsonl", text=text)
    assert "canaries: are plain text, and the corpus holds prompts and answers" in str(error.value).replace(
        "--set ", ""
    )


def test_distill_says_how_many_windows_are_canaries() -> None:
    record = DistillRecord(
        name="a", versions={}, corpus_windows=1100, corpus_tokens=9, holdout_windows=1, models=[]
    )
    assert render(record, Path("out")).startswith("a: 1,100 windows, 9 tokens")
    mixed = record.model_copy(update={"canary_windows": 40})
    assert render(mixed, Path("out")).startswith("a: 1,100 windows, 40 of them canaries, 9 tokens")


def test_a_text_that_is_drawn_twice_is_drawn_again() -> None:
    few = Drawing(0, 1, lambda text: 1, {"random_word": lambda draw: str(draw.randrange(30))})
    found = [*made_canaries(few, Numbers(2, [1, 4], 20))]
    assert len({one.text for one in found}) == len(found) == 24
