import errno
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from calltune.data.batching import TokenRow, collate
from calltune.errors import OutputError
from calltune.training import activation_cache
from calltune.training.activation_cache import (
    ActivationCache,
    CacheKey,
    cache_file,
    count_positions,
    fill_cache,
)
from calltune.training.split_model import SplitModel

from support import tiny
from support.plain import GEMMA, LLAMA, ROUNDING, difference, random_rows

ROWS = random_rows()
KEY = CacheKey("a model", 1, "float32")


class Counted(SplitModel):
    """A split model that counts how often its frozen layers run."""

    calls = 0

    def run_frozen(self, inputs: mx.array) -> mx.array:
        self.calls += 1
        return super().run_frozen(inputs)


def split_model_of(config: dict[str, Any] = GEMMA, dtype: mx.Dtype = mx.float32) -> Counted:
    model = tiny.make_model(config)
    model.set_dtype(dtype)
    return Counted(model, 1)


def keep(
    split_model: SplitModel, rows: list[TokenRow], file: Path | None, key: CacheKey = KEY
) -> ActivationCache:
    return fill_cache(split_model, rows, lambda _: None, file, key)


def outputs(cache: ActivationCache, rows: list[TokenRow]) -> list[mx.array]:
    """The cached output of each row's positions."""
    batch = collate(rows)
    hidden = cache.gather(batch.rows, (len(rows), batch.inputs.shape[1]))
    return [hidden[i, : len(row.tokens) - 1] for i, row in enumerate(rows)]


def assert_right(
    cache: ActivationCache, split_model: SplitModel, rows: list[TokenRow], most: float
) -> None:
    for row, found in zip(rows, outputs(cache, rows), strict=True):
        alone = split_model.run_frozen(mx.array([row.tokens[:-1]]))[0]
        assert found.dtype == alone.dtype
        assert difference(found.astype(mx.float32), alone.astype(mx.float32)) < most


@pytest.fixture(params=["memory", "disk"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "new" / "a.prefix" if request.param == "disk" else None


@pytest.mark.parametrize("config", [GEMMA, LLAMA], ids=["gemma", "llama"])
@pytest.mark.parametrize("bulk", [4096, 100, 1])
def test_a_row_is_given_what_it_gives_alone(
    config: dict[str, Any], bulk: int, file: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_cache, "MAX_BATCH_POSITIONS", bulk)
    split_model = split_model_of(config)
    cache = keep(split_model, ROWS, file)
    assert cache.n_bytes == count_positions(ROWS) * 32 * 4
    assert_right(cache, split_model, ROWS, ROUNDING)
    assert_right(cache, split_model, ROWS[4:1:-1], ROUNDING)


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=["bfloat16", "float16"])
def test_half_precision_is_kept_bit_for_bit(dtype: mx.Dtype, tmp_path: Path) -> None:
    split_model, rows = split_model_of(dtype=dtype), ROWS[:2]
    memory, disk = keep(split_model, rows, None), keep(split_model, rows, tmp_path / "file")
    assert memory.n_bytes == disk.n_bytes == count_positions(rows) * 32 * 2
    assert_right(memory, split_model, rows, 2e-2)
    for one, other in zip(outputs(memory, rows), outputs(disk, rows), strict=True):
        assert one.dtype == other.dtype == dtype and mx.array_equal(one, other)


def test_padding_holds_numbers_and_missing_rows_are_filled(file: Path | None) -> None:
    cache = keep(split_model_of(), ROWS, file)
    hidden = cache.gather(ROWS[:1], (3, 64))
    assert hidden.shape == (3, 64, 32) and mx.isfinite(hidden).all()


def test_equal_rows_are_computed_once_and_all_are_counted(file: Path | None) -> None:
    twice = [*ROWS, *(TokenRow("copy", row.tokens, 1) for row in ROWS)]
    split_model, counts = split_model_of(), []
    cache = fill_cache(split_model, twice, counts.append, file, KEY)
    assert sum(counts) == len(ROWS) and count_positions(twice) == count_positions(ROWS)
    assert_right(cache, split_model, twice, ROUNDING)


def test_a_file_is_read_by_the_next_run(tmp_path: Path) -> None:
    file = cache_file(tmp_path, KEY, ROWS)
    first = keep(split_model_of(), ROWS, file)
    split_model = split_model_of()
    again = keep(split_model, ROWS[::-1], cache_file(tmp_path, KEY, ROWS[::-1]))
    assert split_model.calls == 0
    for one, other in zip(outputs(first, ROWS), outputs(again, ROWS), strict=True):
        assert mx.array_equal(one, other)


def test_the_name_of_a_file_says_all_it_depends_on(tmp_path: Path) -> None:
    keys = [
        KEY,
        CacheKey("other", 1, "float32"),
        CacheKey("a model", 2, "float32"),
        CacheKey("a model", 1, "x"),
    ]
    names = {cache_file(tmp_path, key, ROWS) for key in keys}
    names |= {cache_file(tmp_path, KEY, ROWS[:-1]), cache_file(tmp_path, KEY, random_rows(seed=1))}
    moved = [TokenRow("a", (7, 8), 1), TokenRow("b", (9, 10, 11), 1)]
    other = [TokenRow("a", (7, 8, 9), 1), TokenRow("b", (10, 11), 1)]
    names |= {cache_file(tmp_path, KEY, moved), cache_file(tmp_path, KEY, other)}
    assert len(names) == 8


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def made_longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"\0")


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def garbled(file: Path) -> None:
    file.write_bytes(b"\xff" * 100 + file.read_bytes()[100:])


