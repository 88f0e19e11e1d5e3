"""What the weights' format costs on a CPU: perplexity, milliseconds of a step, memory.

    python -m tests.bench.quantisation --base FOLDER --adapter FOLDER --data FOLDER

Perplexity is of what people answered first in 300 dialogues of ED-valid (folds 0 and 1), by the
base, computed by the passes that serve it; "four bits" also reads the prompts by them, which
serving does by bf16. A step is one token of base and aligned. Each format has a process of its own;
`rss_mb` is what it holds beyond its libraries after three replies, `peak_mb` its peak at loading.
Formats: `four-bits` (of the file itself, on our own layers: what EMPO_QUANTIZATION=none serves),
`bf16` (our own layers), `bf16-own` (the model's layers), `fp32`, `int8` and `nf4` (bitsandbytes).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from empo_demo.dialogue import Message
from empo_demo.settings import load_settings

FORMATS = ("four-bits", "bf16", "bf16-own", "fp32", "int8", "nf4")
AT_ONCE = 12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--adapter", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dialogues", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=40, help="of each reply that is timed")
    parser.add_argument("--replies", type=int, default=5, help="that are timed")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--one", choices=FORMATS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options, options.one)))
        return
    found = {}
    for name in options.formats:
        command = [sys.executable, "-m", "tests.bench.quantisation", *sys.argv[1:], "--one", name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, found[name], file=sys.stderr, flush=True)
    print(
        "| format | perplexity | ms a step of a pair | CPU ms | held | peak |\n"
        "|---|---|---|---|---|---|"
    )
    for name, one in found.items():
        print(
            f"| {name} | {one['perplexity']:.3f} | {one['ms_step']:.1f} | {one['cpu_ms_step']:.1f} "
            f"| {one['rss_mb']:.0f} MB | {one['peak_mb']:.0f} MB |"
        )
    print(json.dumps(found))


def measured(options: argparse.Namespace, name: str) -> dict[str, Any]:
    import bitsandbytes  # noqa: F401 - what the libraries take counts for none
    import peft  # noqa: F401

    before = memory("VmRSS")
    started = time.perf_counter()
    engine = engine_of(options, name)
    seconds = time.perf_counter() - started
    times, used = timed(engine, options)
    held = memory("VmRSS") - before
    peak = memory("VmHWM")
    pairs = people(options.data, options.dialogues)
    if name == "four-bits":
        from empo_demo.engine.weights import lora

        lora.FEW = 1 << 30
    total, tokens = likelihood(engine, pairs)
    return {
        "perplexity": math.exp(-total / tokens),
        "reply_tokens": tokens,
        "ms_step": statistics.median(times),
        "cpu_ms_step": statistics.median(used),
        "rss_mb": held,
        "peak_mb": peak,
        "seconds_to_load": seconds,
        "way": engine.model_of("base").way,
        "threads": engine.model_of("base").threads_of(2),
    }


def engine_of(options: argparse.Namespace, name: str) -> Any:
    """The pair as it is served in a format."""
    from empo_demo.contenders.roster import Contender
    from empo_demo.engine.assembly.served_copy import Assembly
    from empo_demo.engine.loader import Loader
    from empo_demo.engine.lockstep.local import LocalEngine
    from empo_demo.engine.weights.lora import FourBits

    if name == "bf16":
        FourBits.of = classmethod(lambda cls, matrix: None)  # type: ignore[method-assign,assignment]
    if name in ("bf16-own", "fp32"):
        Assembly._fastest = lambda self, model: "batch"  # type: ignore[method-assign]
    loader = Loader("cpu", name if name in ("int8", "nf4") else "none", "shared", True)  # type: ignore[arg-type]
    if name == "fp32":
        loader.dtype = "float32"
    pair = (
        Contender("base", options.base),
        Contender("aligned", options.base, options.adapter),
    )
    return LocalEngine(loader.load(pair), loader.notes)


def timed(engine: Any, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Milliseconds of the steps of a few replies, and this thread's processor time of them."""
    from empo_demo.engine.protocol import Decoding, Request
    from tests.bench.pair import MESSAGES

    batch = engine.batch_of("base")
    step, wall, used = batch.step, [], []

    def clocked() -> None:
        began, spent = time.perf_counter(), time.thread_time()
        step()
        wall.append((time.perf_counter() - began) * 1000)
        used.append((time.thread_time() - spent) * 1000)

    decoding = Decoding(0.7, 0.9, 1.1, options.tokens)
    batch.step = clocked
    for seed in range(options.replies):
        asked = [Request(c, c, MESSAGES, decoding, seed) for c in ("base", "aligned")]
        list(engine.stream(asked))
    del batch.step
    return wall, used


def people(data: Path, count: int) -> list[tuple[list[Message], str]]:
    """What was said first, under the pair's system prompt, and what a person answered."""
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.training.corpus import read_conversations
    from recipes.sem.folds import fold_of

    system: Message = {"role": "system", "content": load_roster(load_settings()).system_prompt}
    kept = [
        ([system, one.turns[0]], one.turns[1]["content"])
        for one in read_conversations(data, "valid")
        if len(one.turns) > 1 and fold_of(one.conv_id) in (0, 1)
    ]
    return kept[:count]


def likelihood(engine: Any, pairs: Sequence[tuple[Sequence[Message], str]]) -> tuple[float, int]:
    """(sum of log probabilities, tokens) of the replies and their end tokens, by the base."""
    import torch

    from empo_demo.engine.lockstep.attention import Prefill
    from empo_demo.engine.text.chat_template import encode_chat

    batch = engine.batch_of("base")
    tokenizer = batch.weights.tokenizer
    total, tokens = 0.0, 0
    for start in range(0, len(pairs), AT_ONCE):
        spans, ids, places, heads, targets = [], [], [], [], []
        for slot, (messages, reply) in enumerate(pairs[start : start + AT_ONCE]):
            prompt = encode_chat(tokenizer, messages)
            body = [*tokenizer(reply, add_special_tokens=False)["input_ids"]]
            body.append(tokenizer.eos_token_id)
            row = [*prompt, *body[:-1]]
            spans.append((slot, 0, len(row)))
            heads += range(len(ids) + len(prompt) - 1, len(ids) + len(row))
            ids += row
            places += range(len(row))
            targets += body
        passes = batch.forward.renewed()
        passes.cache.reserve(len(spans), max(stop for _, _, stop in spans))
        with torch.inference_mode():
            logits = passes._forward(
                [None] * len(spans),
                [1.0] * len(spans),
                [stop for _, _, stop in spans],
                torch.tensor([ids]),
                torch.tensor([places]),
                torch.tensor(heads),
                Prefill.of(passes.cache, spans),
            )
            found = torch.log_softmax(logits.float(), -1)
            total += float(found.gather(-1, torch.tensor(targets).view(-1, 1)).sum())
        tokens += len(targets)
    return total, tokens


def memory(name: str) -> float:
    """MB of this process: VmRSS now, VmHWM at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(x for x in lines if x.startswith(name)).split()[1]) / 1024


if __name__ == "__main__":
    main()
