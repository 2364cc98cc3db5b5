import pytest

from calltune.evaluation.exact_match import differences, has_right_names, is_exact_match
from calltune.evaluation.judge import judge
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    Answer,
    Json,
    ParsedOutput,
    Tool,
    ToolCall,
)

RIGHT = "exact match"
ONLY_NAMES = "only the function names are right"
ONLY_PARSED = "only parsed"
UNREAD = "not parsed"


def level(output: ParsedOutput, answers: tuple[Answer, ...]) -> str:
    """The strictest of the three that holds, which implies the others."""
    if is_exact_match(output, answers):
        assert has_right_names(output, answers)
        return RIGHT
    if has_right_names(output, answers):
        return ONLY_NAMES
    return UNREAD if output.problem else ONLY_PARSED


def parsed(*calls: ToolCall) -> ParsedOutput:
    return ParsedOutput(calls)


def f(**arguments: Json) -> ToolCall:
    return ToolCall("f", arguments)


def answer(**arguments: Json) -> Answer:
    """An answer for f; an argument that is no AcceptableArgument accepts that one value."""
    return Answer(
        "f",
        {
            k: v if isinstance(v, AcceptableArgument) else AcceptableArgument((v,))
            for k, v in arguments.items()
        },
    )


def test_calls_in_another_order_are_exact() -> None:
    assert level(parsed(f(x=1), f(x=2)), (answer(x=2), answer(x=1))) == RIGHT


INTEGER, NUMBER = {"type": "integer"}, {"type": "number"}
NESTED = {"type": "array", "items": {"type": "object", "properties": {"n": INTEGER}}}


@pytest.mark.parametrize(
    ("right", "written", "schema", "is_right"),
    [
        (5, 5, INTEGER, True),
        (5, 5.0, INTEGER, False),
        (100, 1e2, INTEGER, False),
        (0, -0.0, INTEGER, False),
        (5, 5.0, NUMBER, True),
        (5, 5.0, {"type": ["integer", "number"]}, True),
        (5, 5.0, {"anyOf": [INTEGER, {"type": "null"}]}, False),
        (5, 5.0, {"oneOf": [INTEGER, {"type": "null"}]}, False),
        (5, 5.0, {"anyOf": [INTEGER, NUMBER]}, True),
        (5, 5.0, {"allOf": [{"minimum": 1}, INTEGER]}, False),
        (5, 5.0, INTEGER | {"anyOf": [{"minimum": 5}, {"maximum": 1}]}, False),
        (5, 5.0, {}, True),
        (5.0, 5, INTEGER, True),
        (5.0, 5, NUMBER, True),
        # What the data holds right is right, whatever the schema says of it.
        (5.0, 5.0, INTEGER, True),
        (10**18 + 1, 10**18 + 1, INTEGER, True),
        (10**18 + 1, 1e18, NUMBER, False),
        (1, True, INTEGER, False),
        (1, True, {}, False),
        (0, False, NUMBER, False),
        (True, 1, {"type": "boolean"}, False),
        (True, 1.0, {}, False),
        (5, "5", INTEGER, False),
        ("5", 5, {"type": "string"}, False),
        (0, None, INTEGER, False),
        ([1, 2], [1, 2.0], {"type": "array", "items": INTEGER}, False),
        ([1, 2], [1, 2.0], {"type": "array", "items": NUMBER}, True),
        ([[1]], [[1.0]], {"items": {"items": INTEGER}}, False),
        ([{"n": 1}], [{"n": 1.0}], NESTED, False),
        ([{"n": 1}], [{"n": 1}], NESTED, True),
        ({"n": 1}, {"n": 1.0}, NESTED["items"], False),
        ({"m": 1}, {"m": 1.0}, NESTED["items"], True),
    ],
)
def test_numbers_are_right_as_the_schema_and_bfcl_have_them(
    right: Json, written: Json, schema: Json, is_right: bool
) -> None:
    """5.0 was once an exact match for an integer, and no AST match, which is the milder one."""
    tools = {"f": Tool("f", "", {"type": "object", "properties": {"x": schema}}, {})}
    found = judge(parsed(f(x=written)), (answer(x=right),), tools)
    assert (found.is_exact, found.is_ast) == (is_right, is_right)
    assert found.arguments == (is_right, 1, 1)
    assert (differences(parsed(f(x=written)), (answer(x=right),), tools) == ()) is is_right
    assert (found.reason is None) is is_right


