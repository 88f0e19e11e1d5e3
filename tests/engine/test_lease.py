"""ZeroGPU with the real `spaces` package: what it is asked for, and what a visitor is told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from empo_demo.contenders.load_roster import load_roster
from empo_demo.engine import lease
from empo_demo.engine.protocol import Decoding, Failed, Finished, Request
from empo_demo.errors import SettingsError
from empo_demo.settings import load_settings
from tests.conftest import REPOSITORY
from tests.listening import Handler, listening

SHORT = Request("a", "base", (), Decoding(max_new_tokens=60))
LONG = Request("b", "base", (), Decoding(max_new_tokens=400))


@dataclass
class Cards:
    """The service that lends the cards, as `spaces` calls it; what it was asked for."""

    url: str = ""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    empty: bool = False

    def answer(self, path: str) -> tuple[int, dict[str, Any]]:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        self.asked.append((parts.path, query))
        if parts.path != "/schedule":
            return 200, {}
        if self.empty:
            return 429, {"left": 3, "wait": "PT2H"}
        lent = {"idle": False, "nvidiaIndex": 0, "nvidiaUUID": "GPU-0", "allowToken": "lent"}
        return 200, lent

    def of(self, path: str) -> list[dict[str, str]]:
        return [query for asked, query in self.asked if asked == path]


@pytest.fixture
def cards() -> Iterator[Cards]:
    state = Cards()

    class Answers(Handler):
        def do_POST(self) -> None:
            status, body = state.answer(self.path)
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with listening(Answers) as state.url:
        yield state


@dataclass
class Space:
    url: str
    log: Path


@pytest.fixture
def space(cards: Cards, tmp_path: Path) -> Iterator[Space]:
    """`app.py` in a process that takes itself for a ZeroGPU Space; the port is Gradio's choice."""
    pytest.importorskip("spaces")
    (tmp_path / "cgroup").write_text("1:devices:/space\n")
    log = tmp_path / "log"
    environment = {name: v for name, v in os.environ.items() if not name.startswith("EMPO_")} | {
        "SPACES_ZERO_GPU": "true",
        "SPACES_ZERO_DEVICE_API_URL": cards.url,
        "ZEROGPU_OFFLOAD_DIR": str(tmp_path / "packed"),
        "ZEROGPU_PROC_SELF_CGROUP_PATH": str(tmp_path / "cgroup"),
        "EMPO_DATABASE": f"sqlite:///{tmp_path}/votes.sqlite3",
        "EMPO_SEED": "3",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "tests/engine/zero_gpu.py"],
            cwd=REPOSITORY,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        deadline, found = time.monotonic() + 240, None
        while found is None and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
            found = re.search(r"Running on local URL:\s+(\S+)", log.read_text())
        assert found is not None, log.read_text()[-4000:]
        yield Space(found[1], log)
    finally:
        with suppress(ProcessLookupError):  # it ended by itself; the assertion says how
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def answer(space: Space) -> dict[str, Any]:
    """One round through the documented endpoints, by a visitor whose quota has a token."""
    from gradio_client import Client

    client = Client(space.url, headers={"X-IP-Token": "e30.e30.e30"}, verbose=False)
    voter = client.predict(api_name="/new_voter")
    consent = client.predict(api_name="/consent")["version"]
    opened = client.predict(voter, [], "My dog died.", consent, api_name="/open_round")
    *_, last = client.submit(voter, opened["round_id"], api_name="/stream")
    return {**last, "voter": voter, "round": opened["round_id"], "client": client}


@pytest.mark.slow
def test_a_round_runs_on_a_leased_card(space: Space, cards: Cards) -> None:
    said = space.log.read_text()
    assert said.index("importing spaces") < said.index("importing torch")
    assert cards.of("/startup-report") == [{}], "no decorated function was found at the launch"
    assert "'device': 'cuda', 'quantisation': 'none'" in said

    last = answer(space)
    assert last["a"] and last["b"] and set(last["finished"]) == {"a", "b"}
    assert not any(reason.startswith("failed") for reason in last["finished"].values())
    receipt = last["client"].predict(last["voter"], last["round"], "a", api_name="/vote")
    assert receipt["created"]
    (scheduled,) = cards.of("/schedule")
    assert scheduled["token"] == "e30.e30.e30", "the visitor's own quota is used"
    assert int(scheduled["durationSeconds"]) == lease.seconds([SHORT])
    assert cards.of("/release") == [{"allowToken": "lent", "fail": "false"}]

    cards.empty = True
    refused = answer(space)
    assert set(refused["finished"]) == {"a", "b"}
    assert all("free GPU time is used up" in reason for reason in refused["finished"].values())


def test_a_lease_asks_for_what_the_longer_side_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_steps", [])
    short, long = lease.seconds([SHORT]), lease.seconds([SHORT, LONG])
    assert short < 15 < long < 60
    monkeypatch.setattr(lease, "_steps", [0.02, 0.03])
    assert lease.seconds([SHORT, LONG]) == round(5 + 1.5 * 0.03 * 400)
    monkeypatch.setattr(lease, "_bytes", 29_000_000_000)
    assert lease.seconds([SHORT]) == round(5 + 14.5 + 1.5 * 0.03 * 60)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("You have exceeded your free ZeroGPU quota (15s requested vs. 3s left).", "used up"),
        ("Space app has reached its GPU limit.", "used up"),
        ("No GPU was available after 60s.", "in use at the moment"),
        ("GPU task aborted", "taken away before the replies were complete"),
        ("The requested GPU duration (400s) is larger than the maximum allowed", "GPU of its own"),
        ("RuntimeError", "could not be borrowed"),
    ],
)
def test_a_lease_that_fails_is_one_sentence_for_each_open_side(
    monkeypatch: pytest.MonkeyPatch, said: str, told: str
) -> None:
    import gradio as gr

    class Engine:
        def check(self, requests: Any) -> None:
            pass

    def broken(requests: Any) -> Iterator[Any]:
        yield Finished("a", "eos", "I am sorry.", 4, 100.0)
        raise gr.Error(said, print_exception=False)

    monkeypatch.setattr(lease, "_on_lease", broken)
    events = list(lease.LeasedEngine(Engine(), []).stream([SHORT, LONG]))  # type: ignore[arg-type]
    assert isinstance(events[0], Finished)
    (failed,) = events[1:]
    assert isinstance(failed, Failed) and failed.side == "b" and told in failed.error


def test_models_are_not_quantised_on_zero_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_roster(load_settings()).quantization == "nf4"
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert load_roster(load_settings()).quantization == "none"
    with pytest.raises(SettingsError, match="16 bit"):
        load_roster(load_settings(quantization="nf4"))
    monkeypatch.setenv("SPACES_ZERO_GPU", "false")
    assert load_roster(load_settings(quantization="nf4")).quantization == "nf4"
