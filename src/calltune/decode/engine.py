"""Greedy decoding of many prompts at once, on mlx_lm's batch generator."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple


class Prompt(NamedTuple):
    """What to answer: a name for it, and its tokens."""

    id: str
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote to one prompt."""

    id: str
    tokens: list[int]
    """Without the stop token."""
    finish: Literal["stop", "length"]
    seconds: float
    """From when the prompt was queued to its last token; others run beside it."""


@dataclass(slots=True)
class _Running:
    prompt: Prompt
    started: float
    tokens: list[int] = field(default_factory=list)


def complete(
    model: Any,
    prompts: Iterable[Prompt],
    *,
    stop_tokens: Sequence[int],
    max_tokens: int,
    batch_size: int,
) -> Iterator[Completion]:
    """The greedy completion of each prompt, in the order in which they finish.

    Prompts are taken in as places come free, so a long stream is never held whole.
    """
    from mlx_lm.generate import BatchGenerator

    from calltune.models.at_once import at_once

    generator = BatchGenerator(
        model,
        max_tokens=max_tokens,
        stop_tokens=[[token] for token in stop_tokens],
        completion_batch_size=batch_size,
        prefill_batch_size=min(batch_size, 8),
    )
    waiting = iter(prompts)
    running: dict[int, _Running] = {}
    try:
        while True:
            _admit(generator, waiting, running, 2 * batch_size)
            if not running:
                return
            with at_once():
                responses = generator.next_generated()
            yield from _finished(responses, running)
    finally:
        generator.close()


def _admit(
    generator: Any, waiting: Iterator[Prompt], running: dict[int, _Running], most: int
) -> None:
    entering: deque[Prompt] = deque()
    while len(running) + len(entering) < most and (prompt := next(waiting, None)):
        entering.append(prompt)
    if entering:
        uids = generator.insert([prompt.tokens for prompt in entering])
        for uid, prompt in zip(uids, entering, strict=True):
            running[uid] = _Running(prompt, time.perf_counter())


def _finished(responses: Iterable[Any], running: dict[int, _Running]) -> Iterator[Completion]:
    for response in responses:
        answer = running[response.uid]
        if response.finish_reason != "stop":
            answer.tokens.append(response.token)
        if response.finish_reason is not None:
            del running[response.uid]
            seconds = time.perf_counter() - answer.started
            yield Completion(answer.prompt.id, answer.tokens, response.finish_reason, seconds)
