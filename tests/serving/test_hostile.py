"""Schemas from people who mean harm, in short; benchmarks/serve_fuzz.py sends a thousand."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.hostile_answers import judge
from support.hostile_schemas import Hostile, body, hostile, ordinary
from support.running import ASK, PAINT, Running, serving
from support.tiers import cases


@pytest.fixture(scope="module")
def server(tiny_llama: Path) -> Iterator[Running]:
    with serving(tiny_llama, "chatml") as running:
        yield running


def post(server: Running, content: bytes) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", content=content, timeout=60)


@pytest.mark.both_tiers
def test_a_hostile_schema_is_refused_with_a_reason_or_enforced(server: Running) -> None:
    count = cases(11, 55)
    found: Counter[str] = Counter()
    for schema in hostile(count):
        started = time.monotonic()
        reply = post(server, body(schema, "tiny", max_tokens=150))
        seconds = time.monotonic() - started
        verdict = judge(reply.status_code, reply.json(), schema.text, seconds)
        assert verdict.what != "fault", (schema.kind, schema.text[:300], verdict.why)
        found[verdict.what] += 1
    # Nobody demanded the schemas: answered, unless nothing can satisfy them or nothing fits.
    assert found["held"] + found["cut"] + found["forgiven"] > count // 6, found
    assert found["refused"] + found["noted"], found
    server.wait_until_idle()
    reply = server.post({"model": "tiny", "messages": ASK, "tools": [PAINT]})
    assert reply.status_code == 200


def test_the_schemas_are_different_and_the_same_each_time() -> None:
    schemas = hostile(1_000)
    assert len({each.text for each in schemas}) == 1_000 and schemas == hostile(1_000)
    assert len({each.kind for each in schemas}) == 11
    assert len({json.dumps(ordinary(number)) for number in range(2_000)}) == 2_000


TYPED = {"error": {"message": "No.", "type": "invalid_request_error", "param": None, "code": None}}
SCHEMA = '{"type": "object", "properties": {"x": {"enum": [1]}}, "required": ["x"]}'


def answered(arguments: str | None, reason: str = "tool_calls") -> dict[str, object]:
    calls = [] if arguments is None else [{"function": {"name": "do", "arguments": arguments}}]
    return {"choices": [{"message": {"tool_calls": calls}, "finish_reason": reason}]}


NOTED = {
    "choices": [
        {
            "message": {"content": "{}"},
            "finish_reason": "stop",
            "note": {"type": "call_off_schema", "message": "No."},
        }
    ]
}


@pytest.mark.parametrize(
    ("status", "answer", "schema", "seconds", "what"),
    [
        (422, TYPED, SCHEMA, 0, "refused"),
        (422, {"error": "No."}, SCHEMA, 0, "fault"),
        (422, TYPED, SCHEMA, 6, "fault"),
        (500, TYPED, SCHEMA, 0, "fault"),
        (200, answered('{"x": 1}'), SCHEMA, 0, "held"),
        (200, answered('{"x": 1}'), SCHEMA, 6, "held"),
        (200, answered('{"x": 2}'), SCHEMA, 0, "fault"),
        (200, answered("[]"), "{}", 0, "fault"),
        (200, answered(None, "stop"), SCHEMA, 0, "fault"),
        (200, answered(None, "length"), SCHEMA, 0, "cut"),
        (200, NOTED, SCHEMA, 0, "noted"),
        (200, answered('{"x": 2}'), '{"type": "strange"}', 0, "forgiven"),
    ],
)
def test_the_judge_knows_what_a_server_may_do(
    status: int, answer: object, schema: str, seconds: float, what: str
) -> None:
    assert judge(status, answer, schema, seconds).what == what


def test_the_judge_does_not_wait_for_a_check_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.hostile_answers.CHECK_SECONDS", 0.2)
    monkeypatch.setattr("support.hostile_answers.satisfies", lambda *_: time.sleep(5))
    schema = '{"type": "object", "properties": {"x": {"pattern": "(a+)+$"}}}'
    found = judge(200, answered(json.dumps({"x": "a" * 60 + "b"})), schema, 0)
    assert found.what == "fault" and "for ever" in found.why


def test_a_body_holds_what_json_cannot_write() -> None:
    deep = Hostile("deep", "[" * 9_000 + "]" * 9_000)
    assert deep.text.encode() in body(deep, "tiny") and b"@schema@" not in body(deep, "tiny")
