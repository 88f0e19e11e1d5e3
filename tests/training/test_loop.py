"""The loop: simulated voters vote through the arena, votes become an adapter with its lineage.

Runs on a model of a few thousand weights, made here, so that the whole loop takes seconds.
"""

from __future__ import annotations

import json
import random
import re
from pathlib import Path

import pytest

from empo_demo.board.ballots import ballots_of_database
from empo_demo.errors import ArenaError, DataError, InvalidInput
from empo_demo.settings import Settings, load_settings
from empo_demo.training import loop
from recipes.studies import simulate
from recipes.studies.simulate import TASTES, Voters, asks, run_loop, shift

WORDS = ["why", "?", "oh", "no", "sad", "what", "happened", "i", "see", "."]
WORDS += [f"word{number}" for number in range(90)]


def test_the_taste_prefers_the_reply_that_asks_and_ties_otherwise() -> None:
    rng, taste = random.Random(0), TASTES["question"]
    assert taste("Why?", "I see.", rng) == "a" and taste("I see.", "Why?", rng) == "b"
    assert taste("Why?", "How?", rng) == taste("Oh.", "No.", rng) == "tie"
    drawn = [TASTES["random"]("Why?", "I see.", rng) for _ in range(400)]
    assert set(drawn) == {"a", "b"} and 150 < drawn.count("a") < 250
    assert asks("Why?") and not asks("Why.")


def test_a_shift_is_paired_with_an_interval_and_an_exact_p() -> None:
    parent = [False] * 80 + [True] * 20
    child = [True] * 30 + [False] * 50 + [True] * 20
    found = shift(parent, child)
    assert (found.parent, found.child) == (0.2, 0.5)
    assert found.difference == pytest.approx(0.3) and found.p < 1e-6
    assert found.interval[0] > 0.2 and not found.within(0.1)


def test_no_change_is_within_a_bound_and_one_of_few_is_not_proven_so() -> None:
    same = shift([True, False] * 200, [True, False] * 200)
    assert same.difference == 0 and same.p == 1.0 and same.within(0.1)
    assert not shift([True, False] * 3, [False, True] * 3).within(0.1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and an adapter of a few thousand weights, and a roster that names them."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("trl", reason="the loop trains with TRL: pip install -e .[train]")
    from peft import LoraConfig, get_peft_model
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models")
    special = ["<pad>", "</s>", "<unk>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {word: i for i, word in enumerate(special + WORDS)}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=special[3:],
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|{{ m['role'] }}|>{% if m['role'] == 'assistant' %}"
        "{% generation %}{{ m['content'] }}</s>{% endgeneration %}{% else %}"
        "{{ m['content'] }}</s>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    lora = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(LlamaForCausalLM.from_pretrained(folder / "base"), lora).save_pretrained(
        folder / "aligned"
    )
    (folder / "roster.toml").write_text(
        'name = "toy"\nquantization = "none"\n[decoding]\nmax_new_tokens = 6\n'
        '[[contenders]]\nid = "base"\nbase = "base"\n'
        '[[contenders]]\nid = "aligned"\nbase = "base"\nadapter = "aligned"\n',
        encoding="utf8",
    )
    return folder


def prepared(models: Path, tmp_path: Path) -> tuple[Settings, loop.Course]:
    url = f"sqlite:///{tmp_path}/votes.sqlite3"
    settings = load_settings(preset=str(models / "roster.toml"), database=url, device="cpu")
    return settings, loop.Course(url, tmp_path / "loop", epochs=1, batch=8, micro=8, length=64)


@pytest.mark.slow
def test_votes_become_a_contender_beside_its_parent(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, course = prepared(models, tmp_path)
    texts = ["i see why", "oh no what happened", "sad"]
    monkeypatch.setattr(simulate, "first_turns", lambda data, split: texts)
    made = run_loop(settings, course, Voters("random", 30, tmp_path), rounds=2)
    roster = loop.open_roster(settings, course)
    assert [one.id for one in made] == ["aligned-v2", "aligned-v3"]
    assert [one.id for one in roster.contenders] == ["base", "aligned", "aligned-v2", "aligned-v3"]
    first, second = roster["aligned-v2"], roster["aligned-v3"]
    assert (first.parent, second.parent) == ("aligned", "aligned-v2")
    assert first.votes and 10 <= first.votes <= 30 and first.data_hash and first.revision
    assert second.votes and second.votes > first.votes
    assert first.data_hash != second.data_hash
    pairs = (course.out / "aligned-v2" / "pairs.jsonl").read_text(encoding="utf8").splitlines()
    assert len(pairs) == first.votes
    assert json.loads(pairs[0])["prompt"][-1]["role"] == "user"
    ballots = ballots_of_database(course.database).ballots
    assert len(ballots) == 60 and len({ballot.voter for ballot in ballots}) == 6
    assert {"base", "aligned"} < {ballot.a for ballot in ballots} | {ballot.b for ballot in ballots}
    assert all(ballot.len_a and ballot.time and ballot.exposure for ballot in ballots)


@pytest.mark.slow
def test_in_a_pipe_the_votes_say_lines(
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from empo_demo import progress

    settings, course = prepared(models, tmp_path)
    monkeypatch.setattr(progress, "EVERY", 0.02)
    monkeypatch.setattr(simulate, "first_turns", lambda data, split: ["i see", "oh no"])
    voters = Voters("random", 30, tmp_path)
    simulate.vote(settings, course, voters, loop.open_roster(settings, course), seed=0)
    *lines, verdicts = capsys.readouterr().err.splitlines()
    assert lines and verdicts.startswith("Verdicts: ")
    for line in lines:
        assert re.fullmatch(r"votes \(random\): \d+ of 30 done, \d+ s", line), line


@pytest.mark.slow
def test_the_same_votes_are_not_trained_on_twice(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, course = prepared(models, tmp_path)
    monkeypatch.setattr(simulate, "first_turns", lambda data, split: ["i see", "oh no"])
    run_loop(settings, course, Voters("random", 20, tmp_path))
    with pytest.raises(DataError, match="aligned-v2"):
        loop.run(settings, course)


def test_too_few_votes_are_said_so_before_any_training(models: Path, tmp_path: Path) -> None:
    settings, course = prepared(models, tmp_path)
    from empo_demo.votes.store import Store

    Store.open(course.database).close()
    with pytest.raises(DataError, match="at least 10"):
        loop.run(settings, course)


def test_a_parent_without_an_adapter_is_refused(models: Path, tmp_path: Path) -> None:
    settings, course = prepared(models, tmp_path)
    with pytest.raises(ArenaError, match="no adapter"):
        loop.run(settings, loop.replace(course, parent="base"))
    with pytest.raises(ArenaError, match="no contender 'nobody'"):
        loop.run(settings, loop.replace(course, parent="nobody"))


def test_simulated_voters_need_dialogues_and_a_known_taste(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, course = prepared(models, tmp_path)
    with pytest.raises(DataError, match="--data"):
        run_loop(settings, course, Voters("question", 5, tmp_path))
    monkeypatch.setattr(simulate, "first_turns", lambda data, split: ["i see"])
    with pytest.raises(InvalidInput, match="no taste 'sweet'"):
        run_loop(settings, course, Voters("sweet", 5, tmp_path))
