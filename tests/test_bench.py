"""`kdaudit bench`: on the real vLLM and transformers with a toy teacher, and its arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toys
from click.testing import CliRunner
from conftest import needs_vllm

from kdaudit.cli import main
from kdaudit.pipelines import bench

_WAYS = {"early_exit", "generate", "prefill", "transformers"}


@pytest.mark.slow
@needs_vllm
def test_bench_times_all_four_ways(tmp_path: Path) -> None:
    audit = toys.write_audit(tmp_path)
    done = toys.kdaudit("bench", audit, "--examples", "12", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {*found} == {"examples", "repeats", "seconds", "ratios", "decoded_share", "corpus_seconds"}
    assert (found["examples"], found["repeats"]) == (12, 3)
    assert {*found["seconds"]} == _WAYS
    assert {*found["ratios"]} == _WAYS - {"early_exit"}
    own = found["seconds"]["early_exit"]
    for way, ratio in found["ratios"].items():
        assert ratio == pytest.approx(found["seconds"][way] / own)
    assert 1 / toys.SUFFIX <= found["decoded_share"] <= 1
    windows = 33  # of write_audit's corpus, copies counted
    assert found["corpus_seconds"] == pytest.approx(own / 12 * windows)


def test_without_vllm_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    audit = toys.write_audit(tmp_path)
    told = CliRunner().invoke(main, ["bench", str(audit)])
    assert told.exit_code == 2
    assert "pip install 'kdaudit[vllm]'" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_table_names_every_way_and_its_ratio() -> None:
    seconds = {"early_exit": 2.0, "generate": 6.0, "prefill": 1.8, "transformers": 20.0}
    ratios = {"generate": 3.0, "prefill": 0.9, "transformers": 10.0}
    told = bench.render(
        bench.BenchResult(
            examples=600, repeats=3, seconds=seconds, ratios=ratios, decoded_share=0.04, corpus_seconds=3600
        )
    )
    for words in (
        "600 examples",
        "early exit",
        "6.00",
        "3.00",
        "20.00",
        "10.00",
        "0.90",
        "4% of the suffix tokens",
        "3,600 seconds",
    ):
        assert words in told
