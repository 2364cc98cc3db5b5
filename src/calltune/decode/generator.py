"""Greedy decoding on mlx_lm's batch generator: for models that keep more than keys and values."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from calltune.decode.row import Completion, Prompt, Row
from calltune.errors import OptionError


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
