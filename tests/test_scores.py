"""The scoring pass: what it keeps of each token, of which examples, and that it is not done twice."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
import toys
from oracles import sampled as oracle
from scipy import stats
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen3Config

from kdaudit import open_run
from kdaudit.attacks import GREEDY, Attack, NearVerbatim
from kdaudit.attacks.scored import of_sample, score_rows
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import RunStateError
from kdaudit.inference import Batch, EngineInfo, EngineOptions, Ragged, Sampling
from kdaudit.inference.edits import TOO_FAR
from kdaudit.inference.scoring.softmax import Softmax, largest
from kdaudit.inference.transformers import TransformersEngine
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.stages.attacked import attack_folder, settings_of
from kdaudit.pipelines.stages.scores import (
    CORPUS,
    OF_CANARIES,
    _discard_others,
    draw,
    memorized,
    write_score_samples,
)
from kdaudit.pipelines.stages.shard_notes import shard_notes
from kdaudit.pipelines.stages.work import Scoring
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import SCORES_SCHEMA
from kdaudit.runs.store import RunStore

_WIDE = {"hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": toys.VOCABULARY}
FAMILIES: list[Any] = [
    LlamaConfig(**_WIDE, intermediate_size=64, initializer_range=0.4),
    GPTNeoXConfig(**_WIDE, intermediate_size=64, initializer_range=0.4),
    GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=toys.VOCABULARY, initializer_range=0.4),
    Qwen3Config(**_WIDE, intermediate_size=64, head_dim=32, num_key_value_heads=1, initializer_range=0.4),
]
VOCABULARY = toys.VOCABULARY - 20


def batch_of(lengths: list[tuple[int, int]], seed: int = 0) -> Batch:
    """Random examples with prompts and targets of these lengths."""
    dice = np.random.default_rng(seed)
    rows = [(dice.integers(2, VOCABULARY, a), dice.integers(2, VOCABULARY, b)) for a, b in lengths]
    ids = np.arange(len(rows), dtype=np.int64) * 3
    return Batch(ids, Ragged.of(prompt for prompt, _ in rows), Ragged.of(target for _, target in rows))


def engine_of(folder: Path, **options: Any) -> TransformersEngine:
    wanted = EngineOptions("transformers", str(folder), 60, "float32", vocabulary=VOCABULARY, **options)
    return TransformersEngine(wanted._asdict())


@pytest.mark.parametrize("config", FAMILIES, ids=lambda config: config.model_type)
@pytest.mark.parametrize("sampling", [Sampling(1.0, 40), Sampling(0.7, 240), Sampling(1.3, None)])
def test_the_probability_to_be_drawn_is_that_of_transformers_own_sampling(
    config: Any, sampling: Sampling, tmp_path: Path
) -> None:
    torch.manual_seed(3)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    examples = batch_of([(6, 8), (1, 3), (11, 1), (5, 20), (2, 1), (3, 2)])
    windows = examples.prompts.followed_by(examples.targets)
    rows = score_rows(engine_of(tmp_path).score(windows, sampling), examples)
    for row, prompt, target in zip(rows.to_pylist(), examples.prompts, examples.targets, strict=True):
        expected = oracle.drawn(
            model, prompt.tolist(), target.tolist(), vocabulary=VOCABULARY, **sampling._asdict()
        )
        assert row["sampled_log_probability"] == pytest.approx(sum(expected), rel=1e-5)
        plain = oracle.drawn(
            model, [int(prompt[0])], [*prompt[1:].tolist(), *target.tolist()],
            vocabulary=VOCABULARY, temperature=1.0, top_k=None,
        )  # fmt: skip
        assert row["log_probabilities"] == pytest.approx(plain[len(prompt) - 1 :], rel=1e-5)
        assert row["prefix_log_probability"] == pytest.approx(sum(plain[: len(prompt) - 1]), rel=1e-5)
    drawn = rows["sampled_log_probability"].to_numpy()
    assert (drawn == -math.inf).any() == (sampling.top_k is not None)
    if sampling.top_k == 240:
        assert np.isfinite(drawn).any()


def test_all_tokens_that_tie_with_the_kth_can_be_drawn() -> None:
    logits = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0, 9.0]]).expand(6, -1)
    found = Softmax(5, "cpu").sampled(logits, torch.tensor([0, 1, 2, 3, 4, 0]), Sampling(2.0, 2))
    total = math.exp(1.5) + 3 * math.exp(0.5)
    tied = pytest.approx(math.log(math.exp(0.5) / total))
    assert found.tolist() == [pytest.approx(1.5 - math.log(total)), *[tied] * 3, -math.inf, found[0]]


@pytest.mark.parametrize("top_k", [1, 2, 7, 40, 2999, 3000, 5000, None])
def test_many_ties_are_as_in_transformers_own_sampling(top_k: int | None) -> None:
    torch.manual_seed(1)
    logits = torch.randn(40, 3000).mul(2).round()
    targets = torch.randint(0, 3000, (40,))
    targets[:20] = logits[:20].argmax(-1)
    whole = logits if top_k is None else oracle.TopKLogitsWarper(top_k)(None, logits / 1.5 * 1.5)
    expected = (whole / 1.5).double().log_softmax(-1).gather(-1, targets[:, None])[:, 0].numpy()
    found = Softmax(3000, "cpu").sampled(logits, targets, Sampling(1.5, top_k))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("width", [7, 64, 300, 2600, 2700])
def test_the_largest_are_those_of_a_whole_sort(width: int) -> None:
    torch.manual_seed(2)
    for logits in (torch.randn(30, width), torch.randn(30, width).mul(2).round()):
        for count in {1, 2, min(41, width), width}:
            assert torch.equal(largest(logits, count), logits.sort(-1, descending=True).values[:, :count])


def test_without_sampling_nothing_is_said_of_it(tmp_path: Path) -> None:
    toys.save_model(tmp_path, 1)
    examples = batch_of([(6, 8), (2, 3)])
    scores = engine_of(tmp_path).score(examples.prompts.followed_by(examples.targets))
    rows = score_rows(scores, examples)
    assert rows.schema == SCORES_SCHEMA
    assert rows["sampled_log_probability"].to_pylist() == [None, None]
    assert rows["example_id"].to_pylist() == [0, 3]
    ends = np.cumsum(np.diff(scores.offsets))
    for row, (end, target) in enumerate(zip(ends, examples.targets, strict=True)):
        for name, values in {"means": scores.mean, "variances": scores.variance}.items():
            assert rows[name][row].as_py() == pytest.approx(values[end - len(target) : end].tolist())


def test_a_sample_has_all_that_is_certain_and_estimates_what_all_have() -> None:
    certain, values = np.array([3, 50, 99]), np.random.default_rng(5).random(100)
    estimates = []
    for seed in range(300):
        sample = draw(100, certain, 20, seed)
        ids, weights = (column.to_numpy() for column in sample.columns)
        assert ids.tolist() == sorted({*ids.tolist()} | {3, 50, 99})
        assert len(ids) == 23
        assert weights.sum() == pytest.approx(100)
        assert weights[np.isin(ids, certain)].tolist() == [1.0] * 3
        estimates.append(float(weights @ values[ids]))
    error = np.std(estimates) / math.sqrt(len(estimates))
    assert abs(np.mean(estimates) - values.sum()) < 4 * error


@pytest.mark.parametrize("size", [None, 97, 500])
def test_a_sample_that_has_room_for_all_is_all(size: int | None) -> None:
    sample = draw(100, np.array([3, 50, 99]), size, 1)
    assert sample["example_id"].to_pylist() == [*range(100)]
    assert sample["weight"].to_pylist() == [1.0] * 100


def test_more_that_is_certain_moves_few_others() -> None:
    before, after = (
        {*draw(1000, np.array(certain), 100, 1)["example_id"].to_pylist()} for certain in ([], [1, 2, 3])
    )
    assert len(after - before) <= 6


def test_nothing_at_all_is_a_sample_too() -> None:
    assert draw(2, np.array([0, 1]), 5, 1)["weight"].to_pylist() == [1.0, 1.0]


class Audit(NamedTuple):
    """An audit of the toy models with a small sample, and its results."""

    folder: Path
    run: Path
    results: Any


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    folder = tmp_path_factory.mktemp("audit")
    path = toys.write_audit(folder, attacks={"sample": 9, "sampled": {"top_k": 250, "queries": [1, 10**18]}})
    config = load_audit(path, ["predictor.enabled=false"])
    run_audit(config, folder / "run", fresh=False, progress=lambda *_: None, warn=lambda _: None)
    return Audit(folder, folder / "run", json.loads((folder / "run" / "results.json").read_text()))


def explicit(audit: Audit, name: str) -> dict[int, float]:
    """ln of the probability that sampling gives each example's suffix, by a plain pass for each."""
    model = AutoModelForCausalLM.from_pretrained(audit.folder / name).eval()
    table = open_run(audit.run).examples()
    return {
        row["example_id"]: sum(
            oracle.drawn(
                model,
                row["token_ids"][: toys.PREFIX],
                row["token_ids"][toys.PREFIX :],
                vocabulary=toys.VOCABULARY,
                temperature=1.0,
                top_k=250,
            )
        )
        for row in table.to_pylist()
    }


