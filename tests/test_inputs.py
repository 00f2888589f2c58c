"""Which files of a run hold no more when its inputs change; inputs as earlier versions recorded them."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdaudit.errors import RunStateError
from kdaudit.runs.inputs import Inputs, State, by_name, stale, starts_again

_CONTENT, _DTYPE = "path (its content)", "dtype"
INPUTS = {
    "seed": "0",
    "corpus.path (its content)": "c",
    "holdout.path (its content)": "h",
    "extraction.prefix_tokens": "50",
    "vocabulary": "300",
    **{f"models.{name}.{key}": name for name in ("teacher", "baseline", "a.b") for key in (_CONTENT, _DTYPE)},
}
FILES = [
    "config.yaml",
    "examples/part-00000.parquet",
    "holdout/examples/part-00000.parquet",
    *(
        file.format(name)
        for name in ("teacher", "baseline", "a.b", "a-b")
        for file in (
            "extraction/{}/part-00000.parquet",
            "holdout/extraction/{}/part-00000.parquet",
            "attacks/other/{}/part-00000.parquet",
            "continuations/{}.parquet",
            "engine_check/{}.parquet",
            "engine_check/{}.json",
            "perplexity/{}.json",
            "entropy/{}.parquet",
        )
    ),
    "features/part-00000.parquet",
    "results.json",
]
STAGES = ["corpus", "holdout", "holdout/a.b", "extraction/a.b", "extraction/teacher", "features", "results"]


def gone(
    now: Inputs, before: Inputs = INPUTS, files: list[str] = FILES
) -> tuple[set[str], set[str], set[str]]:
    found = stale(Path("run"), State(before, files, STAGES, []), now)
    return {*found.files}, {*found.stages}, {*found.again}


def without(part: str) -> dict[str, str]:
    return {key: value for key, value in INPUTS.items() if not key.startswith(part)}


def test_nothing_is_stale_where_nothing_changed() -> None:
    assert gone(INPUTS) == (set(), set(), set())


def test_a_removed_student_takes_its_own_files_and_no_others() -> None:
    files, stages, again = gone(without("models.a.b."))
    assert files == {name for name in FILES if "a.b" in name}
    assert stages == {"extraction/a.b", "holdout/a.b"}
    assert not again


def test_a_removed_baseline_takes_the_features_too() -> None:
    files, _, _ = gone(without("models.baseline."))
    of_pair = ("features/", "entropy/teacher.")  # a teacher's entropy is taken from the features
    assert files == {name for name in FILES if "baseline" in name or name.startswith(of_pair)}


def test_an_added_student_takes_nothing() -> None:
    assert gone({**INPUTS, "models.c.dtype": "auto"}) == (set(), set(), set())


@pytest.mark.parametrize("there", [False, True])
def test_a_changed_holdout_takes_what_was_measured_on_it(there: bool) -> None:
    now = {**INPUTS, "holdout.path (its content)": "other"} if there else without("holdout.")
    files, stages, again = gone(now)
    assert files == {name for name in FILES if name.startswith(("holdout/", "perplexity/"))}
    assert stages == {"holdout", "holdout/a.b"}
    assert again == ({"extraction/a.b", "extraction/teacher"} if there else set()), "they have it to measure"


def test_another_vocabulary_takes_what_is_over_all_its_logits() -> None:
    files, stages, _ = gone({**INPUTS, "vocabulary": "299"})
    assert files == {name for name in FILES if name.startswith(("features/", "entropy/"))}
    assert stages == {"features"}


@pytest.mark.parametrize("key", [f"models.a.b.{_DTYPE}", f"models.teacher.{_CONTENT}", "seed"])
def test_what_was_measured_otherwise_is_refused_by_name(key: str) -> None:
    with pytest.raises(RunStateError, match="holds a run with another") as refused:
        gone({**INPUTS, key: "new"})
    assert f"another {key}: {INPUTS[key]} then, new now" in str(refused.value)
    assert ("another name" in str(refused.value)) == ("a.b" in key)


@pytest.mark.parametrize("name", ["baseline", "baseline-2", "base"])
def test_only_a_student_can_be_given_another_name(name: str) -> None:
    before, file = {**INPUTS, f"models.{name}.dtype": "auto"}, f"extraction/{name}/part-00000.parquet"
    with pytest.raises(RunStateError, match="; use --fresh"):
        gone({**before, f"models.{name}.dtype": "float32"}, before, [*FILES, file])


def test_values_are_told_as_the_configuration_writes_them() -> None:
    with pytest.raises(RunStateError, match=r"another corpus\.limit: null then, 100 now"):
        gone({**INPUTS, "corpus.limit": "100"}, {**INPUTS, "corpus.limit": "None"})


def test_a_model_that_nothing_was_measured_of_may_change() -> None:
    unmeasured = [name for name in FILES if "extraction/a.b" not in name and "attacks/other/a.b" not in name]
    files, _, _ = gone({**INPUTS, f"models.a.b.{_CONTENT}": "new"}, files=unmeasured)
    assert files == {name for name in unmeasured if "a.b" in name}


def test_a_run_begins_again_where_all_changed_and_nothing_was_measured() -> None:
    other = {**INPUTS, "seed": "1"}
    assert starts_again(State(INPUTS, ["examples/part-00000.parquet"], [], []), other)
    assert not starts_again(State(INPUTS, FILES, [], []), other)
    assert not starts_again(State(INPUTS, [], [], []), {**INPUTS, "models.a.b.dtype": "float32"})


def test_inputs_of_earlier_versions_are_taken_by_the_models_names() -> None:
    places = {"teacher": "models.teacher", "baseline": "models.baseline.0", "a.b": "models.students.1"}
    old = {
        **{key: value for key, value in INPUTS.items() if not key.startswith(("models.", "vocab"))},
        **{f"{place}.{key}": name for name, place in places.items() for key in (_CONTENT, _DTYPE)},
        **{f"{place}.name": name for name, place in places.items()},
    }
    assert by_name(old) == without("vocabulary")
    assert by_name(INPUTS) == INPUTS
    assert gone(INPUTS, before=by_name(old)) == (set(), set(), set()), (
        "its vocabulary is that of these models"
    )
