from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from calltune.data.batching import COARSE, FINE, Buckets
from calltune.models import cpu_math
from calltune.training import loss
from calltune.training.split_model import SplitModel, WholeModel
from calltune.training.step import Step, StepOptions

from support import tiny
from support.commands_needed import COMPILER, needs
from support.plain import (
    CONFIGS,
    GEMMA,
    LLAMA,
    Arrays,
    assert_equal,
    attach,
    batches,
    difference,
    keep_frozen,
    named,
    plain_gradients,
    quantised,
    random_rows,
    shape_of,
    start,
    summed,
)

NAMES = pytest.mark.parametrize("name", CONFIGS)
NEEDS_COMPILER = needs(COMPILER)  # MLX compiles for the CPU with it.
ROWS = random_rows()


@contextmanager
def compiling() -> Iterator[None]:
    """MLX as it is without our functions for the CPU, which switch compilation off."""
    was_sped_up = cpu_math.has_cpu_patches()
    cpu_math.uninstall_cpu_patches()
    try:
        yield
    finally:
        if was_sped_up:
            cpu_math.install_cpu_patches()


def fresh(config: dict[str, Any] = GEMMA, **changes: Any) -> Any:
    model = tiny.make_model(config)
    attach(model, shape_of(**changes))
    return model


@NAMES
@pytest.mark.parametrize("buckets", [FINE, COARSE], ids=["fine", "coarse"])
@pytest.mark.parametrize("cache", ["off", "memory", "disk"])
def test_loss_and_gradients_equal_plain_ones(
    name: str, buckets: Buckets, cache: str, tmp_path: Path
) -> None:
    model = fresh(CONFIGS[name])
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS, StepOptions(use_numpy=cache == "memory"), buckets)
    if cache != "off":
        keep_frozen(run, ROWS, tmp_path / "file" if cache == "disk" else None)
    assert type(run.step.split_model) is SplitModel
    assert_equal(run, summed(run), plain)


@NAMES
@pytest.mark.parametrize("is_cached", [False, True], ids=["no cache", "cache"])
def test_they_equal_plain_ones_with_quantised_weights(name: str, is_cached: bool) -> None:
    model = quantised(CONFIGS[name])
    attach(model, shape_of())
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS)
    if is_cached:
        keep_frozen(run, ROWS)
    assert_equal(run, summed(run), plain)


@pytest.mark.parametrize("kind", ["rslora", "dora", "full"])
@pytest.mark.parametrize("layers", [1, -1])
def test_they_equal_plain_ones_for_whatever_is_trained(kind: Any, layers: int) -> None:
    shape = shape_of(kind, num_layers=layers)
    model = tiny.make_model(GEMMA)
    attach(model, shape)
    plain = plain_gradients(model, ROWS)
    run = start(model, shape, ROWS, StepOptions(norms_are_frozen=kind != "full"))
    assert_equal(run, summed(run), plain)


def test_they_equal_plain_ones_for_some_modules_alone() -> None:
    shape = shape_of(modules=("q_proj", "v_proj", "down_proj"))
    model = tiny.make_model(LLAMA)
    attach(model, shape)
    plain = plain_gradients(model, ROWS)
    assert len(plain.of) == 6
    run = start(model, shape, ROWS)
    assert_equal(run, summed(run), plain)


@pytest.mark.parametrize("use_numpy", [False, True])
@NAMES
def test_a_head_in_several_chunks_gives_the_same(
    name: str, use_numpy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_LOGITS", 1)
    model = fresh(CONFIGS[name])
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS, StepOptions(use_numpy=use_numpy), batch_size=4)
    # 64 positions in a chunk.
    assert max(len(batch.positions) for batch in batches(run)) > 128
    assert_equal(run, summed(run), plain)
    losses = [run.step.loss(run.trained.weights, batch) for batch in batches(run)]
    assert difference(sum(losses, mx.array(0.0)), plain.loss) < 2e-6


@pytest.mark.parametrize("layers", [1, 2])
def test_recomputed_activations_give_the_same_gradients(layers: int) -> None:
    shape = shape_of(num_layers=layers)
    model = fresh(num_layers=layers)
    plain = plain_gradients(model, ROWS)
    run = start(model, shape, ROWS, StepOptions(kept_positions=0))
    assert_equal(run, summed(run), plain)


@NEEDS_COMPILER
@pytest.mark.parametrize("name", ["gemma", "llama untied"])
def test_compiled_steps_equal_plain_ones(name: str) -> None:
    with compiling():
        model = fresh(CONFIGS[name])
        rows = ROWS[:3]
        plain = plain_gradients(model, rows)
        options = StepOptions(compiled=True, kept_positions=0)
        run = start(model, shape_of(), rows, options, COARSE)
        assert_equal(run, summed(run), plain)
        eager = Step(run.step.split_model, StepOptions())
        before = eager.begin(run.step.unstack(run.trained.weights))
        (batch,) = batches(run)
        ours = run.step.step(run.trained, batch, 50.0, 1e-3)
        theirs = eager.step(before, batch, 50.0, 1e-3)
        for name, weight in ours.trained.weights.items():
            assert float(mx.abs(weight - theirs.trained.weights[name]).max()) < 2e-5, name
        losses = [run.step.loss(run.trained.weights, batch), plain.loss]
        assert difference(losses[0], losses[1]) < 2e-6


