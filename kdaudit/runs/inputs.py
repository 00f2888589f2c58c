"""What a run was made from, by configuration key, and which of its files depend on which key.

Keys are of four parts. `models.NAME.KEY` is about one model, but the teacher, whose tokens all others are
measured on; `holdout.KEY`, `generated.KEY` and `attacks.canaries.KEY` about these texts; `vocabulary`
about the logits that all models share. All other keys are about the whole run: another corpus or extraction
makes every figure another.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import RunStateError
from kdaudit.runs import layout

Inputs = Mapping[str, str]

VOCABULARY = "vocabulary"
_A_FILE_EACH = (
    layout.CONTINUATIONS,
    layout.ENGINE_CHECK,
    layout.PERPLEXITY,
    layout.ENTROPY,
    layout.NEARNESS,
)
"""Folders that hold a file for each model."""
_WHOLE = ""
_MODEL = re.compile(r"models\.(.+)\.(path \(.*\)|[a-z_]+)")
_NAMED_BY_PLACE = re.compile(r"(models\..+)\.name")
"""Of earlier versions, whose keys had a model's place in the configuration and not its name."""


class Stale(NamedTuple):
    """What a change of inputs makes useless."""

    files: list[str]
    stages: list[str]
    """Finished ones whose files are gone."""
    again: list[str]
    """Finished ones that have more to do; what they wrote stays."""
    plans: list[str]


class State(NamedTuple):
    """What a run holds."""

    inputs: Inputs
    files: Collection[str]
    stages: Collection[str]
    """Begun or finished."""
    plans: Collection[str]


def by_name(inputs: Inputs) -> dict[str, str]:
    """The inputs with models under their names, as an earlier version may not have recorded them."""
    keys = {key: _NAMED_BY_PLACE.fullmatch(key) for key in inputs}
    names = {place[1]: inputs[key] for key, place in keys.items() if place is not None}
    found = {}
    for key, value in inputs.items():
        where = next((one for one in names if key.startswith(f"{one}.")), None)
        if where is None:
            found[key] = value
        elif key != f"{where}.name":
            found[f"models.{names[where]}{key.removeprefix(where)}"] = value
    return found


def starts_again(run: State, now: Inputs) -> bool:
    """Whether a run is of no use with other inputs: all would be another, and nothing was measured yet."""
    return bool(_changed(run.inputs, now).get(_WHOLE)) and not any(map(layout.is_measurement, run.files))


def stale(folder: Path, run: State, now: Inputs) -> Stale:
    """What of a run does not hold with other inputs.

    Args:
        folder: the run directory, for messages.
        run: what it holds.
        now: the inputs now.

    Raises:
        RunStateError: what was measured would be of another corpus, extraction or model than is named now.

    """
    changed = _changed(run.inputs, now)
    if VOCABULARY not in run.inputs and _parts(run.inputs) == _parts(now) - {VOCABULARY}:
        changed.pop(VOCABULARY, None)  # an earlier version did not record it; its models are these
    refused = list(changed.pop(_WHOLE, []))
    for part in [*changed]:
        model = part.removeprefix("models.")
        kept = part in _parts(run.inputs) and part in _parts(now)
        if part not in (*layout.SIDE_TEXTS, VOCABULARY) and kept and _is_measured(model, run.files):
            refused += changed.pop(part)
    if refused:
        raise _refusal(folder, run.inputs, now, sorted(refused))
    patterns = {part: _dependents(part) for part in changed}
    return Stale(
        files=[name for name in run.files if any(one.fullmatch(name) for one in patterns.values())],
        stages=[name for name in run.stages if any(one.fullmatch(name) for one in patterns.values())],
        again=[
            name
            for name in run.stages
            if any(text in changed and text in _parts(now) for text in layout.SIDE_TEXTS)
            and name.startswith((f"{layout.EXTRACTION}/", f"{layout.ATTACKS}/"))
        ],
        plans=[f"{part.removeprefix('models.')}.sequences" for part in changed if part.startswith("models.")],
    )


