"""The processes that train one adapter together, through `mlx.core.distributed`.

Start them with `mlx.launch -n 2 calltune train …`. Each takes its share of every batch; gradients
are summed, so that the update equals that of one process with the whole batch.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_map

Row = TypeVar("Row")


class DistributedGroup:
    """The group of processes that train together, seen from this one; it may be alone."""

    def __init__(self) -> None:
        """Join the group that `mlx.launch` started; without it, a group of this process alone."""
        self._group = mx.distributed.init()
        self.size = self._group.size()
        self.rank = self._group.rank()

    @property
    def is_rank0(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def shard(self, rows: Sequence[Row]) -> list[Row]:
        """Every `size`-th of the rows, from this process's rank on."""
        return list(rows[self.rank :: self.size])

    def sum_numbers(self, *numbers: float) -> list[float]:
        """Each number summed over all processes, in the order given."""
        if self.size == 1:
            return list(numbers)
        summed: Any = mx.distributed.all_sum(mx.array(numbers), group=self._group)
        return list(summed.tolist())

    def all_sum(self, tree: Any) -> Any:
        """A tree of arrays, each summed over all processes."""
        if self.size == 1:
            return tree
        return tree_map(lambda array: mx.distributed.all_sum(array, group=self._group), tree)

    def barrier(self) -> None:
        """Wait until every process has called this."""
        self.sum_numbers(0.0)
