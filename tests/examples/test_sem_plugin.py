"""`examples/sem_plugin` is installed as a package, found by its entry point, and reads."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.plugins import load_plugin
from empo_demo.errors import SettingsError
from empo_demo.settings import load_settings
from tests.conftest import REPOSITORY

TURNS = [Turn("user", "My dog died this morning.")]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """The package, built and installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "sem_plugin"
    shutil.copytree(REPOSITORY / "examples" / "sem_plugin", source)
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*install, "--target", str(folder), str(source)], check=True)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield importlib.import_module("transformers_sem")
    sys.path.remove(str(folder))


def make_classifier(folder: Path, labels: Sequence[str]) -> str:
    """A small random classifier with a word-level tokenizer, saved as the Hub would hold it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = ["[UNK]", "[PAD]", "my", "dog", "died", "this", "morning", "friend", "moved", "miss"]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    ).save_pretrained(folder)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        pad_token_id=1,
        initializer_range=1.0,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def go_emotions(tmp_path_factory: pytest.TempPathFactory, plugin: ModuleType) -> str:
    labels = list(plugin.read_map(plugin.GO_EMOTIONS))
    return make_classifier(tmp_path_factory.mktemp("go"), labels)


def test_any_text_classifier_is_a_sem(go_emotions: str) -> None:
    sem = load_plugin(load_settings(sem=f"transformers:{go_emotions}", device="cpu"))
    read = sem.read(TURNS)
    assert {label for label, _ in read.emotions} == set(EMOTIONS)
    assert sum(p for _, p in read.emotions) == pytest.approx(1)
    assert [p for _, p in read.emotions] == sorted((p for _, p in read.emotions), reverse=True)
    assert read.causes and {c.text for c in read.causes} <= {"dog", "died", "morning"}
    assert max(c.weight for c in read.causes) == pytest.approx(1)
    assert sem.read(TURNS).emotions == read.emotions
    assert sem.read([Turn("user", "My friend moved.")]).emotions != read.emotions
    assert sem.read_many([TURNS, TURNS])[1].emotions == read.emotions


def test_the_map_moves_each_labels_probability_to_its_emotions(
    go_emotions: str, plugin: ModuleType
) -> None:
    sem = plugin.PipelineSEM(go_emotions, device="cpu")
    read = sem._distribution({"anger": 0.5, "gratitude": 0.25, "neutral": 0.25})
    assert read["angry"] == pytest.approx(0.3 + 0.25 / 32, abs=1e-3)
    assert read["furious"] == pytest.approx(0.2 + 0.25 / 32, abs=1e-3)
    assert read["grateful"] == pytest.approx(0.25 + 0.25 / 32, abs=1e-3)
    assert read["proud"] == pytest.approx(0.25 / 32, abs=1e-3)


def test_a_model_with_the_32_labels_needs_no_map(tmp_path: Path, plugin: ModuleType) -> None:
    sem = plugin.PipelineSEM(make_classifier(tmp_path, EMOTIONS), device="cpu")
    assert sem._distribution({"sad": 0.9, "proud": 0.1})["sad"] == pytest.approx(0.9, abs=1e-3)


def test_unknown_labels_ask_for_a_map_and_take_one(tmp_path: Path) -> None:
    model = make_classifier(tmp_path / "m", ["POSITIVE", "NEGATIVE"])
    with pytest.raises(SettingsError, match="POSITIVE, NEGATIVE"):
        load_plugin(load_settings(sem=f"transformers:{model}"))
    own = tmp_path / "map.toml"
    own.write_text("[labels]\nPOSITIVE = { joyful = 1.0 }\nNEGATIVE = { sad = 1.0 }\n")
    sem = load_plugin(load_settings(sem=f"transformers:{model}#{own}", device="cpu"))
    assert {label for label, p in sem.read(TURNS).emotions[:2]} == {"joyful", "sad"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[labels]\nx = { gloomy = 1.0 }", "maps 'x' to 'gloomy'"),
        ("[labels]\nx = { sad = -1.0 }", "must be positive"),
        ("[labels]\nx = {}", "must be positive"),
        ("[labels]\nx = 3", "is no label map"),
        ("x = 1", "is no label map"),
        ("[labels", "is no label map"),
    ],
)
def test_a_bad_map_is_one_line(tmp_path: Path, text: str, said: str, plugin: ModuleType) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        plugin.read_map(tmp_path / "map.toml")


def test_the_given_map_covers_go_emotions_and_its_shares_sum_to_one(plugin: ModuleType) -> None:
    rows = plugin.read_map(plugin.GO_EMOTIONS)
    assert len(rows) == 28
    assert all(sum(shares.values()) == pytest.approx(1) for shares in rows.values())


def test_content_words_are_found_in_their_places(plugin: ModuleType) -> None:
    text = "I don't know why my mother-in-law left."
    assert [word for word, _ in plugin.content_words(text)] == ["know", "mother-in-law", "left"]
    assert all(text[start:].startswith(word) for word, start in plugin.content_words(text))


def test_the_plugin_without_a_model_or_with_a_missing_one_is_one_line() -> None:
    for name, said in (("transformers", "owner/model"), ("transformers:./x", "cannot be loaded")):
        with pytest.raises(SettingsError, match=said):
            load_plugin(load_settings(sem=name))
