"""Continuous batching: sequences join, are cancelled and finish while others run."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from test_engine import Counted, one_by_one, prompts

from calltune.generation.scheduler import PrefillPolicy, Scheduler
from calltune.generation.sequence import Prompt

from support import tiny

STOPS = frozenset([1, 5])


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.make_model(tiny.GEMMA_CONFIG)


def run_out(scheduler: Scheduler) -> dict[str, list[int]]:
    found = {}
    while not scheduler.is_empty:
        found |= {done.id: done.tokens for done in scheduler.step()}
    return found


def alone(model: Any, asked: Sequence[Prompt], limit: int) -> dict[str, list[int]]:
    return {prompt.id: one_by_one(model, prompt, limit) for prompt in asked}


def test_a_cancelled_sequence_leaves_the_others_as_they_were(model: Any) -> None:
    asked = prompts(8)
    scheduler = Scheduler(model, STOPS, 12, 4, n_kept=2)
    for prompt in asked:
        scheduler.add(prompt)
    scheduler.step()
    scheduler.step()
    scheduler.cancel("1")  # half answered
    scheduler.cancel("7")  # waiting
    scheduler.cancel("unknown")
    found = run_out(scheduler)
    assert found == alone(model, [p for p in asked if p.id not in "17"], 12)


@pytest.mark.parametrize("round_to", [1, 16])
def test_prompts_may_join_at_any_step(model: Any, round_to: int) -> None:
    asked = prompts(9)
    scheduler = Scheduler(model, STOPS, 12, 4, policy=PrefillPolicy(64, 1, round_to), n_kept=3)
    found = {}
    for prompt in asked:
        scheduler.add(prompt)
        found |= {done.id: done.tokens for done in scheduler.step() + scheduler.step()}
    assert found | run_out(scheduler) == alone(model, asked, 12)


def test_a_long_prompt_does_not_block_the_others(model: Any) -> None:
    long = Prompt("long", np.random.default_rng(4).integers(6, 300, 900).tolist(), max_tokens=2)
    scheduler = Scheduler(model, frozenset(), 40, 4, policy=PrefillPolicy(64, 1))
    scheduler.add(prompts(1)[0])
    scheduler.step()
    scheduler.add(long)
    lengths = []
    for _ in range(10):
        scheduler.step()
        lengths.append(len(next(iter(scheduler.running())).generated))
    assert lengths == list(range(lengths[0], lengths[0] + 10))
    assert run_out(scheduler)["long"] == one_by_one(model, long, 2)


@pytest.mark.parametrize(("n_others", "most"), [(0, 1.0), (1, 1 / 2), (4, 1 / 3)])
def test_a_long_prompt_takes_a_share_of_the_time_from_answers(
    model: Any, n_others: int, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(model)
    # A clock by which a pass takes as long as it has positions.
    clock = SimpleNamespace(perf_counter=lambda: float(counted.positions))
    monkeypatch.setattr("calltune.generation.scheduler.time", clock)
    long = Prompt("long", np.random.default_rng(4).integers(6, 300, 900).tolist(), max_tokens=2)
    scheduler = Scheduler(counted, frozenset(), 2000, 8, policy=PrefillPolicy(64, 1))
    for prompt in prompts(n_others):
        scheduler.add(prompt)
        scheduler.step()
    scheduler.add(long)
    before, n_steps = counted.positions, 1
    while not any(done.id == "long" for done in scheduler.step()):
        n_steps += 1
    narrow = (1 << n_others.bit_length()) * n_steps
    wide = counted.positions - before - narrow
    assert wide > 64 * 3
    if n_others:
        assert most - 0.1 < (wide - 64) / (wide - 64 + narrow) <= most
    else:
        assert n_steps < 900 / 64 + 4


def test_a_finished_sequence_is_reused_for_prompts_with_the_same_prefix(model: Any) -> None:
    rng = np.random.default_rng(6)
    one, other = (rng.integers(6, 300, 150).tolist() for _ in range(2))
    counted = Counted(model)
    scheduler = Scheduler(counted, frozenset(), 5, 1, n_kept=2)
    for number, beginning in enumerate((one, other, one, other)):
        before = counted.positions
        prompt = Prompt(str(number), [*beginning, 9 + number])
        scheduler.add(prompt)
        assert run_out(scheduler)[str(number)] == one_by_one(model, prompt, 5)[:5]
        # What follows a beginning that was fed is a token, and five of the answer.
        assert (counted.positions - before > 100) == (number < 2)
    scheduler.clear()
    before = counted.positions
    scheduler.add(Prompt("again", [*one, 9]))
    run_out(scheduler)
    assert counted.positions - before > 100


def test_a_conversation_that_continues_is_not_prefilled_again(model: Any) -> None:
    counted = Counted(model)
    scheduler = Scheduler(counted, frozenset(), 20, 2, n_kept=2)
    tokens = np.random.default_rng(8).integers(6, 300, 100).tolist()
    for turn in range(3):
        prompt = Prompt(str(turn), tokens)
        before = counted.positions
        scheduler.add(prompt)
        answer = run_out(scheduler)[str(turn)]
        assert answer == one_by_one(model, prompt, 20)[:20]
        assert turn == 0 or counted.positions - before < 60
        tokens = [*tokens, *answer, 11, 12, 13]


def test_one_sequence_does_not_cost_a_whole_batch(model: Any) -> None:
    counted = Counted(model)
    scheduler = Scheduler(counted, frozenset(), 30, 8)
    for prompt in prompts(8):
        scheduler.add(prompt._replace(max_tokens=30 if prompt.id == "7" else 2))
    for _ in range(8):
        scheduler.step()
    before = counted.positions
    scheduler.step()
    assert counted.positions - before <= 2
    assert len(run_out(scheduler)["7"]) == 30


def test_clearing_frees_the_cache(model: Any) -> None:
    scheduler = Scheduler(model, frozenset(), 5, 2, n_kept=2)
    for prompt in prompts(4):
        scheduler.add(prompt)
    run_out(scheduler)
    held = mx.get_active_memory()
    scheduler.clear()
    assert mx.get_active_memory() < held
