"""The arena on vLLM's CPU build: `pytest -m servers`, made ready by `python -m recipes.servers`.

EMPO_VLLM names the virtual environment of vLLM, EMPO_SMOLLM2 the folder of the base model, and
EMPO_SMOLLM2_ALIGNED that of the aligned adapter.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from empo_demo.contenders.roster import Contender
from empo_demo.engine.protocol import Decoding, Delta, Event, Failed, Finished, Request
from empo_demo.engine.servers.remote import RemoteEngine
from empo_demo.errors import EngineError
from recipes.servers.vllm_cpu import Vllm, vllm

pytestmark = pytest.mark.servers
CONTENDERS = (Contender("base", "base"), Contender("aligned", "base", "aligned"))
GREEDY = Decoding(temperature=0.0, top_p=1.0, repetition_penalty=1.0, max_new_tokens=16)
LONG = Decoding(temperature=1.0, max_new_tokens=400, stop=())
SAD = ({"role": "user", "content": "I failed my driving test for the third time."},)
PATIENCE = 300.0


def folder(name: str) -> Path:
    path = os.environ.get(name, "")
    if not path:
        pytest.skip(f"{name} names no folder; see recipes/README.md")
    return Path(path)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., object]:
    environment, model = folder("EMPO_VLLM"), folder("EMPO_SMOLLM2")
    adapter, logs = folder("EMPO_SMOLLM2_ALIGNED"), tmp_path_factory.mktemp("vllm")

    @contextmanager
    def started(*, adapters: bool = True, **options: object) -> Iterator[Vllm]:
        given = {"aligned": adapter} if adapters else None
        log = logs / f"{time.monotonic_ns()}.log"
        with vllm(environment, model, log=log, adapters=given, **options) as server:  # type: ignore[arg-type]
            yield server

    return started


@pytest.fixture(scope="module")
def server(start: Callable[..., object]) -> Iterator[Vllm]:
    """One server with an adapter and one slot more than adapters."""
    with start(max_loras=2, options=("--max-num-seqs", "4")) as running:  # type: ignore[attr-defined]
        yield running


def pair(decoding: Decoding, seed: int = 0) -> list[Request]:
    return [
        Request("a", "base", SAD, decoding, seed),
        Request("b", "aligned", SAD, decoding, seed + 1),
    ]


def ends(engine: RemoteEngine, requests: list[Request]) -> dict[str, Finished | Failed]:
    return {e.side: e for e in engine.stream(requests) if isinstance(e, Finished | Failed)}


def text(event: Event) -> str:
    assert isinstance(event, Finished), event
    return event.text


def wait_until(true: Callable[[], bool], seconds: float) -> float:
    """Wait for something to become true, and return how long it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < seconds
        time.sleep(0.05)
    return time.monotonic() - started


def test_as_many_slots_as_adapters_is_refused_by_name(start: Callable[..., object]) -> None:
    with start(max_loras=1) as running:  # type: ignore[attr-defined]
        with pytest.raises(EngineError, match=r"answers for base with the weights of aligned"):
            RemoteEngine(running.url, CONTENDERS, check=True)
        engine = RemoteEngine(running.url, CONTENDERS, check=True, in_turn=True)
        alone = [text(*ends(engine, [request]).values()) for request in pair(GREEDY)]
        together = ends(engine, pair(GREEDY))
        engine.close()
    assert [text(together["a"]), text(together["b"])] == alone and alone[0] != alone[1]


def test_a_round_has_two_voices_and_each_is_its_own(server: Vllm) -> None:
    engine = RemoteEngine(server.url, CONTENDERS, check=True)
    words = engine.heard[f"{server.url}/v1"]
    assert words.startswith("each model as itself, alone and in company (log-probabilities")
    alone = [text(*ends(engine, [request]).values()) for request in pair(GREEDY)]
    together = ends(engine, pair(GREEDY))
    engine.close()
    assert alone[0] != alone[1]
    # Rounding may turn a later token: the beginnings must be the model's own.
    for side, own, other in (("a", *alone), ("b", *reversed(alone))):
        begun = [common(text(together[side]), words) for words in (own, other)]
        assert begun[0] > begun[1]


def common(one: str, other: str) -> int:
    return len(os.path.commonprefix([one, other]))  # noqa: RUF071


