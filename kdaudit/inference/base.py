"""What an inference engine does for an audit, in token ids alone.

An engine knows nothing of corpora, text or files of a run: rows of token ids go in, of any length and without
padding, arrays come out.
`kdaudit.inference.start` runs one in a process of its own and gives back the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.section import EngineName
from kdaudit.errors import EngineError
from kdaudit.inference.edits import NearMatches
from kdaudit.inference.examples import Batch, Lengths, Ragged, Tokens

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "ABILITIES",
    "Ability",
    "Engine",
    "EngineInfo",
    "EngineKind",
    "EngineOptions",
    "Lengths",
    "Loaded",
    "Masking",
    "MatchedBytes",
    "MatchedTokens",
    "NearMatches",
    "Ragged",
    "Sampling",
    "Scores",
    "Task",
    "Tokens",
]


Ability = Literal["match", "match_text", "match_nearly", "generate", "score"]
MatchedTokens = NDArray[np.int16]
MatchedBytes = NDArray[np.int32]

EngineKind = EngineName | Literal["endpoint"]
"""What runs a model: what the configuration chooses, but for models behind endpoints."""

ABILITIES: dict[EngineKind, frozenset[Ability]] = {
    "endpoint": frozenset({"match", "match_text", "generate"}),
    "vllm": frozenset({"match", "match_text", "match_nearly", "generate"}),
    "transformers": frozenset({"match", "match_text", "match_nearly", "generate", "score"}),
}
"""What each engine can be asked. Scoring stays in transformers: vLLM's `prompt_logprobs` are slow, and take
memory for each token of a large vocabulary."""


class Masking(NamedTuple):
    """Ids that stand for no token of a model's tokenizer."""

    vocabulary: int = 0
    """All from here on; 0: none is known."""
    unused_ids: Sequence[int] = ()
    """And these below it."""

    def ids(self, width: int) -> list[int]:
        """Those that a model with logits for `width` ids could give: ascending."""
        unused = [index for index in self.unused_ids if index < width]
        return [*unused, *range(self.vocabulary or width, width)]


class EngineOptions(NamedTuple):
    """How to load one model."""

    engine: EngineKind
    path: str
    """A local folder in Hugging Face form with safetensors weights; for an endpoint's model with its
    tokenizer alone."""
    max_tokens: int
    """Longest sequence to come, in tokens: BOS token, prefix and suffix. The model reads all but the last."""
    dtype: str = "auto"
    """auto (the checkpoint's own), float32, bfloat16 or float16."""
    tensor_parallel: int = 1
    """GPUs that share the model; vLLM only."""
    trust_remote_code: bool = False
    expected_examples: int = 0
    """Examples to come, so that an engine can choose whether compiling pays; 0 where unknown."""
    max_num_seqs: int = 0
    """Maximum concurrent sequences; 0 leaves it to the engine, which says what it chose."""
    retries: int = 0
    """Times that memory ran out before: the batch is a quarter for each."""
    memory_share: float = 1.0
    """Share of the memory that an engine would take by itself, where several are loaded together."""
    free_memory: int = 0
    """Bytes of memory that were free before any of them was loaded, so that all choose alike; 0: what is free
    when the engine is loaded."""
    vocabulary: int = 0
    """Ids from here on stand for no token of the tokenizer, and `generate` gives none; 0: not known."""
    unused_ids: Sequence[int] = ()
    """Ids below it that stand for no token either."""
    pieces: Sequence[str | None] = ()
    """For `match_text`: by token id the bytes that the token writes, as characters U+0000 to U+00FF, so that
    they are JSON; None for ids that stand for no token."""
    endpoint: Sequence[Any] | None = None
    """Fields of `Endpoint`, for a model behind one."""

    @property
    def masking(self) -> Masking:
        """What `generate` never gives."""
        return Masking(self.vocabulary, self.unused_ids)


class EngineInfo(NamedTuple):
    """What a loaded engine turned out to be, for the record."""

    engine: str
    version: str
    device: str
    dtype: str


class Loaded(NamedTuple):
    """What an engine says once its model is loaded."""

    info: EngineInfo
    max_num_seqs: int
    """Maximum concurrent sequences."""


