"""Settings, versions and models that differ between two runs.

They come from what the runs recorded: results.json, manifest.json and config.yaml, as far as they are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, RunStateError, StorageError
from kdaudit.runs import layout
from kdaudit.runs.inputs import by_name
from kdaudit.runs.manifest import Manifest, read_manifest
from kdaudit.schemas.compared import Difference
from kdaudit.schemas.results import AuditResults

_SECTIONS = ("gate", "attacks", "predictor", "report")
"""Of config.yaml: what a run's inputs do not record."""
_UNSET = ("None", "False")
"""Inputs as runs record a setting that was not made: others do not name it at all."""
_LONGEST = 200
_TOKENIZER = "path (its tokenizer)"


def differences(old_dir: Path, new_dir: Path, old: AuditResults, new: AuditResults) -> list[Difference]:
    """Each key whose value differs, the results' first; a value that one run lacks is `none`."""
    then, now = _values(old_dir, old), _values(new_dir, new)
    keys = dict.fromkeys([*now, *then])
    return [
        Difference(key=key, old=then.get(key, "none"), new=now.get(key, "none"))
        for key in keys
        if then.get(key) != now.get(key)
    ]


def _values(run_dir: Path, results: AuditResults) -> dict[str, str]:
    own: dict[str, Any] = {"kdaudit": results.kdaudit_version, "seed": results.seed}
    own |= {f"corpus.{key}": getattr(results.corpus, key) for key in ("fingerprint", "documents", "examples")}
    own |= {f"extraction.{key}": value for key, value in results.extraction.model_dump().items()}
    for name, model in results.models.items():
        own[f"models.{name}"] = model.fingerprint
        own[f"models.{name}.quantization"] = model.quantization
    others = _recorded(run_dir) | _configured(run_dir)
    found = own | {key: value for key, value in others.items() if key not in own}
    return {key: _short(value) for key, value in found.items() if value is not None}


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _recorded(run_dir: Path) -> dict[str, str]:
    """Versions, hardware and inputs, but for those that the results have too."""
    manifest = _manifest(run_dir)
    if manifest is None:
        return {}
    inputs = {
        key: value
        for key, value in by_name(manifest.inputs).items()
        if not key.endswith("(its content)") and value not in _UNSET
    }
    return {**manifest.environment, **inputs}


def _manifest(run_dir: Path) -> Manifest | None:
    try:
        return read_manifest(run_dir)
    except (RunStateError, StorageError):
        return None


def tokenizer_fingerprint_of(run_dir: Path) -> str | None:
    """The fingerprint of the tokenizer that cut a run's examples; None if the run does not say."""
    manifest = _manifest(run_dir)
    inputs = {} if manifest is None else manifest.inputs
    own = inputs.get(f"models.{layout.TEACHER}.{_TOKENIZER}")
    return own or inputs.get("models (whose tokenizer cuts the texts)")


def _configured(run_dir: Path) -> dict[str, Any]:
    """Sections of the configuration with defaults: an older file differs only where it says so."""
    try:
        config = load_audit(run_dir / layout.CONFIG)
    except ConfigError:
        return {}
    values = config.model_dump(mode="json", include={*_SECTIONS})
    return {f"{section}.{key}": value for section in values for key, value in _flat(values[section])}


def _flat(section: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = []
    for key, value in section.items():
        inner = _flat(value) if isinstance(value, dict) else None
        found += [(key, value)] if inner is None else [(f"{key}.{name}", one) for name, one in inner]
    return found
