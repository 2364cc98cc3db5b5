"""Metrics over many judged answers, and the place to add one: counts, rates, F1 and pass@k.

To add a rate: give `Judgement` a field that says for one answer whether it counts, fill it in
`judge.judge`, give `Summary` or `Details` a field for the rate, and name both in
`SUMMARY_METRICS` or `DETAIL_METRICS`. Its label in tables is in `report/labels.py`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import fmean, median

from calltune.evaluation.exact_match import NO_TOOLS, accepts_value, cheapest_pairs
from calltune.evaluation.records import Count, Judgement, Record
from calltune.schemas.keywords import property_schema
from calltune.types import Answer, Json, ParsedOutput, Tool, ToolCall

SUMMARY_METRICS = {
    "success": "is_exact",
    "ast": "is_ast",
    "function_names": "has_right_names",
    "parsed": "is_parsed",
}
"""The rates of `Summary`, each with the field of `Judgement` that it counts."""

DETAIL_METRICS = {
    "schema_valid": "is_valid",
    "invented_function": "invents_function",
    "invented_argument": "invents_argument",
}
"""The rates of `Details` that count a field of `Judgement` over all examples."""

Z_95 = 1.959963984540054
"""95 % of a normal distribution lie within this many standard deviations of its mean."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of how many, with the share and its 95 % interval."""

    count: int
    of: int
    rate: float
    """From 0 to 1; 0 of nothing."""
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer costs: tokens, or seconds."""

    mean: float
    median: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The main rates of one model, from the strictest to the mildest."""

    examples: int
    success: Rate
    """Exact matches."""
    ast: Rate
    """Answers that pass by BFCL's rules."""
    function_names: Rate
    """Answers that call the right functions."""
    parsed: Rate
    """Answers that could be parsed."""


@dataclass(frozen=True, slots=True)
class Details:
    """Further rates of one model, F1 scores, and what its answers cost."""

    schema_valid: Rate
    invented_function: Rate
    invented_argument: Rate
    abstained: Rate
    """Of the examples that need no call, those where none was made."""
    malformed: Rate
    """Of the examples that need no call, those whose answer could not be parsed."""
    false_refusal: Rate
    """Of the examples that need a call, those whose answer was parsed and makes none."""
    function_f1: float | None
    """None where nothing was called and nothing was to be called."""
    argument_f1: float | None
    answer_tokens: Cost | None
    """Of the answer without the token that ends it; None where a record does not tell."""
    answer_seconds: Cost | None
    """From the start of a prompt to its last token, while others run beside it: a smaller batch
    means fewer seconds an answer, and more in all."""


def summarise(records: Sequence[Record]) -> Summary:
    """The main rates over these records."""
    judgements = [record.judgement for record in records]
    rates = {name: _rate_of(judgements, field) for name, field in SUMMARY_METRICS.items()}
    return Summary(len(records), **rates)


