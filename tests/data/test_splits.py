from hypothesis import given
from hypothesis import strategies as st

from calltune.data.splits import Ratios, assign_groups, connected_groups, group_by_key, split_sizes

RATIOS = Ratios(0.8, 0.1, 0.1)


@given(st.integers(10, 500), st.integers(0, 9))
def test_single_rows_fill_the_splits_to_the_row(count: int, seed: int) -> None:
    wanted = split_sizes(count, RATIOS)
    parts = assign_groups([[i] for i in range(count)], wanted, seed)
    assert {name: len(part) for name, part in parts.items()} == wanted
    assert sorted(sum(parts.values(), [])) == list(range(count))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=80), st.integers(0, 9))
def test_equal_keys_never_straddle_a_split(keys: list[int], seed: int) -> None:
    groups = group_by_key(list(enumerate(keys)), keys)
    parts = assign_groups(groups, split_sizes(len(keys), RATIOS), seed)
    homes = {key: {n for n, part in parts.items() for _, k in part if k == key} for key in keys}
    assert all(len(home) == 1 for home in homes.values())
    assert sum(len(part) for part in parts.values()) == len(keys)


@given(st.lists(st.lists(st.integers(0, 30), max_size=3), min_size=1, max_size=60))
def test_groups_by_member_share_no_member(members: list[list[int]]) -> None:
    groups = connected_groups(list(range(len(members))), members)
    owners: dict[int, int] = {}
    for number, group in enumerate(groups):
        for index in group:
            for member in members[index]:
                assert owners.setdefault(member, number) == number
    assert sorted(sum(groups, [])) == list(range(len(members)))


def test_groups_are_no_larger_than_they_must_be() -> None:
    assert connected_groups(["x", "y", "z", "w"], [["f"], ["g"], ["f", "h"], []]) == [
        ["x", "z"],
        ["y"],
        ["w"],
    ]


def test_the_seed_decides_and_every_asked_for_split_gets_a_row() -> None:
    groups = [[i] for i in range(30)]
    wanted = split_sizes(30, RATIOS)
    assert (
        assign_groups(groups, wanted, 1)
        == assign_groups(groups, wanted, 1)
        != assign_groups(groups, wanted, 2)
    )
    assert split_sizes(3, Ratios(0.98, 0.01, 0.01)) == {"train": 1, "valid": 1, "test": 1}
    assert split_sizes(10, Ratios(1.0, 0.0, 0.0)) == {"train": 10, "valid": 0, "test": 0}


def test_a_split_that_is_wanted_gets_a_group_however_large_they_are() -> None:
    groups = [[f"{group}{item}" for item in range(5)] for group in "abc"]
    parts = assign_groups(groups, {"train": 11, "valid": 2, "test": 2}, seed=0)
    assert {name: len(part) for name, part in parts.items()} == {"train": 5, "valid": 5, "test": 5}
