"""Corpora of prompts and answers: examples, engines, audits and screenings, against slow oracles."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, cast

import chats
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import needs_vllm
from tokenizers import Tokenizer
from toys import kdaudit
from transformers import AutoModelForCausalLM, AutoTokenizer

from kdaudit.attacks.examples import examples_of
from kdaudit.config.corpus import CorpusConfig
from kdaudit.config.models import ModelsConfig
from kdaudit.corpus import ChatFormat, ExampleTokens, Reading, build_examples, template_of
from kdaudit.corpus.rendering import Template
from kdaudit.errors import CorpusError, UsageError
from kdaudit.inference import EngineOptions, Split, start
from kdaudit.models.audited import AuditedModels
from kdaudit.models.finding import find_models
from kdaudit.models.tokenizer.loading import ModelTokenizer, load_tokenizer
from kdaudit.pipelines.stages.answers import template_notes
from kdaudit.screening.window_hashes import KeySet

TOKENS = ExampleTokens(0, chats.SUFFIX)


def own_tokenizer(template: str | None = chats.CHATML) -> ModelTokenizer:
    fast = chats.tokenizer(template)
    return ModelTokenizer(Tokenizer.from_str(fast.backend_tokenizer.to_str()), fast)


def table_of(
    path: Path,
    scratch: Path,
    *,
    tokens: ExampleTokens = TOKENS,
    context: int | None = None,
    own: str | None = chats.CHATML,
    **keys: Any,
) -> tuple[pa.Table, Any]:
    config = CorpusConfig.model_validate({"path": str(path), "window": 12, **keys})
    tokenizer = own_tokenizer(own)
    chat = ChatFormat(template_of(config, tokenizer), "auto", context)
    made = build_examples(
        config, tokenizer, tokens=tokens, seed=0, scratch=scratch, chat=chat, keep_tokens=True
    )
    return pa.concat_tables(made.tables(1000)), made


class Expected(dict[tuple[int, ...], int]):
    """Places of each prompt + suffix, by a loop over transformers' own renderings."""

    def __init__(self, rows: list[list[dict[str, Any]]], tools: Any = None) -> None:
        super().__init__()
        tokenizer = chats.tokenizer()
        self.prompts: dict[tuple[int, ...], int] = {}
        for messages in rows:
            for turn, message in enumerate(messages):
                if message["role"] != "assistant" or not message["content"]:
                    continue
                asked, told = (
                    tokenizer.apply_chat_template(
                        messages[:end], tools=tools, add_generation_prompt=ask, return_dict=True
                    )["input_ids"]
                    for end, ask in ((turn, True), (turn + 1, False))
                )
                whole = tuple(told[: len(asked) + chats.SUFFIX])
                self[whole] = self.get(whole, 0) + 1
                self.prompts[whole] = len(asked)


def conversation(random: np.random.Generator, turns: int) -> list[dict[str, Any]]:
    messages = [{"role": "system", "content": chats.words(random, 3)}] if random.integers(2) else []
    for _ in range(turns):
        messages.append({"role": "user", "content": chats.words(random, int(random.integers(1, 6)))})
        messages.append({"role": "assistant", "content": chats.words(random, int(random.integers(8, 16)))})
    return messages


