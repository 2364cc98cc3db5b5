"""Verdicts added up: counts, rates, and how far a rate can be trusted.

How much of an answer is right: functions and arguments counted, not only all or nothing.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from math import comb, sqrt
from statistics import fmean, median
from typing import NamedTuple

from calltune.evaluation.exact_match import accepts_value, cheapest_pairs
from calltune.types import Answer, Json, ParsedOutput, ToolCall


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


def function_count(parsed: ParsedOutput, answers: tuple[Answer, ...]) -> Count:
    """Functions called, each as often as it should be."""
    if parsed.problem is not None:
        return Count(0, 0, len(answers))
    made = Counter(call.name for call in parsed.calls)
    right = (made & Counter(answer.name for answer in answers)).total()
    return Count(right, len(parsed.calls), len(answers))


def argument_count(parsed: ParsedOutput, answers: tuple[Answer, ...]) -> Count:
    """Arguments with a right value, calls and answers paired so that most are right.

    An argument that may be left out is wanted only where it was written right.
    """
    calls = () if parsed.problem is not None else parsed.calls
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


Record = dict[str, Json]
"""One entry of a results file: an example, what the model wrote, and the verdict."""

SUMMARY_METRICS = {
    "success": "is_exact",
    "ast": "is_ast",
    "function_names": "has_right_names",
    "parsed": "is_parsed",
}
"""The rates of a summary, and the metric of a verdict that each one counts."""

DETAIL_METRICS = {
    "schema_valid": "is_valid",
    "invented_function": "invents_function",
    "invented_argument": "invents_argument",
}
"""The same for the further rates of `details`."""

F1_METRICS = {"function_f1": "functions", "argument_f1": "arguments"}
"""The F1 scores of `details`, and the count of a verdict that each one adds up."""

COST_METRICS = {"answer_tokens": "generated_tokens", "answer_seconds": "seconds"}
"""What `details` tells of an answer's cost, and the number of a record that it is made of."""

Z_95 = 1.959963984540054
"""Standard normal deviations that hold 95 % between them."""


def summarise(records: Sequence[Record]) -> dict[str, Json]:
    """How many examples, and for each metric of the verdict how many bear it out."""
    rates = {
        name: rate(sum(record["verdict"][metric] for record in records), len(records))
        for name, metric in SUMMARY_METRICS.items()
    }
    return {"examples": len(records), **rates}


def details(records: Sequence[Record]) -> dict[str, Json]:
    """What else there is to say of the records: further rates, F1 scores, and what answers cost.

    Of the examples that need no call, how many abstained and how many were malformed; of the
    others, how many were refused: read, and no call made. Tokens are those of the answer, without
    the one that ends it. Seconds go from when a prompt was taken up to its last token, with others
    running beside it: a smaller batch means fewer seconds an answer, and more in all.
    """
    verdicts = [record["verdict"] for record in records]
    idle = [verdict for verdict in verdicts if verdict["abstention"] is not None]
    busy = [verdict for verdict in verdicts if verdict["abstention"] is None]
    rates = {
        name: rate(sum(verdict[metric] for verdict in verdicts), len(verdicts))
        for name, metric in DETAIL_METRICS.items()
    }
    for outcome in ("abstained", "malformed"):
        rates[outcome] = rate(sum(v["abstention"] == outcome for v in idle), len(idle))
    rates["false_refusal"] = rate(sum(v["reason"] == "no call" for v in busy), len(busy))
    scores = {
        name: f1([Count(*verdict[count]) for verdict in verdicts])
        for name, count in F1_METRICS.items()
    }
    efforts = {name: _middle(records, key) for name, key in COST_METRICS.items()}
    return rates | scores | efforts


def pass_at(counts: Sequence[tuple[int, int]]) -> dict[str, float]:
    """How likely at least one of k answers to an example is right, for each k up to all of them.

    counts: for each example how many of its n answers are right, and n, the same for all. The
    unbiased estimator of Chen et al., arXiv 2107.03374.
    """
    n = counts[0][1]
    return {
        str(k): sum(1 - comb(n - right, k) / comb(n, k) for right, _ in counts) / len(counts)
        for k in range(1, n + 1)
    }


def summarise_by(
    records: Sequence[Record], key: Callable[[Record], str]
) -> dict[str, dict[str, Json]]:
    """A summary for each group of records, groups in the order in which they first occur."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: summarise(group) for name, group in groups.items()}


def _middle(records: Sequence[Record], key: str) -> dict[str, float] | None:
    """Mean and median of a number; None where not every record has it."""
    values = [record[key] for record in records if key in record]
    if not values or len(values) < len(records):
        return None
    return {"mean": fmean(values), "median": median(values)}


def rate(count: int, of: int) -> dict[str, Json]:
    """`count` of `of` as a rate from 0 to 1, with its 95 % Wilson interval.

    Of nothing, the rate is 0 and the interval is everything.
    """
    assert 0 <= count <= of, f"{count} of {of}"
    if of == 0:
        return {"count": 0, "of": 0, "rate": 0.0, "low": 0.0, "high": 1.0}
    share = count / of
    weight = Z_95**2 / of
    middle = (share + weight / 2) / (1 + weight)
    reach = Z_95 * sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    # Rounding must not put the interval a hair beside a rate of exactly 0 or 1.
    low, high = min(share, middle - reach), max(share, middle + reach)
    return {
        "count": count,
        "of": of,
        "rate": share,
        "low": max(0.0, low),
        "high": min(1.0, high),
    }
