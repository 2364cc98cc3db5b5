"""The memory planner's formula, on made-up shapes and on tiny models' real arrays."""

from dataclasses import replace
from typing import Any

import pytest

from calltune.data.batching import Splits, TokenRow
from calltune.errors import OptionError
from calltune.training.dry_run import Limits, Machine
from calltune.training.layer_memory import lora_numbers
from calltune.training.memory_plan import Plan, Planner
from calltune.training.model_shape import Linear, ModelShape, shape_of
from calltune.training.options import TrainOptions
from calltune.training.suggestions import suggest_changes

from support import tiny

TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
SHAPE = ModelShape(
    hidden=64,
    ffn=256,
    heads=4,
    kv_heads=2,
    head_dim=16,
    vocabulary=1000,
    n_layers=6,
    norms=128,
    groups=(
        (Linear("q_proj", 64, 64), Linear("k_proj", 64, 32), Linear("v_proj", 64, 32)),
        (Linear("gate_proj", 64, 256), Linear("up_proj", 64, 256)),
        (Linear("o_proj", 64, 64),),
        (Linear("down_proj", 256, 64),),
    ),
    layer_weights=61_568,
    outside_weights=64_064,
    largest_matrix=64_000,
    layer_bytes=35_000,
    outside_bytes=36_000,
    largest_matrix_bytes=36_000,
    is_quantized=True,
)
LIMITS = Limits(
    kept_positions=256,
    valid_positions=1024,
    bulk_positions=1024,
    chunk_logits=2**20,
    fill_bytes=10**6,
)
CPU = Machine("cpu", "float32", memory=10**9, free_disk=10**12)
GPU = Machine("metal", "as stored", memory=10**9, free_disk=10**12)
CUDA = Machine("cuda", "as stored", memory=10**9, free_disk=10**12)
OPTIONS = TrainOptions(batch_size=4, num_layers=3, compute="dense")


def rows(count: int, length: int) -> list[TokenRow]:
    tokens = (tuple([number, *[7] * (length - 1)]) for number in range(count))
    return [TokenRow(str(number), row, length - 10) for number, row in enumerate(tokens)]


ROWS = Splits(rows(16, 129), rows(4, 65))


def planner(machine: Machine = CPU, shape: ModelShape = SHAPE) -> Planner:
    return Planner(shape, machine, 4 if machine.is_cpu else 2, 250_000, LIMITS)


def parts(plan: Plan, name: str) -> dict[str, int]:
    (phase,) = [phase for phase in plan.phases if phase.name == name]
    return {part.name: part.n_bytes for part in phase.parts}


def activations(machine: Machine, options: TrainOptions, some: Splits[TokenRow] = ROWS) -> int:
    plan = planner(machine).plan(some, options)
    return parts(plan, "training")["activations of the largest batch"]


def test_the_peak_is_that_of_the_largest_phase() -> None:
    plan = planner().plan(ROWS, OPTIONS)
    totals = {phase.name: phase.n_bytes for phase in plan.phases}
    assert list(totals) == ["loading", "frozen layers", "training", "validation"]
    assert plan.peak == max(totals.values()) == totals[plan.largest.name]
    assert totals["training"] == sum(parts(plan, "training").values())


def test_an_eager_layer_keeps_every_array_of_its_forward_pass() -> None:
    # By hand: norms three arrays each, products two, rotations four, attention's scores.
    products = 2 * (128 + 512 + 64 + 64) + 8 * 7
    numbers = 3 * 128 + products + 4 * 96 + 3 * 64 + 4 * 128 + 2 * 256 + 2 * 64
    assert activations(CPU, OPTIONS) == 3 * numbers * 4 * 128 * 4


