"""What a pair costs beside one aligned reply: by our engine and by the ways it replaces.

Beside it, one reply of the base by transformers' `generate`.

`python -m tests.bench.pair [--json] [--threads N]`. All variants in one process, interleaved;
medians over the rounds of each reply's median step; peak memory of one reply and of a pair each in
a process of its own. Every reply has the same number of tokens (no end token counts) and is
sampled as the arena samples. A step is one decoded token of every side; reading the prompt is
timed apart, as time to first text. Processor time per token, prompt included, is given too: it
holds on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Decoding, Delta, Request
from empo_demo.settings import ASSETS

MESSAGES = (
    {"role": "user", "content": "I failed my driving test for the third time today."},
    {"role": "assistant", "content": "Oh no, that is hard. What happened?"},
    {"role": "user", "content": "I was so nervous that I stalled the car, with my dad watching."},
)
Timings = dict[str, list[float]]


def main() -> None:
    options = arguments()
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory(prefix="empo-bench-") as scratch:
        adapter = options.adapter or str(random_adapter(options.base, Path(scratch)))
        if options.memory:
            print(peak_memory(options, adapter, pair=options.memory == "pair"))
            return
        timings = measure(options, adapter)
        memory = {kind: in_own_process(options, adapter, kind) for kind in ("one", "pair")}
    report = summarise(timings, memory) | {
        "base": Path(options.base).name,
        "quantization": options.quantization,
        "rounds": options.rounds,
        "tokens": options.tokens,
        "threads": torch.get_num_threads(),
        "threads_of_our_step": options.step_threads or torch.get_num_threads(),
        "way": options.way,
    }
    if not options.json:
        print_table(timings, memory)
    print(json.dumps(report))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line on stdout")
    parser.add_argument("--base", default=str(ASSETS / "tiny" / "base"))
    parser.add_argument("--adapter", help="default: assets/tiny/aligned, or a random LoRA, r=16")
    parser.add_argument("--quantization", default="nf4", choices=["nf4", "int8", "none"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 is torch's default")
    parser.add_argument("--memory", choices=["one", "pair"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    embedded = ASSETS / "tiny" / "aligned"
    if options.adapter is None and options.base == str(ASSETS / "tiny" / "base"):
        options.adapter = str(embedded)
    return options


def random_adapter(base: str, folder: Path) -> Path:
    """A LoRA of rank 16 on all linear layers: the cost of one does not depend on its values."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    wrapped = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    wrapped.save_pretrained(str(folder))
    return folder


def our_engine(options: argparse.Namespace, adapter: str, *, pair: bool) -> Any:
    from empo_demo.engine.loader import Loader
    from empo_demo.engine.lockstep.local import LocalEngine

    contenders = [Contender("aligned", options.base, adapter)]
    if pair:
        contenders.insert(0, Contender("base", options.base))
    loader = Loader(options.device, options.quantization, "shared")
    copies = [replace(c, ends=frozenset()) for c in loader.load(tuple(contenders))]
    return LocalEngine(copies, loader.notes)


def play(engine: Any, contenders: tuple[str, ...], tokens: int, seed: int) -> dict[str, float]:
    """Milliseconds per decoding step, and until the first text, of one reply or a pair."""
    decoding = Decoding(0.7, 0.9, 1.1, tokens)
    requests = [Request(c, c, MESSAGES, decoding, seed) for c in contenders]
    batch = engine.batch_of(contenders[0])
    step, times = batch.step, []

    def timed() -> None:
        step()
        times.append(time.perf_counter())

    batch.step = timed
    started, first = time.perf_counter(), 0.0
    try:
        for event in engine.stream(requests):
            if not first and isinstance(event, Delta):
                first = time.perf_counter() - started
    finally:
        del batch.step
    return {"step": per_step(times), "first": first * 1000}


def per_step(times: list[float]) -> float:
    """Median milliseconds from token to token: a busy machine delays some steps, not most."""
    return statistics.median(b - a for a, b in pairwise(times)) * 1000


def measure(options: argparse.Namespace, adapter: str) -> Timings:
    engine = our_engine(options, adapter, pair=True)
    served = engine.model_of("aligned")
    options.step_threads, options.way = served.threads_of(2), served.way
    stock = Stock(options, adapter)
    ways: dict[str, Callable[[int], float | dict[str, float]]] = {
        "one": lambda seed: play(engine, ("aligned",), options.tokens, seed),
        "pair": lambda seed: play(engine, ("base", "aligned"), options.tokens, seed),
        "two_calls": stock.two_calls,
        "two_models": stock.two_models,
        "adapter_names": stock.adapter_names,
        "generate": stock.generate,
    }
    for way in ways.values():
        way(0)
    found: Timings = {}
    for seed in range(options.rounds):
        for name, way in ways.items():
            before = time.process_time()
            result = way(seed)
            used = (time.process_time() - before) * 1000 / options.tokens
            found.setdefault(f"{name}_cpu", []).append(used)
            values = result if isinstance(result, dict) else {"step": result}
            found.setdefault(name, []).append(values["step"])
            if "first" in values:
                found.setdefault(f"{name}_first", []).append(values["first"])
        print(f"round {seed + 1}/{options.rounds}", file=sys.stderr)
    return found


