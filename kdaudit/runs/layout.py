"""Every file name of the folders that kdaudit writes, each spelled here alone; `arrow_schemas` has columns.

    an audit         examples/ extraction/MODEL/ attacks/NAME/MODEL/ holdout/ generated/ canaries/
                     continuations/ engine_check/ perplexity/ entropy/ nearness/ scoring/ scores/MODEL/
                     features/ -> results.json, leaks.parquet -> report.html, report.public.html, card.md
    a screening      the same up to features/ -> risk.parquet, flagged.parquet, kept/ -> screen.json, pages
    a distillation   teacher/, seed-N/NAME/, hard_corpus.parquet -> seed-N/audit.yaml, distill.json
    several audits   trainings.json, trainings.html
    two audits       compare.json, compare.html, compare.public.html

Names are relative to the folder, with forward slashes. Shard n of a folder belongs to shard n of the
examples, row by row; scores/ are of a sample and do not.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

RUNS, SCREENINGS, DISTILLATIONS, COMPARISONS = "runs", "screened", "distilled", "compared"
"""Folders of the working directory: where the output goes, under its own name, unless --out names a place."""

MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
"""SHA-256 of manifest.json; it is there once a run is finished."""
JOURNAL = "journal.jsonl"
"""What happened since manifest.json was written; it is there until a run is finished."""
LOCK = ".lock"
ANNOUNCED = ".writing"
"""Of earlier versions, in place of the journal: names of files that were about to be put in their place."""
UNLISTED = (MANIFEST, SEAL, JOURNAL, LOCK, ANNOUNCED)
"""Files of a run directory that the manifest does not list."""

CONFIG = "config.yaml"
HMAC_KEY = "hmac.key"
"""Of the hashes that public pages show in place of text."""

HOLDOUT, GENERATED, CANARIES = "holdout", "generated", "canaries"
SIDE_TEXTS = {HOLDOUT: HOLDOUT, GENERATED: GENERATED, CANARIES: f"attacks.{CANARIES}"}
"""Texts that are measured beside the corpus, each in a folder of its name, with their configuration keys."""

EXAMPLES = "examples"
FEATURES = "features"
EXTRACTION, ATTACKS, ENGINE_CHECK, PERPLEXITY = "extraction", "attacks", "engine_check", "perplexity"
CONTINUATIONS, ENTROPY, NEARNESS = "continuations", "entropy", "nearness"
"""Folders of what was measured of each model."""
SCORES = "scores"
SCORE_SAMPLE = "scoring/sample.parquet"
"""Examples that the scoring pass reads, of the corpus and of texts beside it."""
PLANTED = f"{CANARIES}/planted.parquet"
"""How often training data hold each canary."""
FEATURE_SAMPLE = "scoring/features.parquet"
"""Examples that an audit takes features of."""
SUFFIX_COPIES = "suffix_copies.parquet"
ENTROPY_LOGPROB = "entropy_logprob.parquet"
"""All models' rows, by example and model."""
PREDICTOR, RISK = "predictor.json", "risk.parquet"
PREDICTION = "prediction.json"
"""What the predictor was found to be worth, or why there is none."""

RESULTS, LEAKS = "results.json", "leaks.parquet"
REPORT, PUBLIC_REPORT, CARD = "report.html", "report.public.html", "card.md"
AUDIT_PAGES = (REPORT, PUBLIC_REPORT, CARD)
ANNEX = "annex.html"
"""For reviewers; public, and written when it is asked for."""

SCREEN, FLAGGED = "screen.json", "flagged.parquet"
KEPT, KEPT_COUNTS = "kept", "kept.json"
"""Folder of the corpus that is kept, and what the pass that wrote it counted."""
SCREEN_REPORT, PUBLIC_SCREEN_REPORT = "screen.html", "screen.public.html"
SCREEN_PAGES = (SCREEN_REPORT, PUBLIC_SCREEN_REPORT)

COMPARISON, COMPARE_REPORT, PUBLIC_COMPARE_REPORT = "compare.json", "compare.html", "compare.public.html"
COMPARE_FILES = (COMPARISON, COMPARE_REPORT, PUBLIC_COMPARE_REPORT)
"""What changed between two audits, in a folder of its own."""

TRAININGS, TRAININGS_REPORT = "trainings.json", "trainings.html"
"""What several audits of one corpus show together, in a folder of its own."""

RENDERED = (*AUDIT_PAGES, ANNEX, *SCREEN_PAGES)
"""Files that are made from others of the run alone."""

ACCEPTED = "accepted.yaml"
"""What it is called where no other name is given: beside an audit's file or its run, never in the run."""

AUDIT_FILE, DISTILL_FILE, DISTILL_RECORD = "audit.yaml", "distill.yaml", "distill.json"
TRAINING_RECORD, MODEL_CARD = "training.json", "README.md"
"""Beside a trained model's weights."""
TEACHER, WINDOWS, CHECKPOINTS = "teacher", "windows", "checkpoints"
"""Folders of a distillation; an audit's teacher has the first as its name."""

