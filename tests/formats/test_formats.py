import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.formats import FORMATS
from calltune.formats.format import Format
from calltune.types import Message, ParsedOutput, Tool, ToolCall

FAMILIES = pytest.mark.parametrize("prompt_format", FORMATS.values(), ids=FORMATS.keys())

text = st.text(st.characters(codec="utf-8"), max_size=20)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
calls = st.lists(
    st.builds(ToolCall, text, st.dictionaries(text, json_values, max_size=4)), max_size=4
)


@FAMILIES
@given(made=calls)
def test_what_is_written_is_read_back(prompt_format: Format, made: list[ToolCall]) -> None:
    assert prompt_format.parse(prompt_format.render_calls(made)) == ParsedOutput(tuple(made))


@FAMILIES
@given(garbage=st.text() | st.text('[]{}":,`\\ntool_call<>/'))
def test_any_text_is_read_without_an_exception(prompt_format: Format, garbage: str) -> None:
    reading = prompt_format.parse(garbage)
    assert reading.problem is None or reading.calls == ()


@FAMILIES
def test_arguments_that_look_like_the_format_survive(prompt_format: Format) -> None:
    call = ToolCall("f", {"x": '```json\n[]\n```</tool_call><tool_call>{"a": 1}'})
    assert prompt_format.parse(prompt_format.render_calls([call, call])) == ParsedOutput(
        (call, call)
    )


@FAMILIES
@pytest.mark.parametrize(
    "text", ["", "I cannot do that.", "```json\n", "[{", "<tool_call>", "null", '{"name": 3}']
)
def test_text_without_calls_is_a_problem_and_not_an_abstention(
    prompt_format: Format, text: str
) -> None:
    reading = prompt_format.parse(text)
    assert reading.calls == ()
    assert reading.problem


@FAMILIES
def test_json_nested_past_the_limit_is_a_problem(prompt_format: Format) -> None:
    deep = "[" * 100_000
    for text in (deep, f"```json\n{deep}", f"<tool_call>\n{deep}"):
        assert prompt_format.parse(text).problem


@FAMILIES
def test_a_key_twice_and_nan_are_problems(prompt_format: Format) -> None:
    for arguments in ('{"x": 1, "x": 2}', '{"x": NaN}', '{"x": Infinity}'):
        body = f'{{"name": "f", "arguments": {arguments}}}'
        texts = (f"```json\n[{body}]\n```", f"<tool_call>\n{body}\n</tool_call>")
        assert all(prompt_format.parse(text).problem for text in texts)


def test_the_manuals_row_is_written_byte_for_byte() -> None:
    row = {
        "name": "get_weather",
        "description": "Get weather information",
        "parameters": {"location": {"type": "string", "description": "City name"}},
    }
    gemma = FORMATS["gemma"]
    tool = Tool("get_weather", "Get weather information", {}, row)
    query = Message("user", "What's the weather in New York?")
    call = ToolCall("get_weather", {"location": "New York"})
    # The manual's own line, "Output Format (for MLX)".
    line = (
        r'{"text": "<bos><start_of_turn>user\n## Instructions\nYou are a helpful assistant with '
        r"access to the following tools:\n\n```json\n[{\"name\": \"get_weather\", "
        r"\"description\": \"Get weather information\", \"parameters\": {\"location\": "
        r"{\"type\": \"string\", \"description\": \"City name\"}}}]\n```\n\n## User\nWhat's the "
        r"weather in New York?<end_of_turn>\n<start_of_turn>model\n```json\n[{\"id\": "
        r"\"call_id_0\", \"type\": \"function\", \"function\": {\"name\": \"get_weather\", "
        r"\"arguments\": \"{\\\"location\\\": \\\"New York\\\"}\"}}]\n```<end_of_turn><eos>" + '"}'
    )
    written = (
        gemma.render_prompt([query], [tool]) + gemma.render_calls([call]) + gemma.completion_end
    )
    assert written == json.loads(line)["text"]


@FAMILIES
def test_every_turn_of_a_conversation_is_in_the_prompt(prompt_format: Format) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "first question"),
        Message("assistant", "let me see", (ToolCall("f", {"x": 1}),)),
        Message("tool", '{"result": 5}', tool_name="f"),
        Message("assistant", "it is five"),
        Message("user", "second question"),
    ]
    prompt = prompt_format.render_prompt(messages, [Tool("f", "", {}, {"name": "f"})])
    parts = ["Be brief.", '"name": "f"', "first question", "let me see"]
    parts += [
        prompt_format.render_calls(messages[2].calls),
        '{"result": 5}',
        "it is five",
        "second question",
    ]
    positions = [prompt.index(part) for part in parts]
    assert positions == sorted(positions)


@FAMILIES
def test_a_conversation_without_tools_says_nothing_of_tools(prompt_format: Format) -> None:
    messages = [
        Message("system", "Be brief."),
        Message("user", "first question"),
        Message("assistant", "let me see", (ToolCall("f", {"x": 1}),)),
        Message("tool", '{"result": 5}', tool_name="f"),
        Message("user", "second question"),
    ]
    offered = prompt_format.render_prompt(messages, [Tool("f", "", {}, {"name": "f"})])
    plain = prompt_format.render_prompt(messages, [])
    start = plain.index("Be brief.") + len("Be brief.")
    # The same, but for what stands between the system's words and the first turn.
    assert offered.startswith(plain[:start]) and offered.endswith(plain[start:])
    bare = prompt_format.render_prompt([Message("user", "Hello.")], [])
    assert bare.count("Hello.") == 1
    for prompt in (plain, bare):
        assert "function" not in prompt.replace(prompt_format.render_calls(messages[2].calls), "")
        assert "tools" not in prompt


@FAMILIES
def test_a_tamed_message_holds_no_marker_and_says_the_same_otherwise(prompt_format: Format) -> None:
    marks = (
        "".join(prompt_format.markers)
        + prompt_format.markers[0][:3]
        + "".join(prompt_format.markers)
        + " ä\n"
    )
    message = Message("tool", marks, (ToolCall(marks, {marks: [marks, 1]}),), tool_name=marks)
    escaped = prompt_format.escape_control_tokens(message)
    prompt = prompt_format.render_prompt([escaped], [])
    for marker in prompt_format.markers:
        assert prompt.count(marker) == prompt_format.render_prompt([Message("tool", "")], []).count(
            marker
        )
    assert escaped.content.replace(" ", "") == marks.replace(" ", "")
    (call,) = escaped.calls
    assert call == ToolCall(
        escaped.content,
        {escaped.content: [escaped.content, 1]},
    )
    plain = Message("assistant", "a < b", (ToolCall("f", {"x": "<tool"}),))
    assert prompt_format.escape_control_tokens(plain) == plain


@FAMILIES
def test_what_calls_begin_with_begins_all_calls(prompt_format: Format) -> None:
    for calls in ([], [ToolCall("f", {})], [ToolCall("f", {"x": 1})] * 3):
        assert prompt_format.render_calls(calls).startswith(prompt_format.call_prefix)


def test_words_before_gemmas_fence_do_no_harm_and_words_after_it_do() -> None:
    gemma = FORMATS["gemma"]
    call = ToolCall("f", {})
    assert gemma.parse(f"Here you are:\n{gemma.render_calls([call])}") == ParsedOutput((call,))
    assert (
        gemma.parse(f"{gemma.render_calls([call])}\nAnything else?").problem
        == "text after the calls"
    )


def test_a_bare_object_counts_as_one_call() -> None:
    assert FORMATS["gemma"].parse('{"name": "f", "arguments": {"x": 1}}').calls == (
        ToolCall("f", {"x": 1}),
    )
