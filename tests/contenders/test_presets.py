"""The presets that need no training, and `contenders prepare`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from empo_demo.contenders import strategies
from empo_demo.contenders.load_roster import load_roster
from empo_demo.dialogue import Dialogue
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.reading import Reading
from empo_demo.engine.loading import load_engine
from empo_demo.engine.protocol import Finished, Request
from empo_demo.errors import SettingsError
from empo_demo.settings import ASSETS, Settings

DPO = "preds_dlr1e6m1000_zephyr-7b-sft-full124_d270_epi.txt"
BASE = "preds_dlrxxx_zephyr-7b-sft-full_epi.txt"
READING = Reading(tuple((e, 1 / 32) for e in EMOTIONS), (), "s@1", 1.0)


SMALL = """
name = "small"
quantization = "none"
[decoding]
max_new_tokens = 120
[[contenders]]
id = "base"
label = "Qwen2.5 0.5B Instruct"
base = "Qwen/Qwen2.5-0.5B-Instruct"
[[contenders]]
id = "base+HEF"
label = "Qwen2.5 0.5B Instruct with HEF"
base = "Qwen/Qwen2.5-0.5B-Instruct"
strategy = "hef"
[[contenders]]
id = "base+HEF2"
label = "Qwen2.5 0.5B Instruct with two-step HEF"
base = "Qwen/Qwen2.5-0.5B-Instruct"
strategy = "hef-two-step"
"""


@pytest.fixture
def small(tmp_path: Path) -> str:
    """A file of contenders: an instruct model of the Hub with three strategies."""
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf8")
    return str(path)


def test_a_file_of_contenders_answers_with_a_folder_in_the_place_of_the_hub_model(
    small: str,
) -> None:
    """The embedded model stands for the small one: this machine has no Hub."""
    settings = Settings(preset=small, base=str(ASSETS / "tiny" / "base"), device="cpu")
    roster = load_roster(settings)
    assert {c.base for c in roster.contenders} == {str(ASSETS / "tiny" / "base")}
    engine = load_engine(settings, roster)
    dialogue = Dialogue().plus("user", "I failed my exam.")
    for contender in roster.contenders:
        prepared = strategies.prepare(contender, dialogue, READING, roster)
        assert (prepared.think is not None) == (contender.strategy == "hef-two-step")
        request = Request("a", contender.id, prepared.messages, roster.decoding)
        (end,) = [e for e in engine.stream([request]) if isinstance(e, Finished)]
        assert end.text.strip()


def test_a_label_names_the_model_that_is_run(tmp_path: Path, small: str) -> None:
    """Not the one that the preset would have run; a folder of its name may hold the same."""
    same = tmp_path / "qwen2.5-0.5b-instruct"
    same.mkdir()
    labels = {
        base: [c.label for c in load_roster(Settings(preset=small, base=base)).contenders]
        for base in (str(ASSETS / "tiny" / "base"), "org/other-1b", str(same))
    }
    added = ("", " with HEF", " with two-step HEF")
    for base, name in zip(labels, ("base", "other-1b", "Qwen2.5 0.5B Instruct"), strict=True):
        assert labels[base] == [name + words for words in added]
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    (tuned / "adapter_config.json").write_text("{}")
    own = load_roster(Settings(preset="empo-7b", aligned=str(tuned))).contenders
    assert {c.label for c in own} >= {"Zephyr 7B SFT", "tuned", "tuned with HEF", "EmPO 7B (SFT)"}


def published(path: Path, *replies: str) -> None:
    """A file as the EmPO authors publish it: '~' between fields, the whole prompt in one."""
    lines = ["~Unnamed: 0~chat_templates~gen_targets~prevs~emotions~gens"]
    for number, reply in enumerate(replies):
        prompt = (
            "<|system|>\nAs authors.</s>\n<|user|>\nI lost my dog.</s>\n<|assistant|>\nOh no!</s>\n"
            f"<|user|>\nHe was {number + 9}.</s>\n<|assistant|>\n"
        )
        lines.append(f'{number}~{number}~"{prompt}"~So sorry.~He was {number + 9}.~sad~{reply}')
    path.write_text("\n".join(lines) + "\n")


def test_published_files_are_shown_with_the_whole_dialogue(tmp_path: Path) -> None:
    published(tmp_path / DPO, "A good age.", "Old friend.")
    published(tmp_path / BASE, "I understand.", "That is sad.")
    settings = Settings(preset="empo-recorded", engine=str(tmp_path))
    roster = load_roster(settings)
    assert [c.id for c in roster.contenders] == ["aligned", "base", "human"]
    engine = load_engine(settings, roster)
    dialogues = engine.dialogues()  # type: ignore[attr-defined]
    assert [t.content for t in dialogues[0].turns] == ["I lost my dog.", "Oh no!", "He was 9."]
    requests = [Request(c, c, tuple(dialogues[1].messages())) for c in ("aligned", "base", "human")]
    said = {e.side: e.text for e in engine.stream(requests) if isinstance(e, Finished)}
    assert said == {"aligned": "Old friend.", "base": "That is sad.", "human": "So sorry."}


def test_one_published_file_is_enough_against_the_human(data_dir: Path, tmp_path: Path) -> None:
    shutil.copy(data_dir / "empo_predictions_sample.csv.gz", tmp_path / DPO)
    settings = Settings(preset="empo-recorded", engine=str(tmp_path))
    roster = load_roster(settings)
    assert [c.id for c in roster.contenders] == ["aligned", "human"]
    assert len(load_engine(settings, roster).dialogues()) > 250  # type: ignore[attr-defined]


@pytest.mark.parametrize("engine", ["local", "nowhere", "."])
def test_without_the_files_it_is_said_where_they_are(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"github\.com/justtherightsize/empo") as caught:
        load_roster(Settings(preset="empo-recorded", engine=engine))
    assert "EMPO_ENGINE" in str(caught.value) and "\n" not in str(caught.value)


def command(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("EMPO_")}
    more = {"EMPO_ADAPTER_PLAN": "merged", "HF_ASSETS_CACHE": str(tmp_path), "EMPO_DEVICE": "cpu"}
    more["EMPO_PRESET"] = "tiny"
    return subprocess.run(
        [sys.executable, "-m", "empo_demo", "contenders", *words],
        env={**kept, **more},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )


@pytest.mark.slow
def test_prepare_makes_every_merged_copy_and_the_listing_says_so(tmp_path: Path) -> None:
    before = json.loads(command(tmp_path, "--json").stdout)
    rows = {row["id"]: row["prepared"] for row in before["contenders"]}
    assert rows["base"] is None and rows["aligned"] is False and rows["sft"] is False
    assert before["plan"]["fits"] and before["plan"]["disk"] > 0
    done = command(tmp_path, "prepare", "--json")
    assert done.stdout.count("\n") == 1 and done.stderr.count(": made, ") == 2
    assert not set("\r\x1b━") & set(done.stderr), "no bar is drawn in a pipe"
    copies = json.loads(done.stdout)["copies"]
    assert len(copies) == 2 and all(Path(folder).is_dir() for folder in copies.values())
    after = json.loads(command(tmp_path, "--json").stdout)
    assert {row["id"]: row["prepared"] for row in after["contenders"]} == {
        **rows,
        "aligned": True,
        "aligned+HEF": True,
        "sft": True,
    }
    assert after["plan"]["disk"] == 0
    assert "was there" in command(tmp_path, "prepare").stdout
