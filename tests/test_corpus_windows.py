"""Windows, distinct windows and samples, against slow and obvious oracles."""

from __future__ import annotations

import json
import random
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import Document, ExampleTokens, build_examples
from kdaudit.corpus.distinct import SLACK, Ledger
from kdaudit.corpus.windows import BATCH_CHARACTERS, BATCH_DOCUMENTS, Cutter, batched, cut
from kdaudit.errors import CorpusError, ModelError, StorageError
from kdaudit.runs.arrow_schemas import EXAMPLES_SCHEMA

STORIES = Path(__file__).parents[2] / "shared" / "data" / "stories260K"
END = "<|endoftext|>"


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A byte-level BPE that would trim offsets, truncate and pad if it were used as it is."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the quick brown fox, the lazy dog. "] * 9, trainer)
    tokenizer.enable_truncation(5)
    tokenizer.enable_padding(length=7)
    return tokenizer


@pytest.fixture(scope="module")
def digits() -> Tokenizer:
    """One token a character, so that the tests can count tokens by eye."""
    tokenizer = Tokenizer(models.WordLevel({str(d): d for d in range(10)} | {"?": 10}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return tokenizer


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def build(path, tokenizer, scratch, *, minimum=3, seed=0, progress=None, **fields):
    config = CorpusConfig.model_validate({"path": str(path), "window": 5, **fields})
    return build_examples(
        config, tokenizer, tokens=tokens_of(minimum), seed=seed, scratch=scratch, progress=progress
    )


def rows_of(examples, rows=1000) -> list[dict]:
    return [row for table in examples.tables(rows) for row in table.to_pylist()]


def tokens_of(minimum: int) -> ExampleTokens:
    """Of so many tokens one is the prefix, where there is more than one."""
    return ExampleTokens(min(1, minimum - 1), minimum - min(1, minimum - 1))


def windows_of(tokenizer, documents, *, minimum, **sizes):
    cutter = Cutter(tokenizer, tokens=tokens_of(minimum), **sizes)
    return [window for batch in batched(documents) for window in cutter.cut(batch)], cutter


def slow_windows(tokens: list, window: int, stride: int, minimum: int) -> tuple[list, int]:
    """All windows that hold a token which no earlier window held; those below the minimum apart."""
    found, seen, start = [], set(), 0
    while start < len(tokens):
        places = range(start, min(start + window, len(tokens)))
        if not seen.issuperset(places):
            found.append([tokens[place] for place in places])
        seen.update(places)
        start += stride
    long_enough = [w for w in found if len(w) >= minimum]
    return long_enough, len(found) - len(long_enough) if tokens else 1


@given(st.integers(0, 60), st.integers(1, 20), st.integers(1, 30), st.integers(1, 20))
def test_cuts_are_those_of_the_slow_oracle(tokens, window, stride, minimum):
    cuts = cut(tokens, window=window, stride=stride, minimum=minimum)
    expected, short = slow_windows(list(range(tokens)), window, stride, minimum)
    assert [list(range(start, end)) for start, end in cuts.bounds] == expected
    assert cuts.too_short == short


def test_tails_of_each_length_by_hand():
    def bounds(tokens, stride=4):
        return cut(tokens, window=4, stride=stride, minimum=2)

    assert bounds(3) == ([(0, 3)], 0)
    assert bounds(4) == ([(0, 4)], 0)
    assert bounds(5) == ([(0, 4)], 1)
    assert bounds(6) == ([(0, 4), (4, 6)], 0)
    assert bounds(6, stride=2) == ([(0, 4), (2, 6)], 0)
    assert bounds(7, stride=2) == ([(0, 4), (2, 6), (4, 7)], 0)
    assert bounds(8, stride=9) == ([(0, 4)], 0)


TEXT = st.text(
    st.sampled_from("the fox 😀é\n\t.,👩‍👩‍👧") | st.characters(exclude_categories=["Cs"]), max_size=60
)


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, max_size=6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_windows_are_those_of_the_slow_oracle(bpe, texts, window, stride, minimum):
    documents = [Document(f"d{row}", text, row) for row, text in enumerate(texts)]
    found, cutter = windows_of(bpe, documents, window=window, stride=stride, minimum=minimum)
    plain = Tokenizer.from_str(bpe.to_str())
    plain.no_truncation()
    plain.no_padding()
    expected, short = [], 0
    for document in documents:
        ids = plain.encode(document.text, add_special_tokens=False).ids
        windows, left_out = slow_windows(list(enumerate(ids)), window, stride, minimum)
        expected += [(document.id, w[0][0], [token for _, token in w]) for w in windows]
        short += left_out
    assert [(w.document_id, w.offset, w.token_ids.tolist()) for w in found] == expected
    assert (cutter.windows, cutter.too_short) == (len(expected), short)
    assert all(w.token_ids.dtype == np.int32 for w in found)


@settings(deadline=None, max_examples=150)
@given(TEXT, st.integers(1, 7))
def test_the_text_is_the_decoded_window_but_for_cut_characters(bpe, text, window):
    found, _ = windows_of(bpe, [Document("d", text, 0)], window=window, stride=window, minimum=1)
    for item in found:
        assert item.text in text
        decoded = bpe.decode(item.token_ids.tolist(), skip_special_tokens=False)
        inner = decoded.strip("\ufffd")
        assert inner in item.text
        if "\ufffd" not in decoded:
            assert item.text == decoded
        else:  # at most the one character that is cut at each end
            assert len(item.text) <= len(inner) + 2 + text.count("\ufffd")


def test_an_emoji_cut_in_two_belongs_to_both_texts(bpe):
    found, _ = windows_of(bpe, [Document("d", "x😀y", 0)], window=3, stride=3, minimum=1)
    assert [(w.offset, w.text) for w in found] == [(0, "x😀"), (3, "😀y")]


def test_leading_spaces_of_tokens_are_in_the_text(bpe):
    found, _ = windows_of(bpe, [Document("d", "the fox the dog", 0)], window=1, stride=1, minimum=1)
    assert "".join(w.text for w in found) == "the fox the dog"


def test_the_callers_tokenizer_is_left_as_it_was(bpe):
    before = bpe.to_str()
    windows_of(bpe, [Document("d", "the fox", 0)], window=3, stride=3, minimum=1)
    assert bpe.to_str() == before
    assert bpe.truncation is not None
    assert bpe.padding is not None


@pytest.mark.parametrize("split", [False, True])
def test_literal_special_tokens_become_what_training_makes_of_them(bpe, split):
    plain = Tokenizer.from_str(bpe.to_str())
    wrapped = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token=END, split_special_tokens=split)
    text = f"the fox{END}the dog"
    expected = wrapped(text, add_special_tokens=False)["input_ids"]
    found, _ = windows_of(wrapped, [Document("d", text, 0)], window=99, stride=99, minimum=1)
    assert found[0].token_ids.tolist() == expected
    assert (plain.token_to_id(END) in expected) is not split
    assert found[0].text == text


def test_no_special_tokens_are_added(bpe):
    templated = Tokenizer.from_str(bpe.to_str())
    templated.add_special_tokens([AddedToken("<s>", special=True)])
    begin = templated.token_to_id("<s>")
    templated.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", begin)])
    found, _ = windows_of(templated, [Document("d", "the fox", 0)], window=9, stride=9, minimum=1)
    assert begin not in found[0].token_ids


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/stories260K")
def test_a_sentencepiece_like_tokenizer_agrees_with_transformers():
    wrapped = PreTrainedTokenizerFast.from_pretrained(STORIES)
    text = "Once upon a time,  there was\n a 😀 dog named Ö."
    expected = wrapped(text, add_special_tokens=False)["input_ids"]
    found, _ = windows_of(wrapped, [Document("d", text, 0)], window=8, stride=8, minimum=1)
    assert [token for w in found for token in w.token_ids.tolist()] == expected
    assert found[0].text == text[: len(found[0].text)]
    assert text.endswith(found[-1].text)


def test_a_tokenizer_without_a_fast_form_is_refused():
    with pytest.raises(ModelError, match="object is not a fast tokenizer"):
        Cutter(object(), window=2, stride=2, tokens=tokens_of(2))


def test_batches_are_bounded_in_rows_and_characters():
    sizes = [1] * (BATCH_DOCUMENTS + 1) + [BATCH_CHARACTERS * 2, 3, BATCH_CHARACTERS - 3, 1]
    documents = [Document(str(row), "x" * size, row) for row, size in enumerate(sizes)]
    batches = [[len(d.text) for d in batch] for batch in batched(documents)]
    huge = [BATCH_CHARACTERS * 2]
    assert batches == [[1] * BATCH_DOCUMENTS, [1], huge, [3, BATCH_CHARACTERS - 3], [1]]


def test_a_huge_line_is_cut(bpe, tmp_path):
    path = write(tmp_path / "a.jsonl", ["the quick brown fox, 😀 " * 40_000])
    examples = build(path, bpe, tmp_path / "s", window=256, minimum=100)
    assert examples.counts.windows > 1000
    assert sum(row["copies"] for row in rows_of(examples)) == examples.counts.windows


DIGITS = st.lists(st.text("012", max_size=14), min_size=1, max_size=12)


@settings(deadline=None, max_examples=100)
@given(DIGITS, st.integers(1, 6), st.integers(1, 7))
def test_examples_are_those_of_a_counter(digits, tmp_path_factory, texts, stride, rows):
    folder = tmp_path_factory.mktemp("corpus")
    texts.append("012")  # so that a window is left
    path = write(folder / "a.jsonl", texts)
    examples = build(path, digits, folder / "s", stride=stride)
    places = []
    for row, text in enumerate(texts):
        offset_windows, _ = slow_windows(list(enumerate(text)), 5, stride, 3)
        places += [("".join(c for _, c in w), str(row), w[0][0]) for w in offset_windows]
    # Prefix + suffix are the first three tokens; the first occurrence stands for all that begin with them.
    copies = Counter(text[:3] for text, _, _ in places)
    first = {text[:3]: (document, offset) for text, document, offset in reversed(places)}
    whole = {text[:3]: text for text, _, _ in reversed(places)}
    order = list(dict.fromkeys(text[:3] for text, _, _ in places))
    assert rows_of(examples, rows) == [
        {
            "example_id": number,
            "document_id": first[text][0],
            "offset": first[text][1],
            "text": whole[text],
            "token_ids": [int(c) for c in whole[text]],
            "copies": copies[text],
            "prefix_tokens": 1,
            "suffix_tokens": 2,
            "prompt_end": None,
            "target_end": None,
        }
        for number, text in enumerate(order)
    ]
    counts = examples.counts
    assert (counts.documents, counts.windows, counts.examples) == (len(texts), len(places), len(order))
    assert counts.skipped.empty == texts.count("")
    assert not counts.sampled


def test_tables_have_the_schema_and_the_rows_asked_for(digits, tmp_path):
    path = write(tmp_path / "a.jsonl", [f"{n:05d}" for n in range(9_000)])
    examples = build(path, digits, tmp_path / "s", minimum=5)
    tables = list(examples.tables(2_500))
    assert [len(table) for table in tables] == [2_500, 2_500, 2_500, 1_500]
    assert all(table.schema.equals(EXAMPLES_SCHEMA) for table in tables)
    ids = pa.concat_tables(tables)["example_id"].to_pylist()
    assert ids == list(range(9_000))
    assert pa.concat_tables(tables).equals(pa.concat_tables(examples.tables(10_000)))


def numbers(count: int, repeats: int = 1) -> list[str]:
    return [f"{n:05d}" for n in range(count) for _ in range(repeats)]


def sampled(folder: Path, digits, texts: list[str], **fields) -> list[dict]:
    folder.mkdir()
    path = write(folder / "a.jsonl", texts)
    examples = build(path, digits, folder / "s", minimum=5, **fields)
    assert examples.counts.sampled
    assert examples.counts.windows == len(texts)
    rows = rows_of(examples)
    assert examples.counts.examples == len(rows)
    assert [row["example_id"] for row in rows] == list(range(len(rows)))
    return rows


def test_a_sample_is_the_same_set_in_any_order_with_exact_copies(digits, tmp_path):
    texts = numbers(6_000) + numbers(6_000, 2)[::3] + ["00007"] * 50
    shuffled = random.Random(1).sample(texts, len(texts))
    first = sampled(tmp_path / "a", digits, texts, limit=300)
    again = sampled(tmp_path / "b", digits, texts, limit=300)
    other = sampled(tmp_path / "c", digits, shuffled, limit=300)
    assert first == again
    assert len(first) == 300
    assert {r["text"] for r in first} == {r["text"] for r in other}
    copies = Counter(texts)
    for rows, order in ((first, texts), (other, shuffled)):
        assert all(row["copies"] == copies[row["text"]] for row in rows)
        assert [int(row["document_id"]) for row in rows] == sorted(order.index(r["text"]) for r in rows)
    seeded = sampled(tmp_path / "d", digits, texts, limit=300, seed=1)
    assert {r["text"] for r in seeded} != {r["text"] for r in first}


def test_windows_that_differ_only_behind_prefix_and_suffix_are_one_example(digits, tmp_path):
    """40 documents under one header: what is measured of them is one text."""
    texts = [f"012{n % 8}{n % 9}" for n in range(40)] + ["11100", "1110"]
    census = rows_of(build(write(tmp_path / "a.jsonl", texts), digits, tmp_path / "s", minimum=3))
    assert [(row["text"], row["copies"]) for row in census] == [("01200", 40), ("11100", 2)]
    limited = rows_of(build(tmp_path / "a.jsonl", digits, tmp_path / "t", minimum=3, limit=1))
    assert limited[0]["copies"] == {"01200": 40, "11100": 2}[limited[0]["text"]]
    whole = rows_of(build(tmp_path / "a.jsonl", digits, tmp_path / "u", minimum=5))
    assert len(whole) == len({text for text in texts if len(text) == 5})


def test_a_limit_above_the_distinct_examples_keeps_all(digits, tmp_path):
    """Nothing is left out, so it is a census and no sample."""
    path = write(tmp_path / "a.jsonl", numbers(40, 3))
    for limit, wanted in ((41, False), (40, False), (39, True)):
        counts = build(path, digits, tmp_path / f"{limit}", minimum=5, limit=limit).counts
        assert (counts.examples, counts.sampled) == (min(limit, 40), wanted)


def test_a_sample_spans_the_corpus_evenly(digits, tmp_path):
    """Chi-square over ten equal stretches of the corpus; copies must not raise a window's chance."""
    texts = [text for n, text in enumerate(numbers(20_000)) for _ in range(5 if n < 2_000 else 1)]
    rows = sampled(tmp_path / "a", digits, texts, limit=2_000)
    observed = np.bincount([int(row["text"]) // 2_000 for row in rows], minlength=10)
    assert stats.chisquare(observed).pvalue > 0.001


def test_each_window_is_sampled_equally_often_over_seeds():
    windows = np.arange(40, dtype=np.int32).reshape(20, 2)
    drawn = np.zeros(20)
    for seed in range(2_000):
        ledger = Ledger(seed=seed, limit=5)
        for window in windows:
            ledger.add(window)
        drawn[ledger.settle().rows] += 1
    assert drawn.sum() == 10_000
    # Draws without replacement vary less than chi-square supposes: the bound is on the safe side.
    assert stats.chisquare(drawn).pvalue > 0.001


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), max_size=80), st.integers(1, 12), st.sets(st.integers(0, 79)))
def test_settling_at_any_time_changes_nothing(values, limit, stops):
    once, often = Ledger(seed=3, limit=limit), Ledger(seed=3, limit=limit)
    kept_once, kept_often = [], []
    for place, value in enumerate(values):
        window = np.array([value], dtype=np.int32)
        for ledger, kept in ((once, kept_once), (often, kept_often)):
            if ledger.add(window):
                kept.append(place)
        if place in stops:
            kept_often = [kept_often[row] for row in often.settle().rows]
    one, two = once.settle(), often.settle()
    places = [kept_once[row] for row in one.rows]
    assert places == [kept_often[row] for row in two.rows]
    assert one.copies.tolist() == two.copies.tolist() == [values.count(values[p]) for p in places]
    assert places == sorted(values.index(value) for value in {values[p] for p in places})
    assert len(places) == min(limit, len(set(values)))


