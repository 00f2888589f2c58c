"""Tokenizers are read as their tokenizer.json stands, whatever class their tokenizer_config.json names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from kdaudit.corpus import Document
from kdaudit.errors import ModelError
from kdaudit.models.tokenizer import (
    Alike,
    Other,
    ReadingCheck,
    bos_token_id,
    compare_readings,
    habit_warning,
    load_tokenizer,
    rewriting_warning,
    uses_bos,
)

END = "<|end|>"
TEXT = "Hello world  again: naïve 😀 你好 cafe\u0301\n\tdef f(x): return 12345.678"


def backend(change: Callable[[Tokenizer], None] | None = None) -> Tokenizer:
    """A byte-level BPE that learned some English; `change` is made to it afterwards."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(
        ["the quick brown fox, the lazy dog. hello world again 2024 12345 "] * 9, trainer
    )
    if change is not None:
        change(tokenizer)
    return tokenizer


def save(folder: Path, tokenizer: Tokenizer | None = None, **config: Any) -> Path:
    tokenizer = tokenizer or backend()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return folder


def as_the_file(folder: Path, text: str = TEXT) -> list[int]:
    found: list[int] = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids
    return found


REWRITERS = ["LlamaTokenizerFast", "BlenderbotTokenizer", "MBart50Tokenizer", "ByT5Tokenizer"]
"""Classes whose AutoTokenizer makes other tokens of such a file."""
REFUSERS = ["GemmaTokenizer", "T5Tokenizer", "BertTokenizer"]
"""Classes that cannot be made of it."""


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", *REWRITERS, *REFUSERS])
def test_text_becomes_the_tokens_that_tokenizer_json_makes(kind: str, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", tokenizer_class=kind)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode(TEXT) == as_the_file(folder)
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    said = rewriting_warning(folder, tokenizer)
    assert (said is None) == (kind not in [*REWRITERS, *REFUSERS])
    if said is not None:
        assert "tokenizer.json is taken as it stands" in said
        assert str(tmp_path) not in said


def test_a_difference_that_only_the_corpus_shows_is_said_without_its_text(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", pad_token="secret")
    tokenizer = load_tokenizer(folder)
    assert rewriting_warning(folder, tokenizer) is None
    said = rewriting_warning(folder, tokenizer, ["first", "a secret text"])
    assert said is not None
    assert "reads a text of the corpus as other tokens" in said
    assert "secret" not in said


def test_a_word_that_is_named_as_special_token_is_read_as_a_word(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", eos_token="the", pad_token="[PAD]")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.encode("other [PAD]") == as_the_file(folder, "other [PAD]")
    assert (tokenizer.pad_token_id, len(tokenizer)) == (None, 290)
    assert tokenizer.left_out == ["eos_token 'the'", "pad_token '[PAD]'"]
    tokenizer.save_pretrained(tmp_path / "saved")
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.encode("other [PAD]") == tokenizer.encode("other [PAD]")


@pytest.mark.parametrize("model_type", [None, "llama", "gemma2", "deepseek_v3", "gpt2"])
@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", *REWRITERS, *REFUSERS])
def test_a_saved_tokenizer_is_read_by_auto_tokenizer_like_the_file(
    kind: str, model_type: str | None, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", tokenizer_class=kind, chat_template="{{ messages }}")
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    if model_type is not None:
        (tmp_path / "saved" / "config.json").write_text(json.dumps({"model_type": model_type}))
    saved = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert saved.encode(TEXT, add_special_tokens=False) == as_the_file(folder)
    assert (saved.eos_token, saved.chat_template) == (END, "{{ messages }}")
    assert as_the_file(tmp_path / "saved") == as_the_file(folder)


def test_ids_that_stand_for_no_token_are_known(tmp_path: Path) -> None:
    described = json.loads(backend().to_str())
    described["model"]["vocab"]["far"] = 293
    tokenizer = load_tokenizer(save(tmp_path / "model", Tokenizer.from_str(json.dumps(described))))
    assert (len(tokenizer), tokenizer.unused_ids) == (294, (290, 291, 292))


def begins(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])


def test_two_files_that_disagree_on_bos_are_said(tmp_path: Path) -> None:
    for does in (True, False):
        for says in (True, False, None):
            folder = save(
                tmp_path / f"{does}-{says}",
                backend(begins if does else None),
                bos_token=END,
                add_bos_token=says,
            )
            tokenizer = load_tokenizer(folder)
            assert (uses_bos(tokenizer), bos_token_id(tokenizer)) == (does, 0)
            said = habit_warning(folder, tokenizer)
            assert (said is not None) == (says is not None and says != does)
            if said is not None:
                assert f"add_bos_token: {str(says).lower()}" in said
                assert f"Set it to {'never' if does else 'always'}" in said


def unnamed(folder: Path, tokenizer: Tokenizer, **config: Any) -> Path:
    """A tokenizer whose tokenizer_config.json names no special token."""
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024, **config}))
    return folder


