from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optimizers
import pytest
from mlx.utils import tree_flatten, tree_map

from calltune.data.batching import COARSE, FINE, Buckets, TokenRow, collate
from calltune.training import adapter
from calltune.training.split_model import split_at
from calltune.training.step import (
    Step,
    StepBatch,
    StepOptions,
    count_recomputed,
    estimate_step_bytes,
)

from support import tiny
from support.plain import (
    CONFIGS,
    GEMMA,
    Run,
    attach,
    batches,
    difference,
    n_trained,
    named,
    plain_gradients,
    plain_loss,
    random_rows,
    shape_of,
    start,
    summed,
)

NAMES = pytest.mark.parametrize("name", CONFIGS)
ROWS = random_rows()


def batch_of(rows: list[TokenRow], buckets: Buckets = FINE) -> StepBatch:
    batch = collate(rows, buckets, len(rows))
    parts = (batch.inputs, batch.positions, batch.targets, batch.weights)
    return StepBatch(*(mx.array(part) for part in parts), None)


def fresh(config: dict[str, Any] = GEMMA, **changes: Any) -> Any:
    model = tiny.make_model(config)
    attach(model, shape_of(**changes))
    return model


def test_layers_are_recomputed_until_the_others_keep_few_enough() -> None:
    assert count_recomputed(8, 2048, None) == count_recomputed(8, 2048, 2048) == 0
    assert count_recomputed(8, 3000, 0) == 8
    for positions in (2049, 2560, 3584, 4096, 10_000, 100_000):
        recomputed = count_recomputed(8, positions, 2048)
        assert (8 - recomputed) * positions <= 8 * 2048 < (9 - recomputed) * positions


def test_only_large_batches_are_recomputed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    run = start(fresh(), shape_of(), ROWS, StepOptions(kept_positions=100))
    hidden = run.step.split_model.hidden

    def watched(inputs: mx.array, frozen: Any, recompute: int) -> mx.array:
        asked.append(recompute)
        return hidden(inputs, frozen, recompute)

    monkeypatch.setattr(run.step.split_model, "hidden", watched)
    for length in (40, 150):
        run.step.gradients(run.trained.weights, batch_of(random_rows((length,))))
    assert asked == [0, 1]


def test_a_row_has_the_same_loss_in_every_company() -> None:
    run = start(fresh(), shape_of(), ROWS)
    alone = [float(run.step.loss(run.trained.weights, batch_of([row]))) for row in ROWS]
    for buckets in (FINE, COARSE):
        together = float(run.step.loss(run.trained.weights, batch_of(ROWS, buckets)))
        assert together == pytest.approx(sum(alone), rel=2e-6)
    first, other, third = ROWS[:3]
    beside = [
        float(run.step.loss(run.trained.weights, batch_of([first, row]))) - alone[ROWS.index(row)]
        for row in (other, third)
    ]
    assert beside == pytest.approx([alone[0]] * 2, rel=1e-5)


@pytest.mark.parametrize("use_numpy", [False, True])
@NAMES
def test_the_loss_alone_is_that_of_the_gradients(name: str, use_numpy: bool) -> None:
    run = start(fresh(CONFIGS[name]), shape_of(), ROWS, StepOptions(use_numpy=use_numpy))
    for batch in batches(run):
        found = run.step.gradients(run.trained.weights, batch).loss
        assert difference(run.step.loss(run.trained.weights, batch), found) < 2e-6


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora"])
@NAMES
def test_an_adapter_at_step_0_equals_the_base(name: str, kind: Any) -> None:
    model = tiny.make_model(CONFIGS[name])
    base = plain_loss(model, ROWS)
    adapter.attach(model, shape_of(kind), seed=1)
    run = start(model, shape_of(kind), ROWS)
    losses = [run.step.loss(run.trained.weights, batch) for batch in batches(run)]
    assert difference(sum(losses, mx.array(0.0)), base) < 2e-6


def test_updates_equal_those_of_plain_adam() -> None:
    model, rate = fresh(), 1e-3
    other = fresh()
    run = start(model, shape_of(), ROWS[:3])
    trained = run.trained
    optimizer = optimizers.Adam(learning_rate=rate)
    for _ in range(3):
        (batch,) = batches(run)
        trained = run.step.step(trained, batch, n_trained(ROWS[:3]), rate).trained
        _, gradients = nn.value_and_grad(other, lambda model: plain_loss(model, ROWS[:3]))(other)
        mean = tree_map(lambda gradient: gradient / n_trained(ROWS[:3]), gradients)
        optimizer.update(other, mean)
    theirs = dict(tree_flatten(other.trainable_parameters()))
    ours = named(run, trained.weights)
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        # Adam divides by the gradient's size, which makes rounding errors of small ones larger.
        assert float(mx.abs(weight - theirs[name]).max()) < 0.02 * rate, name


def test_accumulated_batches_make_the_update_of_one_batch_with_their_rows() -> None:
    run = start(fresh(), shape_of(), ROWS)
    whole = run.step.step(run.trained, batch_of(ROWS), n_trained(ROWS), 1e-3)
    total = summed(run, [batch_of(ROWS[:2]), batch_of(ROWS[2:])])
    parts = run.step.update(run.trained, total, n_trained(ROWS), 1e-3)
    assert difference(parts.loss, whole.loss) < 2e-6
    for name, weight in parts.trained.weights.items():
        theirs = whole.trained.weights[name]
        assert not mx.array_equal(theirs, run.trained.weights[name])
        assert float(mx.abs(weight - theirs).max()) < 2e-5, name


def moments(run: Run, clip: float) -> tuple[float, mx.array]:
    """The norm that a step tells, and Adam's first moments after it, all in one array."""
    step = Step(run.step.split_model, StepOptions(clip=clip))
    before = step.begin(run.step.unstack(run.trained.weights))
    updated = step.step(before, batch_of(ROWS), n_trained(ROWS), 1e-3)
    found = [updated.trained.optimizer[name]["m"].reshape(-1) for name in before.weights]
    return float(updated.norm), mx.concatenate(found)


def test_gradients_are_clipped_to_their_norm() -> None:
    model = fresh()
    plain = plain_gradients(model, ROWS)
    norm = sum(float(mx.square(value).sum()) for value in plain.of.values()) ** 0.5
    norm /= n_trained(ROWS)
    run = start(model, shape_of(), ROWS)
    _, unclipped = moments(run, 0.0)
    told, loose = moments(run, 2 * norm)
    assert told == pytest.approx(norm, rel=1e-4)
    assert difference(loose, unclipped) < 1e-6
    told, tight = moments(run, norm / 4)
    # The norm of the gradient, not that of what is left of it.
    assert told == pytest.approx(norm, rel=1e-4)
    assert difference(4 * tight, unclipped) < 1e-4


def test_more_positions_and_layers_need_more_memory() -> None:
    model = tiny.make_model(GEMMA)
    one, two = split_at(model, 1), split_at(model, 0)
    base = estimate_step_bytes(one, 0)
    assert estimate_step_bytes(one, 200) - base == 2 * (estimate_step_bytes(one, 100) - base) > 0
    assert estimate_step_bytes(two, 100) - base == 2 * (estimate_step_bytes(one, 100) - base)
