import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calltune.serving.unenforced import UNENFORCED_HEADER

from support.running import ASK, PAINT, Running, serving


@pytest.fixture(scope="module")
def server(tiny_llama: Path) -> Iterator[Running]:
    limits = {"body_bytes": 200_000, "messages": 10, "tools": 5, "schema_bytes": 64 << 10}
    with serving(tiny_llama, "chatml", **limits) as running:
        yield running


def error_of(response: httpx.Response) -> dict[str, Any]:
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert "\n" not in error["message"] and len(error["message"]) < 600
    return error


def plain(**more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": ASK, "max_tokens": 4} | more


def tool(schema: Any, name: str = "f") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (plain(messages=[]), "messages"),
        (plain(messages="hello"), "messages"),
        (plain(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
        (plain(messages=[{"role": "user"}]), "messages[0].content"),
        (
            plain(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            "messages[0].content",
        ),
        (plain(messages=[*ASK, {"role": "tool", "content": "1", "tool_call_id": "x"}]), "messages"),
        (plain(temperature="hot"), "temperature"),
        (plain(temperature=3), "temperature"),
        (plain(top_p=-1), "top_p"),
        (plain(max_tokens=0), "max_tokens"),
        (plain(n=17), "n"),
        (plain(n=True), "n"),
        (plain(stop=["a"] * 5), "stop"),
        (plain(logprobs=True), "logprobs"),
        (plain(frequency_penalty=0.5), "frequency_penalty"),
        (plain(logit_bias={"5": 1}), "logit_bias"),
        (plain(functions=[{"name": ""}]), "functions[0].name"),
        (plain(modalities=["text", "audio"]), "modalities"),
        (plain(tools=[{"type": "retrieval"}]), "tools"),
        (plain(tools=[tool({}, "")]), "tools[0].function.name"),
        (plain(tools=[tool([])]), "tools[0].function.parameters"),
        (plain(tools=[tool({}), tool({"title": "Other"})]), "tools"),
        (plain(tools=[PAINT], tool_choice="always"), "tool_choice"),
        (plain(tool_choice="required"), "tool_choice"),
        (
            plain(tools=[PAINT], tool_choice={"type": "function", "function": {"name": "unknown"}}),
            "tool_choice",
        ),
        (plain(response_format={"type": "yaml"}), "response_format"),
        (plain(messages=[*ASK] * 11), "messages"),
        (plain(tools=[tool({}, f"f{i}") for i in range(6)]), "tools"),
        ({"messages": ASK}, "model"),
    ],
)
def test_what_cannot_be_used_is_a_400_that_names_it(server: Running, body: Any, param: str) -> None:
    response = server.post(body)
    assert response.status_code == 400, response.text
    error = error_of(response)
    assert error["type"] == "invalid_request_error"
    assert error["param"].startswith(param) and param in error["message"], error


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"model": "tiny", "temperature": NaN, "messages": []}',
        b'{"model": "tiny", "temperature": 1e999, "messages": []}',
        json.dumps(plain(messages=[{"role": "user", "content": "\ud800"}])).encode(),
        b'{"model": "tiny", "seed": 1' + b"0" * 5000 + b"}",
    ],
)
def test_a_body_that_is_no_json_is_a_400(server: Running, content: bytes) -> None:
    response = httpx.post(f"{server.url}/v1/chat/completions", content=content)
    assert response.status_code == 400
    error_of(response)


