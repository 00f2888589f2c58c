"""A corpus on its way to windows: documents, rendered if they are prompts and answers, and a cutter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.answers import AnswerCutter
from kdaudit.corpus.documents import Document, Documents, open_documents
from kdaudit.corpus.joint import JointCutter
from kdaudit.corpus.rendering import ChatFormat, Renderer
from kdaudit.corpus.windows import Cutter, ExampleTokens, batched

Look = Callable[[list[Document]], None]


class Reading:
    """Reads a corpus once.

    Args:
        config: the corpus section.
        tokenizer: a `tokenizers.Tokenizer`, or a tokenizer that holds one; a ModelTokenizer with `chat`.
        chat: how conversations become token ids; for a corpus of prompts and answers alone.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: the source cannot be found or read, or has no rows.

    """

    def __init__(
        self,
        config: CorpusConfig,
        tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
        chat: ChatFormat | None = None,
        key: str = "corpus",
    ) -> None:
        self.documents: Documents = open_documents(config, key)
        self._config = config
        self._tokenizer = tokenizer
        self._chat = chat
        self._key = key
        self._cutter: Cutter | AnswerCutter | None = None

    @property
    def too_short(self) -> int:
        """Stretches and answers that were left out so far, as they have too few tokens."""
        return 0 if self._cutter is None else self._cutter.too_short

    def batches(self) -> Iterator[list[Document]]:
        """The documents as texts, some at a time."""
        if self._chat is None:
            return batched(self.documents)
        renderer = Renderer(self._chat.template, self._tokenizer, self._key)
        return batched(renderer.render(self.documents))

    def cutter(
        self,
        tokens: ExampleTokens,
        heed: Callable[[NDArray[np.int32]], None] | None = None,
        joint: JointCutter | None = None,
    ) -> Cutter | AnswerCutter:
        """What cuts them into windows.

        Args:
            tokens: of prompt and target.
            heed: told of each document's token ids, int32 (tokens,).
            joint: see `Cutter`; of plain text alone.

        """
        made: Cutter | AnswerCutter
        window = self._config.window
        stride = self._config.stride or window
        if self._chat is not None:
            made = AnswerCutter(self._tokenizer, self._chat, window=window, tokens=tokens, heed=heed)
        else:
            made = Cutter(
                self._tokenizer, window=window, stride=stride, tokens=tokens, heed=heed, joint=joint
            )
        self._cutter = made
        return made
