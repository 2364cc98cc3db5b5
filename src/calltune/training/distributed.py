"""Several processes that train one adapter together, through MLX's distributed engine.

Start them with `mlx.launch -n 2 calltune train …`. Each takes its share of every batch; gradients
are summed, so that the update is that of one process with the whole batch.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_map

Row = TypeVar("Row")


class DistributedGroup:
    """This process among those that train together; alone, it changes nothing."""

    def __init__(self) -> None:
        self._group = mx.distributed.init()
        self.size = self._group.size()
        self.rank = self._group.rank()

    @property
    def is_rank0(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.rank == 0

    def shard(self, rows: Sequence[Row]) -> list[Row]:
        """This process's part of the rows."""
        return list(rows[self.rank :: self.size])

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Each number summed over all processes."""
        if self.size == 1:
            return list(numbers)
        summed: Any = mx.distributed.all_sum(mx.array(numbers), group=self._group)
        return list(summed.tolist())

    def all_sum(self, tree: Any) -> Any:
        """Arrays summed over all processes."""
        if self.size == 1:
            return tree
        return tree_map(lambda array: mx.distributed.all_sum(array, group=self._group), tree)

    def barrier(self) -> None:
        """Go on when every process has come here."""
        self.sum_numbers(0.0)
