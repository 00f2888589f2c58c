"""Prompts and targets of any length: rows, the ledger and both engines against loops over plain lists."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
import toys
from conftest import needs_vllm
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from kdaudit.analysis.inheritance import survival
from kdaudit.attacks.examples import examples_of
from kdaudit.errors import DisagreementError
from kdaudit.inference import EngineOptions, Ragged, Split, start
from kdaudit.inference import transformers as transformers_engine
from kdaudit.inference.checking import Asking, Model, ask_reference, check_engine
from kdaudit.inference.prefixes import SuffixLedger
from kdaudit.inference.transformers import TransformersEngine
from kdaudit.runs.examples import read_shard
from kdaudit.runs.store import RunStore

ROWS = st.lists(st.lists(st.integers(0, 9), max_size=5), max_size=6)


@given(ROWS, st.data())
def test_rows_are_those_of_plain_lists(rows: list[list[int]], data: st.DataObject) -> None:
    ragged = Ragged.of(rows)
    assert [row.tolist() for row in ragged] == rows
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    places = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    taken = ragged.take(np.array(places, np.intp))
    assert [row.tolist() for row in taken] == [rows[place] for place in places]
    counts = np.array([data.draw(st.integers(0, 7)) for _ in rows], np.int64)
    assert [row.tolist() for row in ragged.head(counts)] == [
        row[:n] for row, n in zip(rows, counts, strict=True)
    ]
    assert [row.tolist() for row in ragged.tail(counts)] == [
        row[n:] for row, n in zip(rows, counts, strict=True)
    ]
    joined = taken.followed_by(taken.head(2)).after(7)
    assert [row.tolist() for row in joined] == [[7, *rows[p], *rows[p][:2]] for p in places]


def test_a_matrix_is_made_of_equal_rows_alone() -> None:
    assert Ragged.of([[1, 2], [3, 4]]).matrix().tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="different lengths"):
        Ragged.of([[1, 2], [3]]).matrix()


def test_a_window_is_cut_into_prompt_and_target_and_the_rest_is_left() -> None:
    batch = Split(2, 3, 9).cut(np.array([4, 5]), Ragged.of([[1, 2, 3, 4, 5, 6], [1, 1, 2, 2, 2]]))
    assert [row.tolist() for row in batch.prompts] == [[9, 1, 2], [9, 1, 1]]
    assert [row.tolist() for row in batch.targets] == [[3, 4, 5], [2, 2, 2]]


@given(st.data())
def test_the_ledger_counts_the_common_start(data: st.DataObject) -> None:
    prompts = data.draw(st.lists(st.sampled_from([(1,), (1, 3), (2, 2, 2)]), min_size=1, max_size=12))
    targets = [data.draw(st.lists(st.integers(0, 2), min_size=1, max_size=4)) for _ in prompts]
    continuation = {
        prompt: data.draw(st.lists(st.integers(0, 2), min_size=4, max_size=4)) for prompt in set(prompts)
    }
    ledger = SuffixLedger(Ragged.of(prompts), Ragged.of(targets))
    assert [tuple(row.tolist()) for row in ledger.prompts] == list(dict.fromkeys(prompts))
    for row, prompt in enumerate(ledger.prompts):
        for token in continuation[tuple(prompt.tolist())][: ledger.tokens[row]]:
            if not ledger.advance(row, [token]):
                break
    expected = []
    for prompt, own in zip(prompts, targets, strict=True):
        count = 0
        while count < len(own) and continuation[prompt][count] == own[count]:
            count += 1
        expected.append(count)
    assert ledger.matched.tolist() == expected


def test_a_target_longer_than_a_count_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="32,768 tokens, and may have 32,767"):
        SuffixLedger(Ragged.of([[1]]), Ragged.of([[1] * (1 << 15)]))


def test_survival_is_taken_over_the_examples_that_have_so_many_tokens() -> None:
    matched, lengths = np.array([3, 1, 0, 2], np.int16), np.array([3, 1, 4, 3])
    expected = [
        sum(m >= k for m, n in zip(matched, lengths, strict=True) if n >= k) / sum(n >= k for n in lengths)
        for k in range(5)
    ]
    assert survival(matched, lengths) == expected == [1.0, 0.75, 2 / 3, 1 / 3, 0.0]
    with pytest.raises(ValueError, match="0 to the target's length"):
        survival(np.array([2], np.int16), np.array([1]))


class Asked(NamedTuple):
    prompts: list[list[int]]
    targets: list[list[int]]
    matched: list[int]


def continued(model: Any, prompt: list[int], tokens: int) -> list[int]:
    """Greedy decoding of one prompt alone, one whole pass a token."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def asked_of(folder: Path, longest: int = 24) -> Asked:
    """Prompts of 1 to `longest` tokens, some of them twice, and targets that leave the model anywhere."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    random = np.random.default_rng(4)
    prompts = [random.integers(2, 300, n).tolist() for n in random.integers(1, longest + 1, 40)]
    prompts += prompts[:5]
    asked = Asked(prompts, [], [])
    for prompt in prompts:
        target = continued(model, prompt, int(random.integers(1, 13)))
        place = int(random.integers(0, 2 * len(target)))  # half of them are left as they are
        if place < len(target):
            target[place] = (target[place] + 1) % 300
        asked.targets.append(target)
        asked.matched.append(min(place, len(target)))
    return asked


def families(folder: Path) -> dict[str, Path]:
    """Rotary and learned positions."""
    toys.save_model(folder / "llama", 1)
    torch.manual_seed(1)
    gpt2 = GPT2Config(
        n_embd=64, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3, vocab_size=toys.VOCABULARY
    )
    GPT2LMHeadModel(gpt2).save_pretrained(folder / "gpt2")
    return {name: folder / name for name in ("llama", "gpt2")}


@pytest.mark.parametrize(
    "engine", ["transformers", pytest.param("vllm", marks=[needs_vllm, pytest.mark.slow])]
)
def test_an_engine_takes_each_prompt_as_it_is(engine: Any, tmp_path: Path) -> None:
    for name, folder in families(tmp_path).items():
        asked = asked_of(folder)
        prompts, targets = Ragged.of(asked.prompts), Ragged.of(asked.targets)
        with start(EngineOptions(engine, str(folder), 40, "float32")) as loaded:
            assert loaded.match(prompts, targets).tolist() == asked.matched, name
            written = loaded.generate(prompts, targets.lengths)
        assert written.lengths.tolist() == targets.lengths.tolist()
        for own, target, matched in zip(written, asked.targets, asked.matched, strict=True):
            assert own[:matched].tolist() == target[:matched]
            assert matched == len(target) or own[matched] != target[matched]


@pytest.mark.parametrize(("sequences", "positions"), [(3, 10_000), (64, 20)])
def test_small_batches_change_nothing(
    sequences: int, positions: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded in rows, and in positions whose logits are held."""
    folder = families(tmp_path)["llama"]
    asked = asked_of(folder)
    monkeypatch.setattr(transformers_engine, "_LOGITS_BYTES", 4 * toys.VOCABULARY * positions)
    options = EngineOptions("transformers", str(folder), 40, "float32", max_num_seqs=sequences)
    engine = TransformersEngine(options._asdict())
    model, held = engine._model, []

    def seen(**given: Any) -> Any:
        told = model(**given)
        held.append(told.logits.shape[:2])
        return told

    engine._model = seen
    assert engine.match(Ragged.of(asked.prompts), Ragged.of(asked.targets)).tolist() == asked.matched
    assert all(rows <= sequences and (rows == 1 or rows * kept <= positions) for rows, kept in held)


