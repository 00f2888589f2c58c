"""Two audits of one corpus: what is new, gone and remains, paired rates, pages, and what is refused."""

from __future__ import annotations

import json
import math
import stat
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from compared_runs import Text, write_run
from report_page import Page
from sample_results import HOSTILE
from toys import kdaudit

import kdaudit as package
from kdaudit.analysis.accepted import hash_of
from kdaudit.analysis.joined import RunExamples, join
from kdaudit.analysis.paired import holm
from kdaudit.errors import RunStateError
from kdaudit.pipelines import compare as compare_module
from kdaudit.reporting.compared_words import is_difference
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import EXAMPLES_SCHEMA
from kdaudit.runs.files import sha256_file

TEXTS = [Text(number, f"doc-{number // 3}") for number in range(30)]
OLD = {"teacher": {*range(12)}, "baseline": {1, 2}, "soft": {1, 2, 3, 4}, "hard": {5}}
NEW = {"teacher": {*range(12)}, "baseline": {1, 2}, "soft": {1, 2, 3, 8, 9}, "hard": {5, 8}}


def pair(folder: Path, **changes: Any) -> tuple[Path, Path]:
    old = write_run(folder / "old", TEXTS, OLD, weights={"soft": "s1", "hard": "h1"})
    new = write_run(folder / "new", TEXTS, NEW, weights={"soft": "s2", "hard": "h2"}, **changes)
    return old, new


def list_files(run: Path, inputs: dict[str, str]) -> None:
    """Write a manifest, which names the run's inputs and what its results are."""
    files = {name: sha256_file(run / name) for name in (layout.RESULTS, layout.LEAKS)}
    manifest = {
        "name": "x", "created": "", "environment": {}, "batch_plan": {"shard_rows": 4},
        "inputs": inputs, "files": files,
    }  # fmt: skip
    (run / layout.MANIFEST).write_text(json.dumps(manifest))


def changes_of(results: Any) -> dict[tuple[str, str], set[int | None]]:
    """Example ids by change and student: the new run's, or the old one's of what is gone."""
    found: dict[tuple[str, str], set[int | None]] = {}
    for one in results.leaks:
        for student in one.students:
            example = one.old_example_id if one.change == "gone" else one.example_id
            found.setdefault((one.change, student), set()).add(example)
    return found


def test_leaks_are_new_gone_or_remain_by_student(tmp_path: Path) -> None:
    results = package.compare(*pair(tmp_path))
    assert changes_of(results) == {
        ("new", "soft"): {8, 9}, ("gone", "soft"): {4}, ("remaining", "soft"): {1, 2, 3},
        ("new", "hard"): {8}, ("remaining", "hard"): {5},
    }  # fmt: skip
    soft = results.counts["soft"]
    assert (soft.new, soft.gone, soft.remaining, soft.added, soft.dropped, soft.not_accepted) == (
        2,
        1,
        3,
        0,
        0,
        2,
    )
    assert (results.new_leaks, results.not_accepted) == (2, 2), "one leak of two students is one"
    rates = results.models["soft"].attacks["greedy"]
    assert (rates.examples, rates.old, rates.new, rates.both, rates.old_only, rates.new_only) == (
        30,
        4,
        5,
        3,
        1,
        2,
    )
    assert rates.difference == pytest.approx(1 / 30)
    assert results.models["teacher"].same_weights is True
    assert results.models["soft"].same_weights is False


