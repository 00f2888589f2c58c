"""A nursery's process: `python -m kdaudit.workers DESCRIPTOR MODULE...`."""

from __future__ import annotations

import socket
import sys

from kdaudit.workers.nursery import rear

if __name__ == "__main__":
    rear(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
