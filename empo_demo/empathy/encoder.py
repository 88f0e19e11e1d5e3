"""The network of the SEM: one small encoder, eight heads, and the conversion of texts to input.

Training and the app share it, so both see texts in exactly the same way. One forward pass reads
one text: for emotions a dialogue, for cause words a turn, for EPITOME a context with its response.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.errors import EngineError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

LENGTH = 128
"""The longest input in tokens. Of a longer dialogue the start of the first turn is kept (in
EmpatheticDialogues it says what happened), and the end."""
FIRST_TURN = 48
PAIR_CONTEXT, PAIR_RESPONSE = 48, 128
"""For an EPITOME pair: the tokens from the end of the context and from the start of the response.
A question often ends a reply, so the response has more room than the 64 of the published code."""
MECHANISMS = ("er", "ex", "ip")
"""Emotional reactions, explorations, interpretations (Sharma et al. 2020)."""
LONGEST = max(LENGTH, PAIR_CONTEXT + PAIR_RESPONSE + 3)
"""The longest input of all in tokens, with its special ones: so many positions are kept."""
LEVELS = 3
PART = 10_000
"""The most rows of one tensor in one shard; the embedding is larger than a shard may be."""
SMALLEST, SCALE = 64, ":scale"
"""Matrices of at least so many rows are stored in 8 bits. Heads have few rows and stay in 16 bits.
`SCALE` follows the name of a matrix in the name of its rows' scales."""
SHARED = 2
"""EPITOME shares this many layers of the encoder. It has its own layers above them."""


@dataclass(frozen=True, slots=True)
class Text:
    """One input: token ids, and the segment of each token (0 for special tokens, then 1, 2, …)."""

    ids: list[int]
    segments: list[int]
    offsets: list[tuple[int, int]]


