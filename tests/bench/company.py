"""How many replies change with what is answered beside them.

`python -m tests.bench.company [--json] [--replies 256] [--quantization nf4 none fp32 int8]`.
The embedded pair answers first turns of its example dialogues, sampled at T = 0.7, each with a
seed of its own: first a pair alone (the reference), then 4 and 16 rounds at once, which all join
together, and 16 that join one by one. A reply differs when its text does. Exit code 1 if one
differs where the engine says that none may.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.settings import ASSETS

BASE, ALIGNED = str(ASSETS / "tiny" / "base"), str(ASSETS / "tiny" / "aligned")
Round = list[Request]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line on stdout")
    parser.add_argument("--replies", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--quantization", nargs="+", default=["nf4", "none", "fp32"])
    options = parser.parse_args()
    report: dict[str, Any] = {"replies": options.replies}
    broken = False
    for kind in options.quantization:
        engine = make_engine(kind)
        found = count(engine, rounds_of(options.replies // 2, options.tokens))
        report[kind] = {**found, "says": engine.describe()["replies in company"]}
        broken |= engine.repeatable and any(found.values())
        print(kind, report[kind], file=sys.stderr)
    print(json.dumps(report))
    sys.exit(1 if broken else 0)


def make_engine(
    kind: str, max_rounds: int | None = 64, base: str = BASE, aligned: str = ALIGNED
) -> Any:
    """The embedded pair, or another; `kind` is a quantisation, or fp32 for the embedded one."""
    from empo_demo.engine.loader import Loader
    from empo_demo.engine.lockstep.local import LocalEngine

    pair = (Contender("base", base), Contender("aligned", base, aligned))
    loader = Loader("cpu", "none" if kind == "fp32" else kind)  # type: ignore[arg-type]
    if kind == "fp32":
        return LocalEngine(exact_copies(), {}, max_rounds=max_rounds)
    return LocalEngine(loader.load(pair), loader.notes, max_rounds=max_rounds)


def exact_copies() -> list[Any]:
    from pathlib import Path

    import torch
    from transformers import AutoModelForCausalLM

    from empo_demo.engine.text.chat_template import load_tokenizer
    from empo_demo.engine.weights.adapters import attach
    from empo_demo.engine.weights.lora import install
    from empo_demo.engine.weights.model_weights import weights_of

    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    rows = install(attach(model, {"a0": Path(ALIGNED)}))
    return [weights_of(model, load_tokenizer(BASE), {"base": None, "aligned": "a0"}, rows)]


def rounds_of(count: int, tokens: int) -> list[Round]:
    """Rounds of base and aligned over prompts of different lengths."""
    examples = json.loads((ASSETS / "examples.json").read_text(encoding="utf8"))
    dialogues = [one["turns"] for one in examples]
    decoding = Decoding(0.7, 0.9, 1.1, tokens)
    rounds = []
    for i in range(count):
        turns = dialogues[i % len(dialogues)]
        said = tuple(
            turn
            if isinstance(turn, dict)
            else {"role": "user" if n % 2 == 0 else "assistant", "content": turn}
            for n, turn in enumerate(turns)
        )
        rounds.append(
            [
                Request(f"{i}a", "base", said, decoding, i),
                Request(f"{i}b", "aligned", said, decoding, i),
            ]
        )
    return rounds


def texts(events: Any) -> dict[str, str]:
    return {event.side: event.text for event in events if isinstance(event, Finished)}


def count(engine: Any, rounds: Sequence[Round]) -> dict[str, int]:
    """Replies that differ from those of the pair alone, by kind of company."""
    forget(engine)
    alone: dict[str, str] = {}
    for one in rounds:
        alone |= texts(engine.stream(one))
        forget(engine)
    assert len(alone) == 2 * len(rounds) and len(set(alone.values())) > len(rounds)
    found = {}
    for size in (1, 4, 16):
        said: dict[str, str] = {}
        for low in range(0, len(rounds), size):
            said |= texts(engine.stream([r for one in rounds[low : low + size] for r in one]))
        found[f"{size} at once"] = differing(alone, said)
    said = {}
    for low in range(0, len(rounds), 16):
        said |= one_by_one(engine, rounds[low : low + 16])
    found["one by one"] = differing(alone, said)
    return found


def forget(engine: Any) -> None:
    for batch in engine._batches:
        batch.forward.prefixes.clear()


def one_by_one(engine: Any, rounds: Sequence[Round]) -> dict[str, str]:
    """Each round joins when the one before has said its first word."""
    said: dict[str, str] = {}
    lock, threads = threading.Lock(), []
    for one in rounds:
        begun = threading.Event()

        def work(one: Round = one, begun: threading.Event = begun) -> None:
            events = []
            for event in engine.stream(one):
                begun.set()
                events.append(event)
            with lock:
                said.update(texts(events))

        threads.append(threading.Thread(target=work))
        threads[-1].start()
        begun.wait(60)
    for thread in threads:
        thread.join()
    return said


def differing(alone: dict[str, str], said: dict[str, str]) -> int:
    return sum(text != said.get(side) for side, text in alone.items())


if __name__ == "__main__":
    main()
