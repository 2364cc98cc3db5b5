from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from calltune.data.batching import COARSE, FINE, Buckets, collate
from calltune.training import loss
from calltune.training.loss import completion_loss, completion_loss_no_grad
from calltune.training.split_model import SplitModel, WholeModel, split_at

from support import tiny
from support.plain import CONFIGS, UNTIED, difference, quantised, random_rows

ON_CPU = pytest.mark.parametrize("use_numpy", [False, True])
NAMES = pytest.mark.parametrize("name", CONFIGS)
COUNT = 150


def inputs_of_the_head(split_model: SplitModel) -> mx.array:
    """(T, D), or (T, V) of a model that is not cut."""
    width = split_model.hidden(mx.array([[7]])).shape[-1]
    return mx.random.normal((COUNT, width), key=mx.random.key(1))


def targets_and_weights() -> tuple[mx.array, mx.array]:
    targets = mx.random.randint(0, 320, (COUNT,), key=mx.random.key(2))
    # The last ten pad the others up.
    return targets, (mx.arange(COUNT) < COUNT - 10).astype(mx.float32)


def plain(split_model: SplitModel, rows: mx.array) -> mx.array:
    targets, weights = targets_and_weights()
    losses = nn.losses.cross_entropy(split_model.logits(rows).astype(mx.float32), targets)
    return (losses * weights).sum()  # type: ignore[no-any-return]


def assert_equals_plain(split_model: SplitModel, use_numpy: bool) -> None:
    rows = inputs_of_the_head(split_model)
    wanted, wanted_gradient = mx.value_and_grad(lambda rows: plain(split_model, rows))(rows)
    # Twice: nothing is kept or overwritten.
    for _ in range(2):
        found, gradient = mx.value_and_grad(
            lambda rows: completion_loss(split_model, rows, *targets_and_weights(), use_numpy)
        )(rows)
        alone = completion_loss_no_grad(split_model, rows, *targets_and_weights(), use_numpy)
        assert difference(found, wanted) < 1e-6
        assert difference(alone, wanted) < 1e-6
        assert difference(gradient, wanted_gradient) < 1e-5
        assert not gradient[COUNT - 10 :].any()


@ON_CPU
@NAMES
@pytest.mark.parametrize("chunk", [2**25, 1], ids=["whole", "chunks of 64"])
def test_loss_and_gradient_equal_those_of_all_logits(
    name: str, use_numpy: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", chunk)
    assert_equals_plain(split_at(tiny.make_model(CONFIGS[name]), 1), use_numpy)


@ON_CPU
@NAMES
def test_they_do_with_a_quantised_head(name: str, use_numpy: bool) -> None:
    assert_equals_plain(split_at(quantised(CONFIGS[name]), 1), use_numpy)


@ON_CPU
def test_they_do_with_a_bias_after_the_head(use_numpy: bool) -> None:
    model = tiny.make_model(UNTIED)
    model.lm_head.bias = mx.random.normal((320,))
    assert_equals_plain(split_at(model, 1), use_numpy)


@ON_CPU
def test_they_do_with_a_model_that_is_not_cut(use_numpy: bool) -> None:
    assert_equals_plain(WholeModel(tiny.make_model(UNTIED)), use_numpy)


@ON_CPU
def test_a_likely_target_and_an_impossible_one_are_exact(use_numpy: bool) -> None:
    split_model = split_at(tiny.make_model(UNTIED), 1)
    # Logits from -100 to 100: exp of those is more than float32 holds.
    split_model.model.lm_head.weight = mx.linspace(-10, 10, 320)[:, None] * mx.ones((1, 32))
    rows = mx.full((2, 32), 10 / 32)
    targets, weights = mx.array([319, 0]), mx.ones((2,))
    found = completion_loss(split_model, rows, targets, weights, use_numpy).item()
    alone = completion_loss_no_grad(split_model, rows, targets, weights, use_numpy).item()
    wanted = nn.losses.cross_entropy(split_model.logits(rows), targets).sum().item()
    assert found == pytest.approx(wanted, rel=1e-6) and alone == pytest.approx(wanted, rel=1e-6)
    assert wanted > 200


def test_the_gradient_is_scaled_by_what_follows() -> None:
    split_model = split_at(tiny.make_model(UNTIED), 1)
    rows = inputs_of_the_head(split_model)

    def half(rows: mx.array) -> mx.array:
        return completion_loss(split_model, rows, *targets_and_weights()) / 2

    wanted = mx.grad(lambda rows: plain(split_model, rows))(rows)
    assert difference(2 * mx.grad(half)(rows), wanted) < 1e-5


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16], ids=["bfloat16", "float16"])
@NAMES
def test_half_precision_loses_little_and_the_gradient_keeps_its_type(
    name: str, dtype: mx.Dtype
) -> None:
    model = tiny.make_model(CONFIGS[name])
    model.set_dtype(dtype)
    split_model = split_at(model, 1)
    rows = inputs_of_the_head(split_model).astype(dtype)
    found, gradient = mx.value_and_grad(
        lambda rows: completion_loss(split_model, rows, *targets_and_weights())
    )(rows)
    assert found.dtype == mx.float32 and gradient.dtype == dtype
    model.set_dtype(mx.float32)
    exact, exact_gradient = mx.value_and_grad(lambda rows: plain(split_model, rows))(
        rows.astype(mx.float32)
    )
    assert difference(found, exact) < 2e-3
    assert difference(gradient.astype(mx.float32), exact_gradient) < 3e-2


@NAMES
def test_the_head_is_applied_to_the_trained_positions_alone(name: str) -> None:
    split_model = split_at(tiny.make_model(CONFIGS[name]), 1)
    seen: list[Any] = []

    def watched(rows: mx.array) -> mx.array:
        seen.append(rows.shape[0])
        return SplitModel.logits(split_model, rows)

    split_model.logits = watched  # type: ignore[method-assign]
    batch = collate(random_rows((200, 201)))
    hidden = split_model.hidden(mx.array(batch.inputs)).reshape(-1, 32)[mx.array(batch.positions)]
    completion_loss_no_grad(split_model, hidden, mx.array(batch.targets), mx.array(batch.weights))
    assert seen == [len(batch.positions)] and seen[0] < batch.inputs.size


@pytest.mark.parametrize("buckets", [FINE, COARSE], ids=["fine", "coarse"])
def test_prompt_and_padding_tokens_get_no_gradient(buckets: Buckets) -> None:
    rows = random_rows((40, 33))
    batch = collate(rows, buckets, 3)

    def of_all(logits: mx.array) -> mx.array:
        """The loss as `step` takes it, of all logits (B, L, V)."""
        split_model = WholeModel(lambda _: logits)
        given = logits.reshape(-1, 320)[mx.array(batch.positions)]
        return completion_loss(split_model, given, mx.array(batch.targets), mx.array(batch.weights))

    logits = mx.random.normal((*batch.inputs.shape, 320))
    gradient = mx.abs(mx.grad(of_all)(logits)).sum(axis=-1).tolist()
    for row, values in zip(rows, gradient, strict=False):
        first, last = row.completion_start - 1, len(row.tokens) - 1
        trained = [value > 0 for value in values]
        assert trained == [first <= position < last for position in range(len(values))]
    assert all(not any(values) for values in gradient[len(rows) :])
