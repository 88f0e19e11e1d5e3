"""The loop: votes -> preference pairs -> a new adapter -> a new contender beside its parent.

`python -m empo_demo loop --rounds N`. Each round exports the votes of the database, continues the
training of the current aligned adapter with TRL, and adds the result to the contenders' file with
its lineage (parent, number of pairs, hash of the data). No existing model or contender is changed.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from empo_demo.errors import DataError, InvalidInput, SettingsError
from empo_demo.progress import steps
from empo_demo.terminal import ForceAdapter

if TYPE_CHECKING:
    from empo_demo.contenders.roster import Contender, Roster
    from empo_demo.settings import Settings

Method = Literal["dpo", "kto"]
METHODS: dict[str, Method] = {"dpo": "dpo", "kto": "kto"}
LEAST_PAIRS = 10
"""With fewer pairs than this, no effect could be measured."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The settings of a loop. `simulate` names a taste of `simulate.TASTES`, or is None."""

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
    simulate: str | None = None
    votes: int = 500
    data: Path | None = None

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
    simulate: Annotated[
        str | None, typer.Option(help="Simulated voters first: question, or random.")
    ] = None,
    votes: Annotated[int, typer.Option(help="Simulated votes per round.", min=1)] = 500,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the dialogue files, for simulated voters.")
    ] = None,
    force_adapter: ForceAdapter = False,
) -> None:
    """Votes -> preference pairs -> a new adapter that enters the arena."""
    from empo_demo.settings import load_settings

    if method not in METHODS:
        raise InvalidInput(f"--method is {method!r}; it may be dpo or kto.")
    settings = load_settings(database=database, force_adapter=force_adapter or None)
    plan = Plan(
        settings.database, output, parent, METHODS[method], epochs, learning_rate, beta, seed=seed,
        simulate=simulate, votes=votes, data=data,
    )  # fmt: skip
    for contender in run(settings, plan, rounds):
        typer.echo(contender.id)
    print(f"Serve them: EMPO_PRESET={plan.roster} python app.py", file=sys.stderr)


def run(settings: Settings, plan: Plan, rounds: int = 1) -> list[Contender]:
    """Run `rounds` rounds; return the new contenders. Each is added to `plan.roster` at once."""
    made: list[Contender] = []
    roster = open_roster(settings, plan)
    _trainable(roster, plan.parent)
    for number in range(rounds):
        if plan.simulate is not None:
            vote(settings, plan, replace(roster), seed=plan.seed * 1000 + number)
        contender = retrain(plan, roster)
        made.append(contender)
        plan = replace(plan, parent=contender.id)
        roster = open_roster(settings, plan)
    return made


def open_roster(settings: Settings, plan: Plan) -> Roster:
    """The contenders of the loop's own file, which starts as a copy of the preset's."""
    from empo_demo.contenders.load_roster import load_roster
    from empo_demo.contenders.toml_file import write_roster

    if not plan.roster.is_file():
        write_roster(plan.roster, load_roster(settings))
    return load_roster(settings.model_copy(update={"preset": str(plan.roster)}))


def vote(settings: Settings, plan: Plan, roster: Roster, *, seed: int) -> dict[str, int]:
    """Let simulated voters cast `plan.votes` votes through the arena; return their verdicts."""
    from empo_demo.arena.arena import Arena
    from empo_demo.engine.loading import load_engine
    from empo_demo.training.simulate import cast_votes
    from empo_demo.votes.store import Store

    texts = first_turns(plan, "train")
    served = settings.model_copy(update={"database": plan.database, "seed": seed})
    store = Store.open(plan.database)
    engine = load_engine(served, roster)
    try:
        arena = Arena(served, roster, store, engine=engine)
        title = f"votes ({plan.simulate})"
        with steps(plan.votes) as begin:
            begin(title, 0)
            counts = cast_votes(
                arena, texts, taste=plan.simulate or "", votes=plan.votes, seed=seed,
                at_once=served.max_concurrent_rounds or 4, progress=partial(begin, title),
            )  # fmt: skip
    finally:
        getattr(engine, "close", lambda: None)()
        store.close()
    print(f"Verdicts: {dict(counts)}", file=sys.stderr)
    return dict(counts)


def first_turns(plan: Plan, split: Literal["train", "valid"]) -> list[str]:
    """The first turns of people in the dialogues of a split. The splits never mix."""
    from empo_demo.training.corpus import read_conversations

    if plan.data is None:
        raise InvalidInput("Simulated voters need something to say: give --data FOLDER.")
    texts = [one.turns[0]["content"] for one in read_conversations(plan.data, split)]
    return [text for text in texts if 3 <= len(text.split()) <= 20]


def retrain(plan: Plan, roster: Roster) -> Contender:
    """Export the votes, train from the parent's adapter, add the contender to the file."""
    from empo_demo.contenders.roster import Contender
    from empo_demo.contenders.toml_file import add_contender
    from empo_demo.training.corpus import file_hash

    parent = _trainable(roster, plan.parent)
    name = _next_name(roster, plan.parent)
    folder = plan.out / name
    pairs = folder / "pairs.jsonl"
    count = export(plan, pairs)
    digest = file_hash(pairs)
    known = {one.data_hash: one.id for one in roster.contenders if one.data_hash}
    if digest in known:
        raise DataError(
            f"The votes are the same as those that {known[digest]!r} was trained on; collect new "
            "ones, then run the loop again."
        )
    _train(plan, parent, pairs, folder / "adapter")
    contender = Contender(
        id=name, base=parent.base, adapter=str((folder / "adapter").resolve()),
        strategy=parent.strategy, weight=parent.weight, parent=parent.id, votes=count,
        data_hash=digest, label=f"{_root(parent.label or parent.id)}, version {_version(name)}",
    )  # fmt: skip
    add_contender(plan.roster, contender)
    return contender


def export(plan: Plan, path: Path) -> int:
    """Write the database's votes as TRL rows; return their number. `DataError` if too few."""
    from empo_demo.exchange.export import export_file

    path.parent.mkdir(parents=True, exist_ok=True)
    export_file(plan.database, "trl" if plan.method == "dpo" else "kto", path)
    with path.open(encoding="utf8") as file:
        count = sum(bool(line.strip()) for line in file)
    if count < LEAST_PAIRS:
        raise DataError(
            f"{plan.database} holds {count} votes that can be trained on; at least {LEAST_PAIRS} "
            "are needed. Collect more, or look at `votes stats` for why they are left out."
        )
    return count


def _train(plan: Plan, parent: Contender, pairs: Path, out: Path) -> None:
    from empo_demo.training.dpo import run_dpo, run_kto
    from empo_demo.training.recipe import Job

    job = Job(
        parent.base, out, adapter=Path(parent.adapter or ""), epochs=plan.epochs,
        learning_rate=plan.learning_rate, batch=plan.batch, micro=plan.micro, seed=plan.seed,
        length=plan.length,
    )  # fmt: skip
    if plan.method == "dpo":
        run_dpo(job, pairs, beta=plan.beta)
    else:
        run_kto(job, pairs, beta=plan.beta)


def _trainable(roster: Roster, name: str) -> Contender:
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
    number, taken = _version(parent) + 1, {one.id for one in roster.contenders}
    while f"{root}-v{number}" in taken:
        number += 1
    return f"{root}-v{number}"
