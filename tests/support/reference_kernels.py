"""The CUDA kernels' functions in plain MLX operations: what the kernels must equal.

They compute in float32 and round once, to the type of their arguments.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from calltune.training.cuda.interface import (
    AdamRates,
    Branch,
    Following,
    Heads,
    Losses,
    Moments,
    Norm,
    Parts,
    Sum,
    SumGradients,
)


class ReferenceKernels:
    """See `interface.Kernels`."""

    def add_and_norm(
        self, branch: Branch, x: mx.array, post: Norm | None, following: Following | None
    ) -> Sum:
        """The sum h = x + post(r + z b), y = norm(h) and z = y a'."""
        r = _wide(_added(branch))
        h = (_wide(x) + (r if post is None else _norm(r, post))).astype(x.dtype)
        if following is None:
            return Sum(h, None, None)
        y = _norm(_wide(h), following.norm).astype(x.dtype)
        return Sum(h, y, (_wide(y) @ _wide(following.a).T).astype(x.dtype))

    def add_and_norm_back(
        self,
        branch: Branch,
        h: mx.array,
        given: Sum,
        post: Norm | None,
        following: Following | None,
    ) -> SumGradients:
        """The gradients with respect to r, z and x."""
        dx = given.h
        if following is not None and given.y is not None and given.z is not None:
            dy = (_wide(given.y) + _wide(given.z) @ _wide(following.a)).astype(h.dtype)
            through = _norm_back(_wide(h), _wide(dy), following.norm)
            dx = (_wide(given.h) + through).astype(h.dtype)
        dr = dx
        if post is not None:
            dr = _norm_back(_wide(_added(branch)), _wide(dx), post).astype(h.dtype)
        return SumGradients(dr, (_wide(dr) @ _wide(branch.b).T).astype(h.dtype), dx)

    def split_heads(self, packed: mx.array, heads: Heads) -> Parts:
        """Queries, keys and values, normed and rotated, queries scaled."""
        q, k, v = (_wide(part) for part in _apart(packed, heads))
        if heads.q_norm is not None and heads.k_norm is not None:
            q, k = _norm(q, heads.q_norm), _norm(k, heads.k_norm)
        q, k = _turned(q, heads) * heads.scale, _turned(k, heads)
        return Parts(*(_by_key_head(part.astype(packed.dtype), heads) for part in (q, k, v)))

    def split_heads_back(
        self, packed: mx.array, dq: mx.array, dk: mx.array, dv: mx.array, heads: Heads
    ) -> mx.array:
        """The gradient with respect to `packed`."""
        length = packed.shape[1]
        dq, dk, dv = (_by_token(part, length) for part in (dq, dk, dv))
        dq = _turned(_wide(dq), heads, back=True) * heads.scale
        dk = _turned(_wide(dk), heads, back=True)
        if heads.q_norm is not None and heads.k_norm is not None:
            q, k, _ = _apart(packed, heads)
            dq = _norm_back(_wide(q), dq, heads.q_norm)
            dk = _norm_back(_wide(k), dk, heads.k_norm)
        gradient = mx.concatenate([part.astype(packed.dtype) for part in (dq, dk, dv)], axis=2)
        return gradient.reshape(packed.shape)

    def causal_softmax(self, scores: mx.array, heads: Heads) -> mx.array:
        """Attention weights of the positions that each query attends to."""
        seen = _seen(scores.shape[-1], heads)
        wide = mx.where(seen, _wide(scores), -mx.inf)
        return mx.softmax(wide, axis=-1).astype(scores.dtype)

    def causal_softmax_back(self, shares: mx.array, dshares: mx.array, heads: Heads) -> mx.array:
        """The gradient with respect to the scores."""
        seen = _seen(shares.shape[-1], heads)
        products = mx.where(seen, _wide(shares) * _wide(dshares), 0.0)
        total = products.sum(axis=-1, keepdims=True)
        gradient = products - _wide(shares) * total
        return mx.where(seen, gradient, 0.0).astype(shares.dtype)

    def gated(self, packed: mx.array, is_gelu: bool) -> mx.array:
        """The activation of the gate, times up."""
        gate, up = mx.split(packed, 2, axis=-1)
        value = _activate(_wide(gate), is_gelu).astype(packed.dtype)
        return (_wide(value) * _wide(up)).astype(packed.dtype)

    def gated_back(
        self, packed: mx.array, doutput: mx.array, is_gelu: bool
    ) -> tuple[mx.array, mx.array]:
        """The gradient with respect to `packed`, and the output recomputed."""
        gate, up = mx.split(packed, 2, axis=-1)
        given = _wide(doutput)
        (value,), (dgate,) = mx.vjp(
            lambda x: _activate(x, is_gelu), [_wide(gate)], [given * _wide(up)]
        )
        dup = given * _wide(value.astype(packed.dtype))
        gradient = mx.concatenate([dgate, dup], axis=-1).astype(packed.dtype)
        return gradient, self.gated(packed, is_gelu)

    def cross_entropy(self, logits: mx.array, targets: mx.array, weights: mx.array) -> Losses:
        """Weighted losses and the gradient of their sum."""
        wide = _wide(logits)
        total = mx.logsumexp(wide, axis=-1, keepdims=True)
        at_target = mx.take_along_axis(wide, targets[:, None], axis=-1)
        is_target = mx.arange(logits.shape[-1])[None] == targets[:, None]
        gradient = (mx.exp(wide - total) - is_target) * weights[:, None]
        return Losses((total - at_target)[:, 0] * weights, gradient.astype(logits.dtype))

    def adam(
        self,
        gradients: Sequence[mx.array],
        mask: mx.array | None,
        before: Moments,
        factor: mx.array,
        learning_rate: mx.array,
        rates: AdamRates,
    ) -> Moments:
        """One update with `factor` times the gradient."""
        parts = [_wide(part) if mask is None else _wide(part) * mask for part in gradients]
        gradient = mx.concatenate(parts) * factor
        m = rates.beta_1 * before.m + (1 - rates.beta_1) * gradient
        v = rates.beta_2 * before.v + (1 - rates.beta_2) * mx.square(gradient)
        return Moments(before.weight - learning_rate * m / (mx.sqrt(v) + rates.eps), m, v)


