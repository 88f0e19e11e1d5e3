"""Visitors per GPU by model and card: computed, not measured. `python -m tests.bench.capacity`.

Decoding reads all weights once a step, so steps/s <= bandwidth / (weights + adapters + KV of all
rows). A round is two rows of 1,000 tokens. As many rounds run together as the memory holds (at
most 32: bitsandbytes' fused kernels end at 64 rows) while each reply still gets 10 tokens/s, which
is faster than people read. A visitor opens one round of 100 tokens a side per minute.

Two limits are put on that bound. `--share`: the part of the bandwidth that is reached; 0.36 is what
bitsandbytes' own benchmark reached with NF4 on an RTX 4090. `--layer-ms`: what a layer's launches
cost a step whatever the card; 0.76 ms is an H100 at 41 tokens/s with 32 layers, from the same
benchmark. A LoRA's own launches add 0.32 of it (measured on a CPU, where launches are the limit).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from typing import Any

from empo_demo.engine.planning.fits import CUDA_BYTES, SIDES
from empo_demo.engine.weights.shapes import BYTES, ModelShape, shape_of
from empo_demo.settings import Quantization

CARDS = {
    "T4": (16e9, 320e9),
    "L4": (24e9, 300e9),
    "A10G": (24e9, 600e9),
    "4090": (24e9, 1008e9),
    "A100 80GB": (80e9, 2039e9),
    "H100": (80e9, 3350e9),
}
"""Memory in bytes, and bandwidth in bytes a second, by the makers' data sheets."""
USABLE = 0.95
"""Of a card's memory: the driver keeps the rest."""
TOKENS, MOST, SLOWEST, REPLY, PAUSE = 1000, 32, 10.0, 100, 60.0


def shapes() -> dict[str, ModelShape]:
    from transformers import LlamaConfig, MistralConfig, Qwen2Config

    common: dict[str, Any] = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "tie_word_embeddings": False,
    }
    qwen: dict[str, Any] = {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
        "tie_word_embeddings": True,
    }
    return {
        "Zephyr 7B": shape_of(MistralConfig(vocab_size=32_000, sliding_window=4096, **common)),
        "Llama 3.1 8B": shape_of(LlamaConfig(vocab_size=128_256, **common)),
        "Qwen2.5 0.5B": shape_of(Qwen2Config(**qwen)),
    }


def lora(shape: ModelShape, rank: int) -> float:
    """Bytes of a 16-bit LoRA on all linear layers but the head."""
    inner = [sides for path, sides in shape.modules.items() if path.endswith("_proj")]
    return 2.0 * rank * sum(map(sum, inner))


def capacity(plan: Plan, card: tuple[float, float], options: Any) -> dict[str, float] | None:
    """Rounds at once, tokens/s of each, and visitors; None where the card does not hold it."""
    memory, bandwidth = card
    fixed = plan.held + plan.shape.activations(SIDES, TOKENS) + CUDA_BYTES
    layers = sum(path.endswith("q_proj") for path in plan.shape.modules)
    launches = layers * plan.launches * options.layer_ms / 1000
    best = None
    for rounds in range(1, MOST + 1):
        cache = rounds * SIDES * plan.shape.kv * TOKENS
        steps = min(options.share * bandwidth / (plan.read + cache), 1 / launches)
        if fixed + cache > USABLE * memory or (steps < SLOWEST and rounds > 1):
            break
        visitors = int(rounds * PAUSE * steps / REPLY)
        best = {"rounds": rounds, "tokens_per_second": round(steps, 1), "visitors": visitors}
    return best


@dataclass(frozen=True)
class Plan:
    """Bytes held and read per step; `launches` counts passes over the layers in a step."""

    name: str
    words: str
    shape: ModelShape
    held: float
    read: float
    launches: float


def read_per_step(shape: ModelShape, quantization: Quantization) -> float:
    """Bytes that a decode step reads: linear layers and head, and one row of embeddings."""
    return shape.linear * BYTES[quantization] + 2.0 * shape.vocabulary * shape.hidden


def plans() -> list[Plan]:
    found = []
    for name, shape in shapes().items():
        bits: Quantization
        for bits in ("nf4", "none"):
            weights, step, adapter = shape.held(bits), read_per_step(shape, bits), lora(shape, 16)
            words = f"{bits}, r=16 shared"
            found.append(Plan(name, words, shape, weights + adapter, step + adapter, 1.32))
            if name == "Zephyr 7B" and bits == "nf4":
                found.append(Plan(name, "nf4, EmPO merged", shape, 2 * weights, 2 * step, 2.0))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=0.36, help="reached part of the bandwidth")
    parser.add_argument("--layer-ms", type=float, default=0.76, help="launches of one layer")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    table = [(plan, {n: capacity(plan, c, options) for n, c in CARDS.items()}) for plan in plans()]
    if options.json:
        print(json.dumps([{"model": p.name, "plan": p.words, **cells} for p, cells in table]))
        return
    print(f"| model | plan | held | {' | '.join(CARDS)} |\n|{'---|' * (3 + len(CARDS))}")
    for plan, found in table:
        cells = [f"{f['visitors']} ({f['rounds']})" if f else "-" for f in found.values()]
        print(f"| {plan.name} | {plan.words} | {plan.held / 1e9:.1f} GB | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
