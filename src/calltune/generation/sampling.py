"""Sampling: logits to next tokens, greedy or with temperature and top-p, under token masks."""

from collections import abc
from typing import Any

import mlx.core as mx

from calltune.generation.sequence import Sampling, Sequence

Array = Any


def sample(logits: Array, sequences: abc.Sequence[Sequence | None]) -> Array:
    """The next token of each sequence that needs one; the other entries mean nothing.

    logits (B, V) and B sequences, None where a slot is free; tokens (B,) int32, not evaluated.
    """
    constraints: list[Any] = [
        (sequence.constraint, i)
        for i, sequence in enumerate(sequences)
        if sequence and sequence.constraint
    ]
    if constraints:
        from calltune.generation.constraints import token_bitmasks

        words = token_bitmasks(constraints, *logits.shape)
        logits = mx.where(_unpack_bits(mx.array(words))[:, : logits.shape[1]], logits, -mx.inf)
    tokens = mx.argmax(logits, axis=-1)
    for i, sequence in enumerate(sequences):
        if sequence and sequence.needs_sampling and sequence.prompt.sampling:
            tokens[i] = draw(logits[i], sequence.prompt.sampling, len(sequence.generated))
    return tokens.astype(mx.int32)


def draw(logits: Array, sampling: Sampling, position: int) -> Array:
    """One token sampled from logits (V,), by the Gumbel-max trick; a scalar, not evaluated.

    `position` is the token's place in the answer, from 0. With the seed it determines the random
    numbers, so they do not depend on what else is in the batch.
    """
    scaled = logits.astype(mx.float32) / sampling.temperature
    if sampling.top_p < 1:
        order = mx.argsort(-scaled)
        probabilities = mx.softmax(scaled)[order]
        # The token that reaches the threshold is still included.
        is_in = mx.cumsum(probabilities) - probabilities < sampling.top_p
        scaled = mx.put_along_axis(scaled, order, mx.where(is_in, scaled[order], -mx.inf), axis=0)
    key = mx.random.split(mx.random.key(sampling.seed), position + 1)[position]
    return mx.argmax(scaled + mx.random.gumbel(scaled.shape, key=key))


def _unpack_bits(words: Array) -> Array:
    """Words (B, W) uint32 -> bool (B, 32 W): the lowest bit of a word comes first."""
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1
    return bits.reshape(len(words), -1).astype(mx.bool_)
