"""A text is read the same, however it comes: whole, letter by letter, or cut anywhere."""

import json
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.formats import FORMATS
from calltune.formats.format import Format
from calltune.types import MAX_DEPTH, Json, ParsedOutput, ToolCall

from support.tiers import cases

FAMILIES = pytest.mark.parametrize("prompt_format", FORMATS.values(), ids=FORMATS.keys())
N_SPLITS = 50
NAMES = ("f", "get_weather", "größe", "a.b", "}", "")
VALUES: tuple[Json, ...] = (
    *(0, -2.5, 1e300, True, None, "", "Zürich", "東京", "😀", "\ud83d", 'a "quoted" one', "\\"),
    *("]}", "{[", "\n\t\x00", "```", "</tool_call>", [], {}, [1, [2, []]], {"k": {"x": "}"}}),
)
GARBAGE = (
    *'[]{}",:\\` \n0-eN',
    *("```json", "```", "<tool_call>", "</tool_call>", "Sure!", "null", "[]", "é", "😀", "\u00a0"),
    *(r"\ud83d\ude00", r"\ud83d", r"\u12", '\\"', "1e999", "NaN", "9" * 4301),
)


words = st.text(st.characters(codec="utf-8"), max_size=20)
values: st.SearchStrategy[Json] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
calls = st.lists(st.builds(ToolCall, words, st.dictionaries(words, values, max_size=3)), max_size=3)


def fed(prompt_format: Format, pieces: Sequence[str]) -> tuple[tuple[ToolCall, ...], ParsedOutput]:
    """The calls that came while `pieces` were fed, and the reading at their end."""
    reader = prompt_format.parser()
    given = tuple(call for piece in pieces for call in reader.feed(piece))
    return given, reader.finish()


def cut(text: str, places: Sequence[int]) -> list[str]:
    ends = [*sorted(places), len(text)]
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def written(prompt_format: Format, chance: random.Random) -> str:
    """What a model might write: calls, most of them damaged somehow."""
    made = [
        ToolCall(
            chance.choice(NAMES),
            {chance.choice("xyz{"): chance.choice(VALUES) for _ in range(chance.randrange(3))},
        )
        for _ in range(chance.choice((0, 1, 1, 2)))
    ]
    text = prompt_format.render_calls(made)
    if chance.random() < 0.1:
        # Letters beyond ASCII as escapes, those beyond 16 bits as pairs.
        text = "".join(c if c.isascii() else json.dumps(c)[1:-1] for c in text)
    for _ in range(chance.choice((0, 1, 1, 2, 3))):
        text = damaged(text, chance)
    return text


def damaged(text: str, chance: random.Random) -> str:
    at = chance.randrange(len(text) + 1)
    after = min(len(text), at + chance.randrange(1, 6))
    return chance.choice(
        (
            text[:at],
            text + text[at:],
            text[:at] + text[after:],
            text[:at] + chance.choice(GARBAGE) + text[after:],
            text[:at] + chance.choice(GARBAGE) + text[at:],
            chance.choice(GARBAGE) + text,
            text + chance.choice(GARBAGE),
        )
    )


@FAMILIES
@pytest.mark.both_tiers
def test_outputs_are_parsed_the_same_however_they_are_split(prompt_format: Format) -> None:
    chance = random.Random(20)
    n_read, n_outputs = 0, cases(500, 10_000)
    for _ in range(n_outputs):
        text = written(prompt_format, chance)
        whole = fed(prompt_format, [text])
        given, reading = whole
        assert prompt_format.parse(text) == reading
        assert given == reading.calls if reading.problem is None else reading.calls == ()
        assert fed(prompt_format, list(text)) == whole, text
        for _ in range(N_SPLITS):
            places = [chance.randrange(len(text) + 1) for _ in range(chance.choice((1, 2, 5)))]
            assert fed(prompt_format, cut(text, places)) == whole, (text, places)
        n_read += reading.problem is None
    # Of either kind there are enough for this to mean something.
    assert 0.2 < n_read / n_outputs < 0.8


@FAMILIES
@given(made=calls, places=st.lists(st.integers(0, 400), max_size=6))
def test_written_calls_come_whole_out_of_pieces(
    prompt_format: Format, made: list[ToolCall], places: list[int]
) -> None:
    text = prompt_format.render_calls(made)
    assert fed(prompt_format, cut(text, places)) == (tuple(made), ParsedOutput(tuple(made)))


@FAMILIES
@given(
    text=st.text()
    | st.text('[]{}":,`\\ntool_call<>/')
    | st.lists(st.sampled_from(GARBAGE)).map("".join),
    at=st.integers(0, 60),
)
def test_any_text_is_read_alike_in_two_pieces(prompt_format: Format, text: str, at: int) -> None:
    assert fed(prompt_format, [text[:at], text[at:]]) == fed(prompt_format, [text])


