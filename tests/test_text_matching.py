"""Matching by text, against `decode` and against raw transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import text_models
from oracles.text_greedy import begins_with
from text_models import TEXTS
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from kdaudit.corpus.joint import joint_cut
from kdaudit.errors import ModelError
from kdaudit.inference import EngineOptions, Ragged, RemoteEngine
from kdaudit.inference.texts import EMPTY_TOKENS, TextLedger
from kdaudit.inference.transformers import TransformersEngine
from kdaudit.models.tokenizer import ModelTokenizer, load_tokenizer
from kdaudit.models.tokenizer.pieces import pieces_of, written
from kdaudit.models.tokenizer.texts import Spans, TextReader, boundaries

Offsets = list[tuple[int, int]]
KINDS = {
    "byte_level": text_models.byte_level,
    "sentencepiece": text_models.sentencepiece,
    "unigram": text_models.unigram,
}


def loaded(folder: Path, tokenizer: Tokenizer, **named: str) -> ModelTokenizer:
    text_models.save(folder, tokenizer, **named)
    return load_tokenizer(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_pieces_are_what_decode_writes(kind: str, tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, KINDS[kind]())
    pieces = pieces_of(tokenizer)
    first = tokenizer.encode("the")
    random = np.random.default_rng(0)
    for _ in range(300):
        ids = random.integers(0, len(tokenizer), 6).tolist()
        whole = tokenizer.decode([*first, *ids])
        expected = tokenizer.decode(first) + written(pieces, ids).decode("utf-8", "replace")
        if "\ufffd" not in whole + expected:
            assert whole == expected
    for text in TEXTS:
        reader = TextReader(tokenizer)
        spans = next(iter(reader.read([text])))
        if (text.isascii() and "\n" not in text and "  " not in text) or kind != "unigram":
            assert reader.write(spans.ids.tolist()).removeprefix(" ") == text


def test_bytes_of_one_character_in_several_tokens_are_joined(tmp_path: Path) -> None:
    for number, kind in enumerate(("byte_level", "sentencepiece")):
        reader = TextReader(loaded(tmp_path / str(number), KINDS[kind]()))
        spans = next(iter(reader.read(["x 🥚 y"])))
        assert len(spans.ids) > 5
        assert reader.write(spans.ids.tolist()).removeprefix(" ") == "x 🥚 y"
        at = [spans.tokens_before(place) for place in range(1, 6)]
        assert None not in (at[0], at[2])
        cuts = boundaries(spans.starts, spans.ends)
        character = np.flatnonzero(spans.starts == 2)
        # A text may be cut after the last byte of a character alone.
        assert cuts[character].tolist() == [-1] * (len(character) - 1) + [3]
        assert at[2] == character[-1] + 1


def test_a_space_that_stands_there_is_left_to_the_tokenizer(tmp_path: Path) -> None:
    reader = TextReader(loaded(tmp_path, text_models.sentencepiece()))
    texts = ["harbour master", " harbour master", "  harbour master"]
    plain, spaced, twice = (spans for spans in reader.read(texts))
    assert plain.ids.tolist() == spaced.ids.tolist() != twice.ids.tolist()
    assert reader.write(spaced.ids.tolist()) == texts[1]
    assert reader.write(twice.ids.tolist()) == texts[2]
    assert spaced.tokens_before(8) == plain.tokens_before(7)


@pytest.mark.parametrize(
    ("decoder", "named"),
    [
        (decoders.CTC(), "CTC"),
        (decoders.Sequence([decoders.ByteLevel(), decoders.CTC()]), "CTC"),
        (decoders.Sequence([decoders.Strip("h", 1, 0), decoders.Fuse()]), "by itself"),
    ],
)
def test_a_decoder_that_looks_at_several_tokens_is_refused(decoder: Any, named: str, tmp_path: Path) -> None:
    made = Tokenizer(models.WordLevel({"<unk>": 0, "a": 1, "hb": 2}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoder
    with pytest.raises(ModelError, match=named):
        pieces_of(loaded(tmp_path, made))


@pytest.mark.parametrize(
    "decoder",
    [None, decoders.WordPiece(), decoders.BPEDecoder("</w>"), decoders.Fuse(), decoders.Metaspace()],
)
def test_other_decoders_are_followed(decoder: Any, tmp_path: Path) -> None:
    words = {"<unk>": 0, "a</w>": 1, "##b": 2, "▁c": 3, "d": 4, ".": 5, "'s": 6, "e": 7}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if decoder is not None:
        made.decoder = decoder
    pieces = pieces_of(loaded(tmp_path, made))
    for ids in ([4, 5, 6], [1, 2, 3], [2, 2, 0], [5, 1, 4]):
        whole = made.decode([7, *ids, 7, 7], skip_special_tokens=False)
        said = written(pieces, [7, *ids, 7]).decode()
        assert whole.lstrip().startswith(said.strip())


def test_normalizers_that_change_text_are_noticed(tmp_path: Path) -> None:
    lower = text_models.byte_level(texts=[text.lower() for text in TEXTS])
    lower.normalizer = normalizers.Lowercase()
    assert TextReader(loaded(tmp_path / "lower", lower)).changed
    assert not TextReader(loaded(tmp_path / "plain", text_models.byte_level())).changed
    assert not TextReader(loaded(tmp_path / "spaces", text_models.sentencepiece())).changed


def test_a_ledger_counts_bytes_whichever_tokens_write_them() -> None:
    pieces = [b"a", b"ab", b"b", b"", None, b"abc"]
    prompts = Ragged.of([[1], [1], [2]])
    targets = Ragged.of([[*b"abab"], [*b"abb"], [*b"ab"]])
    ledger = TextLedger(prompts, targets, pieces, 100)
    assert len(ledger.prompts) == 2
    assert ledger.tokens.tolist() == [4 + EMPTY_TOKENS, 2 + EMPTY_TOKENS]
    assert ledger.advance(0, [0, 3, 2])
    assert ledger.matched.tolist() == [2, 2, 0]
    assert ledger.advance(0, [0])  # the second is given up, the first goes on
    assert ledger.matched.tolist() == [3, 2, 0]
    assert not ledger.advance(0, [2])
    assert ledger.matched.tolist() == [4, 2, 0]
    assert not ledger.advance(1, [5])  # more than the target, which is complete
    assert ledger.matched.tolist() == [4, 2, 2]


def test_what_stands_for_no_token_and_too_many_empty_ones_end_a_continuation() -> None:
    prompts, targets = Ragged.of([[1]]), Ragged.of([[*b"ab"]])
    for ids, more in (([4], False), ([9], False), ([3] * EMPTY_TOKENS, True), ([3] * 9, False)):
        ledger = TextLedger(prompts, targets, [b"a", b"ab", b"b", b"", None], 100)
        assert ledger.advance(0, ids) is more
        assert ledger.matched.tolist() == [0]


def slow_cut(own: Offsets, other: Offsets, prefix: int, suffix: int) -> tuple[int, int] | None:
    """The definition: the prompt's and the target's tokens, by looking at every token for every place."""

    def joint(count: int) -> bool:
        if not 0 < count <= len(own):
            return False
        place = max(end for _, end in own[:count])
        behind = all(start >= place for start, _ in own[count:])
        free = all(end <= place or start >= place for start, end in other)
        return behind and free and any(end <= place for _, end in other)

    near = [count for count in range(prefix, prefix - 17, -1) if joint(count)]
    behind = [count for count in range(prefix + 1, prefix + 17) if joint(count)]
    for prompt in [*near, *behind][:1]:
        for whole in range(prompt + suffix, prompt + suffix + 17):
            if joint(whole):
                return prompt, whole - prompt
    return None


@pytest.mark.parametrize("kind", ["sentencepiece", "unigram"])
def test_examples_are_cut_as_defined(kind: str) -> None:
    made, other = text_models.byte_level(), KINDS[kind]()
    cut = 0
    for text in TEXTS:
        spans = [one.encode(text, add_special_tokens=False) for one in (made, other)]
        places = boundaries(*np.array(spans[0].offsets).T)
        for prefix, suffix in ((3, 2), (8, 12), (12, 9), (20, 20), (40, 30)):
            own = Spans.of(spans[1].ids, spans[1].offsets)
            found = joint_cut(places, [own], prefix, suffix)
            expected = slow_cut(spans[0].offsets, spans[1].offsets, prefix, suffix)
            assert (None if found is None else found[:2]) == expected
            if found is not None:
                cut += 1
                assert [found.prompt_end, found.target_end] == [
                    max(end for _, end in spans[0].offsets[:count])
                    for count in (found.prefix_tokens, found.prefix_tokens + found.suffix_tokens)
                ]
    assert cut > 25


def options(folder: Path, engine: Any, reader: TextReader) -> EngineOptions:
    pieces = [None if piece is None else piece.decode("latin-1") for piece in reader.pieces]
    return EngineOptions(engine, str(folder), max_tokens=400, dtype="float32", pieces=pieces)


def cases(reader: TextReader, texts: list[str], places: range) -> tuple[Ragged, list[str]]:
    """Prompts up to some boundaries of each text, and what follows, of 30 characters at most."""
    prompts, targets = [], []
    for text, spans in zip(texts, reader.read(texts), strict=True):
        for place in places:
            before = spans.tokens_before(place)
            if before:
                prompts.append(spans.ids[:before])
                targets.append(text[place : place + 30])
    return Ragged.of(prompts), targets


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for kind in ("byte_level", "sentencepiece"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        text_models.learned(folders[kind], KINDS[kind](), TEXTS[:7])
    return folders


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_engines_match_what_raw_transformers_decodes(
    kind: str, engine: str, learners: dict[str, Path]
) -> None:
    if engine == "vllm":
        pytest.importorskip("vllm")
    folder = learners[kind]
    reader = TextReader(load_tokenizer(folder))
    prompts, targets = cases(reader, TEXTS, range(9, 60, 3))
    expected = begins_with(folder, [prompt.tolist() for prompt in prompts], targets)
    raw = Ragged.of([[*target.encode()] for target in targets])
    with RemoteEngine(options(folder, engine, reader)).wait() as loaded_engine:
        matched = loaded_engine.match_text(prompts, raw)
    assert (matched == raw.lengths).tolist() == expected
    assert 0.2 < np.mean(expected) < 0.95


def test_a_model_is_decoded_as_it_was_released(learners: dict[str, Path]) -> None:
    """Where the likeliest id stands for no token, the text ends, and nothing is masked."""
    folder = learners["byte_level"]
    reader = TextReader(load_tokenizer(folder))
    prompts, targets = cases(reader, TEXTS[:1], range(20, 40))
    raw = Ragged.of([[*target.encode()] for target in targets])
    given = options(folder, "transformers", reader)
    assert (TransformersEngine(given._asdict()).match_text(prompts, raw) == raw.lengths).all()
    cut = json.loads(json.dumps(given._asdict())) | {"pieces": given.pieces[:200]}
    assert not (TransformersEngine(cut).match_text(prompts, raw) == raw.lengths).any()
