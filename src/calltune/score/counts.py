"""How much of an answer is right: functions and arguments counted, not only all or nothing."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from calltune.calls import Answer, Reading, ToolCall
from calltune.score.assign import cheapest_pairs
from calltune.score.match import accepts_value


class Count(NamedTuple):
    """Of things written and things wanted, how many are both."""

    right: int
    written: int
    wanted: int


NONE = Count(0, 0, 0)


def f1(counts: Sequence[Count]) -> float | None:
    """The harmonic mean of precision and recall over all counts together; None of nothing."""
    right, both = sum(c.right for c in counts), sum(c.written + c.wanted for c in counts)
    return 2 * right / both if both else None


def function_count(reading: Reading, answers: tuple[Answer, ...]) -> Count:
    """Functions called, each as often as it should be."""
    if reading.problem is not None:
        return Count(0, 0, len(answers))
    made = Counter(call.name for call in reading.calls)
    right = (made & Counter(answer.name for answer in answers)).total()
    return Count(right, len(reading.calls), len(answers))


def argument_count(reading: Reading, answers: tuple[Answer, ...]) -> Count:
    """Arguments with a right value, calls and answers paired so that most are right.

    An argument that may be left out is wanted only where it was written right.
    """
    calls = () if reading.problem is not None else reading.calls
    found = [[_of_pair(call, answer) for answer in answers] for call in calls]
    pairs = cheapest_pairs([[-count.right for count in row] for row in found])
    held = [found[pair.row][pair.column] for pair in pairs]
    calls_left = set(range(len(calls))) - {pair.row for pair in pairs}
    answers_left = set(range(len(answers))) - {pair.column for pair in pairs}
    return Count(
        sum(count.right for count in held),
        sum(count.written for count in held) + sum(len(calls[i].arguments) for i in calls_left),
        sum(count.wanted for count in held) + sum(_n_required(answers[i]) for i in answers_left),
    )


def _of_pair(call: ToolCall, answer: Answer) -> Count:
    if call.name != answer.name:
        return Count(0, len(call.arguments), _n_required(answer))
    right = [
        key
        for key, value in call.arguments.items()
        if key in answer.arguments and accepts_value(answer.arguments[key], value)
    ]
    optional = sum(answer.arguments[key].is_optional for key in right)
    return Count(len(right), len(call.arguments), _n_required(answer) + optional)


def _n_required(answer: Answer) -> int:
    return sum(not choice.is_optional for choice in answer.arguments.values())
