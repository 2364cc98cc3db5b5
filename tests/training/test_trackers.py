"""Trackers through their libraries' own functions, with fakes in the libraries' places."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from calltune.errors import OptionError, OutputError
from calltune.training.trackers import open_trackers

Calls = list[tuple[str, Any]]
LIBRARIES = {"tensorboard": "tensorboardX", "trackio": "trackio", "wandb": "wandb"}
CONFIG = {"iters": 500, "data": "data/training"}


def put(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """What the three libraries, all of them fakes, were asked to do."""
    calls: Calls = []
    _fake_tensorboard(monkeypatch, calls)
    _fake_services(monkeypatch, calls)
    return calls


def _fake_tensorboard(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    class EventsWriter:
        def __init__(self, prefix: str, suffix: str) -> None:
            assert Path(prefix).parent.is_dir()
            calls.append(("open", prefix))

        def write_event(self, event: Any) -> None:
            calls.append(("write", event))

        def flush(self) -> None:
            calls.append(("flush", None))

        def close(self) -> None:
            calls.append(("close", None))

    class SessionLog(SimpleNamespace):
        START = 1

    class Summary(SimpleNamespace):
        Value = SimpleNamespace

    def text(tag: str, content: str) -> Summary:
        return Summary(tag=tag, text=content)

    package = "tensorboardX"
    put(monkeypatch, package)
    put(monkeypatch, f"{package}.event_file_writer", EventsWriter=EventsWriter)
    put(monkeypatch, f"{package}.proto")
    put(monkeypatch, f"{package}.proto.event_pb2", Event=SimpleNamespace, SessionLog=SessionLog)
    put(monkeypatch, f"{package}.proto.summary_pb2", Summary=Summary)
    put(monkeypatch, f"{package}.summary", text=text)


def _fake_services(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    def log(metrics: dict[str, float], step: int | None = None) -> None:
        calls.append(("log", (step, metrics)))

    def finish() -> None:
        calls.append(("finish", None))

    def init(**arguments: Any) -> SimpleNamespace:
        calls.append(("init", arguments))
        return SimpleNamespace(log=log, finish=finish)

    put(monkeypatch, "wandb", init=init)
    put(monkeypatch, "trackio", init=init, log=log, finish=finish)


def use(name: str, folder: Path, first_step: int = 0) -> None:
    (tracker,) = open_trackers([name], folder, CONFIG, first_step)
    assert tracker.name == name
    tracker.log(10, {"train_loss": 1.5, "tokens": 900})
    tracker.finish()


def events(calls: Calls) -> list[Any]:
    return [event for call, event in calls if call == "write"]


def test_wandb_gets_the_run_its_options_and_its_numbers(calls: Calls, tmp_path: Path) -> None:
    use("wandb", tmp_path / "mine")
    (_, arguments), *others = calls
    assert arguments["project"] == "calltune" and arguments["name"] == "mine"
    assert arguments["config"] == CONFIG and Path(arguments["dir"]).is_dir()
    assert others == [("log", (10, {"train_loss": 1.5, "tokens": 900})), ("finish", None)]


def test_wandb_does_not_get_what_is_printed(calls: Calls, tmp_path: Path) -> None:
    use("wandb", tmp_path)
    assert calls[0][1]["settings"] == {"console": "off"}


@pytest.mark.parametrize(("first_step", "resume"), [(0, "never"), (100, "allow")])
def test_trackio_takes_up_a_run_that_goes_on(
    first_step: int, resume: str, calls: Calls, tmp_path: Path
) -> None:
    use("trackio", tmp_path / "mine", first_step)
    arguments = {"project": "calltune", "name": "mine", "config": CONFIG, "resume": resume}
    assert calls == [
        ("init", arguments),
        ("log", (10, {"train_loss": 1.5, "tokens": 900})),
        ("finish", None),
    ]


def test_tensorboard_gets_a_scalar_for_each_number(calls: Calls, tmp_path: Path) -> None:
    use("tensorboard", tmp_path)
    assert calls[0] == ("open", str(tmp_path / "tensorboard" / "events"))
    assert [call for call, _ in calls[-3:]] == ["write", "flush", "close"]
    options, report = events(calls)
    assert (options.step, options.summary.tag) == (0, "options")
    assert '"iters": 500' in options.summary.text
    assert all(line.startswith("    ") for line in options.summary.text.splitlines())
    assert report.step == 10 and report.wall_time > 0
    scalars = {value.tag: value.simple_value for value in report.summary.value}
    assert scalars == {"train_loss": 1.5, "tokens": 900}


def test_tensorboard_forgets_what_came_after_the_step_a_run_goes_on_from(
    calls: Calls, tmp_path: Path
) -> None:
    use("tensorboard", tmp_path, first_step=100)
    session = events(calls)[0]
    assert session.step == 101 and session.session_log.status == 1


def test_nothing_is_opened_that_is_not_named(calls: Calls, tmp_path: Path) -> None:
    assert open_trackers([], tmp_path, CONFIG) == []
    assert calls == []


def test_a_tracker_named_twice_is_opened_once(calls: Calls, tmp_path: Path) -> None:
    names = ["wandb", "trackio", "wandb"]
    assert [one.name for one in open_trackers(names, tmp_path, CONFIG)] == ["wandb", "trackio"]


def test_an_unknown_name_is_refused_before_anything_is_opened(calls: Calls, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="'mlflow'; known are tensorboard, trackio, wandb"):
        open_trackers(["wandb", "mlflow"], tmp_path, CONFIG)
    assert calls == []


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_missing_library_is_named(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, LIBRARIES[name], None)
    with pytest.raises(OptionError, match=f"python -m pip install {LIBRARIES[name]}") as caught:
        open_trackers([name], tmp_path / "mine", CONFIG)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "mine").exists()


def test_a_folder_named_like_a_library_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", ModuleType("wandb"))
    with pytest.raises(OptionError, match="python -m pip install wandb"):
        open_trackers(["wandb"], tmp_path, CONFIG)


def test_a_service_that_does_not_start_is_one_line_and_ends_the_others(
    calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("No API key configured.\nUse `wandb login`.")

    put(monkeypatch, "wandb", init=init)
    with pytest.raises(OptionError) as caught:
        open_trackers(["trackio", "wandb"], tmp_path, CONFIG)
    assert str(caught.value) == (
        "wandb did not start (No API key configured.); set it up or leave it out"
    )
    assert calls[-1] == ("finish", None)


def test_a_folder_that_cannot_be_made_is_an_output_error(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="Cannot write"):
        open_trackers(["tensorboard"], tmp_path / "file", CONFIG)


def test_no_library_is_imported_with_the_module() -> None:
    code = "import sys, calltune.training.trackers; print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(LIBRARIES.values()).isdisjoint(ended.stdout.split())
