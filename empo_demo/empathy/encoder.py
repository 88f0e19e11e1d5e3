"""The SEM's network: one small encoder, five heads, and how texts become its input.

Shared by training and by the app, so that both see texts in exactly the same way. One forward
pass per text: emotions read a dialogue, cause words a turn, EPITOME a context with its response.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LENGTH = 96
"""Longest input in tokens. Longer dialogues keep the start of their first turn (in
EmpatheticDialogues it says what happened) and their end."""
FIRST_TURN = 48
PAIR_SHARE = 64
"""Longest context, and longest response, of an EPITOME pair, as in its published code."""
MECHANISMS = ("er", "ex", "ip")
"""Emotional reactions, explorations, interpretations (Sharma et al. 2020)."""
LEVELS = 3
SHARED = 4
"""The EPITOME block reads the states of this layer: the layers above it serve the emotions."""


@dataclass(frozen=True, slots=True)
class Text:
    """One input: token ids, and for each the segment it belongs to (0 special, 1, 2, …)."""

    ids: list[int]
    segments: list[int]
    offsets: list[tuple[int, int]]


class SemNet(nn.Module):
    """Encoder with heads; states are (batch, tokens, dim), masks and segments (batch, tokens)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        size = int(encoder.config.hidden_size)
        self.encoder = encoder
        self.emotion = nn.Linear(size, len(EMOTIONS))
        self.cause = nn.Linear(size, 1)
        self.grader = nn.ModuleList(_block(encoder.config) for _ in range(2))
        self.pair = nn.Linear(4 * size, size)
        self.epitome = nn.Linear(size, len(MECHANISMS) * LEVELS)
        self.dropout = nn.Dropout(0.1)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states, in 32 bits."""
        states: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states.float()

    def shared(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of layer `SHARED` (the last one of a shallower encoder), in 32 bits."""
        out = self.encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        layers: tuple[torch.Tensor, ...] = out.hidden_states
        return layers[min(SHARED, len(layers) - 1)].float()

    def emotions(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch, 32) logits from the mean over all tokens."""
        logits: torch.Tensor = self.emotion(self.dropout(_mean(hidden, mask)))
        return logits

    def causes(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) logits: does this token name the cause?"""
        logits: torch.Tensor = self.cause(self.dropout(hidden)).squeeze(-1)
        return logits

    def levels(
        self, shared: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor
    ) -> torch.Tensor:
        """(batch, 3, 3) logits of the levels of ER, EX, IP of segment 2 as a reply to segment 1."""
        for block in self.grader:
            shared = block(shared, src_key_padding_mask=mask == 0)
        states = shared.float()
        context, response = _mean(states, segments == 1), _mean(states, segments == 2)
        both = torch.cat([context, response, context * response, (context - response).abs()], -1)
        joined = torch.nn.functional.gelu(self.pair(self.dropout(both)))
        logits: torch.Tensor = self.epitome(self.dropout(joined))
        return logits.view(-1, len(MECHANISMS), LEVELS)