@NEEDS_COMPILER
def test_compiled_full_fine_tuning_trains_the_norms_too() -> None:
    with compiling():
        shape, rows = shape_of("full"), ROWS[:2]
        model = tiny.make_model(GEMMA)
        attach(model, shape)
        plain = plain_gradients(model, rows)
        options = StepOptions(compiled=True, norms_are_frozen=False)
        run = start(model, shape, rows, options, COARSE)
        assert_equal(run, summed(run), plain)


def test_dropout_changes_the_loss_in_training_alone() -> None:
    shape = shape_of(dropout=0.5)
    model = fresh(dropout=0.5)
    model.eval()
    plain = plain_gradients(model, ROWS)
    run = start(model, shape, ROWS)
    assert_equal(run, summed(run), plain)
    run.model.train()
    drawn = {float(summed(run).loss) for _ in range(3)}
    assert len(drawn) == 3
    assert all(abs(value / float(plain.loss) - 1) < 0.2 for value in drawn)


@pytest.mark.parametrize(
    ("dtype", "is_quantised"),
    [
        (mx.bfloat16, False),
        (mx.bfloat16, True),
        (mx.float16, False),
        pytest.param(mx.float16, True, marks=pytest.mark.slow),
    ],
    ids=["bfloat16-dense", "bfloat16-quantised", "float16-dense", "float16-quantised"],
)
def test_half_precision_stays_so_and_trained_weights_are_float32(
    dtype: mx.Dtype, is_quantised: bool
) -> None:
    rows = ROWS[:3]
    model = quantised(GEMMA) if is_quantised else tiny.make_model(GEMMA)
    attach(model, shape_of())
    model.set_dtype(dtype)
    model.set_dtype(mx.float32)
    exact = plain_gradients(model, rows)
    # Nothing is lost here: these are the numbers that were rounded before.
    model.set_dtype(dtype)
    plain = plain_gradients(model, rows)
    run = start(model, shape_of(), rows)
    hidden = run.step.split_model.hidden(mx.array([[7, 8, 9]]))
    assert run.step.split_model.dtype == hidden.dtype == dtype
    assert run.step.split_model.run_frozen(mx.array([[7, 8, 9]])).dtype == dtype
    found = summed(run)
    assert abs(float(found.loss) / float(exact.loss) - 1) < 1e-2
    # Rounded as often as in a plain computation of this type, not more.
    assert error(named(run, found.of), exact.of) < 1.5 * error(plain.of, exact.of)
    assert {value.dtype for value in run.trained.weights.values()} == {mx.float32}
    updated = run.step.step(run.trained, batches(run)[0], 50.0, 1e-3)
    assert {value.dtype for value in updated.trained.weights.values()} == {mx.float32}
    keep_frozen(run, rows)
    assert abs(float(summed(run).loss) / float(exact.loss) - 1) < 1e-2


def error(ours: Arrays, theirs: Arrays) -> float:
    """The size of the difference of all gradients, as a part of theirs."""
    names = list(theirs)
    one, other = (
        mx.concatenate([part[name].reshape(-1).astype(mx.float32) for name in names])
        for part in (ours, theirs)
    )
    return float(mx.linalg.norm(one - other) / mx.linalg.norm(other))


class InTuples(nn.Module):
    """A layer that gives back more than hidden states."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = layer.self_attn, layer.mlp
        self.norm = layer.input_layernorm

    def __call__(self, x: mx.array) -> tuple[mx.array, None]:
        x = x + self.self_attn(self.norm(x), "causal")
        return x + self.mlp(x), None


class CannotBeCut(nn.Module):
    """A model that takes its layers' results apart."""

    def __init__(self) -> None:
        super().__init__()
        llama = tiny.make_model(LLAMA)
        self.embed_tokens = llama.model.embed_tokens
        self.layers = [InTuples(layer) for layer in llama.layers]

    def __call__(self, inputs: mx.array) -> mx.array:
        x = self.embed_tokens(inputs)
        for layer in self.layers:
            x, _ = layer(x)
        return self.embed_tokens.as_linear(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("use_numpy", [False, True])
def test_a_model_that_cannot_be_cut_is_trained_whole(use_numpy: bool) -> None:
    model = CannotBeCut()
    attach(model, shape_of())
    plain = plain_gradients(model, ROWS)
    run = start(model, shape_of(), ROWS, StepOptions(use_numpy=use_numpy))
    assert isinstance(run.step.split_model, WholeModel)
    assert_equal(run, summed(run), plain)
    losses = [run.step.loss(run.trained.weights, batch) for batch in batches(run)]
    assert difference(sum(losses, mx.array(0.0)), plain.loss) < 2e-6
