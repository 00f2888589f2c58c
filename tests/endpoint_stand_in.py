"""A stand-in for a completions server, over http.server on loopback: a model of transformers, and faults.

It decodes by argmax over whole forward passes, one token at a time, and knows nothing of kdaudit.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch

Fault = Callable[["Handler"], bool]
"""Answers in the server's place; False where it did not."""


class StandIn:
    """A server and what it was asked.

    Args:
        model: of transformers.
        tokenizer: of transformers; `decode` and `__call__` are used.

    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.takes_ids = self.gives_ids = self.takes_more = self.streams = self.lists = True
        self.name = "big"
        self.adds_before: int | None = None
        """An id that it reads before all that it is given."""
        self.key: str | None = None
        self.context = 64
        self.asked: list[dict[str, Any]] = []
        self.decoded = 0
        """Tokens that the model was run for."""
        self.most_at_once = self._at_once = 0
        self.faults: list[Fault] = []
        """Taken one by one, each for one completion."""
        self.lock = threading.Lock()
        self.headers: list[str | None] = []

    @contextmanager
    def running(self) -> Iterator[str]:
        """Serve on a free port; gives the address up to /v1."""
        server = _Server(("127.0.0.1", 0), lambda *words: Handler(self, *words))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
            server.server_close()

    def continuation(self, ids: list[int], tokens: int, ignore_eos: bool) -> Iterator[int]:
        for _ in range(tokens):
            with self.lock, torch.inference_mode():
                self.decoded += 1
                ids = [*ids, int(self.model(torch.tensor([ids])).logits[0, -1].argmax())]
            yield ids[-1]
            if ids[-1] == self.tokenizer.eos_token_id and not ignore_eos:
                return

    @contextmanager
    def counted(self) -> Iterator[None]:
        with self.lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            yield
        finally:
            with self.lock:
                self._at_once -= 1


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away: kdaudit's commands share this process and its stderr."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def __init__(self, stand_in: StandIn, *words: Any) -> None:
        self.stand_in = stand_in
        super().__init__(*words)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.stand_in
        if not self._is_allowed():
            return
        if self.path != "/v1/models" or not server.lists:
            self.answer(404, {"error": {"message": "no such page"}})
            return
        listed = {"id": server.name, "object": "model", "owned_by": "test", "max_model_len": server.context}
        self.answer(200, {"object": "list", "data": [listed]})

    def do_POST(self) -> None:
        server = self.stand_in
        body = self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self._is_allowed():
            return
        if self.path != "/v1/completions":
            self.answer(404, {"error": {"message": "no such page"}})
            return
        with server.lock:
            server.asked.append(body)
            fault = server.faults.pop(0) if server.faults else None
        if fault is not None and fault(self):
            return
        self._complete(body)

    def _is_allowed(self) -> bool:
        server, given = self.stand_in, self.headers.get("Authorization")
        server.headers.append(given)
        if server.key is None or given == f"Bearer {server.key}":
            return True
        self.answer(401, {"error": {"message": "wrong key"}})
        return False

    def _complete(self, body: dict[str, Any]) -> None:
        server, prompt = self.stand_in, body["prompt"]
        if body["model"] != server.name:
            self.answer(404, {"error": {"message": "no such model"}})
            return
        if isinstance(prompt, list) and not server.takes_ids:
            self.answer(400, {"error": {"message": "prompt must be a string"}})
            return
        if "ignore_eos" in body and not server.takes_more:
            self.answer(400, {"error": {"message": "Unrecognized request argument: ignore_eos"}})
            return
        ids = prompt if isinstance(prompt, list) else server.tokenizer(prompt)["input_ids"]
        ids = ids if server.adds_before is None else [server.adds_before, *ids]
        steps = server.continuation(ids, body["max_tokens"], bool(body.get("ignore_eos")))
        if not server.streams:
            with server.counted():
                written = list(steps)
            self.answer(200, self._event(ids, written, "length", ids if server.gives_ids else None))
            return
        self._begin()
        shown, read, left = [*ids], ids, body["max_tokens"]
        for token in steps:
            left -= 1
            ends = "length" if not left else "stop" if token == server.tokenizer.eos_token_id else None
            ends = None if ends == "stop" and body.get("ignore_eos") else ends
            if not self.send(self._event(shown, [token], ends, read if server.gives_ids else None)):
                return
            shown.append(token)
            read = None
        self.send("[DONE]")
        self.end()

    def _event(
        self, before: list[int], tokens: list[int], ends: str | None, prompt: list[int] | None
    ) -> dict[str, Any]:
        decode = self.stand_in.tokenizer.decode
        text = decode([*before, *tokens])[len(decode(before)) :]
        ids = {"token_ids": tokens, "prompt_token_ids": prompt} if self.stand_in.gives_ids else {}
        return {"choices": [{"index": 0, "text": text, "finish_reason": ends, **ids}]}

    def _begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def send(self, event: dict[str, Any] | str) -> bool:
        """Send an event; False where nobody listens any more."""
        data = f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n".encode()
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()
            time.sleep(0.002)  # lets the other side close the stream, as a GPU's step would
        except OSError:
            self.close_connection = True
            return False
        return True

    def end(self) -> None:
        try:
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.close_connection = True

    def answer(self, status: int, said: Any, kind: str = "application/json", **headers: str) -> bool:
        data = said.encode() if isinstance(said, str) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)
        return True


def status(code: int, **headers: str) -> Fault:
    """Answer with a status."""
    return lambda handler: handler.answer(code, {"error": {"message": f"fault {code}"}}, **headers)


def page(handler: Handler) -> bool:
    """Answer with HTML."""
    return handler.answer(200, "<!doctype html><h1>It works!</h1>", "text/html")


def redirect(place: str) -> Fault:
    """Send the client elsewhere."""
    return lambda handler: handler.answer(307, "", "text/plain", Location=place)


def dropped(handler: Handler) -> bool:
    """Begin a stream and end the connection after a token, the right one."""
    handler._begin()
    prompt = handler.body["prompt"]
    (token,) = handler.stand_in.continuation(prompt, 1, True)
    handler.send(handler._event(prompt, [token], None, prompt))
    handler.close_connection = True
    handler.connection.close()
    return True


def cut_off(handler: Handler) -> bool:
    """A stream that ends in order, but for half an event."""
    handler._begin()
    handler.wfile.write(b'd\r\ndata: {"choic\r\n')
    handler.end()
    return True


def slow(seconds: float) -> Fault:
    """Begin a stream and say nothing for some time."""

    def wait(handler: Handler) -> bool:
        handler._begin()
        time.sleep(seconds)
        handler.close_connection = True
        return True

    return wait


def broken(text: str) -> Fault:
    """A stream with an event of one's own."""

    def say(handler: Handler) -> bool:
        handler._begin()
        handler.send(text)
        handler.end()
        return True

    return say
