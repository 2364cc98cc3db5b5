from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from calltune.batches import Batch, TokenRow, collate
from calltune.tune.adapter import AdapterShape, attach
from calltune.tune.loss import completion_loss

import tiny

CONFIGS = pytest.mark.parametrize(
    "config",
    [tiny.GEMMA_CONFIG, tiny.LLAMA_CONFIG, tiny.LLAMA_CONFIG | {"tie_word_embeddings": False}],
    ids=["gemma", "llama", "llama untied"],
)
LORA = AdapterShape("lora", num_layers=1, rank=4, scale=20.0, dropout=0.0)


def random_rows(lengths: list[int], seed: int = 0) -> list[TokenRow]:
    rng = np.random.default_rng(seed)
    return [
        TokenRow(str(i), tuple(rng.integers(6, 300, length).tolist()), length // 2)
        for i, length in enumerate(lengths)
    ]


def loss_of(model: Any, batch: Batch) -> mx.array:
    parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
    return completion_loss(model, *(mx.array(part) for part in parts)).mean


def plain_loss(model: Any, rows: list[TokenRow]) -> mx.array:
    """One row at a time, all logits, no padding: what the loss must equal."""
    total, count = mx.array(0.0), 0
    for row in rows:
        tokens = mx.array(row.tokens)
        logits = model(tokens[None, :-1])[0].astype(mx.float32)
        losses = nn.losses.cross_entropy(logits, tokens[1:])
        total += losses[row.completion_start - 1 :].sum()
        count += len(row.tokens) - row.completion_start
    return total / count


@CONFIGS
def test_loss_equals_a_plain_one(config: dict[str, Any]) -> None:
    model = tiny.make_model(config)
    # Longer than the sliding window of 64, and short enough to be padded much.
    rows = random_rows([20, 90, 131])
    assert abs(loss_of(model, collate(rows)).item() - plain_loss(model, rows).item()) < 1e-5


@CONFIGS
def test_gradients_equal_plain_ones(config: dict[str, Any]) -> None:
    model = tiny.make_model(config)
    attach(model, LORA, seed=1)
    rows = random_rows([20, 90])
    batch = collate(rows)
    _, gradients = nn.value_and_grad(model, lambda m: loss_of(m, batch))(model)
    _, plain = nn.value_and_grad(model, lambda m: plain_loss(m, rows))(model)
    ours, theirs = dict(tree_flatten(gradients)), dict(tree_flatten(plain))
    assert ours.keys() == theirs.keys() and ours
    assert max(float(mx.abs(theirs[name]).max()) for name in theirs) > 1e-4
    for name, gradient in ours.items():
        assert mx.allclose(gradient, theirs[name], rtol=1e-4, atol=1e-6), name


def test_the_head_is_applied_to_the_trained_positions_alone() -> None:
    model = tiny.make_model(tiny.LLAMA_CONFIG | {"tie_word_embeddings": False})
    seen = []

    class Watched(nn.Linear):
        def __call__(self, x: mx.array) -> mx.array:
            seen.append(x.shape)
            return super().__call__(x)

    model.lm_head.__class__ = Watched
    batch = collate(random_rows([200, 201]))
    loss_of(model, batch)
    assert seen == [(len(batch.positions), 32)]


def test_prompt_and_padding_tokens_are_not_trained_on() -> None:
    row = random_rows([40])[0]
    batch = collate([row])
    logits = mx.random.normal((1, batch.inputs.shape[1], 320))

    class Fixed:
        model_type = "other"

        def __call__(self, _: mx.array) -> mx.array:
            return logits

    def loss(fixed: mx.array) -> mx.array:
        nonlocal logits
        logits = fixed
        return loss_of(Fixed(), batch)

    gradient = mx.abs(mx.grad(loss)(logits)).sum(axis=-1)[0]
    trained = [float(value) > 0 for value in gradient]
    first, last = row.completion_start - 1, len(row.tokens) - 1
    assert trained == [first <= position < last for position in range(len(trained))]


def test_lora_at_step_0_equals_the_base() -> None:
    model = tiny.make_model(tiny.GEMMA_CONFIG)
    batch = collate(random_rows([30]))
    before = loss_of(model, batch).item()
    attach(model, LORA, seed=1)
    assert loss_of(model, batch).item() == before
