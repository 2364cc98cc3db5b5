"""Decoding of many prompts at once, whatever the model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from calltune.decode.row import Completion, Prompt, shared_length

__all__ = ["Completion", "Prompt", "complete", "default_batch_size", "in_quick_order"]
LEAST_ALIKE = 64
"""Prompts that begin with so many equal tokens, and with half of their own, go side by side."""


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
        if batches.wants_more:
            batches.close()
        if batches.is_empty:
            return
        with at_once():
            finished = batches.step()
        yield from finished


def in_quick_order(prompts: Sequence[Prompt]) -> list[Prompt]:
    """Prompts that begin alike (the same tools) side by side, and these groups by their length.

    What neighbours share is computed once, and neighbours of like length leave little padding.
    """
    groups: list[list[Prompt]] = []
    for prompt in sorted(prompts, key=lambda prompt: prompt.tokens):
        if groups and _are_alike(groups[-1][0].tokens, prompt.tokens):
            groups[-1].append(prompt)
        else:
            groups.append([prompt])
    groups.sort(key=lambda group: max(len(prompt.tokens) for prompt in group))
    return [p for group in groups for p in sorted(group, key=lambda p: len(p.tokens))]


def default_batch_size(device: str) -> int:
    """How many prompts to answer at once where nobody says: on a GPU a batch costs like a row."""
    return 128 if device == "cuda" else 16


def _are_alike(tokens: list[int], others: list[int]) -> bool:
    shared = shared_length(tokens, others)
    return shared >= LEAST_ALIKE and 2 * shared >= max(len(tokens), len(others))
