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
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from empo_demo.engine.protocol import Decoding, Finished, Request
from empo_demo.settings import ASSETS

TOKENIZER = str(ASSETS / "tiny" / "base")
SAID = (
    {"role": "user", "content": "I failed my driving test for the third time today."},
    {"role": "assistant", "content": "Oh no, that is hard. What happened?"},
    {"role": "user", "content": "I was so nervous that I stalled the car, with my dad watching."},
)
Line = dict[str, Any]


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
        self.name = torch.cuda.get_device_name(self.device) if self.cuda else "CPU"
        self.deadline = time.monotonic() + 60 * options.minutes
        self.found: dict[str, Line] = {}
        self.shape: dict[str, int] = {}
        self._model: Any = None
        self._scratch = tempfile.TemporaryDirectory(prefix="empo-gpu-")
        every = [
            "parity", "graphs", "load", "bandwidth", "pair", "rounds", "prefix", "merged",
            "two_calls", "training",
        ]  # fmt: skip
        self.lines = [name for name in every if not options.only or name in options.only]

    def run(self, name: str) -> None:
        started = time.monotonic()
        if started > self.deadline:
            line: Line = {"verdict": "no time left"}
        else:
            try:
                with _at_most(self.deadline - started):
                    numbers, holds = getattr(self, name)()
                line = {"verdict": "PASS" if holds else "FAIL", **numbers}
            except _Late:
                line = {"verdict": "no time left"}
            except Exception as error:
                first = " ".join(str(error).split())[:300]
                line = {"verdict": "FAIL", "error": f"{type(error).__name__}: {first}"}
        line["seconds"] = round(time.monotonic() - started, 1)
        self.found[name] = line
        out = sys.stderr if self.options.json else sys.stdout
        print(f"{name:10} {json.dumps(line)}", file=out, flush=True)
        # The next line starts with the memory that this one has given back.
        gc.collect()
        if self.cuda:
            self.torch.cuda.empty_cache()

    def parity(self) -> tuple[Line, bool]:
        """Greedy replies of a small fp32 model against `generate()`, token for token."""
        from empo_demo.engine.chat import encode_chat

        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = False
        model = self._build(width=128, layers=2, dtype=torch.float32)
        engine = self._engine(model, adapters=False)
        tokenizer = engine.model_of("base").tokenizer
        prompt = torch.tensor([encode_chat(tokenizer, SAID)], device=self.device)
        said = self._ids(engine, ["base"], 12)
        out = model.generate(
            input_ids=prompt, attention_mask=torch.ones_like(prompt), do_sample=False,
            max_new_tokens=12, pad_token_id=0, eos_token_id=None,
        )  # fmt: skip
        wanted = out[0, prompt.shape[1] :].tolist()
        return {"tokens": len(wanted)}, said == wanted

    def graphs(self) -> tuple[Line, bool]:
        """Recorded steps against plain ones: the same greedy replies, with a dial, twice."""
        model = self._build(width=128, layers=2, dtype=self.torch.float32)
        engine = self._engine(model, adapters=True, rank=4)
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
                self._model = self._build(
                    width=max(64, round(4096 * self.options.scale / 64) * 64),
                    layers=layers if self.cuda else 2, dtype=torch.bfloat16, nf4=True,
                )  # fmt: skip
                break
            except torch.OutOfMemoryError:
                layers //= 2
                if not layers:
                    raise
        config = self._model.config
        self.shape = {
            "hidden": config.hidden_size, "layers": config.num_hidden_layers,
            "parameters": int(self._model.num_parameters()),
        }  # fmt: skip
        numbers = {"host_peak_mb": _host_peak(), "weights_mb": self._weight_bytes() / 1e6}
        if self.cuda:
            numbers["gpu_peak_mb"] = torch.cuda.max_memory_allocated() / 1e6
            free, total = torch.cuda.mem_get_info()
            # The plan (engine/budget.py) takes 600 MB for CUDA's own.
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
        engine = self._engine(self._model, adapters=True)
        steps = {"one": self._step(engine, 1, ["aligned"]), "pair": self._step(engine, 1)}
        bound = self._weight_bytes() / getattr(self, "found_bandwidth", float("inf"))
        numbers = {f"{k}_ms": v * 1000 for k, v in steps.items()} | {
            "pair_over_one": steps["pair"] / steps["one"],
            "share_of_bound": bound / steps["pair"],
            "graphs": engine.batch_of("base").forward.graphs.verdict,
        }
        holds = not self.cuda or (
            numbers["pair_over_one"] <= 1.1 and numbers["share_of_bound"] >= 0.25
        )
        return numbers, holds

    def rounds(self) -> tuple[Line, bool]:
        """1, 4 and 16 rounds at once: tokens per second."""
        engine = self._engine(self._model, adapters=True)
        speeds = {n: 2 * n / self._step(engine, n) for n in (1, 4, 16)}
        numbers = {f"tokens_per_s_{n}": speed for n, speed in speeds.items()}
        return numbers, not self.cuda or speeds[16] > 6 * speeds[1]

    def prefix(self) -> tuple[Line, bool]:
        """First token of a long dialogue, with kept prefixes and without."""
        engine = self._engine(self._model, adapters=True)
        turns = SAID * (16 if self.cuda else 2)
        longer = tuple(
            {"role": "assistant" if i % 2 else "user", "content": turn["content"]}
            for i, turn in enumerate(turns[: len(turns) - 1 + len(turns) % 2])
        )
        kept = engine.batch_of("base").prefixes
        times: dict[str, list[float]] = {"off": [], "on": []}
        for _ in range(4):
            kept.clear()
            times["off"].append(self._timed(lambda: self._first(engine, longer)))
            times["on"].append(self._timed(lambda: self._first(engine, longer)))
        off, on = (statistics.median(values[1:]) for values in times.values())
        return {"first_ms_off": off * 1000, "first_ms_on": on * 1000}, not self.cuda or on < off

    def merged(self) -> tuple[Line, bool]:
        """r = 1,024: an adapter of that rank shared, against a second copy of the weights."""
        from empo_demo.engine.local import LocalEngine

        rank = 1024 if self.cuda else 32
        shared = self._step(self._engine(self._model, adapters=True, rank=rank), 1)
        second = copy.deepcopy(self._plain_model())
        copies = [
            self._weights(self._plain_model(), {"base": None}, None),
            self._weights(second, {"aligned": None}, None),
        ]
        merged = self._step(LocalEngine(copies, {}), 1)
        return {"shared_ms": shared * 1000, "merged_ms": merged * 1000, "rank": rank}, True

    def two_calls(self) -> tuple[Line, bool]:
        """Two `generate()` calls of transformers, the way a pair is had without this engine."""
        torch = self.torch
        model = self._plain_model()
        engine = self._engine(model, adapters=False)
        ours = self._step(engine, 1, ["base", "base"])
        ids = torch.ones(1, 48, dtype=torch.long, device=self.device)

        def call() -> None:
            model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True,
                max_new_tokens=self.options.tokens, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip

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
            self._plain_model(),
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

    def _build(self, width: int, layers: int, dtype: Any, nf4: bool = False) -> Any:
        """A Llama of random weights, quantised layer by layer as it is made."""
        import torch
        from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(0)
        heads = max(1, width // 128) if width >= 128 else 2
        config = LlamaConfig(
            vocab_size=max(len(AutoTokenizer.from_pretrained(TOKENIZER)), 32000 if nf4 else 0),
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
            intermediate_size=round(width * 2.6875 / 64) * 64, max_position_embeddings=4096,
            bos_token_id=None, eos_token_id=None, pad_token_id=0,
        )  # fmt: skip
        if not nf4:
            return LlamaForCausalLM(config).to(self.device, dtype).eval()
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        for name, module in list(model.named_modules()):
            if isinstance(module, torch.nn.Linear) and name != "lm_head":
                parent, _, last = name.rpartition(".")
                setattr(model.get_submodule(parent), last, self._nf4(module))
        for name, parameter in list(model.named_parameters()):
            if parameter.is_meta:
                parent, _, last = name.rpartition(".")
                values = torch.ones if parameter.dim() == 1 else torch.randn
                made = values(parameter.shape, dtype=dtype, device=self.device)
                made *= 1.0 if parameter.dim() == 1 else 0.02
                setattr(model.get_submodule(parent), last, torch.nn.Parameter(made, False))
        rotary = type(model.model.rotary_emb)
        model.model.rotary_emb = rotary(config=config).to(self.device)
        model.tie_weights()
        return model.eval()

    def _nf4(self, plain: Any) -> Any:
        import bitsandbytes as bnb
        import torch

        layer = bnb.nn.Linear4bit(
            plain.in_features, plain.out_features, bias=False,
            compute_dtype=torch.bfloat16, quant_type="nf4", device="meta",
        )  # fmt: skip
        values = torch.randn(plain.out_features, plain.in_features, device=self.device) * 0.02
        layer.weight = bnb.nn.Params4bit(
            values.bfloat16().cpu(), requires_grad=False, quant_type="nf4"
        )
        return layer.to(self.device)

    def _plain_model(self) -> Any:
        return self._bare(self._model)

    def _bare(self, model: Any) -> Any:
        """`model` without what an engine has put into and around its layers."""
        for module in model.modules():
            # Layers that were packed for a CPU pass no gradients back.
            module.__dict__.pop("forward", None)
            module.__dict__.pop("_empo_packed", None)
            for name, child in list(module.named_children()):
                if hasattr(child, "base_layer"):
                    setattr(module, name, child.base_layer)
        return model

    def _engine(self, model: Any, *, adapters: bool, rank: int = 16) -> Any:
        from peft import LoraConfig, PeftModel, get_peft_model

        from empo_demo.engine.local import LocalEngine
        from empo_demo.engine.lora import install

        if not adapters:
            return LocalEngine([self._weights(model, {"base": None}, None)], {}, max_rounds=16)
        plain = self._bare(model)
        # Made on the meta device: PEFT would draw r = 1,024 in fp32 on the host.
        wrapped: PeftModel = get_peft_model(
            plain, LoraConfig(r=rank, lora_alpha=16, target_modules="all-linear"), "a0",
            autocast_adapter_dtype=False, low_cpu_mem_usage=True,
        )  # fmt: skip
        dtype = plain.get_input_embeddings().weight.dtype
        for name, parameter in list(wrapped.named_parameters()):
            if "lora_" in name:
                values = self.torch.randn(parameter.shape, device=self.device, dtype=dtype) * 0.01
                parent, _, last = name.rpartition(".")
                made = self.torch.nn.Parameter(values, False)
                setattr(wrapped.get_submodule(parent), last, made)
        served = {"base": None, "aligned": "a0"}
        return LocalEngine([self._weights(plain, served, install(wrapped))], {}, max_rounds=16)

    def _weights(self, model: Any, served: dict[str, str | None], rows: Any) -> Any:
        from empo_demo.engine.tokenizer import load_tokenizer
        from empo_demo.engine.weights import weights_of

        model.name_or_path = TOKENIZER
        weights = weights_of(model, load_tokenizer(TOKENIZER), served, rows)
        return replace(weights, ends=frozenset(), stops=(), trained=weights.context)

    def _requests(self, sides: list[str], rounds: int, tokens: int, greedy: bool) -> list[Request]:
        decoding = Decoding(0 if greedy else 0.7, 0.9, 1.0 if greedy else 1.1, tokens)
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

    def _weight_bytes(self) -> float:
        """Bytes that a decode step reads: all weights but the embedding's."""
        seen = {p.data_ptr(): p.numel() * p.element_size() for p in self._model.parameters()}
        for parameter in self._model.parameters():
            # NF4's scales are no parameters of their own.
            state = getattr(parameter, "quant_state", None)
            if state is not None:
                seen[state.absmax.data_ptr()] = state.absmax.numel() * state.absmax.element_size()
        table = self._model.get_input_embeddings().weight
        return float(sum(seen.values()) - table.numel() * table.element_size())


class _Late(Exception):
    """No time is left."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `_Late` inside after `seconds`; only where signals are to be had."""

    def late(*_: Any) -> None:
        raise _Late

    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, max(0.01, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _host_peak() -> float:
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
