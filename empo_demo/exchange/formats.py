"""The rows that one voted round makes in each format of an export.

Prompts contain no guidance, so that a pair is two completions of the same prompt. Personal data is
masked.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from empo_demo.dialogue import Dialogue
from empo_demo.empathy.personal import mask_personal, mask_words
from empo_demo.engine.text.marks import defuse
from empo_demo.errors import StorageError
from empo_demo.votes.models import SIDES, VERDICTS, Round, Vote
from empo_demo.votes.reasons import mixed_strategies
from empo_demo.votes.record import record_of

_OTHER: dict[str, str] = {"a": "b", "b": "a"}


def _trl(round_: Round) -> list[dict[str, Any]]:
    """TRL's conversational preference row with an explicit prompt; none without a preference."""
    vote = _vote(round_)
    better = VERDICTS[vote.verdict].preferred
    if better is None:
        return []
    chosen, rejected = round_.reply(better), round_.reply(_OTHER[better])
    return [
        {
            "prompt": _prompt(round_),
            "chosen": [_reply(chosen.text)],
            "rejected": [_reply(rejected.text)],
            "chosen_contender": chosen.contender,
            "rejected_contender": rejected.contender,
            "chosen_revision": chosen.revision,
            "rejected_revision": rejected.revision,
            "chosen_side": better,
            "mixed_strategies": mixed_strategies(round_),
            **_facts(round_),
        }
    ]


def _kto(round_: Round) -> list[dict[str, Any]]:
    """TRL's unpaired rows: the better reply is true, the other false; of both bad, both false."""
    vote = _vote(round_)
    labels = VERDICTS[vote.verdict].labels
    return [
        {
            "prompt": _prompt(round_),
            "completion": [_reply(round_.reply(side).text)],
            "label": label,
            "contender": round_.reply(side).contender,
            "revision": round_.reply(side).revision,
            "side": side,
            "mixed_strategies": mixed_strategies(round_),
            **_facts(round_),
        }
        for side, label in labels.items()
    ]


def _table(round_: Round) -> list[dict[str, Any]]:
    """One flat row per vote, with both sides."""
    vote = _vote(round_)
    row: dict[str, Any] = {
        **_facts(round_),
        "dialogue": json.dumps(_messages(round_), ensure_ascii=False),
        "verdict": vote.verdict,
        "chosen": vote.chosen,
        "seconds": vote.seconds,
        "fast": vote.fast,
        "comment": _mask(vote.comment or ""),
        "ratings": json.dumps(vote.ratings or {}),
        "seed": round_.seed,
        "exposure": round_.exposure,
        "show_chips": round_.show_chips,
        "show_plots": round_.show_plots,
        "emotion": _emotion(round_),
        "valence": (round_.reading or {}).get("valence"),
        "valence_source": (round_.reading or {}).get("valence_source"),
    }
    for side in SIDES:
        reply = round_.reply(side)
        row |= {
            f"{side}_contender": reply.contender,
            f"{side}_revision": reply.revision,
            f"{side}_strategy": reply.strategy,
            f"{side}_text": _mask(reply.text or ""),
            f"{side}_guidance": _mask(reply.guidance or ""),
            f"{side}_tokens": reply.tokens,
            f"{side}_milliseconds": reply.milliseconds,
            f"{side}_reason": reply.reason,
            f"{side}_seed": reply.seed,
        }
    return [row]


def _record(round_: Round) -> list[dict[str, Any]]:
    """All columns, as `votes import` reads them. Texts are masked, and what was read in them."""
    record = record_of(round_)
    own, vote = record["round"], record["vote"]
    said = str(own["dialogue"][-1]["content"])
    own["dialogue"] = [
        {key: _mask(str(value)) if key != "role" else value for key, value in turn.items()}
        for turn in own["dialogue"]
    ]
    own["reading"] = _masked_reading(own["reading"], said)
    for row, keys in (
        (own, ("example", "sem_error", "void_reason")),
        (vote, ("comment",)),
        *((reply, ("text", "guidance", "thought", "error")) for reply in record["replies"]),
    ):
        row.update({key: _mask(row[key]) for key in keys if row[key]})
    if own["dialogue"] != round_.dialogue:
        # The digest of the whole dialogue would let a short masked part be guessed and checked.
        chosen = next(reply for reply in record["replies"] if reply["side"] == vote["chosen"])
        masked = Dialogue.from_messages(own["dialogue"]).plus("assistant", chosen["text"] or "…")
        vote["continued"] = masked.digest
    return [record]


