"""Law: a row gives the calls that it says, or is dropped; a call is never taken for no call."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.data.readers.notations import read_turn
from calltune.data.readers.offer import read_offer
from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import Example, Json, ToolCall, exact_answer

from support.notations import NOTATIONS, ONE_CALL, TOOLS
from support.tiers import cases

OFFER = read_offer(TOOLS)
FULL = ToolCall(
    "tide_table",
    {
        "harbour": 'Büsum\'s "port"',
        "days": 2,
        "is_exact": True,
        "height": -1.5,
        "marks": ["a", "b, c"],
        "at": {"quay": "3"},
    },
)
FERRY = ToolCall("book_ferry", {"route": "Wyk"})
BARE = ToolCall("book_ferry", {})


def openai_row(text: str) -> dict[str, Json]:
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}]
    return {"messages": turns, "tools": TOOLS}


def sharegpt_row(text: str) -> dict[str, Json]:
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": text}]
    return {"conversations": turns, "tools": json.dumps(TOOLS)}


def function_call_row(text: str) -> dict[str, Json]:
    turns = [{"from": "human", "value": "q"}, {"from": "function_call", "value": text}]
    return {"conversations": turns, "tools": TOOLS}


def tools_in_text_row(text: str) -> dict[str, Json]:
    system = {"from": "system", "value": f"Functions: {json.dumps(TOOLS)}. Use them."}
    row = sharegpt_row(text)
    return {"conversations": [system, *row["conversations"]]}


def glaive_row(text: str) -> dict[str, Json]:
    tools = "\n\n".join(json.dumps(tool["function"], indent=4) for tool in TOOLS)
    chat = f"USER: q\n\n\nASSISTANT: {text} <|endoftext|>\n\n\n"
    return {"system": f"SYSTEM: Use them if required -\n{tools}\n", "chat": chat}


def xlam_row(text: str) -> dict[str, Json]:
    return {"query": "q", "tools": TOOLS, "answers": text}


def bfcl_row(text: str) -> dict[str, Json]:
    question = [[{"role": "user", "content": "q"}]]
    tools = [tool["function"] for tool in TOOLS]
    return {"id": "exec_1", "question": question, "function": tools, "ground_truth": [text]}


READERS: dict[str, Callable[[str], dict[str, Json]]] = {
    "openai": openai_row,
    "sharegpt": sharegpt_row,
    "function_call": function_call_row,
    "tools in text": tools_in_text_row,
    "glaive": glaive_row,
    "xlam": xlam_row,
    "bfcl": bfcl_row,
}
WORDS = st.text() | st.sampled_from(
    [
        *("</tool_call>", "<tool_call>", "[TOOL_CALLS]", "<think>", "</think>", "it's", '"', "\\"),
        *("tide_table(", '{"name": "book_ferry"}', "\n", "```", "}", "])", "null", "2", "true"),
        *("</parameter>", "<|python_tag|>", "<escape>", ", days=3", "USER: x", "{", "#", "'''"),
    ]
)
VALUES: dict[str, st.SearchStrategy[Json]] = {
    "harbour": WORDS,
    "days": st.integers(),
    "is_exact": st.booleans(),
    "height": st.floats(allow_nan=False, allow_infinity=False),
    "marks": st.lists(WORDS, max_size=2),
    "at": st.fixed_dictionaries({}, optional={"quay": WORDS}),
}
CALLS = st.lists(
    st.fixed_dictionaries({}, optional=VALUES).map(lambda given: ToolCall("tide_table", given))
    | st.fixed_dictionaries({}, optional={"route": WORDS}).map(
        lambda given: ToolCall("book_ferry", given)
    ),
    min_size=1,
    max_size=3,
)


def written(notation: str, calls: list[ToolCall]) -> tuple[str, list[ToolCall]]:
    calls = calls[:1] if notation in ONE_CALL else calls
    return NOTATIONS[notation](calls), calls


def read(row: dict[str, Json]) -> Example | None:
    """The one example of a row; None where the row is dropped."""
    try:
        (example,) = parse(row, "r").examples
    except UnusableRow as unusable:
        assert unusable.reason
        return None
    return example


@pytest.mark.parametrize("notation", NOTATIONS)
@pytest.mark.parametrize("calls", [[FULL], [BARE], [FERRY, BARE, FULL]], ids=["full", "bare", "3"])
def test_every_notation_is_read(notation: str, calls: list[ToolCall]) -> None:
    text, calls = written(notation, calls)
    for words in ("", "Let me look.\n", "<think>A <tool_call> or tide_table()?</think>\n"):
        said = read_turn(words + text, OFFER)
        assert list(said.calls) == calls
        assert said.words.startswith(words.strip())


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.both_tiers
@settings(max_examples=cases(12, 600), deadline=None)
@given(data=st.data())
def test_a_row_gives_the_calls_that_it_says_or_is_dropped(reader: str, data: st.DataObject) -> None:
    notation = data.draw(st.sampled_from(sorted(NOTATIONS)))
    text, calls = written(notation, data.draw(CALLS))
    # A quote that nothing escapes may stand in the text itself, and then it means another text.
    if any(mark in str(calls) for mark in ("<escape>", "USER:")):
        return
    example = read(READERS[reader](text))
    if example is not None:
        assert list(example.answers) == [exact_answer(call) for call in calls]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.both_tiers
@settings(max_examples=cases(12, 1000), deadline=None)
@given(data=st.data())
def test_a_broken_call_is_never_no_call(reader: str, data: st.DataObject) -> None:
    notation = data.draw(st.sampled_from(sorted(NOTATIONS)))
    text, calls = written(notation, [FULL, FERRY])
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.sampled_from(["", " ", "\n", *"'\"{}[]()<>/|`a,:="]))
    broken = text[:at] + put + text[at + data.draw(st.integers(0, 1)) :]
    example = read(READERS[reader](broken))
    assert example is None or len(example.answers) == len(calls), broken


@pytest.mark.parametrize(
    "words",
    [
        "High water is at four.",
        "Write <think>so</think> calm seas.",
        'A call begins with "<tool_call>" there.',
        "A call begins with `<tool_call>` and ends with `</tool_call>`.",
        "The function `tide_table(harbour)` needs a harbour.",
        "<think>I could write <tool_call> here, as tide_table(harbour=1).</think>\nWhich harbour?",
        "tide_table needs a harbour; book_ferry needs a route.",
        '{"high": "04:12", "harbour": "Husum"}',
        '```json\n{"high": 4}\n```',
        "I wrote [1] and (2) and {3}.",
        "[]",
    ],
)
def test_words_are_no_call(words: str) -> None:
    assert read_turn(words, OFFER) == (words, ())


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call></tool_call>",
        "<|tool_calls_begin|>",
        "<tool_call>tide</tool_call>",
        "I call tide_table(harbour='Husum') now.",
        "tide_table('Husum')",
        "[tide_table(harbour=Husum)]",
        '{"name": "tide_table", "arguments": ',
        '{"name": "tide_table", "arguments": {"harbour": "a"}, "arguments": {}}',
        '{"name": "tide_table", "wishes": {"harbour": "a"}}',
        "<tool_call>{'name': 'book_ferry', 'arguments': {'route': 'a', 'route': 'b'}}</tool_call>",
        '<tool_call>{"name": "tide_table", "arguments": "Husum"}</tool_call>',
        "<function=tide_table><parameter=harbour>a</parameter></function",
        "Action: sail\nAction Input: {}",
        "<functioncall> the tides of Husum",
    ],
)
def test_a_call_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        read_turn(text, OFFER)
    assert caught.value.detail


def test_an_argument_in_xml_is_of_its_declared_type_or_the_row_is_dropped() -> None:
    untyped = [{"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}}]
    offer = read_offer(untyped)
    text = "<function=f><parameter=x>{}</parameter></function>"
    assert read_turn(text.replace("{}", "word"), offer).calls == (ToolCall("f", {"x": "word"}),)
    with pytest.raises(UnusableRow, match="may be text or not"):
        read_turn(text.replace("{}", "2"), offer)
