"""What the training benchmark counts, and that its rival is mlx_lm's own trainer."""

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import interleave
import numpy as np
import pytest
from engine_process import PLANS, EngineFailed, EngineProcess
from make_rows import random_splits
from rows import Row, Rows, cut, read_rows, write_rows
from settings import SETTINGS, Setting
from worker import WorkerChannel

import report

TINY = replace(
    SETTINGS["smoke"],
    shape={**(SETTINGS["smoke"].shape or {}), "num_hidden_layers": 2, "sliding_window_pattern": 2},
    num_layers=1,
    n_valid=5,
)


def row(length: int, completion_start: int = 1) -> Row:
    return Row(np.arange(1, length + 1, dtype=np.int32), completion_start)


def block(seconds: float, tokens: int, padded: int, steps: int = 2) -> dict[str, Any]:
    return {"seconds": seconds, "steps": steps, "tokens": tokens, "padded_tokens": padded}


def test_rows_survive_the_file_and_long_ones_are_left_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "rows.npz"
    write_rows(path, [row(5, 3), row(9, 4), row(2, 1)], [row(4, 2), row(12, 2), row(3, 2)])

    found = read_rows(path, max_seq_length=8, n_valid=1)

    assert [(r.tokens.tolist(), r.completion_start) for r in found.train] == [
        ([1, 2, 3, 4, 5], 3),
        ([1, 2], 1),
    ]
    assert [len(r.tokens) for r in found.valid] == [4]
    assert found.left_out == 1


def test_cut_rows_are_all_of_the_length_asked_for() -> None:
    assert [r.tokens.tolist() for r in cut([row(5), row(2), row(3)], 3)] == [[1, 2, 3]] * 2


def test_the_setting_survives_json() -> None:
    assert Setting.from_json(json.loads(json.dumps(TINY.to_json()))) == TINY


def test_speed_counts_real_tokens_and_padding_is_a_share_of_all() -> None:
    found = report.summary([block(1, 100, 150), block(2, 100, 150), block(4, 100, 100)])

    assert found["tokens_per_second"] == {"median": 50, "min": 25, "max": 100}
    assert found["it_per_second"] == {"median": 1, "min": 0.5, "max": 2}
    assert found["padding_share"] == 0.25


def test_filling_the_cache_is_paid_once_however_many_epochs() -> None:
    details = {"prefix_fill_s": 10.0, "prefix_tokens": 1000}

    assert report.effective(100, details) == {"1": 50, "3": 75}
    assert report.effective(100, {}) == {"1": 100, "3": 100}


def test_each_round_has_every_engine_once_and_starts_with_another() -> None:
    assert [name for _, name in interleave.interleaved("abc", 2)] == ["a", "b", "c", "b", "c", "a"]


def test_the_ratio_is_the_first_engine_by_the_other() -> None:
    lines = [
        {"engine": name} | report.summary([block(1, tokens, tokens)])
        for name, tokens in (("calltune", 300), ("mlx_lm", 100))
    ]
    assert [line.split()[5] for line in report.table(lines).splitlines()[1:]] == ["1.00", "3.00"]


class FakeProcess:
    """An engine that answers at once, or fails from a given command on."""

    def __init__(self, name: str, fails_at: str = "") -> None:
        self.name, self.plan, self.asked, self.stopped = name, PLANS[name], list[str](), False
        self._fails_at = fails_at

    def ask(self, what: str, count: int = 0) -> dict[str, Any]:
        self.asked.append(f"{what} {count}" if count else what)
        if what == self._fails_at:
            raise EngineFailed("out of memory")
        loss = {"loss": 1.0} if what == "validate" else {}
        return block(1.0, 10 * count, 10 * count, count) | loss if count or loss else {}

    def stop(self) -> None:
        self.stopped = True


def measured(*processes: FakeProcess) -> list[dict[str, Any]]:
    return interleave.measure([lambda p=p: p for p in processes], TINY)  # type: ignore[misc]


def test_an_engine_that_fails_says_why_and_the_others_go_on() -> None:
    broken, whole = FakeProcess("peft", "steps"), FakeProcess("mlx_lm")

    first, second = measured(broken, whole)

    assert first["failed"] == "out of memory" and "tokens_per_second" not in first
    assert broken.asked == ["details", "steps 2"] and broken.stopped
    assert second["rounds"] == TINY.rounds and "failed" not in second


