"""Laws that tie calls, answers and verdicts together, tried on made-up answers."""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.evaluation.ast_match import is_ast_match
from calltune.evaluation.exact_match import differences, has_right_names, is_exact_match
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    AcceptableValue,
    Answer,
    Json,
    ParsedOutput,
    Tool,
    ToolCall,
    answers_from_json,
    answers_to_json,
    exact_answer,
    reference_call,
)

# Few letters and numbers, so that equal and nearly equal values meet often.
keys = st.sampled_from(["a", "b", "$fields", "$$fields", "values"])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(0, 2), st.sampled_from([0.0, 1.0, 1.5, "", "a", "1", "é"])
)
values: st.SearchStrategy[Json] = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
    max_leaves=4,
)


def _choices(
    inner: st.SearchStrategy[AcceptableValue],
) -> st.SearchStrategy[dict[str, AcceptableArgument]]:
    required = st.builds(AcceptableArgument, st.lists(inner, min_size=1, max_size=2).map(tuple))
    optional = st.builds(AcceptableArgument, st.lists(inner, max_size=2).map(tuple), st.just(True))
    return st.dictionaries(keys, required | optional, max_size=3)


acceptable: st.SearchStrategy[AcceptableValue] = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(keys, inner, max_size=2)
        | st.builds(AcceptableObject, _choices(inner))
    ),
    max_leaves=4,
)
names = st.sampled_from(["f", "g"])
answers = st.builds(Answer, names, _choices(acceptable))
calls = st.builds(ToolCall, names, st.dictionaries(keys, values, max_size=3))
queries = st.text("ab1é ", max_size=6)


@settings(deadline=None)
@given(st.lists(answers, max_size=3).map(tuple))
def test_answers_come_back_from_json(written: tuple[Answer, ...]) -> None:
    assert answers_from_json(json.loads(json.dumps(answers_to_json(written)))) == written


@settings(deadline=None)
@given(calls)
def test_a_call_is_exact_for_its_exact_answer(call: ToolCall) -> None:
    assert is_exact_match(ParsedOutput((call,)), (exact_answer(call),))


@settings(deadline=None)
@given(st.lists(answers, max_size=3).map(tuple), queries)
def test_reference_calls_are_exact_for_any_query(right: tuple[Answer, ...], query: str) -> None:
    written = tuple(reference_call(answer, query) for answer in right)
    assert is_exact_match(ParsedOutput(written), right)


@settings(deadline=None)
@given(
    st.lists(calls, max_size=3),
    st.lists(answers, max_size=3),
    st.booleans(),
    queries,
    st.randoms(use_true_random=False),
)
def test_order_changes_no_verdict(
    made: list[ToolCall],
    right: list[Answer],
    is_nearly_right: bool,
    query: str,
    shuffler: random.Random,
) -> None:
    if is_nearly_right:
        made = [reference_call(answer, query) for answer in right] + made[:1]
    checks = (is_exact_match, has_right_names)
    verdict = [check(ParsedOutput(tuple(made)), tuple(right)) for check in checks]
    shuffled_calls, shuffled_answers = list(made), list(right)
    shuffler.shuffle(shuffled_calls)
    shuffler.shuffle(shuffled_answers)
    shuffled = ParsedOutput(tuple(shuffled_calls)), tuple(shuffled_answers)
    assert [check(*shuffled) for check in checks] == verdict


@settings(deadline=None)
@given(st.lists(calls, max_size=3), st.lists(answers, max_size=3), st.booleans(), queries)
def test_a_reading_is_exact_when_nothing_is_told_against_it(
    made: list[ToolCall], right: list[Answer], is_nearly_right: bool, query: str
) -> None:
    if is_nearly_right:
        made = [reference_call(answer, query) for answer in right] + made[:1]
    parsed = ParsedOutput(tuple(made))
    is_exact = is_exact_match(parsed, tuple(right))
    assert is_exact == (differences(parsed, tuple(right)) == ())


types = st.sampled_from(["integer", "number", "string", "boolean", "array", "object"])
schemas = st.recursive(
    st.builds(dict) | st.builds(lambda kind: {"type": kind}, types),
    lambda inner: st.fixed_dictionaries(
        {}, optional={"type": types, "items": inner, "properties": st.dictionaries(keys, inner)}
    ),
    max_leaves=6,
)


@settings(deadline=None)
@given(
    st.lists(calls, max_size=3),
    st.lists(answers, max_size=3),
    st.booleans(),
    queries,
    st.fixed_dictionaries({"f": schemas, "g": schemas}),
)
def test_an_exact_match_is_an_ast_match(
    made: list[ToolCall],
    right: list[Answer],
    is_nearly_right: bool,
    query: str,
    parameters: dict[str, dict[str, Json]],
) -> None:
    """The rates are told from the strictest to the mildest."""
    if is_nearly_right:
        made = [reference_call(answer, query) for answer in right] + made[:1]
    tools = {name: Tool(name, "", schema, {}) for name, schema in parameters.items()}
    parsed = ParsedOutput(tuple(made))
    if is_exact_match(parsed, tuple(right), tools):
        assert is_ast_match(parsed, tuple(right), tools)
        assert differences(parsed, tuple(right), tools) == ()
