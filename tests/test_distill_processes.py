"""`kdaudit distill` in two processes: the steps of one, one voice for an error, an order without repeats."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, SeedableRandomSampler
from ruamel.yaml import YAML
from torch.distributed import HashStore
from torch.utils.data import BatchSampler

from kdaudit.config.yaml.loading import load_distill
from kdaudit.distillation import processes as processes_module
from kdaudit.distillation.families import random_model
from kdaudit.distillation.lab import run_distill
from kdaudit.distillation.order import NO_ROW, SharedOrder
from kdaudit.distillation.processes import ALONE, Processes
from kdaudit.distillation.training import IGNORED, Rows, collate
from kdaudit.errors import CorpusError, RunError, UsageError

_WINDOW, _PREFIX, _SUFFIX = 24, 6, 4


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _model(width: int) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 1,
        "num_attention_heads": width // 32,
        "max_position_embeddings": 64,
    }


def _write_family(folder: Path) -> Path:
    """Windows of 10 to 24 tokens, and so many that the last step of an epoch lacks some."""
    draw = np.random.default_rng(3)
    words = ["red", "green", "blue", "stone", "river", "cloud", "seven", "north", "glass", "winter"]
    for name, count in (("train", 29), ("valid", 5)):
        texts = [" ".join(draw.choice(words, draw.integers(12, 30))) for _ in range(count)]
        lines = [json.dumps({"text": text}) for text in texts]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    config = {
        "name": "tiny",
        "corpus": {"path": "./train.jsonl", "window": _WINDOW},
        "holdout": {"path": "./valid.jsonl", "window": _WINDOW},
        "tokenizer": {"train_bpe": 300},
        "teacher": {"base": _model(64), "epochs": 2, "learning_rate": 1.0e-2},
        "student": {"base": _model(32), "epochs": 2, "learning_rate": 1.0e-2},
        "students": [
            {"name": "baseline", "method": "baseline", "count": 1},
            {"name": "soft", "method": "soft", "alpha": 0.25},
            {"name": "hard", "method": "hard", "prefix_tokens": _PREFIX},
            {**{"name": "own", "method": "hard"}, "prefix_tokens": _PREFIX, "tokenizer": {"train_bpe": 280}},
        ],
        "training": {"batch_size": 8},
        "extraction": {"engine": "transformers", "prefix_tokens": _PREFIX, "suffix_tokens": _SUFFIX},
    }
    path = folder / "distill.yaml"
    with path.open("w") as out:
        YAML().dump(config, out)
    return path


def _no_progress(*_: object) -> None:
    pass


@pytest.mark.slow
def test_two_processes_give_the_loss_curves_of_one(tmp_path: Path) -> None:
    config = _write_family(tmp_path)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launch, "--master-port", str(_free_port()), "-m", "kdaudit", "distill", str(config), "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    two = json.loads(done.stdout)
    one = run_distill(load_distill(config), tmp_path / "one", progress=_no_progress, warn=_no_progress)
    assert one.corpus_windows % 8  # an epoch's last step is not full
    assert two["corpus_windows"] == one.corpus_windows
    assert [model["method"] for model in two["models"]] == ["teacher", "baseline", "soft", "hard", "hard"]
    assert [model["own_tokenizer"] for model in two["models"]] == [False] * 4 + [True]
    for shared, alone in zip(two["models"], one.models, strict=True):
        assert len(alone.losses) == 2
        assert shared["losses"] == pytest.approx(alone.losses, abs=1e-3), alone.folder
        assert (shared["folder"], shared["steps"], shared["windows"]) == (
            alone.folder,
            alone.steps,
            alone.windows,
        )
        assert shared["holdout_perplexity"] == pytest.approx(alone.holdout_perplexity, rel=1e-3)
    assert (tmp_path / "distilled" / "tiny" / "seed-0" / "audit.yaml").is_file()


@pytest.mark.slow
def test_a_wrong_configuration_ends_both_processes_with_one_message(tmp_path: Path) -> None:
    config = _write_family(tmp_path)
    command = [sys.executable, "-m", "kdaudit", "distill", str(config), "--set", "training.batch_size=0"]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    both = [
        subprocess.Popen(
            command,
            env={**os.environ, **common, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for rank in ("0", "1")
    ]
    printed = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [2, 2]
    (said,) = [error for _, error in printed if error]  # one of the two is silent
    assert "training.batch_size: " in said
    assert said.count("\n") == 1
    assert not any(out for out, _ in printed)


def _two(work: Callable[[Processes], Any], monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What two processes give, or how they end; they are threads with a store between them."""
    monkeypatch.setattr(processes_module, "_GRACE", 0.2)
    store = HashStore()

    def outcome(rank: int) -> Any:
        processes = Processes(rank, 2, store)
        try:
            with processes.one_voice():
                return work(processes)
        except BaseException as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(outcome, [0, 1]))