def test_a_fused_layer_keeps_what_its_functions_take() -> None:
    never = replace(OPTIONS, grad_checkpoint=False)
    # By hand: 6 arrays of 64, q k v packed and apart, q's result, gate and up, LoRA, 4 scores.
    numbers = 6 * 64 + 2 * (64 + 2 * 32) + 64 + 2 * 256 + 7 * 8 + 4 * 128
    assert activations(CUDA, never) == 3 * numbers * 4 * 128 * 2
    # Of 512 positions, where 256 may be kept, 2 of 3 layers keep their input and its norm.
    assert activations(CUDA, OPTIONS) == (numbers + 2 * 2 * 64) * 4 * 128 * 2
    assert activations(CUDA, never) < activations(GPU, never)


def test_activations_grow_with_rows_and_layers() -> None:
    one = activations(CPU, replace(OPTIONS, batch_size=2))
    assert activations(CPU, OPTIONS) == 2 * one
    assert activations(CPU, replace(OPTIONS, num_layers=6)) == 4 * one


def test_recomputing_saves_memory_where_steps_are_compiled_and_only_for_large_batches() -> None:
    never = replace(OPTIONS, grad_checkpoint=False)
    assert activations(GPU, OPTIONS) < activations(GPU, never)
    assert activations(CPU, OPTIONS) == activations(CPU, never)
    small, small_never = replace(OPTIONS, batch_size=2), replace(never, batch_size=2)
    assert activations(GPU, small) == activations(GPU, small_never)


def test_weights_of_frozen_layers_count_until_their_output_is_cached() -> None:
    kept = planner().plan(ROWS, replace(OPTIONS, prefix_cache="off"))
    cached = planner().plan(ROWS, replace(OPTIONS, prefix_cache="memory"))
    gone = 3 * SHAPE.layer_weights * 4
    assert parts(kept, "training")["weights"] - parts(cached, "training")["weights"] == gone
    assert parts(cached, "frozen layers")["weights"] == parts(kept, "training")["weights"]
    assert "frozen layers" not in [phase.name for phase in kept.phases]


def test_the_cache_holds_each_row_once_and_none_on_disk() -> None:
    name = "output of the frozen layers"
    twice = Splits([*ROWS.train, *ROWS.train], ROWS.valid)
    expected = (16 * 128 + 4 * 64) * SHAPE.hidden * 4
    assert parts(planner().plan(twice, OPTIONS), "training")[name] == expected
    on_disk = planner().plan(ROWS, replace(OPTIONS, prefix_cache="disk"))
    assert parts(on_disk, "training")[name] == 0


@pytest.mark.parametrize(("memory", "place"), [(10**9, "memory"), (10**5, "disk")])
def test_auto_puts_a_cache_too_large_for_memory_on_the_disk(memory: int, place: str) -> None:
    assert planner(replace(CPU, memory=memory)).plan(ROWS, OPTIONS).run.cache.mode == place


def test_without_frozen_layers_there_is_no_cache() -> None:
    assert planner().plan(ROWS, replace(OPTIONS, num_layers=6)).run.cache.mode == "off"


def test_steps_that_are_not_run_are_not_planned_for() -> None:
    mixed = Splits([*rows(4, 33), *rows(4, 513)], [])
    peaks = {planner().plan(mixed, replace(OPTIONS, iters=1, seed=seed)).peak for seed in range(8)}
    assert len(peaks) == 2


def test_quantized_weights_take_what_is_stored() -> None:
    plan = planner(GPU).plan(ROWS, replace(OPTIONS, compute="quantized"))
    assert parts(plan, "loading")["weights"] == 6 * 35_000 + 36_000


def test_unpacking_the_largest_matrix_can_take_more_than_all_weights() -> None:
    wide = replace(SHAPE, outside_weights=640_064, largest_matrix=640_000)
    plan = planner(shape=wide).plan(ROWS, OPTIONS)
    assert parts(plan, "loading")["weights"] == 2 * 640_000 * 4 + wide.largest_matrix_bytes


def test_logits_exist_in_chunks() -> None:
    long = Splits([replace(row, completion_start=1) for row in rows(64, 513)], [])
    plan = planner(GPU).plan(long, replace(OPTIONS, batch_size=64))
    assert parts(plan, "training")["head"] == 6 * 1024 * 1000 * 4


