"""Audits of models with tokenizers of their own, as a user runs them."""

from __future__ import annotations

import json
import math
import pydoc_data.topics
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import text_models
import torch
import toys
from conftest import SHARED
from oracles.text_greedy import begins_with, byte_level_pieces, continuations
from ruamel.yaml import YAML
from test_readings import add_token
from text_models import TEXTS
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit import open_run
from kdaudit.models.tokenizer import load_tokenizer, uses_bos

PLAIN = ("predictor.enabled=false", "models.baseline=null")


def run(folder: Path, *sets: str, code: int = 0, name: str = "toy") -> dict[str, Any]:
    words = ["run", "audit.yaml", *(word for one in sets for word in ("--set", one))]
    done = toys.kdaudit(*words, cwd=folder)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    if code:
        return {"said": done.stderr}
    found: dict[str, Any] = json.loads((folder / "runs" / name / "results.json").read_text())
    return found


def test_bits_per_byte_are_those_of_a_plain_forward_pass(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    found = run(tmp_path, *PLAIN)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "hard").eval()
    nats = size = 0.0
    for line in (tmp_path / "holdout.jsonl").read_text().splitlines():
        text = json.loads(line)["text"]
        ids = torch.tensor([toys.tokenizer()(text)["input_ids"]])
        with torch.inference_mode():
            log_p = model(ids).logits[0, :-1].double().log_softmax(-1)
        nats -= float(log_p.gather(1, ids[0, 1:, None]).sum())
        size += len(text.encode()) - len(text.split(" ")[0])
    assert found["models"]["hard"]["bits_per_byte"] == pytest.approx(nats / size / math.log(2), rel=1e-5)
    page = (tmp_path / "runs" / "toy" / "report.html").read_text()
    assert "bits per byte</span>" in page


STUDENTS = [
    {"name": "own", "path": "./own", "kd": "hard"},
    {"name": "shared", "path": "./shared", "kd": "soft"},
]
MODELS = {"teacher": "./teacher", "baseline": "./baseline", "students": STUDENTS}
OWN = ("own", "baseline")
"""Models whose tokenizer is not the teacher's."""
LENGTHS = ("prefix_tokens", "suffix_tokens")


