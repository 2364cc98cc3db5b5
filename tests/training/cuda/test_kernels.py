from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest

from calltune.data.batching import COARSE
from calltune.training.cuda import kernels
from calltune.training.cuda.decoder import fuse
from calltune.training.cuda.interface import (
    AdamRates,
    Branch,
    Following,
    Heads,
    Moments,
    Norm,
    Sum,
)
from calltune.training.cuda.kernels import CudaKernels

from support import host, tiny
from support.commands_needed import COMPILER, needs
from support.plain import (
    GEMMA,
    assert_equal,
    attach,
    batches,
    difference,
    plain_gradients,
    random_rows,
    shape_of,
    start,
    summed,
)
from support.reference_kernels import ReferenceKernels

pytestmark = needs(COMPILER)


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_launch", host.launch)


def random(*shape: int, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def norm(size: int, seed: int = 9) -> Norm:
    return Norm(1 + 0.3 * random(size, seed=seed), 1e-3)


def heads(**changes: Any) -> Heads:
    angles = mx.arange(40)[:, None] / mx.array([1.0, 3.0, 9.0, 27.0])
    given = Heads(4, 2, 8, 0.3, mx.cos(angles), mx.sin(angles), norm(8, 1), norm(8, 2), 0)
    return replace(given, **changes)


def assert_same(ours: Any, theirs: Any) -> None:
    pairs = [pair for pair in zip(ours, theirs, strict=True) if pair[1] is not None]
    assert pairs
    for one, other in pairs:
        assert one.shape == other.shape
        assert mx.allclose(one, other, rtol=1e-4, atol=2e-6), mx.abs(one - other).max()


@pytest.mark.parametrize("post", [None, norm(24, 3)], ids=["no norm", "norm"])
@pytest.mark.parametrize("n_next", [0, 3, 8])
@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_norms_around_a_sum(post: Norm | None, n_next: int, rank: int) -> None:
    r, x, dh, dy = (random(10, 24, seed=seed) for seed in range(4))
    branch = Branch(r, random(10, rank, seed=5), random(rank, 24, seed=6))
    following = Following(norm(24, 4), random(n_next, 24, seed=7)) if n_next else None
    ours, theirs = (
        kernels.add_and_norm(branch, x, post, following)
        for kernels in (CudaKernels(), ReferenceKernels())
    )
    assert_same(ours, theirs)
    given = Sum(dh, dy, random(10, n_next, seed=8)) if n_next else Sum(dh, None, None)
    arguments = (branch, theirs.h, given, post, following)
    assert_same(
        *(kernels.add_and_norm_back(*arguments) for kernels in (CudaKernels(), ReferenceKernels()))
    )


@pytest.mark.parametrize("changes", [{}, {"q_norm": None, "k_norm": None}, {"n_keys": 1}])
def test_heads_out_of_a_packed_product(changes: dict[str, Any]) -> None:
    chosen = heads(**changes)
    packed = random(2, 13, (4 + 2 * chosen.n_keys) * 8)
    ours, theirs = (
        kernels.split_heads(packed, chosen) for kernels in (CudaKernels(), ReferenceKernels())
    )
    assert_same(ours, theirs)
    gradients = [random(*part.shape, seed=seed) for seed, part in enumerate(theirs)]
    ours, theirs = (
        kernels.split_heads_back(packed, *gradients, chosen)
        for kernels in (CudaKernels(), ReferenceKernels())
    )
    assert_same([ours], [theirs])


@pytest.mark.parametrize(
    "window", [0, 5, 13, *(pytest.param(w, marks=pytest.mark.slow) for w in (1, 20))]
)
def test_softmax_over_what_a_query_sees(window: int) -> None:
    chosen = heads(window=window)
    scores, gradient = (3 * random(2, 2, 26, 13, seed=seed) for seed in range(2))
    ours, theirs = (
        kernels.causal_softmax(scores, chosen) for kernels in (CudaKernels(), ReferenceKernels())
    )
    assert_same([ours], [theirs])
    assert_same(
        *(
            [kernels.causal_softmax_back(theirs, gradient, chosen)]
            for kernels in (CudaKernels(), ReferenceKernels())
        )
    )


@pytest.mark.parametrize("is_gelu", [True, False])
def test_gated_activation(is_gelu: bool) -> None:
    packed, gradient = 3 * random(7, 2 * 12), random(7, 12, seed=1)
    assert_same(
        *([kernels.gated(packed, is_gelu)] for kernels in (CudaKernels(), ReferenceKernels()))
    )
    assert_same(
        *(
            kernels.gated_back(packed, gradient, is_gelu)
            for kernels in (CudaKernels(), ReferenceKernels())
        )
    )


def test_cross_entropy_of_large_and_of_small_logits() -> None:
    logits = mx.concatenate([random(3, 64), 80 * random(3, 64, seed=1), random(2, 64) - 300])
    targets = mx.array([0, 63, 5, 7, 11, 13, 17, 19])
    weights = mx.array([1.0, 1, 1, 0, 1, 1, 0, 1])
    assert_same(
        *(
            kernels.cross_entropy(logits, targets, weights)
            for kernels in (CudaKernels(), ReferenceKernels())
        )
    )


@pytest.mark.parametrize("mask", [None, mx.array([[1.0] * 7, [0.0] * 7])], ids=["all", "masked"])
def test_adam_with_gradients_in_parts(mask: mx.array | None) -> None:
    before = Moments(random(6, 7), random(6, 7, seed=1), mx.abs(random(6, 7, seed=2)))
    gradients = [random(2, 7, seed=seed) for seed in range(3, 6)]
    rates = AdamRates(0.9, 0.99, 1e-6)
    given = (gradients, mask, before, mx.array(0.25), mx.array(0.01), rates)
    assert_same(*(kernels.adam(*given) for kernels in (CudaKernels(), ReferenceKernels())))


def test_training_through_the_kernels_equals_plain_training() -> None:
    rows = random_rows((20, 90, 131))
    model = tiny.make_model(GEMMA)
    attach(model, shape_of(num_layers=2))
    plain = plain_gradients(model, rows)
    run = start(model, shape_of(num_layers=2), rows, buckets=COARSE)
    run.step.split_model.fused = fuse(run.step.split_model, CudaKernels(), 160)
    assert run.step.split_model.fused is not None
    assert_equal(run, summed(run), plain)
    (batch,) = batches(run)
    ours = run.step.step(run.trained, batch, 50.0, 1e-3)
    theirs = run.step.update(run.trained, summed(run), 50.0, 1e-3)
    for key, moments in theirs.trained.optimizer.items():
        for name in moments if isinstance(moments, dict) else ():
            assert difference(ours.trained.optimizer[key][name], moments[name]) < 1e-5
