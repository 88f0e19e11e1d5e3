"""The map of the rooms in ARCHITECTURE.md is true: which room may import which."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import empo_demo

ROOT = Path(empo_demo.__file__).parent
MAP = (ROOT.parent / "ARCHITECTURE.md").read_text(encoding="utf8")
ROOMS = re.findall(r"^(\w+)/  ", MAP, re.MULTILINE)
"""The folders of the map, from the top one down."""
TERMINAL = ("cli", "__main__")


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_of(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(path: Path) -> Iterator[str]:
    """The names of all that a file imports, wherever in the file, for types too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are written in full"
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in MODULES else str(node.module)


ARROWS = {
    name: {imported for imported in imports(path) if imported in MODULES}
    for name, path in MODULES.items()
}


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def test_the_map_names_every_room_and_no_other() -> None:
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()}
    assert set(ROOMS) == folders and len(ROOMS) == len(folders)


def test_the_map_names_every_file_beside_the_rooms() -> None:
    files = {path.stem for path in ROOT.glob("*.py")} - {"__init__", *TERMINAL}
    named = re.search(r"Beside the rooms: (.+), which every room may know", MAP, re.DOTALL)
    assert named is not None and set(re.findall(r"`(\w+)`", named[1])) == files


def test_imports_point_downwards() -> None:
    up = [
        f"{module} imports {imported}"
        for module, arrows in ARROWS.items()
        for imported in arrows
        if room_of(imported) in ROOMS
        and room_of(module) not in TERMINAL
        and (
            room_of(module) not in ROOMS
            or ROOMS.index(room_of(imported)) < ROOMS.index(room_of(module))
        )
    ]
    assert not up


def test_nothing_in_the_package_imports_the_recipes() -> None:
    wrong = [
        module
        for module, path in MODULES.items()
        if "recipes" in path.read_text("utf8")
        and any(name.split(".")[0] == "recipes" for name in imports(path))
    ]
    assert not wrong


def test_no_files_import_each_other_in_a_circle() -> None:
    left = {name: set(arrows) - {name} for name, arrows in ARROWS.items()}
    while free := [name for name, arrows in left.items() if not arrows & left.keys()]:
        for name in free:
            del left[name]
    assert not left


@pytest.mark.parametrize("folder", sorted({name.rpartition(".")[0] for name in MODULES} - {""}))
def test_what_stands_side_by_side_in_a_folder_imports_in_one_direction(folder: str) -> None:
    """Files and sub-rooms of a folder alike: no arrow comes back, however long its way."""
    depth = folder.count(".") + 1
    left: dict[str, set[str]] = {}
    for module, arrows in ARROWS.items():
        if module.startswith(f"{folder}."):
            here = module.split(".")[depth]
            there = {a.split(".")[depth] for a in arrows if a.startswith(f"{folder}.")}
            left.setdefault(here, set()).update(there - {here})
    while free := [name for name, arrows in left.items() if not arrows & left.keys()]:
        for name in free:
            del left[name]
    assert not left


def test_a_room_imports_no_library_that_it_must_not_know() -> None:
    forbidden = {
        "arena": {"gradio", "torch"},
        "votes": {"gradio", "torch", "transformers"},
        "board": {"gradio", "torch"},
        "exchange": {"gradio", "torch"},
    }
    forbidden |= {room: {"gradio"} for room in ROOMS if room not in ("ui", *forbidden)}
    wrong = [
        f"{module} imports {imported}"
        for module, path in MODULES.items()
        for imported in imports(path)
        if imported.split(".")[0] in forbidden.get(room_of(module), set())
    ]
    assert not wrong


def test_one_name_means_one_file() -> None:
    """Except `cli.py`, which each room has for its commands, and `__init__.py`."""
    names = [path.name for path in MODULES.values() if path.name not in ("__init__.py", "cli.py")]
    assert len(names) == len(set(names))
