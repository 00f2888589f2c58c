"""Builds audits for the tests of the reports: counts as in the source paper, leaks that add up to them."""

from __future__ import annotations

import hashlib
import hmac
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.runs.arrow_schemas import LEAKS_SCHEMA
from kdaudit.schemas.results import AuditResults

EXAMPLES = 1_000_000
SUFFIX = 50
LOCAL_PATH = "/home/owner/private stuff/train.parquet"

# (student classes, count): the soft student memorizes 701 examples, the hard one 742, both 534.
GROUPS: list[tuple[dict[str, str], int]] = [
    ({"soft": "inherited", "hard": "inherited"}, 15),
    ({"soft": "inherited"}, 3),
    ({"hard": "inherited"}, 34),
    ({"soft": "easy_core", "hard": "easy_core"}, 514),
    ({"soft": "easy_core"}, 157),
    ({"hard": "easy_core"}, 162),
    ({"soft": "with_baseline", "hard": "with_baseline"}, 4),
    ({"soft": "with_baseline"}, 5),
    ({"hard": "with_baseline"}, 8),
    ({"soft": "student_only", "hard": "student_only"}, 1),
    ({"soft": "student_only"}, 2),
    ({"hard": "student_only"}, 4),
]
ALSO_BY = {
    "inherited": ["teacher"],
    "easy_core": ["teacher", "baseline"],
    "with_baseline": ["baseline"],
    "student_only": [],
}
SENTENCES = (
    "The council met on Tuesday to settle the budget for road repairs in the northern district",
    "This software comes without any warranty, and the user bears the whole risk of its performance",
    "Preheat the oven to 180 degrees, line a tin with paper and sift the flour with the salt",
    "Trains on the coastal line run every twenty minutes until eleven in the evening, then hourly",
    "The ferry leaves the old harbour at seven; tickets are sold on board and dogs travel free",
    "All rights to the photographs remain with the museum, which lends them for research only",
    "Snow is expected above six hundred metres, with gusts along the ridge in the afternoon",
    "To reset the device, hold both buttons for ten seconds until the green light stops blinking",
)


HOSTILE = [
    "</style><script>document.title='owned'</script>",
    "{{ 7*7 }}{% raw %}{{ config }}",
    "\u202egnp.exe\u202c \u2066isolate\u2069 \u200e\u061c",
    "nul\x00 bell\x07 escape\x1b[31m del\x7f nel\x85 line\u2028par\u2029 bom\ufeff tag\U000e0041",
    "<img src=x onerror=alert(1)>'\"><svg/onload=alert(1)>",
    "x" * 5000,
    "\U0001f468\u200d\U0001f469\u200d\U0001f467 emoji, שלום עולם, مرحبا بالعالم",
    "a" + "\u0301" * 300,
    "javascript:alert(1) &lt;b&gt; &#x202e; <!-- ]]>",
]
HOSTILE_TITLE = HOSTILE[2] + HOSTILE[0]


