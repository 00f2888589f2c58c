"""A stand-in for the Hugging Face hub on loopback: one model's repository, as far as a commit needs it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

HEAD = "a" * 40
"""The commit on main."""


class StandIn(ThreadingHTTPServer):
    """The server, what it holds and what it was told."""

    daemon_threads = True

    def __init__(self, repo: str, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repo, self.files = repo, files
        self.commits: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.tokens: set[str | None] = set()
        self.refusals: dict[str, tuple[int, dict[str, str]]] = {}
        """Status and headers to answer with, by a part of the path."""
        self.silent: str | None = None
        """A part of a path for which no answer comes until the server ends."""
        self.ended = threading.Event()
        self.yaml_answer: tuple[int, dict[str, Any]] = (200, {"warnings": [], "errors": []})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path, hub = urlsplit(self.path), self.server
        hub.calls.append(f"{self.command} {path.path}")
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.silent is not None and hub.silent in path.path:
            hub.ended.wait()
            return None
        for part, (status, headers) in hub.refusals.items():
            if part in path.path:
                return self._send(status, b'{"error": "refused by the stand-in"}', headers)
        query = parse_qs(path.query)
        api = f"/api/models/{hub.repo}"
        if path.path == "/api/validate-yaml":
            status, answer = hub.yaml_answer
            return self._json(answer, status)
        if path.path in (api, f"{api}/revision/main"):
            return self._json({"id": hub.repo, "sha": HEAD, "siblings": [], "tags": []})
        if found := re.fullmatch(f"/{hub.repo}/resolve/{HEAD}/(.+)", path.path):
            return self._file(found.group(1))
        if path.path == f"{api}/preupload/main":
            return self._json({"files": [self._mode(one) for one in json.loads(body)["files"]]})
        if path.path == f"{api}/commit/main":
            return self._commit(body, query)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _mode(self, file: dict[str, Any]) -> dict[str, Any]:
        held = self.server.files.get(file["path"])
        blob = None if held is None else hashlib.sha1(b"blob %d\0" % len(held) + held).hexdigest()
        return {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": blob}

    def _file(self, name: str) -> None:
        held = self.server.files.get(name)
        if held is None:
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(held).hexdigest()
        return self._send(200, held, {"ETag": f'"{tag}"', "X-Repo-Commit": HEAD})

    def _commit(self, body: bytes, query: dict[str, list[str]]) -> None:
        lines = [json.loads(line) for line in body.splitlines()]
        assert [line["key"] for line in lines] == ["header"] + ["file"] * (len(lines) - 1)
        files = {one["value"]["path"]: base64.b64decode(one["value"]["content"]) for one in lines[1:]}
        pull = query.get("create_pr") == ["1"]
        self.server.commits.append({"header": lines[0]["value"], "files": files, "pull": pull})
        if not pull:
            self.server.files.update(files)
        base = f"{self.server.url}/{self.server.repo}"
        answer = {"commitUrl": f"{base}/commit/{'b' * 40}", "commitOid": "b" * 40}
        self._json(answer | ({"pullRequestUrl": f"{base}/discussions/1"} if pull else {}))

    def _json(self, value: object, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def stand_in(repo: str, files: dict[str, bytes]) -> Iterator[StandIn]:
    """Serve a repository until the block ends."""
    with StandIn(repo, files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
