"""The replication's split and its table; nothing is trained here."""

from __future__ import annotations

import json
import random
import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from sample_results import sample_dict

from kdaudit.config.yaml.loading import check_paths, load_distill
from kdaudit.errors import RunStateError

FOLDER = Path(__file__).parent.parent / "sample_configs" / "replication"
sys.path.insert(0, str(FOLDER))

import replicate as replication  # noqa: E402
from findings import Measure, as_json, measure_seeds, read_audit, table  # noqa: E402
from measures import MEASURES  # noqa: E402
from split import Sizes, recurring_shares, split, write_split  # noqa: E402

WORDS = [f"word{number}" for number in range(5000)]


def _documents() -> list[str]:
    """Forty documents of 60 random words; the first six share their last 30 words."""
    rng = random.Random(7)
    boilerplate = rng.choices(WORDS, k=30)
    own = [rng.choices(WORDS, k=60) for _ in range(40)]
    return [" ".join(words[:30] + boilerplate if row < 6 else words) for row, words in enumerate(own)]


def test_parts_are_disjoint_and_share_no_passage() -> None:
    documents = _documents()
    total = sum(map(len, documents))
    parts = split(documents, Sizes(recurring=total // 10, ordinary=total // 5, valid=total // 8, base=total))
    chosen = [*parts.base, *parts.train, *parts.valid]
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= set(documents)
    assert set(parts.base + parts.valid).isdisjoint(documents[:6])
    assert 0 < len(set(parts.train) & set(documents[:6])) < 6  # the cap holds some back, and they are nowhere
    assert sum(map(len, parts.valid)) <= total // 8


def test_the_split_depends_on_the_documents_alone() -> None:
    documents = _documents()
    sizes = Sizes(recurring=1000, ordinary=3000, valid=2000, base=5000)
    shuffled = [*documents, *documents[:3]]  # copies too
    random.Random(1).shuffle(shuffled)
    assert split(shuffled, sizes) == split(documents, sizes)


def test_one_document_more_moves_no_other() -> None:
    documents = _documents()
    sizes = Sizes(recurring=10**6, ordinary=0, valid=0, base=10**6)
    before, after = split(documents[:-1], sizes), split(documents, sizes)
    assert set(after.base) - set(before.base) == {documents[-1]}
    assert after.train == before.train


def test_shares_of_recurring_words_equal_a_count_by_hand() -> None:
    shared = WORDS[:25]
    documents = [
        " ".join(WORDS[100:175] + shared),  # 25 of 100 words
        " ".join(shared + WORDS[200:225]),  # 25 of 50
        " ".join(WORDS[300:310] + shared[:19] + WORDS[310:320]),  # 19 words are no passage
        " ".join([*WORDS[400:430], *WORDS[400:430]]),  # its own repetition is no other document's
        "short",
        "",
    ]
    assert recurring_shares(documents) == [0.25, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_parts_are_written_for_their_owner_alone(tmp_path: Path) -> None:
    parts = split(_documents(), Sizes(recurring=2000, ordinary=2000, valid=2000, base=2000))
    write_split(parts, tmp_path)
    for name, documents in parts._asdict().items():
        path = tmp_path / f"{name}.jsonl"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert [json.loads(line)["text"] for line in path.read_text().splitlines()] == documents


def test_the_configuration_is_valid_where_the_texts_and_bases_lie(tmp_path: Path) -> None:
    for name in ("train.jsonl", "valid.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}\n')
    for name in ("teacher", "student"):
        (tmp_path / "bases" / name).mkdir(parents=True)
    path = tmp_path / "distill.yaml"
    path.write_bytes((FOLDER / "distill.yaml").read_bytes())
    config = load_distill(path)
    check_paths(config)
    students = {student.name: student for student in config.students}
    assert {"baseline", "soft", "soft-t1", "soft-t4", "hard"} == set(students)
    temperatures = [students[name].model_dump()["temperature"] for name in ("soft-t1", "soft", "soft-t4")]
    assert temperatures == [1.0, 2.0, 4.0]


# Which of ten examples each model memorizes. Teacher-specific: 6, 7, 8, 9. Easy core: 0, 1, 2, 3.
MEMORIZED = {
    "teacher": [0, 1, 2, 3, 6, 7, 8, 9],
    "baseline": [0, 1, 2, 3, 4],
    "soft": [0, 1, 6],
    "hard": [0, 2, 6, 7, 8],
    "soft-t1": [0, 1, 2, 6],
    "soft-t4": [0],
}
ZLIB = [2.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 4.0, 4.0, 4.0]
# By the teacher's entropy the highest quarter is examples 2 and 3, the lowest 0 and 1, of the 8 sampled.
ENTROPY = [0.1, 0.2, 3.0, 4.0, 1.0, 1.1, 1.2, 1.3]
LOG_PROBABILITY = {
    "baseline": [-1.0, -1.0, -2.0, -1.0, -1.0, -1.0, -1.0, -1.0],
    "soft": [-1.5, -1.5, -4.0, -4.0, -1.0, -1.0, -1.0, -1.0],
}
EXPECTED = {
    "memorized by the teacher": 8,
    "memorized by the baseline": 5,
    "memorized by the soft student": 3,
    "rate of the baseline": 0.5,
    "rate of the soft student": 0.3,
    "soft / baseline": 0.6,
    "perplexity, baseline": 20.0,
    "perplexity, soft": 15.0,
    "perplexity, soft / baseline": 0.75,
    "of soft's, in the easy core": 2 / 3,
    "of the baseline's, also the teacher's": 0.8,
    "zlib entropy of the core / of the rest": 0.5,
    "teacher-specific examples": 4,
    "inherited by soft": 0.25,
    "hard / soft, all memorized": 5 / 3,
    "inherited by hard": 0.75,
    "inherited, hard / soft": 3.0,
    "inherited, hard - soft": 0.5,
    "of hard's, also soft's": 0.4,
    "rate of soft, T = 1": 0.4,
    "rate of soft, T = 2": 0.3,
    "rate of soft, T = 4": 0.1,
    "T = 2 / T = 1": 0.75,
    "T = 4 / T = 2": 1 / 3,
    "T = 4 / baseline": 0.2,
    "baseline - soft, log-probability, highest entropy": 2.5,
    "the same, lowest entropy": 0.5,
    "highest - lowest": 2.0,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with the files that the table reads; rows are not in the examples' order."""
    _write_results(tmp_path / "results.json")
    rows = [7, 3, 0, 9, 1, 5, 2, 8, 6, 4]
    for name, known in MEMORIZED.items():
        for part, ids in enumerate((rows[:6], rows[6:])):
            _write(
                tmp_path / "extraction" / name / f"part-{part}.parquet",
                {"example_id": ids, "memorized": [row in known for row in ids]},
            )
    features = {"example_id": rows, "zlib_entropy": [ZLIB[row] for row in rows]}
    _write(tmp_path / "features" / "part-0.parquet", features)
    _write(tmp_path / "entropy_logprob.parquet", _likelihoods())
    return tmp_path


def _write(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _likelihoods() -> dict[str, list[Any]]:
    """Rows by example and model, the last example first."""
    found: dict[str, list[Any]] = {
        "example_id": [],
        "model": [],
        "mean_token_entropy": [],
        "mean_log_probability": [],
    }
    for row in reversed(range(8)):
        for model in MEMORIZED:
            found["example_id"].append(row)
            found["model"].append(model)
            found["mean_token_entropy"].append(ENTROPY[row] if model == "teacher" else 0.0)
            found["mean_log_probability"].append(LOG_PROBABILITY.get(model, [-9.0] * 8)[row])
    return found


def _write_results(path: Path) -> None:
    sample = sample_dict()
    perplexities = {"baseline": 20.0, "soft": 15.0}
    kinds = {"soft-t1": "soft", "soft-t4": "soft"}
    models = {
        name: {**sample["models"][kinds.get(name, name)], "perplexity": perplexities.get(name, 99.0)}
        for name in MEMORIZED
    }
    hand = {  # counted from MEMORIZED above
        "soft": {
            "share_in_easy_core": 2 / 3,
            "teacher_specific": 4,
            "inherited": 1,
            "inheritance_rate": 0.25,
        },
        "hard": {
            "share_in_easy_core": 2 / 5,
            "teacher_specific": 4,
            "inherited": 3,
            "inheritance_rate": 0.75,
        },
    }
    students = {"soft": "soft", "hard": "hard", **kinds}
    comparison = {
        name: {**sample["comparison"][like], **hand.get(name, {})} for name, like in students.items()
    }
    path.write_text(json.dumps(sample_dict(models=models, comparison=comparison)))


def test_every_figure_equals_a_count_by_hand(run: Path) -> None:
    rows = measure_seeds([read_audit(run)], MEASURES)
    assert {row.measure.what: row.seeds[0] for row in rows} == pytest.approx(EXPECTED)


def test_a_figure_that_cannot_be_had_is_said_to_be_missing(run: Path) -> None:
    (run / "entropy_logprob.parquet").unlink()
    rows = measure_seeds([read_audit(run), read_audit(run)], MEASURES)
    missing = [row for row in rows if row.measure.finding == 8]
    assert len(missing) == 3
    assert all(row.mean is None and row.interval is None and row.outcome == "not measured" for row in missing)
    assert "| 8 | the same, lowest entropy |  | - | - | - | - | not measured |" in table(missing, [0, 1])
    assert json.loads(as_json(missing, [0, 1]))[0]["seeds"] == {"0": None, "1": None}


def test_the_interval_is_students_t() -> None:
    # 2, 4, 9: mean 5, standard deviation sqrt(13); t with 2 degrees of freedom, from printed tables: 4.302653
    reach = 4.302653 * np.sqrt(13 / 3)
    values = iter([2.0, 4.0, 9.0, 2.0])
    measure = Measure(1, "a figure", "", lambda audit: next(values))
    audits: list[Any] = [None] * 3
    assert measure_seeds(audits, [measure])[0].interval == pytest.approx((5 - reach, 5 + reach), rel=1e-6)
    assert measure_seeds(audits[:1], [measure])[0].interval is None


@pytest.mark.parametrize(
    ("figures", "least", "most", "outcome"),
    [
        ([0.40, 0.41, 0.42], None, 0.5, "yes"),
        ([0.30, 0.40, 0.60], None, 0.5, "on average"),  # 0.43, reach 0.38
        ([0.60, 0.61, 0.62], None, 0.5, "no"),
        ([0.40], None, 0.5, "on average"),  # one seed has no interval
        ([2.0, 2.0, 2.0], 1.0, None, "yes"),
        ([0.5, 0.5, 0.5], 2 / 3, 1.5, "no"),
        ([1.0, 2.0, 3.0], None, None, ""),
    ],
)
def test_the_outcome_goes_by_mean_and_interval(
    figures: list[float], least: float | None, most: float | None, outcome: str
) -> None:
    values = iter(figures)
    measure = Measure(1, "a figure", "", lambda audit: next(values), least=least, most=most)
    audits: list[Any] = [None] * len(figures)
    assert measure_seeds(audits, [measure])[0].outcome == outcome


def test_a_step_is_done_once_whoever_did_it(tmp_path: Path) -> None:
    done: list[str] = []
    one, other = (replication.Steps(tmp_path / "out", "same") for _ in range(2))  # as two calls side by side
    one.do("a", done.append, "a")
    other.do("b", done.append, "b")
    replication.Steps(tmp_path / "out", "same").do("a", done.append, "again")
    one.do("b", done.append, "again")
    assert done == ["a", "b"]
    with pytest.raises(RunStateError, match="made from other text or settings"):
        replication.Steps(tmp_path / "out", "other")


def test_a_step_that_fails_is_not_done(tmp_path: Path) -> None:
    steps = replication.Steps(tmp_path, "same")
    with pytest.raises(ZeroDivisionError):
        steps.do("a", divmod, 1, 0)
    done: list[str] = []
    steps.do("a", done.append, "a")
    assert done == ["a"]


def _replicate(*words: str | Path) -> Result:
    return CliRunner().invoke(replication.main, [str(word) for word in words])


def test_mistakes_are_answered_in_one_sentence(tmp_path: Path) -> None:
    missing = _replicate(tmp_path / "none.jsonl", "--out", tmp_path / "out")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("replicate: ")
    assert "name a jsonl of text" in missing.stderr
    (tmp_path / "small.jsonl").write_text('{"text": "a few words"}\n')
    small = _replicate(tmp_path / "small.jsonl", "--out", tmp_path / "out")
    assert small.exit_code == 2
    assert "name a larger corpus" in small.stderr
    (tmp_path / "out" / "steps.json").write_text("{")
    broken = _replicate(tmp_path / "small.jsonl", "--out", tmp_path / "out")
    assert broken.exit_code == 2
    assert "remove it to do every step again" in broken.stderr
    for done in (missing, small, broken):
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
