"""`python -m kdaudit`, and the installed command `kdaudit`."""

from __future__ import annotations

import signal


def main() -> None:
    """Run the command line."""
    # Ctrl-C while modules are imported ends the process as the shell expects, without a traceback.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kdaudit.cli import main as program

    signal.signal(signal.SIGINT, handler)
    program(prog_name="kdaudit")


if __name__ == "__main__":
    main()
