"""The share of random small configurations that are served, each equal to transformers and PEFT.

A configuration is an architecture, a kind of adapter and a quantisation. Its first reply is
compared with that of transformers or PEFT in fp32; with quantised weights the trial at load is the
comparison. What is not served must be refused in one sentence. `python -m tests.bench.served_share
--count 100 --seed 0` prints the table. With `--architectures` it is a table of all architectures
that AutoModelForCausalLM opens, without adapters.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from empo_demo.errors import EngineError, first_line
from tests.outside.architectures import kinds, tiny_config
from tests.outside.made import make_adapter, make_model, own, served

EQUAL = (
    "llama",
    "mistral",
    "gemma",
    "gemma3_text",
    "qwen2_moe",
    "qwen3",
    "gpt2",
    "gpt_neox",
    "opt",
    "phi",
    "phi3",
    "smollm3",
    "cohere",
    "mixtral",
    "glm4",
    "granite",
    "olmo2",
    "starcoder2",
    "exaone4",
)
"""Architectures that our attention computes: they must be served."""
OTHER = ("gemma2", "gpt_oss", "stablelm", "bloom", "mamba", "falcon", "gptj", "bert", "codegen")
LORA: dict[str, dict[str, Any]] = {
    "none": {},
    "LoRA": {},
    "rsLoRA": {"use_rslora": True},
    "layers": {"layers_to_transform": [1]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "DoRA": {"use_dora": True},
    "PiSSA": {"init_lora_weights": "pissa"},
    "OLoRA": {"init_lora_weights": "olora"},
    "tokens": {"trainable_token_indices": [5, 6, 7]},
    "aLoRA": {"alora_invocation_tokens": [17, 18]},
    "replicated": {"layer_replication": [(0, 2), (1, 2)]},
}
PLAIN = ("none", "LoRA", "rsLoRA", "layers", "gaussian")
"""Plain LoRA: with an architecture of `EQUAL` it must be served."""
_HOW = ("trial", "adapter", "quantisation")


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
        return "impossible", f"PEFT makes no such adapter ({_named(error)})"
    return _compared(base, made, bits)


def architecture(kind: str, folder: Path) -> tuple[str, str]:
    """As `outcome`, for a tiny model of any architecture."""
    try:
        base = make_model(folder / "base", kind, config=tiny_config(kind))
    except Exception as error:
        return "impossible", f"transformers makes no such model ({_named(error)})"
    return _compared(base, None, "none")


def _compared(base: Path, adapter: Path | None, bits: str) -> tuple[str, str]:
    try:
        dtype = "float32" if bits == "none" else "bfloat16"
        (found,), notes = served(base, adapter, quantization=bits, dtype=dtype)
    except EngineError as error:
        said = str(error).replace(str(base.parent), "…")
        return ("WRONG" if "\n" in said else "refused"), said
    except Exception as error:
        return "WRONG", f"a traceback: {_named(error)}"
    how = "; ".join(said for name, said in notes.items() if name.startswith(_HOW))
    if bits != "none" or found == _whole(own(base, adapter, anew=True)):
        return "served", how
    try:
        right = _whole(own(base, adapter))
    except Exception as error:
        right = f"generate() fails: {_named(error)}"
    return ("served", how) if found == right else ("WRONG", f"{found!r} is not {right!r} ({how})")


def _whole(text: str) -> str:
    """`text` without a character that the last token only begins: the arena shows none."""
    return text.rstrip("\ufffd").strip()


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _tried(given: argparse.Namespace) -> Iterator[tuple[str, Callable[[Path], tuple[str, str]]]]:
    """(what, how it is tried) of each line of the table."""
    if given.architectures:
        for kind in given.only or kinds():
            yield f"{kind:<28}", partial(architecture, kind)
        return
    for kind, adapter, bits in configurations(given.count, given.seed):
        yield f"{kind:<12} {adapter:<10} {bits:<5}", partial(outcome, kind, adapter, bits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--architectures", action="store_true")
    parser.add_argument("--only", nargs="*", help="these architectures")
    parser.add_argument("--start", type=int, default=0, help="the first line of the table")
    parser.add_argument("--stop", type=int, help="the line after the last")
    given = parser.parse_args()
    counts: Counter[str] = Counter()
    for what, attempt in itertools.islice(_tried(given), given.start, given.stop):
        with tempfile.TemporaryDirectory() as folder:
            result, why = attempt(Path(folder))
        counts[result] += 1
        print(f"{what} {result:<10} {why}", flush=True)
    possible = sum(counts.values()) - counts["impossible"]
    print(f"served {counts['served']} of {possible}: {dict(counts)}")


if __name__ == "__main__":
    main()
