"""The embedded SEM as the app uses it, on the weights that are shipped."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import is_content
from empo_demo.empathy.plugins import load_sem
from empo_demo.empathy.reading import Reading
from empo_demo.empathy.sem import MARKED, SEM, EmbeddedSEM, choose
from empo_demo.errors import EngineError, InvalidInput
from empo_demo.settings import ASSETS, Settings

LONG = "My dog ran away during the storm and I have searched the woods for hours. " * 40


@pytest.fixture(scope="module")
def sem() -> EmbeddedSEM:
    return EmbeddedSEM()


def user(text: str) -> list[Turn]:
    return [Turn("user", text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I was walking home alone at night and a man followed me, I was so scared", "fear"),
        ("My grandmother died last week and I cry every day", "sadness"),
        ("My neighbour keeps parking in my spot and it makes my blood boil", "anger"),
        ("I won the competition after a year of training, I feel amazing", "joy"),
    ],
)
def test_a_clear_text_is_read_in_the_right_group(
    sem: EmbeddedSEM, text: str, expected: str
) -> None:
    from empo_demo.empathy.emotions import GROUP_OF

    top = [label for label, _ in sem.read(user(text)).emotions[:3]]
    assert expected in {GROUP_OF[label] for label in top}


def test_all_32_emotions_are_sorted_and_sum_to_one(sem: EmbeddedSEM) -> None:
    emotions = sem.read(user("I passed my exam!")).emotions
    values = [value for _, value in emotions]
    assert {label for label, _ in emotions} == set(EMOTIONS)
    assert values == sorted(values, reverse=True)
    assert math.isclose(sum(values), 1, abs_tol=1e-9)


@pytest.mark.parametrize(
    "text", ["Fireworks at night!", "it was the car", LONG, "My naïve café 😢 had a fire", "42"]
)
def test_causes_are_content_words_with_enough_weight(sem: EmbeddedSEM, text: str) -> None:
    causes = sem.read(user(text)).causes
    content = Turn("user", text).content
    for cause in causes:
        assert content[cause.start : cause.end] == cause.text
        assert is_content(cause.text)
        assert MARKED <= cause.weight <= 1
    assert [c.start for c in causes] == sorted(c.start for c in causes)


def test_where_no_word_has_enough_weight_none_is_marked() -> None:
    words = [(0, 3, 0.2), (4, 9, 0.6), (10, 15, 0.49)]
    assert [c.text for c in choose("the storm broke", words, 0.5)] == ["storm"]
    assert choose("the storm broke", words, 0.7) == ()


def test_a_short_turn_has_at_most_three_marks(sem: EmbeddedSEM) -> None:
    texts = [
        "My best friend moved to another country last week and the flat feels so empty",
        "I failed my driving test today and everyone at home was waiting to celebrate",
        "My landlord kept the whole deposit for a scratch that was there before us",
    ]
    counts = [len(causes) for causes in sem.causes(texts)]
    assert all(count <= 3 for count in counts)
    assert sum(counts) >= 2


def test_a_later_turn_is_read_in_its_dialogue(sem: EmbeddedSEM) -> None:
    turns = [
        Turn("user", "I failed my driving test today. I had practised for months."),
        Turn("assistant", "Oh no, I am sorry. What happened?"),
        Turn("user", "I think I will book another test next month, and take it alone."),
    ]
    first = [label for label, _ in sem.read(turns).emotions[:3]]
    assert "impressed" not in first
    assert "disappointed" in first or "sad" in first or "ashamed" in first


def test_causes_lie_in_the_last_user_turn(sem: EmbeddedSEM) -> None:
    turns = [
        Turn("user", "My car broke down on the motorway."),
        Turn("assistant", "Oh no, did someone help you?"),
        Turn("user", "A kind stranger fixed the engine for free!"),
    ]
    for history in (turns, [*turns, Turn("assistant", "How lovely.")]):
        for cause in sem.read(history).causes:
            assert turns[2].content[cause.start : cause.end] == cause.text


def test_the_context_changes_the_reading(sem: EmbeddedSEM) -> None:
    last = Turn("user", "I still think about it every day.")
    question = Turn("assistant", "What happened?")
    glad = sem.read([Turn("user", "We got married on a beach in May."), question, last])
    sad = sem.read([Turn("user", "My father died in May."), question, last])
    assert glad.emotions[0][0] != sad.emotions[0][0]


def test_a_batch_reads_as_each_text_alone(sem: EmbeddedSEM) -> None:
    texts = ["I am scared of the dentist.", "He broke his promise, again.", LONG, "ok"]
    together = sem.read_many([user(text) for text in texts])
    for text, reading in zip(texts, together, strict=True):
        alone = dict(sem.read(user(text)).emotions)
        assert all(abs(alone[label] - value) < 0.02 for label, value in reading.emotions)


def test_a_stop_word_alone_has_no_cause(sem: EmbeddedSEM) -> None:
    assert sem.read(user("it was that")).causes == ()


def test_every_given_token_gets_a_weight(sem: EmbeddedSEM) -> None:
    tokens = ["My", "bike", "was", "stolen", ",", "", "😢"]
    weights = sem.read_words([tokens])[0][1]
    assert len(weights) == len(tokens)
    assert all(0 <= weight <= 1 for weight in weights)
    assert max(range(7), key=weights.__getitem__) in (1, 3)
    assert len(sem.read_words([LONG.split()])[0][1]) == len(LONG.split())


def test_a_dialogue_without_a_user_is_refused(sem: EmbeddedSEM) -> None:
    with pytest.raises(InvalidInput, match="no user's turn"):
        sem.read([Turn("assistant", "Hello!")])


def test_a_reading_survives_being_stored(sem: EmbeddedSEM) -> None:
    reading = sem.read(user("I lost my keys and missed the flight."))
    stored = json.loads(json.dumps({**reading.as_json(), "sem": reading.sem}))
    assert Reading.from_json(stored).emotions == reading.emotions
    assert Reading.from_json(stored).causes == reading.causes


def test_a_reading_names_its_sem_with_its_revision(sem: EmbeddedSEM) -> None:
    assert sem.read(user("Hello there")).sem == f"embedded@{sem.revision}"
    assert isinstance(load_sem(Settings()), SEM)


def test_matrices_are_stored_in_8_bits_and_read_back_within_their_step() -> None:
    torch = pytest.importorskip("torch")
    from empo_demo.empathy.encoder import SCALE, _packed, _unpacked

    torch.manual_seed(0)
    matrix, vector = torch.randn(100, 16) * torch.rand(100, 1), torch.randn(7)
    matrix[3] = 0
    packed = _packed({"m": matrix, "v": vector, "few": matrix[:32]})
    assert packed["m"].dtype is torch.int8 and packed[f"m{SCALE}"].shape == (100, 1)
    assert packed["v"].dtype is packed["few"].dtype is torch.float16
    found = _unpacked(packed)
    assert set(found) == {"m", "v", "few"}
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((found["m"] - matrix).abs() <= 0.51 * step + 1e-5).all()


def test_the_whole_model_has_at_most_30_megabytes() -> None:
    assert sum(file.stat().st_size for file in (ASSETS / "sem").iterdir()) <= 30_000_000


def test_no_file_is_too_large_for_the_hub_and_nothing_in_the_folder_is_code() -> None:
    files = list((ASSETS / "sem").iterdir())
    assert all(file.stat().st_size < 9_500_000 for file in files)
    assert {file.suffix for file in files} <= {".safetensors", ".json", ".md"}


def test_a_missing_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be loaded"):
        EmbeddedSEM(tmp_path)


def test_a_truncated_weight_file_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(ASSETS / "sem", tmp_path / "sem")
    shard = next((tmp_path / "sem").glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(EngineError, match="cannot be loaded") as caught:
        EmbeddedSEM(tmp_path / "sem")
    assert "\n" not in str(caught.value)
