"""From logits to tokens: the most likely ones, or drawn; and none that a constraint forbids."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from calltune.generation.sequence import Row, Sampling

Array = Any


def choose(logits: Array, rows: Sequence[Row | None]) -> Array:
    """A next token for each row that asks for one, and any for the others.

    logits (B, V); tokens (B,) int32, not evaluated.
    """
    held: list[Any] = [(row.held_by, i) for i, row in enumerate(rows) if row and row.held_by]
    if held:
        from calltune.generation.constraints import allowed_words

        words = allowed_words(held, *logits.shape)
        logits = mx.where(_bits(mx.array(words))[:, : logits.shape[1]], logits, -mx.inf)
    tokens = mx.argmax(logits, axis=-1)
    for i, row in enumerate(rows):
        if row and row.asks and row.prompt.sampling:
            tokens[i] = draw(logits[i], row.prompt.sampling, len(row.written))
    return tokens.astype(mx.int32)


def draw(logits: Array, sampling: Sampling, position: int) -> Array:
    """One token, logits (V,), for the so-manieth position of an answer."""
    scaled = logits.astype(mx.float32) / sampling.temperature
    if sampling.top_p < 1:
        order = mx.argsort(-scaled)
        chances = mx.softmax(scaled)[order]
        # The first token that reaches the share is still among them.
        is_in = mx.cumsum(chances) - chances < sampling.top_p
        scaled = mx.put_along_axis(scaled, order, mx.where(is_in, scaled[order], -mx.inf), axis=0)
    key = mx.random.split(mx.random.key(sampling.seed), position + 1)[position]
    return mx.argmax(scaled + mx.random.gumbel(scaled.shape, key=key))


def _bits(words: Array) -> Array:
    """Words (B, W) uint32 -> bool (B, 32 W): the lowest bit of a word comes first."""
    bits = (words[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1
    return bits.reshape(len(words), -1).astype(mx.bool_)
