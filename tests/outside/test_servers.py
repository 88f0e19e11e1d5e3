"""What OpenAI-compatible servers were reported to do, each as a small stand-in.

Every test sends the bytes that such a server sends, and looks at what the engine makes of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from email.utils import formatdate
from typing import Any

import pytest

from empo_demo.contenders.load_roster import load_roster
from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Decoding, Delta, Event, Failed, Finished, Request
from empo_demo.engine.servers.remote import RemoteEngine
from empo_demo.engine.text.marks import ALL_THOUGHT
from empo_demo.errors import EngineError
from empo_demo.settings import Settings
from empo_demo.ui.texts import texts_of
from tests.listening import Handler, listening

DONE = b"data: [DONE]\n\n"
ASKED = (
    {"role": "system", "content": "Be warm."},
    {"role": "user", "content": "My dog died."},
)
Answer = bytes | Callable[[dict[str, Any]], "tuple[int, bytes] | tuple[int, bytes, dict[str, str]]"]


def chunk(text: Any = None, reason: str | None = None, model: str = "m", **more: Any) -> bytes:
    delta = ({} if text is None else {"content": text}) | more
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return b"data: " + json.dumps({"model": model, "choices": [choice]}).encode() + b"\n\n"


GOOD = chunk("I am ") + chunk("sorry.") + chunk(None, "stop") + DONE


class StandIn:
    """A server that lists `models` and answers each completion with `answer`.

    `answer` is the bytes of a stream, or a function of the request's body that gives a status, the
    bytes and perhaps headers. `asked` are the bodies so far.
    """

    of_this_test = ExitStack()

    def __init__(self, answer: Answer, models: tuple[str, ...] = ("m",)) -> None:
        self.answer, self.models, self.asked = answer, models, list[dict[str, Any]]()
        stand_in = self

        class Answers(Handler):
            def say(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(data)

            def do_GET(self) -> None:
                self.say(200, stand_in.listed())

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.asked.append(body)
                answer = stand_in.answer
                if callable(answer):
                    self.say(*answer(body))
                else:
                    self.say(200, answer)

        self.url = StandIn.of_this_test.enter_context(listening(Answers))

    def listed(self) -> bytes:
        return json.dumps({"data": [{"id": name} for name in self.models]}).encode()

    def engine(self, *contenders: Contender) -> RemoteEngine:
        return RemoteEngine(self.url, contenders or [Contender(id="m", base="m")])


@pytest.fixture(autouse=True)
def _end_the_stand_ins() -> Iterator[None]:
    yield
    StandIn.of_this_test.close()


def stream(engine: RemoteEngine, contender: str = "m", **decoding: Any) -> list[Event]:
    request = Request("a", contender, ASKED, Decoding(**decoding))
    return list(engine.stream([request]))


def end(answer: Answer, models: tuple[str, ...] = ("m",)) -> Finished | Failed:
    last = stream(StandIn(answer, models).engine())[-1]
    assert isinstance(last, Finished | Failed)
    return last


def text(answer: Answer, models: tuple[str, ...] = ("m",)) -> str:
    last = end(answer, models)
    assert isinstance(last, Finished), last
    return last.text


def error(answer: Answer, models: tuple[str, ...] = ("m",)) -> str:
    last = end(answer, models)
    assert isinstance(last, Failed), last
    assert texts_of("de").own(last.error) != last.error, "it is not translated"
    return last.error


# What a stream may hold


@pytest.mark.parametrize(
    "words",
    [
        b"\xef\xbb\xbf" + GOOD,
        GOOD.replace(b"data:", b"\xef\xbb\xbfdata:"),  # a writer that marks each event
        GOOD.replace(b"\n", b"\r\n"),
        GOOD.replace(b"\n", b"\r"),
        b": ping\n\nevent: message\nid: 7\nretry: 10\n" + GOOD,
        GOOD.replace(b"data: ", b"data:"),
        GOOD.replace(b'"choices"', b'\ndata: "choices"'),  # the lines of one event are joined
        GOOD.replace(b'{"index"', b'\r\ndata: {"logprobs": NaN, "x": -Infinity, "index"'),
        GOOD.replace(b"am ", b"am\\u0000 "),
        GOOD.replace(b"am ", b"am\x00 "),
        GOOD.removesuffix(DONE).rstrip(),  # ends without [DONE] and without a line break
        b"data:\n\ndata: \r\n\r\ndata: null\n\n" + GOOD,  # signs of life without a content
        GOOD.replace(b"data: [DONE]", b"data:  [DONE] "),
        GOOD.replace(b"[DONE]", b'"[DONE]"'),
        GOOD.replace(b'"finish_reason": null', b'"finish_reason": "null"'),
    ],
)
def test_a_stream_is_read_whole_however_it_is_written(words: bytes) -> None:
    assert text(words) == "I am sorry."


def test_done_ends_a_reply_that_gave_no_reason() -> None:
    assert text(chunk("I am ") + chunk("sorry.") + DONE) == "I am sorry."
    assert "broke off" in error(chunk("I am ") + chunk("sorry."))
    assert "broke off" in error(DONE)


def test_a_connection_that_is_lost_after_the_end_has_lost_nothing() -> None:
    def cut(words: bytes) -> Answer:
        return lambda _: (200, words, {"Content-Length": "99999"})

    assert text(cut(chunk("I am sorry.") + chunk(None, "stop"))) == "I am sorry."
    assert "broke off" in error(cut(chunk("I am sorry.")))


def raw(content: str, reason: str = "null") -> bytes:
    return (
        f'data: {{"model":"m","choices":[{{"delta":{{"content":"{content}"}},'
        f'"finish_reason":{reason}}}]}}\n\n'
    ).encode("utf8", "surrogatepass")


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [
        (("sorry \\ud83d", "\\ude22"), "sorry 😢"),
        (("\\ud83d\\ude22 sorry \\ud83d", "\\ude22 oh"), "😢 sorry 😢 oh"),
        (("sorry \\ud83d", " oh"), "sorry \ufffd oh"),
        (("sorry \\ude22", " oh"), "sorry \ufffd oh"),
        (("sorry ", "\\ud83d"), "sorry \ufffd"),
        (("sorry \\ud83d", "", "\\ude22"), "sorry 😢"),
        (("sorry \ud83d", "\ude22"), "sorry 😢"),  # as bytes that are no UTF-8
    ],
)
def test_halves_of_a_character_are_joined(pieces: tuple[str, ...], whole: str) -> None:
    words = b"".join(raw(piece) for piece in pieces) + raw("", '"stop"') + DONE
    events = stream(StandIn(words).engine())
    assert isinstance(events[-1], Finished) and events[-1].text == whole
    assert "".join(event.text for event in events if isinstance(event, Delta)) == whole
    whole.encode()


def test_content_may_come_in_parts() -> None:
    first = chunk([{"type": "text", "text": "I am "}, {"type": "reference", "ids": [1]}])
    rest = chunk([{"type": "text", "text": "sor"}, {"text": "ry."}, {"text": None}])
    rest += chunk([], "stop")
    assert text(first + rest + DONE) == "I am sorry."


@pytest.mark.parametrize("content", [["I am ", "sorry."], {"type": "text", "text": "I am sorry."}])
def test_parts_may_be_bare(content: Any) -> None:
    assert text(chunk(content) + chunk(None, "stop") + DONE) == "I am sorry."


@pytest.mark.parametrize("alone", [True, False])
def test_another_choice_is_no_part_of_the_reply(alone: bool) -> None:
    """No other is asked for; a server that sends one all the same must not mix them."""

    def event(*choices: tuple[int | None, str | None, str | None]) -> bytes:
        said = [
            {"index": i, "delta": {"content": words}, "finish_reason": why}
            for i, words, why in choices
        ]
        return b"data: " + json.dumps({"model": "m", "choices": said}).encode() + b"\n\n"

    other = event((1, "I am glad.", "length"))
    first = event((0, "I am ", None)) if alone else event((1, "Oh", None), (0, "I am ", None))
    last = end(other + first + other + event((0, "sorry.", "stop")) + other + DONE)
    assert isinstance(last, Finished) and (last.text, last.reason) == ("I am sorry.", "eos")
    unnumbered = event((None, "I am sorry.", "stop")).replace(b'"index": null, ', b"")
    assert text(unnumbered + DONE) == "I am sorry."


@pytest.mark.slow
def test_lines_that_never_make_an_event_do_not_fill_the_memory() -> None:
    assert "no OpenAI-style stream" in error((b"data: " + b"x" * 1000 + b"\n") * 20_000)
    assert "no OpenAI-style stream" in error((b": ping\n\n") * 2_000_000)


def test_a_compressed_stream_is_cleaned_and_bounded_too() -> None:
    import gzip

    def packed(words: bytes) -> Answer:
        return lambda _: (200, gzip.compress(words), {"Content-Encoding": "gzip"})

    assert text(packed(b"\xef\xbb\xbf" + GOOD)) == "I am sorry."
    assert "no OpenAI-style stream" in error(packed(b"data: " + b" " * 100_000_000))


# Why a reply ended


@pytest.mark.parametrize(
    "reason", ["abort", "error", "content_filter", "cancelled", "SAFETY", "FINISH_REASON_SAFETY"]
)
def test_a_reply_that_was_broken_off_is_no_reply(reason: str) -> None:
    told = error(chunk("I am so") + chunk(None, reason) + DONE)
    assert "try again" in told and (reason == "error" or reason not in told)


def test_tool_calls_without_a_text_are_no_reply() -> None:
    assert "try again" in error(chunk(None, "tool_calls") + DONE)


@pytest.mark.parametrize(
    ("said", "ours"),
    [
        ("stop", "eos"),
        ("STOP", "eos"),
        ("length", "length"),
        ("MAX_TOKENS", "length"),
        ("model_length", "length"),
        ("eos_token", "eos"),
        ("stop_sequence", "stop"),
        ("tool_calls", "eos"),
        ("end_turn", "eos"),
        ("stop_token", "eos"),
        ("FINISH_REASON_STOP", "eos"),
        ("finished", "eos"),
        ("stop_string", "stop"),
        ("max_new_tokens", "length"),
        ("max_output_tokens", "length"),
        ("FINISH_REASON_MAX_TOKENS", "length"),
    ],
)
def test_a_reply_that_ended_is_one(said: str, ours: str) -> None:
    last = end(chunk("I am sorry.") + chunk(None, said) + DONE)
    assert isinstance(last, Finished) and (last.text, last.reason) == ("I am sorry.", ours)


def test_an_error_in_the_stream_fails_the_side() -> None:
    for fault in (
        {"error": {"message": "out of memory"}},
        {"error": "out of memory", "error_type": "generation"},
        {"object": "error", "message": "out of memory", "code": 500},
        {"detail": "out of memory"},
    ):
        words = chunk("I am so") + b"data: " + json.dumps(fault).encode() + b"\n\n" + DONE
        assert "broke off with an error" in error(words)


# What a server refuses


def refusing(*complaints: tuple[str, str], status: int = 400) -> StandIn:
    """Refuses the fields one after another, each in its own words, as servers do."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        roles = [message["role"] for message in body["messages"]]
        for name, words in complaints:
            if name in body or name in roles:
                return status, words.encode()
        return 200, GOOD

    return StandIn(answer)


