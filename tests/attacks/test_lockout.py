"""One client cannot keep the others from voting, stopping or being answered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.attacks.conftest import TEXT, Served, Stranger
from tests.bench.flood import first_words, flood, run, votes


@pytest.mark.slow
def test_votes_and_rounds_go_on_while_explore_is_flooded(
    served: Served, stranger: Stranger
) -> None:
    voters = [stranger.call("new_voter") for _ in range(20)]
    rounds = [(voter, stranger.answered(voter)) for voter in voters]
    alone = sorted(first_words(stranger) for _ in range(3))[1]
    with flood(served.url) as statuses:
        flooded = sorted(first_words(stranger) for _ in range(3))[1]
        accepted, refused, _ = votes(stranger, rounds)
    assert (accepted, refused) == (20, []), "every vote is accepted at the first try"
    assert statuses[429] + statuses[503] > statuses[200], "Explore is bounded"
    assert flooded < 3 * alone + 0.3, f"first words after {flooded:.2f} s, alone {alone:.2f} s"


@pytest.mark.slow
def test_the_embedded_pair_goes_on_answering_while_explore_is_flooded() -> None:
    """`app.py` as it is started, with the models that come with it."""
    found = run(6, 3, 6, explores_per_address="100000")
    assert (found["accepted_at_first_try"], found["refusals"]) == (6, [])
    assert found["flood_answers"].get("200", 0) > 3, "Explore did generate"
    assert found["ratio"] < 3 or max(found["first_words_flooded_s"]) < 1.5, found


def test_a_direct_call_does_not_pass_the_queue_by(stranger: Stranger) -> None:
    assert stranger.post("run/new_voter", {"data": []}).status_code == 404
    assert stranger.post("api/new_voter", {"data": []}).status_code == 404


def test_explore_counts_against_the_address(tmp_path: Any) -> None:
    from tests.attacks.conftest import serve

    for served in serve(tmp_path, explores_per_address=2):
        play = served.handler("play")
        said = []
        for _ in range(3):
            body = {
                "data": [{}, [], TEXT, "base", "aligned", 1.0, 1.0, 0, None, 0.7, 0.9, 1.1, 20],
                "fn_index": play._id,
                "session_hash": f"s{len(said)}",
            }
            stranger = Stranger(served.url)
            stranger.post("queue/join", body).raise_for_status()
            where = f"{served.url}/gradio_api/queue/data?session_hash=s{len(said)}"
            said.append(httpx.get(where, timeout=60).text)
        assert "hard" in said[0] and "hard" in said[1]
        assert ["2 comparisons" in one for one in said] == [False, False, True], said[2]


@pytest.mark.slow
def test_readings_do_not_take_the_places_of_rounds(served: Served, stranger: Stranger) -> None:
    """/analyze costs a reading each and has no limit of its own: it has few places instead."""
    with flood(served.url, what="analyze", pause=0.0):
        assert stranger.opened(stranger.call("new_voter"))
    lanes = {name: served.handler(name).concurrency_id for name in ("analyze", "open_round")}
    assert lanes["analyze"] != lanes["open_round"]


@pytest.mark.slow
def test_the_board_is_made_once_for_all_who_look(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.ui.tabs import board_tab, recent

    made: list[float] = []
    real = board_tab.board

    def slow(*values: Any) -> Any:
        time.sleep(0.3)
        made.append(time.monotonic())
        return real(*values)

    monkeypatch.setattr(board_tab, "board", slow)
    # Sleeping counts as work here, and the first Board lasts for the whole test.
    monkeypatch.setattr(recent, "cost", time.monotonic)
    monkeypatch.setattr(recent, "SHARE", 0.001)
    with flood(served.url, what="board") as statuses:
        time.sleep(2.0)
    assert statuses[200] > len(made) == 1, (statuses, len(made))


def test_the_report_of_an_export_is_made_once_for_all_who_prepare_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.exchange import export
    from empo_demo.ui.tabs import recent

    made: list[str] = []
    real = export.rows
    monkeypatch.setattr(export, "rows", lambda *v, **m: (made.append(v[1]), real(*v, **m))[1])
    monkeypatch.setattr(recent, "cost", time.monotonic)
    monkeypatch.setattr(recent, "SHARE", 1e-6)
    places = {
        one["props"].get("elem_id"): one["id"]
        for one in Stranger(served.url).config()["components"]
    }
    fn = next(fn for fn in served.page.fns.values() if (places["prepare"], "click") in fn.targets)
    for number in range(3):
        body = {"data": [{}, "csv"], "fn_index": fn._id, "session_hash": f"prepare{number}"}
        Stranger(served.url).post("queue/join", body).raise_for_status()
        where = f"{served.url}/gradio_api/queue/data?session_hash=prepare{number}"
        assert "rows" in httpx.get(where, timeout=60).text
    assert made == ["csv"]


def test_one_address_has_few_exports_made_at_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.ui.serving import endpoints

    real = endpoints._written
    monkeypatch.setattr(endpoints, "_written", lambda *v: (time.sleep(1.0), real(*v))[1])
    with ThreadPoolExecutor(6) as at_once:
        answers = list(at_once.map(lambda _: httpx.get(f"{served.url}/export/csv"), range(6)))
    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [200, 200, 429, 429, 429, 429]
    assert httpx.get(f"{served.url}/export/csv").status_code == 200


@pytest.mark.parametrize("lane", ["vote", "stop", "delete_my_data", "end_visit", "find_round"])
def test_what_ends_a_round_has_a_lane_of_its_own(served: Served, lane: str) -> None:
    generation = {served.handler(name).concurrency_id for name in ("stream", "play", "send")}
    assert served.handler(lane).concurrency_id not in generation
