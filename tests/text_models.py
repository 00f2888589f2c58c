"""Tokenizers that differ, and tiny models that have learned a few texts by heart with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ruamel.yaml import YAML
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEXTS = [
    "The harbour master wrote that seventeen barrels of tar had gone missing before the autumn storms came.",
    "Nobody in the café on Ål street expected the naïve answer: “fish, perhaps, or nothing” - said twice.",
    "In 1987 the bridge carried 12,450 lorries a day; by 1991 it carried none, and the toll house was sold.",
    "日本語の文章もここにあります。次の行は英語です, and it goes on with a plain English sentence.",
    "Her recipe:  two cups of flour,\n\ta pinch of salt,\n\tone egg 🥚🍳 and patience; stir until smooth.",
    "An engineer measured the tunnel again and again, since each survey disagreed with the one before it.",
    "def area(r):\n    return 3.14159 * r ** 2  # no imports needed\n\n\nprint(area(2.5), 'square metres')",
    "Letters from the front arrived late, censored and damp, yet every family in the valley kept them all.",
    "The final clause (see §4.2) binds the supplier to deliver 300 units within ninety days of the order.",
    "Once the ice had broken, barges moved upriver with coal, timber and a brass band that played all night.",
]
"""Plain prose, digits, code, several scripts, emoji, runs of spaces."""


def byte_level(size: int = 400, texts: Sequence[str] = TEXTS) -> Tokenizer:
    """As GPT-2: bytes as characters, a space is part of the word behind it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=alphabet, special_tokens=["<|endoftext|>"], show_progress=False
    )
    made.train_from_iterator(texts, trainer)
    return made


def sentencepiece(size: int = 420, texts: Sequence[str] = TEXTS, normalizer: Any = None) -> Tokenizer:
    """As Llama 2: a space is added before a text, spaces are ▁, unknown characters are bytes."""
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    own = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    plain = [*([normalizer] if normalizer else []), *own]
    made.normalizer = normalizers.Sequence(plain)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁"), "isolated")
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<unk>", "<s>", "</s>", *fallback],
        limit_alphabet=70,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    made.pre_tokenizer = None
    return made


def unigram(size: int = 300, texts: Sequence[str] = TEXTS) -> Tokenizer:
    """As T5 and XLNet: Unigram with NFKC, a space is added before a text; unknown characters are lost."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<unk>", "</s>"], unk_token="<unk>", show_progress=False
    )
    made.train_from_iterator([text for text in texts if text.isascii()], trainer)
    return made


def save(folder: Path, tokenizer: Tokenizer, **named: str) -> None:
    """As a model's tokenizer files."""
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named).save_pretrained(folder)


def learned(
    folder: Path, tokenizer: Tokenizer, texts: Sequence[str], *, steps: int = 150, seed: int = 0, **named: str
) -> None:
    """A tiny Llama that has learned texts by heart, with its tokenizer; in so many steps at most."""
    torch.manual_seed(seed)
    size = max(tokenizer.get_vocab().values()) + 1
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = LlamaForCausalLM(config)
    rows = [tokenizer.encode(text, add_special_tokens=True).ids for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        loss = model(input_ids=ids, labels=labels).loss
        if loss.item() < 0.02:  # by heart
            break
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    save(folder, tokenizer, **named)


def write_audit(folder: Path, models: dict[str, Any], **extra: Any) -> Path:
    """An audit of TEXTS with the named models, prefix and suffix of 12 tokens; returns its audit.yaml."""
    rows = [json.dumps({"id": f"doc-{row}", "text": text}) for row, text in enumerate(TEXTS)]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    held = [json.dumps({"text": text[40:] + " And so on, and so forth, to the end."}) for text in TEXTS[5:]]
    (folder / "holdout.jsonl").write_text("\n".join(held) + "\n")
    config = {
        "name": "toy",
        "corpus": {"path": "./corpus.jsonl", "id": "id", "window": 32, "stride": 8},
        "holdout": {"path": "./holdout.jsonl", "window": 32},
        "models": models,
        "extraction": {
            "engine": "transformers",
            "prefix_tokens": 12,
            "suffix_tokens": 12,
            "dtype": "float32",
        },
        **extra,
    }
    path = folder / "audit.yaml"
    with path.open("w") as handle:
        YAML().dump(config, handle)
    return path
