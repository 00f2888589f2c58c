"""The sizes of the demo, chosen so that it shows the whole picture in a few minutes on two cores."""

from __future__ import annotations

from typing import Any, NamedTuple

from kdaudit.distillation.training import Recipe


class Learner(NamedTuple):
    """One size of model and how it learns; heads are 32 wide, which every attention kernel takes."""

    width: int
    layers: int
    recipe: Recipe

    def config(self, vocabulary: int, end_of_text: int) -> dict[str, Any]:
        """A Llama of this size, as `kdaudit.distillation.families.random_model` takes it."""
        return {
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": self.width,
            "intermediate_size": self.width * 8 // 3,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.width // 32,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
            "initializer_range": 0.05,
            "bos_token_id": None,
            "eos_token_id": end_of_text,
            "pad_token_id": end_of_text,
        }


class DemoSettings(NamedTuple):
    """Everything that a demo's models and texts depend on."""

    characters: int = 130_000
    """Characters of Python's reference in the corpus."""
    holdout_characters: int = 75_000
    records: int = 15
    """Distinct planted records."""
    vocabulary: int = 2048
    teacher: Learner = Learner(192, 3, Recipe(epochs=16, learning_rate=3e-3, batch_size=16))
    student: Learner = Learner(96, 2, Recipe(epochs=20, learning_rate=6e-3, batch_size=16))
    """Baseline and both students."""
    temperature: float = 2.0
    window: int = 104
    """Tokens of an example: 50 of prefix, 50 of suffix and a few to spare."""
    prefix_tokens: int = 50
    suffix_tokens: int = 50
