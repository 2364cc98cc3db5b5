"""What the functions between a layer's products need to know.

N tokens, B rows, L positions, D hidden size or head size, H query heads, G key heads, F
feed-forward size, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * weight."""

    weight: mx.array
    """(D,), in the activations' type."""
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """How a packed product becomes queries, keys and values."""

    n_queries: int
    n_keys: int
    size: int
    scale: float
    """Of attention; queries are multiplied by it."""
    cosine: mx.array
    """(longest, D / 2) float32, the rotation at each position."""
    sine: mx.array
    q_norm: Norm | None
    k_norm: Norm | None
    window: int
    """How many positions a query sees, its own included; 0 is all before it."""

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.n_queries // self.n_keys


class Branch(NamedTuple):
    """A LoRA product (N, D) before its two parts are added: r + z b."""

    r: mx.array
    """(N, D), the frozen product."""
    z: mx.array
    """(N, R)."""
    b: mx.array
    """(R, D)."""


class Following(NamedTuple):
    """What comes after a residual sum: a norm, and a LoRA product of what it gives."""

    norm: Norm
    a: mx.array
    """(R, D), the matrix transposed."""


class Sum(NamedTuple):
    """A residual sum (N, D), and what the next part wants of it, where there is one."""

    h: mx.array
    y: mx.array | None
    """(N, D), normed."""
    z: mx.array | None
    """(N, R), y a'."""


class SumGradients(NamedTuple):
    """With respect to a branch's r and z, and to what it is added to."""

    dr: mx.array
    dz: mx.array
    dx: mx.array


class Parts(NamedTuple):
    """q (B, G, L * H / G, D), positions before heads; k and v (B, G, L, D)."""

    q: mx.array
    k: mx.array
    v: mx.array


class Losses(NamedTuple):
    """Cross-entropies (T,) float32 in nats and the gradient of their sum, (T, V)."""

    losses: mx.array
    gradient: mx.array


class Moments(NamedTuple):
    """A weight and Adam's moving averages of its gradient and of the gradient's square."""

    weight: mx.array
    m: mx.array
    v: mx.array


@dataclass(frozen=True, slots=True)
class AdamRates:
    """What `mlx.optimizers.Adam` is made with; there is no bias correction."""

    beta_1: float
    beta_2: float
    eps: float


class Kernels(Protocol):
    """The functions and their gradients, as `plain` writes them down and `cuda` computes them."""

    def add_and_norm(
        self, branch: Branch, x: mx.array, post: Norm | None, following: Following | None
    ) -> Sum:
        """H = x + post(r + z b), y = norm(h) and its product."""

    def add_and_norm_back(
        self,
        branch: Branch,
        h: mx.array,
        given: Sum,
        post: Norm | None,
        following: Following | None,
    ) -> SumGradients:
        """`given` is the gradient with respect to the sum's parts."""

    def split_heads(self, packed: mx.array, heads: Heads) -> Parts:
        """Packed (B, L, (H + 2 G) D) -> normed, rotated and, q alone, scaled."""

    def split_heads_back(
        self, packed: mx.array, dq: mx.array, dk: mx.array, dv: mx.array, heads: Heads
    ) -> mx.array:
        """The gradient with respect to `packed`."""

    def causal_softmax(self, scores: mx.array, heads: Heads) -> mx.array:
        """Scores (B, G, L * H / G, L) -> shares of the positions that each query sees."""

    def causal_softmax_back(self, shares: mx.array, dshares: mx.array, heads: Heads) -> mx.array:
        """The gradient with respect to the scores."""

    def gated(self, packed: mx.array, is_gelu: bool) -> mx.array:
        """Gate and up side by side, (…, 2 F) -> activation(gate) * up, (…, F)."""

    def gated_back(
        self, packed: mx.array, doutput: mx.array, is_gelu: bool
    ) -> tuple[mx.array, mx.array]:
        """The gradient with respect to `packed`, and the output again."""

    def cross_entropy(self, logits: mx.array, targets: mx.array, weights: mx.array) -> Losses:
        """Logits (T, V), targets (T,) int32, weights (T,) float32 of the rows' losses."""

    def adam(
        self,
        gradients: Sequence[mx.array],
        mask: mx.array | None,
        before: Moments,
        factor: mx.array,
        learning_rate: mx.array,
        rates: AdamRates,
    ) -> Moments:
        """One update in float32 with `factor` times the gradient.

        The gradients (rows, columns) one after the other are those of the weight, in their order;
        each is multiplied by the mask. Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980.
        """