@pytest.fixture(scope="module")
def learners(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that have learned some of the texts: two with the teacher's tokenizer, two not."""
    folder = tmp_path_factory.mktemp("learners")
    text_models.learned(folder / "teacher", text_models.byte_level(), TEXTS[:8])
    text_models.learned(folder / "shared", text_models.byte_level(), TEXTS[2:6], seed=1)
    text_models.learned(folder / "own", text_models.sentencepiece(), TEXTS[:5], steps=90, seed=2)
    text_models.learned(folder / "baseline", text_models.sentencepiece(), TEXTS[4:9], seed=3)
    text_models.write_audit(folder, MODELS)
    return folder


@pytest.fixture(scope="module")
def found(learners: Path) -> dict[str, Any]:
    return run(learners)


def rows_of(folder: Path, name: str, of: str = "toy") -> pa.Table:
    shards = sorted((folder / "runs" / of / name).glob("part-*"))
    return pa.concat_tables(map(pq.read_table, shards))


@cache
def tokenizer_of(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def read_alone(folder: Path, text: str, prompt_end: int) -> list[int]:
    """A prompt's tokens by AutoTokenizer: those of the text that end where the prompt does.

    A tokenizer of SentencePiece's kind adds a space before the text, so one that stands there is left out.
    """
    tokenizer = tokenizer_of(folder)
    drop = int(text.startswith(" ") and folder.name in (*OWN, "stories260K"))
    given = tokenizer(text[drop:], return_offsets_mapping=True, add_special_tokens=False)
    return [
        token
        for token, (_, end) in zip(given["input_ids"], given["offset_mapping"], strict=True)
        if end + drop <= prompt_end
    ]


@pytest.mark.parametrize("name", ["teacher", "shared", *OWN])
def test_what_is_memorized_is_what_raw_transformers_continues(
    name: str, learners: Path, found: dict[str, Any]
) -> None:
    examples = rows_of(learners, "examples").to_pylist()
    prompts = [read_alone(learners / name, row["text"], row["prompt_end"]) for row in examples]
    targets = [row["text"][row["prompt_end"] : row["target_end"]] for row in examples]
    expected = begins_with(learners / name, prompts, targets)
    memorized = rows_of(learners, f"extraction/{name}")["memorized"].to_pylist()
    assert memorized == expected
    assert 3 < sum(expected) < len(expected) - 3
    assert found["models"][name]["memorized"] == sum(expected)
    assert found["models"][name]["matched_by"] == ("text" if name in OWN else "tokens")


def test_examples_are_cut_where_every_tokenizer_can(learners: Path, found: dict[str, Any]) -> None:
    examples = rows_of(learners, "examples").to_pylist()
    teacher = AutoTokenizer.from_pretrained(learners / "teacher")
    for row in examples:
        prefix, suffix, ids = row["prefix_tokens"], row["suffix_tokens"], row["token_ids"]
        assert 12 - 16 <= prefix <= 12 + 16
        assert 12 <= suffix <= 12 + 16
        target = row["text"][row["prompt_end"] : row["target_end"]]
        assert teacher.decode(ids[prefix : prefix + suffix]) == target
        whole = AutoTokenizer.from_pretrained(learners / "own")(row["text"], return_offsets_mapping=True)
        ends = [end for _, end in whole["offset_mapping"]]
        assert row["prompt_end"] in ends or row["text"].startswith(" ")
    assert found["corpus"]["windows"] == len(examples)
    assert found["corpus"]["skipped"]["no_boundary"] == 0


def test_windows_without_a_common_boundary_are_counted_and_noted(learners: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(learners, folder, ignore=shutil.ignore_patterns("runs"))
    words = dict.fromkeys(["<unk>", *(word for text in TEXTS for word in text.split())])
    made = Tokenizer(models.WordLevel({word: row for row, word in enumerate(words)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "own" / "tokenizer.json"))
    long = "".join(f"x{place}y" for place in range(90))
    with (folder / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "long", "text": long}) + "\n")
    found = run(folder, *PLAIN, "holdout=null")
    skipped = found["corpus"]["skipped"]["no_boundary"]
    assert skipped > 5
    assert not {"long"} & set(rows_of(folder, "examples")["document_id"].to_pylist())
    note = next(note["text"] for note in found["notes"] if note["code"] == "no_joint_boundary")
    assert f"suffix: {skipped}, beside {found['corpus']['windows']} that" in note
    assert found["corpus"]["windows"] > 10
    assert next(note for note in found["notes"] if note["code"] == "text_normalized")["subject"] == "own"


@pytest.mark.usefixtures("found")
def test_matched_tokens_are_the_teachers_whose_text_is_reproduced(learners: Path) -> None:
    examples = rows_of(learners, "examples").to_pylist()
    teacher = AutoTokenizer.from_pretrained(learners / "teacher")
    own = rows_of(learners, "extraction/own").to_pylist()
    assert len({row["matched_tokens"] for row in own}) > 5
    for example, row in zip(examples, own, strict=True):
        ids = example["token_ids"][example["prefix_tokens"] :][: example["suffix_tokens"]]
        prompt = read_alone(learners / "own", example["text"], example["prompt_end"])
        count = row["matched_tokens"]
        assert row["memorized"] == (count == len(ids))
        texts = [teacher.decode(ids[:count])]
        if count < len(ids) and "\ufffd" not in teacher.decode(ids[: count + 1]):
            texts.append(teacher.decode(ids[: count + 1]))
        if "\ufffd" not in texts[0]:
            assert begins_with(learners / "own", [prompt] * len(texts), texts) == [True, False][: len(texts)]


def test_inheritance_is_by_text(learners: Path, found: dict[str, Any]) -> None:
    flags = {
        name: rows_of(learners, f"extraction/{name}")["memorized"].to_numpy() for name in found["models"]
    }
    specific = flags["teacher"] & ~flags["baseline"]
    comparison = found["comparison"]["own"]
    assert comparison["teacher_specific"] == specific.sum()
    assert comparison["inherited"] == (specific & flags["own"]).sum() > 0


@pytest.mark.usefixtures("found")
def test_features_of_two_tokenizers_are_those_of_each_model_alone(learners: Path) -> None:
    features, examples = (rows_of(learners, name).to_pylist() for name in ("features", "examples"))
    assert (
        {row["kl_divergence"] for row in features}
        == {row["suffix_kl_divergence"] for row in features}
        == {None}
    )
    model = AutoModelForCausalLM.from_pretrained(learners / "baseline").eval()
    tokenizer = AutoTokenizer.from_pretrained(learners / "baseline")
    for example, row in [*zip(examples, features, strict=True)][::7]:
        text = example["text"].removeprefix(" ")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        prompt = len(read_alone(learners / "baseline", example["text"], example["prompt_end"]))
        whole = len(read_alone(learners / "baseline", example["text"], example["target_end"]))
        with torch.inference_mode():
            log_p = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(-1)
        own = -log_p.gather(1, torch.tensor(ids)[1:, None])[:, 0]
        assert row["baseline_perplexity"] == pytest.approx(float(own.mean().exp()), rel=1e-4)
        assert row["baseline_suffix_nll"] == pytest.approx(
            float(own[prompt - 1 : whole - 1].mean()), abs=1e-4
        )


def test_by_text_greedy_extraction_alone_is_run(learners: Path, found: dict[str, Any]) -> None:
    folder = learners / "runs" / "toy" / "attacks" / "near_verbatim"
    assert {path.name for path in folder.iterdir()} == set(found["models"]) - set(OWN)
    for name, attacks in found["attacks"].items():
        assert (attacks["near_verbatim"] is None) == (attacks["sampled"] is None) == (name in OWN)
    near, sampled = (note["text"] for note in found["notes"] if note["code"] == "attack_not_run")
    assert near.startswith("Near-verbatim extraction was not run on baseline, own:")
    assert sampled.startswith("Extraction by sampling was not measured of baseline, own:")
    scores = open_run(learners / "runs" / "toy").scores("own")
    assert scores["sampled_log_probability"].null_count == len(scores) > 0
    assert pc.sum(scores["weight"]).as_py() == pytest.approx(found["corpus"]["examples"])


def test_the_page_and_notes_say_who_is_compared_by_text(learners: Path, found: dict[str, Any]) -> None:
    notes = {note["code"]: note["text"] for note in found["notes"]}
    assert notes["compared_by_text"].startswith("Compared by text: baseline, own.")
    page = (learners / "runs" / "toy" / "report.html").read_text()
    assert "compared by text" in page
    assert "the prefix that the model is given" in page
    lengths = {row["example_id"]: row for row in rows_of(learners, "examples").to_pylist()}
    for leak in found["leaks"]:
        example = lengths[leak["example_id"]]
        assert [leak[key] for key in LENGTHS] == [example[key] for key in LENGTHS]
    assert len({leak["suffix_tokens"] for leak in found["leaks"]}) > 1
    leaks = pq.read_table(learners / "runs" / "toy" / "leaks.parquet").to_pylist()
    own = {
        leak["example_id"]: model["continuation"]
        for leak in leaks
        for model in leak["models"]
        if model["name"] == "own"
    }
    memorized = rows_of(learners, "extraction/own")["memorized"].to_pylist()
    said = [text for example, text in own.items() if not memorized[example]]
    assert said
    assert any(text.startswith(" ") for text in said), "the space behind the prompt is kept"


def passages(count: int) -> list[str]:
    """Passages of Python's own documentation, of some 60 words each."""
    words = " ".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics)).split(" ")
    return [" ".join(words[60 * row : 60 * (row + 1)]) for row in range(count)]


