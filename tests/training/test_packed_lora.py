from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRALinear

from calltune.training import adapter
from calltune.training.packed_lora import PackedLoRA, PackedMember
from calltune.training.step import StepOptions

from support import tiny
from support.plain import (
    CONFIGS,
    GEMMA,
    LLAMA,
    assert_equal,
    attach,
    batches,
    difference,
    named,
    plain_gradients,
    quantised,
    random_rows,
    shape_of,
    start,
    summed,
)

ROWS = random_rows((20, 90))
PROJECTIONS = ("q_proj", "k_proj", "v_proj")


def biased(config: dict[str, Any] = LLAMA, names: tuple[str, ...] = PROJECTIONS) -> Any:
    """A model some of whose projections have biases."""
    model = tiny.make_model(config)
    for name in names:
        linear = model.layers[1].self_attn[name]
        linear.bias = mx.random.normal((linear.weight.shape[0],), key=mx.random.key(len(name)))
    return model


def kinds(model: Any) -> dict[str, type]:
    layer = model.layers[1]
    blocks = {**layer.self_attn, **layer.mlp}
    return {name: type(blocks[name]) for name in blocks if name.endswith("_proj")}


@pytest.mark.parametrize("make", [tiny.make_model, quantised], ids=["dense", "quantised"])
@pytest.mark.parametrize("name", CONFIGS)
def test_projections_with_one_input_are_one_product(name: str, make: Any) -> None:
    model = make(CONFIGS[name])
    attach(model, shape_of())
    adapter.pack_layers(model)
    assert kinds(model) == dict.fromkeys(
        ["q_proj", "o_proj", "gate_proj", "down_proj"], PackedLoRA
    ) | (dict.fromkeys(["k_proj", "v_proj", "up_proj"], PackedMember))


def test_a_layer_with_dropout_stays_as_mlx_lm_has_it() -> None:
    model = tiny.make_model(GEMMA)
    attach(model, shape_of(dropout=0.1))
    adapter.pack_layers(model)
    assert set(kinds(model).values()) == {LoRALinear}


def test_some_modules_are_packed_with_those_of_their_group_that_have_lora() -> None:
    model = tiny.make_model(GEMMA)
    attach(model, shape_of(modules=("q_proj", "v_proj")))
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS)
    assert kinds(model)["q_proj"] is kinds(model)["v_proj"] is PackedLoRA
    assert kinds(model)["k_proj"] is nn.Linear
    assert_equal(run, summed(run), plain)


@pytest.mark.parametrize(
    "names", [PROJECTIONS, ("q_proj",), ("k_proj", "v_proj")], ids=["all", "q", "k and v"]
)
def test_biases_are_added_where_they_are(names: tuple[str, ...]) -> None:
    model = biased(names=names)
    attach(model, shape_of())
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS)
    assert_equal(run, summed(run), plain)


def test_projections_quantised_with_other_bits_are_computed_right() -> None:
    model = tiny.make_model(GEMMA | {"hidden_size": 64, "intermediate_size": 96})

    def bits(path: str, module: Any) -> Any:
        is_more = path.endswith(("v_proj", "down_proj"))
        return "_proj" in path and {"group_size": 32, "bits": 8 if is_more else 4}

    nn.quantize(model, class_predicate=bits)
    attach(model, shape_of())
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS)
    assert_equal(run, summed(run), plain)


def test_projections_can_be_called_in_any_order_and_with_other_inputs() -> None:
    model = biased()
    attach(model, shape_of())
    attention = model.layers[1].self_attn
    one, other = (mx.random.normal((2, 5, 32), key=mx.random.key(n)) for n in (1, 2))
    wanted = {(n, i): attention[n](x) for n in PROJECTIONS for i, x in enumerate((one, other))}
    run = start(model, shape_of(), ROWS)
    run.model.update(as_used(run))
    for order in (PROJECTIONS, PROJECTIONS[::-1], ("k_proj", "q_proj", "v_proj", "k_proj")):
        for name in order:
            assert difference(attention[name](one), wanted[name, 0]) < 1e-5
    for name in PROJECTIONS:
        assert difference(attention[name](other), wanted[name, 1]) < 1e-5
        assert difference(attention[name](one), wanted[name, 0]) < 1e-5


def as_used(run: Any) -> Any:
    """The trained weights as a step puts them on the model."""
    from mlx.utils import tree_unflatten

    used = run.step._stacked.for_forward(run.trained.weights, run.step.split_model.dtype)
    return tree_unflatten(list(used.items()))


def test_packing_and_unpacking_lose_nothing() -> None:
    model = tiny.make_model(GEMMA)
    attach(model, shape_of(num_layers=2))
    before = dict(tree_flatten(model.trainable_parameters()))
    adapter.pack_layers(model)
    weights = adapter.trainable(model)
    exported = adapter.exported(model, weights)
    assert exported.keys() == before.keys()
    assert all(mx.array_equal(exported[name], before[name]) for name in before)


def test_zeros_between_the_blocks_stay_zero() -> None:
    model = tiny.make_model(GEMMA)
    attach(model, shape_of())
    run = start(model, shape_of(), ROWS, StepOptions(clip=0.5))
    trained = run.trained
    for batch in batches(run, 3):
        trained = run.step.step(trained, batch, 50.0, 1e-2).trained
    weights = run.step.unstack(trained.weights)
    module = run.model.layers[1].self_attn.q_proj
    b, mask = weights["model.layers.1.self_attn.q_proj.b"], module.mask()
    assert b.shape == mask.shape == (12, 64)
    assert int(mask.sum()) == 4 * 32 + 2 * 4 * 16
    assert not mx.where(mask == 0, b, 0).any() and mx.where(mask == 1, b, 1).all()


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=["bfloat16", "float16"])
def test_outputs_keep_the_type_of_their_inputs(dtype: mx.Dtype) -> None:
    model = biased()
    model.set_dtype(dtype)
    attach(model, shape_of())
    run = start(model, shape_of(), ROWS)
    run.model.update(as_used(run))
    attention = run.model.layers[1].self_attn
    outputs = [attention[name](mx.ones((1, 3, 32), dtype)) for name in PROJECTIONS]
    assert {output.dtype for output in outputs} == {dtype}
    assert {value.dtype for value in named(run, run.trained.weights).values()} == {mx.float32}
