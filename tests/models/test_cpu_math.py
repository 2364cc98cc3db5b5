from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten

from calltune.models import cpu_math
from calltune.models import numpy_ops as numpy_math
from calltune.models.numpy_ops import use_numpy_ops
from calltune.models.patches import ORIGINALS

from support import tiny

pytestmark = pytest.mark.skipif(
    mx.default_device() != mx.cpu, reason="replaces functions of MLX's CPU backend"
)
ACTIVATIONS = {
    "gelu_approx": (cpu_math.gelu_approx, numpy_math.numpy_gelu),
    "silu": (cpu_math.silu, numpy_math.numpy_silu),
}
BOTH = [(name, function) for name, pair in ACTIVATIONS.items() for function in pair]


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """MLX as it is without us; afterwards as it was before."""
    was_sped_up = cpu_math.has_cpu_patches()
    cpu_math.uninstall_cpu_patches()
    yield
    cpu_math.uninstall_cpu_patches()
    if was_sped_up:
        cpu_math.install_cpu_patches()


def random(*shape: int, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def assert_close(found: mx.array, wanted: mx.array, atol: float = 2e-6) -> None:
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    np.testing.assert_allclose(np.array(found), np.array(wanted), rtol=2e-5, atol=atol)


def test_tanh_is_right_to_float32_rounding() -> None:
    x = np.linspace(-15, 15, 400_001).astype(np.float32)
    found = np.array(cpu_math._tanh(mx.array(x)))
    assert np.abs(found - np.tanh(x.astype(np.float64))).max() < 4e-7
    assert (found[np.abs(x) >= 9] == np.sign(x[np.abs(x) >= 9])).all()
    assert np.isnan(np.array(cpu_math._tanh(mx.array(float("nan")))))


@pytest.mark.parametrize(("name", "function"), BOTH)
@pytest.mark.parametrize("shape", [(), (1,), (3, 5, 7), (2, 1, 33)])
def test_activations_and_their_gradients_agree(name: str, function: Any, shape: Any) -> None:
    x, cotangent = 4 * random(*shape), random(*shape, seed=1)
    assert_close(function(x), ORIGINALS[name](x))
    (found,), (wanted,) = (mx.vjp(f, [x], [cotangent])[1] for f in (function, ORIGINALS[name]))
    assert_close(found, wanted)


@pytest.mark.parametrize(("name", "function"), BOTH)
def test_second_derivatives_agree(name: str, function: Any) -> None:
    x = 3 * random(5, 6)

    def second(f: Any) -> mx.array:
        return mx.grad(lambda x: mx.grad(lambda y: f(y).sum())(x).sum())(x)

    assert_close(second(function), second(ORIGINALS[name]), atol=1e-5)


@pytest.mark.parametrize(("name", "function"), BOTH)
def test_activations_of_large_and_strided_numbers_agree(name: str, function: Any) -> None:
    x = mx.array([[-1000.0, -90.0, -9.0, 0.0], [9.0, 90.0, 1000.0, 1e5]]).T
    assert_close(function(x), ORIGINALS[name](x))
    assert_close(
        mx.grad(lambda x: function(x).sum())(x), mx.grad(lambda x: ORIGINALS[name](x).sum())(x)
    )
    assert mx.isnan(function(mx.array([float("nan")]))).item()


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
def test_half_precision_is_left_to_mlx(dtype: mx.Dtype) -> None:
    x = random(2, 2, 3, 4).astype(dtype)
    for name, function in BOTH:
        assert mx.array_equal(function(x), ORIGINALS[name](x))
    assert mx.array_equal(numpy_math.numpy_logsumexp(x, -1), ORIGINALS["logsumexp"](x, -1))
    assert mx.array_equal(
        numpy_math.numpy_attention(x, x, x, scale=0.5, mask="causal"),
        ORIGINALS["scaled_dot_product_attention"](x, x, x, scale=0.5, mask="causal"),
    )


@pytest.mark.parametrize("transform", [mx.compile, mx.vmap])
def test_nothing_is_evaluated_where_it_cannot_be(transform: Any) -> None:
    x = random(3, 2, 2, 4, 8)[0] if transform is mx.compile else random(3, 2, 2, 4, 8)

    def everything(x: mx.array) -> mx.array:
        x = numpy_math.numpy_gelu(x * 1) + numpy_math.numpy_silu(x + 1)
        x = numpy_math.numpy_attention(x, x, x, scale=0.3)
        return numpy_math.numpy_logsumexp(x, -1)

    wanted = mx.stack([everything(part) for part in x]) if transform is mx.vmap else everything(x)
    assert_close(transform(everything)(x), wanted, atol=1e-5)


def masks() -> dict[str, Any]:
    seen = random(2, 1, 5, 9, seed=5) > 0
    return {
        "none": None,
        "causal": "causal",
        "bool of a row": seen,
        "bool of a head": random(2, 6, 5, 9, seed=6) > 0,
        "bool of all": seen[0, 0],
        "a query that sees nothing": mx.arange(5)[:, None] * mx.ones((1, 9)) > 0,
        "added": random(1, 6, 5, 9, seed=7),
        "added to forbid": mx.where(mx.arange(9) < 4, 0.0, -mx.inf),
    }


@pytest.mark.parametrize("n_key_heads", [1, 2, 6])
@pytest.mark.parametrize("name", list(masks()))
def test_attention_and_its_gradients_agree(name: str, n_key_heads: int) -> None:
    mask = masks()[name]
    q, k = random(2, 6, 5, 8), random(2, n_key_heads, 9, 8, seed=1)
    v, cotangent = random(2, n_key_heads, 9, 4, seed=2), random(2, 6, 5, 4, seed=3)
    sizes = [a.sum().item() for a in (q, k, v)]
    results = [
        mx.vjp(lambda q, k, v, f=f: f(q, k, v, scale=0.35, mask=mask), [q, k, v], [cotangent])
        for f in (numpy_math.numpy_attention, ORIGINALS["scaled_dot_product_attention"])
    ]
    for found, wanted in zip(*(outputs + gradients for outputs, gradients in results), strict=True):
        assert_close(found, wanted)
    assert sizes == [a.sum().item() for a in (q, k, v)]


def test_a_mask_that_is_added_gets_its_gradient() -> None:
    q, k, mask = random(1, 2, 3, 4), random(1, 2, 5, 4, seed=1), random(3, 5, seed=2)
    found, wanted = (
        mx.grad(lambda mask, f=f: f(q, k, k, scale=0.5, mask=mask).square().sum())(mask)
        for f in (numpy_math.numpy_attention, ORIGINALS["scaled_dot_product_attention"])
    )
    assert_close(found, wanted)


def test_attention_sinks_are_left_to_mlx() -> None:
    q, sinks = random(1, 2, 3, 4), random(2)
    found = numpy_math.numpy_attention(q, q, q, scale=0.5, sinks=sinks)
    wanted = ORIGINALS["scaled_dot_product_attention"](q, q, q, scale=0.5, sinks=sinks)
    assert mx.array_equal(found, wanted)
    assert not mx.allclose(found, ORIGINALS["scaled_dot_product_attention"](q, q, q, scale=0.5))


@pytest.mark.parametrize("axis", [-1, 1, 0, None])
@pytest.mark.parametrize("keepdims", [False, True])
def test_logsumexp_and_its_gradient_agree(axis: Any, keepdims: bool) -> None:
    a = 50 * random(4, 9)
    found, wanted = (
        mx.value_and_grad(lambda a, f=f: f(a, axis=axis, keepdims=keepdims).sum())(a)
        for f in (numpy_math.numpy_logsumexp, ORIGINALS["logsumexp"])
    )
    assert_close(found[0], wanted[0])
    assert_close(found[1], wanted[1])
    shapes = [
        f(a, axis=axis, keepdims=keepdims).shape for f in (numpy_math.numpy_logsumexp, mx.logsumexp)
    ]
    assert shapes[0] == shapes[1]


def test_logsumexp_of_infinities_agrees() -> None:
    a = mx.array([[-mx.inf, -mx.inf], [-mx.inf, 2.0], [mx.inf, 1.0], [mx.inf, -mx.inf]])
    assert_close(numpy_math.numpy_logsumexp(a, -1), ORIGINALS["logsumexp"](a, -1))


CONFIGS = {"gemma": tiny.GEMMA_CONFIG | {"sliding_window": 8}, "llama": tiny.LLAMA_CONFIG}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("mode", ["lazy", "at once", "checkpoint", "checkpoint at once"])
def test_whole_models_and_their_gradients_agree(config: str, mode: str) -> None:
    """Longer than the sliding window, and with heads that share keys."""
    tokens = mx.random.randint(0, 300, (2, 21), key=mx.random.key(3))

    def run() -> tuple[mx.array, list[tuple[str, mx.array]]]:
        from mlx_lm.tuner.trainer import grad_checkpoint

        model = tiny.make_model(CONFIGS[config])
        original = type(model.layers[0]).__call__
        if "checkpoint" in mode:
            grad_checkpoint(model.layers[0])
        loss = lambda model: nn.losses.cross_entropy(model(tokens), tokens).mean()  # noqa: E731
        value, gradients = nn.value_and_grad(model, loss)(model)
        mx.eval(value, gradients)
        type(model.layers[0]).__call__ = original
        return value, tree_flatten(gradients)

    wanted = run()
    cpu_math.install_cpu_patches()
    if "at once" in mode:
        with use_numpy_ops():
            found = run()
    else:
        found = run()
    assert_close(found[0], wanted[0])
    for (name, gradient), (other, expected) in zip(found[1], wanted[1], strict=True):
        assert name == other
        assert_close(gradient, expected, atol=1e-5)


def functions() -> list[Any]:
    attention = mx.fast.scaled_dot_product_attention
    return [nn.gelu_approx, nn.silu, mx.logsumexp, attention]


def test_speeding_up_twice_is_undone_at_once() -> None:
    before = functions()
    cpu_math.install_cpu_patches()
    cpu_math.install_cpu_patches()
    assert functions() == [cpu_math.gelu_approx, cpu_math.silu, *before[2:]]
    cpu_math.uninstall_cpu_patches()
    assert functions() == before == list(ORIGINALS.values())[:4]


def test_numpy_is_used_inside_the_context_alone() -> None:
    cpu_math.install_cpu_patches()
    lazy = functions()
    with pytest.raises(RuntimeError, match="inside"), use_numpy_ops():
        inside = functions()
        with use_numpy_ops():
            assert functions() == inside
        assert functions() == inside
        raise RuntimeError("inside")
    assert not set(map(id, inside)) & set(map(id, lazy))
    assert functions() == lazy


def test_the_context_does_nothing_unless_sped_up() -> None:
    before = functions()
    with use_numpy_ops():
        assert functions() == before


def test_swiglu_takes_the_faster_silu(monkeypatch: pytest.MonkeyPatch) -> None:
    from mlx_lm.models.activations import swiglu

    called = []
    fast = cpu_math.silu
    monkeypatch.setattr(cpu_math, "silu", lambda x: called.append(x) or fast(x))
    gate, x = random(2, 3), random(2, 3, seed=1)
    wanted = swiglu(gate, x)
    cpu_math.install_cpu_patches()
    assert_close(swiglu(gate, x), wanted)
    assert called
