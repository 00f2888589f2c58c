"""`python -m kdaudit`, and the installed command `kdaudit`."""

from __future__ import annotations

import gc
import signal

_OBJECTS = 50_000
"""Made before garbage is looked for again. Python's own 700 are for small programs: among the hundreds of
thousands that the libraries' modules are made of, it would look all the time."""


def main() -> None:
    """Run the command line."""
    gc.set_threshold(_OBJECTS)
    # Ctrl-C while modules are imported ends the process as the shell expects, without a traceback.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    from kdaudit.cli import main as program

    signal.signal(signal.SIGINT, handler)
    program(prog_name="kdaudit")


if __name__ == "__main__":
    main()
