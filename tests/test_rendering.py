"""Conversations as text: where answers stand, and whether the ids are those that training sees (TRL)."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ChatFormat, ExampleTokens, template_of
from kdaudit.corpus.answers import AnswerCutter
from kdaudit.corpus.conversations import Conversation, FlawError
from kdaudit.corpus.documents import Document
from kdaudit.corpus.rendering import Renderer, Template
from kdaudit.errors import UsageError
from kdaudit.models.tokenizer.loading import ModelTokenizer

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>", "<|eot_id|>"]
SPECIAL += ["<|start_header_id|>", "<|end_header_id|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
PROSE = "The quick brown fox jumps over the lazy dog. What is it? It is a fox, and answers come. "
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def u(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def a(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CHATS = {
    "single": [u("What is it?"), a("It is a fox, and answers come.")],
    "multi": [u("What is it?"), a("It is a fox."), u("And then?"), a("The lazy dog jumps over.")],
    "system": [{"role": "system", "content": "Be brief."}, u("What is it?"), a("It is a fox.")],
    "open": [u("What is it?"), a("It is a fox."), u("And then?")],
    "twice": [u("What is it?"), a("It is a fox."), u("And now?"), a("It is a fox.")],
}
THOUGHT = [
    u("What?"),
    a("<think>\nhm, first\n</think>\n\nIt is a fox."),
    u("And?"),
    a("<think>\nhm, second\n</think>\n\nThe dog jumps."),
]


def fast_tokenizer(*, begins: bool = False) -> Any:
    """Byte-level BPE; with a BOS token of its own before each text if asked."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator([PROSE] * 40, trainer)
    if begins:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", chat_template=CHATML
    )


def own(fast: Any) -> ModelTokenizer:
    return ModelTokenizer(Tokenizer.from_str(fast.backend_tokenizer.to_str()), fast)


TWO = ExampleTokens(0, 2)
FAST = fast_tokenizer()
OWN = own(FAST)


def rendered(messages: list[dict[str, Any]], template: str, tools: Any = None) -> Document:
    document = Document("0", "", 0, Conversation(messages, tools))
    return Renderer(Template("file", template), OWN).rendered(document)


def windows(
    document: Document,
    tokenizer: ModelTokenizer,
    template: Template,
    *,
    tokens: ExampleTokens = TWO,
    window: int = 1000,
    bos: Any = "auto",
    context: int | None = None,
) -> tuple[list[Any], AnswerCutter]:
    cutter = AnswerCutter(tokenizer, ChatFormat(template, bos, context), window=window, tokens=tokens)
    return [*cutter.cut([Renderer(template, tokenizer).rendered(document)])], cutter


def trl_templates() -> list[Path]:
    trl = pytest.importorskip("trl")
    return sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))


def trl_rows(fast: Any, rows: list[dict[str, Any]], *, assistant_only: bool = False) -> list[dict[str, Any]]:
    """What TRL's own preparation makes of rows."""
    pytest.importorskip("trl")
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    trainer = SimpleNamespace(
        _tokenizer=fast, chat_template=None, completion_only_loss=not assistant_only, _is_vlm=False
    )
    args = SFTConfig(output_dir="unused", report_to="none", bf16=False, assistant_only_loss=assistant_only)
    made = SFTTrainer._prepare_dataset(
        trainer,
        Dataset.from_list(rows),
        fast,
        args,
        packing=False,
        formatting_func=None,
        dataset_name="train",
    )
    return list(made)


