from itertools import permutations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from calltune.evaluation.exact_match import cheapest_pairs

tables = st.tuples(st.integers(1, 4), st.integers(1, 4)).flatmap(
    lambda size: st.lists(
        st.lists(st.integers(0, 5), min_size=size[1], max_size=size[1]),
        min_size=size[0],
        max_size=size[0],
    )
)


@settings(deadline=None)
@given(tables)
def test_no_pairing_is_cheaper(costs: list[list[int]]) -> None:
    n_rows, n_columns = len(costs), len(costs[0])
    if n_rows <= n_columns:
        every = (list(enumerate(p)) for p in permutations(range(n_columns), n_rows))
    else:
        every = ([(r, c) for c, r in enumerate(p)] for p in permutations(range(n_rows), n_columns))
    best = min(sum(costs[row][column] for row, column in pairs) for pairs in every)
    assert sum(costs[pair.row][pair.column] for pair in cheapest_pairs(costs)) == best


@settings(deadline=None)
@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: st.lists(
            st.lists(st.integers(-9, 9), min_size=size[1], max_size=size[1]),
            min_size=size[0],
            max_size=size[0],
        )
    )
)
def test_the_cost_is_that_of_scipys_assignment(costs: list[list[int]]) -> None:
    best = int(np.array(costs)[linear_sum_assignment(costs)].sum())
    assert sum(costs[pair.row][pair.column] for pair in cheapest_pairs(costs)) == best


@settings(deadline=None)
@given(tables)
def test_each_row_and_column_is_paired_once(costs: list[list[int]]) -> None:
    pairs = cheapest_pairs(costs)
    assert len(pairs) == min(len(costs), len(costs[0]))
    assert len({pair.row for pair in pairs}) == len({pair.column for pair in pairs}) == len(pairs)


def test_nothing_is_paired_with_nothing() -> None:
    assert cheapest_pairs([]) == []
    assert cheapest_pairs([[], []]) == []