@pytest.mark.parametrize("name", ["teacher", "hard"])
def test_an_audit_scores_what_is_memorized_and_a_sample_of_the_rest(audit: Audit, name: str) -> None:
    found, expected = open_run(audit.run).scores(name), explicit(audit, name)
    ids = found["example_id"].to_pylist()
    memorized = {
        row["example_id"]
        for model in audit.results["models"]
        for row in open_run(audit.run).attack("greedy", model).to_pylist()
        if row["memorized"]
    }
    assert len(memorized) == 11
    assert set(ids) >= memorized
    assert len(ids) == 11 + 9
    assert sum(found["weight"].to_pylist()) == pytest.approx(len(expected)) == pytest.approx(31)
    assert found["sampled_log_probability"].to_pylist() == pytest.approx(
        [expected[one] for one in ids], rel=1e-5
    )
    assert open_run(audit.run).scores(name, holdout=True)["weight"].to_pylist() == pytest.approx([10 / 9] * 9)


@pytest.mark.parametrize("name", ["teacher", "hard"])
def test_the_results_hold_the_weighted_rates(audit: Audit, name: str) -> None:
    scores, sampled = open_run(audit.run).scores(name), audit.results["attacks"][name]["sampled"]
    p_z = [math.exp(one) for one in scores["sampled_log_probability"].to_pylist()]
    weights = scores["weight"].to_pylist()
    assert (sampled["examples"], sampled["scored"]) == (31, 20)
    assert [(one["p"], one["queries"]) for one in sampled["curve"]] == [
        (p, queries) for p in (0.1, 0.5, 0.9) for queries in (1, 10**18)
    ]
    for one in sampled["curve"]:
        least = 1 - (1 - one["p"]) ** (1 / one["queries"]) if one["queries"] == 1 else 1e-17
        rate = sum(weight for weight, p in zip(weights, p_z, strict=True) if p >= least) / 31
        assert one["rate"] == pytest.approx(rate)
        assert one["ci95"][0] <= rate <= one["ci95"][1]
        assert one["ci95_by_document"] is None
    rates = [one["rate"] for one in sampled["curve"]]
    assert 0 < max(rates) < 1


