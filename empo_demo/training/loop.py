"""The loop: votes -> preference pairs -> a new adapter -> a new contender beside its parent.

`python -m empo_demo loop --rounds N`. Each round exports the votes of the database, continues the
training of the current aligned adapter with TRL, and adds the result to the contenders' file with
its lineage (parent, number of pairs, hash of the data). No existing model or contender is changed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from empo_demo.errors import DataError, InvalidInput, SettingsError
from empo_demo.terminal import ForceAdapter
from empo_demo.training.corpus import file_hash
from empo_demo.training.recipe import Job

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.settings import Settings

Method = Literal["dpo", "kto"]
METHODS: dict[str, Method] = {"dpo": "dpo", "kto": "kto"}
LEAST_PAIRS = 10
"""With fewer pairs than this, no effect could be measured."""


@dataclass(frozen=True, slots=True)
class Course:
    """The settings of a loop: where it goes on from, and how it trains."""

    database: str
    out: Path = Path("runs/loop")
    parent: str = "aligned"
    method: Method = "dpo"
    epochs: float = 2.0
    learning_rate: float = 2e-4
    beta: float = 0.1
    batch: int = 32
    micro: int = 16
    length: int = 160
    seed: int = 0

    @property
    def roster(self) -> Path:
        return self.out / "contenders.toml"


def loop(
    rounds: Annotated[int, typer.Option(help="How often to retrain.", min=1, max=100)] = 1,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of adapters and contenders.")
    ] = Path("runs/loop"),
    database: Annotated[str | None, typer.Option(help="A SQLAlchemy URL.")] = None,
    parent: Annotated[str, typer.Option(help="The contender to go on from.")] = "aligned",
    method: Annotated[str, typer.Option(help="dpo, or kto (uses both-bad votes too).")] = "dpo",
    epochs: Annotated[float, typer.Option(help="Passes over the pairs.")] = 2.0,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-4,
    beta: Annotated[float, typer.Option(help="Strength of the tie to the parent.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of every draw.")] = 0,
    force_adapter: ForceAdapter = False,
) -> None:
    """Votes -> preference pairs -> a new adapter that enters the arena."""
    from empo_demo.settings import load_settings

    if method not in METHODS:
        raise InvalidInput(f"--method is {method!r}; it may be dpo or kto.")
    settings = load_settings(database=database, force_adapter=force_adapter or None)
    course = Course(
        settings.database, output, parent, METHODS[method], epochs, learning_rate, beta, seed=seed
    )
    for contender in run(settings, course, rounds):
        typer.echo(contender.id)
    print(f"Serve them: EMPO_PRESET={course.roster} python app.py", file=sys.stderr)


def run(settings: Settings, course: Course, rounds: int = 1) -> list[Contender]:
    """Run `rounds` rounds; return the new contenders. Each is added to `course.roster` at once."""
    made: list[Contender] = []
    roster = open_roster(settings, course)
    trainable(roster, course.parent)
    for _ in range(rounds):
        contender = retrain(course, roster)
        made.append(contender)
        course = replace(course, parent=contender.id)
        roster = open_roster(settings, course)
    return made


def open_roster(settings: Settings, course: Course) -> Roster:
    """The contenders of the loop's own file, which starts as a copy of the preset's."""
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.contenders.toml_file import write_roster

    if not course.roster.is_file():
        write_roster(course.roster, load_roster(settings))
    return load_roster(settings.model_copy(update={"preset": str(course.roster)}))


def retrain(course: Course, roster: Roster) -> Contender:
    """Export the votes, train from the parent's adapter, add the contender to the file."""
    from empo_demo.contenders.roster import Contender
    from empo_demo.contenders.toml_file import add_contender

    parent = trainable(roster, course.parent)
    name = _next_name(roster, course.parent)
    folder = course.out / name
    pairs = folder / "pairs.jsonl"
    count = export(course, pairs)
    digest = file_hash(pairs)
    known = {entry.data_hash: entry.id for entry in roster.contenders if entry.data_hash}
    if digest in known:
        raise DataError(
            f"The votes are the same as those that {known[digest]!r} was trained on; collect new "
            "ones, then run the loop again."
        )
    _train(course, parent, pairs, folder / "adapter")
    contender = Contender(
        id=name,
        base=parent.base,
        adapter=str((folder / "adapter").resolve()),
        strategy=parent.strategy,
        weight=parent.weight,
        parent=parent.id,
        votes=count,
        data_hash=digest,
        label=f"{_root(parent.label or parent.id)}, version {_version(name)}",
    )
    add_contender(course.roster, contender)
    return contender


def export(course: Course, path: Path) -> int:
    """Write the database's votes as TRL rows; return their number. `DataError` if too few."""
    from empo_demo.exchange.export import export_file

    path.parent.mkdir(parents=True, exist_ok=True)
    export_file(course.database, "trl" if course.method == "dpo" else "kto", path)
    with path.open(encoding="utf8") as file:
        count = sum(bool(line.strip()) for line in file)
    if count < LEAST_PAIRS:
        raise DataError(
            f"{course.database} holds {count} votes that can be trained on; at least {LEAST_PAIRS} "
            "are needed. Collect more, or look at `votes stats` for why they are left out."
        )
    return count


def _train(course: Course, parent: Contender, pairs: Path, out: Path) -> None:
    from empo_demo.training.dpo import run_dpo, run_kto

    job = Job(
        parent.base,
        out,
        adapter=Path(parent.adapter or ""),
        epochs=course.epochs,
        learning_rate=course.learning_rate,
        batch=course.batch,
        micro=course.micro,
        seed=course.seed,
        length=course.length,
    )
    if course.method == "dpo":
        run_dpo(job, pairs, beta=course.beta)
    else:
        run_kto(job, pairs, beta=course.beta)


def trainable(roster: Roster, name: str) -> Contender:
    parent = roster[name]
    if parent.adapter is None or not Path(parent.adapter).is_dir():
        raise SettingsError(
            f"The contender {name!r} has no adapter in a folder of this machine, so training "
            "cannot go on from it; give one that has with --parent."
        )
    return parent


def _root(name: str) -> str:
    return name.rsplit(", version ", 1)[0]


def _version(name: str) -> int:
    tail = name.rsplit("-v", 1)
    return int(tail[1]) if len(tail) == 2 and tail[1].isdigit() else 1


def _next_name(roster: Roster, parent: str) -> str:
    root = parent.rsplit("-v", 1)[0] if _version(parent) > 1 else parent
    number, taken = _version(parent) + 1, {contender.id for contender in roster.contenders}
    while f"{root}-v{number}" in taken:
        number += 1
    return f"{root}-v{number}"