def test_an_interrupt_keeps_the_rounds_that_were_done() -> None:
    whole, late = FakeProcess("mlx_lm"), FakeProcess("peft")
    asked = whole.ask
    n_steps = 0

    def ask(what: str, count: int = 0) -> dict[str, Any]:
        nonlocal n_steps
        n_steps += what == "steps"
        # A warm-up and two rounds, each after a step that settles.
        if n_steps > 5:
            raise KeyboardInterrupt
        return asked(what, count)

    whole.ask = ask  # type: ignore[method-assign]
    first, _ = measured(whole, late)
    assert first["rounds"] == 2


def test_steps_that_warm_up_or_settle_an_engine_are_not_counted() -> None:
    (found,) = measured(process := FakeProcess("mlx_lm"))

    assert found["steps_per_round"] == TINY.steps and found["rounds"] == TINY.rounds
    assert process.asked.count(f"steps {interleave.SETTLE_STEPS}") == TINY.rounds


def test_stock_mlx_lm_gets_one_step_and_its_line_says_so() -> None:
    (found,) = measured(process := FakeProcess("mlx_lm_stock"))

    assert [command for command in process.asked if "steps" in command] == ["steps 1"]
    assert "cut to 32 tokens" in found["capped"]


@pytest.fixture(scope="module")
def answers() -> list[dict[str, Any]]:
    """What the mlx_lm engine answers to two blocks and a validation, run in this process."""
    from engines import mlx_lm_engine

    splits = random_splits((TINY.shape or {})["vocab_size"], 0)
    commands = [{"do": "steps", "count": 2}, {"do": "validate"}, {"do": "steps", "count": 1}]
    sent = io.StringIO("".join(json.dumps(command) + "\n" for command in commands))
    written = io.StringIO()
    rows = Rows(splits["train"][:6], splits["valid"][:5], 0)
    mlx_lm_engine.serve(rows, TINY, WorkerChannel(sent, written))
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_the_trainer_of_mlx_lm_is_held_between_blocks(answers: list[dict[str, Any]]) -> None:
    first, _, second = answers
    assert (first["steps"], second["steps"]) == (2, 1)
    # Three steps of two rows are one epoch of the six rows.
    lengths = [len(row.tokens) for row in random_splits(1000, 0)["train"][:6]]
    assert first["tokens"] + second["tokens"] == sum(lengths)


def test_mlx_lm_validates_on_the_rows_that_fill_a_batch(answers: list[dict[str, Any]]) -> None:
    validation = answers[1]
    lengths = [len(row.tokens) for row in random_splits(1000, 0)["valid"][:4]]
    assert (validation["steps"], validation["tokens"]) == (2, sum(lengths))
    assert validation["padded_tokens"] % 2 == 0 and np.isfinite(validation["loss"])


@pytest.fixture
def lost_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineProcess]:
    monkeypatch.setitem(PLANS, "lost", replace(PLANS["peft"], module="no_such_engine"))
    path = tmp_path / "rows.npz"
    write_rows(path, [row(5)], [row(4)])
    process = EngineProcess("lost", replace(TINY, rows=str(path)), tmp_path / "lost.log", 60)
    yield process
    process.stop()


def test_a_process_that_cannot_start_its_engine_names_the_reason(
    lost_engine: EngineProcess,
) -> None:
    with pytest.raises(EngineFailed, match="no_such_engine"):
        lost_engine.ask("details")


def test_calltunes_engine_trains_blocks_of_the_products_own_run(tmp_path: Path) -> None:
    splits = random_splits((TINY.shape or {})["vocab_size"], 0)
    path = tmp_path / "rows.npz"
    write_rows(path, splits["train"][:6], splits["valid"][:5])
    process = EngineProcess("calltune", replace(TINY, rows=str(path)), tmp_path / "log", 120)
    try:
        details = process.ask("details")
        first, validation, second = (
            process.ask(*command) for command in (("steps", 2), ("validate",), ("steps", 1))
        )
    finally:
        process.stop()
    assert details["prefix_gb"] > 0 and details["fused_layers"] is False
    # Three steps of two rows are one epoch of the six rows.
    lengths = [len(row.tokens) for row in splits["train"][:6]]
    assert first["tokens"] + second["tokens"] == sum(lengths)
    assert validation["tokens"] == sum(len(row.tokens) for row in splits["valid"][:5])
    assert np.isfinite(validation["loss"]) and first["padded_tokens"] >= first["tokens"]