def test_each_leak_has_its_expected_queries_under_each_model_for_the_owner_alone(audit: Audit) -> None:
    leaks = open_run(audit.run).leaks().to_pylist()
    assert leaks
    for name in ("teacher", "baseline", "soft", "hard"):
        expected = explicit(audit, name)
        for leak in leaks:
            (told,) = [one["expected_queries"] for one in leak["models"] if one["name"] == name]
            p_z = math.exp(expected[leak["example_id"]])
            assert told == (pytest.approx(1 / p_z, rel=1e-4) if p_z else math.inf)
    assert "Samples until one holds the text" in (audit.run / "report.html").read_text()
    assert "Samples until one holds the text" not in (audit.run / "report.public.html").read_text()


def test_what_no_attack_asked_for_is_refused_by_name(audit: Audit, tmp_path: Path) -> None:
    run = open_run(audit.run)
    with pytest.raises(ValueError, match="model 'nobody' is not one of this run's: teacher"):
        run.scores("nobody")
    bare = shutil.copytree(audit.run, tmp_path / "bare", ignore=shutil.ignore_patterns("scor*"))
    with pytest.raises(RunStateError, match=r"attacks\.sampled"):
        open_run(bare).scores("hard")


def test_a_text_is_sampled_as_often_as_its_probability_says(tmp_path: Path) -> None:
    """By transformers' own sampling; tests/benchmarks/sampled_continuations.py asks vLLM the same."""
    model, sampling, samples = toys.save_model(tmp_path, 1), Sampling(0.8, 20), 1500
    prompts = batch_of([(6, 2)] * 4).prompts
    torch.manual_seed(7)
    said = [
        model.generate(
            torch.tensor(prompt[None].astype(np.int64)),
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            do_sample=True,
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            max_new_tokens=2,
            min_new_tokens=2,
            num_return_sequences=samples + 1,
            pad_token_id=0,
            eos_token_id=None,
        )[:, len(prompt) :].numpy()
        for prompt in prompts
    ]
    targets = Ragged.of(one[-1] for one in said)  # drawn too, and not counted
    examples = Batch(np.arange(4), prompts, targets)
    options = EngineOptions("transformers", str(tmp_path), 60, "float32")
    scores = TransformersEngine(options._asdict()).score(prompts.followed_by(targets), sampling)
    for log_p, drawn in zip(
        score_rows(scores, examples)["sampled_log_probability"].to_pylist(), said, strict=True
    ):
        count = int((drawn[:-1] == drawn[-1]).all(1).sum())
        low, high = stats.binom.interval(0.9999, samples, math.exp(log_p))
        assert low <= count <= high
        assert count, "an event that never happens tells nothing"


