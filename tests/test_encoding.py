"""Texts that other processes encode are the same tokens, in the same order, whatever becomes of those."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chats
import numpy as np
import psutil
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_answers import TOKENS, own_tokenizer
from test_encoder import ADDED, LLAMA_3, PROSE, byte_level

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ChatFormat, build_examples, template_of
from kdaudit.errors import EngineError, ModelError, WorkerLostError
from kdaudit.inference.executors import encoding
from kdaudit.inference.executors.encoding import RemoteEncoder, encoding_elsewhere
from kdaudit.inference.workers import Start, Worker, begin_worker
from kdaudit.models.tokenizer import (
    EncodedText,
    Encoder,
    EncoderService,
    PackedTexts,
    PackedTokens,
    service_options,
    versions,
)

BATCHES = [[f"{number}: {text}" for text in PROSE] + ["", "dog"] for number in range(40)]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    made = byte_level(LLAMA_3)
    made.add_tokens(ADDED)
    return made


@pytest.fixture(autouse=True)
def one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_ALONE", 1)


class Nodes:
    """Processes of this machine in place of a cluster's."""

    def __init__(self, count: int, tokenizer: Any) -> None:
        self.count, self.started, self.warnings = count, [], []
        self.encode = encoding_elsewhere(tokenizer, self._encoders, self.warnings.append)

    @contextmanager
    def _encoders(self) -> Iterator[Sequence[Start]]:
        def start(*given: Any) -> Worker:
            self.started.append(begin_worker(*given))
            return self.started[-1]

        yield [start] * self.count


def rows(encoded: EncodedText) -> list[Any]:
    whole = encoded.span(0, len(encoded)) if len(encoded) else None
    return [encoded.ids.tolist(), *(column.tolist() for column in encoded.places()), whole]


def expected(tokenizer: Any, batches: list[list[str]] = BATCHES) -> list[Any]:
    own = Encoder(tokenizer)
    return [[rows(one) for one in own.encode_batch(batch)] for batch in batches]


def found(nodes: Nodes, batches: list[list[str]] = BATCHES) -> list[Any]:
    return [[rows(one) for one in texts] for texts in nodes.encode(iter(batches))]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_from_bytes(texts: list[str]) -> None:
    packed = PackedTexts.of(texts)
    assert packed.texts() == texts
    assert packed.text.dtype == np.uint8


@pytest.mark.parametrize("split_special", [False, True])
def test_a_service_encodes_as_this_process(tokenizer: Any, split_special: bool) -> None:
    """Also special tokens in a text, which the tokenizer's JSON does not say how to read."""
    texts = ["a<|end|>b", *PROSE, "", "x" * 30 + "<|end|>"]
    tokenizer.encode_special_tokens = split_special
    try:
        service, own = EncoderService(service_options(tokenizer)), Encoder(tokenizer)
    finally:
        tokenizer.encode_special_tokens = False
    packed = PackedTokens(*service.encode(*PackedTexts.of(texts)))
    assert [rows(one) for one in packed.texts()] == [rows(one) for one in own.encode_batch(texts)]
    end = tokenizer.token_to_id("<|end|>")
    assert (end in next(packed.texts()).ids) == (not split_special)
    assert [*PackedTokens.of([]).texts()] == []


def test_two_processes_give_what_this_one_does_in_order(tokenizer: Any) -> None:
    nodes = Nodes(2, tokenizer)
    assert found(nodes) == expected(tokenizer)
    assert len(nodes.started) == 2
    assert nodes.warnings == []


