"""The first GPU it meets: does all that was only computed hold there?

`python -m tests.bench.gpu [--json] [--minutes 9] [--scale 1] [--device cuda]`. Builds a Llama of
7B's shape with random weights in place (no download; half as many layers as long as it does not
fit), quantises it to NF4 while it is built, and measures. Each line says PASS, FAIL or what went
wrong, and the next goes on; lines for which no time is left say so. The last line is one JSON
object. Without CUDA the same runs on a CPU at 1/50 of the width, where speeds mean nothing.

Bounds: a decode step reads all weights and the rows' KV once, so steps per second are at most
bandwidth / bytes (the card's bandwidth is measured by a copy). Exit code 1 if a line failed.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from empo_demo.engine.device import half_type
from empo_demo.engine.protocol import Decoding, Finished, Request
from tests.bench.gpu_models import SAID, bare, build, bytes_read, engine_of, weights
from tests.bench.probes import Late, at_most, host_peak, host_reads

Line = dict[str, Any]
LINES = (
    "parity",
    "graphs",
    "load",
    "bandwidth",
    "pair",
    "waits",
    "rounds",
    "prefix",
    "merged",
    "two_calls",
    "training",
)
"""What is measured, in this order; each name is a method of `Bench`."""


def main() -> None:
    options = arguments()
    bench = Bench(options)
    for name in bench.lines:
        bench.run(name)
    print(json.dumps({"device": bench.name, "shape": bench.shape, "lines": bench.found}))
    sys.exit(int(any(line["verdict"] == "FAIL" for line in bench.found.values())))


def arguments() -> argparse.Namespace:
    import torch

    cuda = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="only the JSON line on stdout")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--device", default="cuda" if cuda else "cpu")
    parser.add_argument("--scale", type=float, default=1 if cuda else 1 / 50)
    parser.add_argument("--tokens", type=int, default=64 if cuda else 6)
    parser.add_argument("--only", nargs="+", help="the lines to run")
    return parser.parse_args()


class Bench:
    """The lines in order; each is a method that returns its numbers and whether they hold."""

    def __init__(self, options: argparse.Namespace) -> None:
        import torch

        self.torch, self.options = torch, options
        self.device = torch.device(options.device)
        self.cuda = self.device.type == "cuda"
        if self.device.index is not None:
            torch.cuda.set_device(self.device)
        self.name = torch.cuda.get_device_name(self.device) if self.cuda else "CPU"
        self.deadline = time.monotonic() + 60 * options.minutes
        self.found: dict[str, Line] = {}
        self.shape: dict[str, int] = {}
        self._model: Any = None
        self._scratch = tempfile.TemporaryDirectory(prefix="empo-gpu-")
        self.lines = [name for name in LINES if not options.only or name in options.only]

    def run(self, name: str) -> None:
        started = time.monotonic()
        if started > self.deadline:
            line: Line = {"verdict": "no time left"}
        else:
            try:
                with at_most(self.deadline - started):
                    numbers, holds = getattr(self, name)()
                line = {"verdict": "PASS" if holds else "FAIL", **numbers}
            except Late:
                line = {"verdict": "no time left"}
            except Exception as error:
                first = " ".join(str(error).split())[:300]
                line = {"verdict": "FAIL", "error": f"{type(error).__name__}: {first}"}
        line["seconds"] = round(time.monotonic() - started, 1)
        self.found[name] = line
        out = sys.stderr if self.options.json else sys.stdout
        print(f"{name:10} {json.dumps(line)}", file=out, flush=True)
        self._give_back()

    def _give_back(self) -> None:
        """What comes next starts with the memory that the last one has given back."""
        gc.collect()
        if self.cuda:
            self.torch.cuda.empty_cache()

    def parity(self) -> tuple[Line, bool]:
        """Greedy replies of a small fp32 model against `generate()`, token for token."""
        from empo_demo.engine.text.chat_template import encode_chat

        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = False
        model = build(self.device, width=128, layers=2, dtype=torch.float32)
        engine = engine_of(model, adapters=False)
        tokenizer = engine.model_of("base").tokenizer
        prompt = torch.tensor([encode_chat(tokenizer, SAID)], device=self.device)
        said = self._ids(engine, ["base"], 12)
        out = model.generate(
            input_ids=prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=12,
            pad_token_id=0,
            eos_token_id=None,
        )
        wanted = out[0, prompt.shape[1] :].tolist()
        return {"tokens": len(wanted)}, said == wanted

    def graphs(self) -> tuple[Line, bool]:
        """Recorded steps against plain ones: the same greedy replies, with a dial, twice."""
        model = build(self.device, width=128, layers=2, dtype=self.torch.float32)
        engine = engine_of(model, adapters=True, rank=4)
        batch = engine.batch_of("base")
        steps = batch.forward.graphs
        # Whether they are faster is the pair's line; here every make-up is recorded.
        steps._pays = lambda *_: True

        def replies() -> list[Any]:
            found = []
            for dial in (1.0, 0.5, 1.0):
                both = self._requests(["base", "aligned"], 2, 40, True)
                asked = [replace(one, adapter_scale=dial) for one in both]
                ends = [e for e in engine.stream(asked) if isinstance(e, Finished)]
                found.append(sorted((e.side, e.text) for e in ends))
            return found

        recorded = replies()
        numbers = {"graphs": len(steps._graphs), "replies": sum(map(len, recorded))}
        worked = steps.on and bool(steps._graphs)
        steps.on = False
        same = replies() == recorded
        return numbers | {"same": same}, same and (worked or not self.cuda)

    def load(self) -> tuple[Line, bool]:
        """The model in NF4; peaks of host and GPU memory while it is built."""
        torch = self.torch
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        layers = 32
        while True:
            try:
                self._model = build(
                    self.device,
                    width=max(64, round(4096 * self.options.scale / 64) * 64),
                    layers=layers if self.cuda else 2,
                    nf4=True,
                    dtype=getattr(torch, half_type(str(self.device))),
                )
                break
            except torch.OutOfMemoryError:
                layers //= 2
                if not layers:
                    raise
            self._give_back()
        config = self._model.config
        self.shape = {
            "hidden": config.hidden_size,
            "layers": config.num_hidden_layers,
            "parameters": int(self._model.num_parameters()),
        }
        numbers = {"host_peak_mb": host_peak(), "weights_mb": bytes_read(self._model) / 1e6}
        if self.cuda:
            numbers["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
            free, total = torch.cuda.mem_get_info()
            # The plan (engine/planning/fits.py) takes 600 MB for CUDA's own.
            numbers["cuda_own_mb"] = (total - free - torch.cuda.memory_reserved()) / 1e6
            return numbers, numbers["gpu_peak_mb"] < 1.6 * numbers["weights_mb"] + 2000
        return numbers, True

    def bandwidth(self) -> tuple[Line, bool]:
        """Bytes per second of a copy (read and written), as the bound of decoding."""
        torch = self.torch
        size = 1 << (30 if self.cuda else 24)
        source = torch.zeros(size, dtype=torch.uint8, device=self.device)
        target = torch.zeros_like(source)
        seconds = min(self._timed(lambda: target.copy_(source)) for _ in range(5))
        self.found_bandwidth = 2 * size / seconds
        return {"gb_per_s": self.found_bandwidth / 1e9}, True

    def pair(self) -> tuple[Line, bool]:
        """A pair beside one reply, r = 16 shared, and both against the bandwidth's bound."""
        engine = engine_of(self._model, adapters=True)
        steps = {"one": self._step(engine, 1, ["aligned"]), "pair": self._step(engine, 1)}
        bound = bytes_read(self._model) / getattr(self, "found_bandwidth", float("inf"))
        numbers = {f"{k}_ms": v * 1000 for k, v in steps.items()} | {
            "pair_over_one": steps["pair"] / steps["one"],
            "share_of_bound": bound / steps["pair"],
            "graphs": engine.batch_of("base").forward.graphs.verdict,
        }
        holds = not self.cuda or (
            numbers["pair_over_one"] <= 1.1 and numbers["share_of_bound"] >= 0.25
        )
        return numbers, holds

    def waits(self) -> tuple[Line, bool]:
        """How often a decode step of a pair waits for the device; once is needed."""
        engine = engine_of(self._model, adapters=True)
        self._step(engine, 1)
        batch, counts = engine.batch_of("base"), []
        step = batch.step

        def counted() -> None:
            before = len(reads)
            step()
            counts.append(len(reads) - before)

        with host_reads(cuda=self.cuda) as reads:
            batch.step = counted
            both = self._requests(["base", "aligned"], 1, self.options.tokens, False)
            list(engine.stream(both))
            del batch.step
        # Neither the last step, after which the rows leave, nor those that record a graph.
        each = statistics.median(counts[:-1])
        return {"per_step": each, "most": max(counts[:-1])}, each == 1

    def rounds(self) -> tuple[Line, bool]:
        """1, 4 and 16 rounds at once: tokens per second."""
        engine = engine_of(self._model, adapters=True)
        speeds = {n: 2 * n / self._step(engine, n) for n in (1, 4, 16)}
        numbers = {f"tokens_per_s_{n}": speed for n, speed in speeds.items()}
        return numbers, not self.cuda or speeds[16] > 6 * speeds[1]

    def prefix(self) -> tuple[Line, bool]:
        """First token of a long dialogue, with kept prefixes and without."""
        engine = engine_of(self._model, adapters=True)
        turns = SAID * (16 if self.cuda else 2)
        longer = tuple(
            {"role": "assistant" if i % 2 else "user", "content": turn["content"]}
            for i, turn in enumerate(turns[: len(turns) - 1 + len(turns) % 2])
        )
        kept = engine.batch_of("base").forward.prefixes
        times: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(4):
            kept.clear()
            times["off"].append(self._timed(lambda: self._first(engine, longer)))
            times["on"].append(self._timed(lambda: self._first(engine, longer)))
        off, on = (statistics.median(values[1:]) for values in times.values())
        return {"first_ms_off": off * 1000, "first_ms_on": on * 1000}, not self.cuda or on < off

    def merged(self) -> tuple[Line, bool]:
        """r = 1,024: an adapter of that rank shared, against a second copy of the weights."""
        from empo_demo.engine.lockstep.local import LocalEngine

        rank = 1024 if self.cuda else 32
        shared = self._step(engine_of(self._model, adapters=True, rank=rank), 1)
        second = copy.deepcopy(bare(self._model))
        copies = [
            weights(bare(self._model), {"base": None}, None),
            weights(second, {"aligned": None}, None),
        ]
        merged = self._step(LocalEngine(copies, {}), 1)
        return {"shared_ms": shared * 1000, "merged_ms": merged * 1000, "rank": rank}, True

    def two_calls(self) -> tuple[Line, bool]:
        """Two `generate()` calls of transformers, the way a pair is had without this engine."""
        torch = self.torch
        model = bare(self._model)
        engine = engine_of(model, adapters=False)
        ours = self._step(engine, 1, ["base", "base"])
        ids = torch.ones(1, 48, dtype=torch.long, device=self.device)

        def call() -> None:
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                max_new_tokens=self.options.tokens,
                pad_token_id=0,
                eos_token_id=None,
            )

        call()
        seconds = 2 * self._timed(call) / self.options.tokens
        return {"two_calls_ms": seconds * 1000, "ours_ms": ours * 1000}, (
            not self.cuda or ours < seconds
        )

    def training(self) -> tuple[Line, bool]:
        """QLoRA DPO over the NF4 weights: 20 steps of pairs of random tokens; the loss falls."""
        from peft import LoraConfig, get_peft_model

        torch = self.torch
        steps = 20 if self.cuda else 4
        model = get_peft_model(
            bare(self._model),
            LoraConfig(r=16, lora_alpha=32, target_modules=["q_proj", "v_proj"]),
        )
        # On a CPU, bitsandbytes passes gradients back in training mode only.
        model.train()
        model.enable_input_require_grads()
        trained = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=2e-3)
        torch.manual_seed(1)
        ids = torch.randint(5, 500, (2, 64), device=self.device)

        def chances() -> Any:
            logits = model(input_ids=ids).logits[:, :-1].float()
            return -torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), ids[:, 1:], reduction="none"
            ).sum(-1)

        with torch.no_grad(), model.disable_adapter():
            reference = chances()
        losses = []
        for _ in range(steps):
            gain = 0.1 * (chances() - reference)
            loss = -torch.nn.functional.logsigmoid(gain[0] - gain[1])
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
            losses.append(float(loss.detach()))
        model.eval().unload()
        return {"steps": steps, "loss_first": losses[0], "loss_last": losses[-1]}, (
            losses[-1] < losses[0]
        )

    def _requests(self, sides: list[str], rounds: int, tokens: int, greedy: bool) -> list[Request]:
        # At this temperature random weights are as sure of their next token as trained ones.
        decoding = Decoding(0 if greedy else 0.01, 0.9, 1.0 if greedy else 1.1, tokens)
        return [
            Request(f"{n}.{i}", side, SAID, decoding, n, round=str(n))
            for n in range(rounds)
            for i, side in enumerate(sides)
        ]

    def _ids(self, engine: Any, sides: list[str], tokens: int) -> list[int]:
        batch, rows = engine.batch_of(sides[0]), []
        prepare = batch.prepare
        batch.prepare = lambda *args: rows.append(prepare(*args)) or rows[-1]
        try:
            list(engine.stream(self._requests(sides, 1, tokens, greedy=True)))
        finally:
            del batch.prepare
        return list(rows[0].produced)

    def _step(self, engine: Any, rounds: int, sides: list[str] | None = None) -> float:
        """Seconds of a decode step: the median over one reply of all rounds, after a warm-up."""
        times: list[float] = []
        for _ in range(2):
            times.clear()
            stream = engine.stream(
                self._requests(sides or ["base", "aligned"], rounds, self.options.tokens, False)
            )
            last = None
            batches = engine._batches
            steps = [batch.step for batch in batches]

            def timed(times: list[float] = times, steps: list[Any] = steps) -> None:
                started = time.perf_counter()
                for step in steps:
                    step()
                times.append(time.perf_counter() - started)

            batches[0].step = timed
            for batch in batches[1:]:
                batch.step = lambda: None
            try:
                for event in stream:
                    last = event
            finally:
                for batch in batches:
                    del batch.step
            if not isinstance(last, Finished):
                raise RuntimeError(getattr(last, "error", "no reply"))
        return statistics.median(times[len(times) // 3 :])

    def _first(self, engine: Any, messages: Any) -> None:
        decoding = Decoding(0.7, 0.9, 1.1, 8)
        stream = engine.stream(
            [Request(side, side, messages, decoding) for side in ("base", "aligned")]
        )
        next(stream)
        stream.close()

    def _timed(self, work: Callable[[], Any]) -> float:
        if self.cuda:
            self.torch.cuda.synchronize()
        started = time.perf_counter()
        work()
        if self.cuda:
            self.torch.cuda.synchronize()
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
