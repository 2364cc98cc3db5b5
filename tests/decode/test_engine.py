from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from calltune.decode.engine import Prompt, complete

import tiny

STOP = [1, 5]


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.make_model(tiny.GEMMA_CONFIG)


def prompts(count: int) -> list[Prompt]:
    rng = np.random.default_rng(3)
    # Shorter and longer than the sliding window of 64.
    return [Prompt(str(i), rng.integers(6, 300, 5 + 25 * i).tolist()) for i in range(count)]


def one_by_one(model: Any, prompt: Prompt, max_tokens: int) -> list[int]:
    """Greedy decoding without a cache: the whole sequence again for every token."""
    tokens = list(prompt.tokens)
    for _ in range(max_tokens):
        following = int(mx.argmax(model(mx.array([tokens]))[0, -1]).item())
        if following in STOP:
            break
        tokens.append(following)
    return tokens[len(prompt.tokens) :]


def test_a_batch_gives_what_one_by_one_gives(model: Any) -> None:
    asked = prompts(6)
    answers = complete(model, asked, stop_tokens=STOP, max_tokens=12, batch_size=4)
    written = {answer.id: answer.tokens for answer in answers}
    assert written == {p.id: one_by_one(model, p, 12) for p in asked}


def test_a_stop_token_ends_an_answer_and_is_not_part_of_it(model: Any) -> None:
    asked = prompts(1)[0]
    free = one_by_one(model, asked, 8)
    stop = free[3]
    answer = next(iter(complete(model, [asked], stop_tokens=[stop], max_tokens=8, batch_size=1)))
    assert answer.finish == "stop" and answer.tokens == free[: free.index(stop)]
    cut = next(iter(complete(model, [asked], stop_tokens=[2], max_tokens=8, batch_size=1)))
    assert cut.finish == "length" and len(cut.tokens) == 8


def test_a_stream_of_prompts_is_never_held_whole(model: Any) -> None:
    taken = 0

    def stream() -> Iterator[Prompt]:
        nonlocal taken
        for index in range(40):
            taken += 1
            yield Prompt(str(index), [7, 8, 9])

    finished = 0
    for _ in complete(model, stream(), stop_tokens=[], max_tokens=2, batch_size=2):
        finished += 1
        assert taken - finished <= 2 * 2
    assert finished == 40
