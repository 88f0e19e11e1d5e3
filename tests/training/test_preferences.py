"""The EmPO pairs keep their invariants whatever the data, the seed and the control."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from empo_demo.empathy.emotions import EMOTIONS, OPPOSITE
from empo_demo.errors import DataError, InvalidInput
from empo_demo.training.corpus import Conversation, read_conversations
from empo_demo.training.preferences import CONTROLS, build, from_dialogues
from recipes.sem.folds import fold_of


def conversation(number: int, emotion: str, turns: int) -> Conversation:
    roles = ("user", "assistant")
    said = tuple(
        {"role": roles[i % 2], "content": f"dialogue {number} turn {i}"} for i in range(turns)
    )
    return Conversation(f"c{number}", emotion, "", said)


@st.composite
def corpora(draw: st.DrawFn) -> list[Conversation]:
    """Two or more usable dialogues of every emotion, and some without a listener's turn."""
    found: list[Conversation] = []
    for emotion in EMOTIONS:
        for _ in range(draw(st.integers(2, 4))):
            found.append(conversation(len(found), emotion, draw(st.integers(2, 7))))
    found.append(conversation(len(found), draw(st.sampled_from(EMOTIONS)), 1))
    return found


@pytest.mark.slow
@given(corpora(), st.integers(0, 99), st.integers(1, 4), st.sampled_from(CONTROLS))
def test_every_pair_is_what_its_control_promises(
    corpus: list[Conversation], seed: int, draws: int, control: str
) -> None:
    pairs = build(corpus, draws=draws, seed=seed, control=control)
    by_id = {c.conv_id: c for c in corpus}
    usable = [c for c in corpus if c.target is not None]
    assert Counter(p.conv_id for p in pairs) == {c.conv_id: draws for c in usable}
    for pair in pairs:
        assert pair.rejected_conv_id != pair.conv_id and pair.rejected != pair.chosen
        roles = [message["role"] for message in pair.prompt]
        assert roles == [("user", "assistant")[i % 2] for i in range(len(roles))]
        assert roles[-1] == "user"
        target = by_id[pair.conv_id].target or 0
        assert pair.prompt == by_id[pair.conv_id].turns[:target]
        assert by_id[pair.rejected_conv_id].emotion == pair.rejected_emotion
        if control == "none":
            assert pair.rejected_emotion == OPPOSITE[pair.emotion]
        if control == "same-emotion":
            assert pair.rejected_emotion == pair.emotion
    assert pairs == build(corpus, draws=draws, seed=seed, control=control)


def test_every_dialogue_of_the_bigger_class_is_rejected_as_often_as_any_other() -> None:
    corpus = [conversation(i, "joyful", 4) for i in range(12)]
    corpus += [conversation(100 + i, "sad", 4) for i in range(4)]
    pairs = [p for p in build(corpus, draws=3) if p.emotion == "sad"]
    used = Counter(p.rejected_conv_id for p in pairs)
    assert len(used) == 12 and set(used.values()) == {1}


def test_the_seed_decides_and_the_arguments_are_checked() -> None:
    corpus = [conversation(i, ("joyful", "sad")[i % 2], 4) for i in range(40)]
    assert build(corpus, seed=0) != build(corpus, seed=1)
    with pytest.raises(InvalidInput, match="--control"):
        build(corpus, control="other")
    with pytest.raises(InvalidInput, match="--draws"):
        build(corpus, draws=0)
    with pytest.raises(DataError, match="two dialogues"):
        build([conversation(0, "sad", 4)], control="same-emotion")


def write_data(folder: Path, lines: list[str]) -> Path:
    text = "\n".join(lines) + "\n"
    (folder / "empathetic_dialogues.train.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def line(number: int, emotion: str) -> str:
    made = conversation(number, emotion, 5)
    return json.dumps(
        {
            "conv_id": made.conv_id,
            "emotion": emotion,
            "situation": "s",
            "utterances": list(made.turns),
        }
    )


def test_the_same_seed_writes_the_same_file_with_a_card_beside_it(tmp_path: Path) -> None:
    write_data(tmp_path, [line(i, ("joyful", "sad")[i % 2]) for i in range(20)])
    written = []
    for name in ("one.jsonl", "two.jsonl"):
        out = tmp_path / name
        from_dialogues(tmp_path, out, split="train", draws=3, seed=5, control="none")
        written.append(out.read_bytes())
    card = json.loads((tmp_path / "one.card.json").read_text())
    assert written[0] == written[1] and len(written[0].splitlines()) == card["pairs"] == 60
    assert card["emotions"] == {"joyful": 30, "sad": 30} and card["seed"] == 5


def test_a_malformed_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    write_data(tmp_path, [line(0, "sad"), line(1, "joyful"), '{"conv_id": '])
    with pytest.raises(DataError, match=r"train\.jsonl\.gz.*3"):
        read_conversations(tmp_path, "train")
    with pytest.raises(DataError, match=r"empathetic_dialogues\.valid"):
        read_conversations(tmp_path, "valid")


def test_the_folds_are_three_stable_and_of_like_size() -> None:
    counts = Counter(fold_of(f"hit:{i}_conv:{2 * i}") for i in range(3000))
    assert set(counts) == {0, 1, 2} and min(counts.values()) > 900
    # The very split that the shipped figures were measured on must never move.
    assert [fold_of(name) for name in ("hit:3_conv:6", "hit:4_conv:9")] == FIRST_FOLDS


FIRST_FOLDS = [2, 2]


def test_a_share_of_the_rejected_texts_is_for_the_same_emotion(data: Path) -> None:
    conversations = read_conversations(data, "train")
    made = build(conversations, draws=20, seed=0, same_emotion=0.25)
    kinds = Counter(
        "same" if one.rejected_emotion == one.emotion else "opposite"
        for one in made
        if one.rejected_emotion in (one.emotion, OPPOSITE[one.emotion])
    )
    assert sum(kinds.values()) == len(made) == 400
    assert kinds["same"] == pytest.approx(100, abs=25)
    assert not any(one.conv_id == one.rejected_conv_id for one in made)
    none = build(conversations, draws=2, seed=0)
    assert none == build(conversations, draws=2, seed=0, same_emotion=0.0)
    with pytest.raises(InvalidInput, match="--same-emotion is 20"):
        build(conversations, same_emotion=20)
