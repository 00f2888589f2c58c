"""What a screening flags and the pages that show it: figures, safety, redaction, absent figures."""
# ruff: noqa: RUF001 - what the pages show has its own signs, and hostile text is what is tested

from __future__ import annotations

import json
import re
import stat
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from report_page import Page, number, require_accessible, require_inert, shingles
from sample_results import HOSTILE, SENTENCES, noted

from kdaudit.analysis.flagged import read_worst
from kdaudit.errors import RunStateError
from kdaudit.pipelines.stages.flagging import Flagged, feature_spreads, write_flagged
from kdaudit.pipelines.stages.risks import write_risks
from kdaudit.reporting.screening import render_screen
from kdaudit.reporting.screening_words import withheld
from kdaudit.risk import Predictor
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import ENDS_COLUMNS, EXAMPLES_SCHEMA, FEATURES_SCHEMA, FLAGGED_SCHEMA
from kdaudit.runs.store import RunStore
from kdaudit.schemas.predictor import Origin
from kdaudit.schemas.screening import ScreenRecord

LOCAL_PATH = "/home/owner/private stuff/train.parquet"
FLAGGED, SHOWN = 1234, 50
ORIGIN = {
    "teacher": "sha256:teacher",
    "baselines": ["sha256:baseline"],
    "family": "gpt_neox",
    "corpus": "sha256:corpus",
    "labels": "easy_core",
    "prefix_tokens": 50,
    "suffix_tokens": 50,
}


