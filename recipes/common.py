"""What several recipes ask for: replies as texts, and dialogues about anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from empo_demo.dialogue import Message, plain_commas
from empo_demo.engine.protocol import Engine, Failed, Request
from empo_demo.errors import DataError, EngineError
from empo_demo.evaluation.generate import ends
from empo_demo.training.corpus import read_lines

GENERAL = "general_dialogues.jsonl.gz"


def reply_texts(engine: Engine, requests: Sequence[Request]) -> list[str]:
    """The replies in the order of the requests. Raises `EngineError` if one failed."""
    texts = []
    for request, event in zip(requests, ends(engine, requests).values(), strict=True):
        if isinstance(event, Failed):
            raise EngineError(f"{request.contender} failed on {request.side}: {event.error}")
        texts.append(event.text)
    return texts


def read_general(folder: Path) -> Iterator[tuple[str, list[Message]]]:
    """(source, messages) of each general dialogue; the first speaker is the user."""
    for where, row in read_lines(folder / GENERAL):
        try:
            texts = [plain_commas(str(text)).strip() for text in row["utterances"]]
            source = str(row["source"])
        except (KeyError, TypeError):
            raise DataError(f"{where}: source and utterances were expected.") from None
        roles = ("user", "assistant")
        yield (
            source,
            [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts) if text],
        )
