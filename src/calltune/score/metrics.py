"""Verdicts added up: counts, rates, and how far a rate can be trusted."""

from collections.abc import Callable, Sequence
from math import sqrt

from calltune.calls import Json

Record = dict[str, Json]
"""One entry of a results file: an example, what the model wrote, and the verdict."""

CLAIMS = {
    "success": "is_exact",
    "ast": "is_ast",
    "function_names": "has_right_names",
    "parsed": "is_parsed",
}
"""The rates of a summary, and the claim of a verdict that each one counts."""

Z_95 = 1.959963984540054
"""Standard normal deviations that hold 95 % between them."""


def summarise(records: Sequence[Record]) -> dict[str, Json]:
    """How many examples, and for each claim of the verdict how many bear it out."""
    rates = {
        name: rate(sum(record["verdict"][claim] for record in records), len(records))
        for name, claim in CLAIMS.items()
    }
    return {"examples": len(records), **rates}


def by_group(records: Sequence[Record], key: Callable[[Record], str]) -> dict[str, dict[str, Json]]:
    """A summary for each group of records, groups in the order in which they first occur."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: summarise(group) for name, group in groups.items()}


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
