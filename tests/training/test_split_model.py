from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten

from calltune.training.split_model import SplitModel, WholeModel, split_at

from support import tiny
from support.plain import CAPPED, CONFIGS, GEMMA, LLAMA, ROUNDING, UNTIED, difference, quantised

NAMES = pytest.mark.parametrize("name", CONFIGS)
DEPTHS = pytest.mark.parametrize("n_frozen", [0, 1])
# Longer than the sliding window of 64.
TOKENS = mx.random.randint(6, 300, (2, 140), key=mx.random.key(5))


def by_parts(split_model: SplitModel, tokens: mx.array, recompute: int = 0) -> mx.array:
    frozen = split_model.run_frozen(tokens) if split_model.n_frozen else None
    hidden = split_model.hidden(tokens, frozen, recompute)
    return mx.stack([split_model.logits(row) for row in hidden])


@NAMES
@DEPTHS
def test_the_parts_compute_what_the_model_does(name: str, n_frozen: int) -> None:
    model = tiny.make_model(CONFIGS[name])
    split_model = split_at(model, n_frozen)
    assert type(split_model) is SplitModel
    wanted = model(TOKENS)
    assert difference(by_parts(split_model, TOKENS), wanted) < ROUNDING
    assert difference(by_parts(split_model, TOKENS, recompute=1), wanted) < ROUNDING
    # Without the frozen layers' output they run.
    assert mx.array_equal(
        split_model.hidden(TOKENS), split_model.hidden(TOKENS, split_model.run_frozen(TOKENS))
    ) or (n_frozen == 0)


@NAMES
@DEPTHS
def test_the_parts_of_a_quantised_model_do(name: str, n_frozen: int) -> None:
    model = quantised(CONFIGS[name])
    split_model = split_at(model, n_frozen)
    assert type(split_model) is SplitModel and split_model.vocabulary == 320
    assert difference(by_parts(split_model, TOKENS), model(TOKENS)) < ROUNDING


def test_a_sliding_window_is_kept_by_both_parts() -> None:
    """Gemma's layer 0 sees 64 positions back; here the upper layer does."""
    model = tiny.make_model(GEMMA | {"num_hidden_layers": 3, "sliding_window_pattern": 3})
    changed = mx.concatenate([TOKENS[:, :1] + 1, TOKENS[:, 1:]], axis=1)
    for n_frozen in (1, 2):
        split_model = split_at(model, n_frozen)
        assert type(split_model) is SplitModel
        for tokens in (TOKENS, changed):
            assert difference(by_parts(split_model, tokens), model(tokens)) < ROUNDING
    # Two windows of 64 reach no further than 126 back, a full layer all the way.
    one, other = (split_at(model, 2).run_frozen(tokens) for tokens in (TOKENS, changed))
    assert mx.array_equal(one[:, 127:], other[:, 127:])
    assert not mx.array_equal(one[:, 100], other[:, 100])


@NAMES
def test_the_model_is_left_as_it_was(name: str) -> None:
    model = tiny.make_model(CONFIGS[name])
    classes = [type(module) for _, module in model.named_modules()]
    weights = dict(tree_flatten(model.parameters()))
    split_model = split_at(model, 1)
    by_parts(split_model, TOKENS, recompute=1)
    with pytest.raises(ValueError, match="size"):
        split_model.hidden(TOKENS, mx.zeros((2, 140, 7)))
    assert [type(module) for _, module in model.named_modules()] == classes
    after = dict(tree_flatten(model.parameters()))
    assert after.keys() == weights.keys()
    assert all(mx.array_equal(after[name], weights[name]) for name in weights)


def test_the_head_is_a_product_only_where_nothing_else_is_done() -> None:
    for config in (GEMMA, LLAMA, UNTIED):
        model = tiny.make_model(config)
        head = model.lm_head if "lm_head" in model else model.model.embed_tokens
        assert split_at(model, 1).head_weight() is head.weight
        assert split_at(quantised(config), 1).head_weight() is None
    assert split_at(tiny.make_model(CAPPED), 1).head_weight() is None
    biased = tiny.make_model(UNTIED)
    biased.lm_head.bias = mx.ones((320,))
    assert split_at(biased, 1).head_weight() is None
    assert WholeModel(tiny.make_model(GEMMA)).head_weight() is None


@pytest.mark.parametrize("make", [tiny.make_model, quantised], ids=["dense", "quantised"])
def test_released_layers_hold_nothing_and_the_rest_goes_on(make: Any) -> None:
    model = make(GEMMA)
    split_model = split_at(model, 1)
    frozen = split_model.run_frozen(TOKENS)
    mx.eval(frozen)
    wanted = model(TOKENS)
    mx.eval(wanted)
    split_model.release_frozen()
    assert all(value.nbytes <= 4 for _, value in tree_flatten(model.layers[0].parameters()))
    hidden = split_model.hidden(TOKENS, frozen)
    assert difference(mx.stack([split_model.logits(row) for row in hidden]), wanted) < ROUNDING


class Mixing(nn.Module):
    """A model whose later layer reads what an earlier one was given: no cut is the same."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(32, 8)
        self.layers = [nn.Linear(8, 8), nn.Linear(8, 8)]

    def __call__(self, inputs: mx.array) -> mx.array:
        first = self.embed_tokens(inputs)
        second = self.layers[0](first)
        return self.embed_tokens.as_linear(self.layers[1](second + first) + second)  # type: ignore


class Headless(nn.Module):
    """A model without a head that can be found."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(1, 32)
        self.layers = [nn.Linear(32, 32)]

    def __call__(self, inputs: mx.array) -> mx.array:
        result: mx.array = self.layers[0](self.table(inputs[..., None].astype(mx.float32)))
        return result


@pytest.mark.parametrize("model_class", [Mixing, Headless])
def test_a_model_that_a_cut_would_change_is_taken_whole(model_class: Any) -> None:
    model = model_class()
    tokens = mx.array([[1, 2, 3], [4, 5, 6]])
    split_model = split_at(model, len(model.layers) - 1)
    assert (
        type(split_model) is WholeModel
        and split_model.n_frozen == 0
        and split_model.vocabulary == 32
    )
    assert mx.array_equal(by_parts(split_model, tokens), model(tokens))
    assert [type(layer) for layer in model.layers] == [nn.Linear] * len(model.layers)
