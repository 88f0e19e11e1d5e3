"""All settings of the app, typed, read from `EMPO_*` variables. Flags override them.

A wrong value is one `SettingsError` that names the variable, its value and the allowed values.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from empo_demo.errors import SettingsError

PACKAGE = Path(__file__).resolve().parent
ROOT = PACKAGE.parent
"""The clone; where a wheel is installed, the folder that holds the package."""
ASSETS = (PACKAGE if (PACKAGE / "assets").is_dir() else ROOT) / "assets"
"""A wheel holds the assets in the package, a clone beside it."""

Quantization = Literal["nf4", "int8", "none"]
PAIR = ("sft", "aligned")
"""The adapters of the pair that everybody meets, by their folders in assets/smollm2."""
Exposure = Literal["all", "after-vote", "randomised"]


def default_preset(assets: Path = ASSETS) -> str:
    """The pair that is served when EMPO_PRESET is not set.

    It is smollm2 as soon as its adapters are in the repository, and tiny until then.
    """
    folders = [assets / "smollm2" / name for name in PAIR]
    here = all((folder / "adapter_model.safetensors").is_file() for folder in folders)
    return "smollm2" if here else "tiny"


class Settings(BaseSettings):
    """The typed settings. Field `x` is the variable `EMPO_X`."""

    model_config = SettingsConfigDict(env_prefix="EMPO_", extra="forbid", env_ignore_empty=True)

    preset: str = Field(
        default_factory=default_preset,
        description="smollm2, tiny, empo-7b, empo-recorded, or a TOML file",
    )
    base: str | None = Field(None, description="base model: a folder or a Hub id")
    aligned: str | None = Field(None, description="aligned model: an adapter or a model")
    quantization: Quantization | None = Field(None, description="nf4, int8 or none")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:N or mps")
    engine: str = Field(
        "local", description="local, URLs of servers (commas between), or a predictions file"
    )
    server_check: Literal["auto", "always", "never"] = Field(
        "auto",
        description="auto, always or never: whether servers prove whose weights answer; auto "
        "spares servers with a key",
    )
    server_turns: bool = Field(
        False,
        description="true or false; true never asks one server for two models at once",
    )
    adapter_plan: Literal["auto", "shared", "merged"] = Field(
        "auto", description="auto, shared or merged"
    )
    force_adapter: bool = Field(
        False, description="true or false; true accepts an adapter of another base model"
    )
    database: str = Field(
        "sqlite:///votes.sqlite3", description="a SQLAlchemy URL (sqlite:///… or postgresql://…)"
    )
    secret: str | None = Field(None, description="the key of the voters' address hashes")
    hub_dataset: str | None = Field(
        None, description="the dataset repository, owner/name, for votes older than a day"
    )
    hub_backup: str | None = Field(
        None,
        description="another dataset repository, owner/name, that is private: it keeps a copy of "
        "every consented vote, for a disk that a restart wipes",
    )
    nrc_vad: Path | None = Field(None, description="the path of your NRC-VAD lexicon file")
    max_concurrent_rounds: int | None = Field(
        None, ge=1, le=256, description="a number from 1 to 256, or auto: as many as pay"
    )
    system_prompt: str | None = Field(None, description="the system prompt of both sides")
    exposure: Exposure = Field("all", description="all, after-vote or randomised")
    sem: str = Field("embedded", description="a SEM plugin, or embedded:FOLDER")
    hef_top_k: int = Field(3, ge=1, le=32, description="a number from 1 to 32")
    country: str = Field("international", description="a country code for the crisis notice")
    check_rate: float = Field(
        0.0, ge=0.0, le=0.5, description="share of attention-check rounds, 0 to 0.5"
    )
    rounds_per_voter: int = Field(
        30, ge=1, le=100_000, description="rounds that a voter may open in ten minutes, 1 to 100000"
    )
    rounds_per_address: int = Field(
        120, ge=1, le=100_000, description="as for a voter, for all behind one network address"
    )
    explores_per_address: int = Field(
        60, ge=1, le=100_000, description="Explore comparisons per address in ten minutes"
    )
    allowed_hosts: str | None = Field(
        None, description="host names that the page is reached by, with commas: arena.example.org"
    )
    trusted_proxies: str | None = Field(
        None, description="addresses or networks of your reverse proxies, with commas: 10.0.0.0/8"
    )
    seed: int | None = Field(None, description="a whole number; fixes the draws of a session")

    @field_validator("max_concurrent_rounds", mode="before")
    @classmethod
    def _measured(cls, rounds: object) -> object:
        return None if rounds == "auto" else rounds

    @field_validator("hub_backup")
    @classmethod
    def _not_where_votes_are_published(cls, repo: str | None, info: ValidationInfo) -> str | None:
        if repo is None:
            return None
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo) or repo == info.data.get("hub_dataset"):
            raise ValueError("not another repository")
        return repo

    @field_validator("nrc_vad")
    @classmethod
    def _file_exists(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError("there is no such file")
        return path

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        kind, _, number = device.partition(":")
        if kind not in ("auto", "cpu", "cuda", "mps") or (number and not number.isdigit()):
            raise ValueError("not a device")
        return device

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str | None) -> str | None:
        for part in split(value):
            ipaddress.ip_network(part)
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _host_names(cls, value: str | None) -> str | None:
        if any("/" in part or "@" in part for part in split(value)):
            raise ValueError("a host name, not an address with a path")
        return value

    @field_validator("database")
    @classmethod
    def _known_database(cls, url: str) -> str:
        if not url.startswith(("sqlite:", "postgresql:", "postgresql+psycopg:", "postgres:")):
            raise ValueError("not a database URL")
        return url


def split(value: str | None) -> list[str]:
    """The parts of a setting with several values, separated by commas."""
    return [part.strip() for part in (value or "").split(",") if part.strip()]


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment; `overrides` that are not None replace them.

    Raises `SettingsError`, one line, for the first wrong value.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def check_server() -> None:
    """Check Gradio's own variables for host and port, because Gradio explains no wrong value.

    Call it before gradio is imported. Raises `SettingsError`.
    """
    port, name = map(os.environ.get, ("GRADIO_SERVER_PORT", "GRADIO_SERVER_NAME"))
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) < 65_536):
        raise SettingsError(
            f"GRADIO_SERVER_PORT holds {port!r}; it may hold a number from 1 to 65535."
        )
    if name:
        try:
            family, kind, _, _, where = socket.getaddrinfo(
                name.strip("[]"), 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            with socket.socket(family, kind) as tried:
                tried.bind(where)
        except OSError:
            raise SettingsError(
                f"GRADIO_SERVER_NAME holds {name!r}; it may hold a name or an address of this "
                "machine (127.0.0.1 for this machine only, 0.0.0.0 for all networks)."
            ) from None


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """One line for each `EMPO_*` variable that is not a setting, with the most similar setting."""
    environment = os.environ if environment is None else environment
    known = {f"EMPO_{name.upper()}" for name in Settings.model_fields}
    lines = []
    for name in sorted(set(environment) - known):
        if name.startswith("EMPO_"):
            near = difflib.get_close_matches(name, known, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            lines.append(f"{name} is not a setting of this app and is ignored.{hint}")
    return lines


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = Settings.model_fields.get(name)
    allowed = field.description if field is not None else "nothing: it is not a setting"
    return f"EMPO_{name.upper()} holds {first.get('input')!r}; it may hold {allowed}."
