"""`python -m kdaudit`, and the installed command `kdaudit`."""

from __future__ import annotations

import gc
import signal

_OBJECTS = 50_000
"""Made before garbage is looked for again. Python's own hundreds are for small programs: among the many
thousands that the libraries' modules are made of, it would look all the time."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(_OBJECTS)
    # Ctrl-C while modules are imported, or while they end, ends the process as the shell expects, without a
    # traceback. Where it is ignored, as in a script's background, it stays ignored.
    handler = signal.getsignal(signal.SIGINT)
    outside = signal.SIG_IGN if handler is signal.SIG_IGN else signal.SIG_DFL
    signal.signal(signal.SIGINT, outside)
    from kdaudit.cli import main as program

    signal.signal(signal.SIGINT, handler)
    try:
        program(prog_name="kdaudit")
    finally:
        signal.signal(signal.SIGINT, outside)


if __name__ == "__main__":
    main()
