from dataclasses import asdict, replace
from math import sqrt

import pytest
from scipy.stats import binomtest

from calltune.evaluation.metrics import Cost, Rate, details, pass_at, rate, summarise, summarise_by
from calltune.evaluation.records import Record

from support.verdicts import record


def claims(
    *, exact: bool = False, ast: bool = False, names: bool = False, parsed: bool = False
) -> Record:
    verdict = {"is_ast": ast, "has_right_names": names, "is_parsed": parsed}
    return record(exact, verdict=verdict)


EXACT = claims(exact=True, ast=True, names=True, parsed=True)
SPELT = claims(ast=True, names=True, parsed=True)
NAMED = claims(names=True, parsed=True)
UNREAD = claims()


def test_each_claim_is_counted_on_its_own() -> None:
    summary = summarise([EXACT, NAMED, SPELT, UNREAD])
    assert summary.examples == 4
    rates = (summary.success, summary.ast, summary.function_names, summary.parsed)
    assert [rate.count for rate in rates] == [1, 2, 3, 3]
    assert summary.success.of == 4
    assert summary.success.rate == 0.25


@pytest.mark.parametrize(("count", "of"), [(12, 40), (1, 2), (0, 10), (10, 10), (999, 1000)])
def test_the_interval_ends_where_the_rate_is_1_96_deviations_away(count: int, of: int) -> None:
    interval = rate(count, of)
    for end in {interval.low, interval.high} - {0.0, 1.0}:
        deviation = sqrt(end * (1 - end) / of)
        assert abs(count / of - end) / deviation == pytest.approx(1.95996, abs=1e-5)
    assert 0 < interval.high - interval.low < 1


def test_the_interval_holds_its_rate_and_stays_a_share() -> None:
    for of in range(1, 60):
        for count in range(of + 1):
            r = rate(count, of)
            assert 0 <= r.low <= r.rate <= r.high <= 1


def test_the_interval_is_scipys_wilson_interval() -> None:
    for count, of in ((0, 1), (1, 1), (3, 40), (20, 40), (999, 1000)):
        low, high = binomtest(count, of).proportion_ci(method="wilson")
        found = rate(count, of)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-12), pytest.approx(high))


def test_no_examples_give_no_rate_and_know_nothing() -> None:
    assert summarise([]).success == Rate(count=0, of=0, rate=0.0, low=0.0, high=1.0)


def test_groups_are_summarised_apart_in_order_of_appearance() -> None:
    sizes = [(EXACT, "b"), (UNREAD, "a"), (NAMED, "b")]
    records = [replace(one, source=size) for one, size in sizes]
    groups = summarise_by(records, lambda r: str(r.source))
    assert list(groups) == ["b", "a"]
    assert groups["b"].success.count == 1
    assert groups["b"].examples == 2
    assert groups["a"].parsed.count == 0


def test_details_add_up_what_verdicts_say_beside_their_claims() -> None:
    idle = [
        {"abstention": outcome, "functions": [0, 0, 0]}
        for outcome in ("abstained", "abstained", "called anyway", "malformed")
    ]
    busy = [
        {},
        {"reason": "no call", "functions": [0, 0, 1], "arguments": [0, 0, 2]},
        {"is_valid": False, "invents_argument": True, "arguments": [1, 2, 2]},
    ]
    right = [True, True, False, False, True, False, False]
    pairs = zip(right, (*idle, *busy), strict=True)
    found = details([record(is_exact, verdict=changes) for is_exact, changes in pairs])
    rates = {name: value for name, value in asdict(found).items() if isinstance(value, dict)}
    counts = {name: (value["count"], value["of"]) for name, value in rates.items()}
    assert counts == {
        "schema_valid": (6, 7),
        "invented_function": (0, 7),
        "invented_argument": (1, 7),
        "abstained": (2, 4),
        "malformed": (1, 4),
        "false_refusal": (1, 3),
    }
    # Functions: 2 right of 2 called and 3 wanted.
    assert found.function_f1 == pytest.approx(2 * 2 / 5)
    assert details([]).argument_f1 is None


def test_details_tell_the_mean_and_median_cost_of_an_answer() -> None:
    costs = [(10, 0.5), (20, 1.0), (60, 4.5), (30, 2.0)]
    records = [record(True, generated_tokens=tokens, seconds=seconds) for tokens, seconds in costs]
    found = details(records)
    assert found.answer_tokens == Cost(mean=30.0, median=25.0)
    assert found.answer_seconds == Cost(mean=2.0, median=1.5)
    # A mean of some of the answers would be taken for one of all.
    assert details([*records, record(True)]).answer_tokens is None


def test_pass_at_k_is_how_often_one_of_k_drawn_answers_is_right() -> None:
    found = pass_at([(0, 4), (1, 4), (3, 4)])
    assert found["1"] == pytest.approx((0 + 1 / 4 + 3 / 4) / 3)
    # Of the six pairs three hold the one right answer, and all of them one of the three.
    assert found["2"] == pytest.approx((0 + 3 / 6 + 1) / 3)
    assert found["4"] == pytest.approx(2 / 3)