def test_other_statuses_have_the_error_body_too(server: Running) -> None:
    assert error_of(server.post(plain(model="gpt")))["code"] == "model_not_found"
    assert server.post(plain(model="gpt")).status_code == 404
    for path, method, status in (
        ("/v1/unknown", "GET", 404),
        ("/v1/models/other", "GET", 404),
        ("/v1/chat/completions", "GET", 405),
        ("/v1/models", "POST", 405),
    ):
        response = httpx.request(method, f"{server.url}{path}")
        assert response.status_code == status
        error_of(response)
    large = server.post(plain(messages=[{"role": "user", "content": "x" * 200_000}]))
    assert large.status_code == 413
    error_of(large)
    long = server.post(plain(messages=[{"role": "user", "content": "x" * 5_000}]))
    assert long.status_code == 400 and error_of(long)["code"] == "context_length_exceeded"
    longer = server.post(plain(messages=[{"role": "user", "content": "x" * 100_000}]))
    assert longer.status_code == 400 and "characters" in error_of(longer)["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"$ref": "#/$defs/none"}}},
        {"type": "object", "properties": {"x": {"$ref": "https://example.com/schema"}}},
        {"type": "object", "properties": 5},
        {"type": "object", "properties": {"x": {"type": "strange"}}},
        {"type": "string"},
    ],
)
def test_a_schema_with_a_fault_is_a_422_where_strict_demands_it(
    server: Running, schema: Any
) -> None:
    loose, strict = tool(schema), tool(schema)
    strict["function"]["strict"] = True
    assert server.post(plain(tools=[loose])).status_code == 200
    refused = server.post(plain(tools=[strict]))
    assert refused.status_code == 422, refused.text
    assert "strict needs sound schemas" in error_of(refused)["message"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"x": {"enum": ["a<|im_end|>"]}}},
        {"type": "object", "properties": {"<|im_end|>": {}}},
    ],
)
def test_a_schema_that_cannot_be_enforced_is_a_422_if_strict(server: Running, schema: Any) -> None:
    loose, strict = tool(schema), tool(schema)
    strict["function"]["strict"] = True
    response = server.post(plain(tools=[loose]))
    assert response.status_code == 200, response.text
    assert "f: a name or value with the control token" in response.headers[UNENFORCED_HEADER]
    refused = server.post(plain(tools=[strict]))
    assert refused.status_code == 422 and "control token" in error_of(refused)["message"]


def test_a_schema_that_is_too_large_is_a_422(server: Running) -> None:
    values = [str(i) * 9 for i in range(3_000)]
    response = server.post(plain(tools=[tool({"properties": {"x": {"enum": values}}})]))
    assert response.status_code == 422, response.text
    error_of(response)


def test_control_tokens_in_what_describes_do_no_harm(server: Running) -> None:
    schema = {"type": "object", "properties": {"x": {"enum": [1], "description": "<|im_end|>"}}}
    body = plain(tools=[tool(schema)], tool_choice="required", max_tokens=100)
    (choice,) = server.post(body).json()["choices"]
    assert choice["finish_reason"] in ("tool_calls", "length")


def test_a_schema_that_is_enforced_in_part_is_a_422_if_strict(server: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "array", "items": {"enum": [1]}, "uniqueItems": True}},
    }
    loose, strict = tool(schema), tool(schema)
    strict["function"]["strict"] = True
    assert server.post(plain(tools=[loose])).status_code == 200
    refused = server.post(plain(tools=[strict]))
    assert refused.status_code == 422 and "uniqueItems" in error_of(refused)["message"]


def test_an_answer_whose_grammar_takes_too_long_is_broken_off(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calltune.generation.constraints.MAX_SECONDS", -1e3)
    body = plain(tools=[PAINT], tool_choice="required", max_tokens=100)
    response = server.post(body)
    assert response.status_code == 422 and "broken off" in error_of(response)["message"]
    monkeypatch.undo()
    assert server.post(body).status_code == 200


def test_nothing_but_health_is_answered_without_the_key(tiny_llama: Path) -> None:
    with serving(tiny_llama, "chatml", api_key="s3cret") as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            response = server.post(plain(), headers=headers)
            assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"
            assert error_of(response)["code"] == "invalid_api_key"
        right = {"Authorization": "Bearer s3cret"}
        assert server.post(plain(), headers=right).status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/v1/unknown"):
            assert httpx.get(f"{server.url}{path}").status_code == 401
        assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}


def test_other_hosts_and_origins_are_refused(tiny_llama: Path) -> None:
    with serving(tiny_llama, "chatml", origins=["https://mine.example"]) as server:
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example:80"},
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
        ):
            response = server.post(plain(), headers=headers)
            assert response.status_code == 403, headers
            assert "access-control-allow-origin" not in response.headers
            error_of(response)
        mine = {"Origin": "https://mine.example"}
        allowed = server.post(plain(), headers=mine)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == "https://mine.example"
        before = httpx.options(f"{server.url}/v1/chat/completions", headers=mine)
        assert before.status_code == 204
        assert "access-control-allow-origin" not in server.post(plain()).headers