def test_a_float_for_an_integer_is_of_the_wrong_type() -> None:
    tools = {"f": Tool("f", "", {"properties": {"x": INTEGER}}, {})}
    output, answers = parsed(f(x=5.0)), (answer(x=5),)
    assert judge(output, answers, tools).reason == "wrong type"
    assert differences(output, answers, tools) == ("f.x: 5.0 where 5 was right",)


def test_the_same_call_again_is_a_call_too_many() -> None:
    """It would be run twice, which is not what was asked for, however harmless it may be."""
    tools = {"f": Tool("f", "", {"properties": {"x": INTEGER}}, {})}
    twice = parsed(f(x=1), f(x=1))
    found = judge(twice, (answer(x=1),), tools)
    assert not (found.is_exact or found.is_ast or found.has_right_names)
    assert found.is_valid and found.reason == "too many calls"
    # Half of the calls, and of the arguments, are right.
    assert found.functions == found.arguments == (1, 2, 1)
    assert differences(twice, (answer(x=1),)) == ("extra call to f, the same as another",)
    wanted = judge(twice, (answer(x=1), answer(x=1)), tools)
    assert wanted.is_exact and wanted.is_ast
    idle = judge(twice, (), tools)
    assert (idle.reason, idle.abstention) == ("called anyway", "called anyway")


def test_any_of_the_acceptable_values_is_right() -> None:
    answers = (answer(unit=AcceptableArgument(("m", "metre"))),)
    assert level(parsed(f(unit="metre")), answers) == RIGHT
    assert level(parsed(f(unit="cm")), answers) == ONLY_NAMES


def test_only_an_optional_argument_may_be_left_out() -> None:
    assert level(parsed(f()), (answer(x=AcceptableArgument((1,), is_optional=True)),)) == RIGHT
    assert level(parsed(f()), (answer(x=1),)) == ONLY_NAMES


def test_an_optional_argument_that_is_there_must_be_right() -> None:
    answers = (answer(x=AcceptableArgument((1,), is_optional=True)),)
    assert level(parsed(f(x=2)), answers) == ONLY_NAMES


def test_an_optional_argument_without_values_must_be_left_out() -> None:
    answers = (answer(x=AcceptableArgument((), is_optional=True)),)
    assert level(parsed(f()), answers) == RIGHT
    assert level(parsed(f(x=None)), answers) == ONLY_NAMES


def test_an_unknown_argument_is_wrong() -> None:
    assert level(parsed(f(x=1, y=2)), (answer(x=1),)) == ONLY_NAMES


@pytest.mark.parametrize(
    ("written", "right"),
    [
        (True, 1),
        (1, True),
        (0, False),
        ("1", 1),
        (1, "1"),
        (None, False),
        (None, ""),
        ("true", True),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ([True], [1]),
        ({"a": [True]}, {"a": [1]}),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": 1, "b": 2}, {"a": 1}),
        ([], {}),
        ({}, []),
        ("m", "M"),
    ],
)
def test_json_values_that_are_not_equal_are_wrong(written: Json, right: Json) -> None:
    assert level(parsed(f(x=written)), (answer(x=right),)) == ONLY_NAMES


@pytest.mark.parametrize(
    ("written", "right"),
    [
        (1, 1.0),
        (1.0, 1),
        ([1.0], [1]),
        ({"a": 1, "b": [2]}, {"b": [2.0], "a": 1}),
        (None, None),
        (False, False),
        ([], []),
        ({}, {}),
    ],
)
def test_json_values_that_are_equal_are_right(written: Json, right: Json) -> None:
    assert level(parsed(f(x=written)), (answer(x=right),)) == RIGHT


def test_an_object_matches_key_by_key() -> None:
    fields = AcceptableObject(
        {"low": AcceptableArgument((1, 2)), "high": AcceptableArgument((9,), is_optional=True)}
    )
    answers = (answer(x=fields),)
    assert level(parsed(f(x={"low": 2})), answers) == RIGHT
    assert level(parsed(f(x={"low": 1, "high": 9})), answers) == RIGHT
    assert level(parsed(f(x={"high": 9})), answers) == ONLY_NAMES
    assert level(parsed(f(x={"low": 1, "high": 8})), answers) == ONLY_NAMES
    assert level(parsed(f(x={"low": 1, "middle": 5})), answers) == ONLY_NAMES
    assert level(parsed(f(x=1)), answers) == ONLY_NAMES