def test_stop_in_mid_reply_frees_the_server_within_two_seconds(server: Vllm) -> None:
    engine = RemoteEngine(server.url, CONTENDERS)
    stream = engine.stream(pair(LONG))
    next(e for e in stream if isinstance(e, Delta) and e.text)
    wait_until(lambda: server.running() == 2, 30)
    stream.close()  # type: ignore[attr-defined]
    assert wait_until(lambda: server.running() == 0, 10) < 2.0
    engine.close()


def test_a_full_server_answers_all_in_the_end(server: Vllm) -> None:
    """It works on four requests at once; six rounds are twelve."""
    engine = RemoteEngine(server.url, CONTENDERS)
    results: list[dict[str, Finished | Failed]] = []
    threads = [
        threading.Thread(target=lambda n=n: results.append(ends(engine, pair(GREEDY, n))))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    engine.close()
    assert len(results) == 6
    assert all(isinstance(end, Finished) for result in results for end in result.values())


def test_a_slow_server_is_waited_for(server: Vllm) -> None:
    engine = RemoteEngine(server.url, CONTENDERS)
    stream = engine.stream(pair(GREEDY))
    next(e for e in stream if isinstance(e, Delta) and e.text)
    server.send(signal.SIGSTOP)
    threading.Timer(5, lambda: server.send(signal.SIGCONT)).start()
    rest = [e for e in stream if isinstance(e, Finished | Failed)]
    engine.close()
    assert [type(end) for end in rest] == [Finished, Finished]


def test_a_killed_server_fails_its_side_and_a_restarted_one_is_heard_first(
    start: Callable[..., object],
) -> None:
    """Two servers: the base's is killed in mid-reply, then started again."""
    with start(max_loras=2, name="elsewhere") as aligned:  # type: ignore[attr-defined]
        with start(adapters=False, name="base") as base:  # type: ignore[attr-defined]
            urls, port = f"{base.url},{aligned.url}", int(base.url.rsplit(":", 1)[1])
            only = (CONTENDERS[0], Contender("aligned", "elsewhere", "aligned"))
            engine = RemoteEngine(urls, only, check=True, look=1.0)
            stream = engine.stream(pair(LONG))
            next(e for e in stream if isinstance(e, Delta) and e.text)
            base.kill()
            ended = {e.side: e for e in stream if isinstance(e, Finished | Failed)}
            assert isinstance(ended["a"], Failed) and isinstance(ended["b"], Finished)
            assert isinstance(ends(engine, pair(GREEDY))["a"], Failed)
        with start(adapters=False, name="base", port=port):  # type: ignore[attr-defined]
            wait_until(lambda: isinstance(ends(engine, pair(GREEDY))["a"], Finished), PATIENCE)
        engine.close()


def test_other_weights_under_an_old_name_are_noticed(
    start: Callable[..., object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server of the base comes back with the aligned weights under the base's name."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    model, adapter = folder("EMPO_SMOLLM2"), folder("EMPO_SMOLLM2_ALIGNED")
    environment = folder("EMPO_VLLM")
    merged = tmp_path / "merged"
    whole = AutoPeftModelForCausalLM.from_pretrained(local(adapter, model, tmp_path))
    whole.merge_and_unload().save_pretrained(merged)
    AutoTokenizer.from_pretrained(model).save_pretrained(merged)
    with start(adapters=False) as base:  # type: ignore[attr-defined]
        port = int(base.url.rsplit(":", 1)[1])
        engine = RemoteEngine(base.url, CONTENDERS[:1], check=True, look=1.0)
        base.kill()
        with vllm(environment, merged, log=tmp_path / "log", port=port):
            wait_until(lambda: "answers for base with other weights" in caplog.text, PATIENCE)
            (end,) = ends(engine, pair(GREEDY)[:1]).values()
        engine.close()
    assert isinstance(end, Failed) and "base" not in end.error


def local(adapter: Path, model: Path, folder: Path) -> Path:
    """A copy of an adapter that names its base by the folder where it lies here."""
    import json
    import shutil

    copy = folder / "adapter"
    shutil.copytree(adapter, copy)
    config = json.loads((copy / "adapter_config.json").read_text("utf8"))
    config["base_model_name_or_path"] = str(model)
    (copy / "adapter_config.json").write_text(json.dumps(config), encoding="utf8")
    return copy