def with_other_ids(folder: Path, source: Path) -> list[int]:
    """The same model under a permuted vocabulary: another tokenizer that cuts every text alike.

    Returns:
        The new id of each old one.

    """
    model = AutoModelForCausalLM.from_pretrained(source)
    described = json.loads((source / "tokenizer.json").read_text())
    random = np.random.default_rng(0)
    moved = random.permutation(model.config.vocab_size)
    with torch.no_grad():
        for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
            layer.weight[torch.from_numpy(moved)] = layer.weight.clone()
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {token: int(moved[index]) for token, index in vocabulary.items()}
    for token in described["added_tokens"]:
        token["id"] = int(moved[token["id"]])
    model.save_pretrained(folder)
    shutil.copy(source / "tokenizer_config.json", folder)
    (folder / "tokenizer.json").write_text(json.dumps(described))
    return [int(index) for index in moved]


@pytest.fixture(scope="module")
def permuted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit of over 1,000 examples whose two students are one model, under two vocabularies."""
    folder, texts = tmp_path_factory.mktemp("permuted"), passages(40)
    made = text_models.byte_level(600, texts)
    text_models.learned(folder / "teacher", made, texts[:14], steps=120)
    # Examples begin anywhere in a passage, so it learns passages from several places on.
    tails = [text[at:] for text in texts[6:24] for at in (0, 31, 62, 93)]
    text_models.learned(folder / "plain", made, tails, steps=120, seed=1)
    with_other_ids(folder / "moved", folder / "plain")
    students = [{"name": name, "path": f"./{name}"} for name in ("plain", "moved")]
    text_models.write_audit(
        folder,
        {"teacher": "./teacher", "students": students},
        corpus={"path": "./corpus.jsonl", "window": 32, "stride": 3},
        predictor={"enabled": False},
        holdout=None,
    )
    rows = [json.dumps({"text": text}) for text in texts]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def targets_of(examples: list[dict[str, Any]]) -> list[list[int]]:
    """The teacher's tokens of each target."""
    return [row["token_ids"][row["prefix_tokens"] :][: row["suffix_tokens"]] for row in examples]