@FAMILIES
def test_a_call_is_given_with_its_last_letter(prompt_format: Format) -> None:
    first, second = ToolCall("f", {"x": "}"}), ToolCall("g", {"y": {"z": [1]}})
    text = prompt_format.render_calls([first, second])
    reader = prompt_format.parser()
    given = {at: call for at, letter in enumerate(text) for call in reader.feed(letter)}
    assert list(given.values()) == [first, second]
    assert [text[at] for at in given] == ["}", "}"]
    assert text[: min(given)].count("}") < text.count("}") / 2
    assert reader.finish() == ParsedOutput((first, second))


@FAMILIES
def test_a_problem_takes_back_what_was_given(prompt_format: Format) -> None:
    call = ToolCall("f", {})
    reader = prompt_format.parser()
    assert reader.feed(prompt_format.render_calls([call])) == (call,)
    assert reader.feed(" and so on") == ()
    assert reader.feed(prompt_format.render_calls([call])) == ()
    assert reader.finish() == reader.finish() == ParsedOutput((), "text after the calls")


@FAMILIES
@pytest.mark.parametrize(
    "value", ['word "q" \\ \n' * 7500, list(range(20_000)), {"k": "😀" * 100_000}]
)
def test_100_kb_are_read_letter_by_letter_in_seconds(prompt_format: Format, value: Json) -> None:
    call = ToolCall("f", {"x": value})
    text = prompt_format.render_calls([call])
    assert len(text) >= 100_000
    started = time.perf_counter()
    assert fed(prompt_format, list(text)) == ((call,), ParsedOutput((call,)))
    # It takes 0.2 s; reading everything again at each letter takes many minutes.
    assert time.perf_counter() - started < 10


@FAMILIES
@pytest.mark.parametrize(
    "text",
    [
        *["word ", "`", "[", '{"a":'],
        *(pytest.param(t, marks=pytest.mark.slow) for t in (" ", "<", '[{"', "{", "\\", '[{"\\')),
    ],
)
def test_100_kb_of_the_same_are_a_problem_soon(prompt_format: Format, text: str) -> None:
    text = text * (100_000 // len(text))
    for opening in ("", "```json\n", '```json\n[{"x": ', "<tool_call>", '<tool_call>{"x": '):
        given, reading = fed(prompt_format, list(opening + text))
        assert given == () and reading.problem
        assert prompt_format.parse(opening + text) == reading


@pytest.mark.parametrize("depth", [MAX_DEPTH, 500, 10_000, 100_000])
@pytest.mark.parametrize("prompt_format", ["gemma", "chatml"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": [', "]}")])
def test_arguments_nested_too_deep_are_a_problem(
    prompt_format: str, depth: int, opening: str, closing: str
) -> None:
    arguments = f'{{"x": {opening * depth + closing * depth}}}'
    for either in (arguments, json.dumps(arguments)):
        one = f'{{"name": "f", "arguments": {either}}}'
        text = (
            f"```json\n[{one}]\n```"
            if prompt_format == "gemma"
            else f"<tool_call>{one}</tool_call>"
        )
        reading = FORMATS[prompt_format].parse(text)
        assert reading == ParsedOutput((), "JSON nested too deep")


@FAMILIES
def test_arguments_nested_less_deep_are_read(prompt_format: Format) -> None:
    value: Json = 1
    for _ in range(MAX_DEPTH - 5):
        value = [value]
    call = ToolCall("f", {"x": value})
    assert prompt_format.parse(prompt_format.render_calls([call])) == ParsedOutput((call,))


@FAMILIES
@pytest.mark.parametrize("number", ["9" * 5000, "-" + "9" * 5000, "1e999", "-1e999"])
def test_a_number_that_python_cannot_hold_is_a_problem(prompt_format: Format, number: str) -> None:
    call = ToolCall("f", {"x": 12345})
    text = prompt_format.render_calls([call]).replace("12345", number)
    assert prompt_format.parse(text) == ParsedOutput((), "a number too large")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("  ```json\n[5]", "no JSON object at 11"),
        ('[{"name": "f", "arguments": {}} 1', "no comma and no end of the list at 32"),
        ('[{"name": "f", "arguments": {}},', "no JSON object at 32"),
        ('[{"name": "f", "arguments": {}}', "no comma and no end of the list at 31"),
        ("words ```json\n[{1}]", "not JSON at 16: Expecting property name"),
    ],
)
def test_a_problem_names_its_place_in_the_whole_text(text: str, problem: str) -> None:
    assert (FORMATS["gemma"].parse(text).problem or "").startswith(problem)