class Sampling(NamedTuple):
    """How tokens are drawn: from the likeliest `top_k` of the softened distribution, renormalized."""

    temperature: float
    """Divides the logits: above 0."""
    top_k: int | None
    """Tokens that can be drawn: those whose logit is at least the k-th largest, so that all that tie with it
    are among them, as in transformers and vLLM; None: all."""


class Scores(NamedTuple):
    """What a model makes of each token after the first of some windows, given those before it.

    Arrays are (tokens,), window by window; logarithms are natural. Distributions are over the tokenizer's
    vocabulary where it is known: columns of the logits beyond it, which padded models have, are left out.
    """

    offsets: Lengths
    """int64 (windows + 1,): window i has `offsets[i]` to `offsets[i + 1]`, one less than its tokens."""
    log_probability: NDArray[np.float64]
    """ln p of the token."""
    mean: NDArray[np.float64]
    """Mean of ln p over the next-token distribution itself: its negative entropy."""
    variance: NDArray[np.float64]
    """Variance of ln p over the same."""
    hit: NDArray[np.bool_]
    """Whether the token is the argmax of all columns of the logits, as in decoding."""
    sampled: NDArray[np.float64]
    """ln of the probability that the token is drawn, -inf where it is outside the top k; (0,) if no sampling
    was asked for."""


class Engine(Protocol):
    """A loaded model: it decodes, or reads what is there.

    Engines inherit from it, and so refuse what they cannot do, see `ABILITIES`.
    """

    def describe(self) -> Loaded:
        """What the engine turned out to be."""
        ...

    def match(self, prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        """Matched tokens of each example.

        Args:
            prompts: what is read, BOS token included where one is wanted: at least one token each.
            targets: what follows: at least one token each.

        Returns:
            int16 (examples,): how many tokens of its target greedy decoding from its prompt
            reproduces before the first difference, 0 to all of them. The model is decoded as it was
            released: where the likeliest id stands for no token (a padded row of its output layer), that is
            what it would give out, and a difference.

        """
        ...

    def match_text(self, prompts: Ragged, targets: Ragged) -> MatchedBytes:
        """Matched bytes of each example: for models whose tokenizer is not the one that cut the targets.

        Args:
            prompts: as in `match`.
            targets: the bytes that should follow, 0 to 255: at least one each.

        Returns:
            int32 (examples,): how many bytes of its target the text of the greedy continuation begins with,
            whichever tokens write it. Decoding stops where the text can match no more. As in `match` the
            model is decoded as it was released.

        """
        ...

    def match_nearly(self, prompts: Ragged, targets: Ragged, limits: Lengths) -> NearMatches:
        """Matched tokens of each example, and the edit distance of its greedy continuation.

        Args:
            prompts: as in `match`.
            targets: as in `match`.
            limits: most edits of each example, in tokens: int64 (examples,). Decoding stops where there
                must be more.

        Raises:
            EngineError: the engine cannot do it.

        """
        raise _unable(self, "match_nearly", prompts, targets, limits)

    def generate(
        self, prompts: Ragged, tokens: int | Lengths, temperature: float = 0.0, seed: int = 0
    ) -> Ragged:
        """Continuation of each prompt, of as many tokens as asked (for all, or each); end tokens not heeded.

        Greedy, or with a temperature above 0 sampled from the whole softened distribution; either way of ids
        that stand for a token: what is generated is written down as text, and students are trained on it.
        """
        ...

    def score(self, windows: Ragged, sampling: Sampling | None = None) -> Scores:
        """Read windows, BOS token included where one is wanted: the one teacher-forced pass.

        Perplexity, tokens matched under teacher forcing, entropy and the scores of membership attacks follow
        from what it gives, and with `sampling` the probability that a text is drawn. Each window has at least
        two tokens.

        Raises:
            EngineError: the engine cannot do it.

        """
        raise _unable(self, "score", windows, sampling)


def _unable(engine: Engine, ability: Ability, *_: object) -> EngineError:
    return EngineError(f"{engine.describe().info.engine} cannot {ability}")


class Task(Protocol):
    """What is done with a loaded model in its worker, a batch at a time: an attack, say.

    A frozen dataclass of JSON values, so that the worker can make it again from its name and its fields.
    """

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """Work on a batch: one row an example, in their order."""
        ...