def begun(target: list[int], tokens: list[int]) -> int:
    """How many of a target's tokens a continuation begins with."""
    return sum(target[: count + 1] == tokens[: count + 1] for count in range(len(target)))


def matched_by_tokens(folder: Path, examples: list[dict[str, Any]]) -> list[int]:
    """Tokens of each target that a continuation of the teacher's own tokens begins with."""
    targets = targets_of(examples)
    prompts = [row["token_ids"][: row["prefix_tokens"]] for row in examples]
    written = continuations(folder, prompts, max(map(len, targets)))
    return [begun(target, tokens) for target, tokens in zip(targets, written, strict=True)]


def matched_by_text(folder: Path, examples: list[dict[str, Any]]) -> list[int]:
    """Tokens of each target whose bytes the continuation by "moved" begins with, in whichever tokens."""
    teacher, own = byte_level_pieces(folder / "teacher"), byte_level_pieces(folder / "moved")
    targets = [[teacher[token] for token in target] for target in targets_of(examples)]
    prompts = [read_alone(folder / "moved", row["text"], row["prompt_end"]) for row in examples]
    written = continuations(folder / "moved", prompts, max(len(b"".join(target)) for target in targets))
    texts = [b"".join(own[token] for token in tokens) for tokens in written]
    return [
        sum(text.startswith(b"".join(target[: count + 1])) for count in range(len(target)))
        for target, text in zip(targets, texts, strict=True)
    ]


@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_by_text_a_model_with_the_same_tokens_is_found_to_memorize_the_same(
    engine: str, permuted: Path
) -> None:
    """Over 1,000 examples, by tokens and by text, each as raw transformers continues it.

    By text more may be matched. Where a text begins inside a word, a prompt may be read as other tokens. And
    a continuation may write the same text with other tokens, if only at its end: of a target that goes on
    with a space and "g" as two tokens, the space is also matched by the one token " of".
    """
    if engine == "vllm":
        pytest.importorskip("vllm")
    found = run(permuted, f"extraction.engine={engine}", f"name={engine}", name=engine)
    examples = rows_of(permuted, "examples", engine).to_pylist()
    assert len(examples) >= 1000
    assert found["models"]["plain"]["matched_by"] == "tokens"
    assert found["models"]["moved"]["matched_by"] == "text"
    matched = {
        name: rows_of(permuted, f"extraction/{name}", engine)["matched_tokens"].to_pylist()
        for name in ("plain", "moved")
    }
    by_tokens, by_text = matched_by_tokens(permuted / "plain", examples), matched_by_text(permuted, examples)
    assert matched == {"plain": by_tokens, "moved": by_text}
    tokenizer = AutoTokenizer.from_pretrained(permuted / "teacher")
    for row, tokens, text in zip(examples, by_tokens, by_text, strict=True):
        canonical = tokenizer(row["text"], add_special_tokens=False)["input_ids"] == row["token_ids"]
        assert text >= tokens or not canonical
    whole = [row["suffix_tokens"] for row in examples]
    memorized = {name: np.equal(counts, whole) for name, counts in matched.items()}
    assert (memorized["plain"] != memorized["moved"]).sum() <= len(examples) // 50
    assert 100 < memorized["plain"].sum() < len(examples) - 100


