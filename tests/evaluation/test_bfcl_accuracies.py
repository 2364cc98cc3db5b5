from collections.abc import Sequence

import pytest

from calltune.evaluation.bfcl import MeanRate, bfcl_sections, mean, sections
from calltune.evaluation.metrics import Rate, rate
from calltune.evaluation.records import Record

from support.verdicts import record


def records(category: str, right: int, of: int) -> list[Record]:
    return [record(n < right, source=f"bfcl/{category}") for n in range(of)]


def idle(category: str, outcomes: Sequence[str]) -> list[Record]:
    return [
        record(False, source=f"bfcl/{category}", verdict={"abstention": outcome})
        for outcome in outcomes
    ]


NON_LIVE = [
    *records("simple_python", 4, 4),
    *records("multiple", 1, 2),
    *records("parallel", 0, 2),
    *records("parallel_multiple", 1, 2),
]
LIVE = [
    *records("live_simple", 6, 6),
    *records("live_multiple", 1, 2),
    *records("live_parallel", 0, 1),
    *records("live_parallel_multiple", 0, 1),
]
IDLE = [
    *idle("irrelevance", ["abstained", "malformed", "called anyway", "called anyway"]),
    *idle("live_irrelevance", ["abstained", "called anyway"]),
]


def totals(found: Sequence[Record], there: bool = False) -> dict[str, Rate | MeanRate]:
    made = (bfcl_sections if there else sections)(found)
    return {section.name: section.total for section in made if section.total is not None}


def test_non_live_is_the_plain_mean_and_live_weighs_by_rows() -> None:
    found = totals(NON_LIVE + LIVE)
    assert found["Non-Live AST"].rate == (1 + 0.5 + 0 + 0.5) / 4
    assert found["Non-Live AST"].of == 10
    assert found["Live AST"].rate == 7 / 10
    assert found["Live AST"] == rate(7, 10)
    assert list(found) == ["Non-Live AST", "Live AST"]


def test_text_that_cannot_be_read_is_no_call_for_bfcl_alone() -> None:
    name = "Irrelevance Detection"
    assert totals(IDLE)[name].rate == (1 / 4 + 1 / 2) / 2
    assert totals(IDLE, there=True)[name].rate == (2 / 4 + 1 / 2) / 2
    assert totals(NON_LIVE) == totals(NON_LIVE, there=True)


def test_a_section_with_a_category_missing_has_no_total() -> None:
    (section,) = sections(records("live_simple", 1, 2))
    assert section.total is None
    assert section.categories == {"live_simple": rate(1, 2)}


@pytest.mark.parametrize("rights", [(0, 0), (8, 8), (0, 8), (3, 5), (8, 7)])
def test_the_interval_of_a_mean_is_no_wider_than_its_parts(rights: tuple[int, int]) -> None:
    parts = [rate(right, 8) for right in rights]
    found = mean(parts)
    assert 0 <= found.low <= found.rate <= found.high <= 1
    widths = [part.high - part.low for part in parts]
    assert found.high - found.low <= max(widths) + 1e-9
    assert mean(parts[:1]).low == pytest.approx(parts[0].low)
