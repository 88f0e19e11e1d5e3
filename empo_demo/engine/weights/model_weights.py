"""One copy of the weights, with all that a batch must know of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from empo_demo.engine.text.chat_template import template_of
from empo_demo.engine.weights.adapters import check_vocabulary
from empo_demo.engine.weights.lora import FEW
from empo_demo.engine.weights.shapes import context_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from empo_demo.engine.weights.lora import AdapterRows

Way = Literal["fused", "batch", "own", "anew"]
"""How tokens are computed: many rows together by our own layers; by the model's layers with our
attention; by the model's own forward pass, one row at a time with its own cache; or without a
cache, all tokens anew for each one."""
SMALL = 100_000_000
"""Up to this many weights, one thread decodes fastest. A layer takes some 50 microseconds, and
several threads would mostly wait for each other, far longer still on a busy machine."""


@dataclass(slots=True)
class Weights:
    """One copy of the weights: the model, its tokenizer, and the adapters that share it.

    `adapters` maps contender id to adapter name. `rows` is None if the copy has no adapter. `ends`
    are the token ids that end a reply; `stops` are plain-text tags that end it. `context` is the
    most tokens that the model can take, `trained` the most that it was trained on. `hybrid` models
    mix kinds of attention layers. `threads` is the number of CPU threads; 0 leaves it to torch.
    `way` is how tokens are computed. `fused` are our own layers, once they were made.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: dict[str, str | None]
    rows: AdapterRows | None = None
    ends: frozenset[int] = frozenset()
    context: int = 4096
    trained: int = 4096
    stops: tuple[str, ...] = ()
    hybrid: bool = False
    threads: int = 0
    way: Way = "batch"
    fused: Callable[..., torch.Tensor] | None = None
    few_threads: int = 0
    """As `threads`, for steps of few rows by our own layers; see `choose_threads`."""

    @property
    def together(self) -> bool:
        """Whether many rows are computed together; else each one alone."""
        return self.way in ("fused", "batch")

    def threads_of(self, rows: int) -> int:
        """The number of CPU threads of a pass with so many tokens; 0 leaves it to torch."""
        return self.few_threads if not self.threads and rows <= FEW else self.threads

    @property
    def steady(self) -> bool:
        """Whether each product has one kernel for all numbers of rows: where one thread decodes."""
        return self.threads == 1

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def repeatable(self) -> bool:
        """Whether a row's numbers stay the same when other rows are in the batch.

        With several threads, PyTorch's attention on a CPU divides the keys of a step by the number
        of rows, so the order of the sums depends on it. Our own layers of a larger model take
        other kernels for many rows than for few.
        """
        if not self.together:
            return True
        if self.way == "fused" and not self.steady:
            return False
        if self.device.type != "cpu" or (self.threads or torch.get_num_threads()) > 1:
            return False
        return not self.int8

    @property
    def int8(self) -> bool:
        """Whether layers are in int8. They look for outliers over all rows of a step."""
        return any(type(layer).__name__ == "Linear8bitLt" for layer in self.model.modules())

    @property
    def vocabulary(self) -> int:
        """How many logits the model has for each token."""
        head: Any = self.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if head is not None:
            return int(head.weight.shape[0])
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def like(self) -> torch.Tensor:
        """A tensor with the type and the device of the activations."""
        return cast(torch.Tensor, self.model.get_input_embeddings().weight)


def threads_for(model: PreTrainedModel) -> int:
    """How many CPU threads compute `model` fastest; 0 leaves it to torch."""
    return int(model.device.type == "cpu" and model.num_parameters() < SMALL)


def weights_of(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    contenders: dict[str, str | None],
    rows: AdapterRows | None,
    way: Way = "batch",
) -> Weights:
    """A loaded model with all that decoding must know of it."""
    check_vocabulary(model, tokenizer)
    config = model.generation_config
    ends = config.eos_token_id if config is not None else None
    listed = ends if isinstance(ends, list) else [ends]
    template = template_of(tokenizer)
    # A role tag or a tag for padding ends the reply like the end-of-sequence token.
    every = {*listed, tokenizer.eos_token_id, *template.ends}
    text = model.config.get_text_config()
    context = context_of(text)
    hybrid = getattr(text, "layer_types", None) is not None
    if way in ("fused", "batch") and not hybrid:
        # Within the window, sliding attention equals plain attention. Some configurations refuse to
        # be without one; with it the same numbers come, as the context ends where the window does.
        with suppress(Exception):
            text.sliding_window = None
    return Weights(
        model=model,
        tokenizer=tokenizer,
        adapters=contenders,
        rows=rows,
        ends=frozenset(int(token) for token in every if token is not None),
        context=context,
        trained=min(context, int(tokenizer.model_max_length)),
        stops=template.stops,
        hybrid=hybrid,
        threads=threads_for(model),
        way=way,
    )