def test_a_settled_sample_refuses_what_it_cannot_keep():
    ledger = Ledger(seed=0, limit=10)
    admitted = [ledger.add(np.array([n], dtype=np.int32)) for n in range(1_000)]
    ledger.settle()
    assert all(admitted)
    assert sum(ledger.add(np.array([n], dtype=np.int32)) for n in range(1_000)) == 10


def test_a_samples_spool_stays_small(digits, tmp_path):
    path = write(tmp_path / "a.jsonl", numbers(30_000))
    build(path, digits, tmp_path / "census", minimum=5)
    build(path, digits, tmp_path / "sample", limit=10, minimum=5)
    (census,), (sample,) = ((tmp_path / name).iterdir() for name in ("census", "sample"))
    assert sample.stat().st_size < census.stat().st_size / 30_000 * (SLACK + 1_000)


def test_the_spool_is_private_and_leftovers_go(digits, tmp_path):
    scratch = tmp_path / "s"
    scratch.mkdir()
    (scratch / "spool-0.parquet").write_text("of a killed process")
    (scratch / "spool-7.parquet").write_text("of a killed process")
    build(write(tmp_path / "a.jsonl", ["01234"]), digits, scratch)
    (file,) = scratch.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_scratch_folder_that_cannot_be_made_is_a_storage_error(digits, tmp_path):
    path = write(tmp_path / "a.jsonl", ["01234"])
    with pytest.raises(StorageError, match="could not be stored"):
        build(path, digits, path / "s")


