"""One contender's model as a plain transformers module, with the weights that the arena serves.

The engine loads them (quantised, adapter shared or merged, as its plan says). Here every row of
every forward pass belongs to the one contender, so any harness can use the module.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from empo_demo.contenders.roster import Contender, Roster
from empo_demo.engine.protocol import Engine
from empo_demo.errors import EngineError
from empo_demo.settings import Settings


@dataclass(frozen=True, slots=True)
class ContenderModel:
    """A causal language model that answers as one contender, and its tokenizer."""

    model: Any
    tokenizer: Any


def load_local(settings: Settings, roster: Roster, contenders: Sequence[Contender]) -> Engine:
    """An engine with only these contenders. Raises `EngineError` if their weights are not here."""
    from empo_demo.engine.loading import load_engine

    engine = load_engine(settings, replace(roster, contenders=tuple(contenders)))
    if not hasattr(engine, "model_of"):
        raise EngineError(
            f"EMPO_ENGINE holds {settings.engine!r}, which has no weights to evaluate; "
            "unset it, so that the models are loaded here."
        )
    return engine


@contextmanager
def open_model(engine: Engine, contender_id: str) -> Iterator[ContenderModel]:
    """The module of a contender, valid inside the context."""
    weights = engine.model_of(contender_id)  # type: ignore[attr-defined]
    adapter = weights.adapters[contender_id]

    def before(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        rows = len(tokens)
        counts = [tokens.shape[1]] * rows
        weights.rows.assign([adapter] * rows, [1.0] * rows, weights.like, counts)

    hook = None
    if weights.rows is not None:
        hook = weights.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield ContenderModel(weights.model, weights.tokenizer)
    finally:
        if hook is not None:
            hook.remove()
