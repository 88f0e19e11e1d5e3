"""The trial at load: does a model compute here what it computes by itself?

The reference is the model's own forward pass over two whole prompts, each alone, before anything
of the model is changed; for an adapter it is PEFT's. A copy of the weights is served if its logits
equal them: of each prompt alone, of all in one batch, with kept prefixes, and in scoring.

"Equal" allows three times what the model's own forward pass shows between a row alone and the same
row in a padded batch with its inputs rounded once more. Rounding does that much; a wrong mask, cap
or cache does far more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from empo_demo.engine.assembly.merging import with_peft
from empo_demo.engine.device import is_out_of_memory
from empo_demo.engine.lockstep.forward import few_threads
from empo_demo.engine.lockstep.own_passes import Passes, passes_of
from empo_demo.engine.lockstep.row import Detokenizer, Row
from empo_demo.engine.protocol import Request
from empo_demo.engine.weights.model_weights import Weights
from empo_demo.engine.weights.shapes import context_of, shape_of
from empo_demo.errors import EngineError, first_line
from empo_demo.settings import Quantization

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 3
"""How many logits of a prompt are compared: after it, and after two more given tokens."""
_SHORT, _LONG, _LONGEST = 7, 43, 640
"""Tokens of the prompts. 43 are more than two blocks of the cache and one stretch of attention."""
_PAD = 3
_FACTOR = 3.0
_LEAST, _LEAST_INT8, _MOST = 5e-5, 0.25, 0.7
"""Bounds of what is allowed, in standard deviations of the logits. In fp32, rounding an adapter's
merge moved logits by up to `_LEAST`, and the faults that were met by hundreds of times that. A
model that rounding alone moves by more than `_MOST` cannot be told from a broken one. int8 looks
for outliers over all tokens of a pass: with other tokens, a small Llama's logits moved by a quarter
of their deviation."""
_WHOLE = 100_000_000
"""Up to this many weights, a model is tried in fp32 with all its layers, else with the first."""
_KV_BYTES = 1 << 28
_ONE_THREAD = 1_000_000_000
_TEXT = (
    "I lost my keys again today and I feel so silly about it. My sister laughed, but then she "
    "helped me to look for them. We walked all the way back through the park in the rain, and "
    "there they were, under the bench where we had eaten. Has this ever happened to you? "
)


class NoNumbers(ValueError):
    """A model computes NaN or infinity: its weights are damaged, or too large for their type."""


Run = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits (rows, places, vocabulary) at some places of ids (rows, tokens) with attention mask."""


@dataclass(frozen=True, slots=True)
class Expected:
    """Logits in fp32 (prompts, STEPS, vocabulary), and by how much others may differ."""

    logits: torch.Tensor
    allowed: float

    def problem(self, actual: torch.Tensor) -> str | None:
        """How `actual` differs, None if it does not. NaN differs."""
        largest = difference(actual, self.logits)
        if largest <= self.allowed:
            return None
        return f"by {largest:.2g}, where rounding makes at most {self.allowed:.2g}"


@dataclass(frozen=True, slots=True)
class Reference:
    """What the model itself computes with each adapter; "" is none."""

    prompts: tuple[list[int], ...]
    expected: dict[str, Expected] = field(default_factory=dict)

    def add(self, wrapped: Any, name: str) -> None:
        """Add PEFT's logits with the adapter `name`."""
        wrapped.set_adapter(name)
        self.expected[name] = expected_of(wrapped, self.prompts)

    def is_rewritten(self, wrapped: Any) -> bool:
        """Whether the base computes other logits now that PEFT has wrapped it."""
        with wrapped.disable_adapter(), few_threads(_threads(wrapped.get_base_model())):
            logits = _alone(wrapped, self.prompts[:1])
        return difference(logits, self.expected[""].logits[:1]) > 0


def reference_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Reference:
    """The reference of a base that nothing was done to yet. Raises what the model raises."""
    prompts = prompts_of(tokenizer, model.config)
    return Reference(prompts, {"": expected_of(model, prompts)})


