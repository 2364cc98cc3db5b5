"""What a run shows, writes to metrics.jsonl and hands to trackers."""

import json
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest

from calltune import terminal_text
from calltune.errors import DataError, OutputError
from calltune.training import logging
from calltune.training.logging import (
    Diverged,
    RunLogger,
    StepReport,
    Unreported,
)
from calltune.training.metrics_file import truncate_metrics

RECORDS = b'{"step": 0, "val_loss": 2.0}\n{"step": 10, "train_loss": 1.0}\n{"step": 20}\n'


class Clock:
    """A clock that moves only where a test moves it."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Recorder:
    """A tracker that keeps what it gets."""

    name = "recorder"

    def __init__(self) -> None:
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.is_finished = False

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.logged.append((step, metrics))

    def finish(self) -> None:
        self.is_finished = True


class Broken(Recorder):
    """A tracker whose service has gone away."""

    name = "broken"

    def __init__(self) -> None:
        super().__init__()
        self.n_calls = 0

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.n_calls += 1
        raise ConnectionError("gone\naway")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(logging, "perf_counter", clock)
    return clock


@pytest.fixture(autouse=True)
def piped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the tests themselves run in, standard output is no terminal."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "40")


def one(step: int, **other: Any) -> StepReport:
    plain = {
        "loss_sum": 20.0,
        "n_trained": 10,
        "n_tokens": 60,
        "n_padded": 80,
        "learning_rate": 1e-4,
    }
    return StepReport(step=step, **(plain | other))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    return tmp_path / "adapter" / "metrics.jsonl"


def test_a_report_has_the_means_over_the_steps_since_the_last(file: Path, clock: Clock) -> None:
    with RunLogger(100, file) as logger:
        clock.now += 7
        logger.step(one(1))
        logger.report(1)
        clock.now += 2
        logger.step(one(2, loss_sum=10.0, n_trained=5, n_tokens=30, learning_rate=2e-4))
        clock.now += 3
        logger.step(one(3, loss_sum=6.0, n_trained=3, n_tokens=120, n_padded=120))
        logger.report(3)
    first, second = lines(file)
    assert first["elapsed_s"] == 7 and first["train_loss"] == 2.0
    assert second.pop("peak_gb") >= 0
    assert second == {
        "step": 3,
        "train_loss": 2.0,
        "learning_rate": 1e-4,
        "padding_share": 0.25,
        "tokens_per_second": 30.0,
        "tokens": 210,
        "elapsed_s": 12.0,
    }


def test_the_loss_is_per_trained_token_not_per_step(file: Path, clock: Clock) -> None:
    with RunLogger(10, file) as logger:
        clock.now += 1
        logger.step(one(1, loss_sum=9.0, n_trained=9))
        logger.step(one(2, loss_sum=7.0, n_trained=1))
        logger.report(2)
    assert lines(file)[0]["train_loss"] == 1.6


def test_a_report_without_new_steps_is_none(
    file: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLogger(10, file) as logger:
        logger.report(0)
        clock.now += 1
        logger.step(one(1))
        logger.report(1)
        logger.report(1)
    assert len(lines(file)) == 1
    assert capsys.readouterr().out.count("\n") == 1


def test_phases_are_no_training_time(file: Path, clock: Clock) -> None:
    with RunLogger(10, file) as logger:
        with logger.phase("frozen layers", 8) as advance:
            clock.now += 100
            advance(8)
        clock.now += 2
        logger.step(one(1))
        with logger.phase("validating", 4):
            clock.now += 10
            with logger.phase("within", 2):
                clock.now += 5
            clock.now += 1
        clock.now += 1
        logger.step(one(2))
        logger.report(2)
    (line,) = lines(file)
    assert line["tokens_per_second"] == 40.0
    assert line["elapsed_s"] == 119.0


def test_the_time_of_a_phase_that_fails_is_left_out_too(file: Path, clock: Clock) -> None:
    with RunLogger(10, file) as logger:
        with pytest.raises(ZeroDivisionError), logger.phase("validating", 4):
            clock.now += 10
            raise ZeroDivisionError
        clock.now += 2
        logger.step(one(1))
        logger.report(1)
    assert lines(file)[0]["tokens_per_second"] == 30.0


def test_a_run_that_goes_on_counts_from_where_it_was(
    file: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = RunLogger(104, file, first_step=100, first_tokens=5000, first_elapsed_s=300.0)
    with logger:
        for step in (101, 102):
            clock.now += 60
            logger.step(one(step))
        logger.report(102)
    (line,) = lines(file)
    assert line["tokens"] == 5120 and line["elapsed_s"] == 420.0
    assert "2.0 min left" in capsys.readouterr().out


def test_steps_before_an_interruption_count_for_the_loss_and_not_for_the_speed(
    file: Path, clock: Clock
) -> None:
    before = Unreported(2, n_trained=10, n_tokens=100, n_padded=120, loss=40.0, learning_rate=1e-3)
    with RunLogger(10, file, first_step=2, unreported=before) as logger:
        for step in (3, 4):
            clock.now += 3
            logger.step(one(step))
        logger.report(4)
        assert logger.unreported == Unreported()
        clock.now += 2
        logger.step(one(5))
        logger.report(5)
    first, second = lines(file)
    assert first["train_loss"] == 80 / 30 and first["padding_share"] == 1 - 220 / 280
    assert (first["tokens_per_second"], second["tokens_per_second"]) == (20.0, 30.0)


@pytest.mark.parametrize(("step_s", "left"), [(6, "9.8 min left"), (120, "3.3 h left")])
def test_the_time_left_leaves_out_the_first_step(
    step_s: float, left: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLogger(100, None) as logger:
        clock.now += 1000
        logger.step(one(1))
        clock.now += step_s
        logger.step(one(2))
        logger.report(2)
    assert left in capsys.readouterr().out


def test_a_validation_is_printed_and_recorded(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunLogger(10, file) as logger:
        logger.validated(0, 1.5, 2.0, is_best=False)
        logger.validated(5, 1.25, 3.0, is_best=True)
    assert lines(file) == [
        {"step": 0, "val_loss": 1.5, "val_s": 2.0},
        {"step": 5, "val_loss": 1.25, "val_s": 3.0},
    ]
    assert capsys.readouterr().out == (
        "  step     0  valid loss 1.500\n  step     5  valid loss 1.250  best so far\n"
    )


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_step_that_is_no_number_ends_the_run(wrong: float, file: Path) -> None:
    tracker = Recorder()
    with (
        pytest.raises(Diverged, match=r"(nan|inf) at step 3; lower --learning-rate"),
        RunLogger(10, file, trackers=[tracker]) as logger,
    ):
        logger.step(one(3, loss_sum=wrong))
    assert not file.exists() and tracker.is_finished


def test_a_validation_that_is_no_number_ends_the_run(file: Path) -> None:
    with pytest.raises(Diverged, match="validation loss is nan"), RunLogger(10, file) as logger:
        logger.validated(5, float("nan"), 1.0, is_best=False)
    assert not file.exists()


def run_all(logger: RunLogger, clock: Clock) -> None:
    with logger:
        with logger.phase("validating", 2) as advance:
            advance(1)
        logger.validated(0, 2.0, 1.0, is_best=False)
        clock.now += 1
        logger.step(one(1))
        logger.report(1)
        logger.note("kept [bold]checkpoints[/bold] in a folder with quite a long name")


def test_piped_output_is_plain_lines(
    file: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    run_all(RunLogger(10, file), clock)
    printed = capsys.readouterr()
    valid, train, note = printed.out.splitlines()
    assert valid == "  step     0  valid loss 2.000"
    assert train.startswith("  step     1  train loss 2.000  60 tokens/s  ")
    assert train.endswith(" GB  0.1 min left")
    assert note == "kept [bold]checkpoints[/bold] in a folder with quite a long name"
    assert "\x1b" not in printed.out and printed.err == ""


def test_piped_output_is_not_silent_for_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_text, "SILENCE_S", 0.01)
    with RunLogger(10, None) as logger:
        with logger.phase("frozen layers", 340) as advance:
            advance(120)
            wait_for(capsys, "  frozen layers: 120 of 340\n")
        logger.step(one(3))
        wait_for(capsys, "  train: 3 of 10  loss 2.000  ")
        with logger.phase("validating", 7):
            wait_for(capsys, "  validating: 0 of 7\n")
    with RunLogger(10, None, shown=False) as logger, logger.phase("frozen layers", 340):
        sleep(0.05)
    assert capsys.readouterr().out == ""


def wait_for(capsys: pytest.CaptureFixture[str], text: str) -> None:
    printed, deadline = "", monotonic() + 10
    while text not in printed:
        assert monotonic() < deadline, printed
        sleep(0.002)
        printed += capsys.readouterr().out


def test_other_processes_print_nothing(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    run_all(RunLogger(10, None, shown=False), clock)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_has_a_live_line(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with RunLogger(10, None) as logger:
        with logger.phase("frozen layers", 7):
            during = capsys.readouterr().out
        clock.now += 2
        logger.step(one(1))
        before = capsys.readouterr().out
    # The line is drawn a last time before it is taken away.
    at_end = capsys.readouterr().out
    assert "frozen layers" in during and "0/7" in during
    assert "1/10" in before + at_end and "loss 2.000  30 tokens/s" in before + at_end
    assert "frozen layers" not in at_end
    assert at_end.endswith("\x1b[1A\x1b[2K")


def test_a_metrics_file_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Cannot write"), RunLogger(10, tmp_path) as logger:
        logger.validated(0, 1.0, 1.0, is_best=False)


def test_trackers_get_what_the_file_gets(file: Path, clock: Clock) -> None:
    tracker = Recorder()
    with RunLogger(10, file, trackers=[tracker]) as logger:
        clock.now += 1
        logger.step(one(1))
        logger.report(1)
        logger.validated(1, 1.5, 2.0, is_best=True)
        assert not tracker.is_finished
    assert [{"step": step} | metrics for step, metrics in tracker.logged] == lines(file)
    assert tracker.is_finished


def test_a_tracker_that_fails_is_let_go_and_training_goes_on(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, sound = Broken(), Recorder()
    with RunLogger(10, file, trackers=[broken, sound]) as logger:
        for step in (0, 5, 10):
            logger.validated(step, 1.0, 1.0, is_best=False)
    assert broken.n_calls == 1 and not broken.is_finished
    assert len(sound.logged) == len(lines(file)) == 3 and sound.is_finished
    said = "broken failed and is not used any more (ConnectionError: gone away)\n"
    assert capsys.readouterr().out.count(said) == 1


def test_a_tracker_that_cannot_finish_does_not_hide_the_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Unfinished(Recorder):
        def finish(self) -> None:
            raise RuntimeError("no answer")

    last = Recorder()
    with pytest.raises(KeyError), RunLogger(10, None, trackers=[Unfinished(), last]):
        raise KeyError("the training's own error")
    assert last.is_finished
    assert "no answer" in capsys.readouterr().out


def test_what_came_after_a_step_is_taken_out(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(RECORDS)
    assert truncate_metrics(file, 10) == 1
    assert file.read_bytes() == RECORDS[: RECORDS.index(b'{"step": 20}')]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", [b"", b'{"step": 3', b'{"step": 3}'])
def test_a_last_line_that_was_cut_is_taken_out(cut: bytes, tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(RECORDS + cut)
    assert truncate_metrics(file, 20) == bool(cut)
    assert file.read_bytes() == RECORDS


def test_a_whole_line_that_is_no_record_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    for line in (b"{\n", b"7\n", b'{"loss": 1}\n', b'{"step": null}\n'):
        file.write_bytes(RECORDS + line + RECORDS)
        with pytest.raises(DataError, match=r"line 4: no record of a step"):
            truncate_metrics(file, 5)
        assert file.read_bytes() == RECORDS + line + RECORDS


def test_without_a_file_there_is_nothing_to_take_out(tmp_path: Path) -> None:
    assert truncate_metrics(tmp_path / "metrics.jsonl", 10) == 0
    assert list(tmp_path.iterdir()) == []
