"""What a check of kdaudit's own refuses in a configuration, as data: the key, and what is wrong there."""

from __future__ import annotations


class MisfitError(ValueError):
    """A value that does not fit the others.

    Attributes:
        key: dotted and relative to the section that is checked, as in `students.0.name`.
        problem: what is wrong and what to do.

    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem
