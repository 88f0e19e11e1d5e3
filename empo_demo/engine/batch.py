"""The lockstep batch: rows that join, take one token each per step, and leave.

Owns the KV cache and its invariants: rows are sorted by adapter, left padded to one length, and a
row's tokens depend on nothing but its own prompt, seed and decoding. One batch belongs to one
copy of the weights and is used by one thread at a time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch

from empo_demo.engine.chat import encode_fitted
from empo_demo.engine.protocol import Delta, Event, Failed, Finished, FinishReason, Request
from empo_demo.engine.sampling import Draw, Sampler
from empo_demo.engine.text import Detokenizer
from empo_demo.engine.weights import Weights


@dataclass(slots=True, eq=False)
class Row:
    """One side being answered. `out` collects its events until somebody takes them."""

    request: Request
    adapter: str | None
    prompt: list[int]
    text: Detokenizer
    generator: random.Random
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


@dataclass(slots=True)
class _Rows:
    """Rows in the order of the tensors' first dimension, with their cache.

    `pads` counts each row's padding on the left, `length` the positions in the cache; `last`
    (rows, 1) holds the tokens that are not in it yet.
    """

    rows: list[Row]
    cache: Any
    pads: list[int]
    length: int
    last: torch.Tensor


class Batch:
    """The rows that decode together on one copy of the weights."""

    def __init__(self, weights: Weights) -> None:
        self.weights = weights
        self._now: _Rows | None = None
        self._sampler: Sampler | None = None
        self._positions = self._bias = torch.zeros(0)

    @property
    def rows(self) -> list[Row]:
        return self._now.rows if self._now is not None else []

    def prepare(self, request: Request, dropped: int = 0) -> Row:
        """A row for `request`, whose first `dropped` exchanges are left out of the prompt."""
        weights = self.weights
        limit = max(16, weights.context - request.decoding.max_new_tokens)
        return Row(
            request=request,
            adapter=weights.adapters[request.contender],
            prompt=encode_fitted(weights.tokenizer, request.messages, limit, dropped),
            text=Detokenizer(weights.tokenizer, (*request.decoding.stop, *weights.stops)),
            generator=random.Random(request.seed),
        )

    @torch.inference_mode()
    def prefill(self, rows: Sequence[Row]) -> _Rows:
        """`rows` with a cache of their own and each one's first token; touches no running row."""
        from transformers import DynamicCache

        rows = sorted(rows, key=_by_adapter)
        width = max(len(row.prompt) for row in rows)
        pads = [width - len(row.prompt) for row in rows]
        ids = torch.tensor([[0] * pad + row.prompt for row, pad in zip(rows, pads, strict=True)])
        device = self.weights.device
        places = torch.arange(width).unsqueeze(0) - torch.tensor(pads).unsqueeze(1)
        cache = DynamicCache()
        logits = self._forward(
            rows, ids.to(device), self._prefill_mask(pads, width),
            places.clamp_(min=0).to(device), cache,
        )  # fmt: skip
        return _Rows(rows, cache, pads, width, self._draw(rows, self._sampler_of(rows), logits))

    @torch.inference_mode()
    def admit(self, new: _Rows) -> None:
        """Let prefilled rows into the running batch."""
        self._now = new if self._now is None else _merge(self._now, new)
        self._settle()
        self.leave()

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every row; rows that end leave."""
        now = self._now
        if now is None or self._sampler is None:
            return
        now.length += 1
        masked = any(now.pads) or self.weights.hybrid
        mask = self._bias[..., : now.length] if masked else None
        with few_threads(self.weights.threads):
            logits = self._forward(now.rows, now.last, mask, self._positions, now.cache)
            now.last = self._draw(now.rows, self._sampler, logits)
        self._positions += 1
        self.leave()

    @torch.inference_mode()
    def leave(self) -> None:
        """Let go of the rows that are done, and of padding that no row needs any more."""
        now = self._now
        if now is None or not any(row.done for row in now.rows):
            return
        keep = [i for i, row in enumerate(now.rows) if not row.done]
        if not keep:
            self.clear()
            return
        common = min(now.pads[i] for i in keep)
        index = torch.tensor(keep, device=now.last.device)
        now.rows = [now.rows[i] for i in keep]
        now.pads = [now.pads[i] - common for i in keep]
        now.length -= common
        now.last = now.last[index]
        for layer in now.cache.layers:
            layer.keys = layer.keys[index, :, common:]
            layer.values = layer.values[index, :, common:]
        self._settle()

    def clear(self) -> None:
        """Forget everything, so that whatever went wrong cannot reach the next round."""
        self._now = self._sampler = None

    def _settle(self) -> None:
        """What a step needs and only joining and leaving change."""
        now = self._now
        if now is None:
            return
        device = self.weights.device
        self._sampler = self._sampler_of(now.rows)
        self._positions = now.length - torch.tensor(now.pads, device=device).view(-1, 1)
        ahead = max(row.request.decoding.max_new_tokens for row in now.rows) + 1
        places = torch.arange(now.length + ahead, device=device)
        outside = places < torch.tensor(now.pads, device=device).view(-1, 1, 1, 1)
        self._bias = self._as_bias(outside)

    def _prefill_mask(self, pads: list[int], width: int) -> torch.Tensor | None:
        """(rows, 1, width, width): causal and without padding; None where causal is enough."""
        if not any(pads) and not self.weights.hybrid:
            return None
        future = torch.ones(width, width, dtype=torch.bool).triu(1)
        padding = torch.arange(width) < torch.tensor(pads).view(-1, 1, 1, 1)
        return self._as_bias((future | padding).to(self.weights.device))

    def _as_bias(self, outside: torch.Tensor) -> torch.Tensor:
        """What attention adds to its scores: 0 inside, the lowest number where `outside`."""
        dtype = self.weights.like.dtype
        zeros = torch.zeros(outside.shape, dtype=dtype, device=outside.device)
        return zeros.masked_fill_(outside, torch.finfo(dtype).min)

    def _forward(
        self,
        rows: Sequence[Row],
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        positions: torch.Tensor,
        cache: Any,
    ) -> torch.Tensor:
        """Logits (rows, vocabulary) after the last of `ids`; the cache grows by `ids`."""
        weights = self.weights
        if weights.rows is not None:
            weights.rows.assign(
                [row.adapter for row in rows],
                [row.request.adapter_scale for row in rows],
                weights.like,
            )
        kinds = {"full_attention": mask, "sliding_attention": mask} if weights.hybrid else mask
        output = weights.model(
            input_ids=ids,
            attention_mask=kinds,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cast(torch.Tensor, output.logits[:, -1])

    def _sampler_of(self, rows: Sequence[Row]) -> Sampler:
        draws = [
            Draw(row.request.decoding, row.generator, (*row.prompt, *row.produced)) for row in rows
        ]
        head: Any = self.weights.model.get_output_embeddings()  # type: ignore[no-untyped-call]
        return Sampler(draws, head.weight.shape[0], self.weights.device)

    def _draw(self, rows: list[Row], sampler: Sampler, logits: torch.Tensor) -> torch.Tensor:
        """Each row's next token, handed to the row; returned as (rows, 1) for the next step."""
        tokens = sampler.draw(logits)
        for row, token in zip(rows, tokens.view(-1).tolist(), strict=True):
            if not row.done:
                row.take(token, self.weights.ends)
        return tokens