def expected_of(model: Any, prompts: Sequence[Sequence[int]]) -> Expected:
    """What `model` computes by itself, and how far rounding moves it.

    Raises `NoNumbers` if it computes none: nothing would differ from that.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    with few_threads(_threads(base)):
        logits = _alone(model, prompts)
        # Some models rule out a token with minus infinity.
        numbers = logits[~logits.isneginf()]
        if not numbers.numel() or not numbers.isfinite().all():
            raise NoNumbers("its logits are no numbers")
        noise, spread = difference(_in_company(model, prompts), logits), float(numbers.std())
    eight = any(type(layer).__name__ == "Linear8bitLt" for layer in base.modules())
    least = (_LEAST_INT8 if eight else _LEAST) * spread
    return Expected(logits, min(max(_FACTOR * noise, least), _MOST * spread))


def prompts_of(tokenizer: PreTrainedTokenizerBase, config: Any) -> tuple[list[int], ...]:
    """A short and a long prompt, each with the tokens that follow it.

    The long one reaches over a window of the attention, where the configuration has one.
    """
    text = config.get_text_config()
    windows = [
        int(value)
        for name, value in text.to_dict().items()
        if ("window" in name or "chunk" in name) and type(value) is int and value < _LONGEST
    ]
    longest = max([_LONG, *(window + 2 * _PAD for window in windows)])
    longest = max(_SHORT, min(longest, context_of(text) - 1))
    ids: list[int] = tokenizer(_TEXT, add_special_tokens=False)["input_ids"]
    many = ids * (longest // len(ids) + 1)
    return many[3 : 3 + _SHORT], many[:longest]


def load_exact(name: str, device: str, quantization: Quantization) -> PreTrainedModel:
    """The model in fp32, or the first layers of a large one: those with every kind of layer.

    Raises `ValueError` if even these need more memory than the copy in `quantization`.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(name)
    whole = shape_of(config)
    if whole.weights > _WHOLE:
        _cut(config.get_text_config())
        if 4 * shape_of(config).weights > whole.held(quantization):
            raise ValueError("the first layers in fp32 need more memory than the whole copy")
    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            name, config=config, dtype=torch.float32, device_map=device
        )
    return model.eval()  # type: ignore[no-any-return,no-untyped-call]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing the layers that were cut off."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _cut(text: Any) -> None:
    """Leave in a configuration the first layers, at least two, with each kind of layer once."""
    layers = int(text.num_hidden_layers)
    lists = {
        name: value
        for name, value in text.to_dict().items()
        if isinstance(value, (list, tuple)) and len(value) == layers
    }
    kinds = list(zip(*lists.values(), strict=True))
    # `repr`, because a kind may be described by a list.
    firsts = {repr(kind): number for number, kind in reversed(list(enumerate(kinds)))}
    depth = min(layers, max(2, *(number + 1 for number in firsts.values()), 0))
    text.num_hidden_layers = depth
    for name, value in lists.items():
        setattr(text, name, value[:depth])


@torch.inference_mode()
def perplexity_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> float:
    """The perplexity of a sample text of some seventy tokens."""
    ids = torch.tensor([tokenizer(_TEXT, add_special_tokens=False)["input_ids"]])
    ids = ids.to(model.device)
    with few_threads(_threads(model)):
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:]).exp())


def merge_differs(base: Path, adapter: Path, merged: Path) -> str | None:
    """How the merged model in `merged` differs from PEFT's of base and adapter; None: not at all.

    All are loaded in fp32 on the CPU. Raises `EngineError` if PEFT's computes no numbers.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)
    prompts = prompts_of(AutoTokenizer.from_pretrained(merged), model.config)
    with few_threads(_threads(model)):
        actual = _alone(model.eval(), prompts)
    del model
    try:
        expected = expected_of(with_peft(base, adapter, torch.float32), prompts)
    except NoNumbers as error:
        raise EngineError(
            f"The adapter {adapter} cannot be served: with PEFT, too, {error}. Its weights are "
            "damaged; take an earlier checkpoint, or train it again."
        ) from None
    return expected.problem(actual)


def difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference of two logits, infinite if one is not a number."""
    width = min(actual.shape[-1], expected.shape[-1])
    one, other = actual[..., :width].float(), expected[..., :width].float()
    largest = (one - other).abs().masked_fill(one == other, 0.0).max()
    return float("inf") if largest.isnan() else float(largest)


@torch.inference_mode()
def judge(weights: Weights, reference: Reference) -> dict[str, str | None]:
    """What differs where `weights` are served, for each adapter of the reference; None: nothing."""
    try:
        with few_threads(_threads(weights.model)):
            outputs = list(_served(weights, reference))
    except Exception as error:
        if is_out_of_memory(error):
            raise EngineError(
                "The memory is full while the model is tried; use EMPO_QUANTIZATION=nf4, a "
                "smaller model, fewer contenders, or a larger machine."
            ) from None
        return dict.fromkeys(reference.expected, f"it fails here ({_named(error)})")
    verdicts: dict[str, str | None] = dict.fromkeys(reference.expected)
    for where, name, logits in outputs:
        problem = reference.expected[name].problem(logits)
        if problem is not None and verdicts[name] is None:
            verdicts[name] = f"its logits differ {where}: {problem}"
    return verdicts


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error).rstrip('.')}"


def _served(weights: Weights, reference: Reference) -> Iterator[tuple[str, str, torch.Tensor]]:
    """(where, adapter, logits) of all that is compared."""
    names = sorted(reference.expected)
    short, long = reference.prompts
    every = [(name, prompt) for name in names for prompt in (short, long)]
    passes = passes_of(weights, _KV_BYTES)

    def whole(name: str, actual: torch.Tensor) -> torch.Tensor:
        """The logits of both prompts, where only those of the long one were computed."""
        return torch.stack([reference.expected[name].logits[0], actual])

    if weights.together:
        for name in names:
            (actual,) = _decoded(passes, weights, [(name, long)])
            yield "when it answers alone", name, whole(name, actual)
    logits = _decoded(passes, weights, every, keep=True)
    for name, actual in zip(names, logits.chunk(len(names)), strict=True):
        yield "in company", name, actual
    if not weights.together:
        return
    logits = _decoded(passes, weights, [(name, long) for name in names])
    for name, actual in zip(names, logits, strict=True):
        yield "after a kept prefix", name, whole(name, actual)
    # One short prompt is enough: it is padded, and padding takes time.
    logits = _scored(weights, [(name, long) for name in names] + [(names[0], short)])
    for name, actual in zip(names, logits, strict=False):
        yield "when it scores replies", name, whole(name, actual)
    yield "when it scores replies", names[0], torch.stack([logits[-1], logits[0]])


