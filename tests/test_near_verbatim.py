"""Near-verbatim continuations: the banded ledger against the whole table of Wagner and Fischer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_vllm
from sample_results import sample_dict

from kdaudit.attacks import GREEDY
from kdaudit.attacks.near_verbatim import GreedyAndNear, NearVerbatim
from kdaudit.config.section import EngineName
from kdaudit.inference import Batch, EngineOptions, Ragged, start
from kdaudit.inference.edits import TOO_FAR, EditLedger
from kdaudit.reporting.other_attacks import attack_rows
from kdaudit.reporting.personal_data_counts import count_tags
from kdaudit.reporting.render import render
from kdaudit.reporting.view import page
from kdaudit.schemas.results import AuditResults


def levenshtein(one: list[int], two: list[int]) -> int:
    """The whole table, cell by cell."""
    table = [[max(i, j) if 0 in (i, j) else 0 for j in range(len(two) + 1)] for i in range(len(one) + 1)]
    for i in range(1, len(one) + 1):
        for j in range(1, len(two) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1,
                table[i][j - 1] + 1,
                table[i - 1][j - 1] + (one[i - 1] != two[j - 1]),
            )
    return table[-1][-1]


def edited(target: list[int], dice: random.Random, edits: int, vocabulary: int) -> list[int]:
    """The target after some random edits, cut or filled to its own length."""
    found = list(target)
    for _ in range(edits):
        at = dice.randrange(len(found) + 1)
        match dice.choice(("insert", "delete", "change")):
            case "insert":
                found.insert(at, dice.randrange(vocabulary))
            case "delete" if found[at:]:
                del found[at]
            case _ if found[at:]:
                found[at] = dice.randrange(vocabulary)
    found += [dice.randrange(vocabulary) for _ in target]
    return found[: len(target)]


def followed(
    prompts: list[int], targets: list[list[int]], said: dict[int, list[int]], limit: int
) -> EditLedger:
    """A ledger that was told what each prompt's continuation says, token by token, until it gives up."""
    limits = np.full(len(targets), limit, np.int64)
    ledger = EditLedger(Ragged.of([[one] for one in prompts]), Ragged.of(targets), limits)
    for row, prompt in enumerate(ledger.prompts):
        for token in said[int(prompt[0])][: ledger.tokens[row]]:
            if not ledger.advance(row, [token]):
                break
    return ledger


@pytest.mark.parametrize("limit", [0, 1, 3, 5])
def test_distances_within_the_limit_are_those_of_the_whole_table(limit: int) -> None:
    dice = random.Random(limit)
    for vocabulary in (2, 5, 300):
        targets = [
            [dice.randrange(vocabulary) for _ in range(dice.choice((1, 2, 12, 50)))] for _ in range(300)
        ]
        said = {n: edited(target, dice, dice.randrange(9), vocabulary) for n, target in enumerate(targets)}
        found = followed([*range(300)], targets, said, limit).found
        whole = [levenshtein(target, said[n]) for n, target in enumerate(targets)]
        assert found.distance.tolist() == [one if one <= limit else TOO_FAR for one in whole]
        assert {one for one in whole if one <= limit} == {*range(min(limit, 5) + 1)} | {0}


def test_it_counts_matched_tokens_as_exact_extraction_does() -> None:
    dice = random.Random(3)
    targets = [[dice.randrange(4) for _ in range(20)] for _ in range(200)]
    said = {n: edited(target, dice, dice.randrange(4), 4) for n, target in enumerate(targets)}
    found = followed([*range(200)], targets, said, 2).found
    expected = [
        next((at for at, (a, b) in enumerate(zip(target, said[n], strict=True)) if a != b), 20)
        for n, target in enumerate(targets)
    ]
    assert found.matched.tolist() == expected


def test_a_hopeless_target_is_given_up_a_few_tokens_after_its_first_difference() -> None:
    ledger = EditLedger(Ragged.of([[1]]), Ragged.of([[7] * 50]), np.array([5]))
    taken = next(step for step in range(1, 51) if not ledger.advance(0, [8]))
    assert taken == 6