def sample_dict(**changes: Any) -> dict[str, Any]:
    """results.json of an audit like the paper's main one; `changes` replace top-level keys."""
    models = {
        "teacher": _model("teacher", None, 3317, (0.003206, 0.003432), 12.41, 61.0),
        "baseline": _model("baseline", None, 1702, (0.001622, 0.001785), 17.69, 64.0),
        "soft": _model("student", "soft", 701, (0.000650, 0.000755), 17.31, 66.0),
        "hard": _model("student", "hard", 742, (0.000690, 0.000797), 17.44, 66.0),
    }
    models["teacher"]["below_rounding"] = {"memorized": 41, "others": 57, "share": 41 / 3317}
    return {
        "schema_version": "2",
        "name": "acme-1.4b-release",
        "created": "2026-01-30T14:05:09Z",
        "kdaudit_version": "0.1.0",
        "seed": 0,
        "corpus": {
            "path": LOCAL_PATH,
            "documents": 412_088,
            "windows": 1_062_310,
            "examples": EXAMPLES,
            "skipped": {"too_short": 31_007, "empty": 12, "undecodable": 3},
            "sampled": False,
            "fingerprint": hashlib.sha256(b"corpus").hexdigest(),
        },
        "extraction": {
            "engine": "vllm",
            "engine_version": "0.32.0",
            "prefix_tokens": 50,
            "suffix_tokens": SUFFIX,
            "bos": False,
            "dtype": "bfloat16",
            "device": "NVIDIA H100",
        },
        "models": models,
        "comparison": {
            "soft": _comparison(0.41187, (0.381, 0.4449), -0.001001, 671, 18, (0.00546, 0.0145), 9, 3),
            "hard": _comparison(0.43596, (0.404, 0.4703), -0.00096, 676, 49, (0.0186, 0.033), 12, 5),
        },
        "soft_vs_hard": {
            "soft": "soft",
            "hard": "hard",
            "both": 15,
            "soft_only": 3,
            "hard_only": 34,
            "ratio": 49 / 18,
            "ratio_ci95": [1.81, 4.11],
            "difference": 31 / 1955,
            "difference_ci95": [0.0099, 0.0223],
            "mcnemar_p": 1.2e-7,
            "share_of_hard_in_soft": 534 / 742,
        },
        "predictor": _predictor(),
        "curves": _curves(),
        "gate": _gate(),
        "leaks": sample_leaks(),
        "notes": noted(
            f"corpus: 31,007 documents of {LOCAL_PATH} were shorter than 100 tokens and left out",
            "predictor: labels are those of the student soft",
        ),
        **changes,
    }


def noted(*texts: str) -> list[dict[str, Any]]:
    """Notes of any kind."""
    return [{"code": "tags_not_searched", "subject": None, "text": text} for text in texts]


def _model(
    role: str, kd: str | None, memorized: int, ci95: tuple[float, float], perplexity: float, seconds: float
) -> dict[str, Any]:
    rate = memorized / EXAMPLES
    near = [min(1.0, rate + 0.42 * 0.62**k) for k in range(1, SUFFIX)]
    return {
        "role": role,
        "kd": kd,
        "examples": EXAMPLES,
        "memorized": memorized,
        "rate": rate,
        "ci95": list(ci95),
        "windows_memorized": memorized * 4 + 7,
        "survival": [1.0, *near, rate],
        "holdout": {"examples": 100_000, "memorized": 2, "rate": 2e-5, "ci95": [2.4e-6, 7.2e-5]},
        "perplexity": perplexity,
        "fingerprint": hashlib.sha256(f"{role}{kd}".encode()).hexdigest(),
        "seconds": seconds,
        "tokens_per_second": 50 * EXAMPLES / seconds,
    }


def _comparison(
    ratio: float,
    ratio_ci95: tuple[float, float],
    difference: float,
    easy_core: int,
    inherited: int,
    inheritance_ci95: tuple[float, float],
    with_baseline: int,
    student_only: int,
) -> dict[str, Any]:
    memorized = easy_core + inherited + with_baseline + student_only
    return {
        "ratio_to_baseline": ratio,
        "ratio_ci95": list(ratio_ci95),
        "difference": difference,
        "difference_ci95": [difference - 0.00007, difference + 0.00007],
        "mcnemar_p": 3e-40,
        "easy_core": easy_core,
        "share_in_easy_core": easy_core / memorized,
        "teacher_specific": 1955,
        "inherited": inherited,
        "inheritance_rate": inherited / 1955,
        "inheritance_ci95": list(inheritance_ci95),
        "with_baseline": with_baseline,
        "student_only": student_only,
    }


def _predictor() -> dict[str, Any]:
    return {
        "status": "ok",
        "labels": "student",
        "student": "soft",
        "positives": 701,
        "trials": 100,
        "auc": {"mean": 0.9997, "low": 0.9994, "high": 0.9999},
        "average_precision": {"mean": 0.871, "low": 0.842, "high": 0.898},
        "recall": {"mean": 1.0, "low": 0.996, "high": 1.0},
        "precision": {"mean": 0.612, "low": 0.575, "high": 0.655},
        "coefficients": {
            "zlib_entropy": -4.5,
            "teacher_perplexity": -1.21,
            "baseline_perplexity": -2.04,
            "kl_divergence": -0.33,
        },
        "intercept": -9.8,
        "threshold": 0.4123,
        "promise": {"recall": 0.99, "confidence": 0.95, "calibration_positives": 351},
        "flagged": 1203,
    }


