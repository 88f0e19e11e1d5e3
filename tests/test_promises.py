"""One test for each sentence of the consent text, and of what is claimed for security.

`keeps` names the sentence that a test is for. A sentence without a test is an error, and so is a
test for a sentence that is no longer there.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from sqlalchemy import func, inspect, select, update

from empo_demo.arena.arena import Arena
from empo_demo.arena.comparison import Comparison
from empo_demo.board.ballots import Ballot, ballots_of_store
from empo_demo.board.board import board
from empo_demo.dialogue import Dialogue
from empo_demo.errors import NotAllowed, StorageError
from empo_demo.exchange.export import export_file, write_export
from empo_demo.exchange.hub import Pusher
from empo_demo.exchange.hub_backup import Backup
from empo_demo.exchange.import_file import import_file
from empo_demo.settings import load_settings
from empo_demo.votes import consent, janitor
from empo_demo.votes.models import Base, Limit, Reply, Round, Vote, Voter
from empo_demo.votes.store import RateLimit, Store
from tests.attacks.conftest import Refused, Served, Stranger, serve
from tests.conftest import REPOSITORY, ROSTER, ScriptedEngine, ScriptedSEM
from tests.exchange import conftest as exchange
from tests.exchange.conftest import readable, rows
from tests.hub import Hub

hub = exchange.hub
Test = TypeVar("Test", bound=Callable[..., Any])
KEPT: dict[str, str] = {}
TEXT = "I failed my driving test again."
HOME = "203.0.113.7"
CONSENT = consent.TEXT
README = " ".join(
    word
    for name in ("README.md", "SECURITY.md")
    for word in (REPOSITORY / name).read_text(encoding="utf8").split()
)
CLAIMS = (
    "not blind, not stored.",
    "**Data**: what is stored about you",
    "Blindness protects honest voters only",
    "Attention checks, limits and clustered intervals protect the board.",
    "hostile files, servers, pages and floods refused",
)
"""What the README and SECURITY.md claim for security and privacy, in their words."""


def keeps(sentence: str) -> Callable[[Test], Test]:
    """The test is for the sentence that begins so."""

    def mark(test: Test) -> Test:
        KEPT[sentence] = test.__name__
        return test

    return mark


def sentences(whole: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ])", " ".join(whole.split()))


def test_each_sentence_has_one_test_in_both_languages() -> None:
    told = sentences(CONSENT)
    for sentence in told:
        assert [start for start in KEPT if sentence.startswith(start)], sentence
    for start in KEPT:
        assert [one for one in told if one.startswith(start)] or start in README, start
    for claim in CLAIMS:
        assert claim in README and claim in KEPT, claim
    assert len(sentences(consent.GERMAN)) == len(told)
    assert {consent.version_of(one) for one in consent.TEXTS.values()} == consent.VERSIONS


# What a visitor does ----------------------------------------------------------------------------


def opened(arena: Arena, voter: str, said: str = TEXT, *, agreed: bool = True, **more: Any) -> str:
    """An answered round."""
    version = arena.consent_text().version if agreed else None
    round_id = arena.open_round(voter, Dialogue(), said, consent=version, **more).round_id
    list(arena.stream(voter, round_id))
    return round_id


def cast(
    arena: Arena,
    voter: str,
    said: str = TEXT,
    comment: str = "",
    *,
    agreed: bool = True,
    **more: Any,
) -> str:
    round_id = opened(arena, voter, said, agreed=agreed, **more)
    arena.vote(voter, round_id, "a", ratings={"natural": 70}, comment=comment)
    return round_id


def later(store: Store, **by: float) -> None:
    """Time passes for all that is stored."""
    since = timedelta(**by)
    with store.database.write() as session:
        for table, name in (
            (Round, "created_at"),
            (Vote, "created_at"),
            (Vote, "comment_at"),
            (Limit, "at"),
            (Voter, "created_at"),
        ):
            for row in session.scalars(select(table)):
                if getattr(row, name) is not None:
                    setattr(row, name, getattr(row, name) - since)


def published(arena: Arena, folder: Path) -> str:
    """All that a stranger can download."""
    whole = ""
    for form in ("trl", "kto", "csv"):
        write_export(arena.store, form, folder / form, public=True)
        whole += (folder / form).read_text(encoding="utf8")
    return whole


def everything(store: Store) -> str:
    """Every value of every table, as text."""
    with store.database.read() as session:
        return json.dumps(
            [
                [list(row) for row in session.execute(select(table))]
                for table in Base.metadata.sorted_tables
            ],
            default=str,
            ensure_ascii=False,
        )


# The consent text -------------------------------------------------------------------------------


@keeps("If you agree, this arena stores what you write here, both replies, your vote,")
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


@keeps("It is used for research on empathetic language models: votes rank the models and train")
def test_a_vote_ranks_the_models_becomes_a_pair_and_is_published(
    arena: Arena, tmp_path: Path
) -> None:
    cast(arena, arena.new_voter())
    assert board(ballots_of_store(arena.store), ROSTER).ranking.votes == 1
    assert export_file(arena.settings.database, "trl", tmp_path / "pairs").rows == 1
    later(arena.store, hours=25)
    assert TEXT in published(arena, tmp_path)


@keeps("Do not write names, addresses or anything else that tells who you or others are.")
def test_who_writes_personal_details_is_asked_before_anything_is_stored(arena: Arena) -> None:
    for said in (
        "Mail me at ann@example.org.",
        "Call me on 202-555-0143, I live at 12 Elm Street.",
    ):
        (notice,) = arena.judge(said).warnings
        assert notice.kind == "personal"
    assert arena.judge(TEXT).warnings == ()


@keeps("Rounds in which such details or signs of a crisis are noticed are never published.")
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


@keeps("Your browser holds a random token that ties your votes together.")
def test_the_token_is_random_and_ties_the_votes_of_a_browser_together(arena: Arena) -> None:
    tokens = {arena.new_voter() for _ in range(200)}
    assert len(tokens) == 200 and all(len(token) == 43 for token in tokens)
    mine, theirs = arena.new_voter(), arena.new_voter()
    ids = [cast(arena, mine), cast(arena, mine)]
    cast(arena, theirs)
    assert [vote["round_id"] for vote in arena.my_votes(mine)] == ids


@keeps("That makes them pseudonymous, not anonymous.")
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


@keeps("Your network address is kept as a keyed hash only, for at most an hour, to limit abuse.")
def test_an_address_is_a_keyed_hash_for_an_hour_at_most(
    url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    arena = _arena(url, RateLimit(per_address=3))
    cast(arena, arena.new_voter(), address=HOME)
    opened(arena, arena.new_voter(), agreed=False, address=HOME)
    list(arena.explore(Comparison(Dialogue().plus("user", "Hello.")), address=HOME)[1])
    assert HOME not in everything(arena.store) and HOME not in caplog.text
    with arena.store.database.read() as session:
        keys = set(session.scalars(select(Limit.key).where(Limit.key.like("a:%"))))
    other = _arena(f"sqlite:///{tmp_path}/other.sqlite3").store
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


@keeps("If you log in with a Hub account and agree, your user name is stored too.")
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


@keeps("Votes are kept without a time limit until you delete them:")
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


@pytest.mark.slow
@keeps("Votes are published 24 hours after they were cast at the earliest;")
def test_nobody_sees_a_vote_for_a_day(served: Served, stranger: Stranger) -> None:
    """The page, its configuration, and all that it answers to a stranger."""
    voter = stranger.call("new_voter")
    said = "A sentence that nobody else says."
    round_id = stranger.opened(voter, said)
    stranger.frames("stream", voter, round_id)
    receipt = stranger.call("vote", voter, round_id, "a", {}, "My own comment.")
    _age(served, hours=23.9)
    secrets = (said, "My own comment.", round_id, receipt["receipt"], voter)
    answers = _answers(served)
    assert len(answers) > 20
    for name, answer in answers.items():
        assert not any(secret in answer for secret in secrets), name
    _age(served, hours=0.2)
    assert said in httpx.get(f"{served.url}/export/csv").text
    served.arena.set_ratings(voter, round_id, {}, "My later comment.")
    assert not any(part in httpx.get(f"{served.url}/export/csv").text for part in (said, "later"))
    _age(served, hours=24.1)
    assert "My later comment." in httpx.get(f"{served.url}/export/csv").text
    stranger.call("delete_my_data", voter)
    assert said not in httpx.get(f"{served.url}/export/csv").text


@keeps(
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


@keeps(
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


@keeps("Copies that others made cannot be called back.")
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


@keeps("If you do not agree, you can use the arena all the same: nothing is published or used,")
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


# The README's claims ----------------------------------------------------------------------------


@keeps("not blind, not stored.")
def test_a_comparison_in_explore_is_not_stored(arena: Arena) -> None:
    before = everything(arena.store)
    list(arena.explore(Comparison(Dialogue().plus("user", TEXT)))[1])
    assert everything(arena.store) == before


@keeps("**Data**: what is stored about you")
def test_a_visitor_is_shown_every_column_that_is_stored_of_their_rounds(arena: Arena) -> None:
    voter = arena.new_voter()
    cast(arena, voter)
    (record,) = arena.my_data(voter)
    for table, shown in ((Round, record["round"]), (Vote, record["vote"])):
        assert set(shown) == {column.key for column in inspect(table).columns}
    assert set(record["replies"][0]) == {column.key for column in inspect(Reply).columns}
    with arena.store.database.read() as session:
        others = {
            table.name: session.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }
        tables = set(inspect(session.connection()).get_table_names()) - {"alembic_version"}
    assert (
        tables
        == set(others)
        == {
            "voters",
            "rounds",
            "replies",
            "votes",
            "limits",
            "tombstones",
            "secrets",
        }
    ), "a new table needs a line in docs/privacy.md, and in Delete my data"


@keeps("Blindness protects honest voters only")
def test_nothing_names_a_contender_before_the_vote(served: Served, stranger: Stranger) -> None:
    voter = stranger.call("new_voter")
    round_id = stranger.opened(voter, "Who are these two?")
    names = [part for one in ROSTER.contenders for part in (one.id, one.label, one.revision)]
    answers = [stranger.call("find_round", voter, round_id), stranger.call("my_data", voter)]
    answers += stranger.frames("stream", voter, round_id)
    answers += [stranger.call("find_round", voter, round_id), stranger.call("my_data", voter)]
    for answer in answers:
        assert not any(name in json.dumps(answer) for name in names if name), answer
    for call in ("go_on", "withdraw_vote", "find_round", "vote"):
        values = (stranger.call("new_voter"), round_id, *(("a", {}, "") if call == "vote" else ()))
        with pytest.raises(Refused, match="no such round"):
            stranger.call(call, *values)
    reveal = stranger.call("vote", voter, round_id, "a", {}, "")["reveal"]
    assert {reveal["a"]["contender"], reveal["b"]["contender"]} == {"base", "aligned"}


@keeps("Attention checks, limits and clustered intervals protect the board.")
def test_one_who_votes_often_moves_the_board_as_one_and_within_limits(url: str) -> None:
    arena = _arena(url, RateLimit(per_voter=40, per_address=1000))
    busy = arena.new_voter()
    for _ in range(40):
        cast(arena, busy)
    with pytest.raises(NotAllowed, match="40 rounds"):
        cast(arena, busy)
    assert _width(one_voter=True) > 2 * _width(one_voter=False)
    voted = arena.my_votes(busy)[0]["round_id"]
    with arena.store.database.write() as session:
        session.execute(update(Round).where(Round.id == voted).values(check_side="a"))
    assert len(ballots_of_store(arena.store)) == 39, "a check ranks nobody"
    arena.store.close()


@keeps("hostile files, servers, pages and floods refused")
def test_hostile_pages_files_and_floods_are_refused(served: Served, stranger: Stranger) -> None:
    """Hostile servers: `tests/engine/test_remote.py`; hostile records: `tests/votes`."""
    foreign = stranger.post("call/new_voter", {"data": []}, origin="https://evil.example")
    assert foreign.status_code == 403
    sent = httpx.post(f"{served.url}/gradio_api/upload", files={"files": b"x"})
    assert sent.status_code == 404
    large = stranger.post("call/new_voter", {"data": ["x" * 1_100_000]})
    assert large.status_code == 413
    for path in ("/etc/passwd", str(served.arena.store.database.path), "../votes.sqlite3"):
        answer = httpx.get(f"{served.url}/gradio_api/file={path}")
        assert answer.status_code in (403, 404), path


# docs/privacy.md --------------------------------------------------------------------------------


def test_each_line_of_the_privacy_document_names_tests_that_exist() -> None:
    document = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf8")
    lines = [line for line in document.splitlines() if line.startswith("| ")]
    lines = [line for line in lines if not line.startswith(("| what |", "| ---"))]
    assert len(lines) >= 12
    for line in lines:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line.split("|")[-2])
        assert named, f"no test is named for: {line}"
        for file, name in named:
            tree = ast.parse((REPOSITORY / file).read_text(encoding="utf8"))
            known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in known, f"{file} has no {name}"


def test_the_privacy_document_names_every_table() -> None:
    document = (REPOSITORY / "docs" / "privacy.md").read_text(encoding="utf8")
    for table in Base.metadata.sorted_tables:
        assert f"`{table.name}`" in document, table.name


# The page ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    yield from serve(tmp_path_factory.mktemp("page"), rounds_per_voter=1000)


@pytest.fixture
def stranger(served: Served) -> Stranger:
    return Stranger(served.url)


def _arena(url: str, limit: RateLimit | None = None) -> Arena:
    return Arena(
        load_settings(database=url),
        ROSTER,
        Store.open(url, limit=limit),
        engine=ScriptedEngine(),
        sem=ScriptedSEM(),
    )


def _width(*, one_voter: bool) -> float:
    """The width of a win rate's interval after 40 equal votes, of one person or of forty."""
    mixed = [Ballot(f"m{n}", f"m{n}", "base", "aligned", "ab"[n % 2], 5, 9) for n in range(10)]
    same = [
        Ballot(f"s{n}", "busy" if one_voter else f"s{n}", "base", "aligned", "b", 5, 9)
        for n in range(40)
    ]
    interval = board([*mixed, *same], ROSTER, samples=200).ranking.contenders[0].win_rate_interval
    assert interval is not None
    return interval[1] - interval[0]


