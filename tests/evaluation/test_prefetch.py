import threading
import time
from collections.abc import Iterator

import pytest

from calltune.evaluation.prompts import prefetch


def test_items_come_in_order_and_few_are_made_before_their_turn() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    for number in prefetch(items(), 3):
        assert len(made) <= number + 1 + 3
        assert number in made
    assert made == list(range(20))


def test_an_error_in_an_item_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the second")

    found = prefetch(items(), 4)
    assert next(found) == 1
    with pytest.raises(ValueError, match="the second"):
        next(found)


def test_who_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    found = prefetch(iter(range(1000)), 4)
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before