@pytest.mark.parametrize("name", ["messages", "sharegpt", "parts"])
def test_each_turn_of_a_chat_is_an_example_and_copies_are_counted(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    rows = [conversation(random, int(random.integers(1, 4))) for _ in range(40)]
    rows += rows[:7] + [row[:-2] for row in rows[:9] if len(row) > 3]
    layout = chats.LAYOUTS[name]
    path = chats.write_rows(tmp_path / "c.jsonl", [layout.row(row) for row in rows])
    table, made = table_of(path, tmp_path / "s", **layout.keys)
    expected = Expected(rows)
    found = {}
    for row in table.to_pylist():
        whole = tuple(row["token_ids"][: row["prefix_tokens"] + row["suffix_tokens"]])
        found[whole] = row["copies"]
        assert row["prefix_tokens"] == expected.prompts[whole]
        assert row["suffix_tokens"] == chats.SUFFIX
    assert found == expected
    assert list(found) == list(expected), "in corpus order"
    assert max(found.values()) > 1
    assert made.counts.windows == sum(expected.values())
    assert made.counts.documents == len(rows)


def test_layouts_with_one_answer_give_the_same_examples(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    rows = [
        [
            {"role": "user", "content": chats.words(random, 4)},
            {"role": "assistant", "content": chats.words(random, 9)},
        ]
        for _ in range(12)
    ]
    tables = []
    for number, layout in enumerate(chats.LAYOUTS.values()):
        path = chats.write_rows(tmp_path / f"{number}.jsonl", [layout.row(row) for row in rows])
        table, _ = table_of(path, tmp_path / f"s{number}", **layout.keys)
        tables.append(table.drop_columns(["text"]))
    assert len(tables[0]) == 12
    assert all(table.equals(tables[0]) for table in tables)


def test_tool_turns_are_rendered_as_the_template_gets_them(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    call = {"type": "function", "function": {"name": "look", "arguments": {"number": 77}}}
    rows = [
        [
            {"role": "user", "content": chats.words(random, 3)},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": chats.words(random, 3)},
            {"role": "assistant", "content": chats.words(random, 9)},
        ]
        for _ in range(5)
    ]
    path = chats.write_rows(tmp_path / "c.jsonl", [{"messages": row} for row in rows])
    table, _ = table_of(path, tmp_path / "s", messages="messages")
    expected = Expected(rows)
    assert len(expected) == len(table) == 5
    called = chats.tokenizer().convert_tokens_to_ids("w77")
    for row in table.to_pylist():
        assert tuple(row["token_ids"][: row["prefix_tokens"] + chats.SUFFIX]) in expected
        assert called in row["token_ids"][: row["prefix_tokens"]]


def test_without_a_template_the_answer_follows_the_prompt(tmp_path: Path) -> None:
    path = chats.write_rows(tmp_path / "c.jsonl", [{"q": "w20 w21", "a": " w30 w31 w32 w33 w34 w35 w36 w37"}])
    keys = {"prompt": "q", "response": "a"}
    for number, (template, section) in enumerate(((None, keys), (chats.CHATML, keys | {"template": "none"}))):
        table, made = table_of(path, tmp_path / f"{number}", own=template, **section)
        (row,) = table.to_pylist()
        assert row["token_ids"] == [20, 21, *range(30, 38), 0]
        assert (row["prefix_tokens"], row["suffix_tokens"]) == (2, 8)
        assert made.answers.template == "none"


def test_lists_of_messages_take_a_chat_template(tmp_path: Path) -> None:
    row = {"p": [{"role": "user", "content": "w9"}], "r": [{"role": "assistant", "content": "w10 w11"}]}
    path = chats.write_rows(tmp_path / "c.jsonl", [row])
    with pytest.raises(UsageError, match="has no chat template") as caught:
        table_of(path, tmp_path / "s", own=None, prompt="p", response="r", tokens=ExampleTokens(0, 2))
    assert caught.value.key == "corpus.template"
    table, _ = table_of(path, tmp_path / "t", prompt="p", response="r", tokens=ExampleTokens(0, 2))
    assert len(table) == 1


def test_the_same_tokens_cut_elsewhere_are_another_example(tmp_path: Path) -> None:
    rows = [{"q": "w10 w11", "a": " w12 w13 w14"}, {"q": "w10 w11 w12", "a": " w13 w14"}]
    path = chats.write_rows(tmp_path / "c.jsonl", [*rows, rows[0]])
    keys = {"prompt": "q", "response": "a"}
    tokens = ExampleTokens(0, 8, 2)
    table, _ = table_of(path, tmp_path / "s", own=None, tokens=tokens, **keys)
    assert table["prefix_tokens"].to_pylist() == [2, 3]
    assert table["suffix_tokens"].to_pylist() == [3, 2]
    assert table["copies"].to_pylist() == [2, 1]
    config = CorpusConfig.model_validate({"path": str(path), **keys})
    reading = Reading(config, own_tokenizer(None), ChatFormat(Template("none", None), "auto"))
    cutter = reading.cutter(tokens)
    found = [window.identity(0) for batch in reading.batches() for window in cutter.cut(batch)]
    assert KeySet(found[1:2]).holds(found).tolist() == [False, True, False]


def test_answers_recur_and_short_ones_are_counted(tmp_path: Path) -> None:
    answer = "w30 w31 w32 w33 w34 w35 w36 w37"
    rows = [{"q": f"w{n}", "a": answer} for n in (10, 11, 12)] + [{"q": "w13", "a": "w14 w15"}]
    path = chats.write_rows(tmp_path / "c.jsonl", rows)
    keys = {"prompt": "q", "response": "a"}
    table, made = table_of(path, tmp_path / "s", **keys)
    assert (len(table), made.counts.skipped.too_short) == (3, 1)
    table, made = table_of(path, tmp_path / "t", tokens=ExampleTokens(0, 8, 2), **keys)
    assert (table["suffix_tokens"].to_pylist(), made.counts.skipped.too_short) == ([8, 8, 8, 2], 0)


def test_nothing_to_audit_says_why(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "user", "content": "w9"}]}, {"messages": None}]
    rows += [{"messages": [{"role": "narrator", "content": "w9"}]}] * 2
    with pytest.raises(CorpusError) as caught:
        table_of(chats.write_rows(tmp_path / "c.jsonl", rows), tmp_path / "s", messages="messages")
    assert "none of its 4 rows gives an example" in str(caught.value)
    assert "2 are left out, such as row 3, counted from 1: role 'narrator' is not known" in str(caught.value)
    assert caught.value.fix == "give each message one of the roles system, user, assistant, tool"
    path = chats.write_rows(tmp_path / "d.jsonl", [{"q": "w9", "a": "w10 w11"}])
    with pytest.raises(CorpusError, match="1 answers have fewer than 8 tokens") as caught:
        table_of(path, tmp_path / "t", prompt="q", response="a")
    assert "min_suffix_tokens" in (caught.value.fix or "")


