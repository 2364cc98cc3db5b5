"""Keywords that grammars leave out: told, checked in the end, and refused only under strict."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from calltune.formats import FORMATS
from calltune.formats.grammar import OutputSpec
from calltune.schemas.validate import satisfies
from calltune.serving.grammar_jobs import (
    CompileRefused,
    CompileRequest,
    CompileResult,
    compile_grammar,
)
from calltune.serving.unenforced import UNENFORCED_HEADER
from calltune.types import Json

from support.running import ASK, PAINT, Running, serving
from support.tiers import cases

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
# Two items of one value: no such list has different ones.
TWINS: Json = {"type": "array", "items": {"enum": [1]}, "minItems": 2, "uniqueItems": True}


@pytest.fixture(scope="module", params=["chatml", pytest.param("gemma", marks=pytest.mark.slow)])
def server(request: pytest.FixtureRequest, tiny_llama: Path, tiny_gemma: Path) -> Iterator[Running]:
    folder = tiny_gemma if request.param == "gemma" else tiny_llama
    with serving(folder, request.param) as running:
        yield running


def case(name: str, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads((CASES / f"{name}.json").read_text())
    return body | {"model": "tiny", "max_tokens": 200} | more


def tool(name: str = "f", **parameters: Json) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def check_answer(response: httpx.Response, body: dict[str, Any]) -> None:
    """Calls satisfy their schemas; one that does not is text with a note; or a limit cut it."""
    assert response.status_code == 200, response.text
    (choice,) = response.json()["choices"]
    schemas = {t["function"]["name"]: t["function"]["parameters"] for t in body["tools"]}
    calls = choice["message"].get("tool_calls") or []
    for made in calls:
        name = made["function"]["name"]
        assert satisfies(json.loads(made["function"]["arguments"]), schemas[name])
    assert calls or choice["finish_reason"] == "length" or choice["note"], choice


HELD = [
    *("02-lookahead/s-js-dash", "02-lookahead/s-js-slash", "02-lookahead/s-unicode-class"),
    *("14-refs/absolute-id", "14-refs/anchor-2020", "14-refs/anchor-draft7-id"),
    *("14-refs/pointer", "19-property-names/s-loose-oneOf-tagged"),
    *("19-property-names/s-strict-oneOf-tagged", "19-property-names/strict-True"),
    *("27-either-or/anyOf", "27-either-or/if-then", "27-either-or/not-required-both"),
    *("27-either-or/oneOf", "27-either-or/oneOf-int-number"),
    *("40-real-lists/s-domain-pattern", "40-real-lists/s-int64", "40-real-lists/s-int64-max-only"),
    *("40-real-lists/s-int64-number", "40-real-lists/s-over-1e18-min"),
    "40-real-lists/s-pattern-min",
]
LEFT_OUT = {
    "02-lookahead/a-other-tool-asked": "invite_guest: pattern (look-around)",
    "02-lookahead/b-this-tool-forced": "invite_guest: pattern (look-around)",
    "02-lookahead/s-backref": "tag_it: pattern (a back-reference)",
    "02-lookahead/s-word-boundary": "tag_it: pattern (a word boundary)",
    "14-refs/missing-anchor": "paint: $ref that leads nowhere",
    "14-refs/other-file": "paint: $ref that leads nowhere",
}


def compiled(body: dict[str, Any], prompt_format: str, strict: bool) -> CompileResult:
    tools = tuple(tool["function"] for tool in body["tools"])
    names = tuple(tool["name"] for tool in tools) if strict else ()
    return compile_grammar(CompileRequest(prompt_format, (), tools, OutputSpec(1), names))


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("name", HELD)
def test_what_grammars_can_hold_they_hold_under_strict(name: str, prompt_format: str) -> None:
    grammar = compiled(case(name), prompt_format, strict=True).grammar
    assert grammar is not None and not grammar.notes


@pytest.mark.parametrize("prompt_format", FORMATS)
@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_named_and_refused_under_strict_alone(
    name: str, prompt_format: str
) -> None:
    grammar = compiled(case(name), prompt_format, strict=False).grammar
    assert grammar is not None
    (note,) = grammar.notes
    assert note.startswith(LEFT_OUT[name])
    with pytest.raises(CompileRefused, match=re.escape(LEFT_OUT[name])):
        compiled(case(name), prompt_format, strict=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*HELD, *LEFT_OUT])
def test_calls_satisfy_their_schemas_or_say_that_they_do_not(server: Running, name: str) -> None:
    body = case(name, tool_choice="required", temperature=1.5)
    for seed in range(4):
        response = server.post(body | {"seed": seed})
        assert (UNENFORCED_HEADER in response.headers) == (name in LEFT_OUT)
        check_answer(response, body)
        assert name in LEFT_OUT or "note" not in response.json()["choices"][0]


def test_another_tool_may_be_asked_for(server: Running) -> None:
    response = server.post(case("02-lookahead/a-other-tool-asked", max_tokens=4))
    assert response.status_code == 200
    assert response.headers[UNENFORCED_HEADER] == "invite_guest: pattern (look-around)"


def test_strict_on_one_tool_demands_nothing_of_another(server: Running) -> None:
    painted = [{"type": "function", "function": PAINT["function"] | {"strict": True}}]
    body = {"model": "tiny", "messages": ASK, "max_tokens": 4}
    response = server.post(body | {"tools": [*painted, tool(properties={"x": TWINS})]})
    assert response.status_code == 200
    assert response.headers[UNENFORCED_HEADER] == "f: uniqueItems"


def test_a_call_that_breaks_what_is_left_out_becomes_text_with_a_note(server: Running) -> None:
    twins = tool(properties={"x": TWINS}, required=["x"], additionalProperties=False)
    body = {"model": "tiny", "messages": ASK, "tools": [twins], "tool_choice": "required"}
    body |= {"max_tokens": 200, "temperature": 1.5, "seed": 1}
    response = server.post(body)
    (choice,) = response.json()["choices"]
    assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]
    assert json.loads(choice["message"]["content"])["name"] == "f"
    assert (
        choice["note"]["type"] == "call_off_schema" and "uniqueItems" in choice["note"]["message"]
    )
    # Two attempts were made.
    usage = response.json()["usage"]["completion_tokens"]
    once = len(choice["message"]["content"])
    assert usage > once
    events = [
        json.loads(line.removeprefix("data: "))
        for line in server.post(body | {"stream": True}).text.splitlines()
        if line.startswith("data: {")
    ]
    assert events[-1]["choices"][0]["note"] == choice["note"]
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == choice["message"]["content"]


@pytest.mark.both_tiers
def test_a_second_attempt_may_hold_and_keeps_the_calls_before(server: Running) -> None:
    pair: Json = {"type": "array", "items": {"enum": [0, 1]}, "minItems": 2, "maxItems": 2}
    pairs = tool(properties={"x": pair | {"uniqueItems": True}}, required=["x"])
    body = {"model": "tiny", "messages": ASK, "tools": [pairs], "tool_choice": "required"}
    body |= {"max_tokens": 300, "temperature": 1.5}
    kinds = set()
    for seed in range(cases(4, 12)):
        # One call or, every other time, several of which each must hold.
        response = server.post(body | {"seed": seed, "parallel_tool_calls": seed % 2 == 1})
        (choice,) = response.json()["choices"]
        calls = choice["message"].get("tool_calls") or []
        for made in calls:
            assert sorted(json.loads(made["function"]["arguments"])["x"]) == [0, 1]
        kinds.add("held" if "note" not in choice else "noted")
        assert choice["finish_reason"] in ("tool_calls", "length") or not calls
    # The tiny Gemma writes one digit whatever the temperature.
    assert "held" in kinds or server.service.prompt_format.name == "gemma"


def test_json_that_breaks_what_is_left_out_has_a_note_or_is_refused(server: Running) -> None:
    named: dict[str, Any] = {"name": "x", "schema": TWINS}
    wanted = {"type": "json_schema", "json_schema": named}
    body = {"model": "tiny", "messages": ASK, "max_tokens": 100, "temperature": 1.5, "seed": 1}
    response = server.post(body | {"response_format": wanted})
    assert response.headers[UNENFORCED_HEADER] == "the answer: uniqueItems"
    (choice,) = response.json()["choices"]
    if choice["finish_reason"] == "stop":
        assert choice["note"]["type"] == "answer_off_schema"
        assert set(json.loads(choice["message"]["content"])) == {1}
    refused = server.post(
        body | {"response_format": wanted | {"json_schema": named | {"strict": True}}}
    )
    assert refused.status_code == 422
    assert "the answer: uniqueItems" in refused.json()["error"]["message"]


def test_a_reference_of_an_answer_is_followed(server: Running) -> None:
    schema: Json = {"$ref": "#colour", "$defs": {"any": {"$anchor": "colour", "enum": ["red"]}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    body = {"model": "tiny", "messages": ASK, "max_tokens": 30, "response_format": wanted}
    assert server.post(body).json()["choices"][0]["message"]["content"] == '"red"'
