"""How much of a run's time is training."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


class Stopwatch:
    """Seconds since it was made, and how many of them were training."""

    def __init__(self) -> None:
        self._started, self._away_s = perf_counter(), 0.0

    def elapsed_s(self) -> float:
        """All of them."""
        return perf_counter() - self._started

    def training_s(self) -> float:
        """Those outside `away`."""
        return self.elapsed_s() - self._away_s

    @contextmanager
    def away(self) -> Iterator[None]:
        """What the block takes is not training; a block in another counts once."""
        before_s, started = self._away_s, perf_counter()
        try:
            yield
        finally:
            self._away_s = before_s + perf_counter() - started