@contextmanager
def few_threads(count: int) -> Iterator[None]:
    """Run with `count` threads; small steps lose more by waiting for each other than they gain."""
    before = torch.get_num_threads()
    if not count or count >= before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _merge(old: _Rows, new: _Rows) -> _Rows:
    """Both together, padded to the longer and sorted by adapter."""
    length = max(old.length, new.length)
    everyone = [*old.rows, *new.rows]
    shifted = [length - old.length + pad for pad in old.pads]
    pads = shifted + [length - new.length + pad for pad in new.pads]
    order = sorted(range(len(everyone)), key=lambda i: _by_adapter(everyone[i]))
    index = torch.tensor(order, device=old.last.device)
    for mine, theirs in zip(old.cache.layers, new.cache.layers, strict=True):
        mine.keys = _stack(mine.keys, theirs.keys, length)[index]
        mine.values = _stack(mine.values, theirs.values, length)[index]
    return _Rows(
        rows=[everyone[i] for i in order],
        cache=old.cache,
        pads=[pads[i] for i in order],
        length=length,
        last=torch.cat([old.last, new.last])[index],
    )


def _stack(old: torch.Tensor, new: torch.Tensor, length: int) -> torch.Tensor:
    """Two caches (rows, heads, positions, size) as one of `length`, zeros on the left."""
    return torch.cat(
        [torch.nn.functional.pad(x, (0, 0, length - x.shape[-2], 0)) for x in (old, new)]
    )


def _by_adapter(row: Row) -> str:
    return row.adapter or ""
