"""Decoding of many prompts at once, whatever the model.

Greedy decoding on mlx_lm's batch generator: for models that keep more than keys and values.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from calltune.errors import OptionError
from calltune.generation.sequence import Completion, Prompt, Row


def generate(
    model: Any, prompts: Iterable[Prompt], stops: frozenset[int], limit: int, size: int
) -> Iterator[Completion]:
    """As `engine.complete`.

    Raises:
        OptionError: a prompt comes with a constraint or is to be sampled.
    """
    from mlx_lm.generate import BatchGenerator

    generator = BatchGenerator(
        model,
        max_tokens=limit,
        stop_tokens=[[token] for token in sorted(stops)],
        completion_batch_size=size,
        prefill_batch_size=min(size, 8),
    )
    waiting = iter(prompts)
    running: dict[int, Row] = {}
    try:
        while True:
            while len(running) < 2 * size and (prompt := next(waiting, None)):
                (uid,) = generator.insert([_plain(prompt).tokens], [prompt.max_tokens or limit])
                running[uid] = Row(prompt, started=time.perf_counter())
            if not running:
                return
            for response in generator.next_generated():
                row = running[response.uid]
                row.write(response.token, stops, limit)
                if row.finish is not None:
                    yield running.pop(response.uid).completion()
    finally:
        generator.close()


def _plain(prompt: Prompt) -> Prompt:
    if prompt.constraint is not None or prompt.sampling is not None:
        raise OptionError(
            "This model keeps more of the past than keys and values; its answers can be neither "
            "constrained nor drawn: leave out --constrain and --temperature"
        )
    return prompt


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
    from calltune.generation.kv_cache import fits
    from calltune.generation.scheduler import Batches
    from calltune.models.numpy_ops import use_numpy_ops

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
        with use_numpy_ops():
            finished = batches.step()
        yield from finished


def default_batch_size(device: str) -> int:
    """How many prompts to answer at once where nobody says: on a GPU a batch costs like a row."""
    return 128 if device == "cuda" else 16