def _masked_reading(reading: dict[str, Any] | None, said: str) -> dict[str, Any] | None:
    """The SEM's reading of `said`: its words are masked like the text that they lie in."""
    if reading is None:
        return None
    lists = {key: reading[key] for key in ("causes", "valence_words") if reading.get(key)}
    return reading | {key: mask_words(said, words) for key, words in lists.items()}


TABLE: dict[str, type] = {
    "round_id": str,
    "voter": str,
    "time": str,
    "consent": str,
    "app_version": str,
    "dropped_exchanges": int,
    "dialogue": str,
    "verdict": str,
    "chosen": str,
    "seconds": float,
    "fast": bool,
    "comment": str,
    "ratings": str,
    "seed": int,
    "exposure": str,
    "show_chips": bool,
    "show_plots": bool,
    "emotion": str,
    "valence": float,
    "valence_source": str,
} | {
    f"{side}_{name}": kind
    for side in SIDES
    for name, kind in {
        "contender": str,
        "revision": str,
        "strategy": str,
        "text": str,
        "guidance": str,
        "tokens": int,
        "milliseconds": float,
        "reason": str,
        "seed": int,
    }.items()
}
"""The columns of the CSV and Parquet tables, in order, with their types."""


def _facts(round_: Round) -> dict[str, Any]:
    """The columns of every row: round, time, consent and version, and how many of the dialogue's
    first exchanges neither model read.

    The voter is a hash of a hash, so that rows can be grouped by voter but identify nobody.
    """
    vote = _vote(round_)
    return {
        "round_id": round_.id,
        "voter": hashlib.sha256(f"export {round_.voter}".encode()).hexdigest()[:16],
        "time": vote.created_at.isoformat(),
        "consent": round_.consent,
        "app_version": round_.app_version,
        "dropped_exchanges": round_.dropped_exchanges,
    }


def _prompt(round_: Round) -> list[dict[str, str]]:
    """The messages as the models read them: whoever trains on them opens no turn that was typed.

    Rounds from before this was stored have the tags of the common templates broken.
    """
    read = [turn.get("read") for turn in round_.dialogue]
    messages = _messages(round_)
    head = len(messages) - len(read)
    return [
        {**message, "content": _mask(str(text)) if text else defuse(message["content"], ())}
        for message, text in zip(messages, [None] * head + read, strict=True)
    ]


def _messages(round_: Round) -> list[dict[str, str]]:
    """The prompt of both sides: the system prompt, if any, and the dialogue, without guidance."""
    system = [{"role": "system", "content": round_.system_prompt}] if round_.system_prompt else []
    turns = [{"role": str(t["role"]), "content": _mask(str(t["content"]))} for t in round_.dialogue]
    return [*system, *turns]


def _reply(text: str | None) -> dict[str, str]:
    return {"role": "assistant", "content": _mask(text or "")}


def _emotion(round_: Round) -> str | None:
    """The most probable emotion of the round; None where the reading abstains."""
    reading = round_.reading or {}
    emotions = [] if reading.get("unread") else reading.get("emotions") or []
    return str(emotions[0]["label"]) if emotions else None


def _mask(text: str) -> str:
    return mask_personal(text) if text else text


def _vote(round_: Round) -> Vote:
    if round_.vote is None:
        raise StorageError(f"The round {round_.id} has no vote; the database is inconsistent.")
    return round_.vote


def rows_of(form: str, round_: Round) -> list[dict[str, Any]]:
    """The rows that one voted round makes in a format."""
    return _ROWS[form](round_)


_ROWS = {
    "trl": _trl,
    "kto": _kto,
    "csv": _table,
    "parquet": _table,
    "jsonl": _record,
}
FORMATS = tuple(_ROWS)
