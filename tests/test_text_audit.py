"""Audits of models with tokenizers of their own, as a user runs them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from transformers import AutoModelForCausalLM

PLAIN = ("predictor.enabled=false", "models.baseline=null")


def run(folder: Path, *sets: str, code: int = 0) -> dict[str, Any]:
    words = ["run", "audit.yaml", *(word for one in sets for word in ("--set", one))]
    done = toys.kdaudit(*words, cwd=folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        return {"said": done.stderr}
    found: dict[str, Any] = json.loads((folder / "runs" / "toy" / "results.json").read_text())
    return found


def test_bits_per_byte_are_those_of_a_plain_forward_pass(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    found = run(tmp_path, *PLAIN)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hard").eval()
    nats = size = 0.0
    for line in (tmp_path / "holdout.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = torch.tensor([toys.tokenizer()(text)["input_ids"]])
        with torch.inference_mode():
            log_p = model(ids).logits[0, :-1].double().log_softmax(-1)
        nats -= float(log_p.gather(1, ids[0, 1:, None]).sum())
        size += len(text.encode()) - len(text.split(" ")[0])
    assert found["models"]["hard"]["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
    page = (tmp_path / "runs" / "toy" / "report.html").read_text()
    assert "bits per byte</span>" in page
