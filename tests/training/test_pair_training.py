"""What the pair that everybody meets needs of `train sft` and `train dpo`, at a tiny scale."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from empo_demo.dialogue import Message
from empo_demo.errors import InvalidInput
from empo_demo.training.recipe import WITHIN, in_batches
from empo_demo.training.system_turn import drawn, read_hints, with_system
from empo_demo.training.watch import described
from tests.training.conftest import same, weights

pytest.importorskip("trl", reason="adapters are trained with TRL: pip install -e .[train]")

PROMPT = "You are a friendly listener."
SAID: list[Message] = [{"role": "user", "content": "I lost my keys again and I feel stupid"}]


# The order of the examples ----------------------------------------------------------------------


def test_batches_are_of_like_length_and_every_example_comes_once() -> None:
    lengths = [(7 * i) % 101 for i in range(500)]
    order = in_batches(lengths, 4, seed=1)
    assert sorted(order) == list(range(500))
    batches = [order[at : at + 4] for at in range(0, 500, 4)]
    spread = [max(lengths[i] for i in one) - min(lengths[i] for i in one) for one in batches]
    assert sum(spread) / len(spread) < 101 / WITHIN
    first = [lengths[one[0]] for one in batches[:WITHIN]]
    assert first != sorted(first) and first != sorted(first, reverse=True)


def test_the_order_depends_on_the_seed_and_on_nothing_else() -> None:
    lengths = list(range(100))
    assert in_batches(lengths, 8, seed=1) == in_batches(lengths, 8, seed=1)
    assert in_batches(lengths, 8, seed=1) != in_batches(lengths, 8, seed=2)


def test_more_examples_than_there_are_come_in_whole_passes() -> None:
    counts = Counter(in_batches([1, 2, 3], 2, wanted=8))
    assert sum(counts.values()) == 8 and min(counts.values()) >= 2
    assert len(in_batches(list(range(50)), 4, wanted=9)) == 9
    assert in_batches([], 4, wanted=9) == []


# The system turn --------------------------------------------------------------------------------


def test_a_hint_stands_below_the_prompt_as_where_it_is_served() -> None:
    plain, hinted = with_system(SAID, PROMPT), with_system(SAID, PROMPT, "The user feels sad.")
    assert plain[0] == {"role": "system", "content": PROMPT} and plain[1:] == SAID
    assert hinted[0]["content"] == f"{PROMPT}\n\nThe user feels sad."
    assert with_system(SAID, "") == SAID
    own = [{"role": "system", "content": "Mine."}, *SAID]
    assert with_system(own, PROMPT, "Hint.")[0]["content"] == "Mine.\n\nHint."
    assert len(with_system(own, PROMPT)) == 2


def test_the_hints_are_those_of_the_served_strategy() -> None:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.contenders.strategies import prepare
    from empo_demo.dialogue import Dialogue
    from empo_demo.empathy.sem import EmbeddedSEM

    dialogue = Dialogue().plus("user", SAID[0]["content"])
    roster = Roster("t", (), system_prompt=PROMPT, hints="compact")
    reading = EmbeddedSEM().read(dialogue.turns)
    served = prepare(Contender("c", "b", strategy="hef"), dialogue, reading, roster).messages
    assert list(served) == with_system(SAID, PROMPT, read_hints([SAID])[0])
    assert read_hints([]) == [] and read_hints([[{"role": "user", "content": " "}]]) == [""]


def test_the_share_of_hints_is_drawn_by_the_seed() -> None:
    assert sum(drawn(2000, 0.35, 0)) == pytest.approx(700, abs=70)
    assert drawn(50, 0.5, 1) == drawn(50, 0.5, 1) != drawn(50, 0.5, 2)
    assert not any(drawn(50, 0.0, 0)) and all(drawn(50, 1.0, 0))
    with pytest.raises(InvalidInput, match="--hints-share is 35"):
        drawn(3, 35, 0)


# The head ---------------------------------------------------------------------------------------


def test_the_head_gives_what_trls_own_gives(data: Path) -> None:
    """All figures, and the gradients, of a batch with an empty row and labels here and there."""
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from empo_demo.training.train import score_replies_only

    every = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")
    ids = torch.randint(3, 60, (3, 12), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[:, :5] = -100
    labels[2] = -100
    made: list[Any] = []
    for ours in (False, True):
        model = AutoModelForCausalLM.from_pretrained(data / "init", dtype=torch.float32)
        add_fused_lm_head(model, outputs=every)
        if ours:
            score_replies_only(model)
        found = model(input_ids=ids, labels=labels, fused_lm_head=True)
        found.loss.backward()
        made.append((found, [p.grad for p in model.parameters() if p.grad is not None]))
        assert model(input_ids=ids).logits.shape[:2] == ids.shape, "generation is as before"
    (theirs, their_slopes), (own, own_slopes) = made
    for name in ("loss", *every):
        close = torch.allclose(getattr(own, name).float(), getattr(theirs, name).float(), atol=1e-5)
        assert close, name
    inner = [t for t in their_slopes if t is not None]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(own_slopes, inner, strict=False))


def test_nothing_is_scored_without_a_label(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import AutoModelForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    from empo_demo.training import train

    model = AutoModelForCausalLM.from_pretrained(data / "init")
    add_fused_lm_head(model)
    train.score_replies_only(model)
    seen: list[int] = []
    figures = train._figures
    monkeypatch.setattr(
        train, "_figures", lambda logits, t: (seen.append(len(logits)), figures(logits, t))[1]
    )
    ids = torch.arange(3, 23).view(2, 10)
    labels = torch.full_like(ids, -100)
    labels[0, 7:] = ids[0, 7:]
    model(input_ids=ids, labels=labels, fused_lm_head=True)
    assert seen == [3]


# Whole trainings --------------------------------------------------------------------------------


SHARED: tuple[tuple[str, object], ...] = (
    ("--steps", 12),
    ("--batch", 4),
    ("--learning-rate", "1e-2"),
    ("--save-steps", 1),
    ("--system-prompt", PROMPT),
    ("--hints-share", 0.5),
    ("--length", 120),
)


def command_line(method: str, *options: tuple[str, object], more: tuple[object, ...]) -> list[str]:
    """A command line; of an option that is given twice, the last one counts."""
    words = [word for option in (*options, *SHARED) for word in option]
    return [str(word) for word in (method, *words, *more)]


def sft(data: Path, out: Path, *more: object) -> list[str]:
    options = (("--data", data), ("--base", data / "init"), ("-o", out), ("--schedule", "linear"))
    return command_line("sft", *options, more=more)


@pytest.fixture(scope="module")
def adapter(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pair") / "sft"
    trained(sft(data, out))
    return out


@pytest.fixture(scope="module")
def pairs(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from empo_demo.training import preferences

    out = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    preferences.from_dialogues(
        data, out, split="train", draws=2, seed=0, control="none", same_emotion=0.3, most=30
    )
    return out


def dpo(data: Path, adapter: Path, pairs: Path, out: Path, *more: object) -> list[str]:
    return command_line(
        "dpo",
        ("--pairs", pairs),
        ("--base", data / "init"),
        ("--init-adapter", adapter),
        ("-o", out),
        ("--sft-weight", 0.2),
        ("--valid", pairs),
        ("--valid-size", 6),
        ("--valid-steps", 6),
        more=more,
    )


def trained(arguments: list[str]) -> None:
    """Run `train …` in this process, because to import TRL takes longer than to train here."""
    from empo_demo.cli import main

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["empo_demo", "train", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code in (0, None)


def killed(arguments: list[str], out: Path) -> None:
    """Start a training, and kill it as its first checkpoint is whole."""
    process = subprocess.Popen(
        [sys.executable, "-m", "empo_demo", "train", *arguments], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 300
    while not any((out / "checkpoints").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline, "no checkpoint was written"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (out / "adapter_model.safetensors").exists(), "it ended before it was killed"


@pytest.mark.slow
def test_a_killed_sft_ends_as_if_it_had_not_been_killed(
    data: Path, adapter: Path, tmp_path: Path
) -> None:
    killed(sft(data, tmp_path), tmp_path)
    trained(sft(data, tmp_path))
    assert same(adapter, tmp_path)


@pytest.mark.slow
def test_a_killed_dpo_ends_as_if_it_had_not_been_killed(
    data: Path, adapter: Path, pairs: Path, tmp_path: Path
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trained(dpo(data, adapter, pairs, whole))
    killed(dpo(data, adapter, pairs, cut), cut)
    trained(dpo(data, adapter, pairs, cut))
    assert same(whole, cut)
    steps = [json.loads(line)["step"] for line in (cut / "log.jsonl").read_text().splitlines()]
    assert steps == sorted(steps), "what was logged after the checkpoint was logged twice"


@pytest.mark.slow
def test_an_adapter_is_small_and_names_its_base_and_no_place(data: Path, adapter: Path) -> None:
    import torch

    assert {tensor.dtype for tensor in weights(adapter).values()} == {torch.bfloat16}
    made = json.loads((adapter / "adapter_config.json").read_text())
    assert made["base_model_name_or_path"] == "init"
    everything = "".join(
        file.read_text() for file in adapter.iterdir() if file.suffix in (".json", ".md", ".jsonl")
    )
    assert str(data) not in everything
    card = (adapter / "README.md").read_text()
    assert PROMPT in card and "| share with hints | 0.5 |" in card and "| schedule | linear" in card


@pytest.mark.slow
def test_sft_goes_on_from_an_adapter(data: Path, adapter: Path, tmp_path: Path) -> None:
    still = sft(data, tmp_path / "still", "--init-adapter", adapter, "--learning-rate", 0)
    trained(still)
    assert same(adapter, tmp_path / "still")
    trained(sft(data, tmp_path / "on", "--init-adapter", adapter, "--steps", 2))
    assert not same(adapter, tmp_path / "on")


@pytest.mark.slow
def test_dpo_is_watched_on_pairs_it_does_not_train_on(
    data: Path, adapter: Path, pairs: Path, tmp_path: Path
) -> None:
    trained(dpo(data, adapter, pairs, tmp_path, "--valid-steps", 8))
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    seen = [line for line in log if "eval_rewards/accuracies" in line]
    assert [line["step"] for line in seen] == [0, 8, 12]
    assert seen[0]["eval_rewards/margins"] == pytest.approx(0, abs=1e-3), "the reference is itself"
    assert {"eval_logps/chosen", "eval_logps/rejected", "eval_loss"} <= seen[-1].keys()
    wrote = [line for line in log if "replies/words" in line]
    assert [line["step"] for line in wrote] == [0, 8, 12]
    assert {"replies/distinct_2", "replies/repetition"} <= wrote[-1].keys()


@pytest.mark.slow
def test_the_reference_is_computed_once_for_all_settings(
    data: Path, adapter: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import DPOTrainer

    from empo_demo.training.dpo import run_dpo
    from empo_demo.training.recipe import Job

    computed: list[int] = []
    compute = DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(
        DPOTrainer,
        "compute_ref_log_probs",
        lambda *a: (computed.append(1), compute(*a))[1],
    )

    def run(name: str, **more: Any) -> None:
        job = Job(
            str(data / "init"),
            tmp_path / name,
            adapter=adapter,
            batch=4,
            steps=3,
            length=120,
            learning_rate=more.pop("rate", 1e-3),
            seed=5,
        )
        run_dpo(job, pairs, **more)

    run("one", beta=0.1)
    assert len(computed) == 3
    run("two", beta=0.5, rate=1e-4, loss="sigmoid:1,sft:0.2")
    assert len(computed) == 3
    assert not same(tmp_path / "one", tmp_path / "two")


def test_what_the_replies_are_like_is_described() -> None:
    found = described(["Oh no! What happened?", "Oh no! I am so so so so so sorry."])
    assert found["replies/words"] > 5 and found["replies/questions"] == 0.5
    assert 0 < found["replies/repetition"] < 0.5 and found["replies/openings"] == 0.5
    assert described([])["replies/words"] == 0.0


def test_a_base_is_called_by_its_name_wherever_it_lies(tmp_path: Path) -> None:
    from empo_demo.training.recipe import Job

    folder = tmp_path / "here"
    folder.mkdir()
    assert Job(str(folder), tmp_path).base_name == "here"
    (folder / "config.json").write_text('{"_name_or_path": "HuggingFaceTB/SmolLM2"}')
    assert Job(str(folder), tmp_path).base_name == "SmolLM2"
    assert Job("owner/model", tmp_path).base_name == "owner/model"


def test_the_default_pairs_base_may_be_given_by_its_name() -> None:
    from empo_demo.smollm2.package import SMOLLM2
    from empo_demo.training.cli import _base

    assert _base(SMOLLM2.model) == str(SMOLLM2.folder)
    assert _base("owner/other") == "owner/other"


def test_a_batch_smaller_than_the_forward_pass_stays_that_small(tmp_path: Path) -> None:
    from empo_demo.training.recipe import Job

    small = Job("b", tmp_path, batch=4, micro=16, steps=3)
    assert (small.per_step, small.examples) == (4, 12)
    assert small.arguments()["per_device_train_batch_size"] == 4
    large = Job("b", tmp_path, batch=64, micro=16, epochs=0.5)
    assert (large.per_step, large.wanted(100)) == (64, 50)
    assert large.arguments()["gradient_accumulation_steps"] == 4
