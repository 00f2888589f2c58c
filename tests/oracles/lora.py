"""A LoRA adapter merged by hand: W + scaling * B @ A with plain tensors, without PEFT.

Takes what `tests/test_adapters.py` makes: linear layers, plain or rank-stabilized scaling, whole modules.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

_PREFIX = "base_model.model."


def merge_by_hand(base: Path, adapter: Path, out: Path) -> None:
    """Save base and adapter as one whole model in float32."""
    settings = json.loads((adapter / "adapter_config.json").read_text())
    rank = settings["r"]
    scaling = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    tensors = load_file(adapter / "adapter_model.safetensors")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    whole = {name: value for name, value in tensors.items() if ".lora_" not in name}
    if any(name.endswith("lm_head.weight") for name in whole):
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
        model.config.tie_word_embeddings = False
    with torch.no_grad():
        for name, value in whole.items():
            model.get_parameter(name.removeprefix(_PREFIX)).copy_(value)
        for name, down in tensors.items():
            if name.endswith(".lora_A.weight"):
                up = tensors[name.replace(".lora_A.", ".lora_B.")]
                target = model.get_submodule(name.removeprefix(_PREFIX).removesuffix(".lora_A.weight"))
                target.weight += scaling * (up.double() @ down.double()).float()
    model.save_pretrained(out)