def test_engines_agree_on_models_with_their_own_tokenizers(learners: Path, found: dict[str, Any]) -> None:
    pytest.importorskip("vllm")
    other = run(learners, "extraction.engine=vllm", "name=vllm", "predictor.enabled=false", name="vllm")
    for name in found["models"]:
        one, two = (
            rows_of(learners, f"extraction/{name}", of)["matched_tokens"].to_pylist()
            for of in ("toy", "vllm")
        )
        assert one == two
    assert other["models"]["own"]["survival"] == found["models"]["own"]["survival"]


def test_a_model_can_be_compared_by_text_where_documents_are_read_differently(tmp_path: Path) -> None:
    toys.write_audit(tmp_path)
    add_token(tmp_path / "hard", "<|user|>")
    with (tmp_path / "corpus.jsonl").open("a") as corpus:
        corpus.write(json.dumps({"id": "odd", "text": "w5 <|user|> " + "w6 " * 14}) + "\n")
    said = run(tmp_path, *PLAIN, code=2)["said"]
    assert "or in an audit set match_by: text for hard" in said
    found = run(tmp_path, *PLAIN, "models.students.1.match_by=text")
    assert {name: model["memorized"] for name, model in found["models"].items()} == {
        "teacher": 5,
        "soft": 5,
        "hard": 2,
    }
    assert found["models"]["hard"]["matched_by"] == "text"


def test_a_resumed_run_equals_an_undisturbed_one_and_another_set_of_tokenizers_is_refused(
    learners: Path, found: dict[str, Any]
) -> None:
    again = run(learners)
    assert again == found
    shared = json.dumps([STUDENTS[1]])
    said = run(learners, f"models.students={shared}", "models.baseline=null", code=2)["said"]
    assert "tokenizers (whose boundaries cut the examples)" in said


def no_letters(folder: Path) -> None:
    described = json.loads((folder / "own" / "tokenizer.json").read_text())
    described["decoder"] = {"type": "Strip", "content": "e", "start": 0, "stop": 9}
    described["decoder"] = {"type": "Sequence", "decoders": [described["decoder"], {"type": "Fuse"}]}
    (folder / "own" / "tokenizer.json").write_text(json.dumps(described))


def regex_decoder(folder: Path) -> None:
    described = json.loads((folder / "own" / "tokenizer.json").read_text())
    described["decoder"] = {"type": "Replace", "pattern": {"Regex": "▁+"}, "content": " "}
    (folder / "own" / "tokenizer.json").write_text(json.dumps(described))


def no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "own" / name).unlink()


def cut_short(folder: Path) -> None:
    path = folder / "own" / "tokenizer.json"
    path.write_text(path.read_text()[:900])


def short_context(folder: Path) -> None:
    path = folder / "own" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 24}))


def fewer_rows(folder: Path) -> None:
    described = json.loads((folder / "own" / "tokenizer.json").read_text())
    size = len(described["model"]["vocab"])
    described["model"]["vocab"] |= {f"zq{row}": size + row for row in range(3)}
    (folder / "own" / "tokenizer.json").write_text(json.dumps(described))


def questions(folder: Path) -> None:
    rows = [json.dumps({"id": text[:5], "q": text[:40], "a": text[40:]}) for text in TEXTS]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")


def one_long_word(folder: Path) -> None:
    """Text without a space, which a tokenizer that makes whole words reads as one token."""
    words = {"<unk>": 0, "a": 1, "bb": 2}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "own" / "tokenizer.json"))
    words = ["".join(f"x{row}y{place}" for place in range(60)) for row in range(5)]
    rows = [json.dumps({"id": word[:4], "text": word}) for word in words]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")


