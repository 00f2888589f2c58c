"""A text encoded in pieces, against the same text encoded at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import Document
from kdaudit.corpus.windows import Cutter, ExampleTokens
from kdaudit.inference import Ragged
from kdaudit.models.tokenizer import Encoder, plain_tokenizer
from kdaudit.screening.recurrences import Recurrences
from kdaudit.screening.spans import Flags, Marker
from kdaudit.screening.window_hashes import KeySet

STORIES = Path(__file__).parents[2] / "shared" / "data" / "stories260K"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
PROSE = [
    "The quick brown fox, the lazy dog. It's what they'd say:  we've SEEN it, 1234567 times in 2024!",
    "def f(x):\n    return x[0] + 12\n\n\n\tpass  # TODO\r\n",
    "naïve café, cafe\u0301; “quotes” … 你好，世界。 Ελληνικά 😀 ½ ﬁ",  # noqa: RUF001 - Chinese
]
ADDED = [
    AddedToken("<|end|>", special=True),
    AddedToken("<left>", lstrip=True, normalized=False),
    AddedToken("<right>", rstrip=True, normalized=False),
    AddedToken("<both>", lstrip=True, rstrip=True, special=True),
    AddedToken("a b\n\nc", normalized=False),
    AddedToken("   ", normalized=True),
    AddedToken("dog", single_word=True),
]


def byte_level(*patterns: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if patterns:
        splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(PROSE * 3, trainer)
    return tokenizer


def metaspace_bpe(scheme: str, *, split: bool) -> Tokenizer:
    """A BPE of characters with tokens for bytes, as Llama 1 and 2, Mistral and Gemma have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    of_bytes = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=520, special_tokens=of_bytes, show_progress=False)
    tokenizer.train_from_iterator(PROSE * 3, trainer)
    # Trained with words, and used without: no token then has a space behind another character.
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    return tokenizer


def llama_2() -> Tokenizer:
    tokenizer = metaspace_bpe("always", split=True)
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def gemma() -> Tokenizer:
    tokenizer = metaspace_bpe("never", split=True)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    return tokenizer


def unigram(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(PROSE * 3, trainer)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizer
    return tokenizer


def bert() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=12))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(PROSE * 3, trainer)
    return tokenizer


def changed(tokenizer: Tokenizer, **parts: object) -> Tokenizer:
    for name, part in parts.items():
        setattr(tokenizer, name, part)
    return tokenizer


def spaced_bytes() -> Tokenizer:
    return changed(byte_level(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True))


N = normalizers
IN_PIECES = {
    "gpt-2": byte_level,
    "gpt-2, space first": spaced_bytes,
    "llama-3": lambda: byte_level(LLAMA_3),
    "qwen-2": lambda: changed(byte_level(QWEN_2), normalizer=N.NFC()),
    "deepseek": lambda: byte_level(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"\p{N}"),
    "nfkc": lambda: changed(byte_level(), normalizer=N.NFKC()),
    "nfd, lower case": lambda: changed(
        byte_level(), normalizer=N.Sequence([N.NFD(), N.Lowercase(), N.StripAccents()])
    ),
    "strip": lambda: changed(byte_level(), normalizer=N.Strip()),
    "bytes without words": lambda: changed(
        byte_level(), pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    ),
    "llama-2": llama_2,
    "gemma": gemma,
    "mistral": lambda: metaspace_bpe("first", split=False),
    "metaspace first": lambda: metaspace_bpe("first", split=True),
    "metaspace never": lambda: metaspace_bpe("never", split=True),
    "metaspace always": lambda: metaspace_bpe("always", split=True),
    "bert": bert,
    "t5": lambda: unigram(pre_tokenizers.Metaspace()),
    "xlm-r": lambda: unigram(
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    ),
}
OTHERS = {
    "unigram without words": lambda: unigram(None),
    "seven letters a word": lambda: changed(
        byte_level(),
        pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.FixedLength(7), pre_tokenizers.ByteLevel()]),
    ),
}
"""Kinds with no cut that is known to be safe, or few."""
KINDS = IN_PIECES | OTHERS
# With the Strip normalizer and added tokens, `tokenizers` 0.23 panics on some texts, in pieces or not.
ADDED_TO = [kind for kind in KINDS if kind != "strip"]
_made: dict[tuple[str, bool], Tokenizer] = {}


