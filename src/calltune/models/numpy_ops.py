"""Activations, attention and logsumexp through NumPy, whose loops a Linux CPU vectorises.

MLX takes one number at a time there. Each function is evaluated as it is called. Under `mx.grad`
the gradients are right, but arrays that are evaluated early are all kept until the gradients have
been computed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from calltune.models import patches
from calltune.models.cpu_math import (
    GELU_CUBIC,
    GELU_SCALE,
    Array,
    core,
    gelu_approx,
    gelu_slope,
    has_cpu_patches,
    silu,
    silu_slope,
)
from calltune.models.patches import ORIGINALS

LOWEST = np.finfo(np.float32).min


@contextmanager
def use_numpy_ops() -> Iterator[None]:
    """Evaluate activations, attention and logsumexp in NumPy while the block runs.

    Does nothing unless `cpu_math.install_cpu_patches` is in force.
    """
    if not has_cpu_patches():
        yield
        return
    with patches.replaced(
        {
            "gelu_approx": numpy_gelu,
            "silu": numpy_silu,
            "logsumexp": numpy_logsumexp,
            "scaled_dot_product_attention": numpy_attention,
        }
    ):
        yield


def numpy_gelu(x: Array) -> Array:
    """GELU of x (any shape), as `nn.gelu_approx`; evaluated where x is float32."""
    return _gelu(x) if _are_evaluated_float32(x) else gelu_approx(x)


def numpy_silu(x: Array) -> Array:
    """SiLU of x (any shape), as `nn.silu`; evaluated where x is float32."""
    return _silu(x) if _are_evaluated_float32(x) else silu(x)


def numpy_logsumexp(a: Array, axis: Any = None, keepdims: bool = False, **more: Any) -> Array:
    """The logarithm of the sum of exponentials of `a` over `axis`, as `mx.logsumexp`.

    NumPy computes it for float32 and the last axis alone.
    """
    if more or axis not in (-1, a.ndim - 1) or not _are_evaluated_float32(a):
        return ORIGINALS["logsumexp"](a, axis, keepdims, **more)
    total = _logsumexp(a)
    return total if keepdims else total.squeeze(-1)


def numpy_attention(
    q: Array, k: Array, v: Array, *, scale: float, mask: Any = None, **more: Any
) -> Array:
    """Attention (B, H, Lq, Dv), as `mx.fast.scaled_dot_product_attention`.

    Its products are MLX's, its softmax is NumPy's. q (B, H, Lq, D); k (B, Hk, Lk, D) and
    v (B, Hk, Lk, Dv), where Hk divides H; mask "causal", bool (True is seen) or float32 (is added),
    broadcastable to (B, H, Lq, Lk).
    """
    is_plain = all(value is None for value in more.values()) and _is_usable_mask(mask)
    if not is_plain or not _are_evaluated_float32(q, k, v):
        original = ORIGINALS["scaled_dot_product_attention"]
        return original(q, k, v, scale=scale, mask=mask, **more)
    (B, H, Lq, D), (_, Hk, Lk, _) = q.shape, k.shape
    # Queries that share their keys are rows of one product.
    queries = (q * scale).reshape(B, Hk, H // Hk * Lq, D)
    scores = (queries @ k.swapaxes(-1, -2)).reshape(B, H, Lq, Lk)
    weights = _softmax(scores, mask).reshape(B, Hk, H // Hk * Lq, Lk)
    return (weights @ v).reshape(B, H, Lq, v.shape[-1])


def _are_evaluated_float32(*arrays: Array) -> bool:
    """Whether these are float32 and not empty, and can be evaluated here; if so, they are."""
    return all(a.dtype == mx.float32 and a.size for a in arrays) and _can_evaluate(*arrays)


def _is_usable_mask(mask: Any) -> bool:
    if isinstance(mask, mx.array):
        return mask.dtype in (mx.bool_, mx.float32) and _can_evaluate(mask)
    return mask in (None, "causal")


def _can_evaluate(*arrays: Array) -> bool:
    """False inside `mx.compile` and `mx.vmap`; elsewhere the arrays are evaluated."""
    try:
        mx.eval(*arrays)
    except ValueError:
        return False
    return True


def _numpy(array: Array) -> NDArray[Any]:
    """The array's own memory."""
    return np.array(array, copy=False)


@core.custom_function  # type: ignore[untyped-decorator]
def _gelu(x: Array) -> Array:
    values = _numpy(x)
    # Tanh of infinity is 1, as it should be.
    with np.errstate(over="ignore"):
        result = np.square(values, out=np.empty_like(values))
        result *= np.float32(GELU_CUBIC)
        result += np.float32(GELU_SCALE)
        result *= values
    np.tanh(result, out=result)
    result += 1
    result *= values
    result *= np.float32(0.5)
    return mx.array(result)


@core.custom_function  # type: ignore[untyped-decorator]
def _silu(x: Array) -> Array:
    values = _numpy(x)
    result = np.negative(values, out=np.empty_like(values))
    with np.errstate(over="ignore"):
        np.exp(result, out=result)
    result += 1
    return mx.array(np.divide(values, result, out=result))


_gelu.vjp(gelu_slope)
_silu.vjp(silu_slope)


@core.custom_function  # type: ignore[untyped-decorator]
def _logsumexp(a: Array) -> Array:
    values = _numpy(a)
    highest = values.max(axis=-1, keepdims=True)
    # All -inf gives -inf, any inf gives inf.
    shift = np.where(np.isinf(highest), np.float32(0), highest)
    result = values - shift
    with np.errstate(over="ignore", divide="ignore"):
        np.exp(result, out=result)
        return mx.array(np.log(result.sum(axis=-1, keepdims=True)) + shift)


@_logsumexp.vjp  # type: ignore[untyped-decorator]
def _logsumexp_slope(a: Array, cotangent: Array, output: Array) -> Array:
    return cotangent * mx.exp(a - output)


def _softmax(scores: Array, mask: Any) -> Array:
    """Softmax over the last axis of fresh `scores` (B, H, Lq, Lk), which it overwrites."""
    if isinstance(mask, mx.array) and mask.dtype == mx.float32:
        scores, mask = scores + mask, None
    seen = _seen(mask, *scores.shape[-2:])
    # A query that sees nothing gets an even mean of all, and no gradient flows from it, as in MLX.
    sees = None if seen is None else np.asarray(seen.any(axis=-1, keepdims=True))

    @core.custom_function  # type: ignore[untyped-decorator]
    def softmax(scores: Array) -> Array:
        values = _numpy(scores)
        if seen is not None:
            values += np.where(seen, np.float32(0), LOWEST)
        with np.errstate(invalid="ignore"):
            values -= values.max(axis=-1, keepdims=True)
            np.exp(values, out=values)
        values /= values.sum(axis=-1, keepdims=True)
        return scores

    @softmax.vjp  # type: ignore[untyped-decorator]
    def backward(_: Any, cotangent: Array, weights: Array) -> Array:
        mean = (cotangent * weights).sum(axis=-1, keepdims=True)
        change = weights * (cotangent - mean)
        return change if sees is None or sees.all() else mx.where(mx.array(sees), change, 0)

    return softmax(scores)


def _seen(mask: Any, Lq: int, Lk: int) -> NDArray[np.bool_] | None:
    """Which keys each query sees, broadcastable to (B, H, Lq, Lk); None is all."""
    if isinstance(mask, str):
        return np.tri(Lq, Lk, Lk - Lq, dtype=np.bool_)
    return None if mask is None else _numpy(mask)
