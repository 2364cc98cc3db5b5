"""Each format's Jinja template is its `render`, letter for letter, as transformers renders it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.files import dumps
from calltune.formats import FORMATS
from calltune.formats.format import Format
from calltune.types import Json, Message, Tool, ToolCall

from support.tiers import cases

FAMILIES = pytest.mark.parametrize("prompt_format", FORMATS.values(), ids=FORMATS.keys())

text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    [
        "",
        "\n",
        " a ",
        'it\'s "so"',
        "{{ x }}",
        "{% raw %}",
        "<b>&amp;",
        "é 日本 🙂",
        "\\n\\",
        "\u2028",
    ]
)
keys = text | st.sampled_from(["items", "keys", "name", "function", "arguments"])
json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: text | st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)
calls = st.builds(ToolCall, text, st.dictionaries(keys, json_values, max_size=3))
messages = st.one_of(
    st.builds(Message, st.sampled_from(["system", "user"]), text),
    st.builds(Message, st.just("assistant"), text, st.lists(calls, max_size=3).map(tuple)),
    st.builds(Message, st.just("tool"), text, tool_name=text),
)
schemas = st.dictionaries(keys, json_values, max_size=3)
tools = st.builds(
    lambda name, description, schema: Tool(
        name, description, schema, {"name": name, "description": description, "parameters": schema}
    ),
    text,
    text,
    schemas,
)


@pytest.fixture(scope="module")
def tokenizer(tiny_llama: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_llama)


def openai_messages(conversation: Sequence[Message], is_text: bool) -> list[dict[str, Json]]:
    """The conversation as OpenAI's API has it; `is_text` writes arguments as JSON in a string."""
    written: list[dict[str, Json]] = []
    for message in conversation:
        item: dict[str, Json] = {"role": message.role, "content": message.content}
        if message.calls:
            item["tool_calls"] = [_call(call, is_text) for call in message.calls]
        if message.tool_name:
            item["name"] = message.tool_name
        written.append(item)
    return written


def _call(call: ToolCall, is_text: bool) -> dict[str, Json]:
    arguments = dumps(call.arguments) if is_text else call.arguments
    return {"type": "function", "function": {"name": call.name, "arguments": arguments}}


def openai_tools(offered: Sequence[Tool]) -> list[Json]:
    return [{"type": "function", "function": tool.raw} for tool in offered]


def rendered(tokenizer: Any, prompt_format: Format, conversation: list[Json], offered: Json) -> str:
    return str(
        tokenizer.apply_chat_template(
            conversation,
            tools=offered,
            chat_template=prompt_format.chat_template,
            add_generation_prompt=True,
            tokenize=False,
        )
    )


@FAMILIES
@given(st.lists(messages, min_size=1, max_size=6), st.lists(tools, max_size=3), st.booleans())
@pytest.mark.both_tiers
@settings(max_examples=cases(60, 400))
def test_the_template_writes_what_render_writes(
    tokenizer: Any,
    prompt_format: Format,
    conversation: list[Message],
    offered: list[Tool],
    is_text: bool,
) -> None:
    written = openai_messages(conversation, is_text)
    prompt = rendered(tokenizer, prompt_format, written, openai_tools(offered) or None)
    assert prompt == prompt_format.render_prompt(conversation, offered)


@FAMILIES
@pytest.mark.parametrize("is_wrapped", [True, False])
def test_tools_and_calls_may_come_without_their_wrapper(
    tokenizer: Any, prompt_format: Format, is_wrapped: bool
) -> None:
    tool = Tool("f", "", {}, {"name": "f", "parameters": {}})
    call = ToolCall("f", {"x": [1, {"y": "é"}]})
    conversation = [Message("user", "q"), Message("assistant", "", (call,))]
    bare = {"name": "f", "arguments": call.arguments}
    offered: Json = openai_tools([tool]) if is_wrapped else [tool.raw]
    written: list[Json] = [
        {"role": "user", "content": [{"type": "text", "text": "q"}]},
        {"role": "assistant", "content": None, "tool_calls": [bare]},
    ]
    assert rendered(tokenizer, prompt_format, written, offered) == prompt_format.render_prompt(
        conversation, [tool]
    )


@FAMILIES
def test_a_result_is_named_by_the_id_of_its_call(tokenizer: Any, prompt_format: Format) -> None:
    conversation = [
        Message("user", "q"),
        Message("assistant", "", (ToolCall("f", {}), ToolCall("g", {}))),
        Message("tool", "1", tool_name="f"),
        Message("tool", "2", tool_name="g"),
    ]
    written = openai_messages(conversation, is_text=False)
    for call, call_id in zip(written[1]["tool_calls"], "ab", strict=True):
        call["id"] = call_id
    for result, call_id in zip(written[2:], "ab", strict=True):
        del result["name"]
        result["tool_call_id"] = call_id
    prompt = rendered(tokenizer, prompt_format, written, None)
    assert prompt == prompt_format.render_prompt(conversation, [])


@FAMILIES
def test_without_a_generation_prompt_the_conversation_just_ends(
    tokenizer: Any, prompt_format: Format
) -> None:
    written = [{"role": "user", "content": "q"}]
    whole = tokenizer.apply_chat_template(
        written, chat_template=prompt_format.chat_template, tokenize=False
    )
    asked = rendered(tokenizer, prompt_format, list(written), None)
    assert asked.startswith(whole) and asked != whole
    assert asked.removeprefix(whole).count("\n") == 1


def test_mlx_lm_finds_the_parser_in_the_template_alone() -> None:
    from types import SimpleNamespace

    from mlx_lm.tokenizer_utils import _infer_tool_parser

    for prompt_format in FORMATS.values():
        seen = SimpleNamespace(chat_template=prompt_format.chat_template, get_vocab=dict)
        assert _infer_tool_parser(seen) == prompt_format.tool_parser