@pytest.mark.parametrize("name", ["single", "system", "multi"])
def test_ids_and_completion_mask_are_those_of_trl(name: str) -> None:
    messages = CHATS[name]
    (row,) = trl_rows(FAST, [{"prompt": messages[:-1], "completion": messages[-1:]}])
    found, _ = windows(Document("0", "", 0, Conversation(messages)), OWN, Template("chat", CHATML))
    last = found[-1]
    assert last.token_ids.tolist() == row["input_ids"]
    told = sum(label != -100 for label in row["labels"])
    assert last.prefix_tokens == len(row["input_ids"]) - told
    assert row["labels"][last.prefix_tokens :] == row["input_ids"][last.prefix_tokens :]


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("What is it?", " It is a fox."), ("What is it?\n", "It is a fox."), ("What is it? ", "It is a fox.")],
)
def test_without_a_template_they_are_those_of_trl_too(prompt: str, answer: str, begins: bool) -> None:
    """In the last, the space before the answer is in the answer's first token, in training as here."""
    fast = fast_tokenizer(begins=begins)
    (row,) = trl_rows(fast, [{"prompt": prompt, "completion": answer}])
    conversation = Conversation([u(prompt), a(answer)])
    (found,), _ = windows(Document("0", "", 0, conversation), own(fast), Template("none", None))
    assert found.token_ids.tolist() == row["input_ids"]
    assert row["labels"][: found.prefix_tokens] == [-100] * found.prefix_tokens
    assert row["labels"][found.prefix_tokens :] == row["input_ids"][found.prefix_tokens :]
    assert (found.token_ids == 0).sum() == begins


def masked(fast: Any, messages: list[dict[str, Any]], template: str) -> list[str]:
    """Texts of the stretches that assistant-only loss learns."""
    made = fast.apply_chat_template(
        messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True
    )
    stretches: list[list[int]] = [[]]
    for token, learned in zip(made["input_ids"], made["assistant_masks"], strict=True):
        if learned:
            stretches[-1].append(token)
        elif stretches[-1]:
            stretches.append([])
    return [fast.decode(one) for one in stretches if one]


def test_answers_under_the_templates_of_published_models_are_where_training_has_them() -> None:
    """TRL's copies of them, in which a mask says what is learned; some learn the generation prompt, too."""
    compared = 0
    for path in trl_templates():
        template = path.read_text()
        if not path.stem.endswith("_training"):
            continue
        for messages in (*CHATS.values(), THOUGHT):
            try:
                document = rendered(messages, template)
            except FlawError:
                continue
            found = [document.text[one.start : one.end] for one in document.answers]
            learned = masked(FAST, messages, template)
            assert len(found) == len(learned), path.stem
            for answer, whole, message in zip(
                found, learned, [m for m in messages if m["role"] == "assistant"], strict=True
            ):
                words = message["content"].rpartition("</think>")[2].strip()
                assert words in answer, (path.stem, answer)
                assert whole.strip().endswith(answer.strip()) or answer.strip() in whole, (path.stem, answer)
                compared += 1
    assert compared > 150


def test_every_template_of_published_models_gives_the_answer_or_refuses() -> None:
    """Whatever they do to earlier turns: never other words than the answer's."""
    given = 0
    for path in trl_templates():
        for messages in (*CHATS.values(), THOUGHT):
            try:
                document = rendered(messages, path.read_text())
            except FlawError:
                continue
            given += 1
            asked = [
                m["content"].rpartition("</think>")[2].strip() for m in messages if m["role"] == "assistant"
            ]
            found = [document.text[one.start : one.end] for one in document.answers]
            assert [words in answer for words, answer in zip(asked, found, strict=True)] == [True] * len(
                asked
            )
            starts = [document.text[: one.start] for one in document.answers]
            others = [m["content"] for m in messages if m["role"] == "user"]
            assert all(others[turn] in start for turn, start in enumerate(starts))
            assert all(other not in answer for answer in found for other in others), path.stem
    assert given > 200


