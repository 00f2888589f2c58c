"""Models and tokenizers from scratch, for families that are trained on nothing but the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from kdaudit.models.checkpoint.config import settled
from kdaudit.models.tokenizer import ModelTokenizer

END_OF_TEXT = "<|endoftext|>"


def random_model(config: Mapping[str, Any], seed: int) -> Any:  # noqa: ANN401 - transformers comes without types
    """A causal language model with random weights in float32.

    Args:
        config: `model_type` and what that type's configuration in transformers takes.
        seed: equal configurations and seeds give equal weights; the global generator is not changed.
    """
    values = dict(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = settled(AutoConfig.for_model(values.pop("model_type"), **values))
        return AutoModelForCausalLM.from_config(made, dtype=torch.float32)


def train_bpe(texts: Iterable[str], vocabulary: int) -> ModelTokenizer:
    """A byte-level BPE tokenizer that can write any text; no BOS token, `END_OF_TEXT` is EOS and padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    described = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )
    return ModelTokenizer(tokenizer, described)
