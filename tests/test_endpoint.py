"""A model behind a completions endpoint: as an engine, in an audit, and against faults of servers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import endpoint_stand_in as stand_in
import numpy as np
import pytest
import torch
import toys
from endpoint_stand_in import StandIn
from ruamel.yaml import YAML
from toys import kdaudit

from kdaudit.config.endpoint import Endpoint
from kdaudit.config.extraction import ExtractionConfig
from kdaudit.corpus import ChatFormat
from kdaudit.corpus.rendering import Template
from kdaudit.errors import EngineError, ModelError
from kdaudit.inference import EngineOptions, Ragged, Sampling
from kdaudit.inference.endpoint import client as client_module
from kdaudit.inference.endpoint.checking import check_endpoint
from kdaudit.inference.endpoint.engine import EndpointEngine
from kdaudit.inference.endpoint.matching import ByText
from kdaudit.inference.endpoint.stream import Piece
from kdaudit.models.tokenizer import load_tokenizer
from kdaudit.pipelines.stages.endpoints import ask_endpoints

WAYS = [
    ("ids in, ids out", {}),
    ("ids in, text out", {"gives_ids": False}),
    ("text in, ids out", {"takes_ids": False}),
    ("text in, text out", {"takes_ids": False, "gives_ids": False}),
    ("no settings beyond OpenAI's", {"takes_ids": False, "gives_ids": False, "takes_more": False}),
    ("not streamed", {"streams": False}),
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_PAUSE", 0.01)
    monkeypatch.setattr(client_module, "_LONGEST_PAUSE", 0.05)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return toys.save_model(folder, 1)


@pytest.fixture
def server(model: Any) -> StandIn:
    return StandIn(model, toys.tokenizer())


@pytest.fixture
def examples(model: Any) -> tuple[Ragged, Ragged]:
    """Windows that the model continues wholly, in part and not at all; two share a prompt."""
    random = np.random.default_rng(3)
    windows = [toys.memorized_window(model, random) for _ in range(12)]
    windows += random.integers(2, toys.VOCABULARY, (12, toys.PREFIX + toys.SUFFIX)).tolist()
    for row in range(6, 12):
        windows[row][toys.PREFIX + row - 6] = toys.VOCABULARY - 1  # no longer token begins with its text
    windows.append([*windows[0][: toys.PREFIX + 3], *windows[1][toys.PREFIX + 3 :]])
    prompts = Ragged.of([window[: toys.PREFIX] for window in windows])
    return prompts, Ragged.of([window[toys.PREFIX :] for window in windows])


def engine(url: str, folder: Path, **changes: Any) -> EndpointEngine:
    endpoint = Endpoint(url, "big", None, 4, 5.0)._replace(**changes)
    options = EngineOptions(engine="endpoint", path=str(folder), max_tokens=14, endpoint=tuple(endpoint))
    return EndpointEngine(options._asdict())


def expected(model: Any, examples: tuple[Ragged, Ragged]) -> list[int]:
    """By plain greedy decoding to the end, compared afterwards."""
    counts = []
    for prompt, target in zip(*examples, strict=True):
        ids = prompt.tolist()
        for _ in target:
            with torch.inference_mode():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        same = [one == two for one, two in zip(ids[len(prompt) :], target.tolist(), strict=True)]
        counts.append([*same, False].index(False))
    return counts


@pytest.mark.parametrize(("way", "changes"), WAYS, ids=[way for way, _ in WAYS])
def test_matched_tokens_are_the_oracles_in_every_way(
    way: str, changes: dict[str, bool], server: StandIn, model: Any, folder: Path, examples: Any
) -> None:
    for name, value in changes.items():
        setattr(server, name, value)
    with server.running() as url:
        found = engine(url, folder).match(*examples)
    assert found.tolist() == expected(model, examples)
    assert {toys.SUFFIX, 0} < {*found.tolist()}


def test_greedy_decoding_is_asked_for_in_full(server: StandIn, folder: Path, examples: Any) -> None:
    with server.running() as url:
        engine(url, folder).match(*examples)
    for body in server.asked:
        assert body["temperature"] == 0
        assert body["repetition_penalty"] == 1.0
        assert body["presence_penalty"] == body["frequency_penalty"] == 0
        assert body["ignore_eos"] is body["stream"] is True


def test_a_stream_is_closed_at_the_first_wrong_token(server: StandIn, folder: Path, model: Any) -> None:
    random = np.random.default_rng(9)
    windows = random.integers(2, toys.VOCABULARY, (8, toys.PREFIX + 40))
    prompts, targets = Ragged.of(windows[:, : toys.PREFIX]), Ragged.of(windows[:, toys.PREFIX :])
    with server.running() as url:
        asked = engine(url, folder, concurrency=1)
        before = server.decoded
        found = asked.match(prompts, targets)
    assert (found < 3).all()
    assert server.decoded - before < 8 * 40 / 2


def test_what_an_endpoint_cannot_do_is_refused(server: StandIn, folder: Path, examples: Any) -> None:
    with server.running() as url:
        asked = engine(url, folder)
        with pytest.raises(EngineError, match=r"^endpoint cannot score$"):
            asked.score(examples[0], Sampling(1.0, 40))
        with pytest.raises(EngineError, match=r"^endpoint cannot match_nearly$"):
            asked.match_nearly(*examples, examples[1].lengths)


def test_examples_that_share_a_prompt_are_one_request(server: StandIn, folder: Path, examples: Any) -> None:
    with server.running() as url:
        asked = engine(url, folder)
        before = len(server.asked)
        asked.match(*examples)
    assert len(server.asked) - before == len(examples[0]) - 1


def test_no_more_requests_at_once_than_allowed(server: StandIn, folder: Path, examples: Any) -> None:
    server.streams = False  # a closed stream is seen late by its server
    with server.running() as url:
        engine(url, folder, concurrency=3).match(*examples)
    assert 1 < server.most_at_once <= 3


@pytest.mark.parametrize("gives_ids", [True, False])
def test_what_it_writes_is_the_models_own(
    gives_ids: bool, server: StandIn, folder: Path, model: Any, examples: Any
) -> None:
    server.gives_ids = gives_ids
    with server.running() as url:
        written = engine(url, folder).generate(examples[0], 5)
    ids = examples[0][0].tolist()
    steps = StandIn(model, toys.tokenizer()).continuation(ids, 5, True)
    assert written[0].tolist() == list(steps)


def test_matched_bytes_are_those_of_the_text(
    server: StandIn, folder: Path, model: Any, examples: Any
) -> None:
    tokenizer = load_tokenizer(folder)
    prompt = examples[0][0].tolist()
    whole = tokenizer.decode([*prompt, *examples[1][0].tolist()])[len(tokenizer.decode(prompt)) :]
    wrong = f"{whole[:9]}?{whole[10:]}"
    targets = Ragged.of([list(whole.encode()), list(wrong.encode())])
    with server.running() as url:
        found = engine(url, folder).match_text(Ragged.of([prompt, prompt]), targets)
    assert found.tolist() == [len(whole), 9]


PASSING = {
    "busy": stand_in.status(429),
    "busy, says when": stand_in.status(429, Retry_After="0"),
    "fails": stand_in.status(500),
    "overloaded": stand_in.status(503),
    "stream breaks off": stand_in.dropped,
    "stream ends inside an event": stand_in.cut_off,
    "error in the stream": stand_in.broken('{"error": {"message": "cuda", "code": 500}}'),
    "slow": stand_in.slow(0.8),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_and_changes_nothing(
    fault: str, server: StandIn, folder: Path, model: Any, examples: Any
) -> None:
    with server.running() as url:
        asked = engine(url, folder, timeout=0.5)
        server.faults = [PASSING[fault]] * 4
        assert asked.match(*examples).tolist() == expected(model, examples)


def test_half_a_character_is_no_text_and_no_fault(
    server: StandIn, folder: Path, examples: tuple[Ragged, Ragged]
) -> None:
    """JSON may hold one."""
    prompt, targets = examples[0].take(np.array([0])), Ragged.of([list(b"\xed\xa0\x80")])
    with server.running() as url:
        asked = engine(url, folder)
        server.faults = [stand_in.broken('{"choices": [{"text": "\\ud800x", "finish_reason": "stop"}]}')]
        assert asked.match_text(prompt, targets).tolist() == [0]


LASTING = {
    "fails for good": ([stand_in.status(500)] * 99, "answers with HTTP 500: fault 500 (6 attempts)"),
    "refuses": ([stand_in.status(401)], "answers with HTTP 401: fault 401"),
    "HTML": ([stand_in.page], "answers with text/html in place of a completion"),
    "not JSON": ([stand_in.broken("once upon a time")], "something other than JSON"),
    "no completion": ([stand_in.broken('{"choices": [{"message": {"content": "hi"}}]}')], "not a completion"),
    "no object": ([stand_in.broken("[1]")], "not a completion"),
    "odd ids": ([stand_in.broken('{"choices": [{"text": "a", "token_ids": ["a"]}]}')], "token_ids"),
    "redirects": ([stand_in.redirect("http://127.0.0.1:9/v1")], "redirects to another address (HTTP 307)"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_what_lasts_ends_the_engine_with_what_was_said(
    fault: str, server: StandIn, folder: Path, examples: Any
) -> None:
    faults, said = LASTING[fault]
    with server.running() as url:
        asked = engine(url, folder)
        server.faults = [*faults]
        with pytest.raises(EngineError) as caught:
            asked.match(*examples)
    assert said in str(caught.value)


def test_a_redirect_is_not_followed_and_a_proxy_not_used(
    server: StandIn, model: Any, folder: Path, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = StandIn(model, toys.tokenizer())
    with other.running() as elsewhere, server.running() as url:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, elsewhere.removesuffix("/v1"))
        asked = engine(url, folder)
        server.faults = [stand_in.redirect(f"{elsewhere}/completions")]
        with pytest.raises(EngineError):
            asked.match(*examples)
    assert not other.asked
    assert not other.headers


def test_the_key_comes_from_the_environment_and_stands_in_no_message(
    server: StandIn, folder: Path, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.key = "open sesame 123"
    with server.running() as url:
        monkeypatch.setenv("BIG_KEY", "open sesame 123")
        assert len(engine(url, folder, api_key_env="BIG_KEY").match(*examples)) == len(examples[0])
        monkeypatch.setenv("BIG_KEY", "hush-hush")
        with pytest.raises(EngineError) as caught:
            engine(url, folder, api_key_env="BIG_KEY")
        assert "401" in str(caught.value)
        assert "hush" not in str(caught.value)
        monkeypatch.delenv("BIG_KEY")
        with pytest.raises(EngineError, match="the environment variable BIG_KEY is not set"):
            engine(url, folder, api_key_env="BIG_KEY")


def repeating(key: str, status: int) -> stand_in.Fault:
    """Answers with the key that it was given."""
    message = f"{'unfit ' * 32}{key} is no key of ours"
    if status:
        return lambda handler: handler.answer(status, {"error": {"message": message}})
    return stand_in.broken(json.dumps({"error": {"message": message, "code": 403}}))


@pytest.mark.parametrize("status", [400, 503, 0])
def test_a_key_that_a_server_repeats_stands_in_no_message(
    status: int, server: StandIn, folder: Path, examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-0123456789abcdef"
    monkeypatch.setenv("BIG_KEY", key)
    with server.running() as url:
        asked = engine(url, folder, api_key_env="BIG_KEY")
        server.faults = [repeating(key, status)] * 60
        with pytest.raises(EngineError) as caught:
            asked.match(*examples)
    assert "unfit" in str(caught.value)
    assert "sk-" not in str(caught.value)


@pytest.mark.parametrize("key", ["\u201cquoted\u201d", "two\nlines"])
def test_what_cannot_be_a_key_is_refused_without_showing_it(
    key: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIG_KEY", key)
    with pytest.raises(ModelError, match="BIG_KEY holds characters that no key has") as caught:
        check("http://127.0.0.1:9/v1", folder, api_key_env="BIG_KEY")
    assert caught.value.key == "models.teacher.api_key_env"
    assert key[:4] not in str(caught.value)


@pytest.mark.parametrize("host", ["....", "a" * 70, "a\x01b"])
def test_a_host_that_no_network_knows_is_refused(host: str, folder: Path) -> None:
    with pytest.raises(ModelError, match="is not an address that can be asked") as caught:
        check(f"http://{host}/v1", folder)
    assert caught.value.key == "models.teacher.path"


def check(url: str, folder: Path, **changes: Any) -> Any:
    endpoint = Endpoint(url, "big", None, 4, 2.0)._replace(**changes)
    return check_endpoint(endpoint, load_tokenizer(folder), "models.teacher", 14)


def test_the_check_finds_the_best_way(server: StandIn, folder: Path) -> None:
    with server.running() as url:
        way = check(url, folder).way
        assert (way.ids_in, way.more, way.ids_out) == (True, True, True)
        server.takes_ids = server.takes_more = server.gives_ids = server.lists = False
        way = check(url, folder).way
    assert (way.ids_in, way.more, way.ids_out) == (False, False, False)


def chat_asked(url: str, folder: Path, chat: ChatFormat) -> list[str]:
    """What asking a model for an audit of chats gives."""
    endpoint = Endpoint(url, "big", None, 4, 2.0)
    model = SimpleNamespace(behind=endpoint, name=f"big at {url}")
    member: Any = SimpleNamespace(
        model=model, name="teacher", key="models.teacher", tokenizer=load_tokenizer(folder)
    )
    extraction = ExtractionConfig(prefix_tokens=0, suffix_tokens=6)
    return ask_endpoints(extraction, [member], {"corpus": chat}, lambda *_: None)


def test_a_chat_is_refused_where_the_server_reads_less_than_its_prompts_may_have(
    server: StandIn, folder: Path
) -> None:
    with server.running() as url:
        for context in (None, 65):
            with pytest.raises(ModelError) as caught:
                chat_asked(url, folder, ChatFormat(Template("none", None), "auto", context))
            assert caught.value.key == "models.teacher.context"
            assert "models.teacher.context: 64" in (caught.value.fix or "")
        assert chat_asked(url, folder, ChatFormat(Template("none", None), "auto", 64)) == ["teacher"]
        server.takes_ids = server.gives_ids = False  # asked for some tokens more than the answer has
        with pytest.raises(ModelError, match="reads 56 tokens"):
            chat_asked(url, folder, ChatFormat(Template("none", None), "auto", 64))


def test_a_chat_is_refused_where_a_server_of_text_puts_another_bos(server: StandIn, folder: Path) -> None:
    chat = ChatFormat(Template("none", None), "always", 32)
    with server.running() as url:
        assert chat_asked(url, folder, chat) == ["teacher"]
        server.takes_ids = False
        with pytest.raises(ModelError) as caught:
            chat_asked(url, folder, chat)
    assert caught.value.key == "extraction.bos"


def test_a_prompt_that_a_server_of_text_would_begin_otherwise_is_not_sent(
    server: StandIn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdaudit.inference.endpoint.engine.uses_bos", lambda _: True)
    server.takes_ids = False
    with server.running() as url:
        asked = engine(url, folder)
        before = len(server.asked)
        with pytest.raises(EngineError, match="puts a BOS token"):
            asked.match(Ragged.of([[5, 6, 7]]), Ragged.of([[8, 9]]))
        assert len(server.asked) == before


def test_a_suffix_that_ends_within_a_character_is_compared_by_its_whole_characters() -> None:
    letters = "ab\u00e9c".encode()  # two bytes for the third letter

    def decode(ids: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")

    follower = ByText(letters[:1], [list(letters[1:3])], decode)
    for text in ("b", "\u00e9"):
        follower.take(Piece(text, None, None, ends=False))
    assert follower.matched() == [2]
    other = ByText(letters[:1], [list(letters[1:3])], decode)
    other.take(Piece("c", None, None, ends=False))
    assert other.matched() == [0]


def answering_otherwise(handler: stand_in.Handler) -> bool:
    return stand_in.broken('{"choices": [{"text": "w9", "finish_reason": "length", "token_ids": [9]}]}')(
        handler
    )


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "another model": ({"name": "bigger"}, {}, "models.teacher.model", "did you mean bigger?"),
    "no such model": ({"name": "x"}, {}, "models.teacher.model", "choose from: x"),
    "short context": ({"context": 8}, {}, "models.teacher.path", "context length of big is 8 tokens"),
    "key missing": ({"key": "k"}, {}, "models.teacher.api_key_env", "name that in api_key_env"),
    "key not set": ({}, {"api_key_env": "NO_KEY_HERE"}, "models.teacher.api_key_env", "is not set"),
    "html": ({"faults": [stand_in.page]}, {}, "models.teacher.path", "no OpenAI-compatible server"),
    "busy": ({"faults": [stand_in.status(503)] * 9}, {}, "models.teacher.path", "HTTP 503"),
    "chat alone": (
        {"faults": [stand_in.status(404)] * 4},
        {},
        "models.teacher.path",
        "a chat endpoint does not continue a prefix",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_check_refuses_with_key_and_remedy(case: str, server: StandIn, folder: Path) -> None:
    settings, changes, key, said = REFUSED[case]
    for name, value in settings.items():
        setattr(server, name, [*value] if name == "faults" else value)
    with server.running() as url, pytest.raises(ModelError) as caught:
        check(url, folder, **changes)
    assert caught.value.key == key
    assert said in str(caught.value)


def test_a_server_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="cannot be reached") as caught:
        check("http://127.0.0.1:9/v1", folder)
    assert "start the server" in caught.value.fix


def test_a_server_that_answers_otherwise_the_second_time_is_refused(server: StandIn, folder: Path) -> None:
    with server.running() as url:
        check(url, folder)
        calls = len(server.asked)
        server.faults = [lambda _: False] * (calls - 1) + [answering_otherwise]
        with pytest.raises(ModelError, match="in two ways"):
            check(url, folder)


def test_a_server_that_reads_more_ids_than_it_is_given_is_refused(server: StandIn, folder: Path) -> None:
    server.adds_before = 1
    with server.running() as url, pytest.raises(ModelError, match="other tokens than the ids") as caught:
        check(url, folder)
    assert caught.value.key == "models.teacher.path"


@pytest.mark.parametrize("says", [True, False])
def test_a_server_with_another_tokenizer_is_refused(
    says: bool, server: StandIn, folder: Path, tmp_path: Path
) -> None:
    """Also where it does not say what it reads: it continues the text otherwise than the ids."""
    server.gives_ids = says
    with server.running() as url:
        assert check(url, folder).way.ids_in
    described = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = described["model"]["vocab"]
    vocabulary["<unk>"], vocabulary["w2"] = vocabulary["w2"], vocabulary["<unk>"]
    shutil.copytree(folder, tmp_path / "other")
    for token in described["added_tokens"]:
        token["id"] = vocabulary.get(token["content"], token["id"])
    (tmp_path / "other" / "tokenizer.json").write_text(json.dumps(described))
    with server.running() as url, pytest.raises(ModelError) as caught:
        check(url, tmp_path / "other")
    assert caught.value.key == "models.teacher.tokenizer"


class Audit:
    """A toy audit whose teacher is behind a server, beside the same audit of the teacher's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        toys.write_audit(folder)
        self.plain = kdaudit("run", "audit.yaml", "--out", "plain", cwd=folder)
        assert self.plain.returncode == 0, self.plain.stderr
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder / "teacher").eval()
        shutil.move(folder / "teacher", folder / "away")
        self.server = StandIn(model, toys.tokenizer())

    def run(self, url: str, *words: str, command: str = "run") -> Any:
        config = YAML(typ="safe").load(self.folder / "audit.yaml")
        config["models"]["teacher"] = {"path": url, "model": "big"}
        with (self.folder / "served.yaml").open("w") as handle:
            YAML().dump(config, handle)
        return kdaudit(command, "served.yaml", *words, cwd=self.folder)

    def results(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / name / "results.json").read_text())
        return found


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return Audit(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def served(audit: Audit) -> Iterator[str]:
    with audit.server.running() as url:
        done = audit.run(url, "--out", "served")
        assert done.returncode == 0, done.stderr
        yield url


def test_an_audit_through_an_endpoint_equals_that_of_the_weights(audit: Audit, served: str) -> None:
    plain, found = audit.results("plain"), audit.results("served")
    for key in ("memorized", "rate", "windows_memorized", "survival", "holdout"):
        for name in plain["models"]:
            assert found["models"][name][key] == plain["models"][name][key], (name, key)
    assert found["comparison"] == plain["comparison"]
    assert found["soft_vs_hard"] == plain["soft_vs_hard"]
    told = [
        [(leak["example_id"], leak["memorized_by"], leak["classes"]) for leak in one["leaks"]]
        for one in (plain, found)
    ]
    assert told[0] == told[1]


def test_what_an_endpoint_does_not_give_is_null_and_noted(audit: Audit, served: str) -> None:
    found = audit.results("served")
    teacher = found["models"]["teacher"]
    assert teacher["perplexity"] is teacher["engine_check"] is teacher["below_rounding"] is None
    assert found["models"]["baseline"]["perplexity"] is not None
    assert teacher["fingerprint"].startswith("endpoint:")
    notes = {note["code"]: note["text"] for note in found["notes"]}
    assert served in notes["endpoint"]
    assert "cannot be verified" in notes["endpoint"]
    assert notes["endpoint_tokenizer"] == "The tokenizer of teacher is taken to be that of baseline."
    for page in ("report.html", "report.public.html"):
        assert notes["endpoint_tokenizer"] in (audit.folder / "served" / page).read_text(), page
    assert "models.teacher, which an endpoint does not give" in notes["no_predictor"]
    assert found["extraction"]["engine"] == "endpoint, transformers"


def test_the_host_stands_on_the_owners_page_alone(audit: Audit, served: str) -> None:
    host = served.split("/")[2]
    for name in ("report.html", "config.yaml", "results.json"):
        assert host in (audit.folder / "served" / name).read_text(), name
    fingerprint = audit.results("served")["models"]["teacher"]["fingerprint"]
    for name in ("report.public.html", "card.md", "manifest.json"):
        text = (audit.folder / "served" / name).read_text()
        assert host not in text, name
        assert name == "manifest.json" or fingerprint not in text
    assert "behind an endpoint" in (audit.folder / "served" / "report.public.html").read_text()


def test_a_reader_is_told_of_a_server_that_takes_text(audit: Audit, served: str) -> None:
    audit.server.takes_ids = audit.server.gives_ids = False
    try:
        done = audit.run(served, "--out", "by-text")
    finally:
        audit.server.takes_ids = audit.server.gives_ids = True
    assert done.returncode == 0, done.stderr
    found = audit.results("by-text")
    assert found["comparison"] == audit.results("plain")["comparison"]
    notes = {note["code"]: note["text"] for note in found["notes"]}
    assert "teacher was asked by text (text in, text out)" in notes["endpoint_text"]
    assert "endpoint_text" not in {note["code"] for note in audit.results("served")["notes"]}


def test_a_finished_run_is_shown_without_the_server(audit: Audit, served: str) -> None:
    before = len(audit.server.asked)
    done = audit.run(served, "--out", "served")
    assert done.returncode == 0, done.stderr
    assert len(audit.server.asked) == before


def test_another_address_is_another_model(audit: Audit, served: str) -> None:
    with audit.server.running() as other:
        done = audit.run(other, "--out", "served")
    assert done.returncode == 2
    assert "models.teacher.path" in done.stderr
    assert "--fresh" in done.stderr


def test_validate_asks_nothing_and_says_so(audit: Audit, served: str) -> None:
    before = len(audit.server.headers)
    done = audit.run(served, command="validate")
    assert done.returncode == 0, done.stderr
    assert len(audit.server.headers) == before
    assert "was not asked" in done.stdout + done.stderr


def test_a_server_that_fails_half_way_ends_with_4_and_the_run_resumes(audit: Audit) -> None:
    with audit.server.running() as url:
        audit.server.faults = [lambda _: False] * 30 + [stand_in.status(401)]
        done = audit.run(url, "--out", "halted")
        assert done.returncode == 4, done.stderr
        assert "answers with HTTP 401" in done.stderr
        assert "Traceback" not in done.stderr
        audit.server.faults = []
        done = audit.run(url, "--out", "halted")
        assert done.returncode == 0, done.stderr
    assert audit.results("halted")["comparison"] == audit.results("plain")["comparison"]


WRONG = {
    "models.teacher.path=http://u:p@localhost/v1": "holds a password",
    "models.teacher.path=http://localhost/v1/chat/completions": "names a method of the server",
    "models.teacher.path=http://localhost/v1?key=1": "has a query",
    "models.teacher.path=http://": "is not an address",
    "models.teacher.model=null": "models.teacher.model: is required with an endpoint",
    "models.teacher.api_key_env=sk-proj-12345": "is not the name of an environment variable",
    "models.teacher.dtype=float32": "models.teacher.dtype: goes with a model's weights",
    "models.teacher.revision=main": "models.teacher.revision: goes with a model's weights",
    "models.teacher.concurrency=0": "models.teacher.concurrency",
    "models.teacher.context=0": "models.teacher.context",
    "models.baseline={path: ./baseline, context: 9}": "models.baseline.context: goes with an endpoint",
    "models.teacher.api_key=sk-1": "models.teacher.api_key: unknown key",
    "models.baseline={path: ./baseline, model: x}": "models.baseline.model: goes with an endpoint",
    "models.teacher.tokenizer=./nowhere": "models.teacher.tokenizer",
}


@pytest.mark.parametrize("setting", WRONG)
def test_wrong_settings_are_refused_with_a_remedy_and_without_the_key(
    audit: Audit, served: str, setting: str
) -> None:
    done = audit.run(served, "--set", setting, command="validate")
    assert done.returncode == 2, done.stdout
    assert WRONG[setting] in done.stderr
    assert ";" in done.stderr
    assert "sk-" not in done.stderr


def test_without_any_weights_the_tokenizer_has_to_be_named(audit: Audit, served: str) -> None:
    students = [{"name": "s", "path": served, "model": "big"}]
    words = ("--set", "models.baseline=null", "--set", f"models.students={json.dumps(students)}")
    done = audit.run(served, *words, "--out", "bare")
    assert done.returncode == 2
    assert "models.teacher.tokenizer: no model of this audit has weights" in done.stderr
    students[0]["tokenizer"] = "./away"
    words = ("--set", "models.baseline=null", "--set", f"models.students={json.dumps(students)}")
    done = audit.run(served, *words, "--set", "models.teacher.tokenizer=./away", "--out", "bare")
    assert done.returncode == 0, done.stderr
    assert audit.results("bare")["models"]["s"]["memorized"] == 5