def _age(served: Served, **by: float) -> None:
    since = timedelta(**by)
    with served.arena.store.database.write() as session:
        for vote in session.scalars(select(Vote)):
            vote.created_at -= since
            vote.comment_at = vote.comment_at and vote.comment_at - since


def _answers(served: Served) -> dict[str, str]:
    """What every handler, route and download of the page answers to one who knows nothing."""
    one = Stranger(served.url)
    token = one.call("new_voter")
    found = {
        path: httpx.get(f"{served.url}/{path}").text
        for path in (
            "",
            "config",
            "gradio_api/info",
            "export/trl",
            "export/kto",
            "export/csv",
            "gradio_api/queue/status",
            "gradio_api/startup-events",
            "monitoring",
        )
    }
    for fn in served.page.fns.values():
        if fn.fn is None or not fn.queue:
            continue
        values = [_guess(component, token) for component in fn.inputs]
        session = f"guess{fn._id}"
        body = {"data": values, "fn_index": fn._id, "session_hash": session}
        if one.post("queue/join", body).status_code == 200:
            where = f"{served.url}/gradio_api/queue/data?session_hash={session}"
            found[f"{fn._id} {fn.api_name}"] = httpx.get(where, timeout=120).text
    return found


def _guess(component: Any, token: str) -> Any:
    """A value of the right kind that a stranger may try."""
    kind = type(component).__name__
    if kind == "BrowserState":
        return {"voter": token, "language": "en"}
    if kind == "Radio":
        return "csv"
    if kind == "Checkbox":
        return True
    if kind in ("Slider", "Number"):
        return getattr(component, "value", None) or 1
    if kind == "Textbox":
        return "%"
    return getattr(component, "value", None)
