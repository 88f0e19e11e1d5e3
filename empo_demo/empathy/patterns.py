"""Lists of patterns: reads `assets/safety/*.txt` and prepares texts for them.

A file has `[section]` headings with one regular expression per line, `# comments`, and a
`[macros]` section whose names are written `{NAME}` in the patterns. Pure: text in, names out.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from empo_demo.errors import DataError
from empo_demo.settings import ASSETS

_APOSTROPHES = dict.fromkeys(map(ord, "'’‘ʼ`´"), "")
_INVISIBLE = dict.fromkeys(map(ord, '\u00ad\u200b\u200c\u200d\u2060\ufeff*_~"'), "")
_SPACES = {ord(character): " " for character in "-–—/\\|\t\r"}
_TABLE = {**_APOSTROPHES, **_INVISIBLE, **_SPACES}
_SPELLINGS = (
    (re.compile(r"(?<=[a-z])[1!](?=[a-z])"), "i"),
    (re.compile(r"(?<=[a-z])0(?=[a-z])"), "o"),
    (re.compile(r"(?<=[a-z])3(?=[a-z])"), "e"),
    (re.compile(r"([a-z])\1{2,}"), r"\1"),
    (re.compile(r"\bwanna\b"), "want to"),
    (re.compile(r"\b(?:gonna|gunna|imma|finna)\b"), "going to"),
    (re.compile(r"\bgotta\b"), "have to"),
    (re.compile(r"\b(?:u|ya)\b"), "you"),
    (re.compile(r"\b(?:anymore|any more)\b"), "any more"),
    (re.compile(r"\b(?:can not)\b"), "cannot"),
    (re.compile(r"\.{2,}|…"), "."),
    (re.compile(r"[ ]+"), " "),
)
_NAME = re.compile(r"\{([A-Z]+)\}")


@dataclass(frozen=True, slots=True)
class Patterns:
    """Compiled patterns by section. Matches of the `spared` patterns are cut out first."""

    sections: dict[str, tuple[re.Pattern[str], ...]]
    spared: tuple[re.Pattern[str], ...]

    def sections_in(self, text: str) -> tuple[str, ...]:
        """The sections with a match in any line of `text`, in the order of the file."""
        sections = set()
        for line in prepare(text).split("\n"):
            for pattern in self.spared:
                line = pattern.sub(" ; ", line)
            sections |= {
                name
                for name, patterns in self.sections.items()
                if name not in sections and any(pattern.search(line) for pattern in patterns)
            }
        return tuple(name for name in self.sections if name in sections)


def prepare(text: str) -> str:
    """Lower case, no apostrophes or marks, hyphens as spaces, common spellings written out."""
    plain = unicodedata.normalize("NFKC", text).lower().translate(_TABLE)
    for pattern, replacement in _SPELLINGS:
        plain = pattern.sub(replacement, plain)
    return "\n".join(line.strip() for line in plain.split("\n") if line.strip())


@cache
def load_patterns(name: str, spared: str = "") -> Patterns:
    """Read `assets/safety/NAME.txt`. Matches of the section `spared` are cut out first."""
    path = ASSETS / "safety" / f"{name}.txt"
    sections, macros = _read(path)
    compiled = {
        section: tuple(_compile(line, macros, path) for line in lines)
        for section, lines in sections.items()
    }
    return Patterns({k: v for k, v in compiled.items() if k != spared}, compiled.get(spared, ()))


def _read(path: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in path.read_text(encoding="utf8").splitlines():
        if line.startswith("[") and line.endswith("]") and re.fullmatch(r"\[[a-z -]+\]", line):
            current = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("#"):
            current.append(line)
    pairs = (line.split(" = ", 1) for line in sections.pop("macros", []))
    return sections, {name.strip(): value.strip() for name, value in pairs}


def _compile(line: str, macros: dict[str, str], path: Path) -> re.Pattern[str]:
    expanded = line
    for _ in range(3):
        expanded = _NAME.sub(lambda match: macros[match[1]], expanded)
    try:
        return re.compile(expanded)
    except re.error as error:
        raise DataError(f"{path.name}: the pattern {line!r} cannot be read: {error}.") from None