def _part(key: str) -> str:
    if key == VOCABULARY:
        return VOCABULARY
    side = next((text for text, own in layout.SIDE_TEXTS.items() if key.startswith(f"{own}.")), None)
    if side is not None:
        return side
    model = _MODEL.fullmatch(key)
    return _WHOLE if model is None or model[1] == layout.TEACHER else f"models.{model[1]}"


def _parts(inputs: Inputs) -> set[str]:
    return {_part(key) for key in inputs}


def _changed(before: Inputs, now: Inputs) -> dict[str, list[str]]:
    """Keys whose values differ, by their part."""
    found: dict[str, list[str]] = {}
    for key in {*before, *now}:
        if before.get(key) != now.get(key):
            found.setdefault(_part(key), []).append(key)
    return found


def _dependents(part: str) -> re.Pattern[str]:
    """Names of the files and stages that are of a part of the inputs."""
    if part == layout.HOLDOUT:
        return re.compile(rf"{part}(/.*)?|{layout.PERPLEXITY}/.*\.json")
    if part in layout.SIDE_TEXTS:
        return re.compile(rf"({part}|{re.escape(layout.SIDE_TEXTS[part])})(/.*)?")
    if part == VOCABULARY:
        sides = "|".join(layout.SIDE_TEXTS)
        scores = rf"(({sides})/)?{layout.SCORES}/.*"
        return re.compile(rf"{layout.FEATURES}(/.*)?|{layout.ENTROPY}/.*\.parquet|{scores}")
    name, sides = re.escape(part.removeprefix("models.")), "|".join(layout.SIDE_TEXTS)
    keys = "|".join(map(re.escape, layout.SIDE_TEXTS.values()))
    own = (
        rf"(({sides})/)?({layout.EXTRACTION}|{layout.ATTACKS}/[^/]+|{layout.SCORES})/{name}(/.*)?"
        rf"|(corpus|{keys})/{name}"
        rf"|({'|'.join(_A_FILE_EACH)})/{name}(\.parquet|\.json)?"
    )
    pair = rf"|{layout.FEATURES}(/.*)?|{re.escape(layout.entropy(layout.TEACHER))}"  # it is taken from there
    of_pair = pair if _is_scored(part.removeprefix("models.")) else ""
    return re.compile(own + of_pair)


def _is_scored(model: str) -> bool:
    """Whether features may be this model's: they are the teacher's and the first baseline's."""
    return model in ("baseline", "baseline-1")


def _is_measured(model: str, files: Iterable[str]) -> bool:
    of_pair = rf"|{layout.FEATURES}/.*" if _is_scored(model) else ""
    own = re.compile(rf"({layout.EXTRACTION}|{layout.ATTACKS}/[^/]+)/{re.escape(model)}/.*{of_pair}")
    return any(own.fullmatch(name) for name in files)


def _refusal(folder: Path, before: Inputs, now: Inputs, changed: list[str]) -> RunStateError:
    key = changed[0]
    more = f" (also {', '.join(changed[1:])})" if len(changed) > 1 else ""
    students = all(_is_student(_part(one).removeprefix("models.")) for one in changed)
    kept = "give a changed student another name, to keep what was measured of the others, or "
    return RunStateError(
        f"{folder}: holds a run with another {key}: {_shown(before.get(key))} then, "
        f"{_shown(now.get(key))} now{more}",
        fix=f"{kept if students else ''}use --fresh to start again, or choose another --out",
    )


def _is_student(part: str) -> bool:
    """Whether a part of the inputs is one that the user names."""
    return part not in (_WHOLE, "base") and not re.fullmatch(r"baseline(-\d+)?", part)


def _shown(value: str | None) -> str:
    """A recorded value as YAML writes it."""
    return {None: "none", "None": "null", "True": "true", "False": "false"}.get(value) or str(value)
