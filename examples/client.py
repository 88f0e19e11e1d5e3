"""Play one round through the endpoints of a running arena.

    python examples/client.py "I lost my keys again." --url http://127.0.0.1:7860

`gradio_client` comes with gradio. Each endpoint says what it takes and gives: add `?view=api` to
the page's address.
"""

from __future__ import annotations

import argparse

from gradio_client import Client


def play(url: str, text: str, verdict: str) -> None:
    """Open a round on `text`, print both replies, vote `verdict`, and print who was who."""
    arena = Client(url, verbose=False)
    voter = arena.predict(api_name="/new_voter")
    consent = arena.predict(api_name="/consent")
    print(f"By voting you agree to:\n{consent['text']}\n")
    opened = arena.predict(voter, [], text, consent["version"], api_name="/open_round")
    *_, last = arena.submit(voter, opened["round_id"], api_name="/stream")
    print(f"A: {last['a']}\nB: {last['b']}")
    receipt = arena.predict(voter, opened["round_id"], verdict, {}, "", api_name="/vote")
    for side in ("a", "b"):
        print(f"{side.upper()} was {receipt['reveal'][side]['label']}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("text", help="what happened to you")
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--verdict", default="tie", choices=["a", "b", "tie", "both_bad"])
    arguments = parser.parse_args()
    play(arguments.url, arguments.text, arguments.verdict)