def _decoded(
    passes: Passes,
    weights: Weights,
    asked: Sequence[tuple[str, Sequence[int]]],
    *,
    keep: bool = False,
) -> torch.Tensor:
    """The logits of prompts in one batch, (rows, STEPS, vocabulary) in fp32 on the CPU."""
    rows = [
        Row(
            request=Request(str(number), "", ()),
            adapter=name or None,
            prompt=list(prompt[: 1 - STEPS]),
            text=Detokenizer(weights.tokenizer),
        )
        for number, (name, prompt) in enumerate(asked)
    ]
    longest = max(len(prompt) for _, prompt in asked) + 1
    passes.bytes_of(len(rows), longest)
    passes.reserve(len(rows), longest)
    logits = [passes.prefill(rows, range(len(rows)))]
    for slot, row in enumerate(rows if keep else ()):
        passes.keep(row, slot)
    for step in range(1, STEPS):
        given = [prompt[step - STEPS] for _, prompt in asked]
        for row, token in zip(rows, given, strict=True):
            row.produced.append(token)
        if step == 1:
            passes.settle(rows)
        logits.append(passes.decode(rows, torch.tensor(given, device=weights.device)))
    return torch.stack(logits, 1).float().cpu()


def _scored(weights: Weights, asked: Sequence[tuple[str, Sequence[int]]]) -> torch.Tensor:
    """As in `_decoded`, by the pass that scores given replies."""
    width = max(len(prompt) for _, prompt in asked)
    if weights.rows is not None:
        names = [name or None for name, _ in asked]
        weights.rows.assign(names, [1.0] * len(asked), weights.like, [width] * len(asked))
    run = _forward_of(weights.model, masked=False)
    return _last(run, [prompt for _, prompt in asked], weights.device)


def _alone(model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The last logits of each prompt alone, (prompts, STEPS, vocabulary) in fp32 on the CPU."""
    return torch.stack([_last(_forward_of(model), [prompt], model.device)[0] for prompt in prompts])


def _in_company(model: Any, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """As `_alone`, but each in a padded batch, with the embeddings rounded once more.

    The other row is only slightly longer, so that no switch of the model (as LongRoPE has) lies
    between the two: such a switch is not rounding. The embeddings are rounded because some kernels
    give the same numbers in every batch, although they round as others do.
    """
    chance = torch.Generator().manual_seed(0)

    def rounded(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        unit = torch.finfo(output.dtype).eps
        moved = 1 + unit * (torch.rand(output.shape, generator=chance) - 0.5)
        return (output.float() * moved.to(output.device)).to(output.dtype)

    pairs = [(prompt, [*prompt[:_PAD], *prompt]) for prompt in prompts]
    hook = model.get_input_embeddings().register_forward_hook(rounded)
    try:
        run = _forward_of(model)
        return torch.stack([_last(run, pair, model.device)[0] for pair in pairs])
    finally:
        hook.remove()


@torch.inference_mode()
def _last(run: Run, prompts: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """The last STEPS logits of each prompt in one batch, padded at the end, in fp32 on the CPU."""
    width = max(map(len, prompts))
    ids = torch.tensor([[*p, *[p[0]] * (width - len(p))] for p in prompts], device=device)
    mask = torch.tensor([[1] * len(p) + [0] * (width - len(p)) for p in prompts], device=device)
    lasts = [range(len(p) - STEPS, len(p)) for p in prompts]
    places = sorted({place for last in lasts for place in last})
    logits = run(ids, mask, torch.tensor(places, device=device))
    at = [[places.index(place) for place in last] for last in lasts]
    return torch.stack([logits[i, place].float().cpu() for i, place in enumerate(at)])


def _threads(model: PreTrainedModel) -> int:
    """One CPU thread for models up to a billion weights, else what torch takes (0).

    On a busy machine, several threads wait for each other: SmolLM2-135M with two adapters was tried
    in 6 s with one thread, and in 97 s with two beside other work.
    """
    return int(model.device.type == "cpu" and model.num_parameters() < _ONE_THREAD)


def _forward_of(model: Any, *, masked: bool = True) -> Run:
    """One pass of `model`. Where it can, it computes no logits at other places: they take long."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    picks = "logits_to_keep" in inspect.signature(base.forward).parameters

    def run(ids: torch.Tensor, mask: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        more: dict[str, Any] = {"logits_to_keep": places} if picks else {}
        if masked:
            more["attention_mask"] = mask
        found = model(input_ids=ids, use_cache=False, **more).logits
        logits: torch.Tensor = found if found.shape[1] == len(places) else found[:, places]
        return logits

    return run