def _curves() -> dict[str, Any]:
    rng = random.Random(3)
    steps = [k / 40 for k in range(41)]

    def cloud(shift: float) -> list[dict[str, float]]:
        entropies = [rng.gauss(3.2, 0.9) for _ in range(400)]
        return [{"x": x, "y": min(-0.01, -0.9 * x + shift + rng.gauss(0, 0.5))} for x in entropies]

    return {
        "roc": [{"x": x, "y": min(1.0, x**0.03)} for x in steps],
        "precision_recall": [{"x": x, "y": 1 - 0.5 * x**6} for x in steps],
        "calibration": [
            {"x": k / 10, "y": min(1.0, max(0.0, k / 10 + rng.gauss(0, 0.04)))} for k in range(11)
        ],
        "risk_histogram": {
            "edges": [k / 20 for k in range(21)],
            "memorized": [0, 1, 0, 2, 1, 3, 2, 4, 5, 6, 8, 9, 12, 16, 20, 29, 41, 60, 110, 372],
            "other": [998_000, 700, 210, 120, 80, 44, 30, 22, 20, 14, 12, 9, 8, 7, 6, 5, 4, 3, 3, 2],
        },
        "entropy_logprob": {"baseline": cloud(0.6), "soft": cloud(-0.3), "hard": cloud(-0.2)},
    }


def _gate() -> dict[str, Any]:
    def check(name: str, student: str, limit: float, value: float, verdict: str) -> dict[str, Any]:
        ends = None if name == "max_inherited" else [value * 0.9, value * 1.1]
        found = {"name": name, "student": student, "limit": limit, "value": value}
        return {**found, "ci95": ends, "verdict": verdict}

    checks = [
        check("max_rate", "soft", 0.001, 0.000701, "pass"),
        check("max_rate", "hard", 0.001, 0.000742, "pass"),
        check("max_inheritance_rate", "soft", 0.01, 18 / 1955, "pass"),
        check("max_inheritance_rate", "hard", 0.01, 49 / 1955, "fail"),
        check("max_ratio_to_baseline", "soft", 0.5, 0.41187, "pass"),
        check("max_ratio_to_baseline", "hard", 0.5, 0.43596, "pass"),
    ]
    return {"verdict": "fail", "checks": checks}


def sample_leaks(groups: list[tuple[dict[str, str], int]] = GROUPS) -> list[dict[str, Any]]:
    """The leaks of results.json, shuffled, with ids that stand for no order."""
    rng = random.Random(7)
    classes = [group for group, number in groups for _ in range(number)]
    ids = rng.sample(range(EXAMPLES), len(classes))
    leaks = [_leak(example_id, group, rng) for example_id, group in zip(ids, classes, strict=True)]
    rng.shuffle(leaks)
    return leaks


def _leak(example_id: int, classes: dict[str, str], rng: random.Random) -> dict[str, Any]:
    also = ALSO_BY[next(iter(classes.values()))]
    return {
        "example_id": example_id,
        "document_id": f"crawl-{example_id % 97:02d}/page-{example_id}",
        "memorized_by": [*also, *classes],
        "classes": classes,
        "copies": int(rng.paretovariate(0.8)),
        "risk": round(rng.betavariate(5, 1), 4),
        "tags": rng.choice([[], [], ["email"], ["email", "phone"]]),
        "suffix_hmac": hmac.new(b"key", str(example_id).encode(), "sha256").hexdigest(),
    }


def leak_row(leak: dict[str, Any], models: list[str], /, **changes: Any) -> dict[str, Any]:
    """A row of leaks.parquet with readable text; `changes` replace its keys."""
    rng = random.Random(leak["example_id"])
    prefix = " ".join(f"{part} ({rng.randrange(1000)})." for part in rng.sample(SENTENCES, 3))
    suffix = " " + " ".join(f"{part}, no. {rng.randrange(1000)}." for part in rng.sample(SENTENCES, 3))
    row = {
        "example_id": leak["example_id"],
        "document_id": leak["document_id"],
        "offset": 256 * rng.randrange(4),
        "copies": leak["copies"],
        "text": prefix + suffix,
        "prefix": prefix,
        "suffix": suffix,
        "models": list(_said(models, leak["memorized_by"], suffix, rng)),
        "classes": [{"student": student, "class": name} for student, name in leak["classes"].items()],
        "risk": leak["risk"],
        "tags": leak["tags"],
        "memorized_by": leak["memorized_by"],
        "suffix_hmac": leak["suffix_hmac"],
        "prefix_tokens": leak.get("prefix_tokens"),
        "suffix_tokens": leak.get("suffix_tokens"),
        "accepted": leak.get("accepted", False),
    }
    return {**row, **changes}


