"""The loss on completion tokens, with the head applied to nothing else."""

from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

# Models of mlx_lm whose `model.model(inputs)` is what goes into the head, and whose head is
# either `lm_head` or the tied embedding, with nothing after it.
_SPLIT_HEADS = {"gemma3_text", "llama", "qwen2", "qwen3"}


class Loss(NamedTuple):
    """Mean cross-entropy in nats over the trained tokens, and how many there are."""

    mean: mx.array
    n_tokens: mx.array


def completion_loss(
    model: Any, inputs: mx.array, positions: mx.array, targets: mx.array, weights: mx.array
) -> Loss:
    """The loss of a batch as `batches.Batch` holds it.

    inputs (B, L) int; positions, targets (T,) int; weights (T,) float, 0 for padding.
    The full (B, L, V) logits are never made where the model's head can be applied alone.
    """
    logits = _logits_at(model, inputs, positions).astype(mx.float32)
    losses = nn.losses.cross_entropy(logits, targets) * weights
    n_tokens = weights.sum()
    return Loss(losses.sum() / n_tokens, n_tokens)


def _logits_at(model: Any, inputs: mx.array, positions: mx.array) -> mx.array:
    """Logits (T, V) at `positions` of the flattened (B * L) positions."""
    if model.model_type not in _SPLIT_HEADS:
        logits: mx.array = model(inputs)
        return logits.reshape(-1, logits.shape[-1])[positions]
    hidden = model.model(inputs)
    rows = hidden.reshape(-1, hidden.shape[-1])[positions]
    head = model.lm_head if "lm_head" in model else model.model.embed_tokens.as_linear
    return head(rows)  # type: ignore[no-any-return]
