"""What must be downloaded is said before the first byte: a stand-in of the Hub, the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import Hub, Repository, running

BASE, TUNED = "org/base", "org/tuned"
LORA = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["q_proj"],
    "base_model_name_or_path": BASE,
}
ROSTER = f"""
[[contenders]]
id = "base"
base = "{BASE}"

[[contenders]]
id = "aligned"
base = "{BASE}"
adapter = "{TUNED}"

[[contenders]]
id = "local"
base = "model"
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    from transformers import LlamaConfig

    LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
    ).save_pretrained(tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_bytes()
    with running() as started:
        started.repositories[f"model/{BASE}"] = Repository(
            {
                "config.json": config,
                "model.safetensors": bytes(700_000),
                "pytorch_model.bin": bytes(900_000),
                "original/model.safetensors": bytes(800_000),
                "consolidated.safetensors": bytes(800_000),
                "README.md": b"# Base",
            }
        )
        started.repositories[f"model/{TUNED}"] = Repository(
            {
                "adapter_config.json": json.dumps(LORA).encode(),
                "adapter_model.safetensors": bytes(50_000),
            }
        )
        yield started


def ran(
    hub: Hub, tmp_path: Path, *words: str, program: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    (tmp_path / "roster.toml").write_text(ROSTER)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("EMPO_", "HF_"))}
    caches = {"HF_HOME": str(tmp_path / "hf"), "EMPO_DEVICE": "cpu"}
    run = ["-c", program, *words] if program else ["-m", "empo_demo", *words]
    return subprocess.run(
        [sys.executable, *run],
        env={
            **kept,
            **caches,
            **hub.environment(),
            "EMPO_PRESET": str(tmp_path / "roster.toml"),
            **more,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )


def listing(hub: Hub, tmp_path: Path, **more: str) -> Any:
    done = ran(hub, tmp_path, "contenders", "--json", **more)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["plan"], {row["id"]: row["download"] for row in found["contenders"]}


@pytest.mark.slow
def test_the_plan_says_what_must_be_downloaded_or_that_it_is_unknown_and_loads_nothing(
    hub: Hub, tmp_path: Path
) -> None:
    plan, sizes = listing(hub, tmp_path)
    # The two configurations are read for the plan itself, so they are in the cache by then.
    assert sizes == {"base": 700_000, "aligned": 750_000, "local": 0}
    assert plan["download"] == 750_000 and plan["disk"] == 750_000, "shared weights count once"
    assert plan["free"]["hub"] > 0
    asked = [path for path in hub.paths("GET") if "/resolve/" in path]
    assert not [path for path in asked if path.endswith(("safetensors", "bin"))]
    # The configurations are in the cache, so that the list can be made without the Hub.
    plan, sizes = listing(hub, tmp_path, HF_HUB_OFFLINE="1")
    assert sizes == {"base": None, "aligned": None, "local": 0} and plan["download"] is None


@pytest.mark.slow
def test_the_table_says_it_per_contender_and_in_all(hub: Hub, tmp_path: Path) -> None:
    table = ran(hub, tmp_path, "contenders").stdout
    assert "to download" in table and "0.7 MB" in table
    assert "to download: 0.8 MB" in table and "Disk for downloads 0.8 MB of" in table


FETCH = """
import sys
from empo_demo import progress
from empo_demo.engine.weights import downloads
from empo_demo.errors import EngineError
progress.EVERY = 0.05
before = downloads.model_download(sys.argv[1])
try:
    folder = downloads.model_folder(sys.argv[1])
except EngineError as error:
    raise SystemExit(str(error))
print(before, downloads.model_download(sys.argv[1]), *sorted(f.name for f in folder.iterdir()))
"""


def fetched(hub: Hub, tmp_path: Path, name: str, program: str = FETCH) -> list[str]:
    done = ran(hub, tmp_path, name, program=program)
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stderr and "\x1b" not in done.stderr
    return [*done.stdout.split(), done.stderr]


@pytest.mark.slow
def test_the_deed_is_what_the_plan_said(hub: Hub, tmp_path: Path) -> None:
    config = len(hub.repositories[f"model/{BASE}"].files["config.json"])
    hub.pause = 0.3
    before, after, *names, said = fetched(hub, tmp_path, BASE)
    assert int(before) == 700_000 + config and after == "0"
    assert names == ["config.json", "model.safetensors"]
    assert f"Downloading {BASE}: " in said and " GB done, " in said, "progress in a pipe"


def test_what_lies_in_the_cache_already_does_not_count(hub: Hub, tmp_path: Path) -> None:
    """A new revision of the base: one of its files has changed."""
    fetched(hub, tmp_path, BASE)
    files = hub.repositories[f"model/{BASE}"].files
    files["tokenizer.json"] = bytes(3_000)
    hub.commit = "1" * 40
    before, after, *_ = fetched(hub, tmp_path, BASE)
    assert (before, after) == ("3000", "0")


def test_pickles_count_only_where_there_is_nothing_else(hub: Hub, tmp_path: Path) -> None:
    files = {
        "config.json": hub.repositories[f"model/{BASE}"].files["config.json"],
        "pytorch_model.bin": bytes(1_000),
    }
    hub.repositories["model/org/old"] = Repository(files)
    before, after, *names, _ = fetched(hub, tmp_path, "org/old")
    assert int(before) == sum(map(len, files.values())) and after == "0"
    assert names == ["config.json", "pytorch_model.bin"]


SIZES = """
import sys
from empo_demo.engine.weights.downloads import adapter_download, model_download
print(model_download(sys.argv[1]), adapter_download(sys.argv[2]))
"""


@pytest.mark.slow
def test_without_the_hub_the_size_is_unknown_or_nothing_is_missing(
    hub: Hub, tmp_path: Path
) -> None:
    fetched(hub, tmp_path, BASE)
    for away in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        done = ran(hub, tmp_path, BASE, TUNED, program=SIZES, **away)
        assert done.stdout.split() == ["0", "None"], done.stderr


def test_a_disk_too_small_for_a_download_is_said_before_its_first_byte(
    hub: Hub, tmp_path: Path
) -> None:
    small = FETCH.replace(
        "progress.EVERY",
        "downloads.shutil.disk_usage = lambda _: type('U', (), {'free': 9})\nprogress.EVERY",
    )
    done = ran(hub, tmp_path, BASE, program=small)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "0.0 GB free" in done.stderr and "HF_HUB_CACHE" in done.stderr
    assert not [path for path in hub.paths("GET") if "/resolve/" in path]
