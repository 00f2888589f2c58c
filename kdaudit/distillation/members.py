"""Baselines and students of a family: where each lies, its seed, and which baselines an audit names.

What one retrained model happens to memorize of the teacher's specific examples, others like it show. So a
family has several baselines: one for each seed and, where there are fewer seeds than `count` asks for, more
beside the first seed's, each with a seed of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from itertools import count, islice
from pathlib import PurePosixPath
from typing import NamedTuple

from kdaudit.config.distill import DistillConfig
from kdaudit.config.students import BaselineStudent, LabStudent
from kdaudit.runs import layout


class Member(NamedTuple):
    """A model of the student's size."""

    name: str
    """Its own: the name in distill.yaml, with a number for a further baseline."""
    student: LabStudent
    """What distill.yaml says of it."""
    seed: int
    """Of `seeds`: whose folder it lies in."""
    draws: int
    """Seed of its random choices: `seed`, but for a further baseline."""

    @property
    def folder(self) -> PurePosixPath:
        """Inside the output folder."""
        return PurePosixPath(layout.seed_folder(self.seed), self.name)

    @property
    def is_baseline(self) -> bool:
        """Whether it is trained without a teacher."""
        return isinstance(self.student, BaselineStudent)


def members(config: DistillConfig) -> list[Member]:
    """All that are trained beside the teacher: by seed, in the order of distill.yaml."""
    found = []
    for seed in config.seeds:
        for student in config.students:
            found.append(Member(student.name, student, seed, seed))
            if isinstance(student, BaselineStudent) and seed == config.seeds[0]:
                found += _further(config, student)
    return found


def baselines_of(config: DistillConfig, seed: int) -> list[Member]:
    """The baselines that a seed's audit names: its own, then the other seeds', then further ones."""
    found = [member for member in members(config) if member.is_baseline]
    return sorted(found, key=lambda member: (member.name != member.student.name, member.seed != seed))


def order_of(config: DistillConfig, name: str, seed: int) -> int | None:
    """Seed of the order in which a model reads its rows, where it is not that of its other random choices."""
    return drawn(seed, name) if config.training.order == "own" else None


def drawn(seed: int, name: str) -> int:
    """A seed of 32 bits for a model of its own: equal for equal seed and name."""
    return int.from_bytes(sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _further(config: DistillConfig, student: BaselineStudent) -> list[Member]:
    seed = config.seeds[0]
    missing = max(0, student.count - len(config.seeds))
    return [
        Member(name, student, seed, drawn(seed, name)) for name in islice(_names(config, student), missing)
    ]


def _names(config: DistillConfig, student: BaselineStudent) -> Iterator[str]:
    """NAME-2, NAME-3 and so on, without those that students have."""
    taken = {one.name.lower() for one in config.students}
    numbered = (f"{student.name}-{number}" for number in count(2))
    return (name for name in numbered if name.lower() not in taken)