def test_texts_on_either_side_of_a_short_context_are_not_padded_together(tmp_path: Path) -> None:
    """LongRoPE reads a text that counts as long at other positions, all of it."""
    torch.manual_seed(2)
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 16,
        "long_factor": [9.0] * 16,
        "original_max_position_embeddings": 14,
        "factor": 4.0,
    }
    config = LlamaConfig(
        vocab_size=300,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=56,
        initializer_range=0.3,
        rope_parameters=rope,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    random = np.random.default_rng(5)
    prompts = [random.integers(2, 300, n).tolist() for n in random.integers(6, 14, 40)]
    targets, expected = [], []
    for prompt in prompts:
        target = continued(model, prompt, int(random.integers(1, 9)))
        with torch.inference_mode():  # read at once, as one text alone
            said = model(torch.tensor([prompt + target])[:, :-1]).logits[0, len(prompt) - 1 :].argmax(-1)
        targets.append(target)
        expected.append(int(np.cumprod(said.numpy() == target).sum()))
    engine = TransformersEngine(EngineOptions("transformers", str(tmp_path), 40, "float32")._asdict())
    assert {len(p) + len(t) > 15 for p, t in zip(prompts, targets, strict=True)} == {True, False}
    assert engine.match(Ragged.of(prompts), Ragged.of(targets)).tolist() == expected


def test_the_engine_check_takes_any_lengths(tmp_path: Path) -> None:
    folder = families(tmp_path)["llama"]
    model = Model("student", folder, "float32", False, 10**6)
    asked = asked_of(folder)
    prompts, lengths = Ragged.of(asked.prompts[:20]), Ragged.of(asked.targets[:20]).lengths
    said = ask_reference(model, prompts, lengths)
    plain = AutoModelForCausalLM.from_pretrained(folder).eval()
    for row, (prompt, length) in enumerate(zip(asked.prompts, lengths, strict=False)):
        assert said.continuations.tokens[row, :length].tolist() == continued(plain, prompt, int(length))
    engine = TransformersEngine(EngineOptions("transformers", str(folder), 40, "float32")._asdict())
    asking = Asking(engine.describe().info, engine.match, engine.generate)
    found = check_engine(model, said, asking, np.arange(20), 0)
    assert (found.windows, found.positions) == (20, lengths.sum())
    shifted = asking._replace(match=lambda prompts, targets: engine.match(prompts.after(5), targets))
    with pytest.raises(DisagreementError):
        check_engine(model, said, shifted, np.arange(20), 0)


def rows_of(cut: bool) -> pa.Table:
    rows = {"example_id": [0, 1], "token_ids": [[1, 2, 3, 4, 5], [6, 7, 8, 9]]}
    told = {"prefix_tokens": [1, 3], "suffix_tokens": [2, 1]} if cut else {}
    return pa.table({**rows, **told})


def test_an_example_is_cut_where_its_row_says_and_one_of_an_earlier_version_where_the_run_says() -> None:
    split = Split(2, 2, 0)
    for cut, prompts, targets in (
        (True, [[0, 1], [0, 6, 7, 8]], [[2, 3], [9]]),
        (False, [[0, 1, 2], [0, 6, 7]], [[3, 4], [8, 9]]),
    ):
        batch = examples_of(rows_of(cut), split)
        assert [row.tolist() for row in batch.prompts] == prompts
        assert [row.tolist() for row in batch.targets] == targets


def test_columns_that_a_file_of_an_earlier_version_lacks_are_left_out(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", "old", {}) as run:
        for cut in (True, False):
            run.write_table(f"examples/part-{int(cut):05d}.parquet", rows_of(cut))
        tables = [read_shard(run, shard, ["example_id"]) for shard in run.shards("examples")]
    assert [table.column_names for table in tables] == [
        ["example_id"],
        ["example_id", "prefix_tokens", "suffix_tokens"],
    ]
