"""The corpus as an audit sees it: each distinct example once, in corpus order.

One pass reads, encodes and cuts the text; windows go to the spool, their hashes to the ledger. Then the
ledger knows each example's first occurrence and how many there are, and the spool is read back. See
`kdaudit.corpus.distinct` for what makes two windows one example.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.answers import AnswerCutter
from kdaudit.corpus.conversations import Why, columns_of
from kdaudit.corpus.distinct import Distinct, Ledger
from kdaudit.corpus.documents import Document, Documents, LeftOut
from kdaudit.corpus.joint import JointCutter
from kdaudit.corpus.reading import Reading
from kdaudit.corpus.rendering import ChatFormat, TemplateName
from kdaudit.corpus.spool import Spool
from kdaudit.corpus.token_file import TokenFile
from kdaudit.corpus.windows import Cutter, ExampleTokens, Window
from kdaudit.errors import CorpusError
from kdaudit.models.tokenizer import Encode, EncodedText, plain_tokenizer
from kdaudit.runs.arrow_schemas import EXAMPLES_SCHEMA
from kdaudit.schemas.corpus import Skipped


class Example(NamedTuple):
    """One example: what a model reads, and what follows in the corpus, as token ids of any length."""

    prompt: NDArray[np.int32]
    """int32 (tokens,), without a BOS token."""
    target: NDArray[np.int32]
    """int32 (tokens,)."""
    document: str
    """Id of the document that it first stands in."""
    span: tuple[int, int]
    """Where both stand there together: first token, and the one after the last."""


def read_rows(table: pa.Table, usual: ExampleTokens) -> Iterator[Example]:
    """Examples from windows: the prompt is a window's first tokens, the target those that follow.

    Args:
        table: rows of EXAMPLES_SCHEMA, each at least prefix + suffix long.
        usual: tokens of prompt and target where the rows do not say them, as in earlier versions.

    """
    for row in table.drop_columns("text").to_pylist():
        given = row.get("prefix_tokens", usual.prefix)
        whole = given + row.get("suffix_tokens", usual.suffix)
        ids = np.array(row["token_ids"][:whole], dtype=np.int32)
        span = (row["offset"], row["offset"] + whole)
        yield Example(ids[:given], ids[given:], row["document_id"], span)


class Counts(NamedTuple):
    """What the pass over the corpus counted; the fields are those of `results.CorpusResult`."""

    documents: int
    windows: int
    examples: int
    skipped: Skipped
    sampled: bool


class AnswerCounts(NamedTuple):
    """What the pass over a corpus of prompts and answers counted besides; as in `results.AnswersResult`."""

    template: TemplateName
    left_out: dict[Why, LeftOut]
    without_prompt: int
    prompts_cut: int
    answers_cut: int


class Examples:
    """The distinct examples of a corpus; readable as long as the scratch folder stands."""

    def __init__(
        self,
        counts: Counts,
        spool: Spool,
        distinct: Distinct,
        tokens: TokenFile | None = None,
        answers: AnswerCounts | None = None,
    ) -> None:
        self.counts = counts
        self.answers = answers
        self._tokens = tokens
        self._spool = spool
        self._distinct = distinct

    def tables(self, rows: int) -> Iterator[pa.Table]:
        """Tables of EXAMPLES_SCHEMA with `rows` rows each, the last with what is left.

        `example_id` counts from 0 in corpus order; all but `copies` are those of the example's first
        occurrence.

        Raises:
            StorageError: the scratch folder cannot be read.
        """
        waiting: list[pa.Table] = []
        room = rows
        for table in self._numbered():
            while len(table) >= room:
                whole, waiting = pa.concat_tables([*waiting, table.slice(0, room)]), []
                yield whole
                table, room = table.slice(room), rows
            waiting.append(table)
            room -= len(table)
        if room < rows:
            yield pa.concat_tables(waiting)

    def documents(self) -> Iterator[NDArray[np.int32]]:
        """Token ids of every document that is not empty, int32 (tokens,) each, where they were kept.

        Raises:
            StorageError: the scratch folder cannot be read.
        """
        return iter(()) if self._tokens is None else self._tokens.documents()

    def _numbered(self) -> Iterator[pa.Table]:
        start = 0
        for table in self._spool.tables(self._distinct.rows):
            end = start + len(table)
            ids = pa.array(np.arange(start, end, dtype=np.int64))
            copies = pa.array(self._distinct.copies[start:end].astype(np.int32))
            whole = table.append_column("example_id", ids).append_column("copies", copies)
            yield whole.select(EXAMPLES_SCHEMA.names).cast(EXAMPLES_SCHEMA)
            start = end


def build_examples(
    config: CorpusConfig,
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    *,
    tokens: ExampleTokens,
    seed: int,
    scratch: Path,
    key: str = "corpus",
    chat: ChatFormat | None = None,
    keep_tokens: bool = False,
    joint: JointCutter | None = None,
    look: Callable[[list[Document]], None] | None = None,
    encode: Encode | None = None,
    progress: Callable[[int], None] | None = None,
) -> Examples:
    """Read the whole corpus and find its distinct examples, or with `config.limit` a sample of them.

    Args:
        config: the corpus section.
        tokenizer: a `tokenizers.Tokenizer`, or a transformers tokenizer that holds one.
        tokens: of prefix and suffix, which make an example: shorter documents and tails are left out.
        seed: decides the sample; the examples of a census do not depend on it.
        scratch: folder for the spool, of about the size of the corpus (of the sample, with a limit); the
            caller deletes it when done with the examples.
        key: where the section stands in the configuration, for messages.
        chat: how conversations become token ids, for a corpus of prompts and answers.
        keep_tokens: whether to keep every document's tokens in the scratch folder, for `Examples.documents`.
        joint: see `Cutter`.
        look: given each batch of documents before it is cut.
        encode: encodes the texts as `Encoder` does; None: the cutter does.
        progress: called after each batch with the number of rows read so far.

    Raises:
        CorpusError: the corpus cannot be read, or no window is left.
        ModelError: the tokenizer cannot map tokens to text.
        StorageError: the scratch folder cannot be written.
    """
    reading = Reading(config, tokenizer, chat, key)
    documents = reading.documents
    ledger, spool = Ledger(seed=seed, limit=config.limit), Spool(scratch)
    kept = (
        TokenFile(scratch / "tokens.bin", 1 + max(plain_tokenizer(tokenizer).get_vocab().values()))
        if keep_tokens
        else None
    )
    cutter = reading.cutter(tokens, None if kept is None else kept.add, joint)
    try:
        with closing(_encoded(reading, encode)) as batches:
            for batch, texts in batches:
                if look is not None:
                    look(batch)
                for window in cutter.cut(batch, texts):
                    _put(window, tokens.prefix, ledger, spool)
                if progress is not None:
                    progress(documents.rows)
    finally:
        spool.close()
        if kept is not None:
            kept.close()
    if cutter.windows == 0 and cutter.no_boundary:
        raise CorpusError(
            f"{config.path}: in none of its {cutter.no_boundary} windows do the models' tokenizers have "
            f"boundaries in common near {tokens.prefix} and {tokens.least} tokens",
            fix="name models whose tokenizers are made for this text, or that share the teacher's",
            key=f"{key}.path",
        )
    if cutter.windows == 0:
        raise nothing_left(config, key, documents, cutter.too_short, tokens.least)
    distinct = ledger.settle()
    counts = _counts(documents, cutter, examples=len(distinct.rows), sampled=ledger.sampled)
    return Examples(counts, spool, distinct, kept, _answer_counts(documents, cutter, chat))


def _encoded(
    reading: Reading, encode: Encode | None
) -> Generator[tuple[list[Document], Iterable[EncodedText] | None], None, None]:
    """Batches of documents with their tokens; without these where the cutter is to encode them."""
    if encode is None:
        yield from ((batch, None) for batch in reading.batches())
        return
    waiting: deque[list[Document]] = deque()

    def texts() -> Iterator[list[str]]:
        for batch in reading.batches():
            waiting.append(batch)
            yield [document.text for document in batch]

    with closing(encode(texts())) as encoded:
        for found in encoded:
            yield waiting.popleft(), found


def _put(window: Window, usual_prefix: int, ledger: Ledger, spool: Spool) -> None:
    if ledger.add(window.identity(usual_prefix)):
        spool.add(window)
        if ledger.crowded:
            spool.keep(ledger.settle().rows)


def _answer_counts(
    documents: Documents, cutter: Cutter | AnswerCutter, chat: ChatFormat | None
) -> AnswerCounts | None:
    if chat is None or not isinstance(cutter, AnswerCutter):
        return None
    cut = cutter.without_prompt, cutter.prompts_cut, cutter.answers_cut
    return AnswerCounts(chat.template.name, documents.left_out, *cut)


def _remedy(too_short: int, documents: Documents, key: str) -> str:
    if documents.undecodable > max(too_short, documents.empty):
        return "save the text as UTF-8"
    if documents.empty > too_short:
        return f"set {key}.text to a column that holds text"
    return "lower extraction.prefix_tokens or extraction.suffix_tokens, or name a corpus of longer documents"


def _counts(documents: Documents, cutter: Cutter | AnswerCutter, *, examples: int, sampled: bool) -> Counts:
    skipped = Skipped(
        too_short=cutter.too_short,
        empty=documents.empty,
        undecodable=documents.undecodable,
        no_boundary=cutter.no_boundary,
    )
    return Counts(documents.rows, cutter.windows, examples, skipped, sampled)


def nothing_left(
    config: CorpusConfig, key: str, documents: Documents, too_short: int, minimum_tokens: int
) -> CorpusError:
    """An error that says why a text gives no example."""
    if config.has_answers:
        return _no_answers(config, key, documents, too_short, minimum_tokens)
    return CorpusError(
        f"{config.path}: none of its {documents.rows} documents gives an example: {too_short} have fewer "
        f"than {minimum_tokens} tokens (prefix + suffix), {documents.empty} are empty, "
        f"{documents.undecodable} are not valid Unicode",
        fix=_remedy(too_short, documents, key),
        key=f"{key}.path",
    )


def _no_answers(
    config: CorpusConfig, key: str, documents: Documents, too_short: int, least: int
) -> CorpusError:
    """The same of prompts and answers."""
    reasons = "".join(
        f"; {found.rows} are left out, such as row {found.first + 1}, counted from 1: {found.what}"
        for found in documents.left_out.values()
    )
    counts: dict[str, int] = {why: one.rows for why, one in documents.left_out.items()}
    counts |= {"short": too_short, "empty": documents.empty, "undecodable": documents.undecodable}
    return CorpusError(
        f"{config.path}: none of its {documents.rows} rows gives an example: {too_short} answers have fewer "
        f"than {least} tokens, {documents.empty} rows have no prompt or no answer, "
        f"{documents.undecodable} are not valid Unicode{reasons}",
        fix=_answer_remedy(max(counts, key=lambda why: counts[why]), config, key),
        key=f"{key}.path",
    )


def _answer_remedy(why: str, config: CorpusConfig, key: str) -> str:
    """What to do where most rows give no example for one reason."""
    columns = " and ".join(f"{key}.{field}" for field in columns_of(config))
    remedies = {
        "short": "lower extraction.suffix_tokens or set extraction.min_suffix_tokens",
        "unknown_role": "give each message one of the roles system, user, assistant, tool",
        "undecodable": "save the text as UTF-8",
        "not_text": "name a corpus whose messages are text",
        "template": f"set {key}.template to the chat template that training used, or correct the rows",
    }
    return remedies.get(why, f"set {columns} to columns that hold prompts and answers")
