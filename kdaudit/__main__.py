"""`python -m kdaudit`."""

from __future__ import annotations

from kdaudit.cli import main

main(prog_name="kdaudit")
