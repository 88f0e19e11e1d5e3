"""Files of other people, read as UTF-8 text and strict JSON or refused in one line; fingerprints.

The fingerprint of a model is a hash of the contents of its files, or its unchanged Hub id.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from empo_demo.errors import DataError, first_line

MAX_LINE = 4 * 2**20
"""The most bytes of a line that is read as JSON. Our own records are far shorter."""
MAX_DEPTH = 64
_POINTER_BYTES = 1024
_MARK = b"\xef\xbb\xbf"
"""The byte-order mark of UTF-8, which Windows programs put before a text."""
_SPACE = re.compile(r"[ \t\r\n]*")


def read_text(path: Path) -> str:
    """The text of a file, gzipped or not: UTF-8, or UTF-16 as Excel's "Unicode text" has it.

    A byte-order mark is left out. Raises a `DataError` if the file is not text.
    """
    try:
        raw = unzipped(path.read_bytes())
        text = _decoded(raw)
    except FileNotFoundError:
        raise DataError(f"There is no file {path}.") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not a UTF-8 text file (nor one that gzip made of it): line {line} holds "
            f'the byte 0x{error.object[error.start]:02X}. Save it as UTF-8; in Excel: "CSV UTF-8".'
        ) from None
    except ValueError as error:
        raise DataError(f"{path} is not a UTF-8 text file: {error}.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    if "\0" in text:
        raise DataError(f"{path} is not a UTF-8 text file (nor one that gzip made of it).")
    return text


def why_not(error: BaseException, place: Path | str) -> str:
    """Why a library could not load the model, tokenizer or adapter at `place`, so that it helps."""
    if pointer := _pointer_in(Path(place).expanduser()):
        return pointer
    if "trust_remote_code" in str(error):
        return (
            "it needs code of its own (auto_map), which is not run here; serve it with another "
            "server (vLLM, llama.cpp, Ollama), and give that as EMPO_ENGINE."
        )
    if "ignore_mismatched_sizes" in str(error):
        return "its weights have other sizes than its config.json says; get both from one version."
    return first_line(error)


def _pointer_in(folder: Path) -> str:
    """What is wrong if a file in `folder` was cloned without Git LFS; "" if none was."""
    if not folder.is_dir():
        return ""
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < _POINTER_BYTES:
            with suppress(OSError):
                if file.read_bytes().startswith(b"version https://git-lfs"):
                    return (
                        f"{file.name} is only a pointer of Git LFS; run `git lfs pull` in its "
                        "folder, or get it with `hf download`."
                    )
    return ""


def _decoded(raw: bytes) -> str:
    """The text of bytes. UTF-16 without a mark is known by the NUL beside an ASCII character."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16")
    if len(raw) > 1 and (raw[0] == 0) != (raw[1] == 0):
        return raw.decode("utf-16-le" if raw[1] == 0 else "utf-16-be")
    return raw.decode("utf-8-sig")


def unzipped(raw: bytes) -> bytes:
    """What gzip packed, or `raw` itself if gzip did not. Raises a `ValueError` if it is damaged."""
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (OSError, EOFError, zlib.error):
        raise ValueError("its gzip data are damaged") from None


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text. Raises a `ValueError` with a plain reason.

    It is stricter than `json.loads`: no NaN or Infinity, no lone surrogates (no database and no
    file can store them), and at most `MAX_DEPTH` levels, so that no recursion over the value
    overflows the stack.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
        _check(value)
    except (ValueError, RecursionError) as error:
        raise _plain(error) from None
    return value


