"""Many clients, clients that disconnect, engines that fail, and graceful shutdown."""

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.running import ASK, PAINT, SAND, Running, serving


@pytest.fixture
def server(tiny_llama: Path) -> Iterator[Running]:
    with serving(tiny_llama, "chatml", size=2, queue=3) as running:
        yield running


def long(**more: Any) -> dict[str, Any]:
    """An answer that takes a while: random weights hardly ever end one."""
    return {"model": "tiny", "messages": ASK, "max_tokens": 150, "logit_bias": {}} | more


def running_out(server: Running) -> int:
    counts = server.service.engine.counts
    return counts.n_running + counts.n_waiting


def wait_for(claim: Any, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_each_of_many_clients_gets_the_answer_it_gets_alone(tiny_llama: Path) -> None:
    def body(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"Wall number {number}, please."}]
        return long(messages=messages, tools=[PAINT, SAND], tool_choice="required", seed=number)

    def calls(response: httpx.Response) -> list[Any]:
        made = response.json()["choices"][0]["message"]["tool_calls"]
        return [call["function"] for call in made]

    with serving(tiny_llama, "chatml", size=3) as server:
        bodies = [body(number) | {"temperature": 1.0} for number in range(16)]
        alone = [calls(server.post(each)) for each in bodies]
        with ThreadPoolExecutor(16) as pool:
            together = [calls(reply) for reply in pool.map(server.post, bodies)]
        assert together == alone and len({str(each) for each in alone}) > 4
        server.wait_until_idle()


def test_beyond_the_queue_there_are_429s_and_the_others_are_answered(server: Running) -> None:
    with ThreadPoolExecutor(12) as pool:
        replies = list(pool.map(server.post, [long()] * 12))
    statuses = sorted(reply.status_code for reply in replies)
    assert set(statuses) == {200, 429} and statuses.count(200) >= 5
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.headers["retry-after"] and refused.json()["error"]["code"] == "queue_full"
    assert server.post(long(n=6)).status_code == 429
    assert server.post(long()).status_code == 200


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_client_that_goes_away_frees_its_row(server: Running, is_streamed: bool) -> None:
    body = httpx.Request("POST", server.url, json=long(stream=is_streamed)).content
    port = int(server.url.rsplit(":", 1)[1])
    opened = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    for each in opened:
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        each.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_for(lambda: server.service.engine.n_open == 4)
    for each in opened:
        each.close()
    wait_for(lambda: server.service.engine.n_open == 0 and running_out(server) == 0, 5)
    assert server.service.engine.counts.n_tokens < 4 * 150


def test_an_engine_that_fails_tells_those_who_wait_and_goes_on(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calltune.generation.scheduler import Scheduler

    step = Scheduler.step
    has_failed = []

    def failing(scheduler: Scheduler) -> Any:
        # Once, when all three are there.
        if not has_failed and len([*scheduler.running()]) + scheduler.n_waiting == 3:
            has_failed.append(True)
            raise RuntimeError("out of memory")
        return step(scheduler)

    monkeypatch.setattr(Scheduler, "step", failing)
    with ThreadPoolExecutor(3) as pool:
        replies = list(pool.map(server.post, [long()] * 3))
    assert [reply.status_code for reply in replies] == [500] * 3
    assert replies[0].json()["error"]["type"] == "server_error"
    assert server.post(long()).status_code == 200
    assert server.service.engine.counts.n_failures == 1
    text = httpx.get(f"{server.url}/metrics").text
    assert "calltune_engine_failures_total 1.0" in text
    assert 'calltune_requests_total{status="500"} 3.0' in text
    assert 'calltune_requests_total{status="200"} 1.0' in text


def test_an_answer_that_takes_too_long_is_given_up(tiny_llama: Path) -> None:
    with serving(tiny_llama, "chatml", seconds=0.05) as server:
        slow = server.post(long(max_tokens=200))
        assert slow.status_code == 503 and slow.json()["error"]["code"] == "timeout"
        stream = server.post(long(max_tokens=200, stream=True))
        assert stream.status_code == 503 or (
            '"timeout"' in stream.text and stream.text.endswith("data: [DONE]\n\n")
        )
        server.wait_until_idle()


def test_a_body_that_does_not_come_is_not_waited_for(tiny_llama: Path) -> None:
    with serving(tiny_llama, "chatml", body_seconds=0.2) as server:
        port = int(server.url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as half:
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            half.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
            assert half.recv(100).startswith(b"HTTP/1.1 408")


def test_what_is_being_answered_is_finished_when_the_server_is_told_to_end(
    tiny_llama: Path,
) -> None:
    found: list[httpx.Response] = []
    with serving(tiny_llama, "chatml", size=2) as server:
        asking = threading.Thread(target=lambda: found.append(server.post(long(stream=True))))
        asking.start()
        wait_for(lambda: running_out(server) > 0)
        server.server.should_exit = True
        asking.join()
    assert (
        found[0].text.endswith("data: [DONE]\n\n") and '"finish_reason": "length"' in found[0].text
    )


def test_memory_that_is_not_needed_is_given_back(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calltune.serving.engine.IDLE_SECONDS", 0.1)
    cleared = threading.Event()
    from calltune.generation.scheduler import Scheduler

    clear = Scheduler.clear
    monkeypatch.setattr(Scheduler, "clear", lambda scheduler: (clear(scheduler), cleared.set()))
    with serving(tiny_llama, "chatml") as server:
        assert server.post(long(max_tokens=3)).status_code == 200
        assert cleared.wait(10)
        assert server.post(long(max_tokens=3)).status_code == 200
