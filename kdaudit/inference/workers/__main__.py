"""A fork server's process: `python -m kdaudit.inference.workers DESCRIPTOR MODULE...`."""

from __future__ import annotations

import socket
import sys

from kdaudit.inference.workers.fork_server import serve_forever

if __name__ == "__main__":
    serve_forever(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
