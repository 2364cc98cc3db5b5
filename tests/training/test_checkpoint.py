"""Checkpoints: whole or absent, found again by the run that made them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from calltune.errors import OutputError
from calltune.files import file_digest, read_json, write_json
from calltune.training import checkpoint
from calltune.training.checkpoint import OPTIMIZER, STATE, WEIGHTS, Position
from calltune.training.logging import Unreported
from calltune.training.step import TrainState

RUN = {"options": {"iters": 9}, "data_sha256": {"train.jsonl": "abc"}}
NAMES = ("a self_attn.q_proj 4x2 float32", "b mlp.gate_proj 2x3 float32")
AT = Position(10, 1234, 0.5, 8, 1, 2.5, Unreported(3, 30, 90, 100, 4.5, 1e-3))


def trained(value: float = 1.0, names: tuple[str, ...] = NAMES) -> TrainState:
    """Weights and Adam's state of two stacks."""
    weights = {name: mx.full((4, 2), value) for name in names}
    moments = {name: {"m": mx.full((4, 2), 2.0), "v": mx.ones((4, 2))} for name in names}
    return TrainState(
        weights, {"step": mx.array(7, mx.uint64), "learning_rate": mx.array(0.1)} | moments
    )


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    return one.dtype == other.dtype and bool(mx.array_equal(one, other))


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, trained(), AT, RUN)
    found = checkpoint.latest(tmp_path, RUN)
    assert found is not None and found.position == AT
    assert equal(found.trained.weights, trained().weights)
    assert equal(found.trained.optimizer, trained().optimizer)


def test_bfloat16_comes_back_as_bfloat16(tmp_path: Path) -> None:
    given = trained()
    half = {name: value.astype(mx.bfloat16) for name, value in given.weights.items()}
    checkpoint.save(tmp_path, TrainState(half, given.optimizer), AT, RUN)
    found = checkpoint.latest(tmp_path, RUN)
    assert found is not None and equal(found.trained.weights, half)


def test_equal_weights_make_equal_files_in_whatever_order_they_come(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "one", trained(), AT, RUN)
    checkpoint.save(tmp_path / "other", trained(names=NAMES[::-1]), AT, RUN)
    for name in (WEIGHTS, OPTIMIZER, STATE):
        one, other = (tmp_path / run / "0000010" / name for run in ("one", "other"))
        assert file_digest(one) == file_digest(other)


@pytest.mark.parametrize("keep", [1, 2])
def test_the_newest_checkpoints_stay(tmp_path: Path, keep: int) -> None:
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, trained(step), replace(AT, step=step), RUN, keep)
    assert listed(tmp_path) == ["0000005", "0000010", "0000015"][-keep:]
    found = checkpoint.latest(tmp_path, RUN)
    assert found is not None and found.position.step == 15
    assert equal(found.trained.weights, trained(15).weights)


def test_checkpoints_are_counted_by_number_beyond_seven_digits(tmp_path: Path) -> None:
    for step in (9_999_999, 10_000_000):
        checkpoint.save(tmp_path, trained(), replace(AT, step=step), RUN)
    assert listed(tmp_path) == ["10000000"]


def test_there_is_none_where_nothing_was_saved(tmp_path: Path) -> None:
    heard: list[str] = []
    assert checkpoint.latest(tmp_path / "nowhere", RUN, heard.append) is None
    assert checkpoint.latest(tmp_path, RUN, heard.append) is None
    assert heard == []


def test_another_runs_checkpoint_is_passed_over_and_named(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, trained(), AT, RUN)
    heard: list[str] = []
    assert checkpoint.latest(tmp_path, RUN | {"options": {"iters": 10}}, heard.append) is None
    assert len(heard) == 1
    assert "0000010 was made with other options or rows (iters 9, now 10); it" in heard[0]


def test_a_checkpoint_of_the_version_before_has_no_sums(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, trained(), AT, RUN)
    state = read_json(tmp_path / "0000010" / STATE)
    del state["position"]["unreported"]
    write_json(tmp_path / "0000010" / STATE, state)
    found = checkpoint.latest(tmp_path, RUN)
    assert found is not None and found.position == replace(AT, unreported=Unreported())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def forget_digests(path: Path) -> None:
    write_json(path, read_json(path) | {"sha256": {}})


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        (WEIGHTS, cut),
        (OPTIMIZER, cut),
        (STATE, cut),
        (WEIGHTS, flip),
        (OPTIMIZER, flip),
        (STATE, forget_digests),
        (WEIGHTS, Path.unlink),
        (STATE, Path.unlink),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, name: str, damage: Any
) -> None:
    for step in (5, 10):
        checkpoint.save(tmp_path, trained(step), replace(AT, step=step), RUN, keep=2)
    damage(tmp_path / "0000010" / name)
    heard: list[str] = []
    found = checkpoint.latest(tmp_path, RUN, heard.append)
    assert found is not None and found.position.step == 5
    assert len(heard) == 1 and "0000010 is damaged" in heard[0]


def test_the_only_checkpoint_damaged_is_none_at_all(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, trained(), AT, RUN)
    cut(tmp_path / "0000010" / WEIGHTS)
    heard: list[str] = []
    assert checkpoint.latest(tmp_path, RUN, heard.append) is None
    assert len(heard) == 1


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        checkpoint.save(tmp_path, trained(value), AT, RUN)
    found = checkpoint.latest(tmp_path, RUN)
    assert found is not None and equal(found.trained.weights, trained(2.0).weights)


def test_a_failed_save_leaves_the_checkpoint_before_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, trained(), AT, RUN)

    def fail(*_: Any) -> None:
        raise OutputError("full")

    monkeypatch.setattr(checkpoint, "write_json", fail)
    with pytest.raises(OutputError):
        checkpoint.save(tmp_path, trained(2.0), replace(AT, step=20), RUN)
    assert listed(tmp_path) == ["0000010"]
