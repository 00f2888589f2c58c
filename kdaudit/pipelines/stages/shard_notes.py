"""What a shard says of how it was made, in the metadata of its schema: engine, seconds, settings."""

from __future__ import annotations

import pyarrow as pa

from kdaudit.inference import EngineInfo


def shard_notes(engine: EngineInfo, seconds: float, **settings: str) -> dict[str, str]:
    """Metadata of a shard.

    Args:
        engine: what ran the model.
        seconds: time inside the engine's process.
        settings: what else the shard depends on, by name.

    """
    return {**engine._asdict(), "seconds": repr(seconds), **settings}


def engine_of(shard: pa.Table) -> EngineInfo:
    """What ran the model."""
    notes = shard.schema.metadata
    return EngineInfo(*(notes[name.encode()].decode() for name in EngineInfo._fields))


def seconds_of(shard: pa.Table) -> float:
    """Time inside the engine's process."""
    return float(shard.schema.metadata[b"seconds"])


def setting_of(shard: pa.Table, name: str) -> str | None:
    """What a shard notes under a name; None if it notes nothing."""
    setting: bytes | None = shard.schema.metadata.get(name.encode())
    return None if setting is None else setting.decode()
