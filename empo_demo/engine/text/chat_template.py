"""Chat messages to token ids, by a tokenizer's template. No text of a person can open a turn.

Only the template's own tags become control tokens. In a message, a space breaks such tags before
the template is applied. The text that people see is never changed.

A template is tried once with marked texts: it may lose a system or a user text without a word, take
content only in parts, raise, or ask the model to think. The trial finds a form in which every text
is kept, or refuses.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

from jinja2 import Environment, TemplateError
from jinja2.meta import find_undeclared_variables

from empo_demo.dialogue import Message
from empo_demo.engine.text.marks import Headers, defuse, is_mark, is_tag, opens_thought
from empo_demo.errors import EngineError, first_line
from empo_demo.files import why_not

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SYSTEM, _FIRST, _REPLY, _SECOND = "zqsystemqz", "zqfirstqz", "zqreplyqz", "zqsecondqz"
_LONG: tuple[Message, ...] = (
    {"role": "system", "content": _SYSTEM},
    {"role": "user", "content": _FIRST},
    {"role": "assistant", "content": _REPLY},
    {"role": "user", "content": _SECOND},
)
_LONGEST: tuple[Message, ...] = (
    {"role": "system", "content": _SYSTEM},
    *(
        {"role": role, "content": f"zq{role}{number}qz {'and so on ' * 500}zqend{number}qz"}
        for number in range(6)
        for role in ("user", "assistant")
    ),
    {"role": "user", "content": _SECOND},
)
"""More and longer turns than most dialogues have: some templates keep the last ones only."""
_NO_SYSTEM: Message = {"role": "system", "content": ""}
_HELP = (
    "save a template that writes the system, user and assistant texts, or serve the model on a "
    "server (EMPO_ENGINE)"
)
_SWITCH = re.compile(
    r"(?:(?:enable|use|with|is|do)_)?(?:thinking|think|reasoning)(?:_enabled|_on)?"
)
_BUDGET = re.compile(r"(thinking|reasoning)_budget")
_EFFORT = re.compile(r"(thinking|reasoning)_effort")
_LOOPS = ("jinja2.ext.loopcontrols",)
_LEAST = ("none", "no_think", "minimal", "low")
"""The words for the least effort, the least first; a template names those that it knows."""


@dataclass(frozen=True)
class Form:
    """How messages are given to a template: as texts or parts, the system text kept or folded."""

    parts: bool = False
    fold: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    lead: bool = False
    """Whether a dialogue without a system text gets an empty one, as the template demands one."""

    def render(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
        """The prompt of `messages`, up to the opening of the assistant's turn."""
        given: list[dict[str, Any]] = list(self.given(messages))
        if self.parts:
            given = [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in given]
        return str(
            tokenizer.apply_chat_template(
                given, tokenize=False, add_generation_prompt=True, **dict(self.options)
            )
        )

    def given(self, messages: Sequence[Message]) -> list[Message]:
        """`messages` with the system text where the template keeps it."""
        given = fold_system(messages) if self.fold else list(messages)
        return [dict(_NO_SYSTEM), *given] if self.lead and given[0]["role"] != "system" else given

    def takes(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> bool:
        """Whether `messages` are rendered, and none of their texts is lost."""
        try:
            text = self.render(tokenizer, messages)
        except Exception:  # a template's code may raise anything
            return False
        return not _missing(text, messages)


@dataclass(frozen=True)
class ChatTemplate:
    """A template in the form that keeps every text.

    `tokens` are the control tokens that no typed text may hold, `control` their ids, and `headers`
    the plain texts that open a turn. `ends` are the ids of the tokens that end a reply, `stops`
    the texts that end it.
    """

    form: Form
    tokens: tuple[str, ...]
    control: frozenset[int]
    headers: Headers
    ends: frozenset[int]
    stops: tuple[str, ...]

    def prompt(self, tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> str:
        """The text that the model reads. Raises `EngineError` if the template refuses it."""
        safe = [{**m, "content": self.safe(tokenizer, m["content"])} for m in messages]
        try:
            return self.form.render(tokenizer, safe)
        except Exception as error:
            # A template's code may raise anything, for a dialogue of a shape that was not tried.
            with suppress(Exception):
                return self.form.render(tokenizer, fold_system(safe))
            raise _refusal(tokenizer, first_line(error)) from None

    def safe(self, tokenizer: PreTrainedTokenizerBase, text: str) -> str:
        """`text` such that it opens and ends no turn. Its words stay, and it reads the same."""
        text = self.headers.broken(defuse(text, self.tokens))
        for harder in (" \\g<0> ", " "):
            if not self._holds_token(tokenizer, text):
                break
            # The tokenizer reads a token in other characters, such as full-width ones.
            text = re.sub(r"[^\w\s]|[▁_]", harder, text)
        return text

    def _holds_token(self, tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
        if re.fullmatch(r"[\w\s.,;:!?'\"()-]*", text):
            return False
        return not self.control.isdisjoint(_ids(tokenizer, text))


_tried: WeakKeyDictionary[PreTrainedTokenizerBase, tuple[str, ChatTemplate]] = WeakKeyDictionary()


def template_of(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    """The tokenizer's template, tried once; `EngineError` in one sentence if it cannot be used."""
    source = str(tokenizer.chat_template)
    known = _tried.get(tokenizer)
    if known is None or known[0] != source:
        known = _tried[tokenizer] = source, _trial(tokenizer)
    return known[1]


def check_without_system(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a template that cannot render a dialogue which begins with the user's turn."""
    if not template_of(tokenizer).form.takes(tokenizer, _LONG[1:]):
        name = tokenizer.name_or_path
        raise EngineError(
            f"The chat template of {name} demands a system text, and these contenders have none; "
            "give one as system_prompt in the preset or as EMPO_SYSTEM_PROMPT."
        )


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """For templates without a system role: the system text goes before the first user turn."""
    if len(messages) < 2 or messages[0]["role"] != "system":
        return list(messages)
    first = {**messages[1], "content": f"{messages[0]['content']}\n\n{messages[1]['content']}"}
    return [first, *messages[2:]]


def _trial(tokenizer: PreTrainedTokenizerBase) -> ChatTemplate:
    try:
        source = tokenizer.get_chat_template()
    except ValueError as error:
        raise _refusal(tokenizer, first_line(error)) from None
    form = _keeping_form(tokenizer, source)
    frames = _frames(tokenizer, form)
    if not all(frame.strip() for frame in frames[-3:-1]):
        raise _refusal(tokenizer, "it writes nothing between the turns")
    tokens = _control_tokens(tokenizer, source, frames)
    for frame in frames[-3:-1]:
        if defuse(frame, tokens) == frame and not Headers.between([frame], list(tokens)).patterns:
            raise _refusal(tokenizer, f"a typed {frame.strip()!r} would open a turn in it")
    headers = Headers.between(frames, list(tokens))
    # Marks of thoughts and channels are not ends: the reply goes on after them.
    channels = "<|channel|>" in tokens
    ends = {i for token, i in tokens.items() if not is_mark(token, channels=channels)}
    return ChatTemplate(
        form,
        tuple(tokens),
        frozenset(tokens.values()),
        headers,
        frozenset(ends),
        _stops(tokens, frames, headers),
    )


def _control_tokens(
    tokenizer: PreTrainedTokenizerBase, source: str, frames: Sequence[str]
) -> dict[str, int]:
    """The tokens that no typed text may hold: those that the template writes, and special tags.

    A special token that is a word of the language is none of them, unless the template writes it
    around the turns: a padding token may be `!`.
    """
    added = {t.content: (i, t.special) for i, t in tokenizer.added_tokens_decoder.items()}
    for token, i in zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True):
        added[token] = i, True
    written = "\0".join([source, *frames])
    around = {i for frame in frames[-3:] for i in _ids(tokenizer, frame)}
    return {
        token: i
        for token, (i, special) in added.items()
        if (is_tag(token) and (special or token in written))
        or (i in around and token.strip(" \n\t▁"))
    }


def _keeping_form(tokenizer: PreTrainedTokenizerBase, source: str) -> Form:
    """The first form that keeps every text. Raises with the template's own words, or what it loses.

    Texts are tried before parts, without thinking before with it, and with a system role before
    without one.
    """
    quiet = tuple(_without_thinking(source).items())
    said, lost = "", ""
    for parts, options, fold in itertools.product(
        (False, True), dict.fromkeys((quiet, ())), (False, True)
    ):
        form = Form(parts, fold, options)
        try:
            for messages in (_LONG, _LONG[:2], _LONGEST):
                text = form.render(tokenizer, messages)
                if missing := _missing(text, messages):
                    where = " of a long dialogue" if messages is _LONGEST else ""
                    lost = lost or f"it leaves out the {missing[-1]}'s text{where}"
                    break
            else:
                return _leading(tokenizer, form)
        except Exception as error:  # a template's code may raise anything
            said = said or first_line(error)
    raise _refusal(tokenizer, lost or said)


def _leading(tokenizer: PreTrainedTokenizerBase, form: Form) -> Form:
    """`form`, with an empty system text where the template demands one."""
    lead = Form(form.parts, form.fold, form.options, lead=True)
    without = _LONG[1:]
    return lead if not form.takes(tokenizer, without) and lead.takes(tokenizer, without) else form


def _without_thinking(source: str) -> dict[str, Any]:
    """The options by which this template asks for no thinking, or for the least."""
    plain = re.sub(r"{%-?\s*(?:end)?generation\s*-?%}", "", source)  # transformers' own tag
    try:
        names = sorted(find_undeclared_variables(Environment(extensions=_LOOPS).parse(plain)))
    except TemplateError:
        return {}  # it cannot be rendered either, which says why
    least = next((word for word in _LEAST if re.search(rf"['\"]{word}['\"]", source)), "low")
    options: dict[str, Any] = {name: False for name in names if _SWITCH.fullmatch(name)}
    options |= {name: 0 for name in names if _BUDGET.fullmatch(name)}
    return options | {name: least for name in names if _EFFORT.fullmatch(name)}


def _frames(tokenizer: PreTrainedTokenizerBase, form: Form) -> tuple[str, ...]:
    """What the template writes around the turns.

    The last three are: user to assistant, assistant to user, and the opening of the reply. Before
    them come the last line before the system text, and what stands between it and the user's.
    There is nothing if the template writes the turns in another order.
    """
    head = list(_around(form.render(tokenizer, _LONG[:2]), _LONG[:2]))
    frames = [re.split(r"(?=\n)", head[0])[-1], head[1]] if head else []
    turns = _LONG[1:] if form.takes(tokenizer, _LONG[1:]) else _LONG
    return (*frames, *list(_around(form.render(tokenizer, turns), turns))[-3:])


def _around(text: str, messages: Sequence[Message]) -> Iterator[str]:
    """The texts before, between and after the contents of `messages`; nothing if out of order."""
    pattern = "(.*)".join(re.escape(m["content"]) for m in messages)
    match = re.fullmatch(f"(.*?){pattern}(.*)", text, re.DOTALL | re.IGNORECASE)
    yield from match.groups() if match else ()


def _stops(tokens: Iterable[str], frames: Sequence[str], headers: Headers) -> tuple[str, ...]:
    """The plain text that opens the user's turn: a model that writes it invents that turn."""
    if len(frames) < 3:
        return ()
    before = frames[-2]
    for token in tokens:
        before = before.rpartition(token)[2] if token in before else before
    tag = before.strip().rpartition("\n")[2].strip()
    if re.fullmatch(r"[<\[].{1,30}[>\]]", tag):
        return (tag,)
    return (f"\n{tag}",) if tag in headers.line_starts and not tag.isalnum() else ()


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def _missing(text: str, messages: Sequence[Message]) -> list[str]:
    """The roles whose marks are not in `text`. A template may write them in capitals."""
    return [m["role"] for m in messages if m["content"] not in text.lower()]


def _refusal(tokenizer: PreTrainedTokenizerBase, words: str) -> EngineError:
    name, words = tokenizer.name_or_path, words.rstrip(".")
    return EngineError(f"The chat template of {name} cannot be used: {words}; {_HELP}.")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except Exception as error:
        # The libraries raise many kinds of errors for faulty files.
        said = why_not(error, name)
        raise EngineError(f"The tokenizer of {name} cannot be loaded: {said}") from None
    if tokenizer.chat_template is None:
        raise EngineError(
            f"The tokenizer of {name} has no chat template; use a chat model, or save a template."
        )
    return tokenizer


STRIDE = 4


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads. `opened`: whether the reply begins inside a thought."""

    ids: list[int]
    opened: bool


def read_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], dropped: int = 0
) -> Prompt:
    """`messages` without the first `dropped` exchanges, and the opening of the assistant's turn."""
    text = template_of(tokenizer).prompt(tokenizer, _without(messages, dropped))
    # The engine shortens or refuses prompts that are too long, so no warning is needed.
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return Prompt([int(token) for token in cast("list[int]", ids)], opens_thought(text))


def encode_chat(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], dropped: int = 0
) -> list[int]:
    """The token ids of `read_chat`."""
    return read_chat(tokenizer, messages, dropped).ids


def dropped_exchanges(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], limit: int
) -> int:
    """How many of the oldest exchanges to leave out so that the prompt has at most `limit` tokens.

    They are left out STRIDE at a time where that is enough. So for some turns a long dialogue
    begins with the same tokens, and the kept prefix is used again.
    """
    head = _has_system(messages)
    exchanges = (len(messages) - head - 1) // 2
    strides = range(0, exchanges, STRIDE)
    after = strides[-1] + 1 if strides else 0
    for dropped in itertools.chain(strides, range(after, exchanges)):
        if len(encode_chat(tokenizer, messages, dropped)) <= limit:
            return dropped
    return max(0, exchanges)


def _without(messages: Sequence[Message], dropped: int) -> list[Message]:
    head = _has_system(messages)
    return [*messages[:head], *messages[head + 2 * dropped :]]


def _has_system(messages: Sequence[Message]) -> int:
    return int(bool(messages) and messages[0]["role"] == "system")