def test_progress_counts_rows(digits, tmp_path):
    seen: list[int] = []
    texts = ["01234", "", *["012"] * BATCH_DOCUMENTS]
    build(write(tmp_path / "a.jsonl", texts), digits, tmp_path / "s", progress=seen.append)
    assert seen[-1] == len(texts)
    assert seen == sorted(seen)
    assert len(seen) == 2


def test_a_corpus_without_examples_says_what_to_change(digits, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "01"}\n{"text": "1"}\n{"text": ""}\n{"text": "\\ud800"}\n')
    with pytest.raises(CorpusError) as caught:
        build(path, digits, tmp_path / "s")
    message = str(caught.value)
    assert "none of its 4 documents" in message
    assert "2 have fewer than 3 tokens" in message
    assert "1 are empty, 1 are not valid Unicode" in message
    assert "extraction.prefix_tokens" in message


def test_ids_beyond_the_number_of_tokens_are_kept_as_they_are(tmp_path):
    """A vocabulary may have gaps; its size says nothing of its largest id."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 70_000}, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"text": "a b a b"}\n')
    config = CorpusConfig(path=str(path), window=4)
    examples = build_examples(config, words, tokens=tokens_of(2), seed=0, scratch=tmp_path, keep_tokens=True)
    assert [ids.tolist() for ids in examples.documents()] == [[0, 70_000, 0, 70_000]]
