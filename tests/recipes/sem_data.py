"""A handful of our own sentences as the SEM's data, and a random encoder to start from."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch

SENTENCES = {
    "joyful": "My daughter was born this morning and I cannot stop smiling",
    "angry": "The neighbour scratched my car again and drove away",
    "afraid": "There was a noise in the cellar last night and I was alone",
    "proud": "My brother finished his first marathon after years of training",
    "lonely": "Everyone has moved away and nobody calls me any more",
}


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def dialogues(prefix: str, count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(count):
        emotion = list(SENTENCES)[number % len(SENTENCES)]
        turns = [("user", SENTENCES[emotion] + "."), ("assistant", "Tell me more about it?")]
        rows.append(
            {
                "conv_id": f"{prefix}:{number}",
                "emotion": emotion,
                "situation": f"{SENTENCES[emotion]}, number {number}.",
                "utterances": [{"role": role, "content": text} for role, text in turns],
            }
        )
    return rows


def write_data(folder: Path) -> None:
    """All files that the SEM is trained and measured on, of our own sentences."""
    valid = dialogues("valid", 20)
    write_lines(folder / "empathetic_dialogues.train.jsonl.gz", dialogues("train", 20))
    write_lines(folder / "empathetic_dialogues.valid.jsonl.gz", valid)
    causes = [
        {
            "conv_id": row["conv_id"],
            "tokens": str(row["situation"]).split(),
            "cause_token_ids": [2, 3],
        }
        for row in valid
    ]
    write_lines(folder / "emocause.valid.jsonl.gz", causes)
    replies = ("I am so sorry", "What happened?", "Same here")
    pairs = [
        {
            "sp_id": f"post{i}",
            "seeker_post": "I lost my job and feel empty",
            "response_post": replies[i % 3],
            "levels": {
                "emotional_reactions": i % 3,
                "interpretations": (i + 1) % 3,
                "explorations": (i + 2) % 3,
            },
            "rationales": {
                "emotional_reactions": [],
                "interpretations": [replies[i % 3]],
                "explorations": [],
            },
        }
        for i in range(20)
    ]
    write_lines(folder / "epitome.train.jsonl.gz", pairs[:15])
    write_lines(folder / "epitome.valid.jsonl.gz", pairs[15:])
    comments = [
        {"id": str(i), "text": text, "labels": [list(SENTENCES)[i % 5]]}
        for i, text in enumerate(SENTENCES.values())
    ]
    write_lines(folder / "goemotions.train.jsonl.gz", comments)
    rated = [
        {
            "id": f"document{i}_{i}",
            "text": f"{SENTENCES[label]} {i}",
            "valence": 4.0 if label in ("joyful", "proud") else 2.0 + i / 100,
            "arousal": 3.0 + i / 50,
        }
        for i in range(40)
        for label in [list(SENTENCES)[i % 5]]
    ]
    write_lines(folder / "emobank.train.jsonl.gz", rated)
    write_lines(folder / "emobank.valid.jsonl.gz", rated[:10])
    norms = ["Word,V.Mean.Sum", "joyful,8.2", "angry,2.5", "afraid,2.4", "proud,7.0", "lonely,2.2"]
    (folder / "warriner.csv").write_text("\n".join(norms) + "\n", encoding="utf8")


def write_encoder(folder: Path) -> None:
    """A random encoder of two narrow layers, with a tokenizer of letters and some words."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel

    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    pieces += [f"##{c}" for c in letters] + ["car", "alone", "born", "smiling", "zebra", "д"]
    tokenizer = Tokenizer(
        models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=128,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