def test_special_tokens_that_only_the_class_names_are_known(tmp_path: Path) -> None:
    content = json.loads(backend().to_str().replace(END, "<|endoftext|>"))
    folder = unnamed(tmp_path / "model", Tokenizer.from_str(json.dumps(content)))  # as openai-community/gpt2
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    load_tokenizer(folder).save_pretrained(tmp_path / "saved")
    for each in (folder, tmp_path / "saved"):
        found = load_tokenizer(each)
        assert (bos_token_id(found), found.eos_token_id, uses_bos(found)) == (0, 0, False)
        assert found.left_out == []


def test_a_bos_token_that_tokenizer_json_puts_without_a_name_is_put(tmp_path: Path) -> None:
    for kind in ("PreTrainedTokenizerFast", "LlamaTokenizer", "Qwen2Tokenizer"):
        found = load_tokenizer(unnamed(tmp_path / kind, backend(begins), tokenizer_class=kind))
        assert (uses_bos(found), bos_token_id(found)) == (True, 0)
    plain = load_tokenizer(unnamed(tmp_path / "plain", backend()))
    assert (uses_bos(plain), bos_token_id(plain)) == (False, None)


def added(*tokens: str | AddedToken) -> Callable[[Tokenizer], None]:
    def change(tokenizer: Tokenizer) -> None:
        tokenizer.add_tokens([AddedToken(t, normalized=False) if isinstance(t, str) else t for t in tokens])

    return change


def described(change: Callable[[dict[str, Any]], Any]) -> Tokenizer:
    content = json.loads(backend().to_str())
    change(content)
    return Tokenizer.from_str(json.dumps(content))


def renamed(content: dict[str, Any]) -> None:
    """The last token of the vocabulary is another."""
    vocabulary = content["model"]["vocab"]
    last = max(vocabulary, key=vocabulary.get)
    vocabulary["other"] = vocabulary.pop(last)
    content["model"]["merges"].pop()


def larger(content: dict[str, Any]) -> None:
    content["model"]["vocab"]["more"] = 290


SAME = {
    "another EOS": (lambda: backend(), {"eos_token": "."}),
    "a BOS that is added": (lambda: backend(begins), {"bos_token": END}),
    "settings that do nothing": (
        lambda: described(lambda content: content["model"].update(fuse_unk=True, dropout=0.0)),
        {},
    ),
}


def trained_in(content: dict[str, Any]) -> None:
    """A PAD token that was there when the tokenizer was trained stands in its vocabulary too."""
    content["model"]["vocab"]["[PAD]"] = 290
    content["added_tokens"].append({**content["added_tokens"][0], "id": 290, "content": "[PAD]"})


