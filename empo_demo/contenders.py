"""Contenders: weights x adapter x prompt strategy, and the presets that list them.

A contender's `id` is stable and short; its `revision` names exactly what answered (model id,
adapter hash, strategy, quantisation) and is stored with every vote. Reads TOML; imports no model.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from empo_demo.dialogue import SYSTEM_PROMPT
from empo_demo.engine.protocol import Decoding
from empo_demo.errors import SettingsError
from empo_demo.settings import ASSETS, Quantization, Settings

Strategy = Literal["plain", "hef", "hef-two-step"]


@dataclass(frozen=True, slots=True)
class Contender:
    """One who can be drawn for a side. `adapter` is None for the base weights."""

    id: str
    base: str
    adapter: str | None = None
    strategy: Strategy = "plain"
    weight: float = 1.0
    predictions: str | None = None
    label: str = ""
    parent: str | None = None
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Roster:
    """Who takes part, and what they share: the system prompt, decoding, quantisation."""

    name: str
    contenders: tuple[Contender, ...]
    system_prompt: str = ""
    quantization: Quantization = "nf4"
    decoding: Decoding = field(default_factory=Decoding)
    tiny: bool = False

    def __getitem__(self, contender_id: str) -> Contender:
        for contender in self.contenders:
            if contender.id == contender_id:
                return contender
        known = ", ".join(c.id for c in self.contenders)
        raise SettingsError(f"There is no contender {contender_id!r}; there are: {known}.")
