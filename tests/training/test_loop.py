"""The loop: what is saved when, when it ends, and that it goes on exactly where it was."""

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from calltune.data.batching import TokenRow
from calltune.training.adapter import Kind
from calltune.training.checkpoint import Position
from calltune.training.distributed import DistributedGroup
from calltune.training.logging import Diverged, RunLogger
from calltune.training.loop import Loop, SaveCallbacks, Schedule
from calltune.training.schedule import LearningRate
from calltune.training.step import StepOptions, TrainState, Weights

from support import plain, tiny

ROWS = plain.random_rows((20, 40, 33, 60, 25, 50, 45))
"""Three batches of three rows, one of them with one row."""
VALID = plain.random_rows((30, 50), seed=5)
BEGINNING = Position()


@dataclass
class Notes:
    """What a loop saved."""

    saved: list[tuple[TrainState, Position]] = field(default_factory=list)
    best: list[Weights] = field(default_factory=list)

    @property
    def callbacks(self) -> SaveCallbacks:
        return SaveCallbacks(
            lambda trained, position: self.saved.append((trained, position)), self.best.append
        )

    @property
    def steps(self) -> list[int]:
        return [position.step for _, position in self.saved]


def started(dropout: float = 0.0, kind: Kind = "lora", clip: float = 0.5) -> plain.Run:
    model = tiny.make_model(plain.GEMMA)
    shape = plain.shape_of(kind, dropout=dropout, rank=2)
    plain.attach(model, shape)
    return plain.start(model, shape, ROWS, StepOptions(clip=clip))


def loop(
    run: plain.Run,
    notes: Notes,
    valid: Sequence[TokenRow] = (),
    metrics: Path | None = None,
    start: Position = BEGINNING,
    **changes: Any,
) -> Loop:
    wanted = {"iters": 8, "learning_rate": LearningRate(1e-2), "save_every": 3}
    schedule = Schedule(**(wanted | {"steps_per_report": 2, "steps_per_eval": 2} | changes))
    logger = RunLogger(
        schedule.iters, metrics, start.step, shown=False, unreported=start.unreported
    )
    return Loop(run.step, run.loader, valid, schedule, DistributedGroup(), logger, notes.callbacks)