def tokenizer_of(kind: str, *, added: bool = False) -> Tokenizer:
    if (kind, added) not in _made:
        tokenizer = KINDS[kind]()
        if added:
            tokenizer.add_tokens(ADDED)
        _made[kind, added] = plain_tokenizer(tokenizer)
    return _made[kind, added]


BITS = st.sampled_from(
    [
        *"ab19 \n.\t😀é½ﬁ世▁",
        *("the", " fox", " the", "'s", "  ", "\r\n", "\u0301", "\u0323\u0301", "\u200d", "\u00a0"),
        *("<0x0A>", "<unk>", *(token.content for token in ADDED)),
        *("1" * 20, " " * 30, "\n" * 20, "a" * 30, "ab" * 15, "\u0301" * 15, "。" * 9),
        *PROSE,
    ]
)
TEXTS = st.lists(BITS | st.characters(exclude_categories=["Cs"]), max_size=80).map("".join)


def assert_read_alike(tokenizer: Tokenizer, text: str, **sizes: int) -> None:
    whole = tokenizer.encode(text, add_special_tokens=False)
    found = Encoder(tokenizer, **sizes).encode(text)
    assert found.ids.tolist() == whole.ids
    assert len(found) == len(whole)
    assert [found.span(at, at + 1) for at in range(len(found))] == whole.offsets


@pytest.mark.parametrize(
    ("kind", "added"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in ADDED_TO)]
)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS, piece=st.integers(1, 90), reach=st.integers(12, 60))
def test_a_text_in_pieces_reads_as_the_whole(kind, added, text, piece, reach):
    assert_read_alike(tokenizer_of(kind, added=added), text, piece=piece, reach=reach)


