"""Bounds of numbers in grammars, as JSON Schema has them, whatever their size and notation."""

from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from calltune.schemas.exclusion import Unsatisfiable
from calltune.schemas.validate import satisfies

from support.schema_grammar import grammar_of

small = st.integers(-30, 30) | st.integers(-300, 300).map(lambda tenths: tenths / 10)
large = st.integers(-(10**20), 10**20) | st.sampled_from([2**63, 2**63 - 1, -(2**63)])
floats = st.floats(-1e300, 1e300).filter(lambda x: not 0 < abs(x) < 1e-29)
numbers = small | large | floats
bounds = st.fixed_dictionaries(
    {},
    optional={
        keyword: numbers
        for keyword in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    },
)


@given(kind=st.sampled_from(["integer", "number"]), limits=bounds, value=numbers)
@example("number", {"minimum": -9.3e18, "maximum": 9.3e18}, 1e16)
@example("integer", {"minimum": -(2**63), "maximum": 2**63 - 1}, 2**63 - 1)
@example("integer", {"minimum": 10**18 + 1}, 10**18 + 1)
@example("number", {"maximum": 1.7976931348623157e308}, 1e300)
@example("number", {"exclusiveMinimum": 0}, -0.0)
def test_a_number_is_accepted_if_it_is_within_its_bounds(
    kind: str, limits: dict[str, Any], value: float
) -> None:
    assume(kind == "number" or isinstance(value, int))
    schema = {"type": kind} | limits
    try:
        grammar = grammar_of(schema)
    except Unsatisfiable:
        assert not satisfies(value, schema)
        return
    if not grammar.notes:
        assert grammar.accepts(value) == satisfies(value, schema)
    for each in limits.values():
        # Numbers end at e+307: above it some texts are no floats.
        if kind == "number" and not grammar.notes and abs(each) < 1e308:
            assert grammar.accepts(each) == satisfies(each, schema)


def test_a_lower_bound_alone_does_not_limit_size() -> None:
    for schema in ({"minimum": 1}, {"maximum": 2**63 - 1, "minimum": 0}, {"exclusiveMinimum": 0}):
        grammar = grammar_of({"type": "integer"} | schema)
        assert grammar.accepts(9 * 10**18) and not grammar.accepts(-1) and not grammar.notes


@pytest.mark.parametrize("divisor", [1, 2, 5, 7, 10, 25, 60, 1000, 0.5, 0.25])
def test_integers_are_multiples(divisor: float) -> None:
    grammar = grammar_of({"type": "integer", "multipleOf": divisor})
    assert not grammar.notes
    for value in (0, 1, -2, 5, 7, 10, -25, 60, 420, 1000, 123, 4200):
        assert grammar.accepts(value) == (value % divisor == 0), value
    assert grammar.accepts(10**20) == (10**20 % divisor == 0 and divisor not in (7, 60))


def test_a_bound_of_too_many_digits_is_named() -> None:
    assert grammar_of({"type": "integer", "minimum": 10**40}).notes == ("minimum",)
    assert grammar_of({"type": "number", "minimum": int("12" * 50)}).notes == ("minimum",)
    assert not grammar_of({"type": "integer", "maximum": 10**40}).notes
