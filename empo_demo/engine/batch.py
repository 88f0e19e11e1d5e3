"""The lockstep batch: rows that join, take one token each per step, and leave.

Owns the KV cache and its invariants: rows are sorted by adapter, left padded to one length, and a
row's tokens depend on nothing but its own prompt, seed and decoding. One batch belongs to one
copy of the weights and is used by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from empo_demo.engine.chat import fit_chat
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request
from empo_demo.engine.sampling import pick
from empo_demo.engine.text import Detokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from empo_demo.engine.lora import Rows


@dataclass(slots=True)
class Weights:
    """One copy of the weights: the model, its tokenizer, and the adapters that share it.

    `rows` is None where the copy carries no adapter; `adapters` maps contender id to adapter name.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapters: dict[str, str | None]
    rows: Rows | None = None
    ends: frozenset[int] = frozenset()
    context: int = 4096

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def like(self) -> torch.Tensor:
        """A tensor of the type and place of the activations."""
        return cast(torch.Tensor, self.model.get_input_embeddings().weight)


@dataclass(slots=True, eq=False)
class Row:
    """One side being answered. `out` collects its events until somebody takes them."""

    request: Request
    adapter: str | None
    prompt: list[int]
    text: Detokenizer
    generator: torch.Generator
    started: float = field(default_factory=time.perf_counter)
    produced: list[int] = field(default_factory=list)
    done: bool = False
    out: list[Event] = field(default_factory=list)

    def take(self, token: int, ends: frozenset[int]) -> None:
        """Add a token; end the row where it says so."""
        if token in ends:
            self.finish("eos")
            return
        self.produced.append(token)
        self._say(self.text.push(token))
        if self.text.stopped:
            self.finish("stop")
        elif len(self.produced) >= self.request.decoding.max_new_tokens:
            self.finish("length")

    def finish(self, reason: FinishReason) -> None:
        if self.done:
            return
        self._say(self.text.flush())
        self.done = True
        elapsed = (time.perf_counter() - self.started) * 1000
        self.out.append(
            Finished(self.request.side, reason, self.text.text, len(self.produced), elapsed)
        )

    def fail(self, error: str) -> None:
        if not self.done:
            self.done = True
            self.out.append(Failed(self.request.side, error))

    def drain(self) -> list[Event]:
        events, self.out = self.out, []
        return events

    def _say(self, text: str) -> None:
        if text:
            self.out.append(Delta(self.request.side, text))


class Batch:
    """The rows that decode together on one copy of the weights."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._last = torch.zeros(0, 1, dtype=torch.long)

    def prepare(self, request: Request) -> Row:
        """A row for `request`: its prompt as tokens, its own random generator."""
        weights = self.weights
        limit = weights.context - request.decoding.max_new_tokens
        prompt = fit_chat(weights.tokenizer, request.messages, max(16, limit))
        generator = torch.Generator("cpu").manual_seed(request.seed % 2**63)
        return Row(
            request=request,
            adapter=weights.adapters[request.contender],
            prompt=prompt,
            text=Detokenizer(weights.tokenizer, request.decoding.stop),
            generator=generator,
        )

    @torch.inference_mode()
    def join(self, rows: Sequence[Row]) -> None:
        """Prefill `rows` with their own cache, draw each one's first token, and let them in."""
        rows = sorted(rows, key=_by_adapter)
        device = self.weights.device
        width = max(len(row.prompt) for row in rows)
        ids = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros(len(rows), width, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[i, width - len(row.prompt) :] = 1
        ids, mask = ids.to(device), mask.to(device)
        self._assign(rows)
        output = self.weights.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp_(min=0),
            use_cache=True,
            logits_to_keep=1,
        )
        last = self._draw(rows, output.logits[:, -1])
        self._merge(rows, output.past_key_values, mask, last)
        self.leave()

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every row; rows that end leave."""
        if not self.rows:
            return
        self._assign(self.rows)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        output = self.weights.model(
            input_ids=self._last,
            attention_mask=self._mask,
            position_ids=self._mask.sum(-1, keepdim=True) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._last = self._draw(self.rows, output.logits[:, -1])
        self.leave()

    @torch.inference_mode()
    def leave(self) -> None:
        """Let go of the rows that are done, and of padding that no row needs any more."""
        if not any(row.done for row in self.rows):
            return
        keep = [i for i, row in enumerate(self.rows) if not row.done]
        self.rows = [self.rows[i] for i in keep]
        if not self.rows:
            self.clear()
            return
        index = torch.tensor(keep, device=self._mask.device)
        mask = self._mask[index]
        common = int(mask.argmax(-1).min())
        self._mask, self._last = mask[:, common:], self._last[index]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, common:]
            layer.values = layer.values[index, :, common:]

    def clear(self) -> None:
        """Forget everything, so that whatever went wrong cannot reach the next round."""
        self.rows = []
        self._cache = None

    @property
    def _pad(self) -> int:
        pad = self.weights.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0

    def _assign(self, rows: Sequence[Row]) -> None:
        if self.weights.rows is None:
            return
        self.weights.rows.assign(
            [row.adapter for row in rows],
            [row.request.adapter_scale for row in rows],
            self.weights.like,
        )

    def _draw(self, rows: Sequence[Row], logits: torch.Tensor) -> torch.Tensor:
        """Each row's next token, handed to the row; returned as (rows, 1) for the next step."""
        scores = logits.float().cpu()
        tokens = [pick(row, scores[i]) for i, row in enumerate(rows)]
        for row, token in zip(rows, tokens, strict=True):
            row.take(token, self.weights.ends)
        return torch.tensor(tokens, device=logits.device).view(-1, 1)

    def _merge(self, rows: list[Row], cache: Any, mask: torch.Tensor, last: torch.Tensor) -> None:
        """Put the new rows' cache under the running one and sort all rows by adapter."""
        if not self.rows:
            self.rows, self._cache, self._mask, self._last = rows, cache, mask, last
            return
        width = max(mask.shape[1], self._mask.shape[1])
        everyone = [*self.rows, *rows]
        order = sorted(range(len(everyone)), key=lambda i: _by_adapter(everyone[i]))
        index = torch.tensor(order, device=mask.device)
        self.rows = [everyone[i] for i in order]
        self._mask = torch.cat([_widen(self._mask, width, -1), _widen(mask, width, -1)])[index]
        self._last = torch.cat([self._last, last])[index]
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys = torch.cat([_widen(old.keys, width, -2), _widen(new.keys, width, -2)])[index]
            old.values = torch.cat([_widen(old.values, width, -2), _widen(new.values, width, -2)])[
                index
            ]


def _by_adapter(row: Row) -> str:
    return row.adapter or ""


def _widen(x: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """`x` padded with zeros on the left of dimension `dim` (-1 or -2)."""
    missing = width - x.shape[dim]
    return torch.nn.functional.pad(x, (missing, 0) if dim == -1 else (0, 0, missing, 0))
