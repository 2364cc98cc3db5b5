"""Which model answers: adapters decide on calls, the base model writes text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import tiny
from support.running import ASK, Running, serving

GO: dict[str, Any] = {
    "type": "function",
    "function": {"name": "go", "parameters": {"type": "object", "properties": {}}},
}
WENT: list[Any] = [
    *ASK,
    {
        "role": "assistant",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "go", "arguments": "{}"}}
        ],
    },
    {"role": "tool", "tool_call_id": "1", "content": "gone"},
]


@pytest.fixture(scope="module")
def adapters(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "one": tiny.write_adapter(tiny_llama, folder / "one", size=0.3, seed=1),
        "two": tiny.write_adapter(tiny_llama, folder / "two", size=0.3, layers=2, rank=8, seed=2),
    }


@pytest.fixture(scope="module")
def server(tiny_llama: Path, adapters: dict[str, Path]) -> Iterator[Running]:
    with serving(tiny_llama, "chatml", adapters) as running:
        yield running


def message(server: Running, **more: Any) -> Any:
    given = {"messages": ASK, "max_tokens": 60} | more
    return server.client.chat.completions.create(**given).choices[0].message


def calls(found: Any) -> list[tuple[str, str]]:
    return [(call.function.name, call.function.arguments) for call in found.tool_calls or ()]


def test_adapters_and_base_are_models_of_their_own(server: Running) -> None:
    assert [model.id for model in server.client.models.list()] == ["one", "two", "tiny"]
    # Letters without end are as different as the models are.
    schema = {"properties": {"x": {"type": "string", "maxLength": 20}}, "required": ["x"]}
    say = {"name": "say", "parameters": {"type": "object"} | schema}
    given: Any = {"tools": [{"type": "function", "function": say}], "tool_choice": "required"}
    given |= {"parallel_tool_calls": False}
    given |= {"messages": ASK, "max_tokens": 150, "temperature": 1.0, "seed": 3, "n": 4}
    found = [
        [calls(choice.message) for choice in reply.choices]
        for name in ("one", "two", "tiny")
        for reply in [server.client.chat.completions.create(model=name, **given)]
    ]
    assert all(len(each) == 1 for four in found for each in four)
    assert found[0] != found[1] != found[2] != found[0]


def test_words_are_the_base_models(
    server: Running, tiny_llama: Path, adapters: dict[str, Path]
) -> None:
    plain = message(server, model="tiny").content
    assert [message(server, model=name).content for name in ("one", "two")] == [plain, plain]
    with serving(tiny_llama, "chatml", adapters, words="tuned") as other:
        own = {message(other, model=name).content for name in ("one", "two")}
        assert plain not in own and len(own) == 2


def test_where_no_call_is_due_there_are_words(server: Running) -> None:
    plain = message(server, model="tiny", max_tokens=60, temperature=1.2, seed=0).content
    n_words = 0
    for seed in range(40):
        if n_words == 3:
            break
        given = {"tools": [GO], "temperature": 1.2, "seed": seed, "max_tokens": 40}
        found = message(server, model="one", **given)
        if not found.tool_calls and not (found.content or "").startswith("<tool_call>"):
            n_words += 1
            alone = message(server, model="tiny", **(given | {"tools": []})).content
            assert found.content == alone
    assert n_words == 3 and plain


def test_a_call_that_was_made_is_not_made_again(
    tiny_llama: Path, adapters: dict[str, Path], server: Running
) -> None:
    given = {"messages": WENT, "tools": [GO], "temperature": 1.2}
    for seed in range(6):
        found = message(server, model="one", seed=seed, **given)
        assert not found.tool_calls and found.content
    # A new question may want the same call, and so may one that insists on it.
    again = [*WENT, {"role": "assistant", "content": "Done."}, *ASK]
    assert message(server, model="one", **(given | {"tool_choice": "required"})).tool_calls
    asked = given | {"messages": again}
    found = (message(server, model="one", seed=seed, **asked) for seed in range(12))
    assert any(calls(each) == [("go", "{}")] for each in found)
    with serving(tiny_llama, "chatml", adapters, repeats_calls=True) as other:
        repeated = (message(other, model="one", seed=seed, **given) for seed in range(12))
        assert any(calls(each) == [("go", "{}")] for each in repeated)