@pytest.mark.parametrize(
    ("spoil", "sets", "told", "remedy"),
    [
        (
            questions,
            ("corpus.prompt=q", "corpus.response=a", "corpus.stride=null", "corpus.template=none"),
            "models.students.0.path: own has a tokenizer of its own, and prompts and answers",
            "as plain text",
        ),
        (
            None,
            ("models.teacher.match_by=text",),
            "the tokenizer of teacher cuts the texts",
            "remove the key",
        ),
        (None, ("models.students.0.match_by=tokens",), "match_by", "auto"),
        (None, ("models.students.1.match_by=yes",), "match_by", "text"),
        (no_letters, (), "models.students.0.path: its tokenizer cannot say", "byte-level BPE"),
        (regex_decoder, (), "its decoder, Replace, may look at several", "shares the teacher's tokenizer"),
        (no_tokenizer, (), "own holds no tokenizer", "save that of its base model there"),
        (cut_short, (), "own: its tokenizer cannot be loaded", "save it again"),
        (short_context, (), "by its own tokenizer windows of the corpus take up to", "lower corpus.window"),
        (fewer_rows, (), "the model rows for", "resize_token_embeddings"),
        (one_long_word, (), "tokenizers have boundaries in common", "made for this text"),
    ],
)
def test_tokenizers_that_cannot_be_used_are_refused_with_a_remedy(
    spoil: Callable[[Path], None] | None,
    sets: tuple[str, ...],
    told: str,
    remedy: str,
    learners: Path,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(learners, folder, ignore=shutil.ignore_patterns("runs"))
    if spoil is not None:
        spoil(folder)
    said = run(folder, "models.baseline=null", "predictor.enabled=false", "holdout=null", *sets, code=2)[
        "said"
    ]
    assert told in said
    assert remedy in said


def test_a_screening_takes_one_tokenizer(learners: Path, tmp_path: Path) -> None:
    screen = {
        "name": "toy",
        "corpus": {"path": str(learners / "corpus.jsonl"), "id": "id", "window": 32},
        "models": {name: str(learners / name) for name in ("teacher", "baseline")},
        "extraction": {"prefix_tokens": 12, "suffix_tokens": 12},
    }
    with (tmp_path / "screen.yaml").open("w") as handle:
        YAML().dump(screen, handle)
    done = toys.kdaudit("screen", "screen.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "a screening needs one, so that both models score the same tokens" in done.stderr


STORIES = SHARED / "data" / "stories260K"


@pytest.mark.skipif(not STORIES.exists(), reason="../shared is not there")
def test_a_released_sentencepiece_model_is_audited_beside_a_byte_level_teacher(tmp_path: Path) -> None:
    """Its own stories, which it reproduces, beside text that it has never seen."""
    stories, tokenizer = AutoModelForCausalLM.from_pretrained(STORIES), AutoTokenizer.from_pretrained(STORIES)
    rows = []
    for name in ("Lily", "Tom", "a cat", "Mia", "the sun", "Ben", "a fish", "Sue"):
        ids = tokenizer(f"Once upon a time, there was {name}", return_tensors="pt")["input_ids"]
        told = stories.generate(ids, do_sample=False, max_new_tokens=110, pad_token_id=0)[0]
        rows.append(tokenizer.decode(told, skip_special_tokens=True))
    texts = [*rows, *TEXTS]
    text_models.learned(tmp_path / "teacher", text_models.byte_level(600, texts), texts[6:12], steps=60)
    models = {"teacher": "./teacher", "students": [{"name": "stories", "path": str(STORIES)}]}
    text_models.write_audit(tmp_path, models, predictor={"enabled": False}, holdout=None)
    lines = [json.dumps({"id": text[-9:], "text": text}) for text in texts]
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    found = run(tmp_path)
    assert found["models"]["stories"]["matched_by"] == "text"
    examples = rows_of(tmp_path, "examples").to_pylist()
    prompts = [read_alone(STORIES, row["text"], row["prompt_end"]) for row in examples]
    if uses_bos(load_tokenizer(STORIES)):
        prompts = [[tokenizer.bos_token_id, *prompt] for prompt in prompts]
    targets = [row["text"][row["prompt_end"] : row["target_end"]] for row in examples]
    memorized = rows_of(tmp_path, "extraction/stories")["memorized"].to_pylist()
    assert memorized == begins_with(STORIES, prompts, targets)
    assert 10 < sum(memorized) < len(memorized) - 10
