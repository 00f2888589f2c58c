"""The endpoint engine against vLLM's own server on loopback: equal results with equal weights."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toys
from conftest import needs_vllm
from ruamel.yaml import YAML
from test_endpoint import engine, expected

from kdaudit.inference import Ragged
from kdaudit.inference.endpoint.checking import check_endpoint
from kdaudit.models.tokenizer import load_tokenizer

pytestmark = [needs_vllm, pytest.mark.slow]

_START = 240
"""Seconds that a server may take to start."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return toys.save_model(folder, 1)


@pytest.fixture(scope="module")
def url(folder: Path, model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--model", folder, "--served-model-name", "big", "--host", "127.0.0.1", "--port", port]
    words += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "64"]
    log = tmp_path_factory.mktemp("log") / "server.log"
    quiet = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    cpu = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *map(str, words)]
    with log.open("wb") as out:
        server = subprocess.Popen(command, env={**os.environ, **quiet, **cpu}, stdout=out, stderr=out)
    try:
        address = f"http://127.0.0.1:{port}/v1"
        _wait(server, address, log)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def _wait(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    for _ in range(_START):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{address}/models", timeout=5).close()
        except OSError:
            time.sleep(1)
        else:
            return
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


def _generated(address: str) -> float:
    """Tokens that the server has decoded."""
    said = urllib.request.urlopen(f"{address.removesuffix('/v1')}/metrics", timeout=5).read().decode()
    lines = [line for line in said.splitlines() if line.startswith("vllm:generation_tokens_total{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_matched_tokens_are_those_of_plain_greedy_decoding(url: str, folder: Path, model: Any) -> None:
    random = np.random.default_rng(3)
    windows = [toys.memorized_window(model, random) for _ in range(20)]
    windows += random.integers(2, toys.VOCABULARY, (20, toys.PREFIX + toys.SUFFIX)).tolist()
    for row in range(10, 20):
        windows[row][toys.PREFIX + row % toys.SUFFIX] = toys.VOCABULARY - 1
    examples = tuple(
        Ragged.of([window[part] for window in windows])
        for part in (slice(toys.PREFIX), slice(toys.PREFIX, None))
    )
    asked = engine(url, folder)
    assert asked.describe().info.version == "(token ids in, token ids out)"
    assert asked.match(*examples).tolist() == expected(model, examples)


def test_the_server_stops_decoding_at_the_first_wrong_token(url: str, folder: Path) -> None:
    windows = np.random.default_rng(9).integers(2, toys.VOCABULARY, (30, 60))
    asked = engine(url, folder)
    before = _generated(url)
    found = asked.match(Ragged.of(windows[:, :20]), Ragged.of(windows[:, 20:]))
    time.sleep(1)  # the server counts at its next step
    assert (found < 4).all()
    assert 30 <= _generated(url) - before < 30 * 40 / 2


def test_the_check_before_an_audit_passes(url: str, folder: Path) -> None:
    from kdaudit.config.endpoint import Endpoint

    way = check_endpoint(
        Endpoint(url, "big", None, 4, 30.0), load_tokenizer(folder), "models.teacher", 14
    ).way
    assert (way.ids_in, way.more, way.ids_out) == (True, True, True)


_OWN = ("created", "notes", "fingerprint", "seconds", "tokens_per_second", "extraction", "suffix_hmac")
"""Keys of results that say what ran, and when; hashes have a key of their own in each run."""


def _figures(results: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All that results.json says and that is not null, by dotted key."""
    if isinstance(results, dict | list):
        named = results.items() if isinstance(results, dict) else enumerate(results)
        for name, value in named:
            if name not in _OWN:
                yield from _figures(value, f"{key}.{name}")
    elif results is not None:
        yield key, results


def test_an_audit_gives_what_one_of_the_weights_themselves_gives(url: str, tmp_path: Path) -> None:
    """Of what an endpoint can give, key by key; null may be what needs probabilities or edits.

    Membership is left out: some scores of the other models take the teacher's probabilities.
    """
    toys.write_audit(tmp_path)
    config = YAML(typ="safe").load(tmp_path / "audit.yaml")
    served = {"path": url, "model": "big"}
    config["models"]["teacher"] = served
    config["models"]["students"][0] = {"name": "soft", "kd": "soft", **served}
    with (tmp_path / "asked.yaml").open("w") as file:
        YAML().dump(config, file)
    found = {}
    for name in ("audit", "asked"):
        sets = ("--set", "predictor.enabled=false", "--set", "attacks.membership=null")
        done = toys.kdaudit("run", f"{name}.yaml", "--out", name, *sets, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found[name] = dict(_figures(json.loads((tmp_path / name / "results.json").read_text())))
    asked, local = found["asked"], found["audit"]
    assert {key: local.get(key) for key in asked} == asked
    for key in ("models.teacher.memorized", "models.soft.survival.8", "models.teacher.holdout.rate"):
        assert f".{key}" in asked
    assert asked[".comparison.soft.inherited"] == asked[".models.soft.memorized"] == 5
    assert len(asked) > 150
