"""Functions between a layer's products, made to keep little and to launch little."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import mlx.core as mx
import mlx.nn as nn


@contextmanager
def checkpoint_activations(norms_are_frozen: bool) -> Iterator[None]:
    """Keep nothing but their inputs for the backward pass of GELU and SiLU.

    Holds for what is traced while the block runs. They would keep several arrays of the
    feed-forward width each, and cost one kernel to compute again. With frozen norms, no gradient
    of a norm's weight is taken.
    """
    with ExitStack() as stack:
        for module, name in ((nn, "gelu_approx"), (nn, "silu")):
            stack.enter_context(_replaced(module, name, mx.checkpoint(getattr(module, name))))
        if norms_are_frozen:
            stack.enter_context(_replaced(mx.fast, "rms_norm", _frozen_norm(mx.fast.rms_norm)))
        yield


def _frozen_norm(rms_norm: Any) -> Any:
    """`rms_norm` without its weight's gradient, which MLX computes even for a frozen one."""

    def norm(x: mx.array, weight: mx.array | None, eps: float) -> mx.array:
        @mx.custom_function
        def forward(x: mx.array) -> mx.array:
            return rms_norm(x, weight, eps)  # type: ignore[no-any-return]

        @forward.vjp
        def backward(x: mx.array, cotangent: mx.array, _: Any) -> mx.array:
            scaled = cotangent if weight is None else cotangent * weight
            (gradient,) = mx.vjp(lambda x: rms_norm(x, None, eps), [x], [scaled])[1]
            return gradient

        output: Any = forward(x)
        return output  # type: ignore[no-any-return]

    return norm


@contextmanager
def _replaced(module: Any, name: str, function: Any) -> Iterator[None]:
    own = getattr(module, name)
    setattr(module, name, function)
    try:
        yield
    finally:
        setattr(module, name, own)