def test_long_texts_are_not_read_far_ahead(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one longer than the bound is encoded elsewhere, alone."""
    begin, begun = RemoteEncoder.begin, []
    monkeypatch.setattr(RemoteEncoder, "begin", lambda *given: (begun.append(given), begin(*given)))
    monkeypatch.setattr(encoding, "_AHEAD", 1)
    nodes, read, given, most = Nodes(2, tokenizer), [], [], 0
    for texts in nodes.encode(read.append(batch) or batch for batch in BATCHES):
        given.append([rows(one) for one in texts])
        most = max(most, len(read) - len(given))
    assert given == expected(tokenizer)
    assert most == 0
    assert len(begun) == len(BATCHES), "all but the first two, and the second by both"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_small_text_starts_no_process(tokenizer: Any, count: int) -> None:
    nodes = Nodes(2, tokenizer)
    assert found(nodes, BATCHES[:count]) == expected(tokenizer, BATCHES[:count])
    assert nodes.started == []
    assert found(nodes, BATCHES[:3]) == expected(tokenizer, BATCHES[:3])
    assert len(nodes.started) == 2


@pytest.mark.parametrize("lost", [[0], [0, 1]])
def test_what_a_lost_process_had_is_encoded_all_the_same(
    tokenizer: Any, lost: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the others, or where none is left by this one."""
    begin, finish = RemoteEncoder.begin, RemoteEncoder.finish

    def begun_as_in_ray(encoder: RemoteEncoder, texts: list[str]) -> None:
        with contextlib.suppress(EngineError):  # a call to what is gone is answered with that
            begin(encoder, texts)

    def told_as_ray_does(encoder: RemoteEncoder) -> PackedTokens:
        try:
            return finish(encoder)
        except EngineError:
            raise WorkerLostError("the node is gone") from None

    monkeypatch.setattr(RemoteEncoder, "begin", begun_as_in_ray)
    monkeypatch.setattr(RemoteEncoder, "finish", told_as_ray_does)
    nodes, read = Nodes(2, tokenizer), []
    for number, texts in enumerate(nodes.encode(iter(BATCHES))):
        read.append([rows(one) for one in texts])
        if number == 4:
            for one in lost:
                os.kill(nodes.started[one].pid, signal.SIGKILL)
    assert read == expected(tokenizer)
    assert nodes.warnings[0] == "the node is gone; its work is done by those that are left: 1"
    alone = "no replica is left in the Ray cluster; this machine tokenizes the rest of the text alone"
    assert nodes.warnings[1:] == [f"the node is gone; {alone}"][: len(lost) - 1]


def test_where_nodes_are_slower_this_machine_encodes_all_in_silence(tokenizer: Any) -> None:
    nodes = Nodes(0, tokenizer)
    assert found(nodes) == expected(tokenizer)
    assert nodes.warnings == []


@pytest.mark.parametrize("what", ["no node had room", "no node had room\nmore of what was said there"])
def test_without_room_this_machine_encodes_all(tokenizer: Any, what: str) -> None:
    @contextmanager
    def full() -> Iterator[Sequence[Start]]:
        raise EngineError(what, "run again to resume")
        yield ()

    warnings: list[str] = []
    encode = encoding_elsewhere(tokenizer, full, warnings.append)
    assert [[rows(one) for one in texts] for texts in encode(iter(BATCHES))] == expected(tokenizer)
    assert warnings == ["no node had room; this machine tokenizes the rest of the text alone"]


def test_other_versions_of_the_library_encode_nothing(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = versions()
    monkeypatch.setattr(encoding, "service_options", lambda one: {**service_options(one), "versions": {}})
    monkeypatch.setattr(encoding, "versions", lambda: {**own, "tokenizers": "0.0.1"})
    nodes = Nodes(1, tokenizer)
    assert found(nodes) == expected(tokenizer)
    (warned,) = nodes.warnings
    assert f"tokenizes no text: tokenizers there is {own['tokenizers']}, and 0.0.1 here; " in warned
    assert warned.endswith("this machine tokenizes the rest of the text alone")


def test_other_tokens_elsewhere_are_an_error(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    other = byte_level()
    monkeypatch.setattr(encoding, "service_options", lambda _: service_options(other))
    with pytest.raises(
        ModelError, match=r"tokenizes a text otherwise than this machine.*install the same packages"
    ) as told:
        found(Nodes(2, tokenizer))
    assert told.value.key == "compute.ray"


def test_what_is_wrong_with_the_text_is_raised_and_ends_the_processes(tokenizer: Any) -> None:
    def broken() -> Iterator[list[str]]:
        yield from BATCHES[:6]
        raise ValueError("the file ends")

    nodes = Nodes(1, tokenizer)
    with pytest.raises(ValueError, match="the file ends"):
        list(nodes.encode(broken()))
    assert nodes.warnings == []
    assert not [one for one in nodes.started if psutil.pid_exists(one.pid)]


def test_prompts_and_answers_are_cut_from_tokens_made_elsewhere(tmp_path: Path) -> None:
    rows = [
        {"q": f"w{number} w11", "a": " ".join(f"w{number + more}" for more in range(20))}
        for number in range(30, 60)
    ]
    path = chats.write_rows(tmp_path / "c.jsonl", rows)
    config = CorpusConfig.model_validate({"path": str(path), "window": 12, "prompt": "q", "response": "a"})
    own = own_tokenizer()
    service = EncoderService(service_options(own))

    def encode(batches: Iterator[list[str]]) -> Generator[Iterable[EncodedText], None, None]:
        for texts in batches:
            yield PackedTokens(*service.encode(*PackedTexts.of(texts))).texts()

    made = [
        build_examples(
            config,
            own,
            tokens=TOKENS,
            seed=0,
            scratch=tmp_path / str(number),
            chat=ChatFormat(template_of(config, own), "auto", 14),
            keep_tokens=True,
            encode=given,
        )
        for number, given in enumerate((None, encode))
    ]
    one, two = (pa.concat_tables(each.tables(1000)) for each in made)
    assert len(one) == len(rows)
    assert one.equals(two)
    one, two = ([tokens.tolist() for tokens in each.documents()] for each in made)
    assert one == two
    assert made[0].counts == made[1].counts
    assert made[0].answers == made[1].answers
