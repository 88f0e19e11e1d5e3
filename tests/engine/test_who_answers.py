"""Servers that answer with the wrong weights, and how the engine hears it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.engine.servers.remote import RemoteEngine
from empo_demo.engine.servers.who_answers import Answer, Token, distance
from empo_demo.errors import EngineError
from tests.listening import Handler, listening

BASE, ALIGNED = Contender("base", "org/base"), Contender("aligned", "org/base", "org/lora")
HINTED = Contender("base-hints", "org/base")
SAD = ({"role": "user", "content": "I failed my driving test again."},)


@dataclass
class Scripted:
    """A server of scripted models, each with its own words and log-probabilities.

    `mixes_up`: a model that answers while `lora` does is answered by `lora`. `swapped` names are
    answered by the other model. `likely` says whether log-probabilities are given.
    """

    voices: dict[str, str]
    mixes_up: bool = False
    likely: bool = True
    swapped: dict[str, str] = field(default_factory=dict)
    pause: float = 0.004
    down: bool = False
    asked: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    together: set[frozenset[str]] = field(default_factory=set)
    url: str = ""

    def weights(self, model: str) -> str:
        if self.mixes_up and "lora" in self.running:
            return "lora"
        return self.swapped.get(model, model)


class Answers(Handler):
    state: Scripted

    def do_GET(self) -> None:
        if self.state.down:
            self.send_error(503)
            return
        self._head()
        self.wfile.write(json.dumps({"data": [{"id": m} for m in self.state.voices]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state, model = self.state, body["model"]
        if state.down:
            self.send_error(503)
            return
        state.asked.append(model)
        state.running.append(model)
        state.together.add(frozenset(state.running))
        try:
            self._head()
            for place in range(body["max_tokens"]):
                time.sleep(state.pause)
                words = state.voices[state.weights(model)].split()
                word = words[place % len(words)]
                choice: dict[str, Any] = {"index": 0, "delta": {"content": word + " "}}
                if state.likely and body.get("logprobs"):
                    likely = [{"token": word, "logprob": -0.5}, {"token": "the", "logprob": -3.0}]
                    choice["logprobs"] = {"content": [{**likely[0], "top_logprobs": likely}]}
                self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())
            end = {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]}
            self.wfile.write(f"data: {json.dumps(end)}\n\ndata: [DONE]\n\n".encode())
        except OSError:
            pass  # the reader has closed the line
        finally:
            state.running.remove(model)

    def _head(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()


@contextmanager
def serving(state: Scripted) -> Iterator[Scripted]:
    with listening(type("Answers", (Answers,), {"state": state})) as state.url:
        yield state


@pytest.fixture
def server() -> Iterator[Scripted]:
    state = Scripted({"org/base": "You should try again soon.", "lora": "Oh no! I feel for you."})
    with serving(state):
        yield state


def ends(engine: RemoteEngine) -> dict[str, Finished | Failed]:
    decoding = Decoding(temperature=0, max_new_tokens=8)
    requests = [Request("a", "base", SAD, decoding), Request("b", "aligned", SAD, decoding)]
    return {e.side: e for e in engine.stream(requests) if isinstance(e, Finished | Failed)}


@pytest.mark.parametrize("likely", [True, False])
def test_a_sound_server_is_heard_as_what_it_is(server: Scripted, likely: bool) -> None:
    server.likely = likely
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True)
    notes = engine.describe()
    (heard,) = [words for name, words in notes.items() if name.startswith("who answers")]
    assert heard.startswith("each model as itself, alone and in company")
    assert ("log-probabilities" if likely else "texts") in heard
    assert {type(end) for end in ends(engine).values()} == {Finished}
    engine.close()


@pytest.mark.parametrize("likely", [True, False])
def test_a_row_without_an_adapter_that_gets_one_in_company_is_an_error(
    server: Scripted, likely: bool
) -> None:
    server.mixes_up, server.likely = True, likely
    with pytest.raises(EngineError) as error:
        RemoteEngine(server.url, (BASE, ALIGNED), check=True)
    words = str(error.value)
    assert "answers for base with the weights of aligned when both are asked at once" in words
    assert "--max-loras 2" in words and "EMPO_SERVER_TURNS=true" in words


def test_asked_in_turn_the_same_server_is_served_and_the_sides_appear_together(
    server: Scripted,
) -> None:
    server.mixes_up = True
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, in_turn=True)
    server.together.clear()
    shown = {"a": 0, "b": 0}
    texts = {}
    decoding = Decoding(temperature=0, max_new_tokens=8)
    requests = [Request("a", "base", SAD, decoding), Request("b", "aligned", SAD, decoding)]
    for event in engine.stream(requests):
        if isinstance(event, Finished):
            texts[event.side] = event.text
        else:
            assert not isinstance(event, Failed)
            shown[event.side] += len(event.text)
        if not texts:
            assert abs(shown["a"] - shown["b"]) <= 12
    assert all(len(models) == 1 for models in server.together)
    assert texts["a"].startswith("You should") and texts["b"].startswith("Oh no!")
    engine.close()


def test_many_rounds_in_turn_all_end_and_never_meet_another_model(server: Scripted) -> None:
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, in_turn=True)
    server.together.clear()
    results: list[dict[str, Finished | Failed]] = []
    threads = [threading.Thread(target=lambda: results.append(ends(engine))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 6
    assert all(isinstance(end, Finished) for result in results for end in result.values())
    assert all(len(models) == 1 for models in server.together)
    engine.close()


def test_contenders_of_the_same_weights_are_not_compared(server: Scripted) -> None:
    server.mixes_up = True
    engine = RemoteEngine(server.url, (BASE, HINTED), check=True)
    assert set(server.asked) == {"org/base"}
    engine.close()


def test_models_that_cannot_be_told_apart_are_said_to_be_so(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    server.voices["lora"] = server.voices["org/base"]
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True)
    assert "base and aligned could not be told apart" in caplog.text
    assert "some models could not be told apart" in engine.describe().values()
    engine.close()


def test_a_server_that_comes_back_with_other_weights_answers_nobody(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, look=3600)
    assert {type(end) for end in ends(engine).values()} == {Finished}
    server.down = True
    assert {type(end) for end in ends(engine).values()} == {Failed}
    server.down, server.swapped = False, {"lora": "org/base"}
    assert {type(end) for end in ends(engine).values()} == {Failed}
    assert "answers for aligned with the weights of base" in caplog.text
    server.swapped = {}
    assert {type(end) for end in ends(engine).values()} == {Failed}
    engine.close()


def test_the_watch_takes_a_server_back_that_has_its_own_weights_again(server: Scripted) -> None:
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, look=0.05)
    server.down = True
    ends(engine)
    server.down, server.swapped = False, {"lora": "org/base"}
    deadline = time.monotonic() + 20
    while {type(e) for e in ends(engine).values()} != {Failed} and time.monotonic() < deadline:
        pass
    server.swapped = {}
    while {type(e) for e in ends(engine).values()} != {Finished}:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.close()


def test_a_restart_between_two_rounds_is_noticed_by_the_watch(
    server: Scripted, caplog: pytest.LogCaptureFixture
) -> None:
    engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, look=0.05)
    server.down = True
    time.sleep(0.5)
    server.voices["org/base"] = "Nothing at all like it."
    server.down = False
    deadline = time.monotonic() + 20
    while "answers for base with other weights" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    failed = ends(engine)["a"]
    assert isinstance(failed, Failed) and "base" not in failed.error
    engine.close()


def test_a_second_server_with_the_names_exchanged_is_an_error(server: Scripted) -> None:
    other = Scripted({"org/base": server.voices["lora"], "lora": server.voices["org/base"]})
    said = "answers for base with the weights of aligned; serve"
    with serving(other), pytest.raises(EngineError, match=said):
        RemoteEngine(f"{server.url},{other.url}", (BASE, ALIGNED), check=True)


def test_a_server_that_cannot_be_heard_now_is_heard_before_it_answers(server: Scripted) -> None:
    real = Answers.do_POST
    full = {"now": True}

    def refuse(self: Answers) -> None:
        if full["now"]:
            self.send_error(503)
        else:
            real(self)

    Answers.do_POST = refuse  # type: ignore[method-assign]
    try:
        engine = RemoteEngine(server.url, (BASE, ALIGNED), check=True, look=3600)
        assert "not heard yet" in engine.describe().values()
        full["now"], server.mixes_up = False, True
        assert {type(end) for end in ends(engine).values()} == {Failed}
        engine.close()
    finally:
        Answers.do_POST = real  # type: ignore[method-assign]


def test_rounding_is_not_another_voice() -> None:
    one = [Answer("I am", (Token("I", {"I": -0.5, "You": -1.0}),))]
    rounded = [Answer("I am", (Token("I", {"I": -0.52, "You": -0.97}),))]
    other = [Answer("You", (Token("You", {"I": -2.5, "You": -0.2}),))]
    assert distance(one, rounded) < 0.05 < 1.0 < distance(one, other)
    assert distance(one, one) == 0.0
