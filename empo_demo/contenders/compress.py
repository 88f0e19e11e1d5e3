"""`adapter compress`: an oversized adapter cut to a rank that is cheap to serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from empo_demo.progress import amount
from empo_demo.terminal import AsJson

app = typer.Typer(no_args_is_help=True, help="Compress adapters.")


@app.callback()
def group() -> None:
    """Work on PEFT adapters."""


@app.command()
def compress(
    source: Annotated[str, typer.Argument(help="The adapter: a folder or a Hub id.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder to write; it must not exist.")
    ],
    rank: Annotated[int, typer.Option(help="The rank to cut it to.")],
    dialogues: Annotated[
        Path | None, typer.Option(help="Replies to score before and after: CSV or JSONL.")
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="The base for the scores; default: the adapter's own.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Replies to score at most.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Cut an adapter to a lower rank by truncated SVD, and say what was lost."""
    import json
    from dataclasses import asdict

    from empo_demo.engine.compression import VLLM_RANK
    from empo_demo.engine.compression import compress as cut
    from empo_demo.engine.downloads import adapter_folder
    from empo_demo.engine.plan import read_config, size

    folder = adapter_folder(source)
    with amount("Decomposing", in_bytes=False) as report:
        done = cut(folder, output, rank, report)
    result: dict[str, Any] = {**asdict(done), "output": str(output)}
    if dialogues is not None:
        own = base or str(read_config(folder).get("base_model_name_or_path") or "")
        result["log_likelihood"] = _change(own, folder, output, dialogues, limit)
    if as_json:
        typer.echo(json.dumps(result, ensure_ascii=False))
        return
    typer.echo(
        f"Rank {done.rank_before} -> {rank}, {size(done.bytes_before)} -> {size(done.bytes)}"
    )
    for kind, kept in sorted(done.kept.items()):
        typer.echo(f"  {kind:<14} {kept:.4f} of the squared singular values kept")
    if rank > VLLM_RANK:
        typer.echo(f"vLLM serves ranks up to {VLLM_RANK}.")
    if whole := read_config(folder).get("modules_to_save"):
        typer.echo(
            f"It replaces whole modules ({', '.join(whole)}), which vLLM takes in no adapter: "
            "serve a merged copy there (contenders prepare)."
        )
    found = result.get("log_likelihood")
    if found:
        low, high = found["interval"]
        typer.echo(
            f"Log-likelihood per token of {found['n']} replies: {found['before']:.4f} before, "
            f"{found['after']:.4f} after; change {found['change']:+.4f} [{low:+.4f}, {high:+.4f}]"
        )


def _change(base: str, before: Path, after: Path, file: Path, limit: int) -> dict[str, Any]:
    """The replies' mean log-likelihood per token with either adapter, under EMPO_QUANTIZATION."""
    from empo_demo.contenders.roster import Contender
    from empo_demo.dialogue import SYSTEM_PROMPT
    from empo_demo.engine.compression import likelihoods
    from empo_demo.engine.device import pick_device
    from empo_demo.engine.loading import Loader
    from empo_demo.engine.local import LocalEngine
    from empo_demo.engine.recorded import read_recordings
    from empo_demo.metrics.statistics import bootstrap_interval
    from empo_demo.settings import load_settings

    settings = load_settings()
    quantization = settings.quantization or "none"
    system = SYSTEM_PROMPT if settings.system_prompt is None else settings.system_prompt
    pairs = [(p.dialogue.messages(system), p.response) for p in read_recordings(file)[:limit]]
    loader = Loader(pick_device(settings.device, quantization), quantization)
    contenders = [Contender("before", base, str(before)), Contender("after", base, str(after))]
    engine = LocalEngine(loader.load(contenders), loader.notes)
    old, new = likelihoods(engine, "before", pairs), likelihoods(engine, "after", pairs)
    changes = [b - a for a, b in zip(old, new, strict=True)]
    mean = [sum(values) / len(values) for values in (old, new, changes)]
    return {
        "n": len(pairs), "before": mean[0], "after": mean[1], "change": mean[2],
        "interval": bootstrap_interval(changes), "quantization": quantization,
    }  # fmt: skip
