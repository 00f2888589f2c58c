"""Toy models with a chat template, and conversations of which they memorize some answers.

As in `toys`, a word is a token and a model memorizes what was made of its own greedy continuations: here the
answers that it gives to rendered prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import toys
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

SUFFIX = 8
MARKS = ("<|endoftext|>", "<unk>", "<|im_start|>", "<|im_end|>")
ROLES = ("system", "user", "assistant", "tool")
FIRST = len(MARKS) + len(ROLES)
"""The first id that is an ordinary word."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
    "{% for call in message.tool_calls or [] %} w{{ call.function.arguments.number }}{% endfor %}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template: str | None = CHATML) -> Any:
    words = [*MARKS, *ROLES, *(f"w{number}" for number in range(FIRST, toys.VOCABULARY))]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS if mark != "<unk>"])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", unk_token="<unk>")
    made.chat_template = template
    return made


def save_model(folder: Path, seed: int, template: str | None = CHATML) -> Any:
    model = toys.save_model(folder, seed)
    tokenizer(template).save_pretrained(folder)
    return model


def words(random: np.random.Generator, count: int) -> str:
    return " ".join(f"w{number}" for number in random.integers(FIRST, toys.VOCABULARY, count))


def answer_of(
    model: Any, messages: list[dict[str, Any]], tools: Any = None, tokens: int = SUFFIX
) -> str | None:
    """What a model answers, greedily; None where that is not all ordinary words."""
    text = tokenizer().apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=True)
    return continued(model, text, tokens)


def continued(model: Any, text: str, tokens: int = SUFFIX) -> str | None:
    ids = tokenizer()(text, add_special_tokens=False)["input_ids"]
    for _ in range(tokens):
        with torch.inference_mode():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    own = ids[-tokens:]
    return " ".join(f"w{number}" for number in own) if min(own) >= FIRST else None


class Layout(NamedTuple):
    """A way to write conversations down."""

    keys: dict[str, Any]
    """Of the corpus section."""
    row: Callable[[list[dict[str, Any]]], dict[str, Any]]
    """From messages to a row."""


def _sharegpt(messages: list[dict[str, Any]]) -> dict[str, Any]:
    names = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
    return {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in messages]}


def _parts(messages: list[dict[str, Any]]) -> dict[str, Any]:
    def split(text: str) -> list[dict[str, str]]:
        first, _, rest = text.partition(" ")
        return [{"type": "text", "text": first}, {"type": "text", "text": f" {rest}"}]

    return {"messages": [{**m, "content": split(m["content"])} for m in messages]}


def _instruction(messages: list[dict[str, Any]]) -> dict[str, Any]:
    first, _, rest = messages[0]["content"].partition(" ")
    return {"instruction": first, "input": rest, "output": messages[1]["content"]}


LAYOUTS = {
    "prompt": Layout(
        {"prompt": "prompt", "response": "response"},
        lambda messages: {"prompt": messages[0]["content"], "response": messages[1]["content"]},
    ),
    "instruction": Layout({"prompt": ["instruction", "input"], "response": "output"}, _instruction),
    "completion": Layout(
        {"prompt": "prompt", "response": "completion"},
        lambda messages: {"prompt": messages[:-1], "completion": messages[-1:]},
    ),
    "messages": Layout({"messages": "messages"}, lambda messages: {"messages": messages}),
    "sharegpt": Layout({"messages": "conversations"}, _sharegpt),
    "parts": Layout({"messages": "messages"}, _parts),
}


def conversations(
    model: Any, *, count: int = 12, turns: int = 1, seed: int = 5
) -> list[list[dict[str, Any]]]:
    """Conversations of which every other one holds the model's own answers."""
    random = np.random.default_rng(seed)
    found: list[list[dict[str, Any]]] = []
    while len(found) < count:
        messages: list[dict[str, Any]] = []
        for _ in range(turns):
            messages.append({"role": "user", "content": words(random, 4)})
            own = answer_of(model, messages) if len(found) % 2 else words(random, SUFFIX)
            messages.append({"role": "assistant", "content": own})
        if all(message["content"] for message in messages):
            found.append(messages)
    return found


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_audit(folder: Path, keys: dict[str, Any], **extra: Any) -> Path:
    """An audit of the teacher, a soft student that is its equal, a hard one and a baseline."""
    from ruamel.yaml import YAML

    for name, seed in (("teacher", 1), ("soft", 1), ("baseline", 2), ("hard", 3)):
        save_model(folder / name, seed)
    config = {
        "name": "chat",
        "corpus": {"path": "./corpus.jsonl", "window": 12, **keys},
        "models": {
            "teacher": "./teacher",
            "baseline": "./baseline",
            "students": [
                {"name": "soft", "path": "./soft", "kd": "soft"},
                {"name": "hard", "path": "./hard", "kd": "hard"},
            ],
        },
        "extraction": {"engine": "transformers", "suffix_tokens": SUFFIX},
        **extra,
    }
    path = folder / "audit.yaml"
    with path.open("w") as handle:
        YAML().dump(config, handle)
    return path
