"""Texts encoded by machines of a cluster, in order, while this one reads and cuts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from itertools import chain, islice
from typing import Any

from kdaudit.errors import EngineError, ModelError, WorkerLostError
from kdaudit.inference.executors.sharing import share_out, wait_for
from kdaudit.inference.workers import Process, Start
from kdaudit.models.tokenizer import (
    Encode,
    EncodedText,
    Encoder,
    PackedTexts,
    PackedTokens,
    service_options,
    versions,
)

_SERVICE = "kdaudit.models.tokenizer.service:EncoderService"
_ALONE = 16_000_000
"""Characters that are encoded here before any elsewhere: by then processes would hardly have started."""
_AHEAD = 50_000_000
"""Characters, and a batch, that may be elsewhere or wait for their turn: a text can be very long."""


def encoding_elsewhere(
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    encoders: Callable[[], AbstractContextManager[Sequence[Start]]],
    warn: Callable[[str], None],
) -> Encode:
    """Encode texts in other processes, with the results of this one.

    The first batches are encoded here, so that a small text starts no process. Each process is given one of
    these, and must make of it what this one does. What no process can do is done here, and `warn` is told.

    Args:
        tokenizer: as of `Encoder`.
        encoders: makes room for the processes, which end with the block; none: this one is faster alone.
        warn: told of processes that are lost, and where none is left.

    """
    own = Encoder(tokenizer)

    def encode(batches: Iterator[list[str]]) -> Generator[Iterable[EncodedText], None, None]:
        yield from map(own.encode_batch, _first(batches))
        if (texts := next(batches, None)) is None:
            return
        expected = PackedTokens.of(own.encode_batch(texts))
        yield expected.texts()
        owed: deque[list[str]] = deque(islice(batches, 1))  # taken, and not given yet
        if not owed:
            return

        ahead = 0  # characters of what was begun and is not given yet

        def taken() -> Iterator[list[str]]:
            nonlocal ahead
            ahead += _characters(owed[0])
            yield owed[0]
            for texts in batches:
                owed.append(texts)
                ahead += _characters(texts)
                yield texts

        try:
            with ExitStack() as stack:
                options = service_options(tokenizer)
                processes = []
                for start in stack.enter_context(encoders()):
                    processes.append(RemoteEncoder(start(_SERVICE, options, ()), texts, expected))
                    stack.callback(processes[-1].close)
                wait_for(processes, warn)
                shared = share_out(
                    processes,
                    taken(),
                    RemoteEncoder.begin,
                    RemoteEncoder.finish,
                    warn,
                    in_order=True,
                    more=lambda: ahead < _AHEAD,
                )
                for _, tokens in shared:
                    ahead -= _characters(owed.popleft())
                    yield tokens.texts()
        except EngineError as error:
            what, *_ = error.what.splitlines()  # a service's message may have several
            warn(f"{what}; this machine tokenizes the rest of the text alone")
        yield from map(own.encode_batch, chain(owed, batches))

    return encode


def _first(batches: Iterator[list[str]]) -> Iterator[list[str]]:
    """The batches that are encoded here whatever follows."""
    characters = 0
    while characters < _ALONE and (texts := next(batches, None)) is not None:
        yield texts
        characters += _characters(texts)


def _characters(texts: list[str]) -> int:
    return sum(map(len, texts))


class RemoteEncoder:
    """An `EncoderService` in a process.

    Args:
        process: begins to build the service.
        texts: to check it with.
        expected: what this process makes of them.

    """

    def __init__(self, process: Process, texts: list[str], expected: PackedTokens) -> None:
        self._process = process
        self._expected = expected
        self.begin(texts)

    def wait(self) -> None:
        """Wait until it is built, and compare what it makes of the texts.

        Raises:
            WorkerLostError: the process is gone, or other versions make it unfit.
            ModelError: it encodes otherwise than this process.

        """
        about = self._process.wait()
        node, there, own = about["node"], about["versions"], versions()
        for library, version in own.items():
            if there[library] != version:
                raise WorkerLostError(
                    f"{node} tokenizes no text: {library} there is {there[library]}, and {version} here"
                )
        if not self.finish().equals(self._expected):
            raise ModelError(
                f"{node} tokenizes a text otherwise than this machine, with the same tokenizer",
                fix="install the same packages there as here, or set it to null",
                key="compute.ray",
            )

    def fileno(self) -> int:
        """See `Process.fileno`."""
        return self._process.fileno()

    def begin(self, texts: list[str]) -> None:
        """Begin to encode a batch."""
        self._process.send("encode", *PackedTexts.of(texts))

    def finish(self) -> PackedTokens:
        """Wait for the oldest batch that was begun."""
        return PackedTokens(*self._process.receive().arrays)

    def close(self) -> None:
        """End the process."""
        self._process.close()
