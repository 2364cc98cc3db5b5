"""Experiment trackers: a run's metrics in TensorBoard, Trackio or Weights & Biases.

None is required, and none is opened unless it is named: wandb sends what it gets to its makers'
service; tensorboard and trackio keep it on this machine (trackio asks the Hugging Face Hub who the
user is where there is a token). APIs: https://docs.wandb.ai/ref/python and
https://huggingface.co/docs/trackio.

TensorBoard's files are written by tensorboardX, which needs numpy and protobuf only;
`torch.utils.tensorboard` would bring PyTorch.
"""

import importlib
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from calltune.errors import CalltuneError, OptionError
from calltune.files import dumps, output_error
from calltune.types import Json

PROJECT = "calltune"
"""The project that runs are listed under in wandb and trackio."""


class Tracker(Protocol):
    """Another place that a run's metrics go to."""

    @property
    def name(self) -> str:
        """The name of the tracker, as in --report-to."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Take the metrics of one report."""

    def finish(self) -> None:
        """Write what is buffered; nothing is logged afterwards."""


def open_trackers(
    names: Sequence[str], folder: Path, config: dict[str, Json], first_step: int = 0
) -> list[Tracker]:
    """The named trackers, opened, each once.

    `folder` is that of the adapter, `config` what is shown of the run, and `first_step` the number
    of steps that a resumed run has behind it. A resumed run appears as one run in tensorboard and
    trackio, and as a second run in wandb.

    Raises:
        OptionError: an unknown name, a library that is not installed, or one that does not start.
        OutputError: no event file can be created in `folder`.
    """
    for name in names:
        if name not in _OPENERS:
            raise OptionError(f"No tracker {name!r}; known are {', '.join(_OPENERS)}")
    run = _Run(folder, config, first_step)
    opened: list[Tracker] = []
    try:
        for name in dict.fromkeys(names):
            with _startup_errors(name):
                opened.append(_OPENERS[name](run))
    except BaseException:
        for tracker in opened:
            # The error to report is that a tracker could not be opened.
            with suppress(Exception):
                tracker.finish()
        raise
    return opened


@dataclass(frozen=True, slots=True)
class _Run:
    """What a tracker is told about a run when it is opened."""

    folder: Path
    """The adapter's folder; its name is the run's."""
    config: dict[str, Json]
    first_step: int
    """Steps already done: above 0 where the run is resumed."""

    @property
    def name(self) -> str:
        """The name of the run in the tracker's list."""
        return self.folder.resolve().name


class _TensorBoard:
    """An event file in the folder `tensorboard`, flushed at each report.

    tensorboardX's SummaryWriter hands events to a thread, and waits for ever once that thread has
    failed to write; its EventsWriter writes in the calling thread.
    """

    name = "tensorboard"

    def __init__(self, run: _Run) -> None:
        events_writer = _library("tensorboardX.event_file_writer", "EventsWriter")
        self._event = _library("tensorboardX.proto.event_pb2", "Event")
        self._summary = _library("tensorboardX.proto.summary_pb2", "Summary")
        text = _library("tensorboardX.summary", "text")
        folder = run.folder / "tensorboard"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # File names have whole seconds only: two runs may start within one.
            self._file = events_writer(str(folder / "events"), f".{os.getpid()}")
        except OSError as error:
            raise output_error(folder, error) from error
        if run.first_step:
            self._hide_after(run.first_step)
        # The page renders Markdown, in which indented text is shown as it is.
        options = textwrap.indent(dumps(run.config, indent=2), "    ")
        self._write(run.first_step, summary=text("options", options))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """One event with a scalar for each number."""
        values = [self._summary.Value(tag=tag, simple_value=metrics[tag]) for tag in metrics]
        self._write(step, summary=self._summary(value=values))

    def finish(self) -> None:
        """Close the file."""
        self._file.close()

    def _hide_after(self, step: int) -> None:
        """Let TensorBoard ignore what an earlier file recorded after `step`."""
        session = _library("tensorboardX.proto.event_pb2", "SessionLog")
        self._write(step + 1, session_log=session(status=session.START))

    def _write(self, step: int, **content: Any) -> None:
        self._file.write_event(self._event(step=step, wall_time=time.time(), **content))
        self._file.flush()


@dataclass(frozen=True, slots=True)
class _Service:
    """A tracker with wandb's functions."""

    name: str
    send: Callable[..., object]
    end: Callable[[], object]

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Pass the metrics on; the library decides when to send them."""
        self.send(metrics, step=step)

    def finish(self) -> None:
        """End the run, once all is written or sent."""
        self.end()


def _wandb(run: _Run) -> _Service:
    init = _library("wandb", "init")
    run.folder.mkdir(parents=True, exist_ok=True)
    # The output is the user's, and every update of the progress bar would be sent.
    opened = init(
        project=PROJECT,
        name=run.name,
        dir=str(run.folder),
        config=run.config,
        settings={"console": "off"},
    )
    return _Service("wandb", opened.log, opened.finish)


def _trackio(run: _Run) -> _Service:
    init = _library("trackio", "init")
    resume = "allow" if run.first_step else "never"
    init(project=PROJECT, name=run.name, config=run.config, resume=resume)
    return _Service("trackio", _library("trackio", "log"), _library("trackio", "finish"))


_OPENERS: dict[str, Callable[[_Run], Tracker]] = {
    "tensorboard": _TensorBoard,
    "trackio": _trackio,
    "wandb": _wandb,
}
"""How each known tracker is opened."""


@contextmanager
def _startup_errors(name: str) -> Iterator[None]:
    try:
        yield
    except CalltuneError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise OptionError(f"{name} did not start ({reason}); set it up or leave it out") from error


def _library(module: str, member: str) -> Any:
    """A member of a module that may not be installed."""
    try:
        # A folder of that name is a module too, but an empty one.
        return getattr(importlib.import_module(module), member)
    except (ImportError, AttributeError) as error:
        package = module.partition(".")[0]
        raise OptionError(
            f"Cannot use {package} ({error}); install it with python -m pip install {package}"
        ) from error
