"""In which order many prompts are quick to decode."""

from collections.abc import Sequence

from calltune.decode.row import LEAST_SHARED, Prompt, shared_length


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


def _are_alike(tokens: list[int], others: list[int]) -> bool:
    """Whether the two share something, and half of what they are."""
    shared = shared_length(tokens, others)
    return shared >= LEAST_SHARED and 2 * shared >= max(len(tokens), len(others))
