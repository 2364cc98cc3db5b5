"""The parts of a decoder layer as differentiable functions on `interface.Kernels`.

Shapes are those of `interface`.
"""

from typing import Any

import mlx.core as mx

from calltune.training.cuda.interface import (
    Branch,
    Following,
    Heads,
    Kernels,
    Norm,
    Parts,
    Sum,
)
from calltune.training.packed_lora import PackedLoRA


def first(done: list[mx.array], *arrays: mx.array) -> tuple[mx.array, ...]:
    """The arrays unchanged, to be used only after those in `done` have been computed.

    MLX computes what is asked for first, and what that needs. Gradients of weights would wait for
    those of the lowest layer, while every layer keeps all that its own are computed from.
    """
    return tuple(mx.depends(list(arrays), done))


def add_and_norm(
    kernels: Kernels, branch: Branch, x: mx.array, post: Norm | None, following: Following | None
) -> Sum:
    """The sum h = x + post(r + z b), y = norm(h) and z = y a', for x (N, D); norms are frozen."""
    norm = None if following is None else following.norm

    def next_of(a: Any) -> Following | None:
        return None if norm is None else Following(norm, a[0])

    @mx.custom_function
    def forward(*arrays: mx.array) -> tuple[mx.array, ...]:
        r, z, b, x, *a = arrays
        found = kernels.add_and_norm(Branch(r, z, b), x, post, next_of(a))
        return tuple(part for part in found if part is not None)

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        r, z, b, _, *a = primals
        given = Sum(*cotangents) if a else Sum(cotangents[0], None, None)
        found = kernels.add_and_norm_back(Branch(r, z, b), outputs[0], given, post, next_of(a))
        of_a = [cotangents[2].T @ outputs[1]] if a else []
        of_b = z.T @ found.dr
        dr, dz, dx = first([of_b, *of_a], found.dr, found.dz, found.dx)
        return dr, dz, of_b, dx, *of_a

    outputs: Any = forward(*branch, x, *([] if following is None else [following.a]))
    return Sum(*outputs) if following is not None else Sum(outputs[0], None, None)


def product(packed: PackedLoRA, x: mx.array, z: mx.array) -> mx.array:
    """The LoRA product (N, O) of x (N, D), where z (N, R) is x a'."""
    frozen = packed.frozen()

    @mx.custom_function
    def forward(x: mx.array, z: mx.array, b: mx.array) -> mx.array:
        return mx.addmm(frozen.forward(x), z, b)

    @forward.vjp
    def backward(primals: Any, gradient: Any, _: Any) -> tuple[mx.array, ...]:
        _, z, b = primals
        of_b = z.T @ gradient
        (gradient,) = first([of_b], gradient)
        return frozen.backward(gradient), gradient @ b.T, of_b

    found: Any = forward(x, z, packed.b.astype(x.dtype))
    result: mx.array = found
    return result


def branch(packed: PackedLoRA, x: mx.array) -> Branch:
    """The LoRA product of x (N, D), in its parts."""
    frozen = packed.frozen()

    @mx.custom_function
    def forward(x: mx.array, a: mx.array) -> tuple[mx.array, mx.array]:
        return frozen.forward(x), x @ a.T

    @forward.vjp
    def backward(primals: Any, cotangents: Any, _: Any) -> tuple[mx.array, ...]:
        (x, a), (dr, dz) = primals, cotangents
        of_a = dz.T @ x
        dr, dz = first([of_a], dr, dz)
        return mx.addmm(frozen.backward(dr), dz, a), of_a

    found: Any = forward(x, packed.a.astype(x.dtype))
    return Branch(found[0], found[1], packed.b.astype(x.dtype))


def attention(kernels: Kernels, packed: mx.array, heads: Heads, n_rows: int) -> mx.array:
    """The heads' outputs (N, H D) for packed q, k, v of B rows, (N, (H + 2 G) D)."""
    n_tokens = packed.shape[0]
    apart = packed.reshape(n_rows, n_tokens // n_rows, -1)
    found = _attend(kernels, _split_heads(kernels, apart, heads), heads)
    if heads.n_keys > 1:
        by_key = (n_rows, heads.n_keys, n_tokens // n_rows, heads.group, heads.size)
        found = found.reshape(by_key).transpose(0, 2, 1, 3, 4)
    return found.reshape(n_tokens, -1)


def feed_forward(kernels: Kernels, packed: mx.array, down: PackedLoRA, is_gelu: bool) -> Branch:
    """The feed-forward part's output (N, D), in its parts, for gate and up side by side (N, 2 F).

    The input of `down` is recomputed in the backward pass, by the kernel that computes the
    activation's gradient anyway.
    """
    frozen = down.frozen()

    @mx.custom_function
    def forward(packed: mx.array, a: mx.array) -> tuple[mx.array, mx.array]:
        inner = kernels.gated(packed, is_gelu)
        return frozen.forward(inner), inner @ a.T

    @forward.vjp
    def backward(primals: Any, cotangents: Any, _: Any) -> tuple[mx.array, ...]:
        (packed, a), (dr, dz) = primals, cotangents
        dinner = mx.addmm(frozen.backward(dr), dz, a)
        dpacked, inner = kernels.gated_back(packed, dinner, is_gelu)
        of_a = dz.T @ inner
        return first([of_a], dpacked)[0], of_a

    found: Any = forward(packed, down.a.astype(packed.dtype))
    return Branch(found[0], found[1], down.b.astype(packed.dtype))


def _split_heads(kernels: Kernels, packed: mx.array, heads: Heads) -> Parts:
    @mx.custom_function
    def forward(packed: mx.array) -> tuple[mx.array, mx.array, mx.array]:
        return tuple(kernels.split_heads(packed, heads))  # type: ignore[return-value]

    @forward.vjp
    def backward(packed: Any, cotangents: Any, _: Any) -> mx.array:
        dq, dk, dv = cotangents
        return kernels.split_heads_back(packed, dq, dk, dv, heads)

    outputs: Any = forward(packed)
    return Parts(*outputs)


def _attend(kernels: Kernels, parts: Parts, heads: Heads) -> mx.array:
    """(B, G, L * H / G, D): all query heads of a key head in one product."""

    @mx.custom_function
    def forward(q: mx.array, k: mx.array, v: mx.array) -> tuple[mx.array, mx.array]:
        shares = kernels.causal_softmax(q @ k.swapaxes(-1, -2), heads)
        return shares @ v, shares

    @forward.vjp
    def backward(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
        (q, k, v), (gradient, _), (_, shares) = primals, cotangents, outputs
        dshares = gradient @ v.swapaxes(-1, -2)
        dscores = kernels.causal_softmax_back(shares, dshares, heads)
        dv = shares.swapaxes(-1, -2) @ gradient
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, dv

    outputs: Any = forward(*parts)
    found: mx.array = outputs[0]
    return found