def turned_into_a_list(file: Path) -> None:
    file.write_bytes(b"[]".ljust(4096) + file.read_bytes()[4096:])


def with_header(**changes: Any) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        content = file.read_bytes()
        header = json.loads(content[:4096]) | changes
        file.write_bytes(json.dumps(header).encode().ljust(4096) + content[4096:])

    return damage


DAMAGE: dict[str, Callable[[Path], None]] = {
    "cut short": cut_short,
    "longer": made_longer,
    "empty": emptied,
    "garbled": garbled,
    "a list": turned_into_a_list,
    "another model": with_header(key=["other", 1, "float32"]),
    "another type": with_header(dtype="float16"),
    "no type": with_header(dtype="array"),
    "another width": with_header(width=16),
    "no width": with_header(width=None),
    "fewer positions": with_header(positions=3),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_file_that_is_not_right_is_computed_anew(
    damage: Callable[[Path], None], tmp_path: Path
) -> None:
    file, split_model = tmp_path / "a.prefix", split_model_of()
    keep(split_model, ROWS, file)
    damage(file)
    split_model.calls = 0
    cache = keep(split_model, ROWS, file)
    assert split_model.calls > 0
    assert_right(cache, split_model, ROWS, ROUNDING)
    split_model.calls = 0
    keep(split_model, ROWS, file)
    assert split_model.calls == 0


def test_a_file_of_another_model_is_not_taken_for_this_ones(tmp_path: Path) -> None:
    file, split_model = tmp_path / "a.prefix", split_model_of(LLAMA)
    keep(split_model_of(GEMMA), ROWS, file)
    assert_right(
        keep(split_model, ROWS, file, CacheKey("llama", 1, "float32")), split_model, ROWS, ROUNDING
    )


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    file = tmp_path / "cache" / "a.prefix"
    monkeypatch.setattr(os, step, full)
    with pytest.raises(OutputError, match="No space left to write .*a.prefix") as raised:
        keep(split_model_of(), ROWS, file)
    assert "\n" not in str(raised.value)
    assert list(file.parent.iterdir()) == []


def test_a_file_that_ends_amid_its_writing_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cache" / "a.prefix"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="Cannot write .*a.prefix"):
            keep(split_model_of(), ROWS, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(file.parent.iterdir()) == []


def test_a_file_that_cannot_be_read_back_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(activation_cache, "_read", lambda *_: None)
    with pytest.raises(OutputError, match="cannot be read back"):
        keep(split_model_of(), ROWS, tmp_path / "a.prefix")
