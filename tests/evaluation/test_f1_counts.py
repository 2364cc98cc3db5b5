import pytest

from calltune.evaluation.metrics import Count, argument_count, f1, function_count
from calltune.types import AcceptableArgument, Answer, Json, ParsedOutput, ToolCall


def call(name: str, **arguments: Json) -> ToolCall:
    return ToolCall(name, arguments)


def answer(name: str, **arguments: Json) -> Answer:
    choices = {
        k: v if isinstance(v, AcceptableArgument) else AcceptableArgument((v,))
        for k, v in arguments.items()
    }
    return Answer(name, choices)


UNREAD = ParsedOutput((), "unclosed brace")


def test_functions_are_counted_as_often_as_they_are_called() -> None:
    answers = (answer("f"), answer("f"), answer("g"))
    made = ParsedOutput((call("f"), call("g"), call("g"), call("h")))
    assert function_count(made, answers) == Count(right=2, written=4, wanted=3)
    assert function_count(UNREAD, answers) == Count(0, 0, 3)
    assert function_count(ParsedOutput(()), ()) == Count(0, 0, 0)


def test_arguments_are_counted_one_by_one() -> None:
    made = ParsedOutput((call("f", x=1, y=3, z=0),))
    answers = (answer("f", x=1, y=2, w=5),)
    assert argument_count(made, answers) == Count(right=1, written=3, wanted=3)
    assert argument_count(UNREAD, answers) == Count(0, 0, 3)


def test_an_optional_argument_is_wanted_only_where_it_is_right() -> None:
    answers = (answer("f", x=1, unit=AcceptableArgument(("m",), is_optional=True)),)
    assert argument_count(ParsedOutput((call("f", x=1),)), answers) == Count(1, 1, 1)
    assert argument_count(ParsedOutput((call("f", x=1, unit="m"),)), answers) == Count(2, 2, 2)
    assert argument_count(ParsedOutput((call("f", x=1, unit="cm"),)), answers) == Count(1, 2, 1)


def test_calls_are_paired_so_that_most_arguments_are_right() -> None:
    answers = (answer("f", x=1, y=1), answer("f", x=1, y=2))
    made = ParsedOutput((call("f", x=1, y=2), call("f", x=1, y=1)))
    assert argument_count(made, answers) == Count(4, 4, 4)
    # One call too many, and one too few, count against precision and recall.
    assert argument_count(made, answers[:1]) == Count(2, 4, 2)
    assert argument_count(ParsedOutput(made.calls[:1]), answers) == Count(2, 2, 4)
    # Of another function, no argument is right.
    assert argument_count(ParsedOutput((call("g", x=1, y=1),)), answers[:1]) == Count(0, 2, 2)


def test_f1_is_over_all_counts_together() -> None:
    # Precision 3 of 4, recall 3 of 6.
    counts = [Count(2, 2, 4), Count(1, 2, 2)]
    assert f1(counts) == pytest.approx(2 * 0.75 * 0.5 / (0.75 + 0.5))
    assert f1([Count(0, 0, 0)]) is None
    assert f1([Count(0, 2, 1)]) == 0
