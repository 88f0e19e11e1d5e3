"""The TOML file of contenders: reads and checks it, and adds contenders to it.

Paths in the file are relative to its folder. Every fault is one `SettingsError` that names the
file, the place in it, and what is allowed there.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from tomlkit.items import AoT

from empo_demo.contenders.roster import Contender, Hints, Roster, check_contenders
from empo_demo.contenders.strategies import STRATEGIES
from empo_demo.engine.protocol import Decoding
from empo_demo.errors import SettingsError
from empo_demo.settings import Quantization
from empo_demo.smollm2.package import SMOLLM2, is_base

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class _DecodingTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    temperature: float = Field(0.7, ge=0, le=5, description="a number from 0 (greedy) to 5")
    top_p: float = Field(0.9, gt=0, le=1, description="a number above 0, at most 1")
    repetition_penalty: float = Field(1.1, gt=0, le=5, description="a number above 0, at most 5")
    max_new_tokens: int = Field(60, ge=1, le=4096, description="a number from 1 to 4096")
    stop: list[str] = Field(default_factory=list, description="a list of texts")


class _ContenderTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str = Field(
        pattern=r"^[\w.+@:-]{1,64}$", description="up to 64 letters, digits, + . _ - @ :"
    )
    base: str = Field("", description="a folder or a Hub id")
    adapter: str | None = Field(None, min_length=1, description="a folder or a Hub id")
    strategy: str = Field("plain", description=" or ".join(STRATEGIES))
    weight: float = Field(
        1.0, ge=0, le=1e6, allow_inf_nan=False, description="a number that is not negative"
    )
    label: str = Field("", description="a text")
    parent: str | None = Field(None, description="the id of the contender it was trained from")
    predictions: str | None = Field(None, description="the path of a file of recorded replies")
    votes: int | None = Field(None, ge=0, description="a whole number")
    data_hash: str | None = Field(None, description="a text")
    optional: bool = Field(False, description="true or false")

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str) -> str:
        if name not in STRATEGIES:
            raise ValueError("no such strategy")
        return name


class _RosterTable(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = Field("", description="a text")
    tiny: bool = Field(False, description="true or false")
    hints: Hints = Field("full", description="full or compact")
    system_prompt: str = Field("", description="a text")
    quantization: Quantization = Field("nf4", description="nf4, int8 or none")
    decoding: _DecodingTable = Field(
        default_factory=lambda: _DecodingTable.model_validate({}), description="a table"
    )
    contenders: list[_ContenderTable] = Field(description="[[contenders]] tables")


def read_roster(path: Path, *, files: Path | None = None, on_server: bool = False) -> Roster:
    """The roster in the file at `path`, without revisions; `served` as in `resolve_model`.

    Predictions are in the folder `files`, by default beside `path`. A contender marked `optional`
    is left out if its adapter or its predictions do not exist.
    """
    table = _parse(path, _read(path))
    folder = path.resolve().parent
    contenders = []
    for row in table.contenders:
        contender = _contender(row, folder, path, files or folder, on_server=on_server)
        if contender is not None:
            contenders.append(contender)
    check_contenders(contenders, where=str(path))
    decoding = table.decoding.model_dump()
    return Roster(
        name=table.name or path.stem,
        contenders=tuple(contenders),
        system_prompt=table.system_prompt.strip(),
        quantization=table.quantization,
        decoding=Decoding(**{**decoding, "stop": tuple(decoding["stop"])}),
        tiny=table.tiny,
        hints=table.hints,
    )


def add_contender(path: Path, contender: Contender) -> None:
    """Append `contender` to the file at `path` and keep the rest unchanged, comments too.

    Local models are written relative to the file's folder. The file is replaced in one step, and
    only if the new file is valid. Otherwise `SettingsError` is raised.
    """
    old = _read(path)
    if any(row.id == contender.id for row in _parse(path, old).contenders):
        raise SettingsError(
            f"{path} already lists a contender {contender.id!r}; give the new one another id."
        )
    document = tomlkit.parse(old)
    rows: Any = document.setdefault("contenders", tomlkit.aot())
    values = _values(contender, path.resolve().parent)
    # A table of its own where the others have one; else one more in the list between brackets.
    table = tomlkit.table() if isinstance(rows, AoT) else tomlkit.inline_table()
    table.update(values)
    if isinstance(rows, AoT) and rows:
        rows[-1].add(tomlkit.nl())
    rows.append(table)
    text = tomlkit.dumps(document)
    _parse(path, text)
    write_file(path, text)


def write_roster(path: Path, roster: Roster) -> None:
    """Write `roster` as a new file, so that `add_contender` can extend a preset."""
    folder = path.resolve().parent
    head = ("name", "tiny", "hints", "system_prompt", "quantization")
    document = tomlkit.document()
    document.update(_known({name: getattr(roster, name) for name in head}))
    document["decoding"] = _known(asdict(roster.decoding))
    document["contenders"] = [_values(contender, folder) for contender in roster.contenders]
    text = tomlkit.dumps(document)
    _parse(path, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text)


def _values(contender: Contender, folder: Path) -> dict[str, Any]:
    """The keys of a contender that differ from an empty one, with paths relative to `folder`."""
    empty = Contender(id="", base="")
    values = {}
    for name in _ContenderTable.model_fields:
        value = getattr(contender, name, None)
        if value is None or (name != "id" and value == getattr(empty, name)):
            continue
        paths = name in ("base", "adapter", "predictions")
        values[name] = _relative(value, folder) if paths else value
    return values


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def resolve_model(model: str, folder: Path, where: str, *, on_server: bool = False) -> str:
    """An existing folder as an absolute path, or an unchanged Hub id; else `SettingsError`.

    The name of the base that pip fetches gives the folder where it lies, or will lie.

    If a server has the models (`served`), it may call them as it likes: `gemma3:latest`.
    """
    path = folder / Path(model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if on_server and model.strip():
        return model
    if model == SMOLLM2.model:
        return str(SMOLLM2.folder)
    if path.exists() or not _HUB_ID.fullmatch(model):
        raise SettingsError(
            f"{where} names the model {model!r}, but there is no such folder; "
            "give the folder of a model or a Hub id (owner/name)."
        )
    return model


def is_adapter(model: str) -> bool:
    """Whether `model` is a PEFT adapter rather than a whole model.

    The files of a folder tell. For a Hub id the local cache and then the Hub tell. If neither
    can, it counts as an adapter, because EmPO publishes adapters.
    """
    if Path(model).is_dir():
        return (Path(model) / "adapter_config.json").is_file()
    if not _HUB_ID.fullmatch(model):
        return False  # a name that only a server knows
    from huggingface_hub import file_exists, try_to_load_from_cache

    cached = [
        isinstance(try_to_load_from_cache(model, name), str)
        for name in ("adapter_config.json", "config.json")
    ]
    if any(cached):
        return cached[0]
    try:
        return bool(file_exists(model, "adapter_config.json"))
    except Exception:  # offline, gated, mistyped: the loader raises a better error
        return True


def write_file(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf8")
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise SettingsError(f"{path} cannot be written: {error.strerror or error}.") from None


def _contender(
    row: _ContenderTable, folder: Path, path: Path, files: Path, *, on_server: bool
) -> Contender | None:
    where = f"{path}, contender {row.id!r},"
    if not row.base and not row.predictions:
        raise SettingsError(f"{where} has no base; give a folder or a Hub id.")
    contender = Contender(**row.model_dump())
    if row.predictions:
        file = files / Path(row.predictions).expanduser()
        if not file.is_file():
            if row.optional:
                return None
            raise SettingsError(f"{where} names the predictions {file}, but there is no such file.")
        contender = replace(contender, predictions=str(file.resolve()))
    if row.base:
        contender = replace(
            contender, base=resolve_model(row.base, folder, where, on_server=on_server)
        )
    if row.adapter:
        on_hub = "/" in row.adapter and _HUB_ID.fullmatch(row.adapter)
        if row.optional and not (folder / row.adapter).is_dir() and not on_hub:
            return None
        adapter = resolve_model(row.adapter, folder, where, on_server=on_server)
        contender = replace(contender, adapter=adapter)
    return contender


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror or error}.") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not a UTF-8 text file; it must be TOML.") from None


def _parse(path: Path, text: str) -> _RosterTable:
    try:
        return _RosterTable.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}.") from None
    except RecursionError:
        raise SettingsError(f"{path} is nested too deep.") from None
    except ValidationError as error:
        raise SettingsError(f"{path}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    parents, name = list(first["loc"]), ""
    if parents and isinstance(parents[-1], str):
        name = str(parents.pop())
    table: type[BaseModel] = _RosterTable
    if "contenders" in parents:
        table = _ContenderTable
    elif "decoding" in parents:
        table = _DecodingTable
    place = "".join(f"contender {p + 1}: " for p in parents if isinstance(p, int))
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, table.model_fields, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(table.model_fields)}."
        return f"{place}unknown key {name!r}; {hint}"
    if not name:
        return f"{place}{first['input']!r} is not a table of keys."
    field = table.model_fields.get(name)
    allowed = f"; it may hold {field.description}" if field and field.description else ""
    if first["type"] == "missing":
        return f"{place}{name!r} is missing{allowed}."
    return f"{place}{name!r} holds {first['input']!r}{allowed}."


def _relative(model: str, folder: Path) -> str:
    if is_base(model):
        return SMOLLM2.model
    path = Path(model)
    return os.path.relpath(path, folder) if path.is_absolute() else model
