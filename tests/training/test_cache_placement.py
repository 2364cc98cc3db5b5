from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

from calltune.errors import OptionError
from calltune.training import run as training_run
from calltune.training.activation_cache import (
    CachePlacement,
    CacheSource,
    build_cache,
    choose_placement,
    free_on_disk,
)
from calltune.training.split_model import SplitModel, WholeModel, split_at

from support import tiny
from support.plain import GEMMA, ROUNDING, attach, difference, random_rows, shape_of, start

ROWS = random_rows((20, 33))
N_BYTES = (19 + 32) * 32 * 4


def split_model_of(n_frozen: int = 1) -> SplitModel:
    return split_at(tiny.make_model(GEMMA), n_frozen)


@pytest.fixture
def source(tmp_path: Path) -> CacheSource:
    model = tiny.write_gemma(tmp_path / "model")
    return CacheSource(model, "float32", tmp_path / "cache")


def test_auto_takes_memory_then_disk_then_nothing() -> None:
    def mode(memory: int, on_disk: int) -> str:
        place = choose_placement(1, N_BYTES, "auto", memory, on_disk)
        assert place.n_bytes == N_BYTES
        return place.mode

    assert mode(4 * N_BYTES, 0) == "memory"
    assert mode(4 * N_BYTES - 1, 2 * N_BYTES) == "disk"
    assert mode(4 * N_BYTES - 1, 2 * N_BYTES - 1) == "off"


def test_the_disk_of_a_folder_that_is_not_there_yet_is_measured(tmp_path: Path) -> None:
    assert free_on_disk(tmp_path / "not" / "yet") == pytest.approx(free_on_disk(tmp_path), rel=0.1)


@pytest.mark.parametrize("mode", ["memory", "disk", "off"])
def test_what_was_asked_for_is_done(mode: Any) -> None:
    assert choose_placement(1, N_BYTES, mode, 0, 0) == CachePlacement(mode, N_BYTES, "asked for")


def test_without_frozen_layers_there_is_no_cache() -> None:
    for mode in ("auto", "off"):
        place = choose_placement(0, N_BYTES, mode, 10**9, 10**9)  # type: ignore[arg-type]
        assert place.mode == "off" and "no layer is frozen" in place.reason
    for mode in ("memory", "disk"):
        with pytest.raises(OptionError, match=f"--prefix-cache {mode} needs frozen layers"):
            choose_placement(0, N_BYTES, mode, 10**9, 10**9)  # type: ignore[arg-type]


def test_the_cache_of_a_run_is_as_large_as_its_rows() -> None:
    model = tiny.make_model(GEMMA)
    shape = shape_of()
    attach(model, shape)
    assert start(model, shape, ROWS).plan.cache == CachePlacement("memory", N_BYTES, "it fits")


def test_a_model_that_cannot_be_split_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_run, "split_at", lambda model, _: WholeModel(model))
    model = tiny.make_model(GEMMA)
    attach(model, shape_of())
    assert start(model, shape_of(), ROWS).plan.cache.mode == "off"


@pytest.mark.parametrize("mode", ["memory", "disk"])
def test_a_cache_is_filled_and_the_frozen_layers_given_back(mode: Any, source: CacheSource) -> None:
    split_model, counts = split_model_of(), []
    wanted = split_model.run_frozen(mx.array([ROWS[0].tokens[:-1]]))
    mx.eval(wanted)
    cache = build_cache(split_model, ROWS, CachePlacement(mode, 0, ""), source, counts.append)
    assert cache is not None and cache.n_bytes == N_BYTES and sum(counts) == 2
    assert difference(cache.gather(ROWS[:1], (1, 19)), wanted) < ROUNDING
    weights = dict(tree_flatten(split_model.model.layers[0].parameters()))
    assert all(value.size == 1 for value in weights.values())
    assert all(
        value.size > 1 for _, value in tree_flatten(split_model.model.layers[1].parameters())
    )


def test_without_a_cache_the_layers_stay(source: CacheSource) -> None:
    split_model = split_model_of()
    assert (
        build_cache(split_model, ROWS, CachePlacement("off", 0, ""), source, lambda _: None) is None
    )
    assert split_model.run_frozen(mx.array([[7, 8]])).shape == (1, 2, 32)


def test_a_file_is_for_one_model_and_one_precision(source: CacheSource) -> None:
    def files(source: CacheSource) -> int:
        build_cache(split_model_of(), ROWS, CachePlacement("disk", 0, ""), source, lambda _: None)
        return len(list(source.cache_folder.iterdir()))

    assert [files(source), files(source), files(source._replace(precision="other"))] == [1, 1, 2]
    config = source.model_folder / "config.json"
    config.write_text(config.read_text() + " ")
    assert files(source) == 3
    weights = source.model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"\0")
    assert files(source) == 4
