"""Prompt strategies: how a contender's messages are made from a dialogue and the SEM's reading.

To add one: write a class here, add it to `STRATEGIES`, test it in tests/contenders, and name it
in a TOML file of contenders. Nothing else lists strategies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from empo_demo.dialogue import Dialogue, Message
from empo_demo.empathy import hef
from empo_demo.engine.protocol import Decoding

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Reading

THINKING = Decoding(temperature=0.0, repetition_penalty=1.0, max_new_tokens=96)
"""The decoding of the first of two steps: greedy and short, because a parser reads it."""


class Setting(Protocol):
    """What a strategy must know of the roster of its contender."""

    @property
    def system_prompt(self) -> str: ...
    @property
    def compact_hints(self) -> bool: ...
    @property
    def hef_top_k(self) -> int: ...


class Strategic(Protocol):
    """An object with a strategy: a contender."""

    @property
    def strategy(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Prepared:
    """The prompt of one side. `messages` end with the user's turn.

    `guidance` is the text that the strategy added, or None. `think` are the messages of the first
    of two steps; the model's answer to them goes to `after_thinking`. `messages` also work without
    that step. `emotion` is the emotion that the guidance names first, and `source` says whether
    the SEM or the language model chose it.
    """

    messages: tuple[Message, ...]
    guidance: str | None = None
    think: tuple[Message, ...] | None = None
    emotion: str | None = None
    source: Literal["sem", "llm"] | None = None


class Plain:
    """Only the dialogue and the system prompt. It is the base class of the other strategies."""

    name = "plain"
    guided = False
    """Whether the prompt depends on the SEM's reading. Without a reading, or with one that
    abstains, a guided contender answers like a plain one, and its votes are counted separately."""

    def prepare(self, dialogue: Dialogue, reading: Reading | None, setting: Setting) -> Prepared:
        """The messages of one side, for one step or for two."""
        return Prepared(tuple(dialogue.messages(setting.system_prompt)))

    def after_thinking(
        self, dialogue: Dialogue, reading: Reading | None, setting: Setting, thought: str
    ) -> Prepared:
        """The messages of the second step. `thought` is the model's answer to `Prepared.think`."""
        return self.prepare(dialogue, reading, setting)

    def wording(self, *, tiny: bool) -> str:
        """Every text that the strategy may add. The revision of a contender depends on it."""
        return ""


class Hef(Plain):
    """HEF: the SEM's top k emotions and cause words as guidance in the system message."""

    name = "hef"
    guided = True

    def prepare(self, dialogue: Dialogue, reading: Reading | None, setting: Setting) -> Prepared:
        if reading is None or reading.abstains:
            return super().prepare(dialogue, reading, setting)
        guidance = hef.guidance(reading, setting.hef_top_k, tiny=setting.compact_hints)
        return _guided(dialogue, setting, guidance, hef.first_emotion(reading), "sem")

    def wording(self, *, tiny: bool) -> str:
        return hef.wording(tiny=tiny)


class HefTwoStep(Hef):
    """HEF in two steps: the model first decides on an emotion and its cause, then answers."""

    name = "hef-two-step"

    def prepare(self, dialogue: Dialogue, reading: Reading | None, setting: Setting) -> Prepared:
        one_step = super().prepare(dialogue, reading, setting)
        if reading is None or reading.abstains:
            return one_step
        think = hef.think_message(dialogue, reading, setting.hef_top_k)
        assert one_step.guidance is not None and one_step.emotion is not None
        return _guided(dialogue, setting, one_step.guidance, one_step.emotion, "sem", (think,))

    def after_thinking(
        self, dialogue: Dialogue, reading: Reading | None, setting: Setting, thought: str
    ) -> Prepared:
        """If the thought cannot be used, the SEM's own reading is used."""
        if reading is None or reading.abstains:
            return self.prepare(dialogue, reading, setting)
        last = dialogue.last_user_turn
        parsed = hef.parse_thought(thought, last.content if last else "")
        emotion, guidance = hef.guidance_after(parsed, reading, tiny=setting.compact_hints)
        return _guided(dialogue, setting, guidance, emotion, "llm" if parsed else "sem")

    def wording(self, *, tiny: bool) -> str:
        return hef.wording(tiny=tiny, two_step=True)


STRATEGIES: dict[str, Plain] = {one.name: one for one in (Plain(), Hef(), HefTwoStep())}


def prepare(
    contender: Strategic, dialogue: Dialogue, reading: Reading | None, setting: Setting
) -> Prepared:
    """The messages for `contender`: the dialogue, the system prompt, and its guidance if any."""
    return STRATEGIES[contender.strategy].prepare(dialogue, reading, setting)


def after_thinking(
    contender: Strategic,
    dialogue: Dialogue,
    reading: Reading | None,
    setting: Setting,
    thought: str,
) -> Prepared:
    """The messages for `contender` with the model's decision in `thought`."""
    return STRATEGIES[contender.strategy].after_thinking(dialogue, reading, setting, thought)


def is_guided(strategy: str) -> bool:
    """Whether the prompt depends on the SEM's reading; False for an unknown stored name."""
    known = STRATEGIES.get(strategy)
    return known is not None and known.guided


def _guided(
    dialogue: Dialogue,
    setting: Setting,
    guidance: str,
    emotion: str,
    source: Literal["sem", "llm"],
    think: tuple[Message, ...] | None = None,
) -> Prepared:
    system = f"{setting.system_prompt}\n\n{guidance}" if setting.system_prompt else guidance
    return Prepared(tuple(dialogue.messages(system)), guidance, think, emotion, source)
