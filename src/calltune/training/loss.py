"""The loss on completion tokens: the head runs on those positions alone, chunk by chunk.

The gradient of a cross-entropy is known as soon as its logits are, so it is taken in the forward
pass and the logits are freed; those of a whole sequence never exist. The same idea: Hsu et al.,
Liger Kernel, https://arxiv.org/abs/2410.10989.

Shapes: T positions, D hidden size, V vocabulary.
"""

from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from calltune.training.cuda.interface import Kernels
from calltune.training.split_model import SplitModel, WholeModel

CHUNK_LOGITS = 2**25
"""The most logits that exist at once: 128 MiB in float32."""


class ChunkLoss(NamedTuple):
    """The loss summed over T positions, and its gradient."""

    loss: mx.array
    """Scalar float32, nats."""
    gradient: mx.array
    """With respect to the head's input, (T, D)."""


def completion_loss(
    split_model: SplitModel,
    rows: mx.array,
    targets: mx.array,
    weights: mx.array,
    use_numpy: bool = False,
) -> mx.array:
    """The cross-entropy summed over T positions: a float32 scalar in nats, to be differentiated.

    `rows` (T, D) is the head's input at these positions, `targets` (T,) int the tokens that
    follow, `weights` (T,) float32 the factors of their losses, 0 for padding. With `use_numpy` the
    exponentials of a dense float32 head are NumPy's, which is faster on a Linux CPU.
    """

    @mx.custom_function
    def forward(rows: mx.array) -> tuple[mx.array, mx.array]:
        total = mx.array(0.0)
        gradients: list[mx.array] = []
        for chunk in _chunks(split_model, rows):
            part = rows[chunk]
            if gradients:
                # Not before the last chunk's logits are gone.
                part = mx.depends(part, [total, gradients[-1]])
            found = _chunk_loss(split_model, part, targets[chunk], weights[chunk], use_numpy)
            total = total + found.loss
            gradients.append(found.gradient.astype(rows.dtype))
        return total, mx.concatenate(gradients) if gradients[1:] else gradients[0]

    @forward.vjp
    def backward(_: Any, cotangents: Any, outputs: Any) -> mx.array:
        return (outputs[1] * cotangents[0]).astype(rows.dtype)  # type: ignore[no-any-return]

    outputs: Any = forward(rows)
    total: mx.array = outputs[0]
    return total


def completion_loss_no_grad(
    split_model: SplitModel,
    rows: mx.array,
    targets: mx.array,
    weights: mx.array,
    use_numpy: bool = False,
) -> mx.array:
    """The number that `completion_loss` gives for the same arguments, without a gradient."""
    total = mx.array(0.0)
    for chunk in _chunks(split_model, rows):
        logits = split_model.logits(mx.depends(rows[chunk], [total]))
        # The logits of a whole model are the caller's array.
        if use_numpy and logits.dtype == mx.float32 and not isinstance(split_model, WholeModel):
            _, losses = _exponentials(logits, targets[chunk])
        else:
            losses = nn.losses.cross_entropy(logits.astype(mx.float32), targets[chunk])
        total = total + (losses * weights[chunk]).sum()
    return total


def _chunks(split_model: SplitModel, rows: mx.array) -> list[slice]:
    size = max(64, CHUNK_LOGITS // split_model.vocabulary // 64 * 64)
    return [slice(start, start + size) for start in range(0, rows.shape[0], size)]


def _chunk_loss(
    split_model: SplitModel, rows: mx.array, targets: mx.array, weights: mx.array, use_numpy: bool
) -> ChunkLoss:
    weight = split_model.head_weight()
    if weight is None:
        return _any_head(split_model, rows, targets, weights)
    if split_model.fused is not None and split_model.vocabulary % 4 == 0:
        return _dense_head_fused(split_model.fused.kernels, weight, rows, targets, weights)
    if use_numpy and rows.dtype == mx.float32:
        return _dense_head_numpy(weight, rows, targets, weights)
    return _dense_head(weight, rows, targets, weights)


def _any_head(
    split_model: SplitModel, rows: mx.array, targets: mx.array, weights: mx.array
) -> ChunkLoss:
    """For quantised heads, and models that change their logits after the head."""

    def loss(rows: mx.array) -> mx.array:
        logits = split_model.logits(rows).astype(mx.float32)
        losses: mx.array = nn.losses.cross_entropy(logits, targets)
        return (losses * weights).sum()

    return ChunkLoss(*mx.value_and_grad(loss)(rows))


def _dense_head_fused(
    kernels: Kernels, weight: mx.array, rows: mx.array, targets: mx.array, weights: mx.array
) -> ChunkLoss:
    """The loss and the gradient of the logits in one kernel between two products."""
    found = kernels.cross_entropy(rows @ weight.T, targets, weights)
    return ChunkLoss(found.losses.sum(), found.gradient @ weight)


def _dense_head(
    weight: mx.array, rows: mx.array, targets: mx.array, weights: mx.array
) -> ChunkLoss:
    """The gradient of the logits, probabilities less one at the target, times the head's matrix."""
    logits = (rows @ weight.T).astype(mx.float32)
    log_total = mx.logsumexp(logits, axis=-1, keepdims=True)
    at_target = mx.take_along_axis(logits, targets[:, None], axis=-1)
    loss = ((log_total - at_target)[:, 0] * weights).sum()
    probabilities = mx.exp(logits - log_total).astype(rows.dtype)
    expected = (probabilities @ weight).astype(mx.float32)
    gradient = (expected - weight[targets].astype(mx.float32)) * weights[:, None]
    return ChunkLoss(loss, gradient)


def _dense_head_numpy(
    weight: mx.array, rows: mx.array, targets: mx.array, weights: mx.array
) -> ChunkLoss:
    """The same with NumPy's exp; MLX's CPU backend takes one number at a time.

    Not the exponentials (T, V) are divided by their sum, but their product (T, D) with the head.
    """
    logits = rows @ weight.T
    totals, losses = _exponentials(logits, targets)
    # The logits hold their exponentials now.
    gradient = (logits @ weight) * (weights / totals)[:, None] - weight[targets] * weights[:, None]
    return ChunkLoss((losses * weights).sum(), gradient)


def _exponentials(logits: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
    """The sums (T,) of the exponentials that overwrite `logits` (T, V), and the losses (T,)."""
    mx.eval(logits)
    # Nobody else holds the logits, so they may be overwritten; a second array costs more.
    values = np.array(logits, copy=False)
    values -= values.max(axis=-1, keepdims=True)
    at_target = values[np.arange(len(values)), np.array(targets)]
    np.exp(values, out=values)
    totals = values.sum(axis=-1)
    return mx.array(totals), mx.array(np.log(totals) - at_target)