def _said(
    models: list[str], memorized_by: list[str], suffix: str, rng: random.Random
) -> Iterator[dict[str, Any]]:
    for name in models:
        if name in memorized_by:
            yield {"name": name, "matched_tokens": SUFFIX, "continuation": suffix}
            continue
        words = suffix.split(" ")
        kept = rng.randrange(len(words) - 4)
        text = " ".join([*words[: kept + 1], "and", "then", *rng.choice(SENTENCES).split(" ")])
        yield {"name": name, "matched_tokens": min(SUFFIX - 1, kept), "continuation": text}


def bare_dict(**changes: Any) -> dict[str, Any]:
    """An audit of a teacher and one student: no baseline, no holdout, no predictor, no gate."""
    data = sample_dict()
    models = {
        name: {**data["models"][name], "holdout": None, "perplexity": None} for name in ("teacher", "soft")
    }
    models["soft"] |= {"tokens_per_second": None, "kd": None}
    empty = dict.fromkeys(data["comparison"]["soft"])
    leaks = [leak for leak in data["leaks"] if "soft" in leak["memorized_by"]][:3]
    for leak in leaks:
        leak |= {"memorized_by": ["soft"], "classes": {"soft": "unknown"}, "risk": None}
    bare = {
        "models": models,
        "comparison": {"soft": empty},
        "soft_vs_hard": None,
        "predictor": {
            "status": "underpowered",
            "positives": 4,
            "reason": "It takes 59 memorized examples, 4 were found.",
        },
        "curves": {},
        "gate": {"verdict": "none", "checks": []},
        "leaks": leaks,
        "notes": [
            {
                "code": "no_predictor",
                "subject": "predictor",
                "text": "It takes 59 memorized examples, 4 were found.",
            }
        ],
    }
    return sample_dict(**{**bare, **changes})


def hostile_dict() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An audit in which all text that others choose is hostile: results and rows of leaks.parquet."""
    leaks = sample_leaks()[: len(HOSTILE)]
    names = ["teacher", "baseline", "soft", "hard"]
    rows = []
    for leak, text in zip(leaks, HOSTILE, strict=True):
        leak["document_id"], leak["tags"] = text, [text[:100]]
        said = [{"name": name, "matched_tokens": 3, "continuation": text[:3] + text[::-1]} for name in names]
        rows.append(leak_row(leak, names, prefix=text, suffix=text, text=text + text, models=said))
    data = sample_dict(leaks=leaks, name=HOSTILE[0], notes=noted(*HOSTILE))
    data["corpus"]["path"] = f"/home/owner/{HOSTILE[4]}"
    for part in ("models", "comparison"):
        data[part][HOSTILE[0] + HOSTILE[2]] = data[part]["soft"]
    return data, rows


def write_run(
    run_dir: Path, results: dict[str, Any] | None = None, rows: list[dict[str, Any]] | None = None
) -> AuditResults:
    """Write results.json and leaks.parquet as a finished audit leaves them."""
    data = sample_dict() if results is None else results
    run_dir.mkdir(parents=True, exist_ok=True)
    parsed = AuditResults.model_validate(data)
    (run_dir / "results.json").write_text(json.dumps(data), encoding="utf-8")
    if rows is None:
        rows = [leak_row(leak, list(data["models"])) for leak in data["leaks"]]
    pq.write_table(pa.Table.from_pylist(rows, schema=LEAKS_SCHEMA), run_dir / "leaks.parquet")
    return parsed


def write_three_runs(folder: Path) -> None:
    """A usual run, one of hostile texts and names, and one with next to nothing in it."""
    write_run(folder / "sample")
    write_run(folder / "hostile", *hostile_dict())
    write_run(folder / "bare", bare_dict())
