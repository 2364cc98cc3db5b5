"""How many cases a test tries: few in the default tier, many in the slow one.

`pytest` proves every law on few cases; `pytest -m slow` proves those marked `both_tiers`, and every
property test of Hypothesis, again on many. The default tier leaves nothing out but what cannot be
small, or needs more than Python.
"""

import pytest
from hypothesis import is_hypothesis_test

_is_slow = False


def choose_tier(config: pytest.Config) -> None:
    """Take the tier from the command line's -m; to be called before tests are imported."""
    global _is_slow
    _is_slow = config.option.markexpr == "slow"


def cases(few: int, many: int) -> int:
    """The number of cases in the tier that runs; its test is to be marked `both_tiers`."""
    return many if _is_slow else few


def add_to_slow_tier(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a command beyond Python, so that the default tier needs none.

    In the slow tier, what is marked `both_tiers` and every property test of Hypothesis too.
    """
    for item in items:
        is_property = is_hypothesis_test(getattr(item, "obj", None))
        in_both = is_property or item.get_closest_marker("both_tiers")
        if item.get_closest_marker("needs_command") or (_is_slow and in_both):
            item.add_marker("slow")
