from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from calltune.errors import OptionError
from calltune.generation.engine import Prompt, complete
from calltune.generation.sequence import Sampling, shared_length, sort_by_shared_prefix

from support import tiny

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
    assert answer.finish_reason == "stop" and answer.tokens == free[: free.index(stop)]
    cut = next(iter(complete(model, [asked], stop_tokens=[2], max_tokens=8, batch_size=1)))
    assert cut.finish_reason == "length" and len(cut.tokens) == 8


def test_a_stream_of_prompts_is_never_in_memory_whole(model: Any) -> None:
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


@pytest.mark.parametrize("config", ["GEMMA_CONFIG", "MAMBA"])
def test_a_prompt_may_have_a_limit_of_its_own(config: str) -> None:
    asked = [
        prompt._replace(max_tokens=n) for prompt, n in zip(prompts(3), (2, None, 9), strict=True)
    ]
    model = tiny.make_model(MAMBA_CONFIG if config == "MAMBA" else tiny.GEMMA_CONFIG)
    found = complete(model, asked, stop_tokens=[], max_tokens=5, batch_size=2)
    assert {c.id: len(c.tokens) for c in found} == {"0": 2, "1": 5, "2": 9}


class Counted:
    """A model, and how many positions it was fed."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers = model.layers
        self.make_cache = model.make_cache
        self.positions = 0

    def __call__(self, tokens: Any, cache: Any) -> Any:
        self.positions += tokens.size
        return self.model(tokens, cache=cache)


def answers_of(model: Any, asked: list[Prompt], batch_size: int, limit: int) -> dict[str, Any]:
    found = complete(model, asked, stop_tokens=STOP, max_tokens=limit, batch_size=batch_size)
    return {answer.id: answer.tokens for answer in found}


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_prompts_that_begin_alike_are_computed_once(model: Any, batch_size: int) -> None:
    rng = np.random.default_rng(5)
    beginning = rng.integers(6, 300, 120).tolist()
    other = rng.integers(6, 300, 90).tolist()
    ends = [rng.integers(6, 300, n).tolist() for n in (1, 9, 4, 30, 2)]
    asked = [Prompt(f"a{i}", beginning + end) for i, end in enumerate(ends)]
    asked += [Prompt("same", asked[0].tokens), Prompt("b", other), Prompt("c", other[:64] + [9])]
    counted = Counted(model)
    found = answers_of(counted, asked, batch_size, 6)
    assert found == {p.id: one_by_one(model, p, 6) for p in asked}
    narrow = 6 * 8 * len(asked)
    assert counted.positions < len(beginning) + len(other) + 5 * 30 + narrow
    assert counted.positions < sum(len(p.tokens) for p in asked)


def test_a_prompt_as_long_as_many_passes_is_fed_whole(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("calltune.generation.scheduler.PREFILL_TOKENS", 32)
    asked = prompts(8)
    assert answers_of(model, asked, 3, 5) == {p.id: one_by_one(model, p, 5) for p in asked}


def test_llama_answers_in_a_batch_as_alone() -> None:
    llama = tiny.make_model(tiny.LLAMA_CONFIG)
    asked = prompts(7)
    assert answers_of(llama, asked, 4, 9) == {p.id: one_by_one(llama, p, 9) for p in asked}


def drawn(model: Any, asked: list[Prompt], batch_size: int) -> dict[str, list[int]]:
    return answers_of(model, asked, batch_size, 8)


def test_a_seed_draws_the_same_tokens_whatever_is_beside(model: Any) -> None:
    plain = prompts(5)
    asked = [p._replace(sampling=Sampling(1.0, 0.9, seed=i)) for i, p in enumerate(plain)]
    together = drawn(model, asked, 4)
    assert together == {p.id: drawn(model, [p], 1)[p.id] for p in asked}
    others = [p._replace(sampling=Sampling(1.0, 0.9, seed=i + 50)) for i, p in enumerate(plain)]
    assert drawn(model, others, 4) != together
    mixed = [p if i % 2 else asked[i] for i, p in enumerate(plain)]
    found = drawn(model, mixed, 4)
    greedy = drawn(model, plain, 4)
    assert all(found[p.id] == (greedy if i % 2 else together)[p.id] for i, p in enumerate(plain))


def test_a_small_top_p_leaves_the_likeliest_token(model: Any) -> None:
    asked = [p._replace(sampling=Sampling(1.0, 1e-6)) for p in prompts(3)]
    assert drawn(model, asked, 3) == drawn(model, prompts(3), 3)


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    from calltune.generation.sampling import draw

    chances = np.array([0.5, 0.3, 0.15, 0.05])
    logits = mx.log(mx.array(chances))
    n = 3000
    counts = np.bincount([draw(logits, Sampling(1.0, 1.0, i), 3).item() for i in range(n)])
    # Four standard deviations: a right sampler fails once in some thousand seeds, and these are
    # the same in every run.
    assert np.all(np.abs(counts / n - chances) < 4 * np.sqrt(chances * (1 - chances) / n))
    nucleus = {draw(logits, Sampling(1.0, 0.7, i), 0).item() for i in range(300)}
    assert nucleus == {0, 1}


def test_models_that_keep_other_things_answer_through_mlx_lms_generator() -> None:
    mamba = tiny.make_model(MAMBA_CONFIG)
    asked = prompts(5)
    assert answers_of(mamba, asked, 2, 5) == {p.id: one_by_one(mamba, p, 5) for p in asked}
    with pytest.raises(OptionError, match="keeps more of the past than keys and values"):
        answers_of(mamba, [asked[0]._replace(sampling=Sampling(1.0))], 2, 5)


@pytest.mark.parametrize(
    ("tokens", "others", "count"),
    [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 4], [1, 2, 3], 2), ([5], [6], 0)],
)
def test_the_shared_beginning(tokens: list[int], others: list[int], count: int) -> None:
    assert shared_length(tokens, others) == shared_length(others, tokens) == count


def test_prompts_with_the_same_tools_stand_side_by_side_from_short_to_long() -> None:
    short, long = list(range(100)), list(range(500, 800))
    tokens = {
        "long1": [*long, 1, 2, 3],
        "short1": [*short, 7, 7],
        "alone": [9] * 150,
        "long2": [*long, 4],
        "short2": [*short, 5],
        "far": [*short, *[3] * 200],
    }
    order = sort_by_shared_prefix([Prompt(name, part) for name, part in tokens.items()])
    # "far" begins as the short ones do, but most of it is its own.
    assert [p.id for p in order] == ["short2", "short1", "alone", "far", "long2", "long1"]


MAMBA_CONFIG = {
    "model_type": "mamba",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "state_size": 8,
    "num_hidden_layers": 2,
    "conv_kernel": 4,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_rank": 4,
}
