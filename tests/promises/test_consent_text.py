"""What each sentence of the consent text promises, tried with an arena."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.board.ballots import ballots_of_store
from empo_demo.board.board import board
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed, StorageError
from empo_demo.exchange.export import export_file, write_export
from empo_demo.exchange.hub import Pusher
from empo_demo.exchange.hub_backup import Backup
from empo_demo.exchange.record_files import import_file
from empo_demo.votes import janitor
from empo_demo.votes.models import Limit
from empo_demo.votes.store import RateLimit, Store
from tests.conftest import ROSTER, arena_at
from tests.exchange.conftest import readable, rows
from tests.hub import Hub
from tests.promises.play import TEXT, cast, everything, later, opened, published

HOME = "203.0.113.7"


@pytest.mark.keeps("If you agree, this arena stores what you write here, both replies, your vote,")
def test_what_is_named_is_stored(arena: Arena) -> None:
    voter = arena.new_voter()
    cast(arena, voter, comment="Warm.")
    (record,) = arena.my_data(voter)
    own, vote = record["round"], record["vote"]
    assert own["dialogue"] == [{"role": "user", "content": TEXT}]
    assert all(reply["text"] for reply in record["replies"]) and len(record["replies"]) == 2
    assert (vote["verdict"], vote["ratings"], vote["comment"]) == ("a", {"a_natural": 70}, "Warm.")
    assert own["reading"]["emotions"][0]["label"] == "disappointed"
    assert vote["seconds"] >= 0 and own["consent"] == arena.consent_text().version


@pytest.mark.keeps(
    "It is used for research on empathetic language models: votes rank the models and train"
)
def test_a_vote_ranks_the_models_becomes_a_pair_and_is_published(
    arena: Arena, tmp_path: Path
) -> None:
    cast(arena, arena.new_voter())
    assert board(ballots_of_store(arena.store), ROSTER).ranking.votes == 1
    assert export_file(arena.settings.database, "trl", tmp_path / "pairs").rows == 1
    later(arena.store, hours=25)
    assert TEXT in published(arena, tmp_path)


@pytest.mark.keeps(
    "Do not write names, addresses or anything else that tells who you or others are."
)
def test_who_writes_personal_details_is_asked_before_anything_is_stored(arena: Arena) -> None:
    for said in (
        "Mail me at ann@example.org.",
        "Call me on 202-555-0143, I live at 12 Elm Street.",
    ):
        (notice,) = arena.judge(said).warnings
        assert notice.kind == "personal"
    assert arena.judge(TEXT).warnings == ()


@pytest.mark.keeps(
    "Rounds in which such details or signs of a crisis are noticed are never published."
)
@pytest.mark.parametrize("said", ["Mail me at ann@example.org.", "I want to kill myself."])
def test_what_must_not_be_published_is_not_wherever_it_is_written(
    arena: Arena, tmp_path: Path, said: str
) -> None:
    voter = arena.new_voter()
    try:
        cast(arena, voter, said)
    except NotAllowed:
        assert "kill" in said, "a crisis is answered by help, and opens no round"
    cast(arena, voter, "It rained as I voted.", comment=said)
    rated = cast(arena, voter, "It rained as I rated.")
    arena.set_ratings(voter, rated, {"natural": 3}, said)
    arena.set_ratings(voter, rated, {"natural": 4}, "Replaced.")
    later(arena.store, hours=48)
    whole = published(arena, tmp_path)
    assert "rained" not in whole and "ann@" not in whole and "kill" not in whole
    assert export_file(arena.settings.database, "jsonl", tmp_path / "all").rows == 0


@pytest.mark.keeps("Your browser holds a random token that ties your votes together.")
def test_the_token_is_random_and_ties_the_votes_of_a_browser_together(arena: Arena) -> None:
    tokens = {arena.new_voter() for _ in range(200)}
    assert len(tokens) == 200 and all(len(token) == 43 for token in tokens)
    mine, theirs = arena.new_voter(), arena.new_voter()
    ids = [cast(arena, mine), cast(arena, mine)]
    cast(arena, theirs)
    assert [vote["round_id"] for vote in arena.my_votes(mine)] == ids


@pytest.mark.keeps("That makes them pseudonymous, not anonymous.")
def test_what_is_published_has_a_pseudonym_and_no_token(arena: Arena, tmp_path: Path) -> None:
    mine, theirs = arena.new_voter(), arena.new_voter()
    for voter in (mine, mine, theirs):
        cast(arena, voter)
    later(arena.store, hours=25)
    whole = published(arena, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "trl").read_text().splitlines()]
    names = [row["voter"] for row in rows]
    assert names[0] == names[1] != names[2]
    stored = everything(arena.store)
    assert mine not in whole + stored and theirs not in whole + stored


@pytest.mark.keeps(
    "Your network address is kept as a keyed hash only, for at most an hour, to limit abuse."
)
def test_an_address_is_a_keyed_hash_for_an_hour_at_most(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    arena = arena_at(url, limit=RateLimit(per_address=3))
    cast(arena, arena.new_voter(), address=HOME)
    opened(arena, arena.new_voter(), agreed=False, address=HOME)
    list(arena.explore(Comparison(Dialogue().plus("user", "Hello.")), address=HOME)[1])
    assert HOME not in everything(arena.store) and HOME not in caplog.text
    with arena.store.database.read() as session:
        keys = set(session.scalars(select(Limit.key).where(Limit.key.like("a:%"))))
    other = arena_at(f"sqlite:///{tmp_path}/other.sqlite3").store
    limits = arena.store.limits
    assert keys == {limits.address_key(HOME), limits.address_key(HOME, "explore")}
    assert other.limits.address_key(HOME) not in keys, "another key, another hash"
    opened(arena, arena.new_voter(), address=HOME)
    with pytest.raises(NotAllowed, match="3 rounds"):
        opened(arena, arena.new_voter(), address=HOME)
    later(arena.store, minutes=59)
    janitor.clean(arena.store)
    assert not any(key in everything(arena.store) for key in keys)
    arena.store.close()


@pytest.mark.keeps("If you log in with a Hub account and agree, your user name is stored too.")
def test_a_user_name_is_stored_only_with_consent_and_never_published(
    arena: Arena, tmp_path: Path
) -> None:
    cast(arena, arena.new_voter(), agreed=False, user="anna-refused")
    cast(arena, arena.new_voter(), agreed=True, user="anna-agreed")
    stored = everything(arena.store)
    assert "anna-agreed" in stored and "anna-refused" not in stored
    later(arena.store, hours=25)
    assert "anna" not in published(arena, tmp_path)
    export_file(arena.settings.database, "jsonl", tmp_path / "all")
    assert "anna" not in (tmp_path / "all").read_text()


@pytest.mark.keeps("Votes are kept without a time limit until you delete them:")
def test_a_vote_stays_until_it_is_deleted_and_then_goes_at_once(arena: Arena) -> None:
    voter, other = arena.new_voter(), arena.new_voter()
    cast(arena, voter, comment="A comment of mine.")
    cast(arena, other, "It rained all day.")
    later(arena.store, days=800)
    arena.store.erasure.purge()
    assert len(arena.my_votes(voter)) == 1
    assert arena.delete_my_data(voter) == 1
    stored = everything(arena.store)
    assert TEXT not in stored and "A comment of mine." not in stored
    assert arena.my_data(voter) == [] and len(arena.my_votes(other)) == 1


@pytest.mark.keeps(
    "Votes are published 24 hours after they were cast at the earliest; for one that was already"
)
def test_a_published_vote_leaves_the_data_set_with_its_history_and_a_tombstone(
    arena: Arena, hub: Hub
) -> None:
    voter, pusher = arena.new_voter(), Pusher(arena.store, "anna/votes")
    gone, kept = cast(arena, voter), cast(arena, arena.new_voter(), "It rained all day.")
    later(arena.store, hours=23.9)
    assert pusher.push().published == 0 and not hub.repositories
    later(arena.store, hours=0.2)
    assert pusher.push().published == 2
    held = hub.repositories["dataset/anna/votes"]
    assert b"license: cc-by-4.0" in held.files["README.md"]
    assert TEXT.encode() in readable(hub, "anna/votes")
    arena.delete_my_data(voter)
    assert pusher.push().withdrawn == 1
    assert TEXT.encode() not in readable(hub, "anna/votes"), "nor in an earlier commit"
    assert rows(hub, "anna/votes") == [kept] and held.squashed == 1
    assert gone in held.files["tombstones.jsonl"].decode()


@pytest.mark.keeps(
    'Votes are kept without a time limit until you delete them: "Delete all my data" removes them'
)
def test_deleted_votes_leave_the_private_backup_as_soon_as_it_can_be_reached(
    arena: Arena, hub: Hub
) -> None:
    backup, voter = Backup(arena.store, "anna/backup"), arena.new_voter()
    cast(arena, voter)
    cast(arena, arena.new_voter(), "It rained all day.")
    cast(arena, arena.new_voter(), "I lost my umbrella on the bus.", agreed=False)
    assert backup.write() == 2 and hub.repositories["dataset/anna/backup"].private
    assert TEXT.encode() in readable(hub, "anna/backup")
    arena.delete_my_data(voter)
    hub.down = True
    with pytest.raises(StorageError):
        backup.write()
    hub.down = False
    assert backup.write() == 1
    left = readable(hub, "anna/backup")
    assert b"rained" in left and TEXT.encode() not in left and b"Nobody may" not in left


@pytest.mark.keeps("Copies that others made cannot be called back.")
def test_a_copy_stays_until_its_owner_reads_the_tombstones(arena: Arena, tmp_path: Path) -> None:
    voter = arena.new_voter()
    cast(arena, voter)
    export_file(arena.settings.database, "jsonl", tmp_path / "copy.jsonl")
    others = Store.open(f"sqlite:///{tmp_path}/others.sqlite3")
    assert import_file(others, tmp_path / "copy.jsonl").new == 1
    arena.delete_my_data(voter)
    assert TEXT in everything(others)
    others.erasure.bury(arena.store.erasure.tombstones())
    assert TEXT not in everything(others)
    assert import_file(others, tmp_path / "copy.jsonl").withdrawn == 1
    others.close()


@pytest.mark.keeps(
    "If you do not agree, you can use the arena all the same: nothing is published or used,"
)
def test_without_consent_all_works_nothing_is_used_and_all_goes_within_the_hour(
    arena: Arena, tmp_path: Path
) -> None:
    voter = arena.new_voter()
    round_id = cast(arena, voter, agreed=False, comment="A comment of mine.")
    assert arena.find(voter, round_id).receipt and arena.go_on(voter, round_id).turns
    assert board(ballots_of_store(arena.store), ROSTER).ranking.votes == 0
    assert arena.store.contender_counts() == {}
    stats, report = arena.stats(), write_export(arena.store, "csv", tmp_path / "csv", public=True)
    assert not stats.rounds and not stats.votes and not stats.voters and not stats.fast
    assert not any(stats.left_out.values()) and stats.checks == {"asked": 0, "passed": 0}
    assert report.votes == 0 and not report.left_out
    later(arena.store, minutes=30)
    last = opened(arena, voter, "It rained as I went on.", agreed=False)
    later(arena.store, minutes=29.5)
    janitor.clean(arena.store)
    assert arena.find(voter, last).state == "votable"
    later(arena.store, minutes=30)
    janitor.clean(arena.store)
    stored = everything(arena.store)
    assert not any(part in stored for part in (TEXT, "went on", "A comment of mine."))
    assert TEXT not in published(arena, tmp_path)
    path = arena.store.database.path
    assert path is not None
    files = b"".join(one.read_bytes() for one in path.parent.glob(f"{path.name}*"))
    assert TEXT.encode() not in files and b"went on" not in files


def test_what_was_written_before_agreeing_is_not_kept_by_going_on(arena: Arena) -> None:
    """The later round would hold the earlier turns; the visitor is told, and decides."""
    voter, version = arena.new_voter(), arena.consent_text().version
    first = cast(arena, voter, agreed=False)
    with pytest.raises(NotAllowed, match="before you agreed, so it is not kept: start a new"):
        arena.open_round(voter, arena.go_on(voter, first), "It still hurts.", consent=version)
    second = arena.open_round(voter, arena.go_on(voter, first), "It still hurts.")
    list(arena.stream(voter, second.round_id))
    arena.vote(voter, second.round_id, "b")
    with pytest.raises(NotAllowed, match="before you agreed"):
        arena.open_round(voter, arena.go_on(voter, second.round_id), "And now.", consent=version)
    cast(arena, voter, "A new dialogue.")
    later(arena.store, minutes=59)
    janitor.clean(arena.store)
    stored = everything(arena.store)
    assert TEXT not in stored and "still hurts" not in stored and "A new dialogue." in stored


def test_who_tried_an_example_may_agree_and_go_on(arena: Arena) -> None:
    """The example's words are not the visitor's."""
    voter, version = arena.new_voter(), arena.consent_text().version
    tried = cast(arena, voter, "An example's text.", agreed=False, example="The example")
    went_on = arena.open_round(
        voter, arena.go_on(voter, tried), "My own words.", consent=version, example="The example"
    )
    list(arena.stream(voter, went_on.round_id))
    arena.vote(voter, went_on.round_id, "a")
    assert arena.stats().votes == {"a": 1}
