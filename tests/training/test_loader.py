from collections import Counter
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from calltune.data.batching import COARSE, FINE, Buckets, TokenRow
from calltune.training import activation_cache
from calltune.training.distributed import DistributedGroup
from calltune.training.loader import DeviceBatch, Loader
from calltune.training.split_model import split_at

from support import tiny
from support.plain import GEMMA, random_rows

ROWS = random_rows((20, 90, 131, 150, 40, 33, 77, 21, 22, 23, 24))
BUCKETS = pytest.mark.parametrize("buckets", [FINE, COARSE], ids=["fine", "coarse"])


class Rank(DistributedGroup):
    """One of several processes, without the others."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def loader_of(
    buckets: Buckets = FINE, seed: int = 1, rank: int = 0, size: int = 1, batch: int = 4
) -> Loader:
    return Loader(ROWS, batch, seed, buckets, Rank(rank, size))


def ids(device_batch: DeviceBatch) -> list[str]:
    return [row.id for row in device_batch.host.rows]


def ids_of(batches: Any) -> list[list[str]]:
    return [ids(device_batch) for device_batch in batches]


@BUCKETS
def test_every_row_comes_once_an_epoch(buckets: Buckets) -> None:
    loader = loader_of(buckets)
    assert loader.steps_per_epoch == 3
    order = ids_of(loader.training(0, 9))
    epochs = [sum(order[first : first + 3], []) for first in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(row.id for row in ROWS)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


@BUCKETS
def test_the_order_is_the_seeds_from_any_step_on(buckets: Buckets) -> None:
    whole = ids_of(loader_of(buckets).training(0, 10))
    for done in (0, 1, 3, 4, 9, 10):
        assert ids_of(loader_of(buckets).training(done, 10)) == whole[done:]
    assert ids_of(loader_of(buckets, seed=2).training(0, 10)) != whole


@BUCKETS
@pytest.mark.parametrize("batch", [4, 3, 1])
def test_shares_of_two_processes_make_up_the_batch(buckets: Buckets, batch: int) -> None:
    whole = list(loader_of(buckets, batch=batch).training(0, 12))
    shares = [list(loader_of(buckets, rank=r, size=2, batch=batch).training(0, 12)) for r in (0, 1)]
    for all_rows, one, other in zip(whole, *shares, strict=True):
        assert sorted(ids(one) + ids(other)) == sorted(ids(all_rows))
        assert one.host.n_trained + other.host.n_trained == all_rows.host.n_trained
        assert one.host.n_tokens + other.host.n_tokens == all_rows.host.n_tokens
    if batch == 1:
        # Nothing to do is a batch of nothing, not an end.
        assert {share.host.n_trained for share in shares[1]} == {0}
        assert not any(share.arrays.weights.any() for share in shares[1])


@BUCKETS
def test_no_batch_is_larger_than_the_most(buckets: Buckets) -> None:
    for size in (1, 2):
        loader = loader_of(buckets, size=size)
        sizes = [device_batch.n_positions for device_batch in loader.training(0, 9)]
        assert max(sizes) <= loader.max_positions == 160 * 4 // size


def test_few_shapes_are_made_where_each_is_traced() -> None:
    rows = random_rows(tuple(np.random.default_rng(0).integers(10, 2000, 300).tolist()))
    loader = Loader(rows, 8, 1, COARSE, Rank(0, 1))
    shapes = {
        device_batch.host.inputs.shape
        for device_batch in loader.training(0, 3 * loader.steps_per_epoch)
    }
    assert {shape[0] for shape in shapes} == {8}
    assert len(shapes) <= 24


def test_rows_of_a_run_are_known_before_it() -> None:
    loader = loader_of()
    for n_steps in (0, 1, 2, 3, 7):
        used = {name for batch in ids_of(loader.training(0, n_steps)) for name in batch}
        seen = [row.id for row in loader.seen(n_steps)]
        assert set(seen) == used and len(seen) == len(used)
    halves = [{row.id for row in loader_of(rank=r, size=2).seen(3)} for r in (0, 1)]
    assert halves[0] | halves[1] == {row.id for row in ROWS} and not halves[0] & halves[1]


@BUCKETS
@pytest.mark.parametrize("most", [1, 300, 10_000])
def test_validation_uses_every_row_once_in_batches_of_bounded_size(
    buckets: Buckets, most: int
) -> None:
    for size in (1, 2):
        batches = [
            device_batch
            for rank in range(size)
            for device_batch in loader_of(buckets, rank=rank, size=size).validation(ROWS, most)
        ]
        assert Counter(sum(ids_of(batches), [])) == Counter(row.id for row in ROWS)
        for device_batch in batches:
            longest = max(len(row.tokens) for row in device_batch.host.rows)
            assert len(device_batch.host.rows) == 1 or longest * len(device_batch.host.rows) <= most


def test_arrays_are_the_batchs() -> None:
    device_batch = next(loader_of(COARSE).training(0, 1))
    for name in ("inputs", "positions", "targets", "weights"):
        array, wanted = getattr(device_batch.arrays, name), getattr(device_batch.host, name)
        assert (np.array(array) == wanted).all() and np.array(array).dtype == wanted.dtype
    assert device_batch.arrays.frozen is None


@BUCKETS
def test_frozen_outputs_stand_where_their_rows_do(buckets: Buckets) -> None:
    split_model = split_at(tiny.make_model(GEMMA), 1)
    for size in (1, 2):
        loader = loader_of(buckets, size=size, rank=size - 1, batch=1)
        loader.cache = activation_cache.fill_cache(split_model, ROWS, lambda _: None)
        for device_batch in loader.training(0, 3):
            frozen = device_batch.arrays.frozen
            assert frozen is not None and frozen.shape == (*device_batch.host.inputs.shape, 32)
            for number, row in enumerate(device_batch.host.rows):
                n_inputs = len(row.tokens) - 1
                alone = split_model.run_frozen(mx.array([row.tokens[:-1]]))[0]
                assert mx.allclose(frozen[number, :n_inputs], alone, atol=1e-5)


def test_rows_with_equal_tokens_are_rows_of_their_own() -> None:
    twins = [TokenRow(name, (7, 8, 9), 1) for name in "abc"]
    loader = Loader(twins, 2, 1, FINE, Rank(0, 1))
    assert sorted(sum(ids_of(loader.training(0, 2)), [])) == ["a", "b", "c"]
    assert len(loader.seen(2)) == 3