def test_a_corpus_that_grew_is_joined_by_its_examples_wherever_they_stand(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", TEXTS[:20], OLD, rows=7)
    later = [one._replace(tail=98) for one in TEXTS[2:]]  # other windows of the same prefix and suffix
    grown = [Text(100 + number) for number in range(9)] + later
    new = write_run(tmp_path / "new", grown, {**NEW, "soft": NEW["soft"] | {101}}, rows=5)
    results = package.compare(old, new)
    assert results.shared is not None
    assert (results.shared.both, results.shared.old_only, results.shared.new_only) == (18, 2, 19)
    numbers = {place: text.number for place, text in enumerate(grown)}
    fresh = {numbers[one.example_id]: one.added for one in results.leaks if one.change == "new"}  # type: ignore[index]
    assert fresh == {8: False, 9: False, 101: True}
    soft = results.counts["soft"]
    assert (soft.new, soft.added, soft.gone, soft.dropped, soft.remaining) == (2, 1, 1, 1, 2)
    rates = results.models["soft"].attacks["greedy"]
    assert (rates.examples, rates.old, rates.new) == (18, 3, 4), "rates are of the examples of both"


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_sets(tmp_path: Path, seed: int) -> None:
    """Oracle: every example is looked up by its number, one by one."""
    random = np.random.default_rng(seed)
    numbers = random.permutation(40)
    sides = [
        [Text(int(n), f"d{int(n) % 5}") for n in part]
        for part in (numbers[:32], random.permutation(numbers[4:]))
    ]
    said = [
        {name: {int(n) for n in numbers if random.random() < 0.4} for name in ("teacher", "one", "two")}
        for _ in sides
    ]
    runs = [
        write_run(
            tmp_path / str(place), texts, models, rows=int(random.integers(1, 9)), weights={"one": str(place)}
        )
        for place, (texts, models) in enumerate(zip(sides, said, strict=True))
    ]
    results = package.compare(*runs)
    there = [{text.number for text in texts} for texts in sides]
    for name in ("one", "two"):
        old, new = (
            {n for n in models[name] if n in known} for models, known in zip(said, there, strict=True)
        )
        counts = results.counts[name]
        assert counts.new == len([n for n in new if n not in old and n in there[0]])
        assert counts.added == len([n for n in new if n not in there[0]])
        assert counts.gone == len([n for n in old if n not in new and n in there[1]])
        assert counts.dropped == len([n for n in old if n not in there[1]])
        assert counts.remaining == len(old & new)
        rates = results.models[name].attacks["greedy"]
        both = there[0] & there[1]
        table = (len(old & new & both), len((old - new) & both), len((new - old) & both))
        assert (rates.both, rates.old_only, rates.new_only) == table
        assert rates.examples == len(both)
        assert rates.mcnemar_p == pytest.approx(_mcnemar(*table[1:]))


def _mcnemar(one: int, other: int) -> float:
    """Two-sided: all splits of the changed pairs that are no likelier than this one, coin by coin."""
    total = one + other
    ways = [math.comb(total, k) for k in range(total + 1)]
    return min(1.0, sum(way for way in ways if way <= ways[one]) / 2**total)


def _rejected(p_values: list[float], level: float) -> list[bool]:
    """Holm's steps: the smallest p is held against level / m, the next level / (m - 1), and so on."""
    left, rejected = sorted(range(len(p_values)), key=lambda place: p_values[place]), set()
    while left and p_values[left[0]] <= level / len(left):
        rejected.add(left.pop(0))
    return [place in rejected for place in range(len(p_values))]


def test_holm_rejects_what_its_steps_do() -> None:
    random = np.random.default_rng(3)
    for level in (0.005, 0.03, 0.05, 0.1, 0.5) * 10:
        p_values = random.choice([0.001, 0.01, 0.02, 0.04, 0.2, 0.9], size=4).tolist()
        assert [p <= level for p in holm(p_values)] == _rejected(p_values, level)


def test_near_verbatim_is_compared_where_both_ran_it_alike(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", TEXTS, OLD, near={"soft": {1, 2, 20}, "hard": {5}})
    new = write_run(tmp_path / "new", TEXTS, NEW, near={"soft": {1, 2, 21, 22}})
    results = package.compare(old, new)
    rates = results.models["soft"].attacks["near_verbatim"]
    assert (rates.old, rates.new, rates.both) == (3, 4, 2)
    assert set(results.models["hard"].attacks) == {"greedy"}
    other = write_run(tmp_path / "other", TEXTS, NEW, near={"soft": {1}}, edits=0.2)
    refused = package.compare(old, other)
    assert set(refused.models["soft"].attacks) == {"greedy"}
    assert [note.subject for note in refused.notes if note.code == "attack_not_compared"] == ["soft"]


def test_runs_without_examples_are_compared_by_their_leaks(tmp_path: Path) -> None:
    old, new = pair(tmp_path, schema_version="1", examples=False)
    results = package.compare(old, new)
    assert results.shared is None
    assert changes_of(results)["new", "soft"] == {8, 9}
    assert results.models["soft"].attacks == {}
    assert "leaks_alone" in {note.code for note in results.notes}
    assert (results.counts["soft"].new, results.counts["soft"].added) == (2, 0), "one corpus: both audited it"


def test_the_same_weights_with_other_outcomes_are_noted(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", TEXTS, OLD)
    new = write_run(tmp_path / "new", TEXTS, {**NEW, "teacher": {*range(11)}})
    notes = {note.subject for note in package.compare(old, new).notes if note.code == "same_weights_differ"}
    assert notes == {"teacher", "soft", "hard"}


def test_students_are_paired_by_name_or_as_the_only_ones(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", TEXTS, {"teacher": {1}, "v1": {1, 2}})
    new = write_run(tmp_path / "new", TEXTS, {"teacher": {1}, "v2": {1, 3}})
    results = package.compare(old, new)
    assert results.models["v2"].old_name == "v1"
    assert changes_of(results) == {("new", "v2"): {3}, ("gone", "v2"): {2}, ("remaining", "v2"): {1}}
    third = write_run(tmp_path / "third", TEXTS, {"teacher": {1}, "v2": {1}, "extra": {4}})
    both = package.compare(new, third)
    assert set(both.counts) == {"v2"}
    assert [note.subject for note in both.notes if note.code == "no_counterpart"] == ["extra"]


def accepted(*leaks: int, until: str = "2031-01-01") -> dict[str, Any]:
    entry = {"row": 1, "reason": "known", "until": until, "leaks": list(leaks)}
    return {
        "day": "2026-01-01", "entries": 1, "matched": 1, "leaks": len(leaks), "in_force": [entry],
        "expired": [], "unmatched": [], "over_broad": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("known", "code"),
    [(accepted(8, 9), 0), (accepted(8), 1), (accepted(8, 9, until="2020-01-01"), 1), (None, 1)],
)
def test_the_exit_code_is_1_with_new_leaks_that_are_not_accepted(
    tmp_path: Path, known: dict[str, Any] | None, code: int
) -> None:
    pair(tmp_path, **({} if known is None else {"accepted": known}))
    done = kdaudit("compare", "old", "new", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert "8, 9" in done.stdout or code == 0 or known == accepted(8)
    same = kdaudit("compare", "new", "old", "--json", cwd=tmp_path)
    assert same.returncode == 1, "what is gone one way is new the other"


def test_the_file_of_the_new_run_counts_as_it_is_now(tmp_path: Path) -> None:
    old, new = pair(tmp_path)
    key = bytes(range(32))
    (tmp_path / "accepted.key").write_text(key.hex())
    (tmp_path / "accepted.yaml").write_text(
        "".join(
            f"- {{example: {hash_of(key, one.prefix, one.suffix)}, reason: known, until: 2031-01-01}}\n"
            for one in TEXTS[8:10]
        )
    )
    students = "[{name: soft, path: ./s}, {name: hard, path: ./h}]"
    (new / layout.CONFIG).write_text(
        f"name: x\ncorpus: ./c.jsonl\nmodels: {{teacher: ./t, students: {students}}}\n"
        f"gate: {{accept: {tmp_path / 'accepted.yaml'}}}\n"
    )
    assert package.compare(old, new).not_accepted == 0
    (tmp_path / "accepted.yaml").write_text("")
    assert package.compare(old, new).not_accepted == 2
    (tmp_path / "accepted.yaml").unlink()
    assert package.compare(old, new).not_accepted == 2


def test_no_difference_is_never_said_without_what_could_have_been_seen(tmp_path: Path) -> None:
    write_run(tmp_path / "old", TEXTS, OLD)
    write_run(
        tmp_path / "new", TEXTS, {**OLD, "soft": OLD["soft"] - {4}}, weights={"soft": "s2", "hard": "h2"}
    )
    done = kdaudit("compare", "old", "new", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    pages = [(tmp_path / "compared" / "old-new" / name).read_text() for name in layout.COMPARE_FILES[1:]]
    for text in (done.stdout, *(Page(one).text for one in pages)):
        assert text.count("no difference found") >= 2
        assert text.count("The interval excludes a rise of more than") == 2
        assert text.count("could not have been shown") == 2
        assert "may newly leak" in text
        assert "outcomes in both" in text
        assert "teacher and baseline" in text
        assert text.count("The weights are the same") == 0
    assert "acme-1.4b-release, old -> new: " in done.stdout, "one name: the folders tell them apart"
    for page in map(Page, pages):
        assert page.text.count("acme-1.4b-release") == 2, "title and heading, once each"
        assert "Old: 2026-01-30 14:05, " in page.text, "one day: the hour tells them apart"
    few = [Text(number) for number in range(4)]
    write_run(tmp_path / "a", few, {"soft": {1}}, weights={"soft": "a"})
    write_run(tmp_path / "b", few, {"soft": {1, 2}}, weights={"soft": "b"})
    assert (
        "so few examples (4) could show no difference at all"
        in kdaudit("compare", "a", "b", cwd=tmp_path).stdout
    )


def test_a_difference_is_shown_where_the_sample_shows_it(tmp_path: Path) -> None:
    many = [Text(number, f"d{number}") for number in range(400)]
    write_run(tmp_path / "old", many, {"soft": {1}}, weights={"soft": "a"})
    write_run(tmp_path / "new", many, {"soft": {*range(1, 40)}}, weights={"soft": "b"})
    done = kdaudit("compare", "old", "new", cwd=tmp_path)
    assert ": more\n" in done.stdout
    assert "no difference found" not in done.stdout


def words_of(texts: list[str]) -> set[str]:
    return {text[at : at + 8] for text in texts for at in range(max(1, len(text) - 7))}


def test_pages_are_harmless_and_the_public_one_holds_no_text(tmp_path: Path) -> None:
    secret = "marzipan quokkas juggle zeppelins behind obelisks"

    class Hostile(Text):
        @property
        def prefix(self) -> str:
            return f"{secret} {HOSTILE[self.number % len(HOSTILE)]}"

        suffix = prefix

    texts = [Hostile(number, f"/home/owner/{HOSTILE[number % len(HOSTILE)]}") for number in range(12)]
    names = {"teacher": set(), "a<b": {1, 2, 3}}
    write_run(tmp_path / "old", texts, names, name="/home/owner/<script>", tags={5: ["email"]})
    fresh = {**names, "a<b": {*range(4, 12)}}
    write_run(tmp_path / "new", texts, fresh, name=HOSTILE[0], tags={5: ["email"], 6: [HOSTILE[4][:50]]})
    done = kdaudit("compare", "old", "new", "--out", "out", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    full, public = (
        (tmp_path / "out" / name) for name in (layout.COMPARE_REPORT, layout.PUBLIC_COMPARE_REPORT)
    )
    assert (
        stat.S_IMODE(full.stat().st_mode)
        == stat.S_IMODE((tmp_path / "out" / layout.COMPARISON).stat().st_mode)
        == 0o600
    )
    for page in (full, public):
        text = page.read_text()
        assert "<script" not in text
        assert "onerror=" not in text.replace("onerror=alert", "") or page == full
        assert {tag for tag, _ in Page(text).tags} & {"script", "img", "iframe", "link"} == set()
    shown = public.read_text()
    assert secret in full.read_text()
    assert not words_of([secret]) & words_of([shown])
    for private in ("/home", "owner", "e-mail"):
        assert private not in shown
    for text in (*HOSTILE[1:3], HOSTILE[4], HOSTILE[6]):
        assert text not in shown


def test_json_is_one_document_with_what_the_files_hold(tmp_path: Path) -> None:
    pair(tmp_path)
    done = kdaudit("compare", "old", "new", "--json", "--out", "out", cwd=tmp_path)
    values = json.loads(done.stdout)
    assert values == json.loads((tmp_path / "out" / layout.COMPARISON).read_text())
    assert values["counts"]["soft"]["new"] == 2
    assert {one["key"] for one in values["differences"]} >= {"models.soft", "models.hard"}
    for text in TEXTS:
        assert text.suffix not in done.stdout, "the JSON holds no training text"


def _other_prefix(folder: Path) -> None:
    data = json.loads((folder / "new" / layout.RESULTS).read_text())
    data["extraction"]["prefix_tokens"] = 50
    (folder / "new" / layout.RESULTS).write_text(json.dumps(data))


def _lose_a_shard(folder: Path) -> None:
    (folder / "new" / layout.shard(layout.EXAMPLES, 1)).unlink()


def _lose_an_outcome(folder: Path) -> None:
    (folder / "new" / layout.shard(layout.extraction("soft"), 0)).unlink()


def _damage(name: str) -> Any:
    return lambda folder: (folder / "new" / name).write_bytes(b"damaged")


def _other_corpus(folder: Path) -> None:
    write_run(folder / "other", [Text(number + 500) for number in range(30)], NEW)


def _few_in_common(folder: Path) -> None:
    texts = [*TEXTS[:3], *(Text(number + 500) for number in range(27))]
    write_run(folder / "other", texts, NEW)


def _other_leaks(folder: Path) -> None:
    corpus = {**json.loads((folder / "new" / layout.RESULTS).read_text())["corpus"], "fingerprint": "other"}
    write_run(folder / "other", TEXTS, NEW, examples=False, corpus=corpus)


def _other_names(folder: Path) -> None:
    write_run(folder / "other", TEXTS, {"teacher": {1}, "x": {1}, "y": {2}})


def _retype(
    name: str, column: str, values: Callable[[int], pa.Array] = lambda rows: pa.array(["x"] * rows)
) -> Callable[[Path], None]:
    """Put other values in a column of a shard of the new run."""

    def change(folder: Path) -> None:
        path = folder / "new" / name
        table = pq.read_table(path)
        place = table.schema.get_field_index(column)
        pq.write_table(table.set_column(place, column, values(len(table))), path)

    return change


def _others_file(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / layout.COMPARISON).write_text("mine")


FLAGS = layout.shard(layout.extraction("soft"), 0)
WRONG = {
    "no such run": (["old", "nowhere"], None),
    "one run": (["old"], None),
    "three runs": (["old", "new", "new"], None),
    "itself": (["old", "old"], None),
    "itself by another way": (["old", "new/../old"], None),
    "a file": (["old", "file"], lambda folder: (folder / "file").write_text("x")),
    "an empty folder": (["old", "empty"], lambda folder: (folder / "empty").mkdir()),
    "an unfinished run": (["old", "new"], lambda folder: (folder / "new" / layout.RESULTS).unlink()),
    "damaged results": (["old", "new"], _damage(layout.RESULTS)),
    "no leaks": (["old", "new"], lambda folder: (folder / "new" / layout.LEAKS).unlink()),
    "damaged leaks": (["old", "new"], _damage(layout.LEAKS)),
    "damaged examples": (["old", "new"], _damage(layout.shard(layout.EXAMPLES, 0))),
    "damaged outcomes": (["old", "new"], _damage(layout.shard(layout.extraction("soft"), 1))),
    "flags of another type": (
        ["old", "new"],
        _retype(FLAGS, "memorized"),
    ),
    "tokens of another type": (["old", "new"], _retype(layout.shard(layout.EXAMPLES, 0), "token_ids")),
    "flags without values": (
        ["old", "new"],
        _retype(FLAGS, "memorized", pa.nulls),
    ),
    "out below a file": (
        ["old", "new", "--out", "file/out"],
        lambda folder: (folder / "file").write_text("x"),
    ),
    "a file of others in its place": (["old", "new", "--out", "out"], _others_file),
    "a folder in its place": (
        ["old", "new", "--out", "out"],
        lambda folder: (folder / "out" / layout.PUBLIC_COMPARE_REPORT).mkdir(parents=True),
    ),
    "a lost shard": (["old", "new"], _lose_a_shard),
    "a lost outcome": (["old", "new"], _lose_an_outcome),
    "another prefix": (["old", "new"], _other_prefix),
    "another corpus": (["old", "other"], _other_corpus),
    "boilerplate in common": (["old", "other"], _few_in_common),
    "another corpus by its leaks": (["old", "other"], _other_leaks),
    "other students": (["old", "other"], _other_names),
    "out is a run": (["old", "new", "--out", "old"], None),
    "out lies in a run": (
        ["old", "new", "--out", "old/compared"],
        lambda folder: list_files(folder / "old", {}),
    ),
    "out is a file": (["old", "new", "--out", "file"], lambda folder: (folder / "file").write_text("x")),
    "out is a link": (
        ["old", "new", "--out", "link"],
        lambda folder: (folder / "link").symlink_to(folder / "old"),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_call_is_refused_with_a_remedy_and_nothing_is_lost(tmp_path: Path, name: str) -> None:
    pair(tmp_path)
    words, change = WRONG[name]
    if change is not None:
        change(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = kdaudit("compare", *words, cwd=tmp_path)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    assert ";" in done.stderr or "Usage:" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert "lies in a run directory" in done.stderr or name != "out lies in a run"


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("name", [layout.RESULTS, layout.LEAKS])
def test_a_run_whose_results_were_changed_is_refused(tmp_path: Path, which: int, name: str) -> None:
    runs = pair(tmp_path)
    for run in runs:
        list_files(run, {})
    package.compare(*runs)
    if name == layout.RESULTS:
        (runs[which] / name).write_text((runs[which] / name).read_text() + " ")
    else:
        pq.write_table(pq.read_table(runs[which] / name), runs[which] / name, compression="none")
    with pytest.raises(RunStateError, match=f"{name}: was changed since the run wrote it"):
        package.compare(*runs)


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    old, new = pair(tmp_path)
    for number, run in enumerate((old, new)):
        list_files(run, {"models.teacher.path (its tokenizer)": f"sha256:{number}"})
    with pytest.raises(RunStateError, match="another tokenizer"):
        package.compare(old, new)


def test_models_of_an_earlier_version_are_known_by_name(tmp_path: Path) -> None:
    """It named a student's inputs by its place."""
    old, new = pair(tmp_path)
    students = {"models.students.0.name": "soft", "models.students.0.path (its tokenizer)": "sha256:0"}
    for run, inputs in ((old, students), (new, {"models.soft.path (its tokenizer)": "sha256:0"})):
        list_files(run, inputs)
    keys = {one.key for one in package.compare(old, new).differences}
    assert not {key for key in keys if "tokenizer" in key or key.endswith(".name")}


def test_documents_are_those_of_the_new_run() -> None:
    """They are the unit of the intervals, and the new run is what these speak of."""
    old = RunExamples(np.array([b"a.", b"b.", b"c."]), np.array([1, 1, 1]))
    new = RunExamples(np.array([b"x.", b"c.", b"a."]), np.array([5, 6, 7]))
    joined = join(old, new)
    assert [*zip(joined.old, joined.new, joined.documents, strict=True)] == [(0, 2, 7), (2, 1, 6)]


def test_tests_are_adjusted_for_models_whose_weights_changed_alone(tmp_path: Path) -> None:
    many = [Text(number, f"d{number}") for number in range(60)]
    names = {"teacher": {1, 2}, "baseline": {2}, "soft": {1}}
    old = write_run(tmp_path / "old", many, names, weights={"soft": "a"})
    new = write_run(tmp_path / "new", many, {**names, "soft": {*range(1, 9)}}, weights={"soft": "b"})
    soft = package.compare(old, new).models["soft"].attacks["greedy"]
    assert soft.holm_p == soft.mcnemar_p == pytest.approx(2 / 2**7)
    assert is_difference(soft)
    assert is_difference(package.compare(new, old).models["soft"].attacks["greedy"]), "and so is a fall"
    assert not is_difference(soft.model_copy(update={"holm_p": 0.06})), "the adjusted p decides"


def test_weights_behind_an_endpoint_are_not_known_to_be_the_same(tmp_path: Path) -> None:
    served = {"soft": "endpoint:http://localhost:1/v1"}
    old = write_run(tmp_path / "old", TEXTS, OLD, weights=served)
    new = write_run(tmp_path / "new", TEXTS, NEW, weights=served)
    assert package.compare(old, new).models["soft"].same_weights is None


def test_a_name_that_has_another_role_is_not_compared(tmp_path: Path) -> None:
    old, new = pair(tmp_path)
    data = json.loads((old / layout.RESULTS).read_text())
    data["models"]["baseline"]["role"] = "base"
    (old / layout.RESULTS).write_text(json.dumps(data))
    assert set(package.compare(old, new).models) == {"teacher", "soft", "hard"}


@pytest.mark.parametrize(("texts", "noted"), [(TEXTS, False), (TEXTS[:20], True)])
def test_samples_of_other_examples_are_noted(tmp_path: Path, texts: list[Text], noted: bool) -> None:
    old = write_run(tmp_path / "old", TEXTS, OLD)
    corpus = {**json.loads((old / layout.RESULTS).read_text())["corpus"], "sampled": True}
    new = write_run(tmp_path / "new", texts, NEW, corpus=corpus)
    codes = {note.code for note in package.compare(old, new).notes}
    assert ("other_sample" in codes) == noted


@pytest.mark.parametrize(("today", "left"), [(date(2031, 1, 1), 0), (date(2031, 1, 2), 2)])
def test_leaks_are_accepted_up_to_the_last_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, today: date, left: int
) -> None:
    monkeypatch.setattr(compare_module, "today", lambda: today)
    assert package.compare(*pair(tmp_path, accepted=accepted(8, 9))).not_accepted == left


def test_without_examples_other_samples_leave_open_what_was_added(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", TEXTS, OLD, examples=False)
    new = write_run(tmp_path / "new", TEXTS, NEW, examples=False, seed=77)
    soft = package.compare(old, new).counts["soft"]
    assert (soft.new, soft.added, soft.gone, soft.dropped, soft.remaining) == (2, None, 1, None, 3)


def test_equal_tokens_that_are_cut_elsewhere_are_another_example(tmp_path: Path) -> None:
    """What a model is asked to complete is another text then, and its outcome another."""
    old, new = pair(tmp_path)
    path = new / layout.shard(layout.EXAMPLES, 0)
    table = pq.read_table(path)
    for name, lengths in (("prefix_tokens", [3, 2, 2, 2]), ("suffix_tokens", [2, 3, 3, 3])):
        table = table.append_column(EXAMPLES_SCHEMA.field(name), pa.array(lengths, pa.int32()))
    pq.write_table(table, path)
    shared = package.compare(old, new).shared
    assert shared is not None
    assert (shared.both, shared.old_only, shared.new_only) == (29, 1, 1)
