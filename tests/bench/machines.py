"""Two replicas of the app behind nginx, one PostgreSQL, and optionally two vLLM servers.

    python -m tests.bench.machines [--rounds 200] [--visitors 8] [--json]
    python -m tests.bench.machines --vllm VENV --model FOLDER --adapter FOLDER --rounds 16

Visitors play through nginx, which keeps each on one replica by a cookie. Half-way, a replica is
killed with SIGKILL: its visitors are sent to the other one and go on in their dialogues. Then one
visitor opens more rounds than the limit allows, on both replicas. At the end: lost and doubled
votes (both must be 0), and the CPU seconds per round of app, database, proxy and servers. Without
--vllm the replies are scripted, so that two cores are enough for the app.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from recipes.servers.vllm_cpu import free_port, vllm
from tests import postgres as postgresql
from tests.conftest import REPOSITORY

LIMIT = 50
PATIENCE = 120.0
"""Seconds for which a visitor waits for a round that another replica may still answer."""
RETRIES = 3
VISITORS_AT_ONCE = 1000
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream app {{ hash $cookie_lane consistent; {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://app; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 600s;
      proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_next_upstream error timeout; proxy_connect_timeout 2s;
    }}
  }}
}}
"""


@contextmanager
def proxy(ports: list[int]) -> Iterator[tuple[str, int]]:
    """nginx before the replicas at `ports`: its address and its process id."""
    program = shutil.which("nginx")
    if program is None:
        raise SystemExit("nginx is not installed; `apt-get install nginx-light`.")
    with tempfile.TemporaryDirectory(prefix="nginx") as folder:
        port = free_port()
        servers = " ".join(f"server 127.0.0.1:{p} max_fails=1 fail_timeout=10s;" for p in ports)
        settings = Path(folder) / "nginx.conf"
        text = NGINX.format(folder=folder, port=port, servers=servers)
        settings.write_text(("user root;" if os.geteuid() == 0 else "") + text, encoding="utf8")
        process = subprocess.Popen([program, "-c", str(settings)])
        try:
            yield f"http://127.0.0.1:{port}", process.pid
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def replica(url: str, engine: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A replica that answers by scripted replies, or by the servers in `engine`."""
    port = free_port()
    environment = os.environ | {
        "EMPO_DATABASE": url,
        "EMPO_ROUNDS_PER_VOTER": str(LIMIT),
        "EMPO_ROUNDS_PER_ADDRESS": "100000",
        "EMPO_TRUSTED_PROXIES": "127.0.0.1",
        "GRADIO_SERVER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-W", "ignore", "-m"]
    if engine:
        environment |= {"EMPO_ENGINE": engine, "EMPO_BASE": "base", "EMPO_ALIGNED": "aligned"}
        command += ["empo_demo", "serve"]
    else:
        command += ["tests.bench.replicas", "--serve"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet
    )
    try:
        _wait_for(port, process)
        yield process, port
    finally:
        process.kill()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    from urllib.error import URLError
    from urllib.request import urlopen

    until = time.monotonic() + 300
    while time.monotonic() < until and process.poll() is None:
        try:
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            pass
        time.sleep(0.5)
    raise SystemExit("A replica did not start.")


class Visitor:
    """A browser behind the proxy. When its replica dies it connects again, and goes on."""

    def __init__(self, address: str, number: int) -> None:
        self.address, self.number = address, number
        self.client: Any = None
        self.voter = self.ask("/new_voter")
        self.consent = self.ask("/consent")["version"]
        self.again = self.retried = 0

    def ask(self, name: str, *arguments: Any) -> Any:
        """Ask the app; once more after a lost connection, which every endpoint must bear."""
        for attempt in range(8):
            try:
                return self._connected().predict(*arguments, api_name=name)
            except Exception as error:
                if "which is the limit" in str(error) or attempt == 7:
                    raise
                self.client = None
                self.again = getattr(self, "again", 0) + 1
                time.sleep(0.5)
        raise AssertionError("not reached")

    def _connected(self) -> Any:
        from gradio_client import Client

        if self.client is None:
            cookie = {"cookie": f"lane={self.number}"}
            self.client = Client(self.address, headers=cookie, verbose=False)
        return self.client

    def play(self, rounds: int) -> list[dict[str, Any]]:
        """So many rounds, three to a dialogue; what was acknowledged of each."""
        seen: list[dict[str, Any]] = []
        dialogue: list[Any] = []
        for number in range(rounds):
            text = f"I am visitor {self.number} and this is what happened on day {number}."
            opened = self.ask("/open_round", self.voter, dialogue, text, self.consent)
            name, last = self._answered(opened["round_id"])
            verdict = ("a", "b", "tie", "both_bad")[number % 4]
            receipt = self.ask("/vote", self.voter, name, verdict)
            goes_on = self.ask("/go_on", self.voter, name)
            kept = goes_on[-1]["content"] in (last["a"], last["b"])
            seen.append({"round": name, "receipt": receipt["receipt"], "kept": kept})
            dialogue = goes_on if number % 3 < 2 else []
            print(".", end="", file=sys.stderr, flush=True)
        return seen

    def _answered(self, name: str) -> tuple[str, dict[str, Any]]:
        """The round with both replies. Where a side failed, Retry is pressed, as a person would."""
        name, last = self._streamed(name)
        for _ in range(RETRIES):
            if not any(str(end).startswith("failed") for end in last["finished"].values()):
                break
            name, last = self._streamed(self._again(name))
        return name, last

    def _streamed(self, name: str) -> tuple[str, dict[str, Any]]:
        """The end of the round's stream. A cut one is awaited or tried again, as the app says."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return name, self.ask("/stream", self.voter, name)
            except Exception as error:
                if "cannot be answered" in str(error):
                    name = self._again(name)
                elif "answered already" not in str(error) or time.monotonic() > until:
                    raise

    def _again(self, name: str) -> str:
        self.retried += 1
        return str(self.ask("/retry", self.voter, name)["round_id"])

    def storm(self, opens: int) -> int:
        """Open rounds until the limit; how many were let in."""
        let_in = 0
        for _ in range(opens):
            try:
                self.ask("/open_round", self.voter, [], "Hello there.", self.consent)
                let_in += 1
            except Exception as refusal:
                if "which is the limit" not in str(refusal):
                    raise
        return let_in


def cpu(pid: int) -> float:
    """The CPU seconds of a process and of its children that live."""
    total = 0.0
    try:
        one = psutil.Process(pid)
        for process in [one, *one.children(recursive=True)]:
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    except psutil.NoSuchProcess:
        pass
    return total


def database_cpu() -> float:
    """The CPU seconds of the PostgreSQL of this test, and of its backends that have ended."""
    masters = [p for p in psutil.process_iter(["name", "ppid"]) if p.info["name"] == "postgres"]
    pids = {p.pid for p in masters}
    return sum(cpu(p.pid) for p in masters if p.info["ppid"] not in pids)


def run(url: str, rounds: int, visitors: int, engines: list[tuple[str, int]]) -> dict[str, Any]:
    """Play and count. `lost`, `doubled`, `broken` and `over_limit` must be 0."""
    from empo_demo.votes.models import Vote
    from empo_demo.votes.store import Store

    Store.open(url).close()
    share = [rounds // visitors + (i < rounds % visitors) for i in range(visitors)]
    if max(share) > LIMIT:
        raise SystemExit(f"More visitors are needed: each may play {LIMIT} rounds.")
    with ExitStack() as stack:
        engine = ",".join(address for address, _ in engines)
        first, second = (stack.enter_context(replica(url, engine)) for _ in range(2))
        address, nginx = stack.enter_context(proxy([first[1], second[1]]))
        crowd = [Visitor(address, number) for number in range(visitors)]
        before = [cpu(first[0].pid) + cpu(second[0].pid), database_cpu(), cpu(nginx)]
        before.append(sum(cpu(pid) for _, pid in engines))
        killed = {}

        def kill() -> None:
            killed["cpu"] = cpu(second[0].pid)
            second[0].kill()

        timer = threading.Thread(target=_half_way, args=(url, rounds // 2, kill), daemon=True)
        started = time.perf_counter()
        timer.start()
        with ThreadPoolExecutor(visitors) as at_once:
            parts = list(at_once.map(Visitor.play, crowd, share))
        seen = [row for part in parts for row in part]
        elapsed = time.perf_counter() - started
        after = [cpu(first[0].pid) + killed.get("cpu", 0.0), database_cpu(), cpu(nginx)]
        after.append(sum(cpu(pid) for _, pid in engines))
        third = stack.enter_context(replica(url, engine))
        both, _ = stack.enter_context(proxy([first[1], third[1]]))
        let_in = _storm(both)
    store = Store.open(url)
    with store.database.read() as session:
        stored = {row[0]: row[1] for row in session.execute(select(Vote.round_id, Vote.receipt))}
    store.close()
    names = ("app", "database", "nginx", "servers")
    per_round = {
        n: round((b - a) / len(seen), 4) for n, a, b in zip(names, before, after, strict=True)
    }
    return {
        "rounds": len(seen),
        "visitors": visitors,
        "seconds": round(elapsed, 1),
        "replica killed": bool(killed),
        "connected again": sum(visitor.again for visitor in crowd),
        "retried": sum(visitor.retried for visitor in crowd),
        "lost": sum(stored.get(row["round"]) != row["receipt"] for row in seen),
        "doubled": abs(len(stored) - len(seen)),
        "broken": sum(not row["kept"] for row in seen),
        "limit": LIMIT,
        "let_in": let_in,
        "over_limit": max(0, let_in - LIMIT),
        "CPU seconds per round": per_round,
        f"cores for {VISITORS_AT_ONCE} visitors, one round a minute each": {
            name: round(VISITORS_AT_ONCE * seconds / 60, 1) for name, seconds in per_round.items()
        },
    }


def _half_way(url: str, votes: int, act: Any) -> None:
    """Act once as many votes as `votes` are stored."""
    from sqlalchemy import func

    from empo_demo.votes.models import Vote
    from empo_demo.votes.store import Store

    store = Store.open(url)
    while True:
        with store.database.read() as session:
            if (session.scalar(select(func.count()).select_from(Vote)) or 0) >= votes:
                break
        time.sleep(0.1)
    store.close()
    act()


def _storm(address: str) -> int:
    """One voter opens rounds on both replicas at once; how many were let in."""
    lanes = [Visitor(address, number) for number in range(8)]
    for lane in lanes:
        lane.voter = lanes[0].voter
    with ThreadPoolExecutor(len(lanes)) as at_once:
        return sum(at_once.map(lambda lane: lane.storm((LIMIT + 30) // len(lanes)), lanes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--vllm", type=Path, help="vLLM's virtual environment")
    parser.add_argument("--model", type=Path, help="the base model's folder")
    parser.add_argument("--adapter", type=Path, help="the aligned adapter's folder")
    parser.add_argument("--json", action="store_true", help="only the last line")
    options = parser.parse_args()
    with ExitStack() as stack:
        servers = postgresql.server()
        stack.callback(lambda: next(servers, None))
        engines = []
        if options.vllm is not None:
            logs = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for number in range(2):
                server = stack.enter_context(
                    vllm(
                        options.vllm,
                        options.model,
                        log=logs / f"{number}.log",
                        adapters={"aligned": options.adapter},
                        max_loras=2,
                        cores=str(number % (os.cpu_count() or 1)),
                    )
                )
                engines.append((server.url, server.process.pid))
        result = run(next(servers).new_database(), options.rounds, options.visitors, engines)
    if not options.json:
        for name, value in result.items():
            print(f"{name:10} {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
