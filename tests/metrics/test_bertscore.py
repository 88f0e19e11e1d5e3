"""BERTScore pairs each response with its own reference and agrees with the formula."""

from __future__ import annotations

import pytest

pytest.importorskip("bert_score")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from empo_demo.metrics.bertscore import Encoder, Score, bertscore, wrap

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
WORDS = [*SPECIAL, "the", "a", "dog", "cat", "sat", "ran", "on", "mat", "no", "yes", "and", "far"]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    """A small encoder with random weights: the formula does not care what it has learnt."""
    torch.manual_seed(0)
    vocabulary = {word: i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    return wrap(BertModel(config), fast, "random")


def by_hand(response: str, reference: str, encoder: Encoder) -> Score:
    """Greedy matching of contextual embeddings, one pair at a time, without padding."""

    def embed(text: str) -> torch.Tensor:
        ids = torch.tensor([encoder.tokenizer.encode(text)])
        with torch.inference_mode():
            hidden = encoder.model(ids)[0][0]
        return hidden / hidden.norm(dim=-1, keepdim=True)

    similarity = embed(response) @ embed(reference).T
    # As in the authors' code, [CLS] and [SEP] may be matched but do not count themselves.
    precision = similarity.max(dim=1).values[1:-1].mean().item()
    recall = similarity.max(dim=0).values[1:-1].mean().item()
    return Score(precision, recall, 2 * precision * recall / (precision + recall))


RESPONSES = ["the dog sat on the mat", "no", "a cat and a dog ran far and far on", "yes the cat"]
REFERENCES = ["yes", "the cat ran on the mat and the dog sat", "a cat ran far", "no the dog sat"]


def test_each_pair_agrees_with_the_formula_whatever_the_lengths(encoder: Encoder) -> None:
    scores = bertscore(RESPONSES, REFERENCES, encoder, batch=3)
    for response, reference, score in zip(RESPONSES, REFERENCES, scores, strict=True):
        expected = by_hand(response, reference, encoder)
        assert score.precision == pytest.approx(expected.precision, abs=1e-4)
        assert score.recall == pytest.approx(expected.recall, abs=1e-4)
        assert score.f1 == pytest.approx(expected.f1, abs=1e-4)


def test_a_reply_equal_to_its_reference_scores_one(encoder: Encoder) -> None:
    (score,) = bertscore(["the dog ran"], ["the dog ran"], encoder)
    assert score.f1 == pytest.approx(1.0, abs=1e-5)


def test_an_empty_reply_scores_zero_and_shifts_nobody(encoder: Encoder) -> None:
    with_empty = bertscore(["", *RESPONSES], ["yes", *REFERENCES], encoder)
    assert with_empty[0] == Score(0.0, 0.0, 0.0)
    plain = bertscore(RESPONSES, REFERENCES, encoder)
    assert [s.f1 for s in with_empty[1:]] == pytest.approx([s.f1 for s in plain], abs=1e-5)
    assert bertscore(["", " "], ["yes", "no"], encoder) == [Score(0.0, 0.0, 0.0)] * 2