def summarise_by(records: Sequence[Record], key: Callable[[Record], str]) -> dict[str, Summary]:
    """A summary for each group of records, groups in the order in which they first occur."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: summarise(group) for name, group in groups.items()}


def details(records: Sequence[Record]) -> Details:
    """The further metrics over these records."""
    judgements = [record.judgement for record in records]
    idle = [found for found in judgements if found.abstention is not None]
    busy = [found for found in judgements if found.abstention is None]
    rates = {name: _rate_of(judgements, field) for name, field in DETAIL_METRICS.items()}
    return Details(
        **rates,
        abstained=rate(sum(found.abstention == "abstained" for found in idle), len(idle)),
        malformed=rate(sum(found.abstention == "malformed" for found in idle), len(idle)),
        false_refusal=rate(sum(found.reason == "no call" for found in busy), len(busy)),
        function_f1=f1([found.functions for found in judgements]),
        argument_f1=f1([found.arguments for found in judgements]),
        answer_tokens=_cost([record.generated_tokens for record in records]),
        answer_seconds=_cost([record.seconds for record in records]),
    )


def rate(count: int, of: int) -> Rate:
    """`count` of `of` as a rate from 0 to 1, with its 95 % Wilson score interval.

    Of nothing, the rate is 0 and the interval is everything. Source: Wilson, RecordLog of the
    American Statistical Association 22 (1927).
    """
    assert 0 <= count <= of, f"{count} of {of}"
    if of == 0:
        return Rate(0, 0, 0.0, 0.0, 1.0)
    share = count / of
    weight = Z_95**2 / of
    middle = (share + weight / 2) / (1 + weight)
    reach = Z_95 * sqrt(share * (1 - share) / of + weight / (4 * of)) / (1 + weight)
    # Rounding must not put the interval a hair beside a rate of exactly 0 or 1.
    low, high = min(share, middle - reach), max(share, middle + reach)
    return Rate(count, of, share, max(0.0, low), min(1.0, high))


def f1(counts: Sequence[Count]) -> float | None:
    """The harmonic mean of precision and recall over all counts together; None of nothing."""
    right, both = sum(c.right for c in counts), sum(c.written + c.wanted for c in counts)
    return 2 * right / both if both else None


def pass_at(counts: Sequence[tuple[int, int]]) -> dict[str, float]:
    """pass@k: how likely at least one of k answers to an example is right, by k as text.

    Args:
        counts: For each example how many of its n answers are right, and n, the same for all.

    Returns:
        The unbiased estimate for each k from 1 to n. Source: Chen et al., "Evaluating Large
        Language Models Trained on Code", arXiv 2107.03374, equation 1.
    """
    n = counts[0][1]
    return {
        str(k): sum(1 - comb(n - right, k) / comb(n, k) for right, _ in counts) / len(counts)
        for k in range(1, n + 1)
    }


def function_count(parsed: ParsedOutput, answers: tuple[Answer, ...]) -> Count:
    """Functions called, each as often as it should be; text that was not parsed calls none."""
    if parsed.problem is not None:
        return Count(0, 0, len(answers))
    made = Counter(call.name for call in parsed.calls)
    right = (made & Counter(answer.name for answer in answers)).total()
    return Count(right, len(parsed.calls), len(answers))


def argument_count(
    parsed: ParsedOutput, answers: tuple[Answer, ...], tools: Mapping[str, Tool] = NO_TOOLS
) -> Count:
    """Arguments with a right value, calls and answers paired so that most are right.

    An optional argument is wanted only where it was written right. `tools` are those on offer, by
    name.
    """
    calls = () if parsed.problem is not None else parsed.calls
    found = [
        [_count_of_pair(call, answer, tools.get(call.name)) for answer in answers] for call in calls
    ]
    pairs = cheapest_pairs([[-count.right for count in row] for row in found])
    paired = [found[pair.row][pair.column] for pair in pairs]
    calls_left = set(range(len(calls))) - {pair.row for pair in pairs}
    answers_left = set(range(len(answers))) - {pair.column for pair in pairs}
    return Count(
        sum(count.right for count in paired),
        sum(count.written for count in paired) + sum(len(calls[i].arguments) for i in calls_left),
        sum(count.wanted for count in paired) + sum(_n_required(answers[i]) for i in answers_left),
    )


def _rate_of(judgements: Sequence[Judgement], field: str) -> Rate:
    return rate(sum(getattr(found, field) for found in judgements), len(judgements))


def _cost(values: Sequence[float | None]) -> Cost | None:
    """Mean and median; None where a value is missing, as a mean of some would mislead."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Cost(fmean(known), median(known))


def _count_of_pair(call: ToolCall, answer: Answer, tool: Tool | None) -> Count:
    if call.name != answer.name:
        return Count(0, len(call.arguments), _n_required(answer))
    schema: Json = {} if tool is None else tool.parameters
    right = [
        key
        for key, value in call.arguments.items()
        if key in answer.arguments
        and accepts_value(answer.arguments[key], value, property_schema(schema, key))
    ]
    optional = sum(answer.arguments[key].is_optional for key in right)
    return Count(len(right), len(call.arguments), _n_required(answer) + optional)


def _n_required(answer: Answer) -> int:
    return sum(not choice.is_optional for choice in answer.arguments.values())