class Spy:
    """A tokenizer that notes how long the texts are that it encodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.lengths: list[int] = []

    def encode(self, text: str, **options: bool) -> object:
        self.lengths.append(len(text))
        return self.tokenizer.encode(text, **options)

    def to_str(self) -> str:
        return self.tokenizer.to_str()

    def get_vocab(self) -> dict[str, int]:
        return self.tokenizer.get_vocab()


def lengths_encoded(
    tokenizer: Tokenizer, text: str, monkeypatch: pytest.MonkeyPatch, **sizes: int
) -> list[int]:
    long = Encoder(tokenizer, **sizes)
    spy = Spy(tokenizer)
    monkeypatch.setattr(long, "_tokenizer", spy)
    found = long.encode(text)
    assert found.ids.tolist() == tokenizer.encode(text, add_special_tokens=False).ids
    return spy.lengths


@pytest.mark.parametrize("kind", IN_PIECES)
def test_no_more_than_a_piece_is_encoded_at_once_where_a_cut_is_known_to_be_safe(kind, monkeypatch):
    text = " ".join(PROSE * 150)
    lengths = lengths_encoded(tokenizer_of(kind), text, monkeypatch, piece=3_000, reach=200)
    assert max(lengths) <= 3_000 + 4 * 200
    assert sum(lengths) < 1.8 * len(text)


def test_a_unigram_model_without_words_reads_a_text_at_once(monkeypatch):
    """Which of two equally likely readings it takes may depend on the rounding of all scores before."""
    text = " ".join(PROSE * 150)
    lengths = lengths_encoded(
        tokenizer_of("unigram without words"), text, monkeypatch, piece=3_000, reach=200
    )
    assert max(lengths) == len(text)


@pytest.mark.parametrize("run", ["7", " ", "\n", "a", "世", "=", "\u0301"])
def test_a_long_run_of_one_kind_is_not_cut_out_of_step(run, monkeypatch):
    """A run is split by the distance from its start, which lies before what a piece reads."""
    for length in (5_000, 5_001, 5_002):
        text = f"{PROSE[0] * 20} {run * length}{PROSE[1]}{PROSE[0] * 60}"
        for kind in ADDED_TO:
            lengths_encoded(tokenizer_of(kind, added=True), text, monkeypatch, piece=1_000, reach=100)


def test_where_a_letter_joins_a_space_a_bpe_without_words_is_not_cut_there(monkeypatch):
    """Such a token may begin anywhere in 'the the the'."""
    words = ["▁", "t", "h", "e", "th", "the", "e▁", "▁t", "the▁", "<unk>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("t", "h"), ("th", "e"), ("e", "▁"), ("▁", "t"), ("the", "▁")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    text = "the. the, the " * 300
    lengths_encoded(tokenizer, text, monkeypatch, piece=500, reach=50)


@pytest.mark.parametrize(
    ("pattern", "ends"),
    [
        ('"[^"]*"', '""'),
        ("<.*>", "<>"),
        ("<(?:[^>\\d]|\\d)*>", "<>"),
        (r"\([^)]{2,}\)", "()"),
        (r'"[\s\S]*?"', '""'),
        (r"<[\w\s]+>", "<>"),
        (r"<(?:\w+\s)+>", "<>"),
        (r"\w+(?=[\w\s]+!)", " !"),
    ],
)
def test_a_pattern_that_spans_any_text_is_matched_in_the_whole(pattern, ends, monkeypatch):
    first, last = ends
    spanned = [f"{first}{text}{last}" for text in PROSE]
    tokenizer = byte_level(pattern + "|" + LLAMA_3)
    trainer = trainers.BpeTrainer(
        vocab_size=2_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(spanned * 3, trainer)
    text = f"{PROSE[0]}\n{first}{' '.join([PROSE[0]] * 90)}{last}\n{PROSE[0] * 9}"
    lengths_encoded(tokenizer, text, monkeypatch, piece=1_000, reach=100)


def test_a_normalizer_that_spans_any_text_is_given_the_whole(monkeypatch):
    tokenizer = changed(byte_level(), normalizer=N.Replace(Regex(r"<(?:\w|\s)+>"), "gone"))
    text = f"A fox.\n<{'the quick fox ' * 300}>\n{PROSE[0] * 30}"
    lengths_encoded(tokenizer, text, monkeypatch, piece=1_000, reach=100)


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/stories260K")
def test_a_published_tokenizer_is_read_in_pieces(monkeypatch):
    tokenizer = plain_tokenizer(Tokenizer.from_file(str(STORIES / "tokenizer.json")))
    text = " ".join(PROSE * 150)
    lengths = lengths_encoded(tokenizer, text, monkeypatch, piece=3_000, reach=200)
    assert max(lengths) <= 3_000 + 4 * 200


def test_windows_and_marks_of_a_long_document_are_those_of_the_whole(monkeypatch):
    tokenizer = tokenizer_of("llama-3", added=True)
    batch = [
        Document("short", PROSE[0], 0),
        Document("long", " ".join(PROSE * 40), 1),
        Document("s", "fox", 2),
    ]
    config = CorpusConfig.model_validate({"path": "x", "window": 32, "stride": 16})

    def read() -> tuple[list, list]:
        tokens = ExampleTokens(4, 4)
        windows = [*Cutter(tokenizer, window=32, stride=16, tokens=tokens).cut(batch)]
        flagged = KeySet([window.measured for window in windows[::3]])
        suffixes = Ragged.of(window.measured[4:] for window in windows[::3])
        many = np.ones(len(suffixes), np.bool_)
        recurrences = Recurrences(suffixes, many, np.zeros(len(suffixes), np.int8))
        marks = Marker(tokenizer, config, 8, Flags(flagged, None), recurrences).mark(batch)
        return [(w.document_id, w.offset, w.text, w.token_ids.tolist()) for w in windows], marks

    whole = read()
    for name, characters in (("piece", 700), ("reach", 100)):
        monkeypatch.setitem(Encoder.__init__.__kwdefaults__, name, characters)
    assert read() == whole


MEMORY = """
import resource, sys
from tokenizers import Tokenizer
from kdaudit.corpus import Document
from kdaudit.corpus.windows import Cutter, ExampleTokens, batched

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

text = " ".join(f"{number % 1000} the quick brown fox, the lazy dog." for number in range(500_000))
cutter = Cutter(Tokenizer.from_file(sys.argv[1]), window=256, stride=256, tokens=ExampleTokens(50, 50))
before = peak()
windows = (window for batch in batched([Document("d", text, 0)]) for window in cutter.cut(batch))
tokens = sum(len(window.token_ids) for window in windows)
print(len(text), tokens, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes of resident memory as Linux does")
def test_a_document_of_20_mb_needs_no_gigabytes(tmp_path):
    tokenizer_of("gpt-2").save(str(tmp_path / "tokenizer.json"))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "tokenizer.json")]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    characters, tokens, mebibytes = map(int, run.stdout.split())
    assert characters > 19_000_000
    assert tokens > 5_000_000
    assert mebibytes < 700
