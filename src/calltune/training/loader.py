"""Batches on their way into a step: which rows come when, padded, with their frozen outputs."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from calltune.data.batching import (
    Batch,
    Buckets,
    TokenRow,
    batches_by_length,
    collate,
    epoch,
)
from calltune.training.activation_cache import ActivationCache
from calltune.training.distributed import DistributedGroup
from calltune.training.step import StepBatch


class DeviceBatch(NamedTuple):
    """One batch of this process: its arrays on the device, and the rows and counts on the host."""

    arrays: StepBatch
    host: Batch

    @property
    def n_positions(self) -> int:
        """Positions computed, padding included."""
        return self.host.inputs.size


class Loader:
    """The batches of a run. They depend on the rows and the seed alone, not on what was done."""

    def __init__(
        self,
        rows: Sequence[TokenRow],
        batch_size: int,
        seed: int,
        buckets: Buckets,
        group: DistributedGroup,
        prefix: ActivationCache | None = None,
    ) -> None:
        self._rows = rows
        self._batch_size = batch_size
        self._seed = seed
        self._buckets = buckets
        self._group = group
        self.prefix = prefix
        self.steps_per_epoch = -(-len(rows) // batch_size)
        self.max_positions = self.longest(rows) * -(-batch_size // group.size)
        """In any batch of this process."""

    def longest(self, rows: Sequence[TokenRow]) -> int:
        """The length of the longest batch with one of these rows."""
        return self._buckets.length(max(len(row.tokens) for row in rows))

    def training(self, done: int, total: int) -> Iterator[DeviceBatch]:
        """This process's share of every batch of a run of `total` steps, `done` of them done."""
        share = -(-self._batch_size // self._group.size)
        for _, rows in zip(range(done, total), self._global_batches(done), strict=False):
            yield self._to_device(self._group.shard(rows), share)

    def seen(self, n_steps: int) -> list[TokenRow]:
        """The rows that this process uses in the first `n_steps` steps, each once."""
        seen: set[TokenRow] = set()
        for _, batch in zip(range(n_steps), self._global_batches(0), strict=False):
            seen.update(self._group.shard(batch))
            if len(seen) == len(self._rows):
                break
        return list(seen)

    def validation(self, rows: Sequence[TokenRow], max_positions: int) -> Iterator[DeviceBatch]:
        """This process's share of the validation rows, each once."""
        for batch in batches_by_length(self._group.shard(rows), max_positions):
            yield self._to_device(batch, len(batch))

    def _global_batches(self, first_step: int) -> Iterator[list[TokenRow]]:
        number, skip = divmod(first_step, self.steps_per_epoch)
        while True:
            yield from epoch(self._rows, self._batch_size, self._seed, number, self._buckets)[skip:]
            number, skip = number + 1, 0

    def _to_device(self, rows: Sequence[TokenRow], batch_size: int) -> DeviceBatch:
        batch = collate(rows, self._buckets, batch_size)
        frozen = None
        if self.prefix is not None:
            frozen = self.prefix.gather(batch.rows, batch.inputs.shape)
        parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
        inputs, positions, targets, weights = (mx.array(part) for part in parts)
        return DeviceBatch(StepBatch(inputs, positions, targets, weights, frozen), batch)
