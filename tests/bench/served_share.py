"""The share of random small configurations that are served, each equal to transformers and PEFT.

A configuration is an architecture, a kind of adapter and a quantisation. Its first reply is
compared with that of transformers or PEFT in fp32; with quantised weights the trial at load is the
comparison. What is not served must be refused in one sentence. `python -m tests.bench.served_share
--count 100 --seed 0` prints the table.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from empo_demo.errors import EngineError
from tests.outside.made import make_adapter, make_model, own, served

EQUAL = (
    "llama", "mistral", "gemma", "gemma3_text", "qwen2_moe", "qwen3", "gpt2", "gpt_neox", "opt",
    "phi", "phi3", "smollm3", "cohere", "mixtral", "glm4", "granite", "olmo2", "starcoder2",
    "exaone4",
)  # fmt: skip
"""Architectures that our attention computes: they must be served."""
OTHER = ("gemma2", "gpt_oss", "stablelm", "bloom", "mamba", "falcon", "gptj", "bert", "codegen")
LORA: dict[str, dict[str, Any]] = {
    "none": {}, "LoRA": {}, "rsLoRA": {"use_rslora": True}, "layers": {"layers_to_transform": [1]},
    "gaussian": {"init_lora_weights": "gaussian"}, "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"}, "OLoRA": {"init_lora_weights": "olora"},
    "tokens": {"trainable_token_indices": [5, 6, 7]},
    "aLoRA": {"alora_invocation_tokens": [17, 18]},
    "replicated": {"layer_replication": [(0, 2), (1, 2)]},
}  # fmt: skip
PLAIN = ("none", "LoRA", "rsLoRA", "layers", "gaussian")
"""Plain LoRA: with an architecture of `EQUAL` it must be served."""


def configurations(count: int, seed: int) -> Iterator[tuple[str, str, str]]:
    """(architecture, adapter, quantisation); first all of `EQUAL` with a plain LoRA."""
    chance = random.Random(seed)
    for number in range(count):
        if number < len(EQUAL):
            yield EQUAL[number], "LoRA", "none"
        else:
            bits = chance.choice(("none", "none", "nf4", "int8"))
            yield chance.choice(EQUAL + OTHER), chance.choice(list(LORA)), bits


def outcome(kind: str, adapter: str, bits: str, folder: Path) -> tuple[str, str]:
    """("served" or "refused", why), or ("WRONG", what)."""
    base = make_model(folder / "base", kind)
    try:
        made = (
            None if adapter == "none" else make_adapter(base, folder / "adapter", **LORA[adapter])
        )
    except Exception as error:
        return "impossible", f"PEFT makes no such adapter ({type(error).__name__})"
    try:
        dtype = "float32" if bits == "none" else "bfloat16"
        (found,), notes = served(base, made, quantization=bits, dtype=dtype)
    except EngineError as error:
        return ("WRONG" if "\n" in str(error) else "refused"), str(error)
    how = "; ".join(said for name, said in notes.items() if name.startswith(("trial", "adapter")))
    if bits == "none" and found != own(base, made):
        return "WRONG", f"another reply than PEFT's ({how})"
    return "served", how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for one in configurations(given.count, given.seed):
        with tempfile.TemporaryDirectory() as folder:
            result, why = outcome(*one, Path(folder))
        counts[result] += 1
        print(f"{one[0]:<12} {one[1]:<10} {one[2]:<5} {result:<8} {why}", flush=True)
    possible = sum(counts.values()) - counts["impossible"]
    print(f"served {counts['served']} of {possible}: {dict(counts)}")


if __name__ == "__main__":
    main()