class Stock:
    """What transformers and PEFT offer for a pair."""

    def __init__(self, options: argparse.Namespace, adapter: str) -> None:
        from peft import PeftModel

        from empo_demo.engine.loader import Loader
        from empo_demo.engine.text.chat_template import encode_chat, load_tokenizer

        loader = Loader(options.device, options.quantization)
        self.tokens, self.device = options.tokens, options.device
        self.plain: Any = loader.model(options.base)
        self.peft: Any = PeftModel.from_pretrained(
            loader.model(options.base),
            adapter,
            adapter_name="aligned",
            autocast_adapter_dtype=False,
        ).eval()
        for model in (self.plain, self.peft):
            model.generation_config.eos_token_id = None
        tokenizer = load_tokenizer(options.base)
        self.prompt = encode_chat(tokenizer, MESSAGES)

    def two_calls(self, seed: int) -> float:
        with self.peft.disable_adapter():
            base = self._generate(self.peft, 1, seed)
        return base + self._generate(self.peft, 1, seed)

    def generate(self, seed: int) -> float:
        """One reply of the base, without adapters: what anybody would call first."""
        return self._generate(self.plain, 1, seed)

    def two_models(self, seed: int) -> float:
        with ThreadPoolExecutor(2) as threads:
            jobs = [
                threads.submit(self._generate, model, 1, seed) for model in (self.plain, self.peft)
            ]
            return max(job.result() for job in jobs)

    def adapter_names(self, seed: int) -> float:
        return self._generate(self.peft, 2, seed, adapter_names=["__base__", "aligned"])

    def _generate(self, model: Any, rows: int, seed: int, **options: Any) -> float:
        """Milliseconds per decoding step; reading the prompt is not counted."""
        import torch

        clock = Clock()

        torch.manual_seed(seed)
        ids = torch.tensor([self.prompt] * rows, device=self.device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=0.7,
                top_p=0.9,
                top_k=0,
                repetition_penalty=1.1,
                pad_token_id=0,
                max_new_tokens=self.tokens,
                stopping_criteria=[clock],
                **options,
            )
        assert out.shape[1] == len(self.prompt) + self.tokens == len(self.prompt) + len(clock.times)
        return per_step(clock.times)


class Clock:
    """A stopping criterion that never stops, and notes when each token was there."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self.times.append(time.perf_counter())
        return torch.zeros(ids.shape[0], dtype=torch.bool, device=ids.device)


def in_own_process(options: argparse.Namespace, adapter: str, kind: str) -> float:
    command = [
        sys.executable,
        "-m",
        "tests.bench.pair",
        "--memory",
        kind,
        "--base",
        options.base,
        "--adapter",
        adapter,
        "--quantization",
        options.quantization,
        "--device",
        options.device,
        "--tokens",
        str(options.tokens),
        "--threads",
        str(options.threads),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def peak_memory(options: argparse.Namespace, adapter: str, *, pair: bool) -> float:
    """MB at the peak of this process (on CUDA: of the device) after three replies."""
    engine = our_engine(options, adapter, pair=pair)
    contenders = ("base", "aligned") if pair else ("aligned",)
    for seed in range(3):
        play(engine, contenders, options.tokens, seed)
    if options.device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status")
    if status.is_file():
        # ru_maxrss would begin with the parent's peak: Linux keeps it through fork and exec.
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def summarise(timings: Timings, memory: dict[str, float]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in timings.items()}
    one = medians["one"]
    spread = [p / o for p, o in zip(timings["pair"], timings["one"], strict=True)]
    return {
        "pair_over_one": medians["pair"] / one,
        "two_calls_over_one": medians["two_calls"] / one,
        "two_models_over_one": medians["two_models"] / one,
        "adapter_names_over_one": medians["adapter_names"] / one,
        "pair_over_generate": medians["pair"] / medians["generate"],
        "memory_pair_over_one": memory["pair"] / memory["one"],
        "pair_over_one_range": [min(spread), max(spread)],
        "ms_per_step": {k: v for k, v in medians.items() if not k.endswith(("_first", "_cpu"))},
        "cpu_pair_over_one": medians["pair_cpu"] / medians["one_cpu"],
        "cpu_ms_per_token": {k[:-4]: v for k, v in medians.items() if k.endswith("_cpu")},
        "ms_to_first_text": {"one": medians["one_first"], "pair": medians["pair_first"]},
        "memory_mb": memory,
    }


def print_table(timings: Timings, memory: dict[str, float]) -> None:
    one = statistics.median(timings["one"])
    for name, values in timings.items():
        if name.endswith(("_first", "_cpu")):
            continue
        middle = statistics.median(values)
        print(
            f"{name:14} {middle:8.2f} ms/step  x{middle / one:.2f}  "
            f"({min(values):.2f} to {max(values):.2f})"
        )
    import torch

    print(f"threads: {torch.get_num_threads()} of torch")
    print("peak memory: " + ", ".join(f"{k} {v:.0f} MB" for k, v in memory.items()))


if __name__ == "__main__":
    main()
