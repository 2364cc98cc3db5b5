"""The loader: which rows are trained on in which step, as padded batches on the device."""

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
        """Number of positions computed, padding included."""
        return self.host.inputs.size


class Loader:
    """The batches of a run; they depend on the rows, the batch size and the seed alone.

    `rows` are those of all group, and so is `batch_size`. With a `cache`, which can be set
    later, batches hold the frozen layers' output.
    """

    def __init__(
        self,
        rows: Sequence[TokenRow],
        batch_size: int,
        seed: int,
        buckets: Buckets,
        group: DistributedGroup,
        cache: ActivationCache | None = None,
    ) -> None:
        self._rows = rows
        self.batch_size = batch_size
        self._seed = seed
        self._buckets = buckets
        self._group = group
        self.cache = cache
        self.steps_per_epoch = -(-len(rows) // batch_size)
        self.max_positions = self.longest(rows) * -(-batch_size // group.size)
        """The most positions in any batch of this process."""

    def longest(self, rows: Sequence[TokenRow]) -> int:
        """The padded length, in positions, of the longest of these rows."""
        return self._buckets.length(max(len(row.tokens) for row in rows))

    def training(self, done: int, total: int) -> Iterator[DeviceBatch]:
        """This process's share of the batches of a run of `total` steps, without `done`."""
        share = -(-self.batch_size // self._group.size)
        for _, rows in zip(range(done, total), self.global_batches(done), strict=False):
            yield self._to_device(self._group.shard(rows), share)

    def seen(self, n_steps: int) -> list[TokenRow]:
        """The rows that this process uses in the first `n_steps` steps, each once, in no order."""
        seen: set[TokenRow] = set()
        for _, batch in zip(range(n_steps), self.global_batches(0), strict=False):
            seen.update(self._group.shard(batch))
            if len(seen) == len(self._rows):
                break
        return list(seen)

    def validation(self, rows: Sequence[TokenRow], max_positions: int) -> Iterator[DeviceBatch]:
        """This process's share of the validation rows, in batches of at most `max_positions`."""
        for batch in batches_by_length(self._group.shard(rows), max_positions):
            yield self._to_device(batch, len(batch))

    def global_batches(self, first_step: int = 0) -> Iterator[list[TokenRow]]:
        """The rows of each step from `first_step` on, of all group together, without end."""
        number, skip = divmod(first_step, self.steps_per_epoch)
        while True:
            yield from epoch(self._rows, self.batch_size, self._seed, number, self._buckets)[skip:]
            number, skip = number + 1, 0

    def _to_device(self, rows: Sequence[TokenRow], batch_size: int) -> DeviceBatch:
        batch = collate(rows, self._buckets, batch_size)
        frozen = None
        if self.cache is not None:
            frozen = self.cache.gather(batch.rows, batch.inputs.shape)
        parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
        inputs, positions, targets, weights = (mx.array(part) for part in parts)
        return DeviceBatch(StepBatch(inputs, positions, targets, weights, frozen), batch)