def extra(name: str) -> tuple[str, str]:
    """How FastAPI servers (Mistral's API) refuse a field. They repeat what they were sent."""
    echo = {"messages": [{"role": "system", "content": "the seed of max_tokens is too long"}]}
    detail = [
        {
            "type": "extra_forbidden",
            "loc": ["body", name],
            "msg": "Extra inputs are not permitted",
            "input": echo,
        }
    ]
    return name, json.dumps({"detail": detail})


OPENAI = (
    "max_tokens",
    "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
    "'max_completion_tokens' instead.",
)
GEMMA = (
    "system",
    '{"error":{"message":"Conversation roles must alternate user/assistant/user/assistant/..."}}',
)
TEMPERATURE = (
    "temperature",
    "Unsupported value: 'temperature' does not support 0.7 with this model. Only the default (1) "
    "value is supported.",
)


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize(
    "complaints",
    [
        [OPENAI],
        [GEMMA],
        [("system", "System role not supported")],
        [("system", "Developer instruction is not enabled for models/gemma-3")],
        [("system", "Only user and assistant roles are supported!")],
        [("system", "First message must be from user")],
        [("system", "the conversation has to start with a user turn")],
        [("system", "'system' is not one of ['user', 'assistant'] - 'messages.0.role'")],
        [
            (
                "system",
                '{"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be '
                "'user' or 'assistant'\"}]}",
            )
        ],
        [("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.')],
        [("repetition_penalty", "Unrecognized request argument supplied: repetition_penalty")],
        [("chat_template_kwargs", "property 'chat_template_kwargs' is unsupported")],
        [("chat_template_kwargs", "enable_thinking is not supported")],
        [("top_p", "Input validation error: `top_p` must be > 0.0 and < 1.0")],
        [("temperature", "temperature: only 1 is allowed")],
        [("seed", "'seed' is out of range")],
        [extra("seed")],
        [("stream_options", "stream_options: unknown field"), OPENAI, TEMPERATURE, GEMMA],
        [
            extra("repetition_penalty"),
            extra("seed"),
            extra("stream_options"),
            extra("max_tokens"),
            extra("chat_template_kwargs"),
            extra("top_p"),
            GEMMA,
        ],
    ],
)
def test_what_a_server_refuses_is_left_out_one_after_another(
    complaints: list[tuple[str, str]], status: int
) -> None:
    server = refusing(*complaints, status=status)
    engine = server.engine()
    assert isinstance(stream(engine)[-1], Finished)
    assert len(server.asked) == len(complaints) + 1
    last, refused = server.asked[-1], {name for name, _ in complaints}
    assert not refused & {*last, *(message["role"] for message in last["messages"])}
    assert ("max_completion_tokens" in last) == ("max_tokens" in refused)
    assert last["messages"][-1]["content"].endswith("My dog died.")
    assert any("Be warm." in message["content"] for message in last["messages"])
    stream(engine)
    assert len(server.asked) == len(complaints) + 2, "the next reply is asked for as it must be"


def test_what_the_decoding_lacks_is_said() -> None:
    server = refusing(TEMPERATURE, extra("seed"))
    engine = server.engine()
    stream(engine)
    notes = engine.describe()
    assert "left out" in notes["temperature"] and "left out" in notes["seed"]
    assert "stream options" not in notes and "repetition penalty" not in notes


def test_only_what_has_helped_is_kept() -> None:
    server = StandIn(lambda _: (400, b"unknown field seed"))
    engine = server.engine()
    assert isinstance(stream(engine)[-1], Failed)
    server.answer = GOOD
    stream(engine)
    assert "seed" in server.asked[-1] and "seed" not in engine.describe()


def test_a_server_in_trouble_does_not_change_the_prompt() -> None:
    server = StandIn(lambda _: (500, b"internal system error"))
    engine = server.engine()
    assert isinstance(stream(engine)[-1], Failed) and len(server.asked) == 1
    server.answer = GOOD
    stream(engine)
    assert server.asked[-1]["messages"][0]["role"] == "system"


def test_that_the_system_text_was_folded_is_said() -> None:
    engine = refusing(GEMMA).engine()
    stream(engine)
    assert "first message" in engine.describe()["system text"]


def test_a_server_that_refuses_everything_is_asked_a_few_times_only() -> None:
    server = StandIn(lambda _: (400, b"unknown: seed, max_tokens, max_completion_tokens, system"))
    last = stream(server.engine())[-1]
    assert isinstance(last, Failed) and "refused the request" in last.error
    assert len(server.asked) < 12


@pytest.mark.parametrize(
    ("words", "long"),
    [
        ("This model's maximum context length is 128 tokens. However, you requested 300", True),
        (
            "'max_tokens' or 'max_completion_tokens' is too large: 200. This model's maximum "
            "context length is 128 tokens and your request has 100 input tokens",
            True,
        ),
        ("the request exceeds the available context size. try increasing it", True),
        ("`inputs` tokens + `max_new_tokens` must be <= 128. Given: 100 and 200", True),
        ("Prompt is too long", True),
        (OPENAI[1].replace("max_", "other_"), False),
        ("I do not like you", False),
    ],
)
def test_only_what_is_too_long_is_called_so(words: str, long: bool) -> None:
    told = error(lambda _: (400, json.dumps({"error": {"message": words}}).encode()))
    assert ("too long" in told) == long


# Names


@pytest.mark.parametrize(
    ("asked", "answered", "models", "same"),
    [
        ("m", "m-2024-07-18", ("m", "m-2024-07-18"), True),
        ("m", "m-0613", ("m", "m-0613"), True),
        ("m", "m-20241022", ("m",), True),
        ("m", "m:latest", ("m", "m:latest"), True),
        ("m", "M", ("m",), True),
        ("m", "/models/m", ("m",), True),
        ("m", "m@main", ("m",), True),
        ("org/m:free", "org/m", ("org/m", "org/m:free"), True),
        ("m", "m-dpo", ("m", "m-dpo"), False),
        ("m", "m2", ("m",), False),
        ("gpt-4", "gpt-4o", ("gpt-4",), False),
        ("m:12b", "m:27b", ("m:12b", "m:27b"), False),
        ("one/m", "two/m", ("one/m", "two/m"), False),
    ],
)
def test_the_model_that_answers_is_the_one_that_was_asked(
    asked: str, answered: str, models: tuple[str, ...], same: bool
) -> None:
    engine = StandIn(chunk("Hi.", "stop", answered) + DONE, models).engine(Contender("m", asked))
    last = stream(engine)[-1]
    assert isinstance(last, Finished) == same
    assert same or (isinstance(last, Failed) and "Another model" in last.error)


def test_a_dated_name_that_is_another_contender_is_another_model() -> None:
    dated = "m-2024-07-18"
    server = StandIn(chunk("Hi.", "stop", dated) + DONE, ("m", dated))
    last = stream(server.engine(Contender("m", "m"), Contender("n", dated)))[-1]
    assert isinstance(last, Failed) and "Another model" in last.error


@pytest.mark.parametrize(
    ("base", "models", "found"),
    [
        ("gemma3", ("gemma3:latest", "gemma3:27b"), "gemma3:latest"),
        ("gemma3:27b", ("gemma3:latest", "gemma3:27b"), "gemma3:27b"),
        ("gemma3:latest", ("gemma3",), "gemma3"),
        ("deepseek/r1:free", ("deepseek/r1", "deepseek/r1:free"), "deepseek/r1:free"),
        ("Qwen/Qwen3-8B", ("qwen/qwen3-8b",), "qwen/qwen3-8b"),
        ("gpt-4o", ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06"), "gpt-4o-2024-08-06"),
        (r"C:\models\llama", ("llama",), "llama"),
    ],
)
def test_a_contender_finds_its_name_on_the_server(
    base: str, models: tuple[str, ...], found: str
) -> None:
    server = StandIn(GOOD.replace(b'"model": "m"', b'"model": ""'), models)
    engine = server.engine(Contender("x", base))
    assert engine.describe()["model x"] == found
    assert isinstance(stream(engine, "x")[-1], Finished)
    assert server.asked[0]["model"] == found


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        ('{"object": "list", "data": null}', "serves nothing"),  # Ollama before the first pull
        ('\ufeff{"data": [{"id": "other", "price": NaN}]}', "serves other"),
        ('[{"id": "other"}]', "serves other"),  # Together
    ],
)
def test_a_list_of_models_is_read_in_every_form(
    listed: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = StandIn(GOOD)
    monkeypatch.setattr(StandIn, "listed", lambda _: listed.encode())
    with pytest.raises(EngineError, match=f"{told}, but not the contender 'm'"):
        server.engine()


def test_a_name_that_is_wanted_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError, match=r"under one of the names org/m, m, x\."):
        StandIn(GOOD, ("other",)).engine(Contender("x", "org/m"))
    with pytest.raises(EngineError, match=r"under the name m\."):
        StandIn(GOOD, ("other",)).engine(Contender("m", "m"))


# Waiting for a busy server


def busy(times: int, headers: dict[str, str], status: int = 429) -> StandIn:
    """Answers only after it was asked `times` times too often."""
    asked: list[None] = []

    def answer(_: dict[str, Any]) -> tuple[int, bytes, dict[str, str]]:
        asked.append(None)
        return (status, b"slow down", headers) if len(asked) <= times else (200, GOOD, {})

    return StandIn(answer)


@pytest.mark.parametrize(
    ("status", "pause"),
    [(429, "1"), (429, "0"), (429, "0.2"), (429, None), (503, "0"), (529, "0.2")],
)
def test_a_busy_server_is_asked_again_when_it_says(status: int, pause: str | None) -> None:
    after = formatdate(time.time() + 1, usegmt=True) if pause is None else pause
    server, started = busy(2, {"Retry-After": after}, status), time.monotonic()
    last = stream(server.engine())[-1]
    assert isinstance(last, Finished) and last.text == "I am sorry."
    if pause == "1":
        assert time.monotonic() - started >= 2


@pytest.mark.parametrize("pause", ["3600", "soon", "nan", "inf", "", "Mon, 99 Foo"])
def test_a_pause_that_is_too_long_or_none_is_not_waited(pause: str) -> None:
    server, started = busy(9, {"Retry-After": pause}), time.monotonic()
    last = stream(server.engine())[-1]
    assert isinstance(last, Failed) and "(429)" in last.error
    assert time.monotonic() - started < 10 and len(server.asked) == 1


def test_all_pauses_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("empo_demo.engine.servers.remote.MOST_PAUSE", 1.2)
    server = busy(99, {"Retry-After": "0.5"})
    assert isinstance(stream(server.engine())[-1], Failed)
    assert len(server.asked) == 3


def test_another_server_answers_before_a_busy_one_is_waited_for() -> None:
    first, second = busy(9, {"Retry-After": "15"}), StandIn(GOOD)
    engine = RemoteEngine(f"{first.url},{second.url}", [Contender("m", "m")], look=60)
    started = time.monotonic()
    assert isinstance(stream(engine)[-1], Finished) and time.monotonic() - started < 10
    assert "do not answer" not in engine.describe(), "a busy server is not away"
    engine.close()


def test_stop_ends_the_wait_for_a_busy_server() -> None:
    server = busy(9, {"Retry-After": "15"})
    events: Any = server.engine().stream([Request("a", "m", ASKED)])
    assert within_a_second(events, until=lambda: len(server.asked) == 1) == []


# Stop


def within_a_second(events: Any, until: Callable[[], object]) -> list[Event]:
    """What a reader of `events` gets. After `until`, the stream is closed in another thread."""
    read: list[Event] = []
    reader = threading.Thread(target=lambda: read.extend(events), daemon=True)
    reader.start()
    deadline = time.monotonic() + 30
    while not until() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert until()
    events.close()
    reader.join(1)
    assert not reader.is_alive(), "the reader waits for a silent server"
    return read


@pytest.fixture
def silent() -> Iterator[StandIn]:
    """A server that says nothing until the test is over."""
    over = threading.Event()

    def answer(_: dict[str, Any]) -> tuple[int, bytes]:
        over.wait(60)
        return 200, GOOD

    yield StandIn(answer)
    over.set()


def test_closing_the_stream_frees_the_reader_of_a_silent_server(silent: StandIn) -> None:
    events: Any = silent.engine().stream([Request("a", "m", ASKED)])
    assert within_a_second(events, until=lambda: silent.asked) == []


def test_stop_ends_a_round_of_a_silent_server(silent: StandIn) -> None:
    from empo_demo.arena.frames import Frame, frames
    from empo_demo.arena.jobs import Job
    from empo_demo.arena.live import Live
    from empo_demo.arena.streaming import RoundStream

    jobs: Any = {side: Job(side, Request(side, "m", ASKED), None) for side in ("a", "b")}
    live = Live("round")
    stored: list[Live] = []
    stream = frames(
        RoundStream(silent.engine(), jobs, live),
        live.replies,
        watch=lambda: live.watch(stored.append),
    )
    read: list[Frame] = []
    reader = threading.Thread(target=lambda: read.extend(stream), daemon=True)
    reader.start()
    deadline = time.monotonic() + 30
    while len(silent.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    live.interrupt()
    reader.join(1)
    assert not reader.is_alive()
    (last,) = read
    assert [getattr(end, "reason", end) for end in last.ends.values()] == ["stopped"] * 2
    assert stored == [live]


def test_a_mixed_round_is_cut_too(silent: StandIn) -> None:
    from empo_demo.engine.servers.routing import RoutingEngine

    other = StandIn(GOOD)
    contenders = Contender("m", "m"), Contender("n", "m")
    engine = RoutingEngine({"m": silent.engine(contenders[0]), "n": other.engine(contenders[1])})
    events: Any = engine.stream([Request("a", "m", ASKED), Request("b", "n", ASKED)])
    within_a_second(events, until=lambda: silent.asked)


# Thoughts


@pytest.mark.parametrize(
    "words",
    [
        chunk("<think>\nIs she sad?\n</think>\n\n") + GOOD,
        chunk("<thi") + chunk("nk>hm") + chunk("</thin") + chunk("k>") + GOOD,
        chunk(None, reasoning_content="Is she sad?") + GOOD,
        chunk(None, reasoning="Is she sad?") + GOOD,
        chunk([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]) + GOOD,
    ],
)
def test_thoughts_are_no_part_of_a_reply(words: bytes) -> None:
    events = stream(StandIn(words).engine())
    assert isinstance(events[-1], Finished) and events[-1].text == "I am sorry."
    assert "".join(event.text for event in events if isinstance(event, Delta)) == "I am sorry."


@pytest.mark.parametrize(
    "words",
    [
        chunk("<think>Is she sad? ") + chunk("Perhaps", "length"),
        chunk("<think>Is she sad?</think>\n", "stop"),
        chunk("<think>Is she sad?"),
        chunk(None, reasoning_content="Is she sad?") + chunk(None, "length"),
    ],
)
def test_a_reply_that_was_all_thought_says_so(words: bytes) -> None:
    assert error(words + DONE) == ALL_THOUGHT


def test_no_thinking_is_asked_for() -> None:
    server = StandIn(GOOD)
    stream(server.engine())
    assert server.asked[0]["chat_template_kwargs"]["enable_thinking"] is False


def test_a_model_whose_template_opens_the_thought_is_known_after_its_first_reply() -> None:
    server = StandIn(chunk("Is she sad?") + chunk("</think>") + GOOD)
    engine = server.engine()
    first = stream(engine)[-1]
    assert isinstance(first, Failed) and "try again" in first.error
    second = stream(engine)
    assert isinstance(second[-1], Finished) and second[-1].text == "I am sorry."
    assert "sad" not in "".join(event.text for event in second if isinstance(event, Delta))
    server.answer = GOOD  # it thinks no more: one reply is lost, not all of them
    stream(engine)
    assert isinstance(stream(engine)[-1], Finished)


# Settings and start


@pytest.mark.parametrize("name", ["gemma3:latest", "deepseek/deepseek-r1:free", "a model", "x@y"])
def test_with_a_server_a_model_may_have_any_name(name: str, tmp_path: Any) -> None:
    roster = load_roster(Settings(engine="http://localhost:1", base=name, aligned=name + "-dpo"))
    assert roster["base"].base == name
    assert name + "-dpo" in (roster["aligned"].base, roster["aligned"].adapter)
    file = tmp_path / "own.toml"
    file.write_text(
        f'name = "own"\n[[contenders]]\nid = "gemma3:latest"\nbase = "{name}"\n'
        f'[[contenders]]\nid = "other"\nbase = "{name}2"\n'
    )
    roster = load_roster(Settings(engine="http://localhost:1", preset=str(file)))
    assert [c.id for c in roster.contenders] == ["gemma3:latest", "other"]


def test_without_a_server_openai_is_not_imported() -> None:
    code = (
        "import sys, empo_demo.cli, empo_demo.engine.loading, empo_demo.contenders.load_roster\n"
        "sys.exit('openai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    proxy = StandIn(GOOD)
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    outside = RemoteEngine("http://models.invalid/v1", [Contender("m", "m")])
    assert isinstance(stream(outside)[-1], Finished) and len(proxy.asked) == 1
    assert text(GOOD) == "I am sorry." and len(proxy.asked) == 1


def test_looking_at_servers_for_days_keeps_no_sockets() -> None:
    from empo_demo.engine.servers.server import ModelServer
    from empo_demo.engine.servers.transport import Line

    server, line = ModelServer(StandIn(GOOD).url, (), read=5), Line()
    for _ in range(5):
        server.look(line)
    assert len(line._sockets) == 1


def test_without_a_key_no_authorization_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    import empo_demo.engine.servers.transport as transport

    seen: list[str | None] = []
    send = transport.Line.handle_request

    def spy(self: transport.Line, request: Any) -> Any:
        seen.append(request.headers.get("authorization"))
        return send(self, request)

    monkeypatch.setattr(transport.Line, "handle_request", spy)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    stream(StandIn(GOOD).engine())
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    stream(StandIn(GOOD).engine())
    assert seen == [None, None, "Bearer secret", "Bearer secret"]
