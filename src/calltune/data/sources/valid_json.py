"""Rows as valid JSON, which has no NaN, no infinities and no numbers of thousands of digits.

Source: RFC 8259, chapter 6.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from calltune.schemas.tools import shortened
from calltune.types import Json


@dataclass(slots=True)
class NumberFaults:
    """What was done about the numbers that JSON does not have."""

    left_out: list[str] = field(default_factory=list)
    """The rows that were left out: their number and id, and the number at fault."""
    emptied: Counter[str] = field(default_factory=Counter)
    """How many rows had NaN in a column, which is null now, by the column's name."""


def valid_rows(rows: Iterable[dict[str, Json]], faults: NumberFaults) -> Iterator[dict[str, Json]]:
    """The rows that JSON can hold; the others are left out and counted in `faults`.

    NaN as the whole value of a column becomes null: with pandas it says that there is none.
    """
    for number, row in enumerate(rows, start=1):
        emptied = [key for key, value in row.items() if _is_nan(value)]
        if emptied:
            row = row | dict.fromkeys(emptied)
            faults.emptied.update(emptied)
        if (value := _not_finite(row)) is None:
            yield row
            continue
        row_id = row.get("id")
        named = f" ({shortened(row_id)})" if isinstance(row_id, str | int) else ""
        faults.left_out.append(f"row {number}{named}: {shortened(value)}")


def _is_nan(value: Json) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _not_finite(row: dict[str, Json]) -> float | None:
    """A number in the row that JSON does not have; None where there is none."""
    open_values: list[Json] = [row]
    while open_values:
        value = open_values.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return value
        if isinstance(value, dict):
            open_values.extend(value.values())
        elif isinstance(value, list):
            open_values.extend(value)
    return None