def test_objects_with_choices_are_found_inside_lists_and_objects() -> None:
    deep = [{"a": [AcceptableObject({"b": AcceptableArgument((1, 2))})]}]
    assert level(parsed(f(x=[{"a": [{"b": 2}]}])), (answer(x=deep),)) == RIGHT
    assert level(parsed(f(x=[{"a": [{"b": 3}]}])), (answer(x=deep),)) == ONLY_NAMES


def test_a_call_leaves_the_answer_that_only_another_call_fits() -> None:
    # f(x=1) fits both answers and f(x=2) the first only: first come, first served fails here.
    wide, narrow = answer(x=AcceptableArgument((1, 2))), answer(x=1)
    assert level(parsed(f(x=1), f(x=2)), (wide, narrow)) == RIGHT
    assert level(parsed(f(x=2), f(x=2)), (wide, narrow)) == ONLY_NAMES


def test_one_call_does_not_serve_two_answers() -> None:
    assert level(parsed(f(x=1)), (answer(x=1), answer(x=1))) == ONLY_PARSED


def test_a_call_too_many_is_wrong() -> None:
    assert level(parsed(f(x=1), f(x=1)), (answer(x=1),)) == ONLY_PARSED


def test_another_function_is_wrong_though_its_arguments_are_right() -> None:
    assert level(parsed(ToolCall("g", {"x": 1})), (answer(x=1),)) == ONLY_PARSED


def test_calling_nothing_is_right_where_nothing_is_to_be_called() -> None:
    assert level(parsed(), ()) == RIGHT
    assert level(parsed(f()), ()) == ONLY_PARSED
    assert level(parsed(), (answer(),)) == ONLY_PARSED


def test_an_unread_text_is_wrong_even_where_nothing_is_to_be_called() -> None:
    assert level(ParsedOutput((), "unclosed brace"), ()) == UNREAD
    assert level(ParsedOutput((f(x=1),), "text after the call"), (answer(x=1),)) == UNREAD


def test_a_wrong_value_is_told_with_the_right_one() -> None:
    area = Answer("area", {"unit": AcceptableArgument(("m",))})
    wrong = ToolCall("area", {"unit": "cm"})
    assert differences(parsed(wrong), (area,)) == ('area.unit: "cm" where "m" was right',)


def test_several_right_values_are_told_and_many_are_counted() -> None:
    two, five = answer(x=AcceptableArgument((1, 2))), answer(x=AcceptableArgument((1, 2, 3, 4, 5)))
    assert differences(parsed(f(x=0)), (two,)) == ("f.x: 0 where 1 or 2 was right",)
    assert differences(parsed(f(x=0)), (five,)) == (
        "f.x: 0 where 1, 2, 3 or one of 2 more was right",
    )


def test_missing_extra_and_unknown_are_told() -> None:
    told = differences(
        parsed(f(x=1, z=3), ToolCall("g", {})), (answer(x=1, y=True), Answer("h", {}))
    )
    assert told == (
        "f: argument z is not known",
        "f.y: left out where true was right",
        "missing call to h",
        "extra call to g",
    )


def test_a_wrong_value_inside_an_object_is_told_by_its_path() -> None:
    right = answer(
        x=AcceptableObject({"low": AcceptableArgument((1,)), "high": AcceptableArgument((9,))})
    )
    assert differences(parsed(f(x={"low": 1, "high": 8})), (right,)) == (
        "f.x.high: 8 where 9 was right",
    )
    assert differences(parsed(f(x=5)), (right,)) == (
        'f.x: 5 where {"low": 1, "high": 9} was right',
    )


def test_calls_are_held_against_the_answers_they_differ_least_from() -> None:
    answers = (answer(x=1, y=1), answer(x=2, y=2))
    assert differences(parsed(f(x=2, y=3), f(x=1, y=1)), answers) == ("f.y: 3 where 2 was right",)


def test_the_extra_call_is_the_one_that_differs_most() -> None:
    told = differences(parsed(f(x=7, y=7), f(x=1, y=2)), (answer(x=1, y=1),))
    assert told == ("f.y: 2 where 1 was right", "extra call to f")


def test_a_long_value_is_cut_for_display() -> None:
    (told,) = differences(parsed(f(x="a" * 500)), (answer(x="b"),))
    assert len(told) < 100
    assert "…" in told


def test_an_unread_text_is_told_with_its_problem() -> None:
    assert differences(ParsedOutput((), "unclosed brace"), ()) == (
        "does not parse: unclosed brace",
    )
