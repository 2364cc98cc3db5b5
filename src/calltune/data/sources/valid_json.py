"""Rows as valid JSON, which has no NaN and no infinities.

Numbers of thousands of digits, and keys that stand twice in one object with different values, are
no more kept than these: what reads them does not agree on them.

Source: RFC 8259, chapter 6.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from calltune.files import NotKept
from calltune.schemas.tools import shortened
from calltune.types import Json


@dataclass(slots=True)
class ValueFaults:
    """What was done about values that cannot be kept."""

    left_out: list[str] = field(default_factory=list)
    """The rows that were left out: their number and id, and the value at fault."""
    emptied: Counter[str] = field(default_factory=Counter)
    """How many rows had NaN in a column, which is null now, by the column's name."""


def valid_rows(rows: Iterable[dict[str, Json]], faults: ValueFaults) -> Iterator[dict[str, Json]]:
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
    return isinstance(value, float) and math.isnan(value) and not isinstance(value, NotKept)


def _not_finite(row: dict[str, Json]) -> float | None:
    """A value in the row that cannot be kept; None where there is none."""
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
