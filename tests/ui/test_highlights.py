"""What people and models wrote is text, wherever it stands."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS, GROUPS
from empo_demo.empathy.feeling import Feeling, lexicon_feeling
from empo_demo.empathy.reading import Cause, Epitome, Level, Reading
from empo_demo.settings import ASSETS
from empo_demo.ui.drawing import highlights, panes, plots
from empo_demo.ui.examples import load_examples
from empo_demo.ui.texts import texts_of


@given(st.text(max_size=60), st.integers(0, 60), st.integers(0, 60))
def test_marking_never_lets_markup_through(text: str, start: int, end: int) -> None:
    cause = Cause(min(start, end), max(start, end), text[start:end], 0.9)
    markup = highlights.marked(text, [cause])
    stripped = markup.replace("<br>", "")
    stripped = re.sub(
        r'<mark class="cause w3" tabindex="0" data-why="[^"<>]*" '
        r'aria-description="[^"<>]*">|</mark>',
        "",
        stripped,
    )
    assert "<" not in stripped and ">" not in stripped


def test_the_mark_is_stronger_the_higher_the_weight() -> None:
    found = [highlights.marked("rain", [Cause(0, 4, "rain", w)]) for w in (0.1, 0.4, 0.9)]
    assert ["w1" in found[0], "w2" in found[1], "w3" in found[2]] == [True] * 3


def test_a_text_that_tells_no_emotion_is_given_none() -> None:
    share = 1 / len(EMOTIONS)
    causes = (Cause(0, 4, "asdf", 0.6),)
    reading = Reading(tuple((e, share) for e in EMOTIONS), causes, "s@1", 0.0, None, EMOTIONS[:20])
    spoken = highlights.thread(Dialogue().plus("user", "asdf"), [reading], [None])
    assert "<mark" not in spoken
    for language, words in (("en", "too little to tell"), ("de", "zu wenig")):
        markup = highlights.heard(reading, texts_of(language)).split("<details>")[0]
        assert words in markup
        assert "asdf" not in markup
        assert "afraid" not in markup and "ängstlich" not in markup
        assert not any(sign in markup for sign in highlights.SIGNS.values())


def test_panes_and_messages_escape() -> None:
    told = panes.Told("<b>x", "<b>y")
    for markup in (
        panes.pane("a", "<b>x", "<b>x", told=told, feeling=lexicon_feeling("<b>x")),
        highlights.message("<b>x", error=True),
    ):
        assert "<b>x" not in markup and "&lt;b&gt;x" in markup


def test_every_group_has_a_sign_a_colour_in_both_themes_and_enough_contrast() -> None:
    style = (ASSETS / "page" / "style.css").read_text(encoding="utf8")
    light, dark = style.split(".dark {", 1)
    for group in GROUPS:
        assert highlights.SIGNS[group]
        assert _contrast(_colour(light, group), "#fffdfb") >= 4.5, group
        assert _contrast(_colour(dark, group), "#251c24") >= 4.5, group


SAY = texts_of("en")


def _series(turns: list[str], replies: dict[Any, str]) -> plots.Series:
    dialogue = Dialogue()
    for place, text in enumerate(turns):
        dialogue = dialogue.plus("assistant" if place % 2 else "user", text)
    felt = {side: lexicon_feeling(text) for side, text in replies.items()}
    return plots.series(dialogue, [lexicon_feeling(text) for text in turns], replies, felt)


def _felt(valence: float, spread: float | None = 0.1) -> Feeling:
    return Feeling(valence, spread, None, "sem")


def test_replies_are_compared_when_both_are_finished_and_their_intervals_part() -> None:
    dialogue = Dialogue().plus("user", "I failed and I feel terrible.")
    replies: dict[Any, str] = {"a": "What a day!", "b": "That is sad."}

    def sentence(a: float, b: float, *, finished: bool = True) -> str:
        sides: dict[Any, Feeling] = {"a": _felt(a), "b": _felt(b)}
        data = plots.series(dialogue, [_felt(-0.4)], replies, sides, finished=finished)
        return plots.valence_sentence(data, SAY)

    assert sentence(0.3, -0.2) == "A’s words are brighter, B’s darker."
    assert sentence(-0.2, 0.3) == "B’s words are brighter, A’s darker."
    assert "Neither" in sentence(0.1, 0.0), "the intervals overlap"
    assert sentence(0.3, -0.2, finished=False) == "Your words sound bad."


def test_a_valence_within_its_spread_is_called_neutral() -> None:
    dialogue = Dialogue().plus("user", "The bus left.")
    for spread, word in ((0.1, "bad"), (0.4, "neutral")):
        data = plots.series(dialogue, [_felt(-0.3, spread)], {}, {})
        assert plots.valence_sentence(data, SAY) == f"Your words sound {word}."


def test_the_plot_draws_each_spread_and_nothing_where_nothing_was_read() -> None:
    dialogue = Dialogue().plus("user", "I failed.")
    replies: dict[Any, str] = {"a": "Oh no!", "b": "Why?"}
    data = plots.series(dialogue, [_felt(-0.4)], replies, {"a": _felt(0.1), "b": _felt(0.2)})
    markup = plots.plots(data, SAY)
    assert markup.count('<line class="spread') == 3
    assert markup.count('class="side-a"') >= 2 and 'class="people"' in markup
    unread = plots.series(dialogue, [None], replies, {}, finished=True)
    markup = plots.plots(unread, SAY)
    assert "Nothing was read in your words" in markup
    assert "spread" not in markup and "brighter" not in markup and "<circle" not in markup


def test_the_dots_stand_under_details_and_warmth_has_its_error() -> None:
    level = Level.of((0.2, 0.5, 0.3))
    levels = Epitome(level, level, level)
    markup = panes.pane("a", "I am sorry.", told=panes.Told("A", levels=levels))
    pane, details = markup.split('<details class="means">')
    assert "●" not in pane and details.count("●○") == 3
    assert "which means it uses, not whether it fits" in details.lower()
    assert 'class="error"' in pane and "warmth 1.1 of 2, plus or minus 0.7" in pane
    assert "<details" not in panes.pane("a", "I am sorry.", told=panes.Told("A"))


def test_the_plot_says_who_read_the_valence() -> None:
    read, counted = Feeling(0.2, 0.1, 0.0, "sem"), lexicon_feeling("Great.")
    dialogue = Dialogue().plus("user", "I passed.")
    for turn, reply, source in (
        (read, read, "valence.sem"),
        (counted, counted, "valence.vader"),
        (read, counted, "valence.vader"),
    ):
        data = plots.series(dialogue, [turn], {"a": "Great."}, {"a": reply})
        markup = plots.plots(data, SAY)
        told = {key for key in ("valence.sem", "valence.vader") if SAY(key) in markup}
        assert told == {source}


def test_from_the_second_reply_on_new_words_stand_beside_peoples() -> None:
    turns = ["I lost my keys.", "Oh no, that is bad.", "They were new."]
    same = "Oh no, that is bad. " * 3
    data = _series(turns, {"a": same, "b": "Where did you look for them so far this morning?"})
    assert data.shares["a"] < 0.5 < data.shares["b"]
    assert "A brings fewer new words than people do" in plots.new_words_sentence(data, SAY)
    assert 'class="people"' in plots.plots(data, SAY)
    both = _series(turns, {"a": same, "b": same})
    assert plots.new_words_sentence(both, SAY) == "Both bring fewer new words than people do."


def test_no_side_is_charged_with_words_that_another_model_wrote() -> None:
    """A reply that repeats nothing is all new, however much the dialogue before it repeats."""
    turns = ["no no no", "no no no no no no", "no no"]
    data = _series(turns, {"a": "What happened then?", "b": "no what"})
    assert data.shares == {"a": 1.0, "b": 0.5} and data.words == 11


def test_what_the_person_said_is_no_new_word_of_a_reply() -> None:
    data = _series(["My dog died.", "Oh.", "Yes."], {"a": "My dog died. Oh. Yes.", "b": ""})
    assert data.shares == {"a": 0.0}, "a reply without a word has no share"


def test_no_line_joins_replies_of_different_turns() -> None:
    turns = ["I failed.", "Oh no.", "Again.", "How sad.", "It was awful."]
    markup = plots.plots(_series(turns, {"a": "Great!", "b": "Terrible."}), SAY)
    lines = re.findall(r'<polyline class="([\w-]+)" points="([^"]+)"', markup)
    person = next(points.split() for kind, points in lines if kind == "you")
    assert len(person) == 3
    answers = [(kind, points.split()) for kind, points in lines if kind != "you"]
    assert [kind for kind, _ in answers] == ["reply", "reply", "side-a", "side-b"]
    for kind, (start, _) in answers:
        assert start in person, f"the line of {kind} begins at a turn of the person"
    assert answers[2][1][0] == answers[3][1][0] == person[-1]


def test_words_that_moved_the_valence_are_marked_in_both_directions() -> None:
    text = "A wonderful day, then an awful night."
    markup = highlights.marked(text, [], lexicon_feeling(text))
    assert '<span class="push up">wonderful</span>' in markup
    assert '<span class="push down">awful</span>' in markup
    assert re.sub("<[^>]*>", "", markup) == text


def test_only_words_that_the_other_side_lacks_are_marked_after_the_vote() -> None:
    text = "I am so sorry about your father."
    before = panes.pane("a", text)
    after = panes.pane("a", text, told=panes.Told("Aligned", "I am so glad."))
    assert "only" not in before and "words" not in before
    assert '<span class="only">sorry</span>' in after and ">so</span>" not in after
    forgot = panes.pane("a", "Nice surprise! What did you get her.", told=panes.Told("A", ""))
    assert "asks a question" in forgot
    assert "7 words" in after and "asks nothing" in after and "Aligned" in after


def test_there_are_at_least_twelve_examples_over_different_emotions() -> None:
    examples = load_examples()
    assert len(examples) >= 12 and len({e.emotion for e in examples}) >= 12
    assert any(e.before.turns for e in examples)


def _colour(style: str, group: str) -> str:
    return style.split(f"--{group}: ")[1][:7]


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1 contrast ratio of two #rrggbb colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_where_nothing_was_read_no_empty_picture_stands() -> None:
    drawn = plots.plots(plots.Series((("user", None),)), SAY)
    assert "Nothing was read" in drawn and "<svg" not in drawn and "legend" not in drawn
