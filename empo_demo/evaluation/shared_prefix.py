"""lm-evaluation-harness's model, reading once what its requests have in common.

A multiple-choice benchmark asks for the likelihood of several endings of one text, and its texts
begin alike (the same five solved examples, the same instructions). The harness's own model reads
all of it anew for every ending, which on a CPU is most of the time. Here keys and values are
computed once for the beginning of a family of texts, then once for each text, then for each ending.
The likelihoods are the same up to rounding. Answers can be kept in a file, batch by batch; the
harness's own database takes as long for a small model as the model does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from transformers import DynamicCache

from empo_demo.progress import progress

WORTH = 32
"""A common beginning of fewer tokens is read with each text."""
FAMILY = 4
"""So many texts must share a beginning before it is read apart."""

Answer = tuple[float, bool]
"""Log-probability of an ending, and whether the model would have written it itself (greedy)."""
Wanted = tuple[tuple[str, str] | None, list[int], list[int]]
"""A request of the harness: its texts, and the tokens of context and ending."""


@dataclass(slots=True)
class Context:
    """One text and its endings: the places in the list of requests, by the tokens to read.

    The last token of the text is read with the ending, because its logits rate the first token.
    """

    tokens: list[int]
    endings: dict[tuple[int, ...], list[int]] = field(default_factory=dict)


@dataclass(slots=True)
class Family:
    """Contexts that begin with the same `trunk`."""

    trunk: list[int]
    contexts: list[Context]


class SharedPrefixLM(HFLM):  # type: ignore[misc,unused-ignore]
    """`batch_size` texts, or endings, are computed together. `kept` is a file of answers of these
    weights."""

    kept: Path | None = None

    def _loglikelihood_tokens(
        self, requests: list[Wanted], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Answer]:
        keys = [_key(before, ending) for _, before, ending in requests]
        found = self._known()
        asked = [request for request, key in zip(requests, keys, strict=True) if key not in found]
        batch = int(self.batch_size)
        jobs = [
            (family.trunk, family.contexts[start : start + batch])
            for family in families(contexts(asked, self.max_length))
            for start in range(0, len(family.contexts), batch)
        ]
        read: tuple[list[int], Any] = ([], None)
        with torch.inference_mode():
            for trunk, part in progress(jobs, "questions, batches"):
                if trunk != read[0]:
                    read = (trunk, self._trunk(trunk))
                new = {
                    _key(*asked[place][1:]): answer
                    for place, answer in self._batch(read[1], len(trunk), part, asked)
                }
                self._keep(new)
                found |= new
        return [found[key] for key in keys]

    def _known(self) -> dict[str, Answer]:
        """The answers that are kept. A torn last line of a killed run is not one."""
        if self.kept is None or not self.kept.exists():
            return {}
        *whole, _torn = self.kept.read_text(encoding="utf8").split("\n")
        rows = [json.loads(line) for line in whole if line.endswith("]")]
        return {key: (total, greedy) for key, total, greedy in rows}

    def _keep(self, answers: dict[str, Answer]) -> None:
        if self.kept is None:
            return
        lines = [json.dumps([key, *answer]) for key, answer in answers.items()]
        with self.kept.open("a", encoding="utf8") as file:
            # A torn line before ends here, so that it spoils no other.
            file.write("".join(f"\n{line}" for line in lines) + "\n")

    def _trunk(self, trunk: list[int]) -> Any:
        """Keys and values of the common beginning, by layer; None without one."""
        if not trunk:
            return None
        tokens = torch.tensor([trunk], device=self.device)
        cache = self.model(tokens, use_cache=True, logits_to_keep=1).past_key_values
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _batch(
        self, trunk: Any, shared: int, part: Sequence[Context], requests: Sequence[Wanted]
    ) -> Iterator[tuple[int, Answer]]:
        """The answers to all endings of some contexts of one family."""
        bodies = [context.tokens[shared:-1] for context in part]
        mask = torch.ones(len(part), shared, dtype=torch.long, device=self.device)
        states = trunk and [
            (k.expand(len(part), -1, -1, -1), v.expand(len(part), -1, -1, -1)) for k, v in trunk
        ]
        if any(bodies):
            tokens, real = self._padded(bodies)
            mask = torch.cat([mask, real], 1)
            starts = torch.full((len(part),), shared, device=self.device)
            cache = self._forward(tokens, states, mask, starts, keep=1).past_key_values
            states = [(layer.keys, layer.values) for layer in cache.layers]
        rows = [
            (place, ending)
            for place, context in enumerate(part)
            for ending in sorted(context.endings, key=len)
        ]
        for start in range(0, len(rows), int(self.batch_size)):
            yield from self._endings(
                states, mask, part, rows[start : start + int(self.batch_size)], requests
            )

    def _endings(
        self,
        states: Any,
        mask: torch.Tensor,
        part: Sequence[Context],
        rows: Sequence[tuple[int, tuple[int, ...]]],
        requests: Sequence[Wanted],
    ) -> Iterator[tuple[int, Answer]]:
        picked = torch.tensor([place for place, _ in rows], device=self.device)
        tokens, real = self._padded([[part[p].tokens[-1], *ending] for p, ending in rows])
        before = mask[picked]
        chosen = states and [(k[picked], v[picked]) for k, v in states]
        starts = before.sum(1)
        whole = torch.cat([before, real], 1)
        logits = self._forward(tokens, chosen, whole, starts).logits
        for row, (place, ending) in enumerate(rows):
            sure = torch.log_softmax(logits[row, : len(ending) + 1].float(), -1)
            best = sure.argmax(-1)
            for number in part[place].endings[ending]:
                wanted = torch.tensor(requests[number][2], device=self.device)
                # An ending of the same tokens may have been cut from its text at another place.
                tail = sure[len(sure) - len(wanted) :]
                total = float(tail.gather(1, wanted[:, None]).sum())
                yield number, (total, bool((best[-len(wanted) :] == wanted).all()))

    def _forward(
        self,
        tokens: torch.Tensor,
        states: Any,
        mask: torch.Tensor,
        starts: torch.Tensor,
        keep: int = 0,
    ) -> Any:
        """A pass after `states`. `mask` covers states and tokens; `starts` are first positions."""
        positions = starts[:, None] + torch.arange(tokens.shape[1], device=self.device)
        return self.model(
            tokens,
            past_key_values=DynamicCache(states) if states else None,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
        )

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids, padded on the right, and 1 for each real one."""
        width = max(map(len, rows))
        tokens = torch.zeros(len(rows), width, dtype=torch.long)
        real = torch.zeros(len(rows), width, dtype=torch.long)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            real[row, : len(ids)] = 1
        return tokens.to(self.device), real.to(self.device)