def test_eager_steps_hold_the_head_or_one_backward_pass() -> None:
    many = planner(shape=replace(SHAPE, vocabulary=100_000))
    found = parts(many.plan(ROWS, OPTIONS), "training")
    assert found["head"] == 64 * 100_000 * 4 and "backward pass of one layer" not in found
    found = parts(planner().plan(ROWS, OPTIONS), "training")
    assert found["backward pass of one layer"] == 6 * SHAPE.ffn * 4 * 128 * 4
    assert "head" not in found


def test_suggestions_need_less_and_come_in_the_order_of_harm() -> None:
    options = replace(OPTIONS, grad_checkpoint=False, num_layers=4)
    mixed = Splits([*rows(24, 129), *rows(4, 513)], rows(4, 65))
    whole = planner(GPU).plan(mixed, options)
    found = suggest_changes(planner(GPU), mixed, options, limit=whole.peak // 2)
    assert all(suggestion.plan.peak < whole.peak for suggestion in found)
    names = [suggestion.option.split()[0] for suggestion in found]
    order = ["--grad-checkpoint", "--prefix-cache", "--max-seq-length", "--batch-size"]
    order += ["--num-layers", "--compute"]
    assert names == sorted(names, key=order.index)
    assert {"--grad-checkpoint", "--max-seq-length", "--batch-size"} <= set(names)


def test_a_limit_on_length_says_how_many_rows_it_loses() -> None:
    mixed = Splits([*rows(24, 129), *rows(8, 513)], [])
    peak = planner().plan(mixed, OPTIONS).peak
    (found,) = [
        r for r in suggest_changes(planner(), mixed, OPTIONS, peak - 1) if "length" in r.option
    ]
    assert found.option == "--max-seq-length 160" and "8 rows (25%)" in found.cost


def test_nothing_is_offered_that_does_not_help() -> None:
    least = TrainOptions(batch_size=1, num_layers=1, prefix_cache="off", compute="quantized")
    assert suggest_changes(planner(), Splits(rows(4, 33), []), least, limit=1) == []


@pytest.mark.parametrize("config", [tiny.GEMMA_CONFIG, tiny.LLAMA_CONFIG])
def test_trained_numbers_and_weights_are_those_of_the_model(config: dict[str, Any]) -> None:
    from mlx.utils import tree_flatten

    from calltune.training import adapter
    from calltune.training.packed_lora import SHARED_INPUT_GROUPS

    assert SHARED_INPUT_GROUPS == TOGETHER
    model = tiny.make_model(config)
    shape = shape_of(model, config, SHARED_INPUT_GROUPS, number_bytes=4)
    arrays: Any = tree_flatten(model.parameters())
    stored = shape.n_layers * shape.layer_bytes + shape.outside_bytes
    assert stored == sum(array.nbytes for _, array in arrays)
    lora = adapter.AdapterShape("lora", 2, 4, 20.0, 0.0)
    adapter.attach(model, lora, seed=1)
    adapter.pack_layers(model)
    trained = sum(array.size for array in adapter.trainable(model).values())
    assert 2 * sum(lora_numbers(group, lora) for group in shape.groups) == trained


def test_a_quantized_model_has_the_weights_of_the_dense_one() -> None:
    import mlx.nn as nn

    dense = shape_of(tiny.make_model(tiny.LLAMA_CONFIG), tiny.LLAMA_CONFIG, TOGETHER, 4)
    model = tiny.make_model(tiny.LLAMA_CONFIG)
    nn.quantize(model, group_size=32, bits=4)
    packed = shape_of(model, tiny.LLAMA_CONFIG, TOGETHER, 4)
    assert packed.is_quantized and not dense.is_quantized
    assert packed.layer_weights == dense.layer_weights
    assert packed.outside_weights == dense.outside_weights
    assert packed.groups == dense.groups
    assert packed.layer_bytes < dense.layer_bytes


def test_a_model_without_the_usual_projections_is_refused() -> None:
    model = tiny.make_model(tiny.LLAMA_CONFIG)
    with pytest.raises(OptionError, match="another"):
        shape_of(model, {"model_type": "other"}, TOGETHER, 4)
