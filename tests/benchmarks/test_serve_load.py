"""What the load benchmark counts, and that a mixed-up or lost answer does not slip through."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import serve_engines
import serve_load
import serve_report
from serve_client import Asked, Reply, ask, ask_all
from serve_options import parsed
from serve_questions import Question, answer_text, is_mixed_up, make_questions
from serve_report import Block, Memory

FIRST, SECOND, THIRD = make_questions(3)


def call(question: Question, **more: Any) -> dict[str, str]:
    arguments = {"city": question.city, "max_price": question.number} | more
    return {"name": "hotel_search", "arguments": json.dumps(arguments)}


def answered(question: Question, *calls: dict[str, str], seconds: float = 1.0) -> Asked:
    usage = {"completion_tokens": 10, "prompt_tokens": 100}
    return Asked(question, Reply(status=200, seconds=seconds, calls=[*calls], usage=usage), 0.0)


def refused(status: int, retry_after: str | None = "2", error: Any = None) -> Asked:
    body = {"message": "Full", "type": "rate_limit_error", "param": None, "code": "queue_full"}
    reply = Reply(status=status, retry_after=retry_after, error=error or {"error": body})
    return Asked(FIRST, reply, 0.0)


def block(*asked: Asked) -> Block:
    return Block([*asked], 2.0, [Memory(0, 100), Memory(1, 102)], 0.1, 1.9)


def test_every_question_has_a_number_of_its_own_and_says_it() -> None:
    questions = make_questions(512)
    assert len({question.number for question in questions}) == 512
    assert all(str(q.number) in q.text and q.city in q.text for q in questions)


def test_an_answer_is_mixed_up_where_it_has_the_number_and_city_of_another_question() -> None:
    questions = [FIRST, SECOND, THIRD]

    def mixed(*calls: dict[str, str]) -> bool:
        return is_mixed_up(FIRST, answer_text(calls, ""), questions)

    assert not mixed(call(FIRST))
    assert mixed(call(SECOND))
    assert not mixed(call(SECOND, city="Nowhere")) and not mixed(call(FIRST, city=SECOND.city))


def test_a_weak_answer_is_held_against_nobody_where_it_comes_alone_as_well() -> None:
    wrong, own = call(FIRST, max_price=1), call(FIRST)
    alone = {
        FIRST: answer_text([wrong], ""),
        SECOND: answer_text([call(SECOND)], ""),
        THIRD: answer_text([call(THIRD)], ""),
    }
    asked = [answered(FIRST, wrong), answered(FIRST, own), answered(SECOND, call(THIRD))]

    found = serve_report.score(asked, alone)

    assert (found.same, found.other, found.mixed_up, found.named_own) == (1, 1, 1, 1)
    assert len(found.shown) == 2


def test_a_line_has_speeds_of_answers_alone_and_counts_what_failed() -> None:
    alone = {FIRST: answer_text([call(FIRST)], "")}
    blocks = [
        block(answered(FIRST, call(FIRST)), answered(FIRST, call(FIRST), seconds=3.0)),
        block(answered(FIRST, call(FIRST)), refused(500), refused(0)),
    ]

    line = serve_report.setting_line(blocks, alone)

    assert line["statuses"] == {"200": 3, "500": 1, "none": 1} and line["requests"] == 5
    assert line["requests_per_second"] == {"median": 0.75, "min": 0.5, "max": 1.0}
    assert line["answer_tokens_per_second"]["max"] == 10.0
    assert line["latency_s"] == {"p50": 1.0, "p95": 3.0, "p99": 3.0, "max": 3.0}
    assert line["first_s"] is None and line["client_cpu_share"] == 0.05
    assert serve_load.faults("load", blocks[1].asked, line) == ["1 x status none", "1 x status 500"]


def test_quantiles_are_values_that_were_measured() -> None:
    assert serve_report.quantiles([*range(1, 101)]) == {"p50": 50, "p95": 95, "p99": 99, "max": 100}
    assert serve_report.quantiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0, "max": 7.0}
    assert serve_report.quantiles([]) is None


def test_memory_that_grows_has_a_slope() -> None:
    growing = serve_report.memory_line([Memory(t, 100 + t / 3600) for t in range(100)])
    flat = serve_report.memory_line([Memory(t, min(50 + t, 100.0)) for t in range(200)])
    assert growing is not None and growing["slope_mb_per_hour"] == 1.0
    assert flat is not None and flat["slope_mb_per_hour"] == 0
    assert flat["first_quarter"] < flat["last_quarter"] == flat["max"] == 100.0


def test_a_full_server_may_refuse_and_nothing_else() -> None:
    fine = [answered(FIRST, call(FIRST)), refused(429)]
    assert serve_report.refusal_faults(fine) == []
    for wrong, told in (
        (refused(500), "status 500"),
        (refused(0), "status none"),
        (refused(429, retry_after=None), "Retry-After None"),
        (refused(429, error="full"), "the body full"),
        (refused(429, error={"error": {"message": "full"}}), "the body"),
    ):
        (fault,) = serve_report.refusal_faults([*fine, wrong])
        assert told in fault
    line = serve_report.setting_line([block(answered(FIRST, call(FIRST)))], {FIRST: ""})
    assert serve_load.faults("overload", [], line) == ["nothing was refused; give more clients"]


EVENTS = [
    {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]}}]},
    {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"completion_tokens": 7}},
]


def asked_of(status: int, content: str, *, is_streamed: bool = False) -> Reply:
    async def one() -> Reply:
        def answer(_: httpx.Request) -> httpx.Response:
            return httpx.Response(status, text=content, headers={"retry-after": "3"})

        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await ask(client, {"stream": is_streamed})

    return asyncio.run(one())


def test_a_streamed_answer_is_put_together_and_its_first_piece_timed() -> None:
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in EVENTS)
    reply = asked_of(200, ": a comment\n\n" + lines + "data: [DONE]\n\n", is_streamed=True)
    assert reply.status == 200 and reply.calls == [{"name": "f", "arguments": '{"a": 1}'}]
    assert reply.first_s is not None and reply.first_s <= reply.seconds
    assert reply.tokens == 7 and reply.finish_reason == "tool_calls"


@pytest.mark.parametrize("end", ["", 'data: {"error": {"message": "gone"}}\n\ndata: [DONE]\n\n'])
def test_a_stream_that_breaks_off_is_no_answer(end: str) -> None:
    lines = f"data: {json.dumps(EVENTS[1])}\n\n"
    reply = asked_of(200, lines + end, is_streamed=True)
    assert reply.status == 0 and "ValueError" in reply.error


def test_a_whole_answer_has_its_calls_and_an_error_its_body() -> None:
    message = {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    body = {"choices": [{"message": message, "finish_reason": "tool_calls"}]}
    reply = asked_of(200, json.dumps(body))
    assert reply.calls == [{"name": "f", "arguments": "{}"}] and reply.first_s is None
    failed = asked_of(429, '{"error": {"message": "full"}}')
    assert (failed.status, failed.retry_after) == (429, "3")
    assert failed.error == {"error": {"message": "full"}}
    assert asked_of(500, "<html>").error == "<html>"


def test_clients_share_the_questions_and_none_is_asked_twice() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(json.loads(request.content)["messages"][0]["content"])
        return httpx.Response(429, json={"error": {"message": "full"}}, headers={})

    async def load() -> list[Asked]:
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            questions = iter(make_questions(20))
            return await ask_all(client, questions, lambda q: q.body("m", False), 6, deadline_s=9)

    asked = asyncio.run(load())
    assert len(asked) == 20 and sorted(seen) == sorted(q.text for q in make_questions(20))


def test_a_smoke_run_keeps_no_line(tmp_path: Path) -> None:
    given = parsed(["--smoke", "--results", str(tmp_path / "results.jsonl")])
    assert given.results is None and given.part == ["load"]
    with pytest.raises(SystemExit):
        parsed(["--engine", "other"])


def test_a_server_that_cannot_start_names_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(serve_engines.COMMANDS, "mlx_lm", lambda *_: ["false"])
    server = serve_engines.Server("mlx_lm", "m", "a", tmp_path / "log")
    with pytest.raises(serve_engines.ServerFailed, match="ended with 1"):
        server.wait_until_ready(timeout_s=20)
    server.stop()


@pytest.mark.slow
def test_both_servers_answer_what_they_answer_alone(tmp_path: Path, tiny_llama: Path) -> None:
    results = tmp_path / "results.jsonl"
    given = ["--model", str(tiny_llama), "--results", str(results)]
    given += ["--clients", "3", "--questions", "4", "--rounds", "1", "--max-requests", "6"]
    given += ["--overload-clients", "12", "--overload-s", "2", "--part", "load,overload"]
    given += ["--calltune-flags", "--queue 1 --batch-size 3", "--logs", str(tmp_path / "logs")]

    assert serve_load.main(given) == 0

    lines = [json.loads(line) for line in results.read_text().splitlines()]
    shown = [(line["engine"], line["part"], line["streaming"]) for line in lines]
    assert shown == [
        ("calltune", "load", False),
        ("mlx_lm", "load", False),
        ("calltune", "load", True),
        ("mlx_lm", "load", True),
        ("calltune", "overload", False),
    ]
    for line in lines[:4]:
        assert line["statuses"] == {"200": 6} and line["faults"] == []
        assert line["answers"]["same_as_alone"] == 6
        assert (line["first_s"] is not None) == line["streaming"]
    assert lines[0]["prompt_tokens"] == lines[1]["prompt_tokens"] > 6 * 1000
    assert lines[2]["prompt_tokens"] == lines[3]["prompt_tokens"] > 6 * 1000
    assert set(lines[4]["statuses"]) == {"200", "429"}


@pytest.mark.slow
def test_an_interrupt_keeps_the_turns_that_were_done(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.jsonl"
    given = ["--model", str(tiny_llama), "--engine", "calltune", "--results", str(results)]
    given += ["--clients", "2", "--questions", "2", "--rounds", "9", "--max-requests", "2"]
    take, turns = serve_load.Contender.take, []

    async def taken(self: serve_load.Contender, load: serve_load.Load) -> None:
        if len(turns) == 3:
            raise KeyboardInterrupt
        turns.append(load)
        await take(self, load)

    monkeypatch.setattr(serve_load.Contender, "take", taken)
    assert serve_load.main([*given, "--logs", str(tmp_path)]) == 0
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    assert [(line["streaming"], line["rounds"]) for line in lines] == [(False, 2), (True, 1)]