def _added(branch: Branch) -> mx.array:
    added = _wide(branch.r) + _wide(branch.z) @ _wide(branch.b)
    return added.astype(branch.r.dtype)


def _wide(x: mx.array) -> mx.array:
    return x.astype(mx.float32)


def _norm(x: mx.array, norm: Norm) -> mx.array:
    return x * mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + norm.eps) * _wide(norm.weight)


def _norm_back(x: mx.array, gradient: mx.array, norm: Norm) -> mx.array:
    scale = mx.rsqrt(mx.mean(x * x, axis=-1, keepdims=True) + norm.eps)
    gradient = gradient * _wide(norm.weight)
    return scale * gradient - x * scale**3 * mx.mean(x * gradient, axis=-1, keepdims=True)


def _apart(packed: mx.array, heads: Heads) -> list[mx.array]:
    """q, k and v: (B, L, their heads, D)."""
    each = packed.reshape(*packed.shape[:2], -1, heads.size)
    split: Any = mx.split
    parts: list[mx.array] = split(each, [heads.n_queries, heads.n_queries + heads.n_keys], axis=2)
    return parts


def _turned(x: mx.array, heads: Heads, back: bool = False) -> mx.array:
    """The halves of each head (B, L, heads, D) rotated by the angles of the position."""
    length = x.shape[1]
    cosine, sine = heads.cosine[:length, None], heads.sine[:length, None]
    if back:
        sine = -sine
    low, high = mx.split(x, 2, axis=-1)
    return mx.concatenate([low * cosine - high * sine, low * sine + high * cosine], axis=-1)


def _by_key_head(x: mx.array, heads: Heads) -> mx.array:
    """(B, L, heads, D) -> (B, G, L * heads / G, D)."""
    n_rows, length, n_heads, size = x.shape
    apart = x.reshape(n_rows, length, heads.n_keys, n_heads // heads.n_keys, size)
    return apart.transpose(0, 2, 1, 3, 4).reshape(n_rows, heads.n_keys, -1, size)


def _by_token(x: mx.array, length: int) -> mx.array:
    """The reverse of `_by_key_head`: (B, G, L * heads / G, D) -> (B, L, heads, D)."""
    n_rows, n_keys, _, size = x.shape
    apart = x.reshape(n_rows, n_keys, length, -1, size)
    return apart.transpose(0, 2, 1, 3, 4).reshape(n_rows, length, -1, size)


def _seen(length: int, heads: Heads) -> mx.array:
    """(L * H / G, L) bool: which positions a query sees."""
    query = (mx.arange(length * heads.group) // heads.group)[:, None]
    position = mx.arange(length)[None]
    seen = position <= query
    return seen & (position > query - heads.window) if heads.window else seen


def _activate(x: mx.array, is_gelu: bool) -> mx.array:
    if is_gelu:
        return 0.5 * x * (1 + mx.tanh(0.7978845608028654 * (x + 0.044715 * x**3)))
    return x * mx.sigmoid(x)
