"""One copy of the weights, and what the engine must know of it to batch rows on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from empo_demo.engine.lora import Rows


@dataclass(slots=True)
class Weights:
    """One copy of the weights: the model, its tokenizer, and the adapters that share it.

    `rows` is None where the copy carries no adapter; `adapters` maps contender id to adapter name.
    `context` is the most tokens the model can take, `trained` the most it should; `stops` are the
    tags by which the template opens a turn, where they are plain text. `hybrid` models mix kinds
    of attention layers. `threads` 0 leaves the number to torch.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: dict[str, str | None]
    rows: Rows | None = None
    ends: frozenset[int] = frozenset()
    context: int = 4096
    trained: int = 4096
    stops: tuple[str, ...] = ()
    hybrid: bool = False
    threads: int = 0

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def repeatable(self) -> bool:
        """Whether a row's numbers are the same whatever rows are beside it."""
        if self.device.type != "cpu":
            return False
        return not any(type(layer).__name__ == "Linear8bitLt" for layer in self.model.modules())

    @property
    def like(self) -> torch.Tensor:
        """A tensor of the type and place of the activations."""
        return cast(torch.Tensor, self.model.get_input_embeddings().weight)
