"""Decoding of many prompts at once, whatever the model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from calltune.decode.row import Completion, Prompt

__all__ = ["Completion", "Prompt", "complete", "default_batch_size"]


def complete(
    model: Any,
    prompts: Iterable[Prompt],
    *,
    stop_tokens: Sequence[int],
    max_tokens: int,
    batch_size: int,
) -> Iterator[Completion]:
    """The completion of each prompt, in the order in which they finish.

    Prompts are taken in as places come free, so a long stream is never held whole. Neighbours that
    begin with the same tokens have these computed once.
    """
    from calltune.decode.batches import Batches
    from calltune.decode.generator import generate
    from calltune.decode.slots import fits
    from calltune.models.at_once import at_once

    stops = frozenset(stop_tokens)
    if not fits(model):
        yield from generate(model, prompts, stops, max_tokens, batch_size)
        return
    batches = Batches(model, stops, max_tokens, batch_size)
    waiting = iter(prompts)
    while True:
        while batches.wants_more and (prompt := next(waiting, None)):
            batches.add(prompt)
        if batches.is_empty:
            return
        with at_once():
            finished = batches.step()
        yield from finished


def default_batch_size(device: str) -> int:
    """How many prompts to answer at once where nobody says: on a GPU a batch costs like a row."""
    return 128 if device == "cuda" else 16
