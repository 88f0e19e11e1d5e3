"""Another site's page, a forged host and a forged address get nowhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.attacks.conftest import TEXT, Refused, Served, Stranger, serve

FOREIGN = "https://evil.example"


@pytest.fixture(scope="module")
def public(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A deployment that is reached as arena.example.org, without a proxy."""
    yield from serve(
        tmp_path_factory.mktemp("public"),
        allowed_hosts="arena.example.org, *.arena.example.org",
        rounds_per_voter=50,
        rounds_per_address=3,
    )


def asked(url: str, method: str = "POST", **headers: str) -> httpx.Response:
    where = f"{url}/gradio_api/call/new_voter"
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.request(method, where, json={"data": []}, headers=names)


def test_a_post_of_another_sites_page_is_refused(public: Served) -> None:
    host = "arena.example.org"
    assert asked(public.url, host=host).status_code == 200
    assert asked(public.url, host=host, origin=f"https://{host}").status_code == 200
    for origin in (FOREIGN, "null", f"https://{host}.evil.example", f"https://{host}:8443"):
        answer = asked(public.url, host=host, origin=origin)
        assert answer.status_code == 403 and "another site" in answer.text, origin


def test_a_preflight_of_another_site_gets_no_permission(public: Served) -> None:
    headers = {"origin": FOREIGN, "access_control_request_method": "POST"}
    answer = asked(public.url, "OPTIONS", host="arena.example.org", **headers)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


def test_another_sites_page_cannot_read_an_answer(public: Served) -> None:
    headers = {"host": "arena.example.org", "origin": FOREIGN}
    for path in ("config", "gradio_api/info"):
        answer = httpx.get(f"{public.url}/{path}", headers=headers)
        assert "access-control-allow-origin" not in answer.headers


def test_a_forged_host_is_refused_and_never_reflected(public: Served) -> None:
    assert asked(public.url, host="evil.example").status_code == 421
    assert asked(public.url, host="a.arena.example.org:8080").status_code == 200
    headers = {"host": "arena.example.org", "x-forwarded-host": "evil.example"}
    headers |= {"x-gradio-server": "https://evil.example", "forwarded": "host=evil.example"}
    answer = httpx.get(f"{public.url}/config", headers=headers)
    assert answer.status_code == 200 and "evil" not in answer.text


def test_a_page_on_this_machine_answers_to_local_names_only(
    served: Served, stranger: Stranger
) -> None:
    assert asked(served.url, host="rebound.example").status_code == 421
    assert "EMPO_ALLOWED_HOSTS" in asked(served.url, host="rebound.example").text
    assert asked(served.url, host="localhost:7860").status_code == 200


def test_nobody_chooses_their_address_by_a_header(public: Served) -> None:
    """Three rounds are taken from one address, whatever it says of itself."""
    taken = 0
    for number in range(5):
        one = Stranger(public.url, {"x-forwarded-for": f"9.9.9.{number}"})
        try:
            one.opened(one.call("new_voter"))
            taken += 1
        except Refused as refused:
            assert "3 rounds" in refused.words
    assert taken == 3


def test_a_trusted_proxy_names_the_visitor(tmp_path: Path) -> None:
    for served in serve(tmp_path, trusted_proxies="127.0.0.0/8", rounds_per_address=1):
        for number in range(3):
            real = {"x-forwarded-for": f"6.6.6.6, 9.9.9.{number}"}
            one = Stranger(served.url, real)
            one.opened(one.call("new_voter"))
        again = Stranger(served.url, {"x-forwarded-for": "7.7.7.7, 9.9.9.1"})
        with pytest.raises(Refused, match="1 round"):
            again.opened(again.call("new_voter"))
        one.headers["x-forwarded-host"] = "evil.example"
        assert one.post("call/new_voter", {"data": []}).status_code == 421


def test_a_retry_counts_against_the_address(tmp_path: Path) -> None:
    for served in serve(tmp_path, rounds_per_address=3):
        one = Stranger(served.url)
        voter = one.call("new_voter")
        round_id = one.opened(voter)
        round_id = one.call("retry", voter, round_id)["round_id"]
        one.call("retry", voter, round_id)
        another = one.call("new_voter")
        with pytest.raises(Refused, match="3 rounds"):
            one.call("open_round", another, [], TEXT, "")


@pytest.mark.slow
def test_deleting_ones_data_does_not_reset_ones_count(tmp_path: Path) -> None:
    for served in serve(tmp_path, rounds_per_voter=2):
        one = Stranger(served.url)
        voter = one.call("new_voter")
        for _ in range(2):
            one.opened(voter)
        assert one.call("delete_my_data", voter) == 2
        with pytest.raises(Refused, match="2 rounds"):
            one.opened(voter)
