"""Activations and norms of a compiled step that keep little for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx

from calltune.models import patches


@contextmanager
def checkpoint_activations(norms_are_frozen: bool) -> Iterator[None]:
    """Keep only the inputs of GELU and SiLU for the backward pass.

    Applies to what is traced while the block runs. Otherwise each keeps several arrays of the
    feed-forward size, which one kernel can recompute (Chen et al., https://arxiv.org/abs/1604.06174).
    With `norms_are_frozen`, no gradient of a norm's weight is taken.
    """
    functions: dict[patches.Name, patches.Function] = {
        "gelu_approx": mx.checkpoint(patches.current("gelu_approx")),
        "silu": mx.checkpoint(patches.current("silu")),
    }
    if norms_are_frozen:
        functions["rms_norm"] = _frozen_norm(patches.current("rms_norm"))
    with patches.replaced(functions):
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