@pytest.mark.parametrize("name", CHATS)
def test_a_prompt_is_what_generation_is_asked_with(name: str) -> None:
    """Under a template that never rewrites earlier turns, prefixes of the whole are renderings of parts."""
    messages = CHATS[name]
    found, _ = windows(Document("0", "", 0, Conversation(messages)), OWN, Template("chat", CHATML))
    turns = [turn for turn, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(found) == len(turns)
    for window, turn in zip(found, turns, strict=True):
        asked = FAST.apply_chat_template(messages[:turn], add_generation_prompt=True, return_dict=True)
        told = FAST.apply_chat_template(messages[: turn + 1], return_dict=True)
        assert window.token_ids[: window.prefix_tokens].tolist() == asked["input_ids"]
        assert window.token_ids.tolist() == told["input_ids"]


def test_a_template_that_strips_earlier_reasoning_shows_answers_as_training_sees_them() -> None:
    (path,) = [one for one in trl_templates() if one.stem == "qwen3"]
    document = rendered(THOUGHT, path.read_text())
    first, second = (document.text[one.start : one.end] for one in document.answers)
    assert first == "It is a fox.<|im_end|>"
    assert second == "<think>\nhm, second\n</think>\n\nThe dog jumps.<|im_end|>\n"
    assert "hm, first" not in document.text


def test_a_template_that_moves_the_system_message_is_followed() -> None:
    template = (
        "{% set ns = namespace(s='', n=0) %}{% for m in messages %}{% if m.role == 'system' %}"
        "{% set ns.s = m.content %}{% elif m.role == 'user' %}{% set ns.n = loop.index0 %}{% endif %}"
        "{% endfor %}{% for m in messages %}{% if m.role == 'user' %}[ASK]"
        "{% if loop.index0 == ns.n %}{{ ns.s }} {% endif %}"
        "{{ m.content }}[TELL]{% elif m.role == 'assistant' %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    messages = [{"role": "system", "content": "Be brief."}, *CHATS["multi"]]
    document = rendered(messages, template)
    assert [document.text[: one.start] for one in document.answers] == [
        "[ASK]What is it?[TELL]",
        "[ASK]What is it?[TELL]It is a fox.</s>[ASK]Be brief. And then?[TELL]",
    ]
    assert [document.text[one.start : one.end] for one in document.answers] == [
        "It is a fox.</s>",
        "The lazy dog jumps over.</s>",
    ]


def test_a_template_without_generation_prompt_leaves_its_header_in_the_prompt() -> None:
    template = CHATML.split("{% if add_generation_prompt")[0]
    document = rendered(CHATS["multi"], template)
    assert [document.text[one.start : one.end] for one in document.answers] == [
        "It is a fox.<|im_end|>\n",
        "The lazy dog jumps over.<|im_end|>\n",
    ]
    assert document.text[: document.answers[0].start].endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content | upper }}\n{% endfor %}",
        "{% for m in messages %}{{ m.role }}\n{% endfor %}",
        "{{ raise_exception('never') }}",
        "{{ messages[99].content }}",
        "{% for m in messages %}{{ m.content | reverse }}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_under_which_no_answer_is_found_is_refused(template: str) -> None:
    with pytest.raises(FlawError) as caught:
        rendered(CHATS["multi"], template)
    assert caught.value.flaw.why == "template"


def test_bos_comes_once() -> None:
    begun = "<s>" + CHATML
    for begins in (False, True):
        tokenizer = own(fast_tokenizer(begins=begins))
        document = Document("0", "", 0, Conversation(CHATS["single"]))
        for template, bos, expected in (
            (begun, "auto", 1),
            (begun, "always", 1),
            (begun, "never", 0),
            (CHATML, "auto", 0),
            (CHATML, "always", 1),
            (CHATML, "never", 0),
        ):
            (found,), _ = windows(document, tokenizer, Template("chat", template), bos=bos)
            assert (found.token_ids == 0).sum() == expected, (begins, bos)
            assert expected == 0 or found.token_ids[0] == 0
            prompt = tokenizer.decode(found.token_ids[: found.prefix_tokens])
            assert prompt.removeprefix("<s>").endswith("<|im_start|>assistant\n")
            assert tokenizer.decode(found.token_ids[found.prefix_tokens :]).startswith("It is a fox")


