"""The lockstep engine answers as each model would alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from empo_demo.engine.lockstep.local import LocalEngine
from empo_demo.engine.protocol import Decoding, Delta, Event, Failed, Finished, Request
from empo_demo.engine.text.chat_template import encode_chat
from empo_demo.errors import EngineError, InvalidInput

GREEDY = Decoding(temperature=0, top_p=1, repetition_penalty=1.0, max_new_tokens=24)
SAMPLED = Decoding(temperature=0.9, top_p=0.9, repetition_penalty=1.1, max_new_tokens=24)
SAD = ({"role": "user", "content": "I failed my driving test again, in front of my father."},)
GLAD = ({"role": "user", "content": "We are getting a puppy!"},)


def ask(side: str, contender: str, messages: Any = SAD, **options: Any) -> Request:
    return Request(side, contender, messages, **{"decoding": GREEDY, **options})


def texts(events: Sequence[Event]) -> dict[str, str]:
    return {event.side: event.text for event in events if isinstance(event, Finished)}


def play(engine: LocalEngine, *requests: Request) -> dict[str, str]:
    return texts(list(engine.stream(requests)))


def generate(
    base: Path, adapter: Path | None, messages: Any, decoding: Decoding, ends: list[int]
) -> str:
    """The reply of transformers' own `generate()`, greedy, in fp32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).eval()
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt = torch.tensor([encode_chat(tokenizer, messages)])
    out = model.generate(
        input_ids=prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=decoding.max_new_tokens,
        repetition_penalty=decoding.repetition_penalty,
        eos_token_id=ends,
        pad_token_id=0,
    )
    text = tokenizer.decode(out[0, prompt.shape[1] :], skip_special_tokens=True)
    return str(text).strip().rstrip("\ufffd")


@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_the_pair_equals_two_generate_calls_token_for_token(
    exact_engine: LocalEngine, tiny_folder: Path, adapter_folder: Path, penalty: float
) -> None:
    decoding = Decoding(temperature=0, top_p=1, repetition_penalty=penalty, max_new_tokens=24)
    ends = sorted(exact_engine.model_of("base").ends)
    for messages in (SAD, GLAD, (*SAD, {"role": "assistant", "content": "Oh no."}, *GLAD)):
        pair = play(
            exact_engine,
            ask("a", "aligned", messages, decoding=decoding),
            ask("b", "base", messages, decoding=decoding),
        )
        alone = {
            "a": generate(tiny_folder, adapter_folder, messages, decoding, ends),
            "b": generate(tiny_folder, None, messages, decoding, ends),
        }
        assert {side: text.strip() for side, text in pair.items()} == alone
        assert alone["a"] != alone["b"]


def test_prompts_of_different_length_do_not_disturb_each_other(exact_engine: LocalEngine) -> None:
    guided = ({"role": "system", "content": "The user feels ashamed."}, *SAD)
    pair = play(exact_engine, ask("a", "base", guided), ask("b", "aligned", GLAD))
    assert pair["a"] == play(exact_engine, ask("a", "base", guided))["a"]
    assert pair["b"] == play(exact_engine, ask("b", "aligned", GLAD))["b"]


def test_a_rows_draw_depends_on_its_seed_alone(exact_engine: LocalEngine) -> None:
    one = ask("a", "aligned", decoding=SAMPLED, seed=7)
    alone = play(exact_engine, one)["a"]
    other = ask("b", "base", GLAD, decoding=Decoding(1.5, 1.0, 1.0, 40), seed=8)
    assert play(exact_engine, other, one)["a"] == alone
    assert play(exact_engine, ask("a", "aligned", decoding=SAMPLED, seed=9))["a"] != alone


def test_a_round_that_joins_a_running_one_changes_neither(exact_engine: LocalEngine) -> None:
    first = (ask("a", "base", decoding=SAMPLED, seed=1), ask("b", "aligned", seed=2))
    second = (ask("a", "aligned", GLAD, decoding=SAMPLED, seed=3), ask("b", "base", GLAD))
    expected = play(exact_engine, *first), play(exact_engine, *second)
    running = exact_engine.stream(first)
    seen = [next(running) for _ in range(5)]
    joined = texts(list(exact_engine.stream(second)))
    assert (texts([*seen, *running]), joined) == expected


def test_rounds_of_many_threads_are_each_as_if_alone(exact_engine: LocalEngine) -> None:
    jobs = [
        (ask("a", "base", decoding=SAMPLED, seed=n), ask("b", "aligned", GLAD, seed=n))
        for n in range(6)
    ]
    expected = [play(exact_engine, *job) for job in jobs]
    found: dict[int, dict[str, str]] = {}

    def work(n: int) -> None:
        found[n] = play(exact_engine, *jobs[n])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [found[n] for n in range(len(jobs))] == expected