LITERAL = {
    "a PAD in the vocabulary too": (lambda: described(trained_in), {"pad_token": "[PAD]"}, ("[PAD]",)),
    "an added PAD": (lambda: backend(added("[PAD]")), {"pad_token": "[PAD]"}, ("[PAD]",)),
    "chat tokens": (lambda: backend(added("<|user|>", "<|bot|>")), {}, ("<|user|>", "<|bot|>")),
}
UNKNOWN = {
    "a larger vocabulary": lambda: described(larger),
    "unknown letters": lambda: described(lambda c: c["model"].update(unk_token=END)),
    "offsets trimmed": lambda: described(lambda c: c["pre_tokenizer"].update(trim_offsets=False)),
    "split otherwise, to the same end": lambda: described(
        lambda c: c.update(pre_tokenizer={"type": "Sequence", "pretokenizers": [c["pre_tokenizer"]]})
    ),
}
DIFFERENT = {
    "a token is another": lambda: described(renamed),
    "prefix space": lambda: described(lambda c: c["pre_tokenizer"].update(add_prefix_space=True)),
    "digits apart": lambda: backend(
        lambda t: setattr(
            t,
            "pre_tokenizer",
            pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)]),
        )
    ),
    "lower case": lambda: backend(lambda t: setattr(t, "normalizer", normalizers.Lowercase())),
    "merges in another order": lambda: described(lambda c: c["model"]["merges"].reverse()),
    "ignore_merges": lambda: described(lambda c: c["model"].update(ignore_merges=True)),
}


def compared(tmp_path: Path, other: Tokenizer, **config: Any) -> Alike | None:
    one, two = save(tmp_path / "one"), save(tmp_path / "two", other, **config)
    return compare_readings(load_tokenizer(one), load_tokenizer(two))


@pytest.mark.parametrize("case", SAME)
def test_tokenizers_that_read_every_text_alike(case: str, tmp_path: Path) -> None:
    make, config = SAME[case]
    assert compared(tmp_path, make(), **config) == Alike(())


@pytest.mark.parametrize("case", LITERAL)
def test_tokenizers_that_read_text_alike_unless_it_holds_a_literal(case: str, tmp_path: Path) -> None:
    make, config, literals = LITERAL[case]
    assert compared(tmp_path, make(), **config) == Alike(literals)


@pytest.mark.parametrize("case", UNKNOWN)
def test_tokenizers_whose_texts_have_to_be_compared(case: str, tmp_path: Path) -> None:
    assert compared(tmp_path, UNKNOWN[case]()) == Alike(None)


@pytest.mark.parametrize("case", DIFFERENT)
def test_tokenizers_that_read_text_differently(case: str, tmp_path: Path) -> None:
    assert compared(tmp_path, DIFFERENT[case]()) is None


def test_an_added_token_that_the_normalizer_can_make_is_looked_for_by_reading(tmp_path: Path) -> None:
    lower = lambda t: setattr(t, "normalizer", normalizers.Lowercase())  # noqa: E731
    more = lambda t: (lower(t), t.add_tokens([AddedToken("<x>", normalized=True)]))  # noqa: E731
    one, two = save(tmp_path / "one", backend(lower)), save(tmp_path / "two", backend(more))
    assert compare_readings(load_tokenizer(one), load_tokenizer(two)) == Alike(None)


def reading_check(tmp_path: Path, other: Tokenizer) -> ReadingCheck:
    one, two = (load_tokenizer(folder) for folder in (save(tmp_path / "one"), save(tmp_path / "two", other)))
    alike = compare_readings(one, two)
    assert alike is not None
    return ReadingCheck("corpus", "teacher", one, {"student": Other(two, alike)})


def documents(*texts: str) -> list[Document]:
    return [Document(str(row), text, row) for row, text in enumerate(texts)]


def test_rows_that_are_read_differently_are_named(tmp_path: Path) -> None:
    check = reading_check(tmp_path, backend(added("<|user|>")))
    check.look(documents("fine", "hi <|user|>", "fine"))
    check.look([Document("later", "<|user|>", 9)])
    with pytest.raises(ModelError) as caught:
        check.finish()
    assert str(caught.value).startswith(
        "corpus.path: 2 documents (they hold '<|user|>') are read as other tokens by student than by teacher"
    )
    assert "rows 2, 10, counted from 1" in str(caught.value)


def test_texts_that_are_read_alike_pass_and_many_others_end_the_reading(tmp_path: Path) -> None:
    check = reading_check(tmp_path, described(larger))
    check.look(documents("fine", "more", "the quick"))
    check.finish()
    check = reading_check(tmp_path / "again", backend(added("<|user|>")))
    with pytest.raises(ModelError, match=r"at least 20 documents .*; rows 1, 2, 3, 4, 5, \.\.\., counted"):
        check.look(documents(*["<|user|>"] * 50))
