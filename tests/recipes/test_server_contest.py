"""Can a rule on arrival times name the aligned side? Asked of engines whose pace is known."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from empo_demo.engine.protocol import Delta, Event, Finished, Request
from recipes.servers import contest


class Paced:
    """Writes word after word. The aligned side is `late` by so many seconds, or ends earlier."""

    def __init__(self, *, late: float = 0.0, shorter: int = 0) -> None:
        self.late, self.shorter = late, shorter

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        words = {r.side: 8 - self.shorter * (r.contender == "aligned") for r in requests}
        late = {r.side: self.late * (r.contender == "aligned") for r in requests}
        for number in range(8):
            time.sleep(0.002)
            for side, count in words.items():
                if number < count:
                    time.sleep(late[side])
                    yield Delta(side, "word ")
                if number == count - 1:
                    yield Finished(side, "eos", "word " * count, count, 1.0)


def test_a_side_that_comes_late_is_told_by_its_arrival() -> None:
    found = contest.timings(Paced(late=0.01), "base", "aligned", rounds=60, at_once=4)  # type: ignore[arg-type]
    assert found["arrival"].accuracy > 0.9
    assert found["length"].accuracy < 0.7


def test_a_shorter_reply_in_step_is_told_by_its_length_alone() -> None:
    found = contest.timings(Paced(shorter=3), "base", "aligned", rounds=60, at_once=4)  # type: ignore[arg-type]
    assert found["length"].accuracy == 1.0
    assert found["arrival"].accuracy < 0.75
    assert found["arrival"].upper > found["arrival"].accuracy