def test_scores_of_a_sample_come_by_example_with_their_weights_and_without_those_of_others() -> None:
    sample = draw(50, np.array([7]), 9, 2)
    ids = sample["example_id"].to_numpy()
    shuffled = np.random.default_rng(1).permutation(50).astype(np.int64)
    found = of_sample(pa.table({"example_id": shuffled, "prefix_log_probability": shuffled / 2}), sample)
    assert found["example_id"].to_pylist() == ids.tolist()
    assert found["prefix_log_probability"].to_pylist() == (ids / 2).tolist()
    weights = dict(zip(found["example_id"].to_pylist(), found["weight"].to_pylist(), strict=True))
    assert weights == {one: 1.0 if one == 7 else 49 / 9 for one in ids.tolist()}


@pytest.mark.parametrize(
    ("asked", "kept"), [(Sampling(1.0, 40), True), (Sampling(0.5, 40), False), (None, False)]
)
def test_scores_of_another_sampling_are_discarded(asked: Sampling | None, kept: bool, tmp_path: Path) -> None:
    """They would pass for scores of this one: no example of the sample is without them."""
    audited: Any = SimpleNamespace(name="soft")
    with RunStore(tmp_path / "run", "run", {}) as run:
        table = pa.table({"example_id": [0, 1]}, metadata={"sampling": repr((1.0, 40))})
        with run.stage(CORPUS.scores("soft")):
            run.write_table(layout.shard(CORPUS.scores("soft"), 0), table)
        scoring = Scoring(asked, holdout=False)
        models = SimpleNamespace(by_text=())
        work: Any = SimpleNamespace(run=run, models=models, scoring=scoring, stamps=lambda _: {})
        _discard_others(work, audited, CORPUS)
        assert bool(run.shards(CORPUS.scores("soft"))) == kept


def test_examples_are_certain_where_an_attack_that_ran_exposes_them(tmp_path: Path) -> None:
    """A model that reads text has no other attack; that of other settings is not one of this audit."""
    ids, near = np.arange(6), NearVerbatim(0.1)
    models: list[Any] = [SimpleNamespace(name=name) for name in ("soft", "own", "hard")]
    with RunStore(tmp_path / "run", "run", {}) as run:

        def attacked(model: Any, attack: Attack, rows: pa.Table) -> None:
            with run.stage(attack_folder(attack, model), settings_of(attack)):
                notes = shard_notes(EngineInfo("x", "1", "cpu", "float32"), 0.0)
                table = rows.replace_schema_metadata(notes)
                run.write_table(layout.shard(attack_folder(attack, model), 0), table)

        for place, model in enumerate(models):
            attacked(model, GREEDY, GREEDY.rows(ids, np.where(ids == place, 3, 0), np.full(6, 3)))
        attacked(models[0], near, near.rows(ids, np.where(ids == 3, 1, TOO_FAR)))
        attacked(models[2], NearVerbatim(0.5), near.rows(ids, np.where(ids == 4, 1, TOO_FAR)))
        work: Any = SimpleNamespace(run=run, attacks=[GREEDY, near], models=SimpleNamespace(all=models))
        assert memorized(work).tolist() == [0, 1, 2, 3]


def test_all_canaries_are_scored_however_small_the_sample_is(tmp_path: Path) -> None:
    """Each is compared with every control of its family."""
    with RunStore(tmp_path / "run", "run", {}) as run:
        run.write_table(layout.shard(OF_CANARIES.examples, 0), pa.table({"example_id": range(9)}))
        work: Any = SimpleNamespace(
            run=run, attacks=[], scoring=None, sample=2, seed=0, total_examples=lambda _: 9
        )
        write_score_samples(work)
        samples = [run.read_table(text.sample)["weight"].to_pylist() for text in (CORPUS, OF_CANARIES)]
        assert samples == [[4.5] * 2, [1.0] * 9]