def _key(before: Sequence[int], ending: Sequence[int]) -> str:
    """What an answer depends on beside the weights."""
    return hashlib.sha256(json.dumps([before, ending]).encode()).hexdigest()[:32]


def contexts(requests: Sequence[Wanted], longest: int) -> list[Context]:
    """The different texts of the requests, each with its endings.

    What is longer than the model's context loses its beginning, as in the harness.
    """
    by_text: dict[tuple[int, ...], Context] = {}
    for place, (_, before, ending) in enumerate(requests):
        kept = (before + ending)[-(longest + 1) :]
        text, rest = kept[: len(kept) - len(ending)], kept[len(kept) - len(ending) : -1]
        context = by_text.setdefault(tuple(text), Context(text))
        context.endings.setdefault(tuple(rest), []).append(place)
    return list(by_text.values())


def families(texts: Sequence[Context]) -> list[Family]:
    """The texts by their common beginnings, each family with its longest texts first.

    In alphabetical order a text joins the family before it where that saves tokens. Families of
    fewer than `FAMILY` texts are read without a trunk, all together, so that batches are full.
    """
    grown: list[Family] = []
    for text in sorted(texts, key=lambda text: text.tokens):
        last = grown[-1] if grown else None
        shared = _common(last.trunk, text.tokens[:-1]) if last else 0
        if last and shared >= WORTH and _joins(last, shared):
            last.trunk = last.trunk[:shared]
            last.contexts.append(text)
        else:
            grown.append(Family(text.tokens[:-1], [text]))
    alone = Family([], [])
    grouped = []
    for family in grown:
        if len(family.contexts) < FAMILY:
            alone.contexts += family.contexts
        else:
            grouped.append(family)
    for family in (*grouped, alone):
        family.contexts.sort(key=lambda text: -len(text.tokens))
    return [*grouped, *([alone] if alone.contexts else [])]


def _joins(family: Family, shared: int) -> bool:
    """Whether a text that shares `shared` tokens with the trunk saves more than the family loses.

    A family of one has no trunk yet: its whole text stands for it.
    """
    lost = (len(family.trunk) - shared) * (len(family.contexts) - 1)
    return lost <= shared


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