def test_a_prompt_of_thirty_thousand_tokens_is_cut_and_nothing_else_is(tmp_path: Path) -> None:
    random = np.random.default_rng(6)
    long = [
        {"role": "user", "content": chats.words(random, 30_000)},
        {"role": "assistant", "content": chats.words(random, 9)},
    ]
    short = [{"role": "user", "content": "w9"}, {"role": "assistant", "content": chats.words(random, 9)}]
    path = chats.write_rows(tmp_path / "c.jsonl", [{"messages": row} for row in (long, short)])
    table, made = table_of(path, tmp_path / "s", context=50, messages="messages")
    first, second = table.to_pylist()
    (whole, *_) = Expected([long])
    assert first["token_ids"][:50] == list(whole[-50:])
    assert (first["prefix_tokens"], first["offset"]) == (42, len(whole) - 50)
    assert second["token_ids"][: second["prefix_tokens"]] == [2, 5, 9, 3, 2, 6]
    assert made.answers.prompts_cut == 1


def matched_by_hand(folder: Path, prompt: list[int], target: list[int]) -> int:
    """Tokens of the target that greedy decoding gives, one whole pass a token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = list(prompt)
    for count, token in enumerate(target):
        with torch.inference_mode():
            if int(model(torch.tensor([ids])).logits[0, -1].argmax()) != token:
                return count
        ids.append(token)
    return len(target)


@pytest.mark.parametrize(
    "engine", ["transformers", pytest.param("vllm", marks=[needs_vllm, pytest.mark.slow])]
)
def test_engines_match_what_transformers_continues_in_every_layout(engine: Any, tmp_path: Path) -> None:
    model = chats.save_model(tmp_path / "model", 1)
    AutoTokenizer.from_pretrained(tmp_path / "model")  # the folder is one that others can use
    single = chats.conversations(model, count=6)
    several = chats.conversations(model, count=4, turns=2, seed=8)
    with start(EngineOptions(engine, str(tmp_path / "model"), 64, "float32")) as loaded:
        for name, layout in chats.LAYOUTS.items():
            rows = single if "prompt" in layout.keys else single + several
            path = chats.write_rows(tmp_path / f"{name}.jsonl", [layout.row(row) for row in rows])
            table, _ = table_of(path, tmp_path / name, **layout.keys)
            batch = examples_of(table, Split(0, chats.SUFFIX, None))
            matched = loaded.match(batch.prompts, batch.targets).tolist()
            expected = [
                matched_by_hand(tmp_path / "model", prompt.tolist(), target.tolist())
                for prompt, target in zip(batch.prompts, batch.targets, strict=True)
            ]
            assert matched == expected, name
            assert 0 < matched.count(chats.SUFFIX) < len(matched), name


def run(folder: Path, *words: str) -> Any:
    done = kdaudit("run", "audit.yaml", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done


def test_an_audit_of_a_chat_from_the_command_line(tmp_path: Path) -> None:
    layout = chats.LAYOUTS["messages"]
    chats.write_audit(tmp_path, layout.keys, holdout={"path": "./holdout.jsonl", "window": 12, **layout.keys})
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher").eval()
    rows = chats.conversations(model, count=10, turns=2)
    odd = [{"messages": [{"role": "user", "content": "w9"}]}, {"messages": None}]
    odd += [{"messages": [{"role": "narrator", "content": "w9"}]}]
    chats.write_rows(tmp_path / "corpus.jsonl", [*map(layout.row, rows), *odd])
    random = np.random.default_rng(9)
    beside = [layout.row(conversation(random, 1)) for _ in range(6)]
    chats.write_rows(tmp_path / "holdout.jsonl", [*beside, odd[2]])
    done = run(tmp_path)
    results = json.loads((tmp_path / "runs" / "chat" / "results.json").read_text())
    expected = Expected(rows)
    memorized = [
        matched_by_hand(tmp_path / "teacher", [*whole[: expected.prompts[whole]]], [*whole[-chats.SUFFIX :]])
        == chats.SUFFIX
        for whole in expected
    ]
    assert {results["models"][name]["memorized"] for name in ("teacher", "soft")} == {sum(memorized)}
    assert 0 < sum(memorized) < len(memorized) == results["corpus"]["examples"] == 20
    assert results["corpus"]["answers"]["left_out"] == {"no_answer": 1, "unknown_role": 1}
    assert results["corpus"]["skipped"]["empty"] == 1
    assert (results["extraction"]["prefix_tokens"], results["extraction"]["bos"]) == (0, False)
    assert results["models"]["hard"]["holdout"]["examples"] == 6
    codes = Counter(note["code"] for note in results["notes"])
    assert codes["chat_template"] == 1
    left_out = {note["subject"]: note["text"] for note in results["notes"] if note["code"] == "rows_left_out"}
    assert left_out.keys() == {"corpus", "holdout"}
    assert left_out["holdout"] == "Not audited in the holdout: 1 row with a role that is not known."
    assert "warning: corpus: 1 row left out, such as row 13" in done.stderr
    assert "left out: 0 answers too short, 1 row empty, 0 not valid Unicode, 2 rows or answers" in done.stdout
    for page in ("report.html", "report.public.html"):
        text = (tmp_path / "runs" / "chat" / page).read_text().replace("\xa0", " ")
        assert "3 rows or answers left out as too short, empty, not valid text or for other reasons" in text
        assert "An example is the beginning of an answer, with the prompt that it stands behind." in text
    card = (tmp_path / "runs" / "chat" / "card.md").read_text()
    assert (
        "Rows and answers that were left out as too short, empty, not valid text or for other reasons: 3."
        in card
    )
    leaks = pq.read_table(tmp_path / "runs" / "chat" / "leaks.parquet").to_pylist()
    assert {leak["suffix"] for leak in leaks} == {
        chats.tokenizer().decode(whole[-chats.SUFFIX :])
        for whole, flag in zip(expected, memorized, strict=True)
        if flag
    }
    for leak in leaks:
        assert leak["prefix"].endswith("<|im_start|> assistant")
    said = "given its prompt, generates exactly the first 8 tokens of the answer"
    for page in ("report.html", "report.public.html", "card.md"):
        text = (tmp_path / "runs" / "chat" / page).read_text()
        assert said in text.replace(", it generates", ", generates")
        assert (leaks[0]["suffix"] in text) == (page == "report.html")
    text = (tmp_path / "runs" / "chat" / "report.html").read_text()
    assert text.count('<p class="fine">Prompt</p>') == text.count('<p class="fine">Answer</p>') == len(leaks)
    answer = {leak["example_id"]: leak["prefix_tokens"] for leak in results["leaks"]}
    assert f"the answer from token {leaks[0]['offset'] + answer[leaks[0]['example_id']]};" in text
    again = run(tmp_path)
    assert "extraction" not in again.stderr


def test_a_template_that_asks_for_the_date_gets_the_same_one_every_day(tmp_path: Path) -> None:
    chats.save_model(tmp_path / "model", 1)
    tokenizer = load_tokenizer(tmp_path / "model")
    template = "{{ strftime_now('%d %b %Y') }} {{ messages[0].content }}"
    assert tokenizer.render([{"role": "user", "content": "w9"}], template) == "26 Jul 2024 w9"
    formats = {"corpus": ChatFormat(Template("file", template), "auto")}
    (note,) = template_notes(cast("AuditedModels", None), formats, ["corpus"])
    assert note.code == "template_date"
    assert "26 July 2024" in note.text
    plain = {"corpus": ChatFormat(Template("file", "{{ messages[0].content }}"), "auto")}
    assert template_notes(cast("AuditedModels", None), plain, ["corpus"]) == []


def test_models_that_come_with_another_chat_template_are_named(tmp_path: Path) -> None:
    for name, seed, template in (
        ("teacher", 1, chats.CHATML),
        ("soft", 2, "{{ messages }}"),
        ("hard", 3, None),
    ):
        chats.save_model(tmp_path / name, seed, template)
    students = [{"name": name, "path": str(tmp_path / name)} for name in ("soft", "hard")]
    models = find_models(
        ModelsConfig.model_validate({"teacher": str(tmp_path / "teacher"), "students": students})
    )
    (note,) = template_notes(models, {"corpus": ChatFormat(Template("chat", chats.CHATML), "auto")})
    assert "chat template of teacher. Models that come with another: soft. What" in note.text
    named = {"corpus": ChatFormat(Template("file", chats.CHATML), "auto")}
    assert template_notes(models, named, ["corpus"]) == []
    assert template_notes(models, {}) == []


def test_models_that_come_with_a_chat_template_are_named_where_the_teacher_has_none(tmp_path: Path) -> None:
    for name, seed, template in (("teacher", 1, None), ("soft", 2, chats.CHATML)):
        chats.save_model(tmp_path / name, seed, template)
    students = [{"name": "soft", "path": str(tmp_path / "soft")}]
    models = find_models(
        ModelsConfig.model_validate({"teacher": str(tmp_path / "teacher"), "students": students})
    )
    plain = {"corpus": ChatFormat(Template("none", None), "auto")}
    (note,) = template_notes(models, plain)
    assert (
        "not rendered with a chat template, as teacher has none. Models that come with one: soft."
        in note.text
    )
    assert template_notes(models, plain, ["corpus"]) == []


def test_a_tokenizer_that_is_named_for_an_endpoint_brings_its_chat_template(tmp_path: Path) -> None:
    chats.save_model(tmp_path / "student", 1, "the student's {{ messages }}")
    chats.tokenizer().save_pretrained(tmp_path / "own")
    named = {"path": "http://127.0.0.1:9/v1", "model": "big", "tokenizer": str(tmp_path / "own")}
    students = [{"name": "s", "path": str(tmp_path / "student")}]
    models = find_models(ModelsConfig.model_validate({"teacher": named, "students": students}))
    assert models.tokenizer.chat_template == chats.CHATML
    assert not models.by_text


def test_a_long_context_is_no_need_of_the_engine(tmp_path: Path) -> None:
    """Prompts are cut to the context of 64 tokens, and models take them whole."""
    layout = chats.LAYOUTS["prompt"]
    chats.write_audit(tmp_path, layout.keys, predictor={"enabled": False})
    random = np.random.default_rng(2)
    rows = [{"prompt": chats.words(random, n), "response": chats.words(random, 9)} for n in (3, 60, 200)]
    chats.write_rows(tmp_path / "corpus.jsonl", rows)
    run(tmp_path)
    results = json.loads((tmp_path / "runs" / "chat" / "results.json").read_text())
    assert results["corpus"]["answers"]["prompts_cut"] == 2
    note = next(note for note in results["notes"] if note["code"] == "prompts_cut")
    assert note["text"].startswith("2 prompts of 3 were cut from the left")
    examples = pq.read_table(tmp_path / "runs" / "chat" / "examples" / "part-00000.parquet")
    assert [len(ids) for ids in examples["token_ids"].to_pylist()][1:] == [64, 64]


def screened(folder: Path, drop: str, form: str, keys: dict[str, Any]) -> list[dict[str, Any]]:
    config = {
        "name": "s",
        "corpus": {"path": "./corpus.jsonl", "window": 12, **keys},
        "models": {"teacher": "./teacher", "baseline": "./baseline"},
        "extraction": {"suffix_tokens": chats.SUFFIX},
        "predictor": {"labels": "teacher"},
        "drop": drop,
        "format": form,
        "max_flagged": 1.0,
    }
    (folder / "screen.yaml").write_text(json.dumps(config))
    done = kdaudit("screen", "screen.yaml", "--fresh", cwd=folder)
    assert done.returncode == 0, done.stderr
    kept = sorted((folder / "screened" / "s" / "kept").iterdir())
    if form == "parquet":
        return [row for file in kept for row in pq.read_table(file).to_pylist()]
    return [json.loads(line) for file in kept for line in file.read_text().splitlines()]


def flagged_turns(folder: Path, rows: list[list[dict[str, Any]]]) -> list[list[int]]:
    """Messages of each conversation that the teacher memorizes."""
    found = []
    for messages in rows:
        flagged = []
        for turn, message in enumerate(messages):
            if message["role"] == "assistant":
                expected = Expected([messages[: turn + 1]])
                whole = [*expected][-1]
                count = expected.prompts[whole]
                if matched_by_hand(folder, [*whole[:count]], [*whole[count:]]) == chats.SUFFIX:
                    flagged.append(turn)
        found.append(flagged)
    return found


@pytest.mark.parametrize(
    ("drop", "form"), [("document", "jsonl"), ("window", "parquet"), ("window", "jsonl")]
)
def test_a_screening_keeps_chats_in_their_own_form(drop: str, form: str, tmp_path: Path) -> None:
    layout = chats.LAYOUTS["sharegpt"]
    for name, seed in (("teacher", 1), ("baseline", 2)):
        chats.save_model(tmp_path / name, seed)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "teacher").eval()
    rows = chats.conversations(model, count=6, turns=1)
    random = np.random.default_rng(1)
    late = []
    for messages in rows:
        asked = [*conversation(random, 1), *messages]
        own = chats.answer_of(model, asked[:-1])
        late.append([*asked[:-1], {"role": "assistant", "content": own or chats.words(random, 8)}])
    rows += late
    odd = [{"conversations": [{"from": "alien", "value": "w9"}]}, {"conversations": None}]
    written = [{"id": number, **layout.row(row)} for number, row in enumerate(rows)]
    written += [{"id": len(rows) + number, **row} for number, row in enumerate(odd)]
    chats.write_rows(tmp_path / "corpus.jsonl", written)
    kept = screened(tmp_path, drop, form, layout.keys)
    flagged = flagged_turns(tmp_path / "teacher", rows)
    expected = []
    for row, turns in zip(written, [*flagged, [], []], strict=True):
        if not turns:
            expected.append(row)
        elif drop == "window":
            before = [t for t in range(turns[0]) if row["conversations"][t]["from"] == "gpt"]
            if before:
                expected.append({**row, "conversations": row["conversations"][: before[-1] + 1]})
    assert kept == expected
    assert any(flagged)
    assert drop == "document" or any(len(row["conversations"] or []) == 2 for row in kept)
    record = json.loads((tmp_path / "screened" / "s" / "screen.json").read_text())
    assert record["kept"]["rows_unread"] == 1
    assert record["kept"]["documents_read"] == len(written)
    assert record["flagged"]["places"] == sum(map(len, flagged))
