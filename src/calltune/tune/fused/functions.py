"""The parts of a decoder layer as differentiable functions, on `shapes.Functions` of a backend."""

from typing import Any

import mlx.core as mx

from calltune.tune.fused.shapes import Functions, Heads, Norm, Parts, Sum
from calltune.tune.packed import PackedLoRA


def add_and_norm(
    by: Functions, r: mx.array, x: mx.array, post: Norm | None, following: Norm | None
) -> Sum:
    """H = x + post(r) and y = following(h); all (N, D). The norms are frozen."""

    @mx.custom_function
    def forward(r: mx.array, x: mx.array) -> tuple[mx.array, ...]:
        found = by.add_and_norm(r, x, post, following)
        return (found.h,) if found.y is None else (found.h, found.y)

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        dh, *dy = cotangents
        return by.add_and_norm_back(
            primals[0], outputs[0], dh, dy[0] if dy else None, post, following
        )

    outputs: Any = forward(r, x)
    return Sum(outputs[0], None if following is None else outputs[1])


def attention(by: Functions, packed: mx.array, heads: Heads, n_rows: int) -> mx.array:
    """Packed q, k, v of B rows, (N, (H + 2 G) D) -> what the heads give, (N, H D)."""
    n_tokens = packed.shape[0]
    apart = packed.reshape(n_rows, n_tokens // n_rows, -1)
    found = _attend(by, _split_heads(by, apart, heads), heads)
    if heads.n_keys > 1:
        by_key = (n_rows, heads.n_keys, n_tokens // n_rows, heads.group, heads.size)
        found = found.reshape(by_key).transpose(0, 2, 1, 3, 4)
    return found.reshape(n_tokens, -1)


def feed_forward(
    by: Functions, x: mx.array, gate_up: PackedLoRA, down: PackedLoRA, is_gelu: bool
) -> mx.array:
    """A gated feed-forward part: (N, D) -> (N, D).

    What goes into `down` is computed again in the backward pass, by the kernel that is there for
    the activation's gradient anyway.
    """
    packed = gate_up.product(x)
    frozen = down.frozen()

    @mx.custom_function
    def forward(packed: mx.array, a: mx.array, b: mx.array) -> tuple[mx.array, mx.array]:
        inner = by.gated(packed, is_gelu)
        z = inner @ a
        return mx.addmm(frozen.forward(inner), z, b), z

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        (packed, a, b), (gradient, _), (_, z) = primals, cotangents, outputs
        dz = gradient @ b.T
        dinner = mx.addmm(frozen.backward(gradient), dz, a.T)
        dpacked, inner = by.gated_back(packed, dinner, is_gelu)
        return dpacked, inner.T @ dz, z.T @ gradient

    a, b = down.a.astype(x.dtype), down.b.astype(x.dtype)
    outputs: Any = forward(packed, a, b)
    y: mx.array = outputs[0]
    return y


def _split_heads(by: Functions, packed: mx.array, heads: Heads) -> Parts:
    @mx.custom_function
    def forward(packed: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        return tuple(by.split_heads(packed, heads))  # type: ignore[return-value]

    @forward.vjp
    def backward(packed: Any, cotangents: Any, _: Any) -> mx.array:
        dq, dk, dv = cotangents
        return by.split_heads_back(packed, dq, dk, dv, heads)

    outputs: Any = forward(packed)
    return Parts(*outputs)


def _attend(by: Functions, parts: Parts, heads: Heads) -> mx.array:
    """(B, G, L * H / G, D): all query heads of a key head in one product."""

    @mx.custom_function
    def forward(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        shares = by.causal_softmax(q @ k.swapaxes(-1, -2), heads)
        return shares @ v, shares

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        (q, k, v), (gradient, _), (_, shares) = primals, cotangents, outputs
        dshares = gradient @ v.swapaxes(-1, -2)
        dscores = by.causal_softmax_back(shares, dshares, heads)
        dv = shares.swapaxes(-1, -2) @ gradient
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv

    outputs: Any = forward(*parts)
    found: mx.array = outputs[0]
    return found
