from math import sqrt

import pytest

from calltune.evaluation.metrics import details, pass_at, rate, summarise, summarise_by
from calltune.types import Json

from support.verdicts import verdict


def record(
    *, exact: bool = False, ast: bool = False, names: bool = False, parsed: bool = False
) -> dict[str, Json]:
    claims = {"is_exact": exact, "is_ast": ast, "has_right_names": names, "is_parsed": parsed}
    return {"verdict": claims}


EXACT = record(exact=True, ast=True, names=True, parsed=True)
SPELT = record(ast=True, names=True, parsed=True)
NAMED = record(names=True, parsed=True)
UNREAD = record()


def test_each_claim_is_counted_on_its_own() -> None:
    summary = summarise([EXACT, NAMED, SPELT, UNREAD])
    assert summary["examples"] == 4
    counts = {
        name: summary[name]["count"] for name in ("success", "ast", "function_names", "parsed")
    }
    assert counts == {"success": 1, "ast": 2, "function_names": 3, "parsed": 3}
    assert summary["success"]["of"] == 4
    assert summary["success"]["rate"] == 0.25


@pytest.mark.parametrize(("count", "of"), [(12, 40), (1, 2), (0, 10), (10, 10), (999, 1000)])
def test_the_interval_ends_where_the_rate_is_1_96_deviations_away(count: int, of: int) -> None:
    interval = rate(count, of)
    for end in {interval["low"], interval["high"]} - {0.0, 1.0}:
        deviation = sqrt(end * (1 - end) / of)
        assert abs(count / of - end) / deviation == pytest.approx(1.95996, abs=1e-5)
    assert 0 < interval["high"] - interval["low"] < 1


def test_the_interval_holds_its_rate_and_stays_a_share() -> None:
    for of in range(1, 60):
        for count in range(of + 1):
            r = rate(count, of)
            assert 0 <= r["low"] <= r["rate"] <= r["high"] <= 1


def test_no_examples_give_no_rate_and_know_nothing() -> None:
    success = summarise([])["success"]
    assert success == {"count": 0, "of": 0, "rate": 0.0, "low": 0.0, "high": 1.0}


def test_groups_are_summarised_apart_in_order_of_appearance() -> None:
    records = [EXACT | {"size": "b"}, UNREAD | {"size": "a"}, NAMED | {"size": "b"}]
    groups = summarise_by(records, lambda r: str(r["size"]))
    assert list(groups) == ["b", "a"]
    assert groups["b"]["success"]["count"] == 1
    assert groups["b"]["examples"] == 2
    assert groups["a"]["parsed"]["count"] == 0


def test_details_add_up_what_verdicts_say_beside_their_claims() -> None:
    idle = [
        verdict(outcome == "abstained", abstention=outcome, functions=[0, 0, 0])
        for outcome in ("abstained", "abstained", "called anyway", "malformed")
    ]
    busy = [
        verdict(True),
        verdict(False, reason="no call", functions=[0, 0, 1], arguments=[0, 0, 2]),
        verdict(False, is_valid=False, invents_argument=True, arguments=[1, 2, 2]),
    ]
    found = details([{"verdict": each} for each in (*idle[:3], idle[3], *busy)])
    rates = {name: value for name, value in found.items() if isinstance(value, dict)}
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
    assert found["function_f1"] == pytest.approx(2 * 2 / 5)
    assert details([])["argument_f1"] is None


def test_details_tell_the_mean_and_median_cost_of_an_answer() -> None:
    costs = [(10, 0.5), (20, 1.0), (60, 4.5), (30, 2.0)]
    records = [
        {"verdict": verdict(True), "generated_tokens": tokens, "seconds": seconds}
        for tokens, seconds in costs
    ]
    found = details(records)
    assert found["answer_tokens"] == {"mean": 30.0, "median": 25.0}
    assert found["answer_seconds"] == {"mean": 2.0, "median": 1.5}
    # A mean of some of the answers would be taken for one of all.
    assert details([*records, {"verdict": verdict(True)}])["answer_tokens"] is None


def test_pass_at_k_is_how_often_one_of_k_drawn_answers_is_right() -> None:
    found = pass_at([(0, 4), (1, 4), (3, 4)])
    assert found["1"] == pytest.approx((0 + 1 / 4 + 3 / 4) / 3)
    # Of the six pairs three hold the one right answer, and all of them one of the three.
    assert found["2"] == pytest.approx((0 + 3 / 6 + 1) / 3)
    assert found["4"] == pytest.approx(2 / 3)
