"""The learning rate of each update: warm-up, then constant, linear or cosine."""

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True, slots=True)
class LearningRate:
    """A learning rate schedule: linear warm-up from 0, then constant or a decay to 0."""

    peak: float
    kind: Kind = "constant"
    warmup: int = 0
    """Number of updates until the peak is reached."""
    total: int = 1
    """Number of updates in the whole run."""

    def at(self, update: int) -> float:
        """The learning rate of update number `update`, counted from 0."""
        if update < self.warmup:
            return self.peak * (update + 1) / self.warmup
        done = (update - self.warmup) / max(1, self.total - self.warmup)
        if self.kind == "linear":
            return self.peak * max(0.0, 1 - done)
        if self.kind == "cosine":
            return self.peak * (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self.peak
