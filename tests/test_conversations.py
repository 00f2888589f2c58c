"""Rows of prompts and answers, in all layouts and none: what they say, what is counted, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import chats
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import open_documents
from kdaudit.corpus.conversations import Conversation
from kdaudit.errors import CorpusError

ASKED = [{"role": "user", "content": "what is it"}, {"role": "assistant", "content": "a fox, of course"}]


def config(path: Path, **keys: Any) -> CorpusConfig:
    return CorpusConfig.model_validate({"path": str(path), **keys})


def read(path: Path, **keys: Any) -> tuple[list[Conversation | None], Any]:
    documents = open_documents(config(path, **keys))
    return [document.conversation for document in documents], documents


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    return chats.write_rows(tmp_path / "corpus.jsonl", [*rows])


@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", chats.LAYOUTS)
def test_a_conversation_is_the_same_in_every_layout_and_format(name: str, form: str, tmp_path: Path) -> None:
    layout = chats.LAYOUTS[name]
    row, path = layout.row(ASKED), tmp_path / f"corpus.{form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps([row] if form == "json" else row))
    ((found,), _) = read(path, **layout.keys)
    said = "what\nis it" if name == "instruction" else "what is it"
    assert found is not None
    assert found.before == ("messages" not in layout.keys)
    assert found.messages == [{**ASKED[0], "content": said}, ASKED[1]]


def test_a_csv_holds_prompts_and_answers_too(tmp_path: Path) -> None:
    path = tmp_path / "corpus.csv"
    path.write_text('q,a\n"what is it","a fox, of course"\n')
    ((found,), _) = read(path, prompt="q", response="a")
    assert found is not None
    assert found.messages == ASKED


def test_what_a_template_may_look_at_is_kept_and_what_tables_fill_up_is_not(tmp_path: Path) -> None:
    call = {"type": "function", "function": {"name": "look", "arguments": {"where": "here"}}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    messages = [
        {"role": "user", "content": "where", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "there", "name": "look"},
        {"role": "assistant", "content": "it is there"},
    ]
    path = jsonl(tmp_path, {"messages": messages, "tools": json.dumps(tools)})
    ((found,), _) = read(path, messages="messages")
    assert found == Conversation(
        [
            {"role": "user", "content": "where"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "there", "name": "look"},
            {"role": "assistant", "content": "it is there"},
        ],
        tools,
    )


ODD = {
    "empty": [
        {"messages": None},
        {"messages": []},
        {},
        {"messages": [{"role": "assistant", "content": " \n"}]},
        {"messages": [{"role": "user", "content": None}]},
    ],
    "no_answer": [
        {"messages": [{"role": "user", "content": "hello"}]},
        {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": ""}]},
        {"messages": [{"role": "system", "content": "hello"}]},
    ],
    "unknown_role": [
        {"messages": [*ASKED, {"role": "narrator", "content": "so"}]},
        {"messages": [{"from": "alien", "value": "so"}]},
        {"messages": [{"role": "", "content": "so"}]},
    ],
    "not_text": [
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ASKED[1]]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}, ASKED[1]]},
        {"messages": [{"role": "user", "content": [7]}, ASKED[1]]},
        {"messages": [{"role": "user", "content": [{"image": "a.png"}]}, ASKED[1]]},
    ],
    "template": [
        {"messages": ASKED, "tools": "look, find"},
        {"messages": ASKED, "tools": {"name": "look"}},
        {"messages": ASKED, "tools": '{"name": "look"}'},
    ],
    "undecodable": [
        {"messages": [{"role": "user", "content": "\ud800"}, ASKED[1]]},
        {"messages": [ASKED[0], {"role": "assistant", "content": "a \udfff fox"}]},
    ],
}


def test_odd_rows_are_counted_by_what_is_odd_and_the_others_are_read(tmp_path: Path) -> None:
    rows = [row for rows in ODD.values() for row in rows]
    whole = [{"messages": ASKED, **more} for more in ({}, {"tools": ""}, {"tools": "[]"}, {"tools": {}})]
    found, documents = read(jsonl(tmp_path, *rows, *whole), messages="messages")
    assert found == [Conversation(ASKED)] * len(whole)
    counted = {why: one.rows for why, one in documents.left_out.items()}
    counted |= {"empty": documents.empty, "undecodable": documents.undecodable}
    assert counted == {why: len(rows) for why, rows in ODD.items()}
    first = {why: one.first for why, one in documents.left_out.items()}
    assert first == {"no_answer": 5, "unknown_role": 8, "not_text": 11, "template": 15}
    assert documents.left_out["template"].what == "the column 'tools' holds a string, not a list of functions"
    assert documents.left_out["unknown_role"].what == "role 'narrator' is not known"


def test_a_prompt_or_an_answer_without_text_is_an_empty_row(tmp_path: Path) -> None:
    rows = [{"p": "", "r": "a"}, {"p": "a", "r": None}, {"p": "a"}, {"r": "a"}, {"p": "a", "r": " "}]
    found, documents = read(jsonl(tmp_path, *rows, {"p": "a", "r": "b"}), prompt="p", response="r")
    assert [one.text for one in found if one] == ["a\nb"]
    assert documents.empty == 5


@pytest.mark.parametrize(
    ("row", "keys", "message"),
    [
        (
            {"messages": "hello"},
            {"messages": "messages"},
            "'messages' holds a string, not a list of",
        ),
        ({"messages": {"role": "user"}}, {"messages": "messages"}, "holds a json object, not a list"),
        ({"messages": ["hello"]}, {"messages": "messages"}, "holds a string, not messages, which are"),
        ({"messages": [{"text": "a"}]}, {"messages": "messages"}, "neither role and content nor from and"),
        ({"messages": [{"role": 3, "content": "a"}]}, {"messages": "messages"}, "neither role and content"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            {"messages": "messages"},
            "holds a number, not",
        ),
        ({"p": 3, "r": "a"}, {"prompt": "p", "response": "r"}, "'p' holds a number, not a text"),
        ({"p": "a", "r": ["b"]}, {"prompt": "p", "response": "r"}, "'r' holds a list, not a text"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_values_of_another_type_are_refused_with_the_place(
    row: dict[str, Any], keys: dict[str, Any], message: str, form: str, tmp_path: Path
) -> None:
    path = tmp_path / f"corpus.{form}"
    good = {"messages": ASKED} if "messages" in row else {"p": "a", "r": "b"}
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), path)
        place = "row 0"
    else:
        jsonl(tmp_path, good, row)
        place = "line 2"
    with pytest.raises(CorpusError) as caught:
        read(path, **keys)
    assert message in str(caught.value)
    assert f"{path}, {place}: " in str(caught.value)
    assert caught.value.key in ("corpus.messages", "corpus.prompt", "corpus.response")


def test_text_that_is_not_utf8_in_a_table_is_counted(tmp_path: Path) -> None:
    broken = pa.array([b"what", b"\xff\xfe", b"what"]).view(pa.binary()).cast(pa.binary())
    column = pa.Array.from_buffers(pa.string(), 3, broken.buffers())
    pq.write_table(pa.table({"p": column, "r": ["a", "b", "c"]}), tmp_path / "corpus.parquet")
    found, documents = read(tmp_path / "corpus.parquet", prompt="p", response="r")
    assert [one.text for one in found if one] == ["what\na", "what\nc"]
    assert documents.undecodable == 1


@pytest.mark.parametrize(
    ("row", "keys"),
    [
        ({"messages": ASKED}, ["`messages: messages`"]),
        ({"conversations": ASKED, "id": 3}, ["`messages: conversations`"]),
        ({"prompt": "a", "response": "b"}, ["`prompt: prompt` and `response: response`"]),
        ({"prompt": "a", "completion": "b"}, ["`prompt: prompt` and `response: completion`"]),
        ({"question": "a", "answer": "b"}, ["`prompt: question` and `response: answer`"]),
        (
            {"instruction": "a", "input": "", "output": "b"},
            ["`prompt: [instruction, input]` and `response: output`"],
        ),
        (
            {"messages": ASKED, "prompt": "a", "response": "b"},
            ["`prompt: prompt` and `response: response`", "`messages: messages`"],
        ),
        (
            {"prompt": "a", "completion": "b", "response": "c"},
            ["`prompt: prompt` and `response: completion`", "`prompt: prompt` and `response: response`"],
        ),
    ],
)
def test_a_layout_is_recognized_and_the_keys_for_it_are_told(
    row: dict[str, Any], keys: list[str], tmp_path: Path
) -> None:
    for rows in ([row], [row, row]):
        with pytest.raises(CorpusError) as caught:
            open_documents(config(jsonl(tmp_path, *rows)))
        fix = caught.value.fix or ""
        assert all(one in fix for one in keys)
        assert fix.count("`") == 2 * sum(one.count("`") // 2 for one in keys)
        assert ("in 2 ways" in caught.value.what) == (len(keys) == 2)


def test_a_column_that_is_named_and_absent_is_not_taken_for_a_layout(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="has no column 'text' but 'messages'") as caught:
        open_documents(config(jsonl(tmp_path, {"messages": ASKED}, {"messages": ASKED}), text="text"))
    assert caught.value.fix == "set corpus.text to one of them"
    with pytest.raises(CorpusError, match="has no column 'mesages'") as caught:
        read(jsonl(tmp_path, {"messages": ASKED}), messages="mesages")
    assert (caught.value.key, caught.value.fix) == ("corpus.messages", "did you mean 'messages'?")


def test_a_text_file_has_no_columns_for_prompts(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("hello\n")
    with pytest.raises(CorpusError, match="prompts and answers take some"):
        read(tmp_path / "corpus.txt", messages="messages")