def losing(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    """Let validations give these losses."""
    given: Iterator[float] = iter(losses)
    monkeypatch.setattr(Loop, "validate", lambda *_: next(given))


def assert_equal(one: TrainState, other: TrainState) -> None:
    """To the last bit."""
    for name in one.weights:
        assert mx.array_equal(one.weights[name], other.weights[name]), name
        for moment in ("m", "v"):
            ours, theirs = one.optimizer[name][moment], other.optimizer[name][moment]
            assert mx.array_equal(ours, theirs), (name, moment)


def test_a_run_saves_every_so_many_steps_and_at_its_end() -> None:
    run, notes = started(), Notes()
    last = loop(run, notes).run(run.trained, BEGINNING)
    assert notes.steps == [3, 6, 8]
    assert_equal(last, notes.saved[-1][0])
    n_tokens = [position.tokens for _, position in notes.saved]
    epoch = sum(len(row.tokens) for row in ROWS)
    assert n_tokens[:2] == [epoch, 2 * epoch] and 2 * epoch < n_tokens[2] < 3 * epoch
    assert notes.best == []


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_goes_on_ends_as_one_that_was_not_interrupted(
    dropout: float, accumulate: int
) -> None:
    run, whole = started(dropout), Notes()
    changes = {"accumulate": accumulate, "valid": VALID, "seed": 4}
    changes |= {"learning_rate": LearningRate(1e-2, "cosine", 2, 8 // accumulate)}
    last = loop(run, whole, **changes).run(run.trained, BEGINNING)
    for trained, position in whole.saved[:-1]:
        mx.random.seed(99)
        again = Notes()
        run_again = started(dropout)
        went_on = loop(run_again, again, **changes).run(trained, position)
        assert_equal(went_on, last)
        ends = [replace(notes.saved[-1][1], elapsed_s=0) for notes in (whole, again)]
        assert ends[0] == ends[1]


def test_a_run_that_goes_on_reports_what_one_that_was_not_interrupted_does(
    tmp_path: Path,
) -> None:
    """Steps between the last report and a checkpoint were once missing from the next report."""
    changes: dict[str, Any] = {"iters": 8, "save_every": 3, "steps_per_report": 4}
    run, whole = started(), Notes()
    loop(run, whole, metrics=tmp_path / "whole", **changes).run(run.trained, BEGINNING)
    trained, position = whole.saved[0]
    assert position.step == position.unreported.n_steps == 3
    run_again, file = started(), tmp_path / "again"
    loop(run_again, Notes(), metrics=file, start=position, **changes).run(trained, position)
    one, other = (
        [
            (line["step"], line["train_loss"], line["padding_share"], line["learning_rate"])
            for line in map(json.loads, path.read_text().splitlines())
        ]
        for path in (tmp_path / "whole", file)
    )
    assert one == other and [step for step, *_ in one] == [4, 8]


def test_dropout_changes_what_is_trained_but_not_what_validation_gives() -> None:
    runs = [started(dropout) for dropout in (0.0, 0.5)]
    loops = [loop(run, Notes(), VALID) for run in runs]
    # Dropout keeps layers from being packed, so their weights have other names.
    before = [one.validate(run.trained.weights) for one, run in zip(loops, runs, strict=True)]
    assert before[0] == pytest.approx(before[1], rel=1e-6)
    ends = [one.run(run.trained, BEGINNING) for one, run in zip(loops, runs, strict=True)]
    after = [one.validate(end.weights) for one, end in zip(loops, ends, strict=True)]
    assert abs(after[0] - after[1]) > 1e-4


def test_what_dropout_draws_depends_on_the_seed() -> None:
    ends = []
    for seed in (1, 1, 2):
        run = started(0.3)
        ends.append(loop(run, Notes(), seed=seed).run(run.trained, BEGINNING).weights)
    name = next(iter(ends[0]))
    assert mx.array_equal(ends[0][name], ends[1][name])
    assert not mx.array_equal(ends[0][name], ends[2][name])


def test_accumulated_batches_are_saved_at_the_end_of_their_group() -> None:
    run, notes = started(), Notes()
    loop(run, notes, iters=11, accumulate=4).run(run.trained, BEGINNING)
    assert notes.steps == [4, 8, 11]


def test_accumulated_batches_make_the_update_of_one_batch_of_all_their_rows() -> None:
    """Each trained token counts the same, however many there are in each batch."""
    run, notes = started(), Notes()
    trained = loop(run, notes, iters=3, accumulate=3).run(run.trained, BEGINNING)
    other = started()
    total = plain.summed(other)
    use_numpy_ops = other.step.update(other.trained, total, plain.n_trained(ROWS), 1e-2).trained
    for name, value in use_numpy_ops.weights.items():
        assert plain.difference(trained.weights[name], value) < 1e-5


def test_training_ends_when_patience_does(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch, 9.0, 5.0, 4.0, 4.5, 4.0)
    loop(run, notes, VALID, iters=20, patience=2).run(run.trained, BEGINNING)
    position = notes.saved[-1][1]
    assert position.step == 8 and notes.steps == [3, 6, 8]
    assert (position.best_loss, position.best_step, position.worse) == (4.0, 4, 2)
    assert len(notes.best) == 2


def test_the_validation_before_the_first_step_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that began at 0.126 once saved a later 0.178 as its best."""
    run, notes = started(), Notes()
    losing(monkeypatch, 0.126, 0.178, 0.15, 0.126, 0.2)
    loop(run, notes, VALID).run(run.trained, BEGINNING)
    position = notes.saved[-1][1]
    assert (position.best_loss, position.best_step, position.worse) == (0.126, 0, 4)
    assert notes.best == []


def test_patience_counts_from_the_validation_before_the_first_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch, 0.1, 0.2, 0.15)
    loop(run, notes, VALID, iters=20, patience=2).run(run.trained, BEGINNING)
    assert notes.steps == [3, 4]


def test_the_best_before_an_interruption_stays_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    for lowest, found in ((0.126, []), (0.18, [8])):
        run, notes = started(), Notes()
        losing(monkeypatch, 0.178)
        start = Position(6, 100, best_loss=lowest, best_step=0)
        loop(run, notes, VALID).run(run.trained, start)
        position = notes.saved[-1][1]
        assert position.best_loss == min(lowest, 0.178)
        assert [position.best_step] * len(notes.best) == found


def test_patience_lives_on_in_a_run_that_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch, 4.5)
    start = Position(6, 100, best_loss=4.0, best_step=4, worse=1)
    loop(run, notes, VALID, iters=20, patience=2).run(run.trained, start)
    assert notes.steps == [8] and notes.best == []


def test_a_run_that_had_ended_does_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch)
    start = Position(8, 100, best_loss=4.0, best_step=4, worse=2)
    assert loop(run, notes, VALID, iters=20, patience=2).run(run.trained, start) is run.trained
    assert loop(run, notes, VALID, iters=8).run(run.trained, start) is run.trained
    assert notes.saved == []


def test_a_loss_of_zero_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch, 9.0, 0.0, 1.0, 0.5, 0.25)
    loop(run, notes, VALID).run(run.trained, BEGINNING)
    assert notes.saved[-1][1].best_step == 2 and len(notes.best) == 1


def test_the_best_weights_are_those_of_the_lowest_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(), Notes()
    losing(monkeypatch, 9.0, 5.0, 6.0, 3.0, 4.0)
    loop(run, notes, VALID, save_every=2).run(run.trained, BEGINNING)
    at_six = next(trained for trained, position in notes.saved if position.step == 6)
    name = next(iter(at_six.weights))
    assert mx.array_equal(notes.best[-1][name], at_six.weights[name])


def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_save_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, notes = started(clip=0.0), Notes()
    monkeypatch.setattr(LearningRate, "at", lambda _, update: 1e-2 if update < 4 else 1e38)
    with pytest.raises(Diverged, match="step 6; lower --learning-rate"):
        loop(run, notes, save_every=2).run(run.trained, BEGINNING)
    assert notes.steps == [2, 4]


def test_weights_that_are_not_finite_are_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    run, notes = started(clip=0.0), Notes()
    monkeypatch.setattr(LearningRate, "at", lambda _, update: 1e-2 if update < 3 else math.inf)
    with pytest.raises(Diverged, match="weights are no longer finite at step 4"):
        loop(run, notes, save_every=2).run(run.trained, BEGINNING)
    assert notes.steps == [2]


def test_metrics_are_the_means_since_the_last_report() -> None:
    run, reports = started(), []

    class Heard(RunLogger):
        def step(self, report: Any) -> None:
            reports.append(report)

        def phase(self, name: str, total: int) -> AbstractContextManager[Any]:
            return nullcontext(lambda _: None)

    schedule = Schedule(3, LearningRate(1e-3, "linear", 0, 3))
    quiet = Heard(3, None, shown=False)
    Loop(run.step, run.loader, (), schedule, DistributedGroup(), quiet, Notes().callbacks).run(
        run.trained, BEGINNING
    )
    assert [report.step for report in reports] == [1, 2, 3]
    assert sum(report.n_trained for report in reports) == plain.n_trained(ROWS)
    assert sum(report.n_tokens for report in reports) == sum(len(row.tokens) for row in ROWS)
    assert [report.learning_rate for report in reports] == pytest.approx([1e-3, 2e-3 / 3, 1e-3 / 3])