def test_examples_of_one_prompt_share_its_continuation_whatever_their_lengths() -> None:
    said = {1: [5, 6, 7, 8, 9, 9]}
    targets = [[5, 6, 7], [5, 6, 7, 0, 9, 9], [0, 0, 0, 0], [5, 6, 7, 8, 9, 9]]
    ledger = followed([1, 1, 1, 1], targets, said, 1)
    assert len(ledger.prompts) == 1
    assert ledger.tokens.tolist() == [6]
    assert ledger.found.distance.tolist() == [0, 1, TOO_FAR, 0]
    assert ledger.found.matched.tolist() == [3, 3, 0, 6]


FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {},
    "olmo2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 32},
    "llama": {"num_key_value_heads": 2},
}
TOKENS = 24


def _random_model(family: str, folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family,
        vocab_size=300,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.2,
        eos_token_id=0,
        **FAMILIES[family],
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def _greedy(model: Any, prompts: list[list[int]]) -> list[list[int]]:
    """One whole pass for each token."""
    import torch

    ids = torch.tensor(prompts)
    for _ in range(TOKENS):
        with torch.inference_mode():
            ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids[:, -TOKENS:].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("engine", [pytest.param("vllm", marks=needs_vllm), "transformers"])
def test_engines_give_the_distances_of_plain_greedy_continuations(
    family: str, engine: EngineName, tmp_path: Path
) -> None:
    model = _random_model(family, tmp_path / family)
    dice = random.Random(1)
    prompts = [[dice.randrange(3, 300) for _ in range(12)] for _ in range(60)]
    said = _greedy(model, prompts)
    targets = [edited(one, dice, dice.randrange(8), 300)[: dice.choice((TOKENS, 10))] for one in said]
    batch = Batch(np.arange(60), Ragged.of(prompts), Ragged.of(targets))
    options = EngineOptions(engine, str(tmp_path / family), 12 + TOKENS, "float32")
    tables = {}
    with start(options) as loaded:
        for task in (NearVerbatim(0.2), GreedyAndNear(0.2), GREEDY):
            loaded.begin(task, batch)
            tables[type(task)] = loaded.finish().rows
    whole = [levenshtein(target, one[: len(target)]) for target, one in zip(targets, said, strict=True)]
    within = [one <= len(target) // 5 for one, target in zip(whole, targets, strict=True)]
    expected = [one if near else None for one, near in zip(whole, within, strict=True)]
    assert {0, 1, 2, None} <= {*expected}
    assert tables[NearVerbatim]["edit_distance"].to_pylist() == expected
    assert NearVerbatim(0.2).exposed(tables[NearVerbatim]).tolist() == within
    both = tables[GreedyAndNear]
    assert both.select(NearVerbatim.columns.names).equals(tables[NearVerbatim])
    assert both.select(GREEDY.columns.names).equals(tables[type(GREEDY)])
    assert not (GREEDY.exposed(both) & ~np.array(within)).any()


def test_the_page_has_a_row_for_each_model_and_few_columns_of_edits() -> None:
    values = sample_dict()
    distances = [701, 9, 0, 3, 0, 1, 4, 2]
    near = {
        "max_edit_distance": 0.14,
        "examples": 1000000,
        "exposed": sum(distances),
        "rate": sum(distances) / 1e6,
        "ci95": [0.0006, 0.0008],
        "distances": distances,
    }
    results = AuditResults.model_validate({**values, "attacks": {"soft": {"near_verbatim": near}}})
    (row,) = attack_rows(results)
    assert (row.name, row.more, row.by_edits, row.many_edits) == ("soft", 19, [9, 0, 3, 0, 1], 6)
    text = render("report.html.j2", page=page(results, "a title", [], count_tags(results))).decode()
    section = text[text.index('aria-labelledby="attacks"') :]
    assert "at most 14% of them" in section
    assert "More edits" in section
    assert attack_rows(AuditResults.model_validate(values)) == []