class SemNet(nn.Module):
    """Encoder with heads. States are (batch, tokens, dim), masks and segments (batch, tokens)."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        size = int(encoder.config.hidden_size)
        self.encoder = encoder
        self.emotion = nn.Linear(size, len(EMOTIONS))
        self.recent = nn.Linear(size, len(EMOTIONS), bias=False)
        nn.init.zeros_(self.recent.weight)
        self.cause = nn.Linear(size, 1)
        self.affect = nn.Linear(size, 2)
        self.push = nn.Linear(size, 1)
        self.other = nn.Linear(size, 1)
        self.grader = nn.ModuleList(copy.deepcopy(layer) for layer in self._own_layers())
        self.rationale = nn.Linear(size, len(MECHANISMS))
        self.pair = nn.Linear(4 * size, size)
        self.epitome = nn.ModuleList(nn.Linear(size, LEVELS) for _ in MECHANISMS)
        self.dropout = nn.Dropout(0.1)

    def hidden(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states, in 32 bits."""
        states: torch.Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states.float()

    def shared(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Hidden states of layer `SHARED` of the encoder, in 32 bits."""
        layers = self.encoder.encoder.layer[: -len(self.grader)]
        return self._through(layers, self.encoder.embeddings(input_ids=ids), mask).float()

    def emotions(
        self, hidden: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor
    ) -> torch.Tensor:
        """(batch, 32) logits from the mean over all tokens plus the mean over the last turn."""
        logits: torch.Tensor = self.emotion(self.dropout(mean(hidden, mask)))
        latest: torch.Tensor = self.recent(last_turn(hidden, segments))
        return logits + latest

    def affects(self, hidden: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
        """(batch, 2) valence and arousal in [-1, 1], from the mean over the last turn."""
        affects: torch.Tensor = self.affect(self.dropout(last_turn(hidden, segments)))
        return affects

    def pushes(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) how much each piece moves the valence."""
        pushes: torch.Tensor = self.push(hidden).squeeze(-1)
        return pushes

    def others(self, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(batch,) logits of whether none of the emotions fits, from the mean over all tokens."""
        logits: torch.Tensor = self.other(mean(hidden, mask)).squeeze(-1)
        return logits

    def causes(self, hidden: torch.Tensor) -> torch.Tensor:
        """(batch, tokens) logits of whether a token names the cause."""
        logits: torch.Tensor = self.cause(self.dropout(hidden)).squeeze(-1)
        return logits

    def levels(
        self, shared: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Grade segment 2 as a reply to segment 1.

        Returns (batch, 3, 3) logits of the levels of ER, EX, IP, and (batch, tokens, 3) logits of
        whether a token is part of the rationale of each. Each mechanism reads the response weighted
        by its rationale, beside the whole response and the context (after arXiv 2009.08441).
        """
        states = self._through(self.grader, shared, mask).float()
        places = self.rationale(states)
        inside = segments == 2
        attention = places.masked_fill(~inside.unsqueeze(-1), -1e4).softmax(1)
        response_view = attention.transpose(1, 2) @ states
        context, response = (
            mean(states, where).unsqueeze(1).expand_as(response_view)
            for where in (segments == 1, inside)
        )
        seen = torch.cat([response_view, response, context, response_view * context], -1)
        joined = torch.nn.functional.gelu(self.pair(self.dropout(seen)))
        heads = zip(self.epitome, self.dropout(joined).unbind(1), strict=True)
        return torch.stack([head(row) for head, row in heads], 1), places

    def start_grader(self) -> None:
        """Copy the encoder's weights into EPITOME's own layers, as their start."""
        for mine, theirs in zip(self.grader, self._own_layers(), strict=True):
            mine.load_state_dict(theirs.state_dict())

    def _own_layers(self) -> Any:
        """The encoder's layers above `SHARED`; for a very shallow encoder the last layer."""
        layers = self.encoder.encoder.layer
        return layers[min(SHARED, len(layers) - 1) :]

    def _through(self, layers: Any, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """`states` after `layers`. Padding gets no attention."""
        from transformers.masking_utils import create_bidirectional_mask

        states = states.to(next(layers.parameters()).dtype)
        allowed = create_bidirectional_mask(
            config=self.encoder.config, inputs_embeds=states, attention_mask=mask
        )
        for layer in layers:
            states = layer(states, allowed)
        return states


class Texts:
    """Converts texts to inputs with the tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        specials = [tokenizer.token_to_id(name) for name in ("[CLS]", "[SEP]", "[UNK]")]
        if None in specials:
            raise EngineError("The SEM's tokenizer.json lacks [CLS], [SEP] or [UNK].")
        self._cls, self._sep, self._unknown = (int(i) for i in specials if i is not None)

    def turns(self, turns: Sequence[str]) -> Text:
        """A dialogue with separators between its turns. A long one is cut in the middle."""
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
        """A context (segment 1) and a response (segment 2). The tokenizer lower-cases both.

        Offsets are positions in the response.
        """
        one = self._encode(context)[0][-PAIR_CONTEXT:]
        two, places = self._encode(response)
        two, places = two[:PAIR_RESPONSE] or [self._unknown], places[:PAIR_RESPONSE] or [(0, 0)]
        segments = [1] * len(one) + [0] + [2] * len(two)
        return self._wrap([*one, self._sep, *two], segments, [(0, 0)] * (len(one) + 1) + places)

    def words(self, words: Sequence[str]) -> Text:
        """Given words: segment i + 1 holds the pieces of word i. Long inputs are cut at the end."""
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
    """Write weights (8 bits, shards under 9 MB), encoder config, tokenizer and `sem.json`."""
    from huggingface_hub import save_torch_state_dict

    folder.mkdir(parents=True, exist_ok=True)
    small = _split(_packed(net.state_dict()))
    for old in folder.glob("model*.safetensors*"):
        old.unlink()
    save_torch_state_dict(small, folder, max_shard_size="9MB", safe_serialization=True)
    net.encoder.config.save_pretrained(folder)
    texts.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "sem.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf8")


def load(folder: Path) -> tuple[SemNet, Texts, dict[str, Any]]:
    """Load the network in 32 bits for the CPU, in evaluation mode."""
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
        net.load_state_dict(_unpacked(_joined(state)))
        texts = Texts(Tokenizer.from_file(str(folder / "tokenizer.json")))
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        line = str(error).split("\n")[0]
        raise EngineError(f"The emotion model in {folder} cannot be loaded: {line}.") from None
    return net.eval(), texts, dict(meta)


def _packed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Matrices in 8 bits with a scale per row, half the size of 16 bits; all else in 16 bits.

    The figures stay (see the card): a row's values are rounded to 1/127 of its largest one.
    """
    packed = {}
    for name, value in state.items():
        if value.dim() < 2 or value.shape[0] < SMALLEST:
            packed[name] = value.half().contiguous()
            continue
        scale = (value.float().abs().amax(1, keepdim=True) / 127).clamp_min(1e-5).half()
        packed[name] = (value.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        packed[f"{name}{SCALE}"] = scale
    return packed


def _unpacked(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `_packed` wrote, in 32 bits."""
    scales = {name: value.float() for name, value in state.items() if name.endswith(SCALE)}
    return {
        name: value.float() * scales.get(f"{name}{SCALE}", 1.0)
        for name, value in state.items()
        if name not in scales
    }


def _split(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Split tensors that are too large for a shard into parts named `NAME..0`, `NAME..1`, …."""
    parts = {}
    for name, value in state.items():
        if value.dim() < 2 or value.shape[0] <= PART:
            parts[name] = value
            continue
        for number, part in enumerate(torch.split(value, PART)):
            parts[f"{name}..{number}"] = part.clone()
    return parts


def _joined(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Join the parts that `_split` made."""
    parts: dict[str, dict[int, torch.Tensor]] = {}
    joined = {}
    for name, value in state.items():
        whole, mark, number = name.partition("..")
        if mark:
            parts.setdefault(whole, {})[int(number)] = value
        else:
            joined[name] = value
    for name, own in parts.items():
        joined[name] = torch.cat([own[number] for number in sorted(own)])
    return joined


def last_turn(hidden: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """(batch, dim) mean over the tokens of the last segment of each text."""
    last = segments.max(1, keepdim=True).values
    return mean(hidden, (segments == last) & (last > 0))


def mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(batch, dim) mean of the states where `mask` is set."""
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1.0)