def _plain(error: ValueError | RecursionError) -> ValueError:
    """What Python says of a JSON text that it cannot read, in plain words."""
    if isinstance(error, RecursionError):
        return ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    if isinstance(error, UnicodeDecodeError):
        return ValueError("it is not UTF-8 text")
    if isinstance(error, json.JSONDecodeError):
        return ValueError(f"it is not JSON ({error.msg})")
    return error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield (line, value) of each line that is not empty; a bad line gives a `ValueError`.

    A file that is one list gives its elements, each with the line where it begins. A gzipped file
    is read, too. Raises `DataError` if the file cannot be read at all.
    """
    try:
        with path.open("rb") as file:
            if _is_plain_jsonl(file.peek(1)):
                yield from _lines_of(file)
                return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    yield from json_rows(read_text(path))


def json_rows(text: str) -> Iterator[tuple[int, Any]]:
    """Like `json_lines`, of a whole text."""
    lines = text.split("\n")
    begun = [line for line in lines if line.strip()]
    if begun and begun[0].lstrip().startswith("[") and _is_one_list(begun):
        yield from _elements(text)
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _parsed(line)


def _is_plain_jsonl(head: bytes) -> bool:
    """Whether a file that begins so can be read line by line: it is UTF-8 and not one list."""
    packed = head[:2] in (b"\x1f\x8b", b"\xff\xfe", b"\xfe\xff") or b"\0" in head[:2]
    return not packed and head.removeprefix(_MARK).lstrip()[:1] != b"["


def _lines_of(file: io.BufferedReader) -> Iterator[tuple[int, Any]]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        whole = line.endswith(b"\n") or len(line) < MAX_LINE
        while not whole and not file.readline(MAX_LINE).endswith(b"\n"):
            whole = file.peek(1) == b""
        if len(line) >= MAX_LINE:
            yield number, ValueError(f"it is longer than {MAX_LINE:,} bytes")
        elif line.strip():
            yield number, _parsed(line.removeprefix(_MARK))


def _is_one_list(lines: list[str]) -> bool:
    """Whether the text is one list, and not a list on each line."""
    return len(lines) == 1 or isinstance(_parsed(lines[0]), ValueError)


def _elements(text: str) -> Iterator[tuple[int, Any]]:
    """(line, element) of the list that `text` is. What follows a fault is not read."""
    decoder = json.JSONDecoder(parse_constant=_refuse)
    place = _after_space(text, text.index("[") + 1)
    line = 1 + text.count("\n", 0, place)
    ended = text[place : place + 1] == "]"
    if ended:
        place = _after_space(text, place + 1)
    while not ended:
        begun = place
        try:
            value, place = decoder.raw_decode(text, begun)
            _check(value)
        except (ValueError, RecursionError) as error:
            yield line, _plain(error)
            return
        yield line, value
        place = _after_space(text, place)
        mark = text[place : place + 1]
        if mark not in (",", "]"):
            yield line, ValueError("the list is not closed after it")
            return
        ended = mark == "]"
        place = _after_space(text, place + 1)
        line += text.count("\n", begun, place)
    if place < len(text):
        yield line, ValueError("something stands after the end of the list")


def _after_space(text: str, place: int) -> int:
    space = _SPACE.match(text, place)
    return space.end() if space else place


def _parsed(line: str | bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        return error


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}, which is not a JSON number")


def _check(value: Any) -> None:
    """Refuse too many levels and lone surrogates, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for part in level:
            if isinstance(part, str):
                _check_text(part)
            elif isinstance(part, dict):
                for key in part:
                    _check_text(key)
                below += part.values()
            elif isinstance(part, list):
                below += part
        if not below:
            return
        level = below
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a text holds half of a surrogate pair (\\ud800 to \\udfff)") from None


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place at the end, or is removed.

    So `path` is written completely or not at all. Raises `DataError` if it cannot be written.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}.") from None
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


WHOLE_FILE = 256 * 2**20
"""Files up to this many bytes are hashed completely, longer ones by samples; see `_digest`."""
BLOCK = 2**20
SAMPLES = 64
_KINDS = (".safetensors", ".bin", ".gguf", ".model", ".jinja")
_NAMES = ("config.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")


def fingerprint(model: str | None) -> str | None:
    """The hash of the content of a local model or file, or an unchanged Hub id."""
    if not model:
        return None
    path = Path(model)
    if path.is_file():
        return _file(path)
    if not path.is_dir():
        return model
    total = hashlib.sha256()
    for file in sorted(path.iterdir()):
        if file.is_file() and (file.suffix in _KINDS or file.name in _NAMES):
            total.update(f"{file.name}\0{_file(file)}\0".encode())
    return total.hexdigest()


def _file(path: Path) -> str:
    status = path.stat()
    return _digest(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file. Above `WHOLE_FILE`, of its size and of evenly spaced blocks.

    Reading a whole adapter of 12 GB would delay the page by half a minute. Training changes every
    weight, so the blocks differ between two checkpoints. `modified` is only part of the cache key.
    """
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            return hashlib.file_digest(file, "sha256").hexdigest()
        total = hashlib.sha256(str(size).encode())
        for number in range(SAMPLES):
            file.seek((size - BLOCK) * number // (SAMPLES - 1))
            total.update(file.read(BLOCK))
        return total.hexdigest()
