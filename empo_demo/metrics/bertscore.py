"""BERTScore of Zhang et al. 2020 (arXiv 1904.09675), computed by its authors' library.

There are no idf weights and no rescaling, as in EmPO: roberta-large, layer 17. Other encoders can
be named. Figures of two encoders cannot be compared, so each figure carries the encoder's label.
(torchmetrics 1.9 pairs responses with the wrong references when their lengths differ.)
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAPER_MODEL, PAPER_LAYER = "roberta-large", 17
MAX_TOKENS = 512


@dataclass(frozen=True, slots=True)
class Encoder:
    """A transformers encoder, whose first output is used, its tokenizer and its label."""

    label: str
    model: Any
    tokenizer: Any


@dataclass(frozen=True, slots=True)
class Score:
    """Precision, recall and F1 of one response, in [-1, 1]; 0 if either text is empty."""

    precision: float
    recall: float
    f1: float


def bertscore(
    responses: Sequence[str], references: Sequence[str], encoder: Encoder, batch: int = 64
) -> list[Score]:
    """Score each response against its reference, in order."""
    scores = [Score(0.0, 0.0, 0.0)] * len(responses)
    pairs = zip(responses, references, strict=True)
    places = [i for i, (one, other) in enumerate(pairs) if one.strip() and other.strip()]
    if not places:
        return scores
    from bert_score.utils import bert_cos_score_idf  # type: ignore[import-untyped,unused-ignore]

    weights: dict[int, float] = defaultdict(lambda: 1.0)
    weights[encoder.tokenizer.cls_token_id] = weights[encoder.tokenizer.sep_token_id] = 0.0
    rows = bert_cos_score_idf(
        encoder.model,
        [references[i] for i in places],
        [responses[i] for i in places],
        encoder.tokenizer,
        weights,
        batch_size=batch,
        device=encoder.model.device,
    )
    for i, row in zip(places, rows.tolist(), strict=True):
        scores[i] = Score(*row)
    return scores


def load_encoder(name: str = PAPER_MODEL, layer: int = PAPER_LAYER, device: str = "cpu") -> Encoder:
    """An encoder by folder or Hub id, cut after `layer`. Its label names both.

    Raises `OSError` if it is neither here nor reachable, `AssertionError` if it lacks the layer.
    """
    from bert_score.utils import get_model
    from transformers import AutoTokenizer

    # Byte-pair tokenizers need a space before the first word, as the library once required.
    tokenizer = AutoTokenizer.from_pretrained(name, add_prefix_space=True)
    return wrap(get_model(name, layer).to(device), tokenizer, f"{name}, layer {layer}")


def wrap(model: Any, tokenizer: Any, label: str) -> Encoder:
    """An encoder from a loaded model. Its last layer is used, and texts are cut where it ends."""
    room = getattr(model.config, "max_position_embeddings", MAX_TOKENS)
    tokenizer.model_max_length = min(tokenizer.model_max_length, MAX_TOKENS, room)
    return Encoder(label, model.eval(), tokenizer)