def test_the_streamed_text_is_the_finished_text(exact_engine: LocalEngine) -> None:
    events = list(exact_engine.stream([ask("a", "aligned", decoding=SAMPLED, seed=5)]))
    streamed = "".join(event.text for event in events if isinstance(event, Delta))
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert streamed == end.text
    assert end.tokens <= SAMPLED.max_new_tokens and end.milliseconds > 0


def test_closing_the_stream_stops_within_one_token(exact_engine: LocalEngine) -> None:
    batch = exact_engine._batches[0]
    steps = []
    step = batch.step
    batch.step = lambda: (steps.append(1), step())[1]  # type: ignore[method-assign]
    try:
        long = Decoding(0.9, 1.0, 1.0, 200)
        stream = exact_engine.stream([ask("a", "base", decoding=long)])
        next(stream)
        before = len(steps)
        stream.close()
        assert len(steps) - before <= 1 and batch.rows == []
    finally:
        del batch.step
    assert play(exact_engine, ask("a", "base")) == play(exact_engine, ask("a", "base"))


def test_the_dial_at_zero_is_the_base_and_between_is_neither(exact_engine: LocalEngine) -> None:
    base = play(exact_engine, ask("a", "base"))["a"]
    full = play(exact_engine, ask("a", "aligned"))["a"]
    off = play(exact_engine, ask("a", "aligned", adapter_scale=0.0))["a"]
    pair = play(exact_engine, ask("a", "aligned"), ask("b", "aligned", adapter_scale=0.0))
    assert off == base and pair == {"a": full, "b": base} and full != base


