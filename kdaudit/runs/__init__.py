"""The run directory: which files it holds, how they are written whole, and who may work there.

layout.py          every file name; arrow_schemas.py every table's columns
store.py           an open run: shards, stages, what is done
opening.py         how an earlier run is taken up, or a new one begins
inputs.py          what a run is made from, and which files depend on what
manifest.py        what the run holds; journal.py what happened since it was written
lock.py            one process at a time
verify.py          whether files are as the run wrote them
files.py           reading and writing, whole and through no link
examples.py        shards of an open run; finished.py those of a finished one
keys.py            secret keys of hashes
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""How work tells what it does: progress(what, done, total)."""
