"""The cheapest pairing of two small sets, found by augmenting paths."""

from math import inf
from typing import NamedTuple


class Pair(NamedTuple):
    """One row and the column it goes with."""

    row: int
    column: int


def cheapest_pairs(costs: list[list[int]]) -> list[Pair]:
    """Pair every row, or every column when they are fewer, at the least total cost.

    costs (rows, columns), rectangular. Time grows with the cube of the size.
    """
    if not costs or not costs[0]:
        return []
    if len(costs) > len(costs[0]):
        turned = [list(column) for column in zip(*costs, strict=True)]
        return sorted(Pair(column, row) for row, column in cheapest_pairs(turned))
    return _pair_every_row(costs)


def _pair_every_row(costs: list[list[int]]) -> list[Pair]:
    # The Hungarian method: prices keep each reduced cost at zero or above, so that every row
    # can take its column by a shortest path. Row and column 0 stand for "none".
    n_rows, n_columns = len(costs), len(costs[0])
    row_price, column_price = [0.0] * (n_rows + 1), [0.0] * (n_columns + 1)
    row_of = [0] * (n_columns + 1)
    for start in range(1, n_rows + 1):
        row_of[0] = start
        least, came_from = [inf] * (n_columns + 1), [0] * (n_columns + 1)
        is_done = [False] * (n_columns + 1)
        column = 0
        while row_of[column]:
            is_done[column] = True
            row = row_of[column]
            for other in range(1, n_columns + 1):
                reduced = costs[row - 1][other - 1] - row_price[row] - column_price[other]
                if not is_done[other] and reduced < least[other]:
                    least[other], came_from[other] = reduced, column
            open_columns = [c for c in range(1, n_columns + 1) if not is_done[c]]
            nearest = min(open_columns, key=lambda c: least[c])
            step = least[nearest]
            for other in range(n_columns + 1):
                if is_done[other]:
                    row_price[row_of[other]] += step
                    column_price[other] -= step
                else:
                    least[other] -= step
            column = nearest
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return sorted(Pair(row_of[c] - 1, c - 1) for c in range(1, n_columns + 1) if row_of[c])
