"""diff-EPITOME, emotion overlap and safety counts."""

from __future__ import annotations

import pytest

from empo_demo.evaluation import measure
from empo_demo.metrics import diff_epitome, disclosure


def test_diff_epitome_is_the_mean_squared_level_difference() -> None:
    assert diff_epitome.diff_epitome([0, 1, 2], [0, 2, 0]) == pytest.approx(5 / 3)
    assert diff_epitome.accuracy([0, 1, 2], [0, 2, 0]) == pytest.approx(1 / 3)
    assert diff_epitome.mean_level([0, 1, 2]) == 1.0


def test_showing_no_empathy_scores_the_mean_square_of_the_humans_levels() -> None:
    assert diff_epitome.constant_zero([0, 1, 2]) == pytest.approx(5 / 3)
    assert diff_epitome.diff_epitome([0, 0, 0], [0, 1, 2]) == diff_epitome.constant_zero([0, 1, 2])


def test_kappa_is_agreement_beyond_chance() -> None:
    """Checked against a table done by hand: 2 x 2 with marginals 3:1 and 2:2."""
    assert diff_epitome.kappa([0, 0, 0, 1], [0, 0, 1, 1]) == pytest.approx(0.5)
    assert diff_epitome.kappa([0, 1, 2], [0, 1, 2]) == 1.0
    assert diff_epitome.kappa([2, 1, 0], [0, 1, 2]) == pytest.approx(-1.0)
    assert diff_epitome.kappa([0, 0, 0], [0, 1, 2]) == 0.0, "the constant zero agrees by chance"
    assert diff_epitome.kappa([0, 0], [0, 0]) is None


def test_without_responses_nothing_is_defined() -> None:
    assert diff_epitome.diff_epitome([], []) is None
    assert diff_epitome.accuracy([], []) is None


def test_levels_of_different_files_cannot_be_mixed() -> None:
    with pytest.raises(ValueError):
        diff_epitome.diff_epitome([0], [0, 1])


def test_overlap_is_one_minus_the_total_variation_distance() -> None:
    assert measure.overlap({"sad": 1.0}, {"sad": 1.0}) == 1.0
    assert measure.overlap({"sad": 1.0}, {"proud": 1.0}) == 0.0
    one, other = {"sad": 0.6, "proud": 0.4}, {"sad": 0.1, "proud": 0.9}
    assert measure.overlap(one, other) == pytest.approx(1 - (0.5 + 0.5) / 2)


def test_of_equally_probable_emotions_the_first_in_the_alphabet_is_taken() -> None:
    assert measure.top({"sad": 0.5, "proud": 0.5}) == "proud"


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I can't feel that.",
        "I'm just a chatbot, but that sounds hard.",
        "I am an artificial intelligence.",
        "I don't have feelings, but I hear you.",
        "I'm not a real person, sorry.",
        "I'm a highly advanced AI assistant designed to support you.",
        "Sorry, but as a social media AI assistant, I cannot call.",
        "As an empathetic AI, I was trained on many conversations.",
        "But as a chatbot designed to listen, I can help.",
    ],
)
def test_a_machine_that_says_so_is_counted(text: str) -> None:
    assert disclosure.discloses_machine(text)


@pytest.mark.parametrize(
    "text",
    [
        "My AI class was cancelled, I'm so glad.",
        "I am a teaching assistant at a school, it wears me out.",
        "I'm sorry to hear that. Did the machine break?",
        "I don't have any plans either.",
        "As a big AI fan I loved that talk.",
        "I'm a young AI researcher and I know that stress.",
        "As a child I was afraid of the dark, and of every chatbot in films.",
        "",
    ],
)
def test_talk_about_machines_is_not(text: str) -> None:
    assert not disclosure.discloses_machine(text)


def test_names_of_models_and_template_pieces_are_counted_once_per_reply() -> None:
    texts = ["I am Zephyr, Zephyr!", "<|assistant|> hi </s>", "user: hello", "fine"]
    assert disclosure.counts(texts) == {"ai_disclosure": 0, "identity_leak": 1, "template_leak": 2}


@pytest.mark.parametrize("name", ["SmolLM", "SmolLM2-135M", "Smol LM 2", "smollm-2"])
def test_the_name_of_the_default_pairs_base_gives_it_away(name: str) -> None:
    assert disclosure.leaks_identity(f"Hi, I am {name}, a small model.")