def test_long_prompts_are_cut_from_the_left_behind_bos_and_counted() -> None:
    long = [u(PROSE * 200), a("It is a fox, and answers come."), u("And?"), a("No.")]
    document = Document("0", "", 0, Conversation(long))
    template, tokens = Template("chat", "<s>" + CHATML), ExampleTokens(1, 6, 1)
    whole, _ = windows(document, OWN, template, tokens=tokens)
    cut, cutter = windows(document, OWN, template, tokens=tokens, context=40)
    assert cutter.prompts_cut == 2
    assert len(whole[0].token_ids) > 3_000
    for one, other in zip(cut, whole, strict=True):
        assert one.prefix_tokens + one.suffix_tokens == 40
        assert one.token_ids[0] == 0
        end = other.prefix_tokens + other.suffix_tokens
        assert one.token_ids[1:40].tolist() == other.token_ids[end - 39 : end].tolist()
        assert one.suffix_tokens == other.suffix_tokens
        assert len(one.token_ids) <= 40
        assert one.offset == end - 40


def test_prefix_tokens_are_given_of_the_answer_and_the_window_bounds_it() -> None:
    document = Document("0", "", 0, Conversation(CHATS["single"]))
    (whole,), _ = windows(document, OWN, Template("chat", CHATML), tokens=ExampleTokens(0, 4))
    (given,), cutter = windows(document, OWN, Template("chat", CHATML), tokens=ExampleTokens(3, 4), window=7)
    assert given.prefix_tokens == whole.prefix_tokens + 3
    assert given.token_ids.tolist() == whole.token_ids[: whole.prefix_tokens + 7].tolist()
    assert cutter.answers_cut == 1


def test_short_answers_are_too_short_or_reproduced_as_far_as_they_go() -> None:
    document = Document("0", "", 0, Conversation(CHATS["multi"]))
    found, cutter = windows(document, OWN, Template("chat", CHATML), tokens=ExampleTokens(0, 1000))
    assert (found, cutter.too_short) == ([], 2)
    found, cutter = windows(document, OWN, Template("chat", CHATML), tokens=ExampleTokens(0, 1000, 2))
    assert cutter.too_short == 0
    assert [OWN.decode(one.token_ids[one.prefix_tokens :][: one.suffix_tokens]) for one in found] == [
        "It is a fox.",
        "The lazy dog jumps over.",
    ]
    assert OWN.decode(found[0].token_ids[found[0].prefix_tokens :]) == "It is a fox.<|im_end|>\n"


def test_an_answer_with_nothing_before_it_is_left_out() -> None:
    template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    document = Document("0", "", 0, Conversation([a("It is a fox."), u("And?"), a("It jumps over.")]))
    found, cutter = windows(document, OWN, Template("file", template))
    assert len(found) == cutter.without_prompt == 1


def section(**keys: Any) -> CorpusConfig:
    return CorpusConfig.model_validate({"path": "/corpus.jsonl", **keys})


def test_which_template_is_meant(tmp_path: Path) -> None:
    plain = fast_tokenizer()
    plain.chat_template = None
    asked = {"prompt": "p", "response": "r"}
    assert template_of(section(messages="m"), OWN) == Template("chat", CHATML)
    assert template_of(section(**asked), OWN) == Template("chat", CHATML)
    assert template_of(section(**asked, template="none"), OWN) == Template("none", None)
    assert template_of(section(**asked), own(plain)) == Template("none", None)
    (tmp_path / "own.jinja").write_text("{{ messages }}")
    file = str(tmp_path / "own.jinja")
    assert template_of(section(messages="m", template=file), OWN) == Template("file", "{{ messages }}")
    with pytest.raises(UsageError, match="has no chat template") as caught:
        template_of(section(messages="m"), own(plain), "holdout")
    assert caught.value.key == "holdout.template"
    (tmp_path / "own.jinja").write_text("{% for m in %}")
    with pytest.raises(UsageError, match="not valid Jinja"):
        template_of(section(messages="m", template=file), OWN)
    (tmp_path / "own.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as a chat template"):
        template_of(section(messages="m", template=file), OWN)