def trials(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": min(1.0, mean + 0.01)}


def spread(middle: float) -> dict[str, float]:
    return {
        f"p{share}": middle * factor
        for share, factor in zip((5, 25, 50, 75, 95), (0.5, 0.8, 1, 1.3, 2), strict=True)
    }


def record_dict(**changes: Any) -> dict[str, Any]:
    """screen.json of a screening of 100,000 examples; `changes` replace top-level keys."""
    return {
        "schema_version": "2",
        "name": "acme-corpus",
        "created": "2026-01-30T14:05:09Z",
        "kdaudit_version": "0.1.0",
        "seed": 7,
        "corpus": {
            "path": LOCAL_PATH,
            "documents": 41_000,
            "windows": 101_500,
            "examples": 100_000,
            "skipped": {"too_short": 310, "empty": 12, "undecodable": 3},
            "sampled": False,
            "fingerprint": "sha256:corpus",
        },
        "extraction": {
            "engine": "transformers",
            "engine_version": "5.19.0",
            "prefix_tokens": 50,
            "suffix_tokens": 50,
            "bos": False,
            "dtype": "bfloat16",
            "device": "cpu",
        },
        "models": {
            "teacher": {
                "role": "teacher",
                "examples": 100_000,
                "memorized": 331,
                "fingerprint": "sha256:teacher",
            },
            "baseline": {
                "role": "baseline",
                "examples": 100_000,
                "memorized": 170,
                "fingerprint": "sha256:baseline",
            },
        },
        "labels": "easy_core",
        "origin": ORIGIN,
        "predictor": {
            "status": "ok",
            "labels": "easy_core",
            "positives": 157,
            "trials": 100,
            "auc": trials(0.98),
            "average_precision": trials(0.61),
            "recall": trials(0.97),
            "precision": trials(0.2),
            "coefficients": {"zlib_entropy": -4.5, "teacher_perplexity": -1.21},
            "intercept": -9.8,
            "threshold": 0.0123,
            "promise": {"recall": 0.968, "confidence": 0.95, "calibration_positives": 92},
            "flagged": 1200,
        },
        "risk_histogram": {
            "edges": [k / 20 for k in range(21)],
            "flagged": [900, *[17] * 18, 28],
            "kept": [98_766, *[0] * 19],
        },
        "features": {
            "copies": {"flagged": spread(12), "kept": spread(1)},
            "zlib_entropy": {"flagged": spread(1.25), "kept": spread(4.5)},
            "teacher_perplexity": {"flagged": spread(1.5), "kept": spread(19)},
        },
        "flagged": {
            "examples": FLAGGED,
            "places": 2050,
            "documents": 1100,
            "memorized": 157,
            "predicted": 1077,
        },
        "kept": {
            "documents_read": 41_000,
            "documents_flagged": 1100,
            "documents_kept": 39_897,
            "documents_dropped": 1100,
            "rows_written": 39_897,
            "windows_flagged": 2050,
            "windows_unscored": 0,
            "too_short": 300,
            "empty": 12,
            "undecodable": 3,
            "characters_before": 50_000_000,
            "characters_after": 48_500_000,
        },
        "drop": "document",
        "format": "parquet",
        "notes": noted(f"corpus: 310 documents of {LOCAL_PATH} were too short", "predictor: one more note"),
        **changes,
    }


def flagged_row(example_id: int, **changes: Any) -> dict[str, Any]:
    return {
        "example_id": example_id,
        "document_id": f"crawl-{example_id % 97:02d}/page-{example_id}",
        "offset": 256 * (example_id % 4),
        "text": " ".join(f"{one} ({(example_id * 7919 + k) % 997})." for k, one in enumerate(SENTENCES)),
        "copies": 1 + example_id % 5,
        "risk": ((example_id * 37) % 1000) / 1000,
        "memorized_by": ["teacher", "baseline"] if example_id % 8 == 0 else [],
        "reason": f"easy to compress (zlib entropy 1.{example_id % 10} bits per byte)",
        "zlib_entropy": 1.2,
        "teacher_perplexity": 1.3,
        "baseline_perplexity": 1.4,
        "kl_divergence": 0.1,
        "teacher_entropy": 0.2,
        "suffix_copies": 3,
        "tokens": 256,
        **changes,
    }


class Screened:
    """A screening's output and both its pages."""

    def __init__(self, folder: Path, record: dict[str, Any] | None = None, rows=None, **options: Any) -> None:
        self.folder = folder
        data = record_dict() if record is None else record
        self.record = ScreenRecord.model_validate(data).model_dump(mode="json")
        (folder / "screen.json").write_text(json.dumps(data), encoding="utf-8")
        self.rows = [flagged_row(3 * k) for k in range(FLAGGED)] if rows is None else rows
        pq.write_table(pa.Table.from_pylist(self.rows, schema=FLAGGED_SCHEMA), folder / layout.FLAGGED)
        render_screen(folder, **options)
        self.html = (folder / "screen.html").read_text(encoding="utf-8")
        self.public_html = (folder / "screen.public.html").read_text(encoding="utf-8")
        self.full, self.public = Page(self.html), Page(self.public_html)

    @property
    def pages(self) -> tuple[Page, Page]:
        return self.full, self.public


@pytest.fixture(scope="module")
def screened(tmp_path_factory: pytest.TempPathFactory) -> Screened:
    return Screened(tmp_path_factory.mktemp("screened"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Screened:
    data = record_dict(name=HOSTILE[0] + HOSTILE[2], notes=noted(*HOSTILE))
    data["corpus"]["path"] = f"/home/owner/{HOSTILE[4]}"
    data["models"][HOSTILE[0] + HOSTILE[2]] = {**data["models"]["teacher"], "role": "student"}
    data["features"][HOSTILE[4]] = {"flagged": spread(1), "kept": None}
    data["flagged"]["examples"] = len(HOSTILE)
    rows = [
        flagged_row(k, text=text, document_id=text, reason=text[:300], memorized_by=[text[:300]])
        for k, text in enumerate(HOSTILE)
    ]
    return Screened(tmp_path_factory.mktemp("hostile"), data, rows)


def plain(page: Page) -> str:
    return page.text.replace("\xa0", " ")


def test_the_page_says_what_was_found(screened: Screened) -> None:
    for page in screened.pages:
        for words in (
            "1,234 of 100,000 examples are flagged (1.2%); dropping them removes 1,100 of 41,000 documents "
            "and 3% of the text.",
            "157 are ones that teacher and baseline memorize; 1,077 more are flagged for their risk.",
            "The kept corpus has 39,897 rows from 39,897 of 41,000 documents, with 97% of the text.",
            "With 95% confidence, at least 96.8% of the examples that teacher and baseline both memorize are",
            "The guarantee rests on 92 memorized texts, each scored by a model fitted without it",
            "It does not cover what a student inherits from the teacher alone.",
            "300 documents and tails too short to be scored stay in the corpus.",
            "Examples with a risk of 0.0123 or more are flagged.",
            "1,234 examples flagged, riskiest first. Shown: the first 50.",
            "Every document with a flagged window was left out whole.",
            "kdaudit screen screen.yaml",
        ):
            assert words in plain(page), words


def test_tables_agree_with_the_record(screened: Screened) -> None:
    for page in screened.pages:
        # A cell holds the median, then the range of the middle 90%.
        assert page.table("Features of flagged and kept examples") == [
            ["Feature", "Flagged (1,234)", "Kept (98,766)"],
            ["Occurrences in the corpus", "126 to 24", "10.5 to 2"],
            [
                "zlib entropy, in bits per byte: low if text repeats itself",
                "1.250.625 to 2.5",
                "4.52.25 to 9",
            ],
            ["Perplexity under the teacher", "1.50.75 to 3", "199.5 to 38"],
        ]
        models = {row[0]: row[2:4] for row in page.table("What the models memorize of the corpus")[1:]}
        assert {name: [number(cell) for cell in cells] for name, cells in models.items()} == {
            "teacher": [331, 100_000],
            "baseline": [170, 100_000],
        }


CUT = {"drop": "window"}
SENTENCE = {
    "one": (
        {"flagged": {"examples": 1, "places": 1, "documents": 1, "memorized": 1, "predicted": 0}},
        {"documents_dropped": 1},
        "1 of 100,000 examples is flagged (0.001%); dropping it removes 1 of 41,000 documents "
        "and 3% of the text.",
        "All flagged examples are ones that teacher and baseline memorize.",
    ),
    "none": (
        {"flagged": {"examples": 0, "places": 0, "documents": 0, "memorized": 0, "predicted": 0}},
        {"undecodable": 0},
        "None of the 100,000 examples is flagged: the corpus is kept whole.",
        "No example is flagged.",
    ),
    "cut": (
        CUT,
        {"documents_dropped": 0},
        "flagged (1.2%); cutting them out removes 3% of the text, from 1,100 documents.",
        "each stretch that remains is a row of its own",
    ),
    "cut to nothing": (
        CUT,
        {"documents_dropped": 9},
        "removes 3% of the text, from 1,100 documents, 9 of which lose all.",
        "157 are ones",
    ),
    "by risk": (
        {
            "labels": "teacher",
            "flagged": {"examples": 9, "places": 9, "documents": 9, "memorized": 0, "predicted": 9},
        },
        {},
        "9 of 100,000 examples are flagged (0.009%); dropping them removes 1,100 of 41,000 documents "
        "and 3% of the text.",
        "All are flagged for their risk alone; none of them is one that the teacher memorizes.",
    ),
    "of a student": (
        {
            "labels": "student",
            "models": {
                name: {"role": role, "examples": 100_000, "memorized": 9, "fingerprint": name}
                for name, role in (("teacher", "teacher"), ("baseline", "baseline"), ("small", "student"))
            },
            "predictor": {"status": "underpowered", "labels": "student", "student": "small", "positives": 9},
        },
        {},
        "1,234 of 100,000 examples are flagged (1.2%)",
        "157 are ones that student “small” memorizes",
    ),
}


@pytest.mark.parametrize("case", SENTENCE)
def test_the_first_sentence_fits_what_was_found(case: str, tmp_path: Path) -> None:
    changes, kept, sentence, also = SENTENCE[case]
    data = record_dict(**changes)
    data["kept"] |= kept
    run = Screened(tmp_path, data, [flagged_row(k) for k in range(min(9, data["flagged"]["examples"]))])
    for page in run.pages:
        assert sentence in plain(page)
        assert also in plain(page)


OBSERVED = {"examples": 900, "places": 900, "documents": 900, "memorized": 600, "predicted": 300}
LESS_RECALL, WINDOWS, RAISE = "ower predictor.recall", "et drop to window", "aise max_flagged"
WITHHELD = {
    "predicted": (0.007, OBSERVED, 41, {LESS_RECALL, RAISE}),
    "observed": (0.005, OBSERVED, 41, {RAISE}),
    "documents": (0.02, OBSERVED, 1100, {LESS_RECALL, WINDOWS, RAISE}),
    "documents, all observed": (0.02, OBSERVED | {"predicted": 0}, 1100, {WINDOWS, RAISE}),
}


@pytest.mark.parametrize("case", WITHHELD)
def test_only_what_would_help_is_advised_where_too_much_would_be_dropped(case: str) -> None:
    allowed, flagged, dropped, helpful = WITHHELD[case]
    data = record_dict(max_flagged=allowed, flagged=flagged)
    data["kept"] |= {"withheld": True, "documents_dropped": dropped}
    refused = withheld(ScreenRecord.model_validate(data))
    assert refused is not None
    assert {one for one in (LESS_RECALL, WINDOWS, RAISE) if one in refused.reason} == helpful
    assert ("600 that teacher and baseline memorize" in refused.reason) == (case == "observed")


def test_a_sample_says_what_it_did_not_score(tmp_path: Path) -> None:
    data = record_dict()
    data["corpus"]["sampled"] = True
    data["kept"]["windows_unscored"] = 1500
    for page in Screened(tmp_path, data).pages:
        assert "1,234 of 100,000 sampled examples are flagged" in plain(page)
        assert (
            "1,500 windows outside the sample (corpus.limit) were not scored, and stay in the corpus."
            in plain(page)
        )
        assert "none of them is flagged for its risk, and the guarantee does not cover them" in plain(page)


def test_the_guarantee_is_about_other_text_than_what_was_measured(screened: Screened) -> None:
    text = plain(screened.full)
    assert "The guarantee is about further text like what was scored here" in text
    assert "are flagged whatever their risk" in text
    assert "the guarantee does not cover them" not in text


def test_positives_of_a_predictor_from_elsewhere_are_none_of_this_corpus(tmp_path: Path) -> None:
    own, given = (
        plain(Screened(tmp_path, record_dict(origin={**ORIGIN, "corpus": corpus})).full)
        for corpus in (ORIGIN["corpus"], "sha256:other")
    )
    assert "for fit and threshold together157 of 100,000" in own
    assert "that it was fitted on elsewhere, for fit and threshold together157AUC" in given
    assert "157 of 100,000" not in given[given.index("fitted on elsewhere") :]
    assert "are flagged whatever their risk" not in given


def test_what_stays_of_prompts_and_answers_is_said(tmp_path: Path) -> None:
    data = record_dict()
    data["corpus"]["answers"] = {
        "template": "chat",
        "bos": False,
        "left_out": {"unknown_role": 40},
        "min_suffix_tokens": 50,
        "without_prompt": 0,
        "prompts_cut": 0,
        "answers_cut": 0,
        "suffixes": 90_000,
        "recurring": 12_000,
    }
    data["kept"]["rows_unread"] = 40
    for page in Screened(tmp_path, data).pages:
        assert "The same answer behind another prompt is another example" in plain(page)
        assert "300 answers too short to be scored stay in the corpus." in plain(page)
        assert "40 rows that give no example, for the reasons in the notes, stay in the corpus." in plain(
            page
        )


def test_examples_are_worst_first_and_as_many_as_asked_for(tmp_path: Path) -> None:
    rows = [flagged_row(k, risk=None if k in (5, 40) else flagged_row(k)["risk"]) for k in range(60)]
    run = Screened(tmp_path, record_dict(), rows, max_examples=59)
    expected = sorted(
        rows, key=lambda row: (row["risk"] is None, -(row["risk"] or 0), -row["copies"], row["example_id"])
    )
    ids = [row["example_id"] for row in expected][:59]
    assert [int(found) for found in re.findall(r'<h3 id="example-\d+">Example (\d+)</h3>', run.html)] == ids
    table = run.public.table("Flagged examples, without their text")[1:]
    assert [int(row[0]) for row in table] == ids
    assert [row[3] for row in table] == [row["reason"] for row in expected][:59]
    assert table[-1][1] == "not available"
    assert run.full.text.count("risk not available") == 1
    render_screen(tmp_path, 0)
    text = Page((tmp_path / "screen.html").read_text(encoding="utf-8")).text
    assert "1,234 examples flagged; none is shown here. All are in flagged.parquet." in text


def test_the_public_page_holds_no_training_text(screened: Screened) -> None:
    texts = set().union(*(shingles(row["text"]) for row in screened.rows))
    assert shingles(screened.full.text) & texts
    assert not shingles(screened.public.text) & texts
    assert not shingles(screened.public_html) & texts
    assert "crawl-" in screened.html
    assert "crawl-" not in screened.public_html
    assert LOCAL_PATH in screened.full.text
    assert "owner" not in screened.public_html
    assert "private stuff" not in screened.public_html
    assert "train.parquet" in screened.public_html
    # It is not only not shown: what is private is never read for it.
    assert all(one.place is None for one in read_worst(screened.folder, SHOWN, private=False))


def test_only_the_owner_can_read_the_full_page(screened: Screened) -> None:
    assert stat.S_IMODE((screened.folder / "screen.html").stat().st_mode) == 0o600
    assert stat.S_IMODE((screened.folder / "screen.public.html").stat().st_mode) == 0o644


@pytest.mark.parametrize("name", ["screened", "hostile"])
def test_pages_cannot_act_or_load(name: str, request: pytest.FixtureRequest) -> None:
    for page in request.getfixturevalue(name).pages:
        require_inert(page)


@pytest.mark.parametrize("name", ["screened", "hostile"])
def test_pages_are_accessible(name: str, request: pytest.FixtureRequest) -> None:
    for page in request.getfixturevalue(name).pages:
        require_accessible(page)


def test_hostile_text_is_shown_and_harmless(hostile: Screened) -> None:
    text = "".join(hostile.full.words)
    assert "</style><script>document.title='owned'</script>" in text
    assert "{{ 7*7 }}{% raw %}{{ config }}" in text
    assert "‹U+202E›gnp.exe‹U+202C› ‹U+2066›isolate‹U+2069›" in text
    assert "nul‹U+0000› bell‹U+0007› escape‹U+001B›[31m del‹U+007F› nel‹U+0085› line‹U+2028›" in text
    assert "[4,400 characters cut]" in text
    for html in (hostile.html, hostile.public_html):
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff]", html)
        assert len(html) < 300_000


NO_PREDICTOR = {
    "origin": None,
    "predictor": {"status": "underpowered", "labels": "easy_core", "positives": 4},
    "risk_histogram": None,
}


def test_without_a_predictor_all_is_said_in_words(tmp_path: Path) -> None:
    rows = [flagged_row(8 * k, risk=None, reason="memorized by teacher and baseline") for k in range(4)]
    counts = {"examples": 4, "places": 4, "documents": 4, "memorized": 4, "predicted": 0}
    run = Screened(tmp_path, record_dict(**NO_PREDICTOR, flagged=counts, notes=[]), rows)
    for page in run.pages:
        text = plain(page)
        assert not re.search(r"\b(None|nan|null|Undefined)\b", text)
        assert "There is no recall guarantee, and no risk: too few examples are memorized (4 found)" in text
        assert "Not available. No example has a risk, since there is no predictor." in text
        assert "memorized by teacher and baseline" in text


def test_a_missing_guarantee_is_explained(tmp_path: Path) -> None:
    data = record_dict()
    data["predictor"]["promise"] = None
    for page in Screened(tmp_path, data).pages:
        assert "There is no recall guarantee: too few examples are memorized to base one on." in plain(page)
        assert "The guarantee is about" not in plain(page)


@pytest.mark.parametrize("part", ["teacher", "baselines", "corpus"])
def test_a_guarantee_from_elsewhere_is_named_as_such(part: str, tmp_path: Path) -> None:
    other = {**ORIGIN, part: ["sha256:other"] if part == "baselines" else "sha256:other"}
    for page in Screened(tmp_path, record_dict(origin=other)).pages:
        assert "On the corpus and models that the predictor was fitted on: with 95% confidence" in plain(page)


def test_a_guarantee_from_here_has_no_such_words(screened: Screened) -> None:
    assert "that the predictor was fitted on" not in plain(screened.full)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("screen.json", None, "cannot be read (No such file or directory); finish the screening"),
        ("screen.json", b'{"schema_version": "2"}', "does not follow the schema"),
        ("flagged.parquet", None, "cannot be read"),
        ("flagged.parquet", b"PAR1 no table", "run `kdaudit screen` again"),
    ],
)
def test_missing_and_damaged_files_are_named(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    Screened(tmp_path)
    (tmp_path / name).unlink() if content is None else (tmp_path / name).write_bytes(content)
    with pytest.raises(RunStateError) as caught:
        render_screen(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / name}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


# What is written: flagged.parquet, risk.parquet, the spreads.

EXAMPLES = 23
PREDICTOR = Predictor(
    schema_version="1",
    kdaudit_version="0.1.0",
    features=("zlib_entropy", "teacher_perplexity"),
    logarithms=("teacher_perplexity",),
    means={"zlib_entropy": 4.0, "teacher_perplexity": 2.0},
    scales={"zlib_entropy": 1.0, "teacher_perplexity": 1.0},
    coefficients={"zlib_entropy": -2.0, "teacher_perplexity": -1.0},
    intercept=-3.0,
    threshold=0.5,
    promise=None,
    positives=10,
    examples=EXAMPLES,
    origin=Origin.model_validate(ORIGIN),
)


@pytest.fixture
def run(tmp_path: Path):
    """A run with three shards of examples and features."""
    rng = np.random.default_rng(4)
    with RunStore(tmp_path / "run", "screening", {}) as store:
        for number, ids in enumerate(np.array_split(np.arange(EXAMPLES), 3)):
            examples = {
                "example_id": ids,
                "document_id": [f"d{k}" for k in ids],
                "offset": [4 * k for k in ids],
                "text": [f"text {k}" for k in ids],
                "token_ids": [[int(k), 1, 2] for k in ids],
                "copies": [1 + k % 3 for k in ids],
                "prefix_tokens": np.ones(len(ids), np.int32),
                "suffix_tokens": np.full(len(ids), 2, np.int32),
                **{name: pa.nulls(len(ids), pa.int32()) for name in ENDS_COLUMNS},
            }
            features = {
                field.name: rng.uniform(1, 8, len(ids)).astype(field.type.to_pandas_dtype())
                for field in FEATURES_SCHEMA
            }
            features |= {"example_id": ids, "copies": examples["copies"]}
            for folder, columns, schema in (
                ("examples", examples, EXAMPLES_SCHEMA),
                ("features", features, FEATURES_SCHEMA),
            ):
                store.write_table(f"{folder}/part-{number:05d}.parquet", pa.table(columns, schema=schema))
        yield store


def rows_of(store: RunStore, folder: str) -> list[dict[str, Any]]:
    return [row for shard in store.shards(folder) for row in store.read_table(shard).to_pylist()]


def found_in(store: RunStore, *, predictor: bool) -> Flagged:
    features = rows_of(store, "features")
    values = np.array([[row["zlib_entropy"], row["teacher_perplexity"]] for row in features])
    ids = np.arange(EXAMPLES)
    memorized = {"teacher": ids % 5 == 0, "baseline": ids % 10 == 0}
    risk = PREDICTOR.risk(values) if predictor else None
    flags = memorized["teacher"] & memorized["baseline"]
    return Flagged(flags if risk is None else flags | PREDICTOR.flagged(risk), risk, memorized)


@pytest.mark.parametrize("predictor", [True, False])
def test_flagged_examples_are_written_with_the_reason(run: RunStore, predictor: bool) -> None:
    found = found_in(run, predictor=predictor)
    write_flagged(run, found, PREDICTOR if predictor else None)
    path = run.folder / layout.FLAGGED
    table = pq.read_table(path)
    assert table.schema == FLAGGED_SCHEMA
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run.has(layout.FLAGGED)
    rows = table.to_pylist()
    wanted = [k for k in range(EXAMPLES) if found.flags[k]]
    assert [row["example_id"] for row in rows] == wanted
    assert len(wanted) > 2
    examples, features = rows_of(run, "examples"), rows_of(run, "features")
    for row in rows:
        k = row["example_id"]
        for name in ("document_id", "offset", "text", "copies"):
            assert row[name] == examples[k][name]
        for name in FLAGGED_SCHEMA.names[8:]:
            assert row[name] == features[k][name]
        assert row["risk"] == (None if found.risk is None else found.risk[k])
        memorized = [name for name, every in (("teacher", 5), ("baseline", 10)) if k % every == 0]
        assert row["memorized_by"] == memorized
        said, risky = f"memorized by {' and '.join(memorized)}", predictor and row["risk"] >= 0.5
        assert row["reason"].startswith(said) == bool(memorized)
        assert ("(" in row["reason"]) == risky
        if risky:
            assert "easy to compress" in row["reason"] or "low teacher perplexity" in row["reason"]


def test_without_flagged_examples_the_file_has_no_rows(run: RunStore) -> None:
    nothing = Flagged(np.zeros(EXAMPLES, dtype=np.bool_), None, {})
    write_flagged(run, nothing, None)
    assert pq.read_table(run.folder / layout.FLAGGED).num_rows == 0
    assert read_worst(run.folder, 5, private=True) == []
    assert feature_spreads(run, nothing.flags)["tokens"].flagged is None


def test_risk_is_there_for_all(run: RunStore) -> None:
    for predictor in (True, False):
        found = found_in(run, predictor=predictor)
        write_risks(run, found.risk, found.flags)
        table = run.read_table(layout.RISK)
        assert table.schema == pa.schema(
            [("example_id", pa.int64()), ("risk", pa.float64()), ("flagged", pa.bool_())]
        )
        assert table["example_id"].to_pylist() == list(range(EXAMPLES))
        assert table["flagged"].to_pylist() == found.flags.tolist()
        assert table["risk"].to_pylist() == ([None] * EXAMPLES if found.risk is None else found.risk.tolist())


def test_features_are_spread_over_flagged_and_kept(run: RunStore) -> None:
    found = found_in(run, predictor=True)
    features = rows_of(run, "features")
    spreads = feature_spreads(run, found.flags)
    assert list(spreads) == ["copies", *FLAGGED_SCHEMA.names[8:]]
    for name, one in spreads.items():
        for group, flag in ((one.flagged, True), (one.kept, False)):
            values = [row[name] for row in features if found.flags[row["example_id"]] == flag]
            hundredths = statistics.quantiles(values, n=100, method="inclusive")
            assert group is not None
            for share in (5, 25, 50, 75, 95):
                assert getattr(group, f"p{share}") == pytest.approx(hundredths[share - 1])


def test_the_histogram_counts_every_example_once(run: RunStore) -> None:
    found = found_in(run, predictor=True)
    assert found_in(run, predictor=False).histogram is None
    histogram = found.histogram
    assert histogram is not None
    assert found.risk is not None
    edges = histogram["edges"]
    for group, flag in (("flagged", True), ("kept", False)):
        risks = [risk for risk, one in zip(found.risk, found.flags, strict=True) if one == flag]
        counts = [sum(low <= risk < high for risk in risks) for low, high in pairwise(edges)]
        counts[-1] += sum(risk == 1 for risk in risks)
        assert histogram[group] == counts
