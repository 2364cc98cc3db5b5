import numpy as np
import pytest
from scipy.stats import binomtest, bootstrap

from calltune.errors import DataError
from calltune.evaluation.compare import (
    Comparison,
    compare,
    mcnemar,
    paired_bootstrap,
)
from calltune.evaluation.results import Results
from calltune.types import Json, answers_to_json

from support.verdicts import ANSWER, TEST_SET, record_json, results


def record(id: str, is_exact: bool, n_tools: int = 1, n_calls: int = 1) -> dict[str, Json]:
    expected = answers_to_json((ANSWER,) * n_calls)
    return record_json(is_exact, id, n_tools=n_tools, expected=expected)


def compared(before: str, after: str) -> Comparison:
    """One example a letter: r for right, w for wrong."""
    sides = [
        results(name, *(record(f"e{i}", letter == "r") for i, letter in enumerate(letters)))
        for name, letters in (("base.json", before), ("tuned.json", after))
    ]
    return compare(*sides)


def test_fixed_and_broken_examples_are_named() -> None:
    comparison = compared("rrwww", "rwrrw")
    assert comparison.fixed == ("e2", "e3")
    assert comparison.broken == ("e1",)
    assert (comparison.n_both_right, comparison.n_both_wrong) == (1, 1)
    assert comparison.base.summary.success.count == 2
    assert comparison.tuned.summary.success.count == 3


def test_only_shared_examples_count_and_the_rest_is_counted() -> None:
    base = results("b", record("a", True), record("b", False), record("c", True))
    tuned = results("t", record("d", True), record("b", True))
    comparison = compare(base, tuned)
    assert comparison.base.summary.examples == comparison.tuned.summary.examples == 1
    assert comparison.fixed == ("b",)
    assert (comparison.base.n_left_out, comparison.tuned.n_left_out) == (2, 1)


def test_groups_go_by_tools_offered_and_calls_to_make() -> None:
    sizes = [(5, 1), (1, 0), (3, 2), (2, 3), (1, 1)]
    base = results("b", *(record(f"{i}", False, *size) for i, size in enumerate(sizes)))
    tuned = results("t", *(record(f"{i}", i == 2, *size) for i, size in enumerate(sizes)))
    comparison = compare(base, tuned)
    by_tools = {group.name: group.tuned.examples for group in comparison.by_tools}
    by_calls = {group.name: group.tuned.success.count for group in comparison.by_calls}
    assert list(by_tools.items()) == [("1", 2), ("2-3", 2), ("4+", 1)]
    assert list(by_calls.items()) == [("0", 0), ("1", 0), ("2+", 1)]


def test_groups_go_by_what_training_has_seen_where_every_record_says_so() -> None:
    def side(name: str, right: int, unseen: list[int | None]) -> Results:
        records = [record(f"{i}", i < right) | {"unseen_tools": n} for i, n in enumerate(unseen)]
        return results(name, *records)

    comparison = compare(side("b", 1, [0, 0, 2, 1, 0]), side("t", 4, [0, 0, 2, 1, 0]))
    found = {group.name: group.tuned.success for group in comparison.by_seen}
    assert {name: (rate.count, rate.of) for name, rate in found.items()} == {
        "seen": (2, 3),
        "unseen": (2, 2),
    }
    assert compare(side("b", 1, [0, None]), side("t", 1, [0, 1])).by_seen == ()
    # Results from before records said so.
    assert compared("rw", "rr").by_seen == ()


def test_results_of_different_test_sets_are_refused() -> None:
    other = TEST_SET | {"sha256": "bb" * 32}
    base = results("base.json", record("a", True))
    tuned = results("tuned.json", record("a", True), test_set=other)
    with pytest.raises(DataError) as caught:
        compare(base, tuned)
    for part in ("base.json", "tuned.json", "aaaaaaaaaaaa", "bbbbbbbbbbbb", "one set"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_without_a_shared_example_are_refused() -> None:
    base, tuned = results("base.json", record("a", True)), results("tuned.json", record("b", True))
    with pytest.raises(DataError, match=r"base\.json .* tuned\.json .* no example in common"):
        compare(base, tuned)


@pytest.mark.parametrize(
    ("n_fixed", "n_broken", "p"),
    # Twice the tail of fair coin tosses, over 2**n.
    [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (5, 0, 2 / 32), (12, 1, 28 / 8192), (1, 12, 28 / 8192)],
)
def test_the_p_value_is_that_of_fair_coin_tosses(n_fixed: int, n_broken: int, p: float) -> None:
    assert mcnemar(n_fixed, n_broken) == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize("n_broken", [0, 1, 7, 50, 333])
def test_the_p_value_is_that_of_scipys_binomial_test(n_broken: int) -> None:
    for n_fixed in (1, 2, 7, 49, 51, 400):
        expected = binomtest(n_fixed, n_fixed + n_broken).pvalue
        assert mcnemar(n_fixed, n_broken) == pytest.approx(expected, rel=1e-10)


def test_the_p_value_holds_for_many_examples() -> None:
    assert mcnemar(3000, 0) == 0.0
    # The normal approximation with continuity correction, close to exact at this size.
    assert mcnemar(1050, 950) == pytest.approx(0.0268, abs=5e-4)


def test_the_bootstrap_agrees_with_resampled_examples() -> None:
    rng = np.random.default_rng(1)
    changed = np.array([1] * 13 + [-1] * 4 + [0] * 23)
    drawn = rng.choice(changed, (20_000, 40)).mean(axis=1)
    found = paired_bootstrap(13, 4, 40)
    assert found.value == 9 / 40
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (found.low, found.high) == (
        pytest.approx(low, abs=0.026),
        pytest.approx(high, abs=0.026),
    )
    assert paired_bootstrap(13, 4, 40) == found
    nothing = paired_bootstrap(0, 0, 5)
    assert (nothing.low, nothing.value, nothing.high) == (0, 0, 0)


def test_the_bootstrap_agrees_with_scipys() -> None:
    changed = np.array([1] * 13 + [-1] * 4 + [0] * 23)
    rng = np.random.default_rng(1)
    made = bootstrap((changed,), np.mean, n_resamples=5_000, method="percentile", rng=rng)
    low, high = made.confidence_interval
    found = paired_bootstrap(13, 4, 40)
    assert (found.low, found.high) == (
        pytest.approx(low, abs=0.026),
        pytest.approx(high, abs=0.026),
    )


def test_an_example_that_other_versions_describe_otherwise_is_of_one_group() -> None:
    base = results("b", record("a", True), record("b", False, n_tools=2))
    others = (record("a", True, n_tools=5, n_calls=2), record("b", True, n_tools=5))
    tuned = results("t", *(one | {"source": "named"} for one in others))
    comparison = compare(base, tuned)
    assert [group.name for group in comparison.by_tools] == ["1", "2-3"]
    assert [group.tuned.examples for group in comparison.by_tools] == [1, 1]
    assert [group.name for group in comparison.by_calls] == ["1"]
    assert [group.name for group in comparison.by_source] == ["unknown"]
