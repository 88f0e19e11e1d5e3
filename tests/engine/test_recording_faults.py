"""What a card may refuse while a step is recorded, and that the steps after it go on as before."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch

from empo_demo.contenders.roster import Contender
from empo_demo.engine.loader import Loader
from empo_demo.engine.lockstep.forward import StepGraphs
from empo_demo.engine.lockstep.local import LocalEngine
from tests.engine.fake_graphs import Graph, Stream, graphs

__all__ = ["graphs"]
IDS, PLACES = torch.zeros(1, 2, dtype=torch.long), torch.zeros(2, dtype=torch.long)


@pytest.fixture
def steps(graphs: type[Graph], monkeypatch: pytest.MonkeyPatch) -> StepGraphs:
    """As on a card where recorded steps are faster."""
    monkeypatch.setattr(StepGraphs, "_pays", lambda *_: True)
    made = StepGraphs(torch.device("cpu"))
    made.on, made.verdict = True, "not tried"
    return made


def twice(ids: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, object]:
    return (2 * ids + places).float(), None


def played(steps: StepGraphs, key: Any, step: Any = twice) -> torch.Tensor:
    for _ in range(8):
        found = steps.run(key, step, IDS + 3, PLACES + 1)
    return found.clone()


def test_steps_go_on_in_their_own_stream_when_one_cannot_be_recorded(steps: StepGraphs) -> None:
    """torch leaves the recording's stream the current one if the end of a recording fails."""
    stream = Stream.current

    def reads(ids: torch.Tensor, places: torch.Tensor) -> tuple[torch.Tensor, object]:
        # As bitsandbytes does in int8: `if outliers.any()`.
        return (2 * ids + int(places.sum())).float(), None

    assert played(steps, "a", reads).tolist() == [[8.0, 8.0]]
    assert not steps.on and steps.verdict == "off: they cannot be recorded"
    assert Stream.current is stream


@pytest.mark.slow
def test_after_an_error_steps_are_recorded_again(steps: StepGraphs) -> None:
    """An error clears the batch. The allocator takes no graph into a pool whose graphs are gone."""
    assert played(steps, "a").tolist() == [[7.0, 7.0]] and Graph.replays
    steps.clear()
    gc.collect()
    before = Graph.replays
    assert played(steps, "a").tolist() == [[7.0, 7.0]]
    assert steps.on and Graph.replays > before, steps.verdict


def test_the_graphs_of_one_batch_share_their_memory(steps: StepGraphs) -> None:
    for key in "abc":
        played(steps, key)
    assert len(steps._graphs) == 3 and len(steps._pool.graphs) == 3


def test_layers_that_read_back_are_never_recorded(graphs: type[Graph]) -> None:
    device: Any = type("Device", (), {"type": "cuda"})()
    assert StepGraphs(device).on
    refused = StepGraphs(device, reads_back=True)
    assert not refused.on and refused.verdict == "not with int8"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bits", "told"), [("int8", "not with int8"), ("nf4", "not on this device")]
)
def test_a_model_in_int8_is_known_to_read_back(
    roster: tuple[Contender, ...], bits: Any, told: str
) -> None:
    loader = Loader("cpu", bits)
    engine = LocalEngine(loader.load(roster), loader.notes)
    assert engine.batch_of("aligned").forward.graphs.verdict == told