class Texts:
    """The tokenizer's side of the SEM."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        specials = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]")]
        if None in specials:
            raise EngineError("The SEM's tokenizer.json lacks [CLS], [SEP] or [UNK].")
        self._cls, self._sep, self._unknown = (int(i) for i in specials if i is not None)

    def turns(self, turns: Sequence[str]) -> Text:
        """A dialogue: turns with separators, cut in the middle where it is too long."""
        parts = [self._encode(turn) for turn in turns]
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        segments: list[int] = []
        for number, (part, places) in enumerate(parts, start=1):
            if number > 1:
                ids.append(self._sep)
                offsets.append((0, 0))
                segments.append(0)
            ids += part
            offsets += places
            segments += [number] * len(part)
        room = LENGTH - 2
        if len(ids) > room:
            head = min(FIRST_TURN, len(parts[0][0])) if len(parts) > 1 else room
            tail = room - head
            middle = slice(head, len(ids) - tail)
            del ids[middle], offsets[middle], segments[middle]
        return self._wrap(ids, segments, offsets)

    def pair(self, context: str, response: str) -> Text:
        """A context (segment 1) and a response (segment 2), lower-cased by the tokenizer."""
        one, two = self._encode(context)[0][-PAIR_SHARE:], self._encode(response)[0][:PAIR_SHARE]
        if not two:
            two = [self._unknown]
        ids = [*one, self._sep, *two]
        segments = [1] * len(one) + [0] + [2] * len(two)
        return self._wrap(ids, segments, [(0, 0)] * len(ids))

    def words(self, words: Sequence[str]) -> Text:
        """Ready tokens: segment i + 1 holds the pieces of word i; cut at the end."""
        ids: list[int] = []
        segments: list[int] = []
        for number, word in enumerate(words, start=1):
            pieces = self._encode(word)[0]
            ids += pieces
            segments += [number] * len(pieces)
        ids, segments = ids[: LENGTH - 2], segments[: LENGTH - 2]
        return self._wrap(ids, segments, [(0, 0)] * len(ids))

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        encoding = self.tokenizer.encode(text[: 40 * LENGTH], add_special_tokens=False)
        return list(encoding.ids), list(encoding.offsets)

    def _wrap(self, ids: list[int], segments: list[int], offsets: list[tuple[int, int]]) -> Text:
        return Text([self._cls, *ids, self._sep], [0, *segments, 0], [(0, 0), *offsets, (0, 0)])


def collate(texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(ids, mask, segments), each (batch, longest), right padded."""
    width = max(len(text.ids) for text in texts)
    ids = torch.zeros(len(texts), width, dtype=torch.long)
    mask = torch.zeros(len(texts), width, dtype=torch.long)
    segments = torch.zeros(len(texts), width, dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text.ids)] = torch.tensor(text.ids)
        mask[i, : len(text.ids)] = 1
        segments[i, : len(text.ids)] = torch.tensor(text.segments)
    return ids, mask, segments


def save(net: SemNet, texts: Texts, meta: dict[str, Any], folder: Path) -> None:
    """Write weights (16 bits, shards under 9 MB), encoder config, tokenizer and `sem.json`."""
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    half = {name: value.half().contiguous() for name, value in net.state_dict().items()}
    save_torch_state_dict(half, folder, max_shard_size="9MB", safe_serialization=True)
    net.encoder.config.save_pretrained(folder)
    texts.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "sem.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf8")


def load(folder: Path) -> tuple[SemNet, Texts, dict[str, Any]]:
    """The network in 32 bits for the CPU, ready to read."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from tokenizers import Tokenizer
    from transformers import BertConfig, BertModel

    try:
        meta = json.loads((folder / "sem.json").read_text(encoding="utf8"))
        encoder = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
        net = SemNet(encoder)
        state = {}
        for file in sorted(folder.glob("model*.safetensors")):
            state.update(load_file(file))
        net.load_state_dict({name: value.float() for name, value in state.items()})
        texts = Texts(Tokenizer.from_file(str(folder / "tokenizer.json")))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        line = str(error).split("\n")[0]
        raise EngineError(f"The emotion model in {folder} cannot be loaded: {line}.") from None
    return net.eval(), texts, dict(meta)


def _block(config: Any) -> nn.TransformerEncoderLayer:
    """A transformer layer of the encoder's own shape (post-norm, as BERT's)."""
    return nn.TransformerEncoderLayer(
        config.hidden_size,
        config.num_attention_heads,
        config.intermediate_size,
        dropout=0.1,
        activation="gelu",
        layer_norm_eps=config.layer_norm_eps,
        batch_first=True,
    )


def start_blocks(net: SemNet) -> None:
    """Give the EPITOME blocks the weights of the encoder's top layers, their best start."""
    blocks: list[Any] = list(net.grader)
    layers: list[Any] = list(net.encoder.encoder.layer[-len(blocks) :])
    for block, layer in zip(blocks, layers, strict=True):
        own, cross = layer.attention.self, layer.attention.output
        queries = (own.query, own.key, own.value)
        with torch.no_grad():
            block.self_attn.in_proj_weight.copy_(torch.cat([q.weight for q in queries]))
            block.self_attn.in_proj_bias.copy_(torch.cat([q.bias for q in queries]))
        for mine, theirs in (
            (block.self_attn.out_proj, cross.dense), (block.norm1, cross.LayerNorm),
            (block.linear1, layer.intermediate.dense), (block.linear2, layer.output.dense),
            (block.norm2, layer.output.LayerNorm),
        ):  # fmt: skip
            mine.load_state_dict(theirs.state_dict())


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
