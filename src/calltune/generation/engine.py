"""Offline generation: completes a stream of prompts in batches, for any model of mlx_lm."""

import time
from collections import abc
from typing import Any

from calltune.errors import OptionError
from calltune.generation.sequence import Completion, Prompt, Sequence

__all__ = ["Completion", "Prompt", "complete", "default_batch_size"]


def complete(
    model: Any,
    prompts: abc.Iterable[Prompt],
    *,
    stop_tokens: abc.Sequence[int],
    max_tokens: int,
    batch_size: int,
) -> abc.Iterator[Completion]:
    """The completion of each prompt, in the order in which they finish.

    Prompts are read as slots become free, so a long stream is never in memory whole. Prompts with
    a common prefix that follow each other have it computed once. `max_tokens` limits each answer
    that has no limit of its own; up to `batch_size` prompts run at once.

    Raises:
        OptionError: the model keeps other state than keys and values, and a prompt is constrained
            or sampled.
    """
    from calltune.generation.kv_cache import has_plain_kv_cache
    from calltune.generation.scheduler import Scheduler
    from calltune.models.numpy_ops import use_numpy_ops

    stops = frozenset(stop_tokens)
    if not has_plain_kv_cache(model):
        yield from _complete_with_mlx_lm(model, prompts, stops, max_tokens, batch_size)
        return
    scheduler = Scheduler(model, stops, max_tokens, batch_size)
    waiting = iter(prompts)
    while True:
        while scheduler.wants_more and (prompt := next(waiting, None)):
            scheduler.add(prompt)
        if scheduler.is_empty:
            return
        with use_numpy_ops():
            finished = scheduler.step()
        yield from finished


def default_batch_size(device: str) -> int:
    """How many prompts to run at once by default: a GPU runs a batch in about the time of one."""
    return 128 if device == "cuda" else 16


def _complete_with_mlx_lm(
    model: Any,
    prompts: abc.Iterable[Prompt],
    stop_tokens: frozenset[int],
    max_tokens: int,
    batch_size: int,
) -> abc.Iterator[Completion]:
    """As `complete`, greedily with mlx_lm's batch generator: for models with other state."""
    from mlx_lm.generate import BatchGenerator

    generator = BatchGenerator(
        model,
        max_tokens=max_tokens,
        stop_tokens=[[token] for token in sorted(stop_tokens)],
        completion_batch_size=batch_size,
        prefill_batch_size=min(batch_size, 8),
    )
    waiting = iter(prompts)
    running: dict[int, Sequence] = {}
    try:
        while True:
            while len(running) < 2 * batch_size and (prompt := next(waiting, None)):
                tokens = _check_greedy(prompt).tokens
                (uid,) = generator.insert([tokens], [prompt.max_tokens or max_tokens])
                running[uid] = Sequence(prompt, started=time.perf_counter())
            if not running:
                return
            for response in generator.next_generated():
                sequence = running[response.uid]
                sequence.append(response.token, stop_tokens, max_tokens)
                if sequence.finish_reason is not None:
                    yield running.pop(response.uid).completion()
    finally:
        generator.close()


def _check_greedy(prompt: Prompt) -> Prompt:
    if prompt.constraint is not None or prompt.sampling is not None:
        raise OptionError(
            "This model keeps more of the past than keys and values; its answers can be neither "
            "constrained nor sampled: leave out --constrain and --temperature"
        )
    return prompt