_PRIVATE = re.compile(
    r"config\.yaml|results\.json|(leaks|risk)\.parquet|report\.html|hmac\.key|flagged\.parquet"
    r"|(screen|compare)\.(json|html)"
    r"|((holdout|generated|canaries)/)?(examples/.*|summary\.json|part-\d+\.parquet)"
    r"|(continuations|engine_check|kept)/.*\.(parquet|jsonl)"
    r"|distill\.json|hard_corpus.*\.parquet"
)


def is_private(name: str) -> bool:
    """Whether a file holds training text, document ids or the key of their hashes: for its owner alone."""
    return _PRIVATE.fullmatch(name) is not None


def accepted_key(accepted: Path) -> Path:
    """The key of the hashes in a file of accepted leaks, beside it: `accepted.key`."""
    return accepted.with_suffix(".key")


def is_inside(name: str) -> bool:
    """Whether a name is a plain relative path: no way up, no root, nothing that a terminal would obey."""
    parts = name.split("/")
    return (
        name not in UNLISTED and name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)
    )


def is_baseline(model: str) -> bool:
    """Whether a model's name is a baseline's: `baseline`, or of several `baseline-1` and so on."""
    return model.split("-")[0] == "baseline"


def shard(folder: str, number: int, ending: str = "parquet") -> str:
    """A folder's shard of this number, from 0."""
    return f"{folder}/part-{number:05d}.{ending}"


def shard_number(name: str) -> tuple[int, str]:
    """Sorts shards by their numbers: from 100,000 on names no longer sort as their numbers do."""
    digits = PurePosixPath(name).name.removeprefix("part-").partition(".")[0]
    return (int(digits), name) if digits.isdecimal() else (-1, name)


def is_shard(name: str) -> bool:
    """Whether a file is a shard of the folder that it lies in."""
    return PurePosixPath(name).name.startswith("part-")


def beside(shard_of_examples: str, folder: str) -> str:
    """The shard of `folder` that belongs to a shard of the examples."""
    return f"{folder}/{PurePosixPath(shard_of_examples).name}"


def beside_corpus(text: str, folder: str) -> str:
    """Where a text of `SIDE_TEXTS` keeps what the corpus keeps in `folder`."""
    return f"{text}/{folder}"


def holdout(folder: str) -> str:
    """Where the holdout keeps what the corpus keeps in `folder`."""
    return beside_corpus(HOLDOUT, folder)


def summary(examples: str) -> str:
    """What was counted when these examples were cut."""
    return f"{examples}/summary.json"


def longest(examples: str) -> str:
    """The most that models with tokenizers of their own are given of these examples."""
    return f"{examples}/longest.json"


def extraction(model: str) -> str:
    """Folder of a model's matched tokens."""
    return f"{EXTRACTION}/{model}"


def attack(name: str, model: str) -> str:
    """Folder of what an attack found of a model."""
    return extraction(model) if name == "greedy" else f"{ATTACKS}/{name}/{model}"


def continuations(model: str) -> str:
    """What a model says after leaked prefixes whose suffix it does not reproduce."""
    return f"{CONTINUATIONS}/{model}.parquet"


def reference(model: str) -> str:
    """What plain forward passes say that a model says, for its engine check."""
    return f"{ENGINE_CHECK}/{model}.parquet"


def engine_check(model: str) -> str:
    """The outcome of a model's engine check."""
    return f"{ENGINE_CHECK}/{model}.json"


def perplexity(model: str) -> str:
    """A model's perplexity of the holdout."""
    return f"{PERPLEXITY}/{model}.json"


def entropy(model: str) -> str:
    """A model's rows of ENTROPY_LOGPROB."""
    return f"{ENTROPY}/{model}.parquet"


def nearness(model: str) -> str:
    """How near a baseline is to what any model memorizes."""
    return f"{NEARNESS}/{model}.parquet"


def scores(model: str) -> str:
    """Folder of what a model makes of each token of a sample's suffixes."""
    return f"{SCORES}/{model}"


def exported(form: str, *, private: bool) -> str:
    """Usual name of a run's findings in another system's format; never inside a run directory."""
    ending = "junit.xml" if form == "junit" else form
    return f"kdaudit.private.{ending}" if private else f"kdaudit.{ending}"


def is_measurement(name: str) -> bool:
    """Whether a file holds what was measured of the models: what must not be lost to a slip in a file."""
    return name.startswith((f"{EXTRACTION}/", f"{ATTACKS}/", f"{FEATURES}/"))


def seed_folder(seed: int) -> str:
    """Folder of a seed's students."""
    return f"seed-{seed}"


def hard_corpus(student: str | None, seed: int | None) -> str:
    """What the teacher wrote for hard students.

    Args:
        student: whose it is; None for the first of them.
        seed: where it depends on the seed and that is not the first; else None.

    """
    of_student = "" if student is None else f"-{student}"
    of_seed = "" if seed is None else f"-seed-{seed}"
    return f"hard_corpus{of_student}{of_seed}.parquet"