def test_after_a_failure_the_next_round_is_right(exact_engine: LocalEngine) -> None:
    expected = play(exact_engine, ask("a", "base"), ask("b", "aligned"))
    model = exact_engine.model_of("base").model
    calls = []

    def broken(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise RuntimeError("CUDA error: device-side assert")
        return forward(*args, **kwargs)

    forward = model.forward
    model.forward = broken
    try:
        events = list(exact_engine.stream([ask("a", "base"), ask("b", "aligned")]))
    finally:
        model.forward = forward
    failed = [event for event in events if isinstance(event, Failed)]
    assert {event.side for event in failed} == {"a", "b"}
    assert all("CUDA" not in event.error for event in failed)
    assert play(exact_engine, ask("a", "base"), ask("b", "aligned")) == expected


def test_a_stop_string_ends_a_reply_before_it(exact_engine: LocalEngine) -> None:
    whole = play(exact_engine, ask("a", "base"))["a"]
    stop = whole[4:6]
    decoding = Decoding(0, 1, 1.0, 24, stop=(stop,))
    events = list(exact_engine.stream([ask("a", "base", decoding=decoding)]))
    (end,) = [event for event in events if isinstance(event, Finished)]
    assert end.reason == "stop" and end.text == whole[: whole.index(stop)]
    assert "".join(e.text for e in events if isinstance(e, Delta)) == end.text


@pytest.mark.slow
def test_nf4_pairs_equal_their_rows_alone(quantised_engine: LocalEngine) -> None:
    pair = play(quantised_engine, ask("a", "base"), ask("b", "aligned"))
    assert pair["a"] == play(quantised_engine, ask("a", "base"))["a"]
    assert pair["b"] == play(quantised_engine, ask("b", "aligned"))["b"]
    assert pair["a"] != pair["b"]


@pytest.mark.parametrize(
    "decoding", [Decoding(temperature=-1), Decoding(top_p=0), Decoding(max_new_tokens=0)]
)
def test_decoding_out_of_range_is_refused(exact_engine: LocalEngine, decoding: Decoding) -> None:
    with pytest.raises(InvalidInput, match="it may be"):
        exact_engine.stream([ask("a", "base", decoding=decoding)])


def test_an_unknown_contender_is_refused_by_name(exact_engine: LocalEngine) -> None:
    with pytest.raises(EngineError, match="'nobody' is not loaded; there are: base, aligned"):
        exact_engine.stream([ask("a", "nobody")])


def test_scores_are_the_log_probabilities_of_the_reply(exact_engine: LocalEngine) -> None:
    import torch

    weights = exact_engine.model_of("base")
    (short, tokens), (long, more) = exact_engine.score(
        "base", [(SAD, "Oh no."), (GLAD, "That is lovely to hear!")]
    )
    prompt = encode_chat(weights.tokenizer, SAD)
    reply = [*weights.tokenizer("Oh no.", add_special_tokens=False)["input_ids"], 1]
    weights.rows.clear()  # type: ignore[union-attr]
    with torch.inference_mode():
        logits = weights.model(torch.tensor([prompt + reply])).logits[0].log_softmax(-1)
    by_hand = sum(float(logits[len(prompt) - 1 + i, t]) for i, t in enumerate(reply))
    assert short == pytest.approx(by_hand, abs=1e-3) and tokens == len(reply)
    assert more > tokens and long < 0


def test_all_sides_leave_out_the_same_old_exchanges(exact_engine: LocalEngine) -> None:
    """A guided side's longer prompt may not make it see less of the dialogue than the other."""
    turns = tuple(
        {"role": "assistant" if i % 2 else "user", "content": f"this is turn {i}, my friend"}
        for i in range(15)
    )
    guided = ({"role": "system", "content": "The user feels ashamed. " * 3}, *turns)
    batch, prompts = exact_engine._batches[0], []
    prepare = batch.prepare

    def spy(*args: Any) -> Any:
        row = prepare(*args)
        prompts.append(batch.weights.tokenizer.decode(row.prompt))
        return row

    batch.prepare = spy  # type: ignore[method-assign]
    try:
        both = play(exact_engine, ask("a", "base", turns), ask("b", "aligned", guided))
    finally:
        del batch.prepare
    plain, longer = (p[p.index("this is turn") :] for p in prompts)
    assert plain == longer and "turn 14" in plain and "turn 0," not in plain
    assert set(both) == {"a", "b"}


def test_an_overlong_dialogue_shortens_no_other_of_its_batch(exact_engine: LocalEngine) -> None:
    """What is left out of a long dialogue is left out of its own round only."""
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.dialogue import Dialogue, Turn
    from empo_demo.evaluation.dialogues import Item
    from empo_demo.evaluation.generate import Generator

    def item(name: str, turns: int) -> Item:
        said = [
            Turn("assistant" if i % 2 else "user", f"{name}: this is turn {i}, my friend")
            for i in range(turns)
        ]
        return Item(name, Dialogue(tuple(said)), "", None)

    contender = Contender("base", "m")
    generator = Generator(exact_engine, Roster("test", (contender,), decoding=GREEDY), contender, 0)
    items = [item("short", 1), item("middle", 3), item("long", 39)]
    together = [reply for _, reply in generator.answer(items)]
    alone = [reply for one in items for _, reply in generator.answer([one])]
    assert together == alone and all(isinstance(reply, str) for reply in alone)


def test_what_is_left_out_of_a_long_dialogue_is_told_from_the_first_words_on(
    exact_engine: LocalEngine,
) -> None:
    turns = tuple(
        {"role": "assistant" if i % 2 else "user", "content": f"this is turn {i}, my friend"}
        for i in range(15)
    )
    guided = ({"role": "system", "content": "The user feels ashamed. " * 3}, *turns)
    events = list(
        exact_engine.stream(
            [
                ask("a", "base", turns, round="long"),
                ask("b", "aligned", guided, round="long"),
                ask("c", "base", round="short"),
            ]
        )
    )
    told: dict[str, set[int]] = {}
    for event in events:
        assert not isinstance(event, Failed)
        told.setdefault(event.side, set()).add(event.dropped)
    prompt = exact_engine.batch_of("base").prepare(ask("b", "base", guided), *told["b"]).prompt
    shown = exact_engine.batch_of("base").weights.tokenizer.decode(prompt)
    assert told["a"] == told["b"] and told["c"] == {0}
    (number,) = told["a"]
    assert number > 0 and f"turn {2 * number}," in shown and f"turn {2 * number - 1}," not in shown


def test_no_dialogue_of_the_shipped_figures_was_too_long(data_dir: Path) -> None:
    """All published replies are to ED's validation dialogues; none had to be shortened.

    HEF's guidance stands in the system message and takes at most some 150 tokens. The tiny pair has
    the shortest context of the shipped ones.
    """
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.engine.text.chat_template import load_tokenizer
    from empo_demo.evaluation.dialogues import read_items
    from empo_demo.settings import load_settings

    roster = load_roster(load_settings(preset="tiny"))
    tokenizer = load_tokenizer(roster.contenders[0].base)
    items = read_items(data_dir / "empathetic_dialogues.valid.jsonl.gz").items
    lengths = [
        len(encode_chat(tokenizer, item.context.messages(roster.system_prompt))) for item in items
    ]
    print(f"{len(items)} dialogues, longest prompt {max(lengths)} of 1024 tokens")
    assert len(items) == 2768 and max(lengths) + 400 + roster.decoding.max_new_tokens < 1024