def test_the_others_read_after_the_first_has_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def work(processes: Processes) -> list[str]:
        return [
            processes.first_then_all(lambda at=at: made.append(at) or f"made {at}", lambda: "".join(made))
            for at in ("a", "b")
        ]

    first, second = _two(work, monkeypatch)
    assert first == ["made a", "made b"]
    assert second[0] in ("a", "ab")
    assert second[1] == "ab"


def test_the_first_works_as_if_no_launcher_had_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    seen, _ = _two(lambda all_: all_.first_then_all(lambda: dict(os.environ), dict), monkeypatch)
    assert not started.keys() & seen.keys()
    assert started.items() <= os.environ.items()


def test_an_error_while_the_others_wait_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> NoReturn:
        raise CorpusError("wrong", fix="fix it")

    first, second = _two(lambda all_: all_.first_then_all(fail, lambda: None), monkeypatch)
    assert isinstance(first, CorpusError)
    assert isinstance(second, SystemExit)
    assert second.code == 2


def test_an_error_that_all_meet_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = _two(lambda all_: all_.share(7), monkeypatch)
    (told,) = [end for end in ends if isinstance(end, UsageError)]
    (silent,) = [end for end in ends if isinstance(end, SystemExit)]
    assert "7 windows per step cannot be divided evenly among 2 processes" in str(told)
    assert silent.code == 2


def test_the_loss_of_a_process_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(processes: Processes) -> None:
        if processes.first:
            raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:21343")

    first, _ = _two(work, monkeypatch)
    assert isinstance(first, RunError)
    assert "another process" in str(first)


def test_one_process_makes_and_never_reads() -> None:
    assert ALONE.first_then_all(lambda: "made", lambda: "read") == "made"
    assert ALONE.first
    assert ALONE.share(7) == 7


@pytest.mark.parametrize(("rows", "share", "count"), [(29, 4, 2), (24, 4, 2), (3, 4, 2), (25, 2, 4)])
@pytest.mark.parametrize("epoch", [0, 3])
def test_a_step_of_all_processes_has_the_rows_of_one(rows: int, share: int, count: int, epoch: int) -> None:
    """Against the sampler that accelerate gives one process, divided by accelerate's own shards."""
    one = SeedableRandomSampler(range(rows), data_seed=5)
    one.set_epoch(epoch)
    steps = list(BatchSampler(one, share * count, drop_last=False))
    dealt = [
        list(
            BatchSamplerShard(
                BatchSampler(SharedOrder(rows, share * count, 5, lambda: epoch), share, False), count, rank
            )
        )
        for rank in range(count)
    ]
    assert {len(of_rank) for of_rank in dealt} == {len(steps)}
    for number, step in enumerate(steps):
        together = [row for of_rank in dealt for row in of_rank[number]]
        assert [row for row in together if row != NO_ROW] == step
        assert len(together) == share * count


def test_a_place_without_a_row_changes_neither_loss_nor_gradient() -> None:
    config = {"model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64}
    config |= {"num_hidden_layers": 1, "num_attention_heads": 1}
    rows = Rows([np.arange(1, 10, dtype=np.int32), np.arange(20, 26, dtype=np.int32)])
    sums, gradients = [], []
    for places in ([0, 1], [0, 1, NO_ROW, NO_ROW]):
        model = random_model(config, 1)
        batch = collate([rows[place] for place in places])
        assert (batch["labels"][:, 1:] != IGNORED).sum() == 8 + 5
        loss = model(**batch, num_items_in_batch=13).loss
        loss.backward()
        sums.append(loss.item())
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert sums[0] == pytest.approx(sums[1], rel=1e-6)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7)
    nothing = collate([rows[NO_ROW]])
    assert random_model(config, 1)(**nothing, num_items_in_batch=13).loss.item() == 0.0
